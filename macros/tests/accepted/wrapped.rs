//! Fields of foreign types, with the ways to archive them that rkyv has and with one's own.

use std::path::PathBuf;
use std::time::SystemTime;

use ringcall::{Shape, UnixTime, WireWith};
use rkyv::rancor::Fallible;
use rkyv::ser::Writer;
use rkyv::string::{ArchivedString, StringResolver};
use rkyv::with::{ArchiveWith, DeserializeWith, SerializeWith};
use rkyv::{Place, SerializeUnsized};

struct AsText;

impl ArchiveWith<PathBuf> for AsText {
    type Archived = ArchivedString;
    type Resolver = StringResolver;

    fn resolve_with(path: &PathBuf, resolver: StringResolver, out: Place<ArchivedString>) {
        ArchivedString::resolve_from_str(&path.to_string_lossy(), resolver, out);
    }
}

impl<S: Fallible + Writer + ?Sized> SerializeWith<PathBuf, S> for AsText
where
    S::Error: rkyv::rancor::Source,
    str: SerializeUnsized<S>,
{
    fn serialize_with(path: &PathBuf, serializer: &mut S) -> Result<StringResolver, S::Error> {
        ArchivedString::serialize_from_str(&path.to_string_lossy(), serializer)
    }
}

impl<D: Fallible + ?Sized> DeserializeWith<ArchivedString, PathBuf, D> for AsText {
    fn deserialize_with(text: &ArchivedString, _: &mut D) -> Result<PathBuf, D::Error> {
        Ok(PathBuf::from(text.as_str()))
    }
}

impl WireWith<PathBuf> for AsText {
    fn describe(shape: &mut Shape) {
        shape.opaque::<ArchivedString>("path");
    }
}

#[ringcall::message(borrowed)]
#[derive(Debug)]
struct File {
    #[rkyv(with = AsText)]
    path: PathBuf,
    #[rkyv(attr(allow(dead_code)), with = UnixTime)]
    changed: SystemTime,
    len: u64,
}

#[ringcall::message]
enum Change {
    Removed(#[rkyv(with = AsText)] PathBuf),
    Renamed {
        #[rkyv(with = AsText)]
        from: PathBuf,
        #[rkyv(with = AsText)]
        to: PathBuf,
    },
}

#[ringcall::service]
trait Files {
    async fn look(&self, file: ringcall::View<File>) -> File;
    async fn next(&self) -> Change;
}

//! What rules see of a call.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use ringcall_core::frame::{ExtensionWriter, Extensions, is_metadata_key, tag};
use ringcall_core::method_id;

/// What rules see of a call.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    /// `package.Service/method`.
    pub name: &'a str,
    /// Its number.
    pub method: u64,
    /// What the call is about, see [`Balanced::keyed`](crate::Balanced::keyed).
    pub key: Option<u64>,
    /// TLVs: metadata, the group that is asked for.
    pub extensions: &'a [u8],
    /// The argument, as its caller has it; `None` if only its bytes are left.
    pub argument: Option<&'a dyn Any>,
}

impl<'a> Asked<'a> {
    /// A call of this method, and nothing with it.
    #[must_use]
    pub fn new(name: &'a str) -> Asked<'a> {
        Asked { name, method: method_id(name), key: None, extensions: &[], argument: None }
    }

    /// The first value of a key of metadata.
    pub(super) fn metadata(&self, key: &str) -> Option<&'a [u8]> {
        let mut entries = self.tlvs().filter(|(found, _)| *found == tag::METADATA);
        // Its length, the key, and the value. Keys of rules are keys, so one that is equal need not be looked at twice.
        entries.find_map(|(_, entry)| {
            let (len, entry) = entry.split_first()?;
            let (other, value) = entry.split_at_checked(usize::from(*len))?;
            (other == key.as_bytes()).then_some(value)
        })
    }

    /// The group that it asks for.
    pub(crate) fn group(&self) -> Option<&'a str> {
        let (_, group) = self.tlvs().find(|(found, _)| *found == tag::ASKED_GROUP)?;
        std::str::from_utf8(group).ok()
    }

    /// Whether it has an idempotency key.
    pub(crate) fn has_idempotency_key(&self) -> bool {
        self.tlvs().any(|(found, _)| found == tag::IDEMPOTENCY_KEY)
    }

    fn tlvs(&self) -> impl Iterator<Item = (u16, &'a [u8])> + use<'a> {
        let found = Extensions::new(self.extensions).map_while(Result::ok);
        found.map(|found| (found.tag, found.value))
    }
}

impl fmt::Debug for Asked<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Asked").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A call that is not made: to see what would become of it.
#[derive(Default)]
pub struct Sample {
    name: String,
    key: Option<u64>,
    extensions: ExtensionWriter,
    argument: Option<Box<dyn Any + Send + Sync>>,
}

impl Sample {
    /// A call of this method: `package.Service/method`.
    #[must_use]
    pub fn of(name: impl Into<String>) -> Sample {
        Sample { name: name.into(), ..Sample::default() }
    }

    /// With an entry of metadata. A call cannot have a key that is none, or an entry that fits no header: neither is
    /// taken over.
    #[must_use]
    pub fn metadata(self, key: &str, value: impl AsRef<[u8]>) -> Sample {
        if !is_metadata_key(key) {
            return self;
        }
        self.with(tag::METADATA, [&[key.len() as u8], key.as_bytes(), value.as_ref()])
    }

    /// Which asks for a group.
    #[must_use]
    pub fn group(self, group: &str) -> Sample {
        self.with(tag::ASKED_GROUP, [group.as_bytes()])
    }

    fn with<const N: usize>(mut self, tag: u16, parts: [&[u8]; N]) -> Sample {
        let _fits = self.extensions.push_parts(tag, parts);
        self
    }

    /// About something, see [`Balanced::keyed`](crate::Balanced::keyed).
    #[must_use]
    pub fn keyed(self, key: u64) -> Sample {
        Sample { key: Some(key), ..self }
    }

    /// With this argument.
    #[must_use]
    pub fn argument(self, argument: impl Any + Send + Sync) -> Sample {
        Sample { argument: Some(Box::new(argument)), ..self }
    }

    /// As rules see it.
    #[must_use]
    pub fn asked(&self) -> Asked<'_> {
        Asked {
            key: self.key,
            extensions: self.extensions.written(),
            argument: self.argument.as_deref().map(|argument| argument as &dyn Any),
            ..Asked::new(&self.name)
        }
    }
}

impl fmt::Debug for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sample").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A field of an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field<'a> {
    Text(&'a str),
    Number(u64),
}

type Read = dyn for<'a> Fn(&'a dyn Any) -> Option<Field<'a>> + Send + Sync;

/// Reads one field.
#[derive(Clone)]
pub(super) struct Reader {
    name: String,
    read: Arc<Read>,
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Reader").field(&self.name).finish()
    }
}

impl Reader {
    #[inline]
    pub(super) fn read<'a>(&self, argument: &'a dyn Any) -> Option<Field<'a>> {
        (self.read)(argument)
    }
}

/// How rules read fields of arguments: functions of yours, by name. Several of one name are for arguments of
/// several types.
///
/// ```
/// # struct Order { user: String, lots: u32 }
/// use ringcall_cluster::route::Fields;
///
/// let fields = Fields::new()
///     .text("user", |order: &Order| &order.user)
///     .number("lots", |order: &Order| order.lots.into());
/// ```
#[derive(Clone, Default)]
pub struct Fields(Vec<Reader>);

impl Fields {
    /// None.
    #[must_use]
    pub fn new() -> Fields {
        Fields::default()
    }

    /// A field that is a text.
    #[must_use]
    pub fn text<M: 'static>(
        self,
        name: impl Into<String>,
        read: impl for<'a> Fn(&'a M) -> &'a str + Send + Sync + 'static,
    ) -> Fields {
        self.with(
            name.into(),
            Arc::new(move |it: &dyn Any| Some(Field::Text(read(it.downcast_ref()?)))),
        )
    }

    /// A field that is a number.
    #[must_use]
    pub fn number<M: 'static>(
        self,
        name: impl Into<String>,
        read: impl Fn(&M) -> u64 + Send + Sync + 'static,
    ) -> Fields {
        self.with(
            name.into(),
            Arc::new(move |it: &dyn Any| Some(Field::Number(read(it.downcast_ref()?)))),
        )
    }

    fn with(mut self, name: String, read: Arc<Read>) -> Fields {
        self.0.push(Reader { name, read });
        self
    }

    /// All that read a field of this name.
    pub(super) fn readers(&self, name: &str) -> Box<[Reader]> {
        self.0.iter().filter(|reader| reader.name == name).cloned().collect()
    }
}

impl fmt::Debug for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.0).finish()
    }
}

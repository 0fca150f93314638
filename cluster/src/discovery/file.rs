//! A file as a source, who writes it, and a copy of the last good list on disk.
//!
//! The file is looked at again and again: its time, its length and its number. Three values of one system
//! call do not need a library that watches files, and they also work where watching does not: on network
//! file systems, and for files that are replaced by renaming.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use ringcall_core::Instant;

use super::text::{TEXT_BYTES_MAX, file_text};
use super::{Instance, Revision, Snapshot, Source, Update, format_list, read_list};

/// Reads a list of instances from a file (see [`read_list`]), and again when it has changed.
///
/// A file that is missing, or not a list, is an outage: what it said before counts. So is one that does not end with
/// a line break: it is being written, and what is there of its last line may look like an instance. Replace it by
/// renaming, as [`write_list`] does; one that is written in place may also be caught between two lines, which looks as if
/// instances had vanished.
///
/// Ages (`registered_ms`) are counted by this machine's clock, so they should be written by one that goes alike.
#[derive(Debug)]
pub struct FileSource {
    path: PathBuf,
    /// What was read last, and what is wrong with it: that is not read again either.
    seen: Option<(Stamp, Result<(), String>)>,
    number: u64,
    looked: Option<Instant>,
    /// What was complained about already.
    outage: Option<String>,
}

/// How a file is known to be another than before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    modified: (i64, i64),
    bytes: u64,
    inode: u64,
}

/// How often the file is looked at, at most.
const EVERY: Duration = Duration::from_millis(100);

impl FileSource {
    /// The list at this path.
    pub fn new(path: impl Into<PathBuf>) -> FileSource {
        FileSource { path: path.into(), seen: None, number: 0, looked: None, outage: None }
    }

    fn look(&mut self) -> Result<Option<Vec<Instance>>, String> {
        let failed = |error: io::Error| error.to_string();
        let stamp = stamp(&self.path).map_err(failed)?;
        if let Some((_, verdict)) = self.seen.as_ref().filter(|(seen, _)| *seen == stamp) {
            return verdict.clone().map(|()| None);
        }
        let text = read_text(&self.path).map_err(failed)?;
        let list = match text.ends_with('\n') {
            true => read_list(&text).map_err(|error| error.to_string()),
            false => Err("it does not end with a line break: it is being written".to_owned()),
        };
        self.seen = Some((stamp, list.as_ref().map(|_| ()).map_err(String::clone)));
        list.map(Some)
    }
}

impl Source for FileSource {
    fn poll_update(&mut self, now: Instant) -> Option<Update> {
        if self.looked.is_some_and(|at| now.since(at) < EVERY) {
            return None;
        }
        self.looked = Some(now);
        match self.look() {
            Ok(list) => {
                self.outage = None;
                let instances = list?;
                self.number += 1;
                let revision = Revision { epoch: 1, number: self.number };
                let snapshot = Snapshot { revision, instances };
                Some(Update::Snapshot { snapshot, clock_ms: Some(wall_clock_ms()) })
            }
            Err(reason) => {
                let reason = format!("{}: {reason}", self.path.display());
                let is_news = self.outage.as_ref() != Some(&reason);
                self.outage = Some(reason.clone());
                is_news.then_some(Update::Outage(reason))
            }
        }
    }
}

/// Looks at a file before it is opened: opening what is none, a pipe, may wait for ever.
fn stamp(path: &Path) -> io::Result<Stamp> {
    let about = fs::metadata(path)?;
    if !about.is_file() {
        return Err(bad("it is no file"));
    }
    if about.len() > TEXT_BYTES_MAX as u64 {
        return Err(bad(TOO_LARGE));
    }
    let modified = (about.mtime(), about.mtime_nsec());
    Ok(Stamp { modified, bytes: about.len(), inode: about.ino() })
}

/// Reads a file, which may have become larger since it was looked at.
fn read_text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let limit = TEXT_BYTES_MAX as u64 + 1;
    let bytes = File::open(path)?.take(limit).read_to_string(&mut text)?;
    if bytes > TEXT_BYTES_MAX { Err(bad(TOO_LARGE)) } else { Ok(text) }
}

const TOO_LARGE: &str = "it is larger than 16 MiB";

fn bad(what: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Replaces the list in a file by these instances, of any services, for [`FileSource`]s that read it. They see the old list
/// or the new one, whole, also if the machine stops in between: the new one is written beside it, flushed, and renamed.
/// What others added to the file by hand is gone. The new file has the permissions of the old one; a symbolic link is
/// replaced, not followed.
///
/// An empty list is written, too. Who reads it does not believe that it is empty, as of any source.
///
/// # Errors
/// When a source would refuse it: an instance that [may not be](Instance::check), two with the same name in a service, more
/// than 16 MiB; when an instance would be read as another one; when there is something else than a file; and when it cannot
/// be written. The old list is kept then.
pub fn write_list<'a>(
    path: impl AsRef<Path>,
    instances: impl IntoIterator<Item = &'a Instance>,
) -> io::Result<()> {
    let text =
        file_text(instances).map_err(|what| io::Error::new(io::ErrorKind::InvalidInput, what))?;
    replace(path.as_ref(), &text)
}

/// Names of files that are being written are not those of another thread's.
static WRITTEN: AtomicU64 = AtomicU64::new(0);

/// Replaces a file; whoever reads sees the old one or the new one, whole.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let old = match fs::metadata(path) {
        Ok(old) if !old.is_file() => return Err(bad("it is no file")),
        old => old.ok(),
    };
    let mut name = path.as_os_str().to_owned();
    let number = WRITTEN.fetch_add(1, Ordering::Relaxed);
    name.push(format!(".{}.{number}.new", std::process::id()));
    let new = PathBuf::from(name);
    let written = File::create(&new).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        if let Some(old) = old {
            file.set_permissions(old.permissions())?;
        }
        file.sync_all()
    });
    let renamed = written.and_then(|()| fs::rename(&new, path));
    match renamed {
        // That it is there is also to be on disk. Not every file system knows how to say so.
        Ok(()) => {
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
            let _may_fail =
                File::open(folder.unwrap_or(Path::new("."))).and_then(|it| it.sync_all());
        }
        Err(_) => {
            let _gone = fs::remove_file(&new);
        }
    }
    renamed
}

/// This machine's wall clock, in milliseconds since 1970: what [`DiskCache::save`] notes, and the clock of sources that
/// have no other, such as a file.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "a file says when instances were registered")]
pub fn wall_clock_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// The last good list on disk, for a process that starts while its source cannot be asked.
#[derive(Clone, Debug)]
pub struct DiskCache {
    path: PathBuf,
}

/// What a [`DiskCache`] had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cached {
    /// When it was written, in milliseconds since 1970.
    pub saved_ms: u64,
    /// The instances.
    pub instances: Vec<Instance>,
}

const HEAD: &str = "# ringcall instances, saved at ";

impl DiskCache {
    /// A cache at this path. One file holds one list: give each service its own.
    pub fn new(path: impl Into<PathBuf>) -> DiskCache {
        DiskCache { path: path.into() }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Replaces the list; whoever reads sees the old one or the new one, whole. An empty list is not saved.
    ///
    /// # Errors
    /// When it cannot be written; the old one is kept then.
    pub fn save<'a>(
        &self,
        saved_ms: u64,
        instances: impl IntoIterator<Item = &'a Instance>,
    ) -> io::Result<()> {
        let list = format_list(instances);
        if list.is_empty() {
            return Ok(());
        }
        replace(&self.path, &format!("{HEAD}{saved_ms}\n{list}"))
    }

    /// What was saved last.
    ///
    /// # Errors
    /// When there is none, or it is damaged.
    pub fn load(&self) -> io::Result<Cached> {
        let _is_file = stamp(&self.path)?;
        let text = read_text(&self.path)?;
        let head = text.lines().next().and_then(|line| line.strip_prefix(HEAD));
        let saved_ms = head.and_then(|number| number.parse().ok());
        let saved_ms = saved_ms.ok_or_else(|| bad("it is not a saved list"))?;
        let instances = read_list(&text).map_err(bad)?;
        Ok(Cached { saved_ms, instances })
    }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::net::SocketAddrV6;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::discovery::{Discovery, DiscoveryConfig, Wanted};

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Folder {
            let path = std::env::temp_dir().join(format!("ringcall-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Folder(path)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _gone = fs::remove_dir_all(&self.0);
        }
    }

    fn at(ms: u64) -> Instant {
        Instant::from_nanos(ms * 1_000_000)
    }

    fn names(update: Option<Update>) -> Vec<String> {
        match update {
            Some(Update::Snapshot { snapshot, .. }) => {
                snapshot.instances.into_iter().map(|it| it.name).collect()
            }
            other => panic!("not a snapshot: {other:?}"),
        }
    }

    #[test]
    fn a_file_is_read_again_when_it_has_changed() {
        let folder = Folder::new("file-source");
        let path = folder.0.join("list");
        let mut source = FileSource::new(&path);
        assert!(matches!(source.poll_update(at(0)), Some(Update::Outage(_))), "there is none yet");
        assert_eq!(source.poll_update(at(200)), None, "it was said already");
        fs::write(&path, "s a 127.0.0.1:1\n").unwrap();
        assert_eq!(source.poll_update(at(250)), None, "it is not looked at so often");
        assert_eq!(names(source.poll_update(at(300))), ["a"]);
        assert_eq!(source.poll_update(at(400)), None);
        fs::write(&path, "s a 127.0.0.1:1\ns b 127.0.0.1:2\n").unwrap();
        assert_eq!(names(source.poll_update(at(500))), ["a", "b"]);
        // Replaced by another of the same length.
        let other = folder.0.join("other");
        fs::write(&other, "s a 127.0.0.1:1\ns c 127.0.0.1:2\n").unwrap();
        fs::rename(&other, &path).unwrap();
        assert_eq!(names(source.poll_update(at(600))), ["a", "c"]);
    }

    #[test]
    fn a_list_that_is_written_is_read() {
        let folder = Folder::new("written-list");
        let path = folder.0.join("list");
        let mut source = FileSource::new(&path);
        let mut list =
            read_list("s a 127.0.0.1:1\ns b unix:/x%20y tag.k=v\nt a [::1]:1\n").unwrap();
        let mut read = |ms| match source.poll_update(at(ms)) {
            Some(Update::Snapshot { snapshot, .. }) => snapshot.instances,
            other => panic!("not a snapshot: {other:?}"),
        };
        write_list(&path, &list).unwrap();
        assert_eq!(read(100), list);
        list.swap(0, 1);
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        write_list(&path, &list).unwrap();
        assert_eq!(read(200), list, "another one of the same length");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        write_list(&path, &[]).unwrap();
        assert_eq!(read(300), []);
        assert_eq!(fs::read_dir(&folder.0).unwrap().count(), 1, "no file is left over");
    }

    #[test]
    fn g09_a_list_that_would_be_refused_is_not_written() {
        let folder = Folder::new("refused-list");
        let path = folder.0.join("list");
        let list = read_list("s a 127.0.0.1:1\ns b 127.0.0.1:2\n").unwrap();
        write_list(&path, &list).unwrap();
        let refused = |change: fn(&mut Vec<Instance>)| {
            let mut other = list.clone();
            change(&mut other);
            let error = write_list(&path, &other).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
            assert_eq!(read_list(&fs::read_to_string(&path).unwrap()).as_ref(), Ok(&list));
            error.to_string()
        };
        assert!(refused(|it| it[1].name.clear()).contains("no name"));
        assert!(refused(|it| it[1].name = "a\nb".into()).contains("\"a\\nb\": a text has"));
        assert!(refused(|it| it[1].weight = 10_001).contains("\"b\": its weight"));
        let twice = refused(|it| it.push(it[0].clone()));
        assert_eq!(twice, "there is another instance \"a\"");
        let flow = |it: &mut Vec<Instance>| {
            let ip = std::net::Ipv6Addr::LOCALHOST;
            it[0].address = std::net::SocketAddr::V6(SocketAddrV6::new(ip, 1, 7, 0)).into();
        };
        assert_eq!(refused(flow), "\"a\" cannot be written as it is");
        let long = |it: &mut Vec<Instance>| {
            let tags = (0..64).map(|n| (format!("{n:02}"), "x".repeat(126))).collect();
            let one = Instance { tags, ..it[0].clone() };
            it.extend((0..2100).map(|n| Instance { name: n.to_string(), ..one.clone() }));
        };
        assert!(refused(long).contains("larger than 16 MiB"));
        // What is no file is not replaced by one.
        let error = write_list(&folder.0, &list).unwrap_err().to_string();
        assert_eq!(error, "it is no file");
        assert_eq!(fs::read_dir(&folder.0).unwrap().count(), 1, "no file is left over");
    }

    #[test]
    fn g01_half_a_file_is_an_outage() {
        let folder = Folder::new("half-file");
        let path = folder.0.join("list");
        let mut source = FileSource::new(&path);
        fs::write(&path, "s a 127.0.0.1:1\n").unwrap();
        assert_eq!(names(source.poll_update(at(100))), ["a"]);
        fs::write(&path, "s a 127.0.0.1:1\ns b 127.0").unwrap();
        let Some(Update::Outage(reason)) = source.poll_update(at(200)) else { panic!("no outage") };
        assert!(reason.contains("does not end with a line break"), "{reason}");
        fs::write(&path, "s a 127.0.0.1:1\n").unwrap();
        assert_eq!(names(source.poll_update(at(300))), ["a"]);
        // What is there of a line may be one: the port was 2000.
        for (ms, half) in [(400, "s a 127.0.0.1:1\ns b 127.0.0.1:20"), (500, "")] {
            fs::write(&path, half).unwrap();
            let update = source.poll_update(at(ms));
            assert!(!matches!(update, Some(Update::Snapshot { .. })), "{update:?}");
        }
        fs::write(&path, "s a 127.0.0.1:1\ns b 127.0\n").unwrap();
        let Some(Update::Outage(reason)) = source.poll_update(at(9000)) else {
            panic!("no outage")
        };
        assert!(reason.contains("line 2"), "{reason}");
    }

    #[test]
    fn g01_what_is_no_file_is_not_waited_for() {
        let folder = Folder::new("no-file");
        let mut source = FileSource::new(&folder.0);
        let Some(Update::Outage(reason)) = source.poll_update(at(100)) else { panic!("no outage") };
        assert!(reason.contains("it is no file"), "{reason}");
        let path = folder.0.join("large");
        File::create(&path).unwrap().set_len(TEXT_BYTES_MAX as u64 + 1).unwrap();
        let mut source = FileSource::new(&path);
        let Some(Update::Outage(reason)) = source.poll_update(at(100)) else { panic!("no outage") };
        assert!(reason.contains("larger than 16 MiB"), "{reason}");
    }

    #[test]
    fn ages_in_a_file_count() {
        let folder = Folder::new("ages");
        let path = folder.0.join("list");
        let mut source = FileSource::new(&path);
        let wanted = Wanted::service("s");
        let mut discovery = Discovery::new(wanted, DiscoveryConfig::default()).unwrap();
        let mut look = |now, list: &str| {
            fs::write(&path, list).unwrap();
            discovery.handle_update(now, source.poll_update(now).unwrap());
            discovery.handle_timeout(now + Duration::from_secs(1));
            discovery.listing().instances.last().unwrap().since
        };
        assert_eq!(look(at(1000), "s a 127.0.0.1:1\n"), Instant::ZERO);
        let new = "s a 127.0.0.1:1\ns b 127.0.0.1:2\n";
        assert_eq!(look(at(9000), new), at(9000), "nothing is said of its age");
        let old = "s a 127.0.0.1:1\ns b 127.0.0.1:2\ns c 127.0.0.1:3 registered_ms=1\n";
        assert_eq!(look(at(20_000), old), Instant::ZERO, "it is as old as the epoch");
    }

    #[test]
    fn g01_the_last_good_list_is_kept_on_disk() {
        let folder = Folder::new("disk-cache");
        let cache = DiskCache::new(folder.0.join("cache"));
        assert!(cache.load().is_err());
        let instances = read_list("s a 127.0.0.1:1\ns b unix:/x%20y\n").unwrap();
        cache.save(17, &instances).unwrap();
        assert_eq!(cache.load().unwrap(), Cached { saved_ms: 17, instances: instances.clone() });
        cache.save(18, &[]).unwrap();
        assert_eq!(cache.load().unwrap().instances, instances, "nothing is not worth keeping");
        fs::write(cache.path(), "s a 127.0.0.1:1\n").unwrap();
        assert!(cache.load().is_err(), "somebody else's file");
        assert_eq!(fs::read_dir(&folder.0).unwrap().count(), 1, "no file is left over");
    }
}

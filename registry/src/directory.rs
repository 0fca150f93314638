//! Settings on disk: a file for each key, and what is in one.
//!
//! A file is text: five lines of what it is, and behind them what was put, as it is.
//!
//! ```text
//! ringcall setting 1
//! sha256 (of all that follows)
//! version 1700000000000 4711
//! over none
//! key shop
//! text
//! balancing = "ring"
//! ```

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use std::{fmt, process, str};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

use crate::settings::{KEY_BYTES_MAX, TEXT_BYTES_MAX};
use crate::{SettingRecord, Stamp};

/// The first line, with the version of what follows.
const MAGIC: &str = "ringcall setting 1";
/// How the names of files end.
const ENDING: &str = ".setting";
/// … of those that are being written. What is left of them was acknowledged to nobody.
const NEW: &str = ".new";
/// How often a directory is asked for that another process has, and how long after each other.
const ASKED: u32 = 50;
const ASKED_AGAIN: Duration = Duration::from_millis(20);
/// Of a file.
const FILE_BYTES_MAX: u64 = (TEXT_BYTES_MAX + KEY_BYTES_MAX + 1024) as u64;

/// Why a directory cannot be kept settings in.
#[derive(Debug)]
#[non_exhaustive]
pub enum BadDirectory {
    /// The system says so.
    Io {
        /// The directory, or a file in it.
        path: PathBuf,
        /// What it says.
        error: io::Error,
    },
    /// Another process keeps its settings there.
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// A file is not as it was written.
    Broken {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// There are more settings than a node may have.
    TooMuch {
        /// The directory.
        path: PathBuf,
    },
}

impl fmt::Display for BadDirectory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BadDirectory::Io { path, error } => write!(f, "{}: {error}", path.display()),
            BadDirectory::InUse { path } => {
                write!(f, "{}: another process keeps its settings there", path.display())
            }
            BadDirectory::Broken { path, what } => write!(
                f,
                "{}: the file is not as it was written: {what}. Put a copy of it in place; or move it away, and the \
                 setting is as other nodes have it, or gone",
                path.display()
            ),
            BadDirectory::TooMuch { path } => write!(
                f,
                "{}: there are more settings than twice `CentreConfig::keys_max` or `CentreConfig::bytes_max`",
                path.display()
            ),
        }
    }
}

impl std::error::Error for BadDirectory {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            BadDirectory::Io { error, .. } => Some(error),
            _ => None,
        }
    }
}

/// A directory, for as long as nobody else has it.
#[derive(Debug)]
pub(crate) struct Directory {
    path: PathBuf,
    /// It is locked, and flushed when a name in it has changed.
    folder: File,
}

impl Directory {
    /// Opens one, or makes it if the folder is there in which it is to be.
    pub(crate) fn open(path: &Path) -> Result<Directory, BadDirectory> {
        let bad = |error| BadDirectory::Io { path: path.to_owned(), error };
        match fs::create_dir(path) {
            // That it is there is to be on disk, too.
            Ok(()) => folder_of(path).and_then(|above| above.sync_all()).map_err(bad)?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(bad(error)),
        }
        let folder = File::open(path).map_err(bad)?;
        for is_last in (0..ASKED).map(|asked| asked == ASKED - 1) {
            match flock(&folder, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => break,
                Err(Errno::WOULDBLOCK) if is_last => {
                    return Err(BadDirectory::InUse { path: path.to_owned() });
                }
                // Who had it may be about to end.
                Err(Errno::WOULDBLOCK) => wait(ASKED_AGAIN),
                Err(error) => return Err(bad(error.into())),
            }
        }
        Ok(Directory { path: path.to_owned(), folder })
    }

    /// Reads all files, in the order of their names, and removes what is left of those that were being written.
    pub(crate) fn read(
        &self,
        mut take: impl FnMut(SettingRecord) -> bool,
    ) -> Result<(), BadDirectory> {
        let bad = |error| BadDirectory::Io { path: self.path.clone(), error };
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(bad)? {
            names.push(entry.map_err(bad)?.file_name());
        }
        names.sort();
        for name in names {
            let (path, name) = (self.path.join(&name), name.to_string_lossy());
            if name.strip_suffix(NEW).is_some_and(|name| name.ends_with(ENDING)) {
                fs::remove_file(&path).map_err(|error| BadDirectory::Io { path, error })?;
            } else if name.ends_with(ENDING) {
                let record = read_file(&path)?;
                if *name != file_name(&record.key) {
                    let what = format!("its name should be {}", file_name(&record.key));
                    return Err(BadDirectory::Broken { path, what });
                }
                if !take(record) {
                    return Err(BadDirectory::TooMuch { path: self.path.clone() });
                }
            } else {
                log::warn!("{} is no setting, and is left alone", path.display());
            }
        }
        // Who wrote the last of them may have ended before that was on disk, and others are about to be told of it.
        self.folder.sync_all().map_err(bad)
    }

    /// Keeps this in place of what is there of its key. It is on disk when this returns.
    pub(crate) fn write(&self, record: &SettingRecord) -> io::Result<()> {
        let name = file_name(&record.key);
        let new = self.path.join(format!("{name}{NEW}"));
        replace(&self.path.join(name), &new, &format(record), &self.folder)
    }

    /// Forgets a key.
    pub(crate) fn remove(&self, key: &str) -> io::Result<()> {
        match fs::remove_file(self.path.join(file_name(key))) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            removed => removed?,
        }
        self.folder.sync_all()
    }
}

#[expect(clippy::disallowed_methods, reason = "a node that starts has nothing else to do")]
fn wait(time: Duration) {
    std::thread::sleep(time);
}

/// A key may have any characters, and more of them than a name may have.
pub(crate) fn file_name(key: &str) -> String {
    format!("{}{ENDING}", hash(key.as_bytes()))
}

fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Replaces a file by a new one, so that whoever reads it sees the one before or this one, whole, also after a crash.
fn replace(path: &Path, new: &Path, bytes: &[u8], folder: &File) -> io::Result<()> {
    let mut file = File::create(new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(new, path)?;
    folder.sync_all()
}

/// Writes a setting to a file of its own, as a [cache](crate::ConfigWatch::cache).
pub(crate) fn write_file(path: &Path, record: &SettingRecord) -> io::Result<()> {
    static WRITTEN: AtomicU64 = AtomicU64::new(0);
    // Several processes of a machine may have one cache, and several threads of one: each time it is a file of its own.
    let mut new = path.as_os_str().to_owned();
    new.push(format!(".{}-{}{NEW}", process::id(), WRITTEN.fetch_add(1, Ordering::Relaxed)));
    let replaced = replace(path, Path::new(&new), &format(record), &folder_of(path)?);
    // Nobody else comes to it.
    replaced.inspect_err(|_| drop(fs::remove_file(&new)))
}

/// The folder that something is in.
fn folder_of(path: &Path) -> io::Result<File> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))
}

/// Reads a setting from a file.
pub(crate) fn read_file(path: &Path) -> Result<SettingRecord, BadDirectory> {
    let mut bytes = Vec::new();
    let read =
        File::open(path).and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes));
    read.map_err(|error| BadDirectory::Io { path: path.to_owned(), error })?;
    parse(&bytes).map_err(|what| BadDirectory::Broken { path: path.to_owned(), what })
}

fn format(record: &SettingRecord) -> Vec<u8> {
    let SettingRecord { key, text, version, over } = record;
    let stamp = |stamp: &Stamp| format!("{} {}", stamp.time, stamp.node);
    let over = over.as_ref().map_or("none".to_owned(), stamp);
    let text = match text {
        Some(text) => format!("text\n{text}"),
        None => "removed\n".to_owned(),
    };
    let body = format!("version {}\nover {over}\nkey {key}\n{text}", stamp(version));
    format!("{MAGIC}\nsha256 {}\n{body}", hash(body.as_bytes())).into_bytes()
}

/// What a file says, if it is as it was written; otherwise what is wrong with it.
fn parse(bytes: &[u8]) -> Result<SettingRecord, String> {
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err("it is longer than any setting".to_owned());
    }
    let text = str::from_utf8(bytes).map_err(|error| error.to_string())?;
    let body = text.strip_prefix(MAGIC).and_then(|rest| rest.strip_prefix('\n'));
    let body = body.ok_or_else(|| format!("its first line is not {MAGIC:?}"))?;
    let (sum, body) = line(body, "sha256 ")?;
    if sum != hash(body.as_bytes()) {
        return Err("its checksum is another one".to_owned());
    }
    let (version, body) = line(body, "version ")?;
    let (over, body) = line(body, "over ")?;
    let (key, body) = line(body, "key ")?;
    let text = match body.strip_prefix("text\n") {
        Some(text) => Some(text.to_owned()),
        None if body == "removed\n" => None,
        None => return Err("it has neither a text nor was it removed".to_owned()),
    };
    let over = match over {
        "none" => None,
        over => Some(stamp(over)?),
    };
    let record = SettingRecord { key: key.to_owned(), text, version: stamp(version)?, over };
    record.check()?;
    Ok(record)
}

/// What a line says behind this, and what is behind the line.
fn line<'a>(text: &'a str, what: &str) -> Result<(&'a str, &'a str), String> {
    let line = text.split_once('\n');
    let line = line.and_then(|(line, rest)| Some((line.strip_prefix(what)?, rest)));
    line.ok_or_else(|| format!("a line is missing: {}", what.trim_end()))
}

fn stamp(text: &str) -> Result<Stamp, String> {
    let stamp = text.split_once(' ').and_then(|(time, node)| {
        Some(Stamp { time: time.parse().ok()?, node: node.parse().ok()? })
    });
    stamp.ok_or_else(|| "a version is two numbers".to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::Index;

    use super::*;
    use crate::shelf::is_key;

    fn records() -> impl Strategy<Value = SettingRecord> {
        let stamp =
            || (0..=u64::MAX / 2, any::<u64>()).prop_map(|(time, node)| Stamp { time, node });
        let key = "\\PC{1,60}".prop_filter("a key", |key| is_key(key));
        let text = proptest::option::of("(\\PC|\n){0,80}");
        (key, text, stamp(), proptest::option::of(stamp()))
            .prop_map(|(key, text, version, over)| SettingRecord { key, text, version, over })
    }

    /// A file of which only the checksum is right.
    fn with_checksum(body: &str) -> Vec<u8> {
        format!("{MAGIC}\nsha256 {}\n{body}", hash(body.as_bytes())).into_bytes()
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(record in records()) {
            prop_assert_eq!(parse(&format(&record)), Ok(record));
        }

        #[test]
        fn g21_a_file_that_is_not_as_it_was_written_is_no_setting(
            record in records(),
            at in any::<Index>(),
            bits in 1u8..,
            how in 0u8..4,
        ) {
            let mut bytes = format(&record);
            let at = at.index(bytes.len());
            match how {
                0 => bytes[at] ^= bits,
                1 => bytes.truncate(at),
                2 => bytes.insert(at, bits),
                // As a file is whose length was on disk before what is in it.
                _ => bytes[at..].fill(0),
            }
            prop_assume!(bytes != format(&record));
            prop_assert!(parse(&bytes).is_err());
        }

        #[test]
        fn g21_any_bytes_are_read_to_their_end(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(parse(&bytes).is_err());
        }

        #[test]
        fn g21_what_has_its_checksum_is_a_setting_that_may_be_or_none(
            words in proptest::collection::vec(
                prop_oneof![
                    "version |over |key |text|removed|none|\n|\n|[0-9]{1,3} ?|18446744073709551615 |9{19,21} ",
                    "\\PC{0,4}|[\\x00-\\x20]",
                ],
                0..14,
            )
        ) {
            if let Ok(record) = parse(&with_checksum(&words.concat())) {
                prop_assert_eq!(record.check(), Ok(()));
            }
        }

        #[test]
        fn of_numbers_and_keys_those_are_read_that_may_be(
            time in prop_oneof![any::<u64>(), Just(u64::MAX), 0u64..9],
            key in "\\PC{0,3}|[\\x00-\\x20]{1,2}",
        ) {
            let read = parse(&with_checksum(&format!("version {time} 1\nover none\nkey {key}\ntext\n")));
            prop_assert_eq!(read.is_ok(), is_key(&key) && time <= u64::MAX / 2);
        }
    }

    #[test]
    fn a_file_that_two_threads_write_is_one_of_theirs() {
        let folder = std::env::temp_dir().join(format!("ringcall-two-{}", process::id()));
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join("shop.setting");
        let record = |number: u64| SettingRecord {
            key: "shop".to_owned(),
            text: Some(number.to_string().repeat(100_000)),
            version: Stamp { time: number, node: 1 },
            over: None,
        };
        std::thread::scope(|scope| {
            for thread in 1..4 {
                let path = &path;
                scope.spawn(move || {
                    for _ in 0..50 {
                        write_file(path, &record(thread)).unwrap();
                        let read = read_file(path).unwrap();
                        assert_eq!(read, record(read.version.time));
                    }
                });
            }
        });
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_file_is_longer_than_no_setting() {
        let version = Stamp { time: u64::MAX / 2, node: u64::MAX };
        let (key, text) = ("k".repeat(KEY_BYTES_MAX), "x".repeat(TEXT_BYTES_MAX));
        let record = SettingRecord { key, text: Some(text), version, over: Some(version) };
        assert_eq!(parse(&format(&record)), Ok(record));
        let long = "x".repeat(TEXT_BYTES_MAX + 1);
        let long = with_checksum(&format!("version 1 1\nover none\nkey k\ntext\n{long}"));
        assert_eq!(parse(&long).unwrap_err(), "a text has at most 256 KiB");
        assert_eq!(parse(&vec![0; 400_000]).unwrap_err(), "it is longer than any setting");
    }
}

//! Open files whose ranges are bodies.

use std::any::Any;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use ringcall_core::{External, Object, ObjectError};

/// An open regular file whose ranges can be sent as bodies, and bodies be written to. Clones are the same
/// file; the last of them, or of its ranges, closes it, on whichever thread that is.
///
/// A range is read when it is sent, not before: whoever changes the file meanwhile decides what arrives, a
/// part of either version perhaps. A file that becomes shorter than its range ends the call with an error on
/// both sides; one that is unlinked or renamed does not matter.
///
/// Reading a part of a file that is not in the page cache blocks the shard until the disk has brought it. Have
/// cold files read ahead (`posix_fadvise`, `readahead`) by the pool if that matters.
#[derive(Clone, Debug)]
pub struct SharedFile(Arc<Inner>);

#[derive(Debug)]
struct Inner(File);

impl SharedFile {
    /// Shares a file.
    ///
    /// # Errors
    /// When it is not a regular file: those can make a thread wait without bound.
    pub fn new(file: File) -> io::Result<SharedFile> {
        match file.metadata()?.is_file() {
            true => Ok(SharedFile(Arc::new(Inner(file)))),
            false => Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")),
        }
    }

    /// The file.
    #[must_use]
    pub fn get(&self) -> &File {
        &self.0.0
    }

    /// `len` bytes from `offset` on, to be sent or to be written to.
    #[must_use]
    pub fn range(&self, offset: u64, len: usize) -> External {
        External::new(Arc::clone(&self.0) as Arc<dyn Object>, offset, len)
    }

    /// All of it, as long as it is now.
    ///
    /// # Errors
    /// When its length cannot be asked for, or is more than memory could hold.
    pub fn whole(&self) -> io::Result<External> {
        let len = self.get().metadata()?.len();
        Ok(self.range(0, usize::try_from(len).map_err(|_| io::ErrorKind::FileTooLarge)?))
    }

    /// The descriptor behind an object, if it is a file.
    #[must_use]
    pub fn fd_of(object: &dyn Object) -> Option<BorrowedFd<'_>> {
        let object: &dyn Any = object;
        object.downcast_ref::<Inner>().map(|inner| inner.0.as_fd())
    }
}

impl TryFrom<File> for SharedFile {
    type Error = io::Error;

    fn try_from(file: File) -> io::Result<SharedFile> {
        SharedFile::new(file)
    }
}

impl Object for Inner {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<usize, ObjectError> {
        loop {
            match self.0.read_at(into, offset) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result.map_err(|error| os(&error)),
            }
        }
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), ObjectError> {
        self.0.write_all_at(bytes, offset).map_err(|error| os(&error))
    }
}

fn os(error: &io::Error) -> ObjectError {
    ObjectError::Os(error.raw_os_error().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn only_regular_files_are_shared() {
        assert!(SharedFile::new(File::open("/dev/null").unwrap()).is_err());
        assert!(SharedFile::new(File::open("/").unwrap()).is_err());
    }

    #[test]
    fn ranges_are_read_and_written_where_they_are() {
        let path = std::env::temp_dir().join(format!("ringcall-file-{}", std::process::id()));
        let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        std::fs::remove_file(path).unwrap();
        (&file).write_all(b"0123456789").unwrap();
        let file = SharedFile::new(file).unwrap();
        let whole = file.whole().unwrap();
        assert_eq!(whole.len(), 10);
        let mut some = [0; 4];
        let range = file.range(3, 4);
        drop(file);
        range.read(&mut some).unwrap();
        assert_eq!(&some, b"3456");
        range.object().write_at(range.offset(), b"abcd").unwrap();
        let mut all = [0; 10];
        whole.read(&mut all).unwrap();
        assert_eq!(&all, b"012abcd789");
        let beyond = External::new(Arc::clone(range.object()), 8, 4);
        assert_eq!(beyond.read(&mut some), Err(ObjectError::Ended));
    }
}

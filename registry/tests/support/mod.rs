//! What tests of the registry share.
#![allow(unreachable_pub, dead_code, reason = "a module of tests, of which each uses a part")]

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Says who it is.
#[ringcall::service(name = "test.Who")]
pub trait Who {
    #[method(idempotent, deadline = "10s")]
    async fn am_i(&self) -> String;
}

pub struct Named(pub &'static str);

impl Who for Named {
    async fn am_i(&self) -> String {
        self.0.to_owned()
    }
}

/// A folder of its own for each test: with sockets, whose addresses are known before anybody listens.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> Folder {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder = format!("ringcall-registry-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(folder);
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub fn address(&self, name: &str) -> String {
        format!("unix:{}", self.path(name).display())
    }

    pub fn addresses(&self, names: &[&str]) -> Vec<String> {
        names.iter().map(|name| self.address(name)).collect()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The files in a folder that end so.
pub fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.to_string_lossy().ends_with(ending)).collect()
}

/// Waits until something is so, for as long as a busy machine may take.
pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..6000 {
        if is_so() {
            return;
        }
        pause(Duration::from_millis(5));
    }
    panic!("never: {what}");
}

#[expect(clippy::disallowed_methods, reason = "tests may sleep")]
pub fn pause(time: Duration) {
    std::thread::sleep(time);
}

//! A control group that bounds a server's memory, where one can be made.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Removed when it is dropped, by when its processes must have ended.
pub(crate) struct Group {
    folder: PathBuf,
    peak: &'static str,
}

/// Where groups are, what bounds their memory, and what tells the most that they had.
const KINDS: [(&str, &str, &str, &str); 3] = [
    ("v2", "/sys/fs/cgroup", "memory.max", "memory.peak"),
    ("v2", "/sys/fs/cgroup/unified", "memory.max", "memory.peak"),
    ("v1", "/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.max_usage_in_bytes"),
];

impl Group {
    /// The group, and which kind it is.
    pub(crate) fn new(bytes: u64) -> Option<(Group, &'static str)> {
        KINDS.into_iter().find_map(|(kind, root, limit, peak)| {
            let folder = Path::new(root).join(format!("ringcall-hostile-{}", std::process::id()));
            fs::create_dir(&folder).ok()?;
            let group = Group { folder, peak };
            // Where no controller is, there is no such file, and on a tmpfs one could be made.
            let limit = OpenOptions::new().write(true).open(group.folder.join(limit));
            limit.ok()?.write_all(bytes.to_string().as_bytes()).ok()?;
            Some((group, kind))
        })
    }

    /// What a process writes its number to, to enter.
    pub(crate) fn entrance(&self) -> String {
        self.folder.join("cgroup.procs").display().to_string()
    }

    /// The most that it had, the kernel's memory for it included.
    pub(crate) fn peak(&self) -> Option<u64> {
        fs::read_to_string(self.folder.join(self.peak)).ok()?.trim().parse().ok()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.folder);
    }
}

//! How much memory this process may have: what the machine has, or what its control group allows, if that is less.

use std::fs;
use std::path::Path;

/// Where the kernel says which control groups a process is in, and where they are mounted, with the file that has
/// the limit: of version 2 and of version 1.
const OWN_GROUPS: &str = "/proc/self/cgroup";
const VERSION_2: (&str, &str) = ("/sys/fs/cgroup", "memory.max");
const VERSION_1: (&str, &str) = ("/sys/fs/cgroup/memory", "memory.limit_in_bytes");

/// How many bytes of memory this process may have, as far as this can be found out: the machine's, and the limits of
/// the control groups that it is in, of either version. It is read anew each time.
#[must_use]
pub fn memory_max() -> Option<usize> {
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| total_of(&text));
    let groups = fs::read_to_string(OWN_GROUPS).unwrap_or_default();
    let limits = groups.lines().filter_map(group_of).filter_map(|((root, file), path)| {
        // Every group above limits those beneath it. In a container a part of the path may be hidden, and the
        // root is its own.
        let folders = Path::new(path.trim_start_matches('/')).ancestors();
        folders.filter_map(|folder| limit_in(&Path::new(root).join(folder).join(file))).min()
    });
    limits.chain(machine).min().map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX))
}

/// The memory of the machine, from `/proc/meminfo`.
fn total_of(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// Where the limits of a group are, and its path there: of a line `id:controllers:path`.
fn group_of(line: &str) -> Option<((&'static str, &'static str), &str)> {
    let mut parts = line.splitn(3, ':').skip(1);
    let (controllers, path) = (parts.next()?, parts.next()?);
    match controllers {
        "" => Some((VERSION_2, path)),
        _ if controllers.split(',').any(|name| name == "memory") => Some((VERSION_1, path)),
        _ => None,
    }
}

/// `max` is none.
fn limit_in(file: &Path) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn e26_the_kernel_says_how_much_memory_there_is() {
        assert_eq!(total_of("MemTotal:       2048 kB\nMemFree: 1 kB\n"), Some(2 << 20));
        assert_eq!(total_of("MemTotal: many kB\n"), None);
        let own = memory_max().expect("there is some");
        assert!(own > 16 << 20, "{own}");
    }

    #[test]
    fn e26_control_groups_of_either_version_are_known() {
        assert_eq!(group_of("0::/a/b"), Some((VERSION_2, "/a/b")));
        assert_eq!(group_of("4:memory:/x:y"), Some((VERSION_1, "/x:y")));
        assert_eq!(group_of("4:cpu,memory:/"), Some((VERSION_1, "/")));
        assert_eq!(group_of("4:cpu,cpuacct:/"), None);
        assert_eq!(group_of("nonsense"), None);
    }
}

//! The memory that this process can still have, by the limits of the system.
//!
//! In: the files in which Linux states them. Out: the smallest. Other systems state none here.

use std::path::Path;

/// What a limit leaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Available {
    /// In bytes.
    pub(crate) bytes: u64,
    /// The limit.
    pub(crate) by: &'static str,
}

/// Returns what the strictest limit leaves; `None` where the system states none.
pub(crate) fn available() -> Option<Available> {
    below(Path::new("/"))
}

/// As [`available`], by the files below `root`.
fn below(root: &Path) -> Option<Available> {
    let limits = [
        ("of this machine", of_machine(root)),
        ("by ulimit -v", of_process(root)),
        ("by the cgroup", of_cgroups(root)),
    ];
    let left = limits.into_iter().filter_map(|(by, bytes)| Some(Available { by, bytes: bytes? }));
    left.min_by_key(|left| left.bytes)
}

fn read(path: &Path) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

/// Reads the number after `key` and the spaces that follow it, at the start of a line.
fn number(text: &str, key: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(key))?;
    rest.split_whitespace().next()?.parse().ok()
}

/// What other programs leave, with the swap.
fn of_machine(root: &Path) -> Option<u64> {
    let text = read(&root.join("proc/meminfo"))?;
    let kib = number(&text, "MemAvailable:")? + number(&text, "SwapFree:").unwrap_or(0);
    Some(1024 * kib)
}

/// What the limit of the process's address space leaves.
fn of_process(root: &Path) -> Option<u64> {
    let limit = number(&read(&root.join("proc/self/limits"))?, "Max address space")?;
    let used = 1024 * number(&read(&root.join("proc/self/status"))?, "VmSize:")?;
    Some(limit.saturating_sub(used))
}

/// What the process's cgroups and those around them leave, of either version.
fn of_cgroups(root: &Path) -> Option<u64> {
    let memberships = read(&root.join("proc/self/cgroup"))?;
    let left = memberships.lines().filter_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        let (mounts, files): (&[&str], _) = match controllers {
            "" => (&["sys/fs/cgroup", "sys/fs/cgroup/unified"], V2),
            _ if controllers.split(',').any(|one| one == "memory") => (&["sys/fs/cgroup/memory"], V1),
            _ => return None,
        };
        // In a container the mount may begin at its own group, whose path is then that of the host.
        let groups = || Path::new(path.trim_start_matches('/')).ancestors();
        mounts
            .iter()
            .flat_map(|mount| groups().map(move |group| root.join(mount).join(group)))
            .filter_map(|group| of_cgroup(&group, &files))
            .min()
    });
    left.min()
}

/// The names of a cgroup's files, and of the file cache in its statistics, which gives way.
struct Files {
    limit: &'static str,
    used: &'static str,
    cache: [&'static str; 2],
}

const V1: Files = Files {
    limit: "memory.limit_in_bytes",
    used: "memory.usage_in_bytes",
    cache: ["total_inactive_file", "total_active_file"],
};
const V2: Files =
    Files { limit: "memory.max", used: "memory.current", cache: ["inactive_file", "active_file"] };

fn of_cgroup(group: &Path, files: &Files) -> Option<u64> {
    let number_in = |name| read(&group.join(name)).and_then(|text| number(&text, ""));
    let (limit, used) = (number_in(files.limit)?, number_in(files.used)?);
    let statistics = read(&group.join("memory.stat")).unwrap_or_default();
    let cache: u64 = files.cache.iter().filter_map(|key| number(&statistics, &format!("{key} "))).sum();
    Some(limit.saturating_sub(used.saturating_sub(cache)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Files with their contents.
    fn system(files: &[(&str, &str)]) -> Option<Available> {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        below(folder.path())
    }

    const MACHINE: (&str, &str) =
        ("proc/meminfo", "MemTotal:  9000 kB\nMemAvailable:    5000 kB\nSwapFree:   1000 kB\n");
    const STATUS: (&str, &str) = ("proc/self/status", "VmPeak:\t 900 kB\nVmSize:\t 800 kB\n");

    fn limits(bytes: &str) -> String {
        format!("Limit  Soft Limit  Hard Limit  Units\nMax address space         {bytes}  unlimited  bytes\n")
    }

    #[test]
    fn the_strictest_limit_counts() {
        let left = |by, bytes| Some(Available { bytes, by });
        assert_eq!(system(&[]), None);
        assert_eq!(system(&[MACHINE]), left("of this machine", 6000 << 10));
        let unlimited = limits("unlimited");
        assert_eq!(
            system(&[MACHINE, STATUS, ("proc/self/limits", &unlimited)]),
            left("of this machine", 6000 << 10)
        );
        let limited = limits("2048000");
        assert_eq!(
            system(&[MACHINE, STATUS, ("proc/self/limits", &limited)]),
            left("by ulimit -v", 1200 << 10)
        );
        let passed = limits("1000");
        assert_eq!(system(&[MACHINE, STATUS, ("proc/self/limits", &passed)]), left("by ulimit -v", 0));
    }

    #[test]
    fn cgroups_of_both_versions_and_those_around_them_count() {
        let v2 = [
            MACHINE,
            ("proc/self/cgroup", "0::/a/b\n"),
            ("sys/fs/cgroup/a/b/memory.max", "max\n"),
            ("sys/fs/cgroup/a/b/memory.current", "100\n"),
            ("sys/fs/cgroup/a/memory.max", "3000\n"),
            ("sys/fs/cgroup/a/memory.current", "2500\n"),
            ("sys/fs/cgroup/a/memory.stat", "anon 2000\ninactive_file 300\nactive_file 200\n"),
        ];
        assert_eq!(system(&v2), Some(Available { bytes: 1000, by: "by the cgroup" }));
        let v1 = [
            MACHINE,
            ("proc/self/cgroup", "5:cpu,cpuacct:/\n4:memory:/docker/x\n0::/\n"),
            // The mount begins at the group itself.
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "4000\n"),
            ("sys/fs/cgroup/memory/memory.usage_in_bytes", "3000\n"),
            ("sys/fs/cgroup/memory/memory.stat", "inactive_file 1\ntotal_inactive_file 500\n"),
        ];
        assert_eq!(system(&v1), Some(Available { bytes: 1500, by: "by the cgroup" }));
        let unlimited = [
            MACHINE,
            ("proc/self/cgroup", "4:memory:/\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ("sys/fs/cgroup/memory/memory.usage_in_bytes", "3000\n"),
        ];
        assert_eq!(system(&unlimited), Some(Available { bytes: 6000 << 10, by: "of this machine" }));
    }
}

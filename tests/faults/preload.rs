//! The library of `preload.c`: compiled once, and what is asked of it.

use std::collections::BTreeMap;
use std::fmt::{Display, Formatter};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::common::program::{Folder, project_file};

/// A call on a file, as the library logs it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Call {
    /// The first word of the program's arguments.
    pub command: String,
    pub name: String,
    /// Relative to the folder; a pattern where names are chosen by chance.
    pub path: String,
    /// Among those of this name and path, from 1.
    pub nth: usize,
}

/// A call that fails.
#[derive(Clone, Debug)]
pub struct Fault {
    pub call: Call,
    /// And every one after it.
    pub is_for_good: bool,
    /// An errno or an action of the library.
    pub action: &'static str,
}

impl Fault {
    /// Every way in which a call may fail.
    pub fn of(call: &Call) -> Vec<Fault> {
        let once_and_for_good = |&(action, is_also_for_good): &(&'static str, bool)| {
            let fault = |is_for_good| Fault { call: call.clone(), is_for_good, action };
            [Some(fault(false)), is_also_for_good.then(|| fault(true))]
        };
        actions(call).iter().flat_map(once_and_for_good).flatten().collect()
    }
}

impl Display for Fault {
    fn fmt(&self, f: &mut Formatter) -> std::fmt::Result {
        let Call { command, name, path, nth } = &self.call;
        let when = if self.is_for_good { "always" } else { "once" };
        write!(f, "{command} {name} {path} {nth} {when} {}", self.action)
    }
}

/// The library's path.
pub fn library() -> &'static Path {
    static BUILT: OnceLock<(Folder, PathBuf)> = OnceLock::new();
    let (_, path) = BUILT.get_or_init(|| {
        let folder = Folder::new();
        let path = folder.path("faults.so");
        let mut gcc = Command::new("gcc");
        gcc.args(["-O1", "-Wall", "-Wextra", "-shared", "-fPIC", "-o"]).arg(&path);
        let status = gcc.arg(project_file("tests/faults/preload.c")).arg("-ldl").status();
        assert!(status.expect("gcc is installed").success());
        (folder, path)
    });
    path
}

/// The calls that a log lists, each with its number in its process.
pub fn calls(log: &str) -> Vec<Call> {
    let mut seen = BTreeMap::new();
    let call = |line: &str| {
        let mut words = line.strip_prefix("call ")?.splitn(4, ' ').map(str::to_owned);
        let [process, command, name, path] =
            [(); 4].map(|()| words.next().expect("a log has four words a line"));
        let path = pattern_of(&path);
        let nth = seen.entry((process, command.clone(), name.clone(), path.clone())).or_insert(0);
        *nth += 1;
        Some(Call { command, name, path, nth: *nth })
    };
    log.lines().filter_map(call).collect()
}

/// Whether a fault of a log has happened.
pub fn has_failed(log: &str) -> bool {
    log.lines().any(|line| line.starts_with("fault "))
}

/// The names of temporary files are chosen by chance.
fn pattern_of(path: &str) -> String {
    match path.split_once(".writing-") {
        Some((before, _)) => format!("{before}.writing-*"),
        None => path.to_owned(),
    }
}

/// What may happen to a call: an errno or an action, and whether it is also tried for good.
fn actions(call: &Call) -> &'static [(&'static str, bool)] {
    const BOTH: bool = true;
    const ONCE: bool = false;
    match call.name.as_str() {
        "read" => &[("EIO", BOTH), ("ESTALE", BOTH), ("short", ONCE)],
        "open" => &[("EACCES", BOTH), ("EIO", BOTH), ("ENOENT", ONCE), ("EMFILE", ONCE)],
        "write" => &[("EIO", BOTH), ("ENOSPC", BOTH), ("EDQUOT", ONCE), ("short", ONCE)],
        "fsync" => &[("EIO", BOTH), ("ENOSPC", BOTH)],
        "fsync-folder" => &[("EIO", BOTH), ("EINVAL", BOTH)],
        "rename" | "link" => &[("EIO", BOTH), ("ENOSPC", BOTH)],
        "renameat2" => &[("EIO", BOTH), ("ENOSPC", BOTH), ("EINVAL", BOTH)],
        "unlink" => &[("EIO", BOTH)],
        "rmdir" => &[("EIO", BOTH), ("ENOTEMPTY", BOTH)],
        "flock" => &[("ENOLCK", BOTH)],
        "statvfs" => &[("EIO", BOTH), ("zero", BOTH)],
        "mkdir" => &[("ENOSPC", BOTH), ("EIO", BOTH)],
        "close" | "ftruncate" | "opendir" | "stat" => &[("EIO", BOTH)],
        "readdir" => &[("EIO", ONCE)],
        other => panic!("{other} is a call without actions"),
    }
}

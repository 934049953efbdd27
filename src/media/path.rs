//! Paths: what a name stands for and how FFmpeg opens it, the partial name of an unfinished file, its final name, and
//! whether two names are one file.

use std::ffi::{CString, OsStr};
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use tracing::warn;

use crate::media::ffmpeg::protocol_of;

/// What the name of an input or output stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place<'a> {
    /// `-`: standard input or standard output.
    Standard,
    /// A file, whether it exists or not.
    File(&'a Path),
    /// An address in a protocol that FFmpeg may know.
    Url(&'a str),
}

impl<'a> Place<'a> {
    /// The place of an input. A file that exists is never an address, whatever colons its name has. `file:` may precede any
    /// path.
    pub fn of(name: &'a (impl AsRef<OsStr> + ?Sized)) -> Place<'a> {
        let is_protocol = |protocol| protocol != "file";
        Place::find(name.as_ref(), |name| has_scheme(name) || protocol_of(name).is_some_and(is_protocol))
    }

    /// The place of an output, which has to have `://` to be an address.
    pub fn of_output(name: &'a (impl AsRef<OsStr> + ?Sized)) -> Place<'a> {
        Place::find(name.as_ref(), has_scheme)
    }

    fn find(name: &'a OsStr, is_url: impl Fn(&str) -> bool) -> Place<'a> {
        if name == "-" {
            return Place::Standard;
        }
        if is_taken(Path::new(name)) {
            return Place::File(Path::new(name));
        }
        if let Some(path) = name.as_bytes().strip_prefix(b"file:") {
            return Place::File(Path::new(OsStr::from_bytes(path)));
        }
        match name.to_str() {
            Some(url) if is_url(url) => Place::Url(url),
            _ => Place::File(Path::new(name)),
        }
    }

    /// Path of a file; `None` for anything else.
    pub fn path(self) -> Option<&'a Path> {
        match self {
            Place::File(path) => Some(path),
            Place::Standard | Place::Url(_) => None,
        }
    }
}

/// Whether a name begins like `http://`.
fn has_scheme(name: &str) -> bool {
    let is_of_scheme = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
    name.split_once("://").is_some_and(|(scheme, _)| !scheme.is_empty() && scheme.bytes().all(is_of_scheme))
}

/// The URL of a file for FFmpeg, which takes a name for a URL if a colon comes before the first slash.
pub(crate) fn url_of(path: &Path) -> CString {
    let path = if path.is_absolute() { path.to_owned() } else { Path::new(".").join(path) };
    CString::new(path.into_os_string().as_bytes()).expect("no NUL in a path")
}

/// The file that is written under a name: links are followed, even to a file that does not exist.
pub(crate) fn through_links(path: &Path) -> PathBuf {
    /// Linux follows no more.
    const LINKS_MAX: usize = 40;
    let mut path = path.to_owned();
    for _ in 0..LINKS_MAX {
        let Ok(target) = fs::read_link(&path) else { break };
        path = folder_of(&path).join(target);
    }
    path
}

/// `video.mkv` -> `video.partial.mkv`. The extension stays, so that players open it.
pub(crate) fn partial_path(path: &Path) -> PathBuf {
    let mut name = path.file_stem().unwrap_or_default().to_owned();
    name.push(".partial");
    if let Some(extension) = path.extension() {
        name.push(".");
        name.push(extension);
    }
    path.with_file_name(name)
}

/// Whether both names are one existing file.
pub(crate) fn same_file(a: &Path, b: &Path) -> bool {
    let identity = |path: &Path| fs::metadata(path).map(|metadata| (metadata.dev(), metadata.ino()));
    matches!((identity(a), identity(b)), (Ok(a), Ok(b)) if a == b)
}

/// Gives a complete file its name. Without `overwrite`, a file that has this name stays as it is, and the error has the
/// kind [`AlreadyExists`](io::ErrorKind::AlreadyExists).
pub(crate) fn publish(partial: &Path, path: &Path, overwrite: bool) -> io::Result<()> {
    if overwrite {
        return fs::rename(partial, path);
    }
    match renameat_with(CWD, partial, CWD, path, RenameFlags::NOREPLACE) {
        // NFS and many file systems in user space know no such rename.
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => publish_by_link(partial, path),
        done => done.map_err(io::Error::from),
    }
}

fn publish_by_link(partial: &Path, path: &Path) -> io::Result<()> {
    let Err(error) = fs::hard_link(partial, path) else {
        if let Err(e) = fs::remove_file(partial) {
            warn!("{}: cannot be removed: {e}; {} is complete", partial.display(), path.display());
        }
        return Ok(());
    };
    match Errno::from_io_error(&error) {
        // FAT has no hard links: between this look and the rename, a file may still appear.
        Some(Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS | Errno::MLINK) if !is_taken(path) => {
            fs::rename(partial, path)
        }
        Some(Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS | Errno::MLINK) => Err(Errno::EXIST.into()),
        _ => Err(error),
    }
}

/// Whether a name exists, even as a link to nothing.
pub(crate) fn is_taken(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

/// The folder of a file.
pub(crate) fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."))
}

/// Syncs the names in a folder to the disk, where the file system can.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.or_else(|e| match Errno::from_io_error(&e) {
        Some(Errno::INVAL | Errno::OPNOTSUPP | Errno::BADF | Errno::NOSYS) => Ok(()),
        _ => Err(e),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_protocol_makes_an_address_of_a_name_that_is_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let existing = folder.path().join("data:x.mkv");
        fs::write(&existing, "").unwrap();
        assert_eq!(Place::of(&existing), Place::File(&existing));
        assert_eq!(Place::of("-"), Place::Standard);
        for (name, path) in [
            ("Alien: Covenant.mkv", "Alien: Covenant.mkv"),
            ("file:Out: 2x.mkv", "Out: 2x.mkv"),
            ("file:///a/b.mkv", "///a/b.mkv"),
            ("a/http://b.mkv", "a/http://b.mkv"),
            ("12:30.mkv", "12:30.mkv"),
            ("", ""),
        ] {
            assert_eq!(Place::of(name), Place::File(Path::new(path)), "{name}");
        }
        let bytes = OsStr::from_bytes(b"file:\xff: a.mkv");
        assert_eq!(Place::of(bytes).path().map(url_of).unwrap().as_bytes(), b"./\xff: a.mkv");
        for url in ["http://host/a.mkv", "srt://:9000", "nowhere://a", "concat:a.ts|b.ts", "pipe:0"] {
            assert_eq!(Place::of(url), Place::Url(url));
            let is_file = !url.contains("//");
            assert_eq!(
                Place::of_output(url),
                if is_file { Place::File(Path::new(url)) } else { Place::Url(url) }
            );
        }
    }

    #[test]
    fn a_partial_file_keeps_its_extension() {
        assert_eq!(partial_path(Path::new("a/video.4k.mkv")), Path::new("a/video.4k.partial.mkv"));
        assert_eq!(partial_path(Path::new("video")), Path::new("video.partial"));
    }

    #[test]
    fn a_file_that_appeared_keeps_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let (partial, path) = (folder.path().join("a.partial.mkv"), folder.path().join("a.mkv"));
        let text = |path: &Path| fs::read_to_string(path).unwrap();
        for publish in [|a: &Path, b: &Path| publish(a, b, false), publish_by_link] {
            fs::write(&partial, "ours").unwrap();
            fs::write(&path, "another").unwrap();
            let error = publish(&partial, &path).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
            assert_eq!((text(&partial), text(&path)), ("ours".into(), "another".into()));
            fs::remove_file(&path).unwrap();
            publish(&partial, &path).unwrap();
            assert_eq!((partial.exists(), text(&path)), (false, "ours".into()));
        }
        fs::write(&partial, "ours again").unwrap();
        publish(&partial, &path, true).unwrap();
        assert_eq!(text(&path), "ours again");
    }

    #[test]
    fn links_are_followed_to_the_file_that_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for (link, target) in [("a", "b"), ("b", "missing.mkv"), ("circle", "circle")] {
            std::os::unix::fs::symlink(target, path(link)).unwrap();
        }
        assert_eq!(through_links(&path("a")), path("missing.mkv"));
        assert_eq!(through_links(&path("plain")), path("plain"));
        assert!(through_links(&path("circle")).is_symlink());
    }

    #[test]
    fn two_links_to_a_file_are_the_same_file() {
        let folder = tempfile::tempdir().unwrap();
        let (a, b) = (folder.path().join("a"), folder.path().join("b"));
        fs::write(&a, "").unwrap();
        assert!(!same_file(&a, &b));
        fs::hard_link(&a, &b).unwrap();
        assert!(same_file(&a, &b));
        fs::remove_file(&b).unwrap();
        fs::write(&b, "").unwrap();
        assert!(!same_file(&a, &b));
    }
}

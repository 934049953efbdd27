//! Paths: the partial name of an unfinished file, its final name, and whether two names are one file.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use tracing::warn;

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

/// Path of a file that a user may have named by FFmpeg's protocol, as `file:video.mkv`.
pub(crate) fn plain_path(name: &str) -> &str {
    name.strip_prefix("file:").unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

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

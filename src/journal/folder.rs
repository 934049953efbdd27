//! The folder of a journal: its lock, and files that exist completely or not at all.

use std::fs::{self, File, Permissions, TryLockError};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};
use rustix::io::Errno;
use tempfile::NamedTempFile;
use tracing::warn;

use super::disk::{Disk, failed};
use super::fingerprint::JobFingerprint;
use crate::error::{self, Error, Result};
use crate::media::{folder_of, sync_folder, through_links};

pub(super) const FINGERPRINT: &str = "journal.json";
pub(super) const SEGMENT: &str = ".segment";
/// Upscaled frames of a segment that is not finished.
pub(super) const FRAMES: &str = ".frames";
pub(super) const WRITING: &str = ".writing-";
/// Mark of a finished output, which is the last file to be removed.
pub(super) const JOINED: &str = "joined";
/// Mark of a partial output that is the journal's own.
pub(super) const JOINING: &str = "joining";
pub(super) const PLAN: &str = "plan.json";
pub(super) const FINISHED: &str = "finished";
pub(super) const OVERWRITE: &str = "overwrite";
pub(super) const DAMAGE: &str = "damage.json";
const LOCK: &str = "lock";

/// Whether a file in a journal's folder is hasn's, or one that a file system keeps in place of a removed one.
fn is_own(name: &str) -> bool {
    let is_number = |digits: &str| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    [FINGERPRINT, JOINED, JOINING, PLAN, FINISHED, OVERWRITE, DAMAGE, LOCK].contains(&name)
        || [WRITING, ".nfs", ".fuse_hidden", ".__smb"].iter().any(|prefix| name.starts_with(prefix))
        || [SEGMENT, FRAMES].iter().any(|work| name.strip_suffix(work).is_some_and(is_number))
}

/// The first name in the folder that is not hasn's.
fn foreign(folder: &Path) -> io::Result<Option<PathBuf>> {
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        if !name.to_str().is_some_and(is_own) {
            return Ok(Some(folder.join(name)));
        }
    }
    Ok(None)
}

/// Fails if the folder holds what hasn did not write, and is no journal.
pub(super) fn check_own(folder: &Path) -> Result<()> {
    let refused = |problem: String| {
        let remedy = "move it away, or choose another output";
        Err(Error::new(folder.to_string_lossy(), problem, remedy).with_kind(error::ErrorKind::Exists))
    };
    match foreign(folder) {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        Err(e) if e.kind() == ErrorKind::NotADirectory && folder.exists() => {
            refused("is not a folder".into())
        }
        Err(e) if e.kind() == ErrorKind::NotADirectory => Ok(()),
        Err(e) => Err(failed(folder, e)),
        Ok(Some(path)) if !folder.join(FINGERPRINT).exists() => {
            refused(format!("is the name of the journal, and hasn did not write {}", path.display()))
        }
        Ok(_) => Ok(()),
    }
}

/// Creates the folder of a job and locks it, or locks the one of an earlier run of the same job. Files with `work` in
/// their names hold the job's work.
pub(super) fn open(folder: &Path, fingerprint: &JobFingerprint, work: &str, disk: &Disk) -> Result<File> {
    let failed = |e: io::Error| failed(folder, e);
    disk.retry_call(0, || create(folder))?;
    disk.retry_call(0, || File::create(folder.join(LOCK)))?;
    let lock = lock(folder, File::try_lock)?;
    let path = folder.join(FINGERPRINT);
    match fs::read(&path) {
        Ok(bytes) => JobFingerprint::parse(&bytes, &path)?.check_same(fingerprint, folder)?,
        Err(e) if e.kind() == ErrorKind::NotFound => {
            // Work without a fingerprint is useless.
            clear(folder, work).and_then(|()| clear(folder, FRAMES)).map_err(failed)?;
            let json = fingerprint.to_json();
            disk.retry_call(json.len() as u64, || write_atomically(&path, &json))?;
        }
        Err(e) => return Err(failed(e)),
    }
    clear(folder, WRITING).map_err(failed)?;
    Ok(lock)
}

/// Creates a folder, unless it exists, and syncs its name to the disk.
pub(super) fn create(folder: &Path) -> io::Result<()> {
    match fs::create_dir(folder) {
        Ok(()) => sync_folder(folder_of(folder)),
        Err(e) if e.kind() == ErrorKind::AlreadyExists && folder.is_dir() => Ok(()),
        Err(e) => Err(e),
    }
}

/// Creates a folder and those above it, unless they exist.
pub(super) fn create_all(folder: &Path) -> io::Result<()> {
    match create(folder) {
        Err(e) if e.kind() == ErrorKind::NotFound && folder_of(folder) != folder => {
            create_all(folder_of(folder))?;
            create(folder)
        }
        created => created,
    }
}

/// Locks the folder: two runs on one output exclude each other, where the file system has locks.
pub(super) fn lock(folder: &Path, how: fn(&File) -> std::result::Result<(), TryLockError>) -> Result<File> {
    let path = folder.join(LOCK);
    let failed = |e: io::Error| failed(folder, e);
    loop {
        let file = File::create(&path).map_err(failed)?;
        match how(&file) {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let (problem, remedy) =
                    ("another run is using it", "wait until that ends, or choose another output");
                let error = Error::new(folder.to_string_lossy(), problem, remedy);
                return Err(error.with_kind(error::ErrorKind::Busy));
            }
            Err(TryLockError::Error(e)) => match Errno::from_io_error(&e) {
                Some(Errno::NOLCK | Errno::NOSYS | Errno::OPNOTSUPP) => {
                    let folder = folder.display();
                    warn!("{folder}: its file system has no locks; let no other run write this output");
                }
                _ => return Err(failed(e)),
            },
        }
        // The run that held the lock may have removed its folder meanwhile, and the file with it.
        let identity = |data: fs::Metadata| (data.dev(), data.ino());
        let locked = file.metadata().map(identity).map_err(failed)?;
        match fs::metadata(&path).map(identity) {
            Ok(existing) if existing == locked => return Ok(file),
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(failed(e)),
            _ => {}
        }
    }
}

/// Creates a temporary file in a folder, with the permissions of other files.
pub(super) fn temporary(folder: &Path) -> io::Result<NamedTempFile> {
    tempfile::Builder::new().prefix(WRITING).permissions(Permissions::from_mode(0o666)).tempfile_in(folder)
}

/// Writes a file that exists completely or not at all: an atomic rename, synced to the disk. What a crash leaves has a name of
/// its own, which the next writer of the file takes over.
pub(super) fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let draft = draft_of(path);
    let write = || {
        let mut file = File::create(&draft)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().and_then(|()| fs::rename(&draft, path)).inspect_err(|_| {
        // The error that led here is the one to report.
        let _ = fs::remove_file(&draft);
    })?;
    sync_folder(folder_of(path))
}

fn draft_of(path: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(WRITING);
    name.push(path.file_name().unwrap_or_default());
    path.with_file_name(name)
}

/// Checks that [`replace`] can write a file, and changes nothing.
pub fn check_writable(path: &Path) -> io::Result<()> {
    match fs::metadata(path) {
        Ok(existing) if existing.is_dir() => Err(ErrorKind::IsADirectory.into()),
        Ok(existing) if existing.is_file() => File::options().append(true).open(path).map(drop),
        // A pipe or a device, such as /dev/null.
        Ok(_) => Ok(()),
        Err(e) if e.kind() == ErrorKind::NotFound => {
            Ok(access(folder_of(&through_links(path)), Access::WRITE_OK)?)
        }
        Err(e) => Err(e),
    }
}

/// Replaces a file: atomically, unless it is a pipe, a device, or in a folder that only it can be written in.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if fs::metadata(path).is_ok_and(|existing| !existing.is_file()) {
        return fs::write(path, bytes);
    }
    let path = through_links(path);
    match write_atomically(&path, bytes) {
        Err(e) if e.kind() == ErrorKind::PermissionDenied => fs::write(&path, bytes),
        written => written,
    }
}

/// Removes the folder: the work first and the mark of a finished output last, so that a later run can remove the rest.
/// What hasn did not write stays, and the folder with it.
pub(super) fn remove(folder: &Path, lock: File) -> io::Result<()> {
    clear(folder, SEGMENT)?;
    clear_if(folder, |name| name != LOCK && name != JOINED)?;
    // Before its file: a file that is open when it is removed stays in the folder on NFS and in user space.
    drop(lock);
    clear_if(folder, |name| name == LOCK)?;
    let joined = fs::read(folder.join(JOINED));
    let remove = || match fs::remove_dir(folder) {
        Err(e) if e.kind() == ErrorKind::DirectoryNotEmpty => match foreign(folder)? {
            Some(path) => {
                warn!("{}: stays, as hasn did not write {}", folder.display(), path.display());
                Ok(())
            }
            None => Err(e),
        },
        removed => removed,
    };
    clear_if(folder, |name| name == JOINED).and_then(|()| remove()).inspect_err(|_| {
        // The mark, if there was one, tells the next run that this folder only has to be removed.
        let _ = joined.and_then(|joined| fs::write(folder.join(JOINED), joined));
    })
}

/// The same for the folder of a finished output, whose run does not fail any more.
pub(super) fn remove_or_warn(folder: &Path, lock: File) {
    if let Err(e) = remove(folder, lock) {
        warn!("{}: cannot be removed: {e}; it is no longer needed", folder.display());
    }
}

/// Removes those of hasn's files that have `part` in their names.
pub(super) fn clear(folder: &Path, part: &str) -> io::Result<()> {
    clear_if(folder, |name| name.contains(part))
}

fn clear_if(folder: &Path, is_wanted: impl Fn(&str) -> bool) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        if name.is_some_and(|name| is_own(name) && is_wanted(name)) {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_excludes_other_runs_until_its_folder_is_removed() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("a/b/video.mkv.hasn");
        create_all(&folder).unwrap();
        let held = lock(&folder, File::try_lock).unwrap();
        let busy = lock(&folder, File::try_lock).unwrap_err();
        assert_eq!(busy.kind(), error::ErrorKind::Busy);
        for name in ["000000.segment", "journal.json", "joined"] {
            write_atomically(&folder.join(name), b"text").unwrap();
        }
        remove(&folder, held).unwrap();
        assert!(!folder.exists());
        create(&folder).unwrap();
        lock(&folder, File::try_lock).unwrap();
    }

    #[test]
    fn what_cannot_be_removed_leaves_the_mark_of_a_finished_output() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("video.mkv.hasn");
        create_all(&folder.join(PLAN)).unwrap();
        write_atomically(&folder.join(JOINED), b"text").unwrap();
        let held = lock(&folder, File::try_lock).unwrap();
        assert!(remove(&folder, held).is_err());
        assert!(folder.join(JOINED).exists());
    }

    #[test]
    fn what_hasn_did_not_write_stays() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("video.mkv.hasn");
        check_own(&folder).unwrap();
        create(&folder).unwrap();
        let write =
            |names: &[&str]| names.iter().for_each(|name| fs::write(folder.join(name), "text").unwrap());
        write(&["lock", ".writing-journal.json", "000012.segment", ".nfs00000001"]);
        check_own(&folder).unwrap();
        write(&["photo.jpg", "a.segment", "segment.txt"]);
        let error = check_own(&folder).unwrap_err();
        assert!(error.to_string().contains("hasn did not write"), "{error}");
        write(&["journal.json", "joined"]);
        check_own(&folder).unwrap();
        let held = lock(&folder, File::try_lock).unwrap();
        remove(&folder, held).unwrap();
        let mut left: Vec<_> =
            fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["a.segment", "photo.jpg", "segment.txt"]);
        fs::write(parent.path().join("file.hasn"), "text").unwrap();
        assert!(check_own(&parent.path().join("file.hasn")).is_err());
    }

    #[test]
    fn files_have_the_permissions_of_other_files() {
        let folder = tempfile::tempdir().unwrap();
        let (ours, other) = (folder.path().join("ours"), folder.path().join("other"));
        write_atomically(&ours, b"text").unwrap();
        fs::write(&other, b"text").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode(&ours), mode(&other));
    }
}

//! The folder of a journal: its lock, and files that exist completely or not at all.

use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::fingerprint::JobFingerprint;
use crate::error::{self, Error, Result};

pub(super) const FINGERPRINT: &str = "journal.json";
pub(super) const SEGMENT: &str = ".segment";
pub(super) const WRITING: &str = ".writing-";
const LOCK: &str = "lock";

/// Creates the folder of a job and locks it, or locks the one of an earlier run of the same job. Files with `work` in
/// their names hold the job's work.
pub(super) fn open(folder: &Path, fingerprint: &JobFingerprint, work: &str) -> Result<File> {
    let failed = |e: io::Error| failed(folder, e);
    fs::create_dir(folder)
        .or_else(|e| if e.kind() == ErrorKind::AlreadyExists { Ok(()) } else { Err(e) })
        .map_err(failed)?;
    let lock = lock(folder, File::try_lock)?;
    let path = folder.join(FINGERPRINT);
    match fs::read(&path) {
        Ok(bytes) => JobFingerprint::parse(&bytes, &path)?.check_same(fingerprint, folder)?,
        Err(e) if e.kind() == ErrorKind::NotFound => {
            // Work without a fingerprint is useless.
            clear(folder, work).map_err(failed)?;
            write_atomically(&path, &fingerprint.to_json()).map_err(failed)?;
        }
        Err(e) => return Err(failed(e)),
    }
    clear(folder, WRITING).map_err(failed)?;
    Ok(lock)
}

/// Locks the folder: two runs on one output exclude each other.
pub(super) fn lock(folder: &Path, how: fn(&File) -> std::result::Result<(), TryLockError>) -> Result<File> {
    let file = File::create(folder.join(LOCK)).map_err(|e| failed(folder, e))?;
    match how(&file) {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            let (problem, remedy) =
                ("another run is using it", "wait until that ends, or choose another output");
            Err(Error::new(folder.to_string_lossy(), problem, remedy).with_kind(error::ErrorKind::Busy))
        }
        Err(TryLockError::Error(e)) => Err(failed(folder, e)),
    }
}

/// Returns a text that identifies a file independently of its name.
pub(super) fn identity(path: &Path) -> io::Result<String> {
    let metadata = fs::metadata(path)?;
    Ok(format!("{} {} {}", metadata.dev(), metadata.ino(), metadata.size()))
}

/// Writes a file that exists completely or not at all: an atomic rename, synced to the disk.
pub(super) fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().expect("a file in the journal's folder");
    let mut file = tempfile::Builder::new().prefix(WRITING).tempfile_in(folder)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|e| e.error)?;
    sync(folder)
}

/// Syncs the names in a folder to the disk.
pub(super) fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Removes the folder, segments first: while `joined` exists, a later run can remove the rest.
pub(super) fn remove(folder: &Path) -> Result<()> {
    let all = clear(folder, SEGMENT).and_then(|()| fs::remove_dir_all(folder));
    all.map_err(|e| failed(folder, e))
}

/// Removes the files that have `part` in their names.
pub(super) fn clear(folder: &Path, part: &str) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().contains(part)) {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

pub(super) fn failed(path: &Path, error: io::Error) -> Error {
    Error::io(path.to_string_lossy(), error, "check the folder and its disk, then run it again")
}

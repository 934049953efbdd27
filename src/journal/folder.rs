//! The folder of a journal: its lock, and files that are there whole or not at all.

use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::fingerprint::JobFingerprint;
use crate::error::{Error, Result};

pub(super) const FACTS: &str = "journal.json";
pub(super) const SEGMENT: &str = ".segment";
pub(super) const WRITING: &str = ".writing-";
const LOCK: &str = "lock";

/// Tells a file from others, whatever its name.
pub(super) fn identity(path: &Path) -> io::Result<String> {
    let metadata = fs::metadata(path)?;
    Ok(format!("{} {} {}", metadata.dev(), metadata.ino(), metadata.size()))
}

/// Makes a folder with these facts, or takes the one that is there if it was begun with the same. `made`: what is in
/// the names of files that hold work.
pub(super) fn begin(folder: &Path, facts: &JobFingerprint, made: &str) -> Result<File> {
    let failed = |e: io::Error| failed(folder, e);
    fs::create_dir(folder)
        .or_else(|e| if e.kind() == ErrorKind::AlreadyExists { Ok(()) } else { Err(e) })
        .map_err(failed)?;
    let lock = lock(folder, File::try_lock)?;
    let path = folder.join(FACTS);
    match fs::read(&path) {
        Ok(bytes) => JobFingerprint::parse(&bytes, &path)?.check_same(facts, folder)?,
        Err(e) if e.kind() == ErrorKind::NotFound => {
            // Work that nobody knows the facts of is worth nothing.
            clear(folder, made).map_err(failed)?;
            write_whole(&path, &facts.to_json()).map_err(failed)?;
        }
        Err(e) => return Err(failed(e)),
    }
    clear(folder, WRITING).map_err(failed)?;
    Ok(lock)
}

/// Two runs on one output exclude each other.
pub(super) fn lock(folder: &Path, how: fn(&File) -> std::result::Result<(), TryLockError>) -> Result<File> {
    let file = File::create(folder.join(LOCK)).map_err(|e| failed(folder, e))?;
    match how(&file) {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            let problem = "another run is at work on it";
            Err(Error::new(folder.to_string_lossy(), problem, "wait for its end, or name another output"))
        }
        Err(TryLockError::Error(e)) => Err(failed(folder, e)),
    }
}

/// A file that is there whole or not at all.
pub(super) fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().expect("a file in the journal's folder");
    let mut file = tempfile::Builder::new().prefix(WRITING).tempfile_in(folder)?;
    io::Write::write_all(&mut file, bytes)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|e| e.error)?;
    sync(folder)
}

/// Names in a folder are on the disk only after this.
pub(super) fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Segments first: while `joined` is there, the rest can be removed later.
pub(super) fn remove(folder: &Path) -> Result<()> {
    let all = clear(folder, SEGMENT).and_then(|()| fs::remove_dir_all(folder));
    all.map_err(|e| failed(folder, e))
}

/// Removes files whose name has this in it.
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
    Error::new(path.to_string_lossy(), error.to_string(), "check the folder and its disk, and run it again")
}

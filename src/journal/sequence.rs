//! The journal of an image sequence: the files are written one by one, and a resumed run learns which are finished.
//!
//! In: packets, each of which is an image file. Out: the files. Until the sequence is complete, the journal's folder lies
//! next to them:
//!
//! ```text
//! journal.json   the job's fingerprint; a run with another one is refused
//! lock           locked by the process that writes
//! finished       a line for each frame that is complete and on the disk: number, bytes
//! overwrite      the run may overwrite images of others
//! damage.json    damaged places of the source, for finished frames, which are not read again
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use super::disk::{Disk, failed};
use super::fingerprint::JobFingerprint;
use super::folder::{self, DAMAGE, FINISHED, OVERWRITE, create_all, write_atomically};
use crate::error::{self, Error, Result};
use crate::media::{Cut, Damage, DamagedPlace, Numbering, Packet, Pattern};
use crate::pipeline::{DamageReport, Store};
use crate::sync::lock;

/// An image sequence that is being written.
pub struct SequenceJournal {
    pattern: Pattern,
    /// `None` where no run can resume, because the input cannot be read twice.
    folder: Option<LockedFolder>,
    overwrite: bool,
    finished: Arc<Mutex<Finished>>,
}

struct LockedFolder {
    path: PathBuf,
    lock: File,
    /// Numbers of all images that earlier runs have written, whatever has become of them.
    listed: BTreeSet<u64>,
}

/// Frames that are complete and on the disk.
#[derive(Default)]
struct Finished {
    /// Number -> bytes of the file.
    sizes: BTreeMap<u64, u64>,
    /// End of the last frame, in seconds of the input.
    reached_s: f64,
    /// The number of an image that is written and not listed yet.
    unlisted: Option<u64>,
}

impl SequenceJournal {
    /// Starts a sequence, or resumes the one of an earlier run with the same fingerprint.
    /// Without `overwrite`, here or in that run, images of others stay as they are. Setting `interrupt` ends a wait for space.
    pub fn open(
        pattern: Pattern,
        folder: &Path,
        fingerprint: &JobFingerprint,
        overwrite: bool,
        interrupt: &Arc<AtomicBool>,
    ) -> Result<SequenceJournal> {
        let disk = Disk::new(folder, interrupt.clone());
        disk.retry_when_full(0, || create_folder(pattern.folder()))?;
        let lock = folder::open(folder, fingerprint, FINISHED, &disk)?;
        let mark = folder.join(OVERWRITE);
        if overwrite {
            disk.retry_call(0, || write_atomically(&mark, b""))?;
        }
        let overwrite = mark.exists();
        let mut sizes = read_list(&folder.join(FINISHED))?;
        let listed = sizes.keys().copied().collect();
        sizes.retain(|&number, &mut size| is_there(&pattern, number, size));
        let finished = Finished { sizes, ..Finished::default() };
        let folder = Some(LockedFolder { path: folder.to_owned(), lock, listed });
        Ok(SequenceJournal { pattern, folder, overwrite, finished: Arc::new(Mutex::new(finished)) })
    }

    /// Starts a sequence that cannot be resumed, for an input that cannot be read twice.
    pub fn without_folder(pattern: Pattern, overwrite: bool) -> Result<SequenceJournal> {
        create_folder(pattern.folder())?;
        Ok(SequenceJournal { pattern, folder: None, overwrite, finished: Arc::default() })
    }

    /// Count of the finished frames of the journal in a folder, for messages.
    pub fn frames_in(folder: &Path) -> u64 {
        read_list(&folder.join(FINISHED)).map_or(0, |list| list.len() as u64)
    }

    /// Numbers of finished frames.
    pub fn finished(&self) -> BTreeSet<u64> {
        lock(&self.finished).sizes.keys().copied().collect()
    }

    /// Count of finished frames.
    pub fn frames(&self) -> u64 {
        lock(&self.finished).sizes.len() as u64
    }

    /// Whether there is an image that a failed run has written and not listed.
    pub fn has_unlisted(&self) -> bool {
        lock(&self.finished).unlisted.is_some_and(|number| self.pattern.path(number).exists())
    }

    /// End of the last frame that this run has finished, in seconds of the input.
    pub fn reached_s(&self) -> f64 {
        lock(&self.finished).reached_s
    }

    /// Notes the damage that earlier runs found in finished frames, which are not read again.
    pub fn restore_damage(&self, numbering: Numbering, damage: &Damage) -> Result<()> {
        let Some(folder) = &self.folder else { return Ok(()) };
        let path = folder.path.join(DAMAGE);
        let bytes = match fs::read(&path) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
            bytes => bytes.map_err(|e| failed(&path, e))?,
        };
        let places: Vec<DamageReport> =
            serde_json::from_slice(&bytes).map_err(|e| failed(&path, e.into()))?;
        let finished = self.finished();
        for DamageReport { problem, frame, pts, seconds } in places {
            if pts.is_some_and(|pts| finished.contains(&numbering.number(0, pts))) {
                damage.note(DamagedPlace { problem, frame, pts, seconds });
            }
        }
        Ok(())
    }

    /// Returns the writer of a run's frames.
    pub fn store(
        &self,
        numbering: Numbering,
        damage: Damage,
        interrupt: Arc<AtomicBool>,
    ) -> Result<SequenceStore> {
        let disk = Disk::new(self.pattern.folder(), interrupt);
        Ok(SequenceStore {
            pattern: self.pattern.clone(),
            numbering,
            overwrite: self.overwrite,
            listed: self.folder.as_ref().map(|folder| folder.listed.clone()).unwrap_or_default(),
            folder: self
                .folder
                .as_ref()
                .map(|folder| FolderWriter::open(&folder.path, damage, &disk))
                .transpose()?,
            disk,
            finished: self.finished.clone(),
        })
    }

    /// Checks the size of every finished file. Returns their count.
    pub fn verify(&self) -> Result<u64> {
        let finished = lock(&self.finished);
        for (&number, &size) in &finished.sizes {
            let path = self.pattern.path(number);
            let found = fs::metadata(&path).map_err(|e| failed(&path, e))?.len();
            if found != size {
                let problem = format!("has {found} bytes, and {size} were written");
                let error = Error::new(path.to_string_lossy(), problem, "run the same command again");
                return Err(error.with_kind(error::ErrorKind::Damaged));
            }
        }
        Ok(finished.sizes.len() as u64)
    }

    /// Removes the folder, when all frames are finished or none is worth resuming from. What cannot be removed is no error
    /// any more.
    pub fn remove(self) {
        if let Some(LockedFolder { path, lock, .. }) = self.folder {
            folder::remove_or_warn(&path, lock);
        }
    }

    /// Removes the finished frames of a run that no process is using, then its folder.
    pub fn discard(pattern: &Pattern, folder: &Path) -> Result<()> {
        let lock = folder::lock(folder, File::try_lock)?;
        for (number, size) in read_list(&folder.join(FINISHED))? {
            if is_there(pattern, number, size) {
                let path = pattern.path(number);
                fs::remove_file(&path).map_err(|e| failed(&path, e))?;
            }
        }
        folder::remove(folder, lock).map_err(|e| failed(folder, e))
    }
}

/// Writer of a run's frames, each into a file of its own.
pub struct SequenceStore {
    pattern: Pattern,
    numbering: Numbering,
    overwrite: bool,
    /// Numbers of images that are overwritten all the same.
    listed: BTreeSet<u64>,
    disk: Disk,
    folder: Option<FolderWriter>,
    finished: Arc<Mutex<Finished>>,
}

/// Writer of the folder's `finished` and `damage.json`.
struct FolderWriter {
    folder: PathBuf,
    finished: File,
    damage: Damage,
    /// Count of damaged places that are in the file.
    damage_written: u64,
}

impl Store for SequenceStore {
    fn write(&mut self, frame: Packet) -> Result<()> {
        let SequenceStore { pattern, numbering, overwrite, listed, disk, folder, finished } = self;
        let (number, size) = (frame.number(*numbering), frame.size() as u64);
        if let Some(folder) = folder {
            // Before the frame: once that is finished, its source is not read again.
            folder.write_damage(disk)?;
        }
        let overwrite = *overwrite || listed.contains(&number);
        lock(finished).unlisted = Some(number);
        disk.retry_when_full(size, || {
            let written = pattern.write(number, frame.data(), overwrite);
            written.map_err(|e| not_written(&pattern.path(number), e))
        })?;
        if let Some(folder) = folder {
            folder.write_finished(number, size, disk)?;
        }
        let mut finished = lock(finished);
        finished.sizes.insert(number, size);
        finished.unlisted = None;
        finished.reached_s = frame.end_s();
        Ok(())
    }

    /// Does nothing: every frame is complete when it is written.
    fn close(&mut self, _cut: Cut) -> Result<()> {
        Ok(())
    }
}

impl FolderWriter {
    fn open(folder: &Path, damage: Damage, disk: &Disk) -> Result<FolderWriter> {
        let path = folder.join(FINISHED);
        let finished = disk.retry_call(0, || OpenOptions::new().create(true).append(true).open(&path))?;
        Ok(FolderWriter { folder: folder.to_owned(), finished, damage, damage_written: 0 })
    }

    /// Writes the damaged places, if there are new ones.
    fn write_damage(&mut self, disk: &Disk) -> Result<()> {
        if self.damage.count() == self.damage_written {
            return Ok(());
        }
        self.damage_written = self.damage.count();
        let places: Vec<_> = self.damage.places().into_iter().map(DamageReport::from).collect();
        let json = serde_json::to_vec(&places).expect("plain data is always JSON");
        let path = self.folder.join(DAMAGE);
        disk.retry_call(json.len() as u64, || write_atomically(&path, &json))
    }

    /// Adds a line, in one write: a run that is killed leaves it complete or not at all.
    fn write_finished(&mut self, number: u64, size: u64, disk: &Disk) -> Result<()> {
        let line = format!("{number} {size}\n");
        disk.retry_call(line.len() as u64, || {
            let end = self.finished.metadata()?.len();
            self.finished.write_all(line.as_bytes()).inspect_err(|_| {
                // A full disk may have taken a part. Where that stays, the line is ignored.
                let _ = self.finished.set_len(end);
            })
        })
    }
}

fn create_folder(folder: &Path) -> Result<()> {
    create_all(folder).map_err(|e| {
        let remedy = "name a folder that exists or can be created";
        Error::new(folder.to_string_lossy(), format!("cannot be created: {e}"), remedy).caused_by(e)
    })
}

fn not_written(path: &Path, error: io::Error) -> Error {
    if error.kind() != ErrorKind::AlreadyExists {
        return failed(path, error);
    }
    let (problem, remedy) =
        ("exists with other contents and is left as it is", "move it away, or -y overwrites it");
    Error::new(path.to_string_lossy(), problem, remedy).caused_by(error)
}

/// Returns the frames that a list has, and their sizes. After a power cut the list may end in anything: lines of another
/// form are ignored, and their frames are written again.
fn read_list(path: &Path) -> Result<BTreeMap<u64, u64>> {
    let bytes = match fs::read(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(BTreeMap::new()),
        bytes => bytes.map_err(|e| failed(path, e))?,
    };
    let text = String::from_utf8_lossy(&bytes);
    let line = |line: &str| {
        let (number, size) = line.strip_suffix('\n')?.split_once(' ')?;
        Some((number.parse().ok()?, size.parse().ok()?))
    };
    Ok(text.split_inclusive('\n').filter_map(line).collect())
}

/// Whether an image exists with the size that was written.
fn is_there(pattern: &Pattern, number: u64, size: u64) -> bool {
    fs::metadata(pattern.path(number)).is_ok_and(|metadata| metadata.len() == size)
}

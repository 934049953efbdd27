//! Frames: a sequence that is made file by file, and what a run that goes on must know of the one before.
//!
//! In: packets that are frames. Out: their files. Beside them, while the sequence is made, lies its folder:
//!
//! ```text
//! journal.json   the facts; what is begun with others is refused by name
//! lock           whoever writes holds it
//! made           a line a frame that is whole and on the disk: number, bytes
//! damage.json    what of the source was found damaged, for frames that are made and so not read again
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard};

use super::disk::Disk;
use super::fingerprint::JobFingerprint;
use super::folder::{begin, failed, remove, write_whole};
use crate::error::{Error, Result};
use crate::media::{Cut, Damage, DamagedPlace, Numbering, Packet, Pattern};
use crate::pipeline::Store;
use crate::sync::lock;

const MADE: &str = "made";
const DAMAGE: &str = "damage.json";

/// A sequence that is made.
pub struct SequenceJournal {
    pattern: Pattern,
    /// `None` of a run that nobody can go on with: its input is gone when it ends.
    kept: Option<Kept>,
    made: Arc<Mutex<Finished>>,
}

struct Kept {
    folder: PathBuf,
    _lock: File,
}

/// Frames that are whole and on the disk.
#[derive(Default)]
struct Finished {
    /// Number -> bytes of its file.
    sizes: BTreeMap<u64, u64>,
    /// Where the last one ends in the source.
    reached_s: f64,
}

fn look_at(made: &Mutex<Finished>) -> MutexGuard<'_, Finished> {
    lock(&made)
}

impl SequenceJournal {
    /// Begins a sequence, or goes on with the one that was begun with the same facts.
    pub fn open(pattern: Pattern, kept: Option<(&Path, JobFingerprint)>) -> Result<SequenceJournal> {
        make_folder(pattern.folder())?;
        let mut made = Finished::default();
        let kept = match kept {
            None => None,
            Some((folder, facts)) => {
                let lock = begin(folder, &facts, MADE)?;
                made.sizes = read_made(&folder.join(MADE), &pattern)?;
                Some(Kept { folder: folder.to_owned(), _lock: lock })
            }
        };
        Ok(SequenceJournal { pattern, kept, made: Arc::new(Mutex::new(made)) })
    }

    /// Numbers of frames that are made.
    pub fn ready(&self) -> BTreeSet<u64> {
        look_at(&self.made).sizes.keys().copied().collect()
    }

    /// How many are made.
    pub fn frames(&self) -> u64 {
        look_at(&self.made).sizes.len() as u64
    }

    /// Seconds of the input up to the end of the last frame that this run made.
    pub fn reached_s(&self) -> f64 {
        look_at(&self.made).reached_s
    }

    /// Notes again what was found damaged in frames that are made, and are not read again.
    pub fn restore_damage(&self, numbering: Numbering, damage: &Damage) -> Result<()> {
        let Some(kept) = &self.kept else { return Ok(()) };
        let path = kept.folder.join(DAMAGE);
        let bytes = match fs::read(&path) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
            bytes => bytes.map_err(|e| failed(&path, e))?,
        };
        let places: Vec<Place> = serde_json::from_slice(&bytes).map_err(|e| failed(&path, e.into()))?;
        let ready = self.ready();
        for (problem, frame, pts, seconds) in places {
            if pts.is_some_and(|pts| ready.contains(&numbering.number(0, pts))) {
                damage.note(DamagedPlace { problem, frame, pts, seconds });
            }
        }
        Ok(())
    }

    /// What writes the frames of a run.
    pub fn store(
        &self,
        numbering: Numbering,
        damage: Damage,
        interrupt: Arc<AtomicBool>,
    ) -> Result<SequenceStore> {
        let list = |kept: &Kept| {
            let path = kept.folder.join(MADE);
            let file = OpenOptions::new().create(true).append(true).open(&path);
            file.map(|file| List { file, folder: kept.folder.clone() }).map_err(|e| failed(&path, e))
        };
        Ok(SequenceStore {
            pattern: self.pattern.clone(),
            numbering,
            disk: Disk::new(self.pattern.folder(), interrupt),
            list: self.kept.as_ref().map(list).transpose()?,
            damage,
            damage_kept: 0,
            made: self.made.clone(),
        })
    }

    /// Looks at every file that was made. Gives how many there are.
    pub fn verify(&self) -> Result<u64> {
        let made = look_at(&self.made);
        for (&number, &size) in &made.sizes {
            let path = self.pattern.path(number);
            let found = fs::metadata(&path).map_err(|e| failed(&path, e))?.len();
            if found != size {
                let problem = format!("has {found} bytes, and {size} were written");
                return Err(Error::new(path.to_string_lossy(), problem, "run it again"));
            }
        }
        Ok(made.sizes.len() as u64)
    }

    /// Ends it, when all frames are there or none is worth going on from.
    pub fn remove(self) -> Result<()> {
        self.kept.map_or(Ok(()), |kept| remove(&kept.folder))
    }

    /// Removes what a run has made that nobody is at work on: its frames, then what it knew of them.
    pub fn discard(pattern: &Pattern, folder: &Path) -> Result<()> {
        let _lock = super::folder::lock(folder, File::try_lock)?;
        for &number in read_made(&folder.join(MADE), pattern)?.keys() {
            let path = pattern.path(number);
            fs::remove_file(&path).map_err(|e| failed(&path, e))?;
        }
        remove(folder)
    }
}

/// problem, frame, pts, seconds
type Place = (String, Option<u64>, Option<i64>, Option<f64>);

/// Writes the frames of a run, one after the other.
pub struct SequenceStore {
    pattern: Pattern,
    numbering: Numbering,
    disk: Disk,
    list: Option<List>,
    damage: Damage,
    /// So much of it is kept.
    damage_kept: u64,
    made: Arc<Mutex<Finished>>,
}

/// Where it is kept what was made.
struct List {
    file: File,
    folder: PathBuf,
}

impl Store for SequenceStore {
    fn write(&mut self, frame: Packet) -> Result<()> {
        let SequenceStore { pattern, numbering, disk, list, damage, damage_kept, made } = self;
        let (number, size) = (frame.number(*numbering), frame.size() as u64);
        if let Some(list) = list
            && damage.count() != *damage_kept
        {
            // Before the frame: once that is there, its source is not read again.
            *damage_kept = damage.count();
            let place = |p: DamagedPlace| -> Place { (p.problem, p.frame, p.pts, p.seconds) };
            let places: Vec<Place> = damage.places().into_iter().map(place).collect();
            let json = serde_json::to_vec(&places).expect("plain data is always JSON");
            let path = list.folder.join(DAMAGE);
            disk.whenever_there_is_room(json.len() as u64, || write_whole(&path, &json))?;
        }
        disk.whenever_there_is_room(size, || pattern.write(number, frame.data()))?;
        if let Some(list) = list {
            // One write, so that a line is there whole or not at all when the run is killed.
            let line = format!("{number} {size}\n");
            disk.whenever_there_is_room(line.len() as u64, || list.file.write_all(line.as_bytes()))?;
        }
        let mut made = look_at(made);
        made.sizes.insert(number, size);
        made.reached_s = frame.end_s();
        Ok(())
    }

    /// A frame was whole when it was written: there is nothing to close.
    fn close(&mut self, _cut: Cut) -> Result<()> {
        Ok(())
    }
}

fn make_folder(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).map_err(|e| {
        let remedy = "name a folder that is there or can be made";
        Error::new(folder.to_string_lossy(), format!("cannot be made: {e}"), remedy)
    })
}

/// What the list names and is there as it was written. After a power cut its end may be anything: what is no line of
/// ours is made again.
fn read_made(path: &Path, pattern: &Pattern) -> Result<BTreeMap<u64, u64>> {
    let bytes = match fs::read(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(BTreeMap::new()),
        bytes => bytes.map_err(|e| failed(path, e))?,
    };
    let text = String::from_utf8_lossy(&bytes);
    let line = |line: &str| {
        let (number, size) = line.strip_suffix('\n')?.split_once(' ')?;
        Some((number.parse().ok()?, size.parse().ok()?))
    };
    let is_there = |&(number, size): &(u64, u64)| {
        fs::metadata(pattern.path(number)).is_ok_and(|metadata| metadata.len() == size)
    };
    Ok(text.split_inclusive('\n').filter_map(line).filter(is_there).collect())
}

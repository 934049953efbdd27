//! The journal of a video that is encoded in segments, and what writes them.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tempfile::NamedTempFile;
use tracing::{debug, warn};

use super::disk::{Disk, in_words};
use super::fingerprint::JobFingerprint;
use super::folder::{
    FACTS, SEGMENT, WRITING, begin, clear, failed, identity, lock, remove, sync, write_whole,
};
use crate::error::Result;
use crate::media::{Cut, Packet, Record, SEGMENT_FRAMES, SegmentReader, SegmentWriter};
use crate::pipeline::{ResumeState, Store};

/// Its name beside the output is the output's with this added.
const ENDING: &str = ".hasn";
const JOINED: &str = "joined";

/// The folder of a run, held against all others.
pub struct Journal {
    pub(super) folder: PathBuf,
    /// Whole segments by number.
    pub(super) records: BTreeMap<u64, Record>,
    _lock: File,
}

impl Journal {
    /// Where the journal of an output lies, be it there or not.
    pub fn folder_of(output: &Path) -> PathBuf {
        let mut name = output.as_os_str().to_owned();
        name.push(ENDING);
        name.into()
    }

    /// Begins a journal, or goes on with the one that is there if it was begun with the same facts. Nobody else is at
    /// work on it then.
    pub fn open(folder: &Path, facts: &JobFingerprint) -> Result<Journal> {
        let lock = begin(folder, facts, SEGMENT)?;
        let mut journal = Journal { folder: folder.to_owned(), records: BTreeMap::new(), _lock: lock };
        journal.scan()?;
        Ok(journal)
    }

    /// One of several that make segments of one video at the same time.
    pub fn open_shared(folder: &Path, facts: &JobFingerprint) -> Result<Journal> {
        let lock = lock(folder, File::try_lock_shared)?;
        let path = folder.join(FACTS);
        let bytes = fs::read(&path).map_err(|e| failed(&path, e))?;
        JobFingerprint::parse(&bytes, &path)?.check_same(facts, folder)?;
        let mut journal = Journal { folder: folder.to_owned(), records: BTreeMap::new(), _lock: lock };
        journal.scan()?;
        Ok(journal)
    }

    /// Looks what segments are there.
    pub fn scan(&mut self) -> Result<()> {
        self.records.clear();
        let failed = |e: io::Error| failed(&self.folder, e);
        for entry in fs::read_dir(&self.folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let Some(number) = number_of(&path) else { continue };
            match SegmentReader::open(&path).map(|reader| reader.record().clone()) {
                Ok(record) if record.segment == number => drop(self.records.insert(number, record)),
                Err(e) if e.kind() != ErrorKind::InvalidData => return Err(failed(e)),
                _ => {
                    warn!("{}: is torn, and made again", path.display());
                    fs::remove_file(&path).map_err(failed)?;
                }
            }
        }
        Ok(())
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Whether this segment is there.
    pub fn has(&self, segment: u64) -> bool {
        self.records.contains_key(&segment)
    }

    /// Frames in whole segments.
    pub fn frames(&self) -> u64 {
        self.records.values().map(|record| record.frames).sum()
    }

    /// Seconds of the input up to the end of the last whole segment.
    pub fn reached_s(&self) -> f64 {
        self.records.last_key_value().map_or(0.0, |(_, record)| record.end_s())
    }

    /// What is left to do.
    pub fn resume_state(&self) -> ResumeState {
        let next =
            |(&segment, record): (&u64, &Record)| ((segment + 1) * SEGMENT_FRAMES, record.next.clone());
        ResumeState {
            finished_segments: self.records.keys().copied().collect(),
            finished_frames: self.frames(),
            encoder_states: self.records.iter().map(next).collect(),
            ..ResumeState::default()
        }
    }

    /// What keeps the segments of a run of so many frames; 0 where nobody knows.
    pub fn store(&self, frames: u64, interrupt: Arc<AtomicBool>) -> SegmentStore {
        let disk = Disk::new(&self.folder, interrupt);
        let to_measure = frames.checked_sub(self.frames());
        SegmentStore { disk, folder: self.folder.clone(), open: None, to_measure }
    }

    /// Tells before a run of so many frames what room it needs: by what is there, else by a guess of bytes a frame.
    pub fn log_space_needed(&self, frames: u64, guess: Option<f64>, store: &SegmentStore) -> Result<()> {
        let (there, size) = (self.frames(), self.size()?);
        let a_frame = if there > 0 { Some(size as f64 / there as f64) } else { guess };
        let left = frames.saturating_sub(there);
        if let Some(bytes) = a_frame.filter(|_| left > 0) {
            store.log_space_needed(size, (left as f64 * bytes) as u64);
        }
        Ok(())
    }

    /// Bytes of all segments.
    pub(super) fn size(&self) -> Result<u64> {
        let size = |&segment: &u64| fs::metadata(segment_path(&self.folder, segment)).map(|data| data.len());
        self.records.keys().map(size).sum::<io::Result<u64>>().map_err(|e| failed(&self.folder, e))
    }

    /// Says that this file is the whole video, which only lacks its name.
    pub fn mark_joined(&self, partial: &Path) -> Result<()> {
        let note =
            identity(partial).and_then(|joined| write_whole(&self.folder.join(JOINED), joined.as_bytes()));
        note.map_err(|e| failed(&self.folder, e))
    }

    /// Whether a run has completed its output and only left its journal.
    pub fn is_finished(folder: &Path, output: &Path) -> bool {
        let joined = fs::read_to_string(folder.join(JOINED));
        matches!((joined, identity(output)), (Ok(joined), Ok(there)) if joined == there)
    }

    /// Forgets all segments, which are worth nothing any more.
    pub fn remove_segments(&mut self) -> Result<()> {
        self.records.clear();
        clear(&self.folder, SEGMENT).map_err(|e| failed(&self.folder, e))
    }

    /// Ends it, when the output has its name.
    pub fn remove(self) -> Result<()> {
        remove(&self.folder)
    }

    /// Removes one that nobody is at work on, whatever is in it.
    pub fn discard(folder: &Path) -> Result<()> {
        let _lock = lock(folder, File::try_lock)?;
        remove(folder)
    }
}

/// Keeps the segments of a run.
pub struct SegmentStore {
    folder: PathBuf,
    disk: Disk,
    open: Option<(NamedTempFile, SegmentWriter)>,
    /// Frames that are to come, until the first segment has told how large they are.
    to_measure: Option<u64>,
}

impl Store for SegmentStore {
    fn write(&mut self, packet: Packet) -> Result<()> {
        let (folder, disk) = (&self.folder, &self.disk);
        if self.open.is_none() {
            let open = || {
                let file = tempfile::Builder::new().prefix(WRITING).tempfile_in(folder)?;
                let writer = SegmentWriter::create(file.path())?;
                Ok((file, writer))
            };
            self.open = Some(disk.whenever_there_is_room(0, open)?);
        }
        let (_, writer) = self.open.as_mut().expect("just opened");
        disk.whenever_there_is_room(packet.size() as u64, || writer.write(&packet))
    }

    fn close(&mut self, cut: Cut) -> Result<()> {
        let (file, mut writer) = self.open.take().expect("a segment has packets");
        self.disk.whenever_there_is_room(0, || writer.finish(&cut))?;
        let path = segment_path(&self.folder, cut.segment);
        let named = file.persist(&path).map_err(|e| e.error).and_then(|_| sync(&self.folder));
        named.map_err(|e| failed(&self.folder, e))?;
        debug!("{}: {} frames", path.display(), cut.frames);
        if let Some(frames) = self.to_measure.take() {
            let size = fs::metadata(&path).map_or(0, |metadata| metadata.len());
            self.log_space_needed(size, frames.saturating_sub(cut.frames) * size / cut.frames);
        }
        Ok(())
    }
}

impl SegmentStore {
    /// Segments and the video that is joined from them are there at the same time.
    fn log_space_needed(&self, there: u64, to_come: u64) {
        let (folder, needed, free) = (self.folder.display(), there + 2 * to_come, self.disk.available());
        let told = format!(
            "{folder}: what is to come takes about {}, and joining it about {} more; {} are free",
            in_words(to_come),
            in_words(there + to_come),
            in_words(free)
        );
        if needed > free { warn!("{told}; the run will wait for room") } else { debug!("{told}") }
    }
}

pub(super) fn segment_path(folder: &Path, segment: u64) -> PathBuf {
    folder.join(format!("{segment:06}{SEGMENT}"))
}

fn number_of(path: &Path) -> Option<u64> {
    path.file_name()?.to_str()?.strip_suffix(SEGMENT)?.parse().ok()
}

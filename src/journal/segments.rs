//! The journal of a video that is encoded in segments, and the writer of the segments.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tempfile::NamedTempFile;
use tracing::{debug, warn};

use super::disk::{Disk, format_bytes};
use super::fingerprint::JobFingerprint;
use super::folder::{self, FINGERPRINT, SEGMENT, WRITING, failed};
use crate::error::Result;
use crate::media::{Cut, Packet, Record, SEGMENT_FRAMES, SegmentReader, SegmentSource, SegmentWriter};
use crate::pipeline::{ResumeState, Store};

/// Extension that the journal's folder adds to the name of the output.
const EXTENSION: &str = ".hasn";
const JOINED: &str = "joined";

/// The locked folder of a run.
pub struct Journal {
    pub(super) folder: PathBuf,
    /// Complete segments by number.
    pub(super) records: BTreeMap<u64, Record>,
    _lock: File,
}

impl Journal {
    /// Path of the journal of an output, whether it exists or not.
    pub fn folder_of(output: &Path) -> PathBuf {
        let mut name = output.as_os_str().to_owned();
        name.push(EXTENSION);
        name.into()
    }

    /// Creates a journal, or opens the one of an earlier run with the same fingerprint, for this process alone.
    pub fn open(folder: &Path, fingerprint: &JobFingerprint) -> Result<Journal> {
        let lock = folder::open(folder, fingerprint, SEGMENT)?;
        Journal::scanned(folder, lock)
    }

    /// Opens an existing journal together with other processes that encode segments of the same video.
    pub fn open_shared(folder: &Path, fingerprint: &JobFingerprint) -> Result<Journal> {
        let lock = folder::lock(folder, File::try_lock_shared)?;
        let path = folder.join(FINGERPRINT);
        let bytes = fs::read(&path).map_err(|e| failed(&path, e))?;
        JobFingerprint::parse(&bytes, &path)?.check_same(fingerprint, folder)?;
        Journal::scanned(folder, lock)
    }

    fn scanned(folder: &Path, lock: File) -> Result<Journal> {
        let mut journal = Journal { folder: folder.to_owned(), records: BTreeMap::new(), _lock: lock };
        journal.scan()?;
        Ok(journal)
    }

    /// Reads which segments exist, and removes truncated ones.
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
                    warn!("{}: is truncated, and is encoded again", path.display());
                    fs::remove_file(&path).map_err(failed)?;
                }
            }
        }
        // Only the last segment of a video has fewer frames.
        let last = self.records.last_key_value().map_or(0, |(&segment, _)| segment);
        let is_short = |(&segment, record): (&u64, &Record)| {
            (segment < last && record.source.frames != SEGMENT_FRAMES).then_some(segment)
        };
        let short: Vec<u64> = self.records.iter().filter_map(is_short).collect();
        self.remove_unfit(&short, "has too few frames")
    }

    /// Removes segments, to be encoded again.
    pub fn remove_unfit(&mut self, segments: &[u64], problem: &str) -> Result<()> {
        for segment in segments {
            let path = segment_path(&self.folder, *segment);
            warn!("{}: {problem}, and is encoded again", path.display());
            fs::remove_file(&path).map_err(|e| failed(&path, e))?;
            self.records.remove(segment);
        }
        Ok(())
    }

    /// The frames of a finished segment in the source.
    pub fn source_of(&self, segment: u64) -> Option<&SegmentSource> {
        self.records.get(&segment).map(|record| &record.source)
    }

    /// Path of the journal.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Count of frames in complete segments.
    pub fn frames(&self) -> u64 {
        self.records.values().map(|record| record.source.frames).sum()
    }

    /// End of the last complete segment, in seconds of the input.
    pub fn reached_s(&self) -> f64 {
        self.records.last_key_value().map_or(0.0, |(_, record)| record.end_s())
    }

    /// What is finished and what is left.
    pub fn resume_state(&self) -> ResumeState {
        let next =
            |(&segment, record): (&u64, &Record)| ((segment + 1) * SEGMENT_FRAMES, record.next.clone());
        ResumeState {
            finished_segments: self.records.keys().copied().collect(),
            sources: self.records.iter().map(|(&segment, record)| (segment, record.source.clone())).collect(),
            finished_frames: self.frames(),
            encoder_states: self.records.iter().map(next).collect(),
            ..ResumeState::default()
        }
    }

    /// Returns the writer of the segments of a run of `frames` frames; 0 where their count is not known.
    pub fn store(&self, frames: u64, interrupt: Arc<AtomicBool>) -> SegmentStore {
        let disk = Disk::new(&self.folder, interrupt);
        let frames_to_estimate = frames.checked_sub(self.frames());
        SegmentStore { disk, folder: self.folder.clone(), open: None, frames_to_estimate }
    }

    /// Logs before a run of `frames` frames how much space it needs: by the existing segments, else by an estimate of
    /// bytes per frame.
    pub fn log_space_needed(
        &self,
        frames: u64,
        bytes_per_frame: Option<f64>,
        store: &SegmentStore,
    ) -> Result<()> {
        let (finished, size) = (self.frames(), self.size()?);
        let bytes_per_frame =
            if finished > 0 { Some(size as f64 / finished as f64) } else { bytes_per_frame };
        let left = frames.saturating_sub(finished);
        if let Some(bytes) = bytes_per_frame.filter(|_| left > 0) {
            store.log_space_needed(size, (left as f64 * bytes) as u64);
        }
        Ok(())
    }

    /// Size of all segments in bytes.
    pub(super) fn size(&self) -> Result<u64> {
        let size = |&segment: &u64| fs::metadata(segment_path(&self.folder, segment)).map(|data| data.len());
        self.records.keys().map(size).sum::<io::Result<u64>>().map_err(|e| failed(&self.folder, e))
    }

    /// Records that the file at `partial` is the complete video, which only lacks its name.
    pub fn mark_joined(&self, partial: &Path) -> Result<()> {
        let path = self.folder.join(JOINED);
        let marked =
            folder::identity(partial).and_then(|joined| folder::write_atomically(&path, joined.as_bytes()));
        marked.map_err(|e| failed(&self.folder, e))
    }

    /// Whether a run has completed `output` and only left its journal behind.
    pub fn is_finished(folder: &Path, output: &Path) -> bool {
        let joined = fs::read_to_string(folder.join(JOINED));
        let existing = folder::identity(output);
        matches!((joined, existing), (Ok(joined), Ok(existing)) if joined == existing)
    }

    /// Removes the journal, when the output has its name.
    pub fn remove(self) -> Result<()> {
        folder::remove(&self.folder)
    }

    /// Removes a journal that no process is using, whatever it contains.
    pub fn discard(folder: &Path) -> Result<()> {
        let _lock = folder::lock(folder, File::try_lock)?;
        folder::remove(folder)
    }
}

/// Writer of the segments of a run.
pub struct SegmentStore {
    folder: PathBuf,
    disk: Disk,
    open: Option<(NamedTempFile, SegmentWriter)>,
    /// Count of frames whose size is estimated from the first segment; `None` after it.
    frames_to_estimate: Option<u64>,
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
            self.open = Some(disk.retry_when_full(0, open)?);
        }
        let (_, writer) = self.open.as_mut().expect("just opened");
        disk.retry_when_full(packet.size() as u64, || writer.write(&packet))
    }

    fn close(&mut self, cut: Cut) -> Result<()> {
        let (file, mut writer) = self.open.take().expect("a segment has packets");
        self.disk.retry_when_full(0, || writer.finish(&cut))?;
        let path = segment_path(&self.folder, cut.segment);
        let named = file.persist(&path).map_err(|e| e.error).and_then(|_| folder::sync(&self.folder));
        named.map_err(|e| failed(&self.folder, e))?;
        let cut_frames = cut.source.frames;
        debug!("{}: {cut_frames} frames", path.display());
        if let Some(frames) = self.frames_to_estimate.take() {
            let size = fs::metadata(&path).map_or(0, |metadata| metadata.len());
            self.log_space_needed(size, frames.saturating_sub(cut_frames) * size / cut_frames);
        }
        Ok(())
    }
}

impl SegmentStore {
    /// Logs how much space a run needs whose segments have `existing` bytes and will have `remaining` more. The segments
    /// and the video that is joined from them exist at the same time.
    fn log_space_needed(&self, existing: u64, remaining: u64) {
        let (folder, needed, free) = (self.folder.display(), existing + 2 * remaining, self.disk.available());
        let message = format!(
            "{folder}: the remaining segments need about {}, and joining needs about {} more; {} are free",
            format_bytes(remaining),
            format_bytes(existing + remaining),
            format_bytes(free)
        );
        if needed > free {
            warn!("{message}; the run will wait when the disk is full");
        } else {
            debug!("{message}");
        }
    }
}

pub(super) fn segment_path(folder: &Path, segment: u64) -> PathBuf {
    folder.join(format!("{segment:06}{SEGMENT}"))
}

fn number_of(path: &Path) -> Option<u64> {
    path.file_name()?.to_str()?.strip_suffix(SEGMENT)?.parse().ok()
}

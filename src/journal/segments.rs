//! The journal of a video that is encoded in segments, and the writer of the segments.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tempfile::{NamedTempFile, TempPath};
use tracing::{debug, warn};

use super::disk::{Disk, failed, format_bytes, is_full};
use super::fingerprint::{JobFingerprint, content_of};
use super::folder::{self, FINGERPRINT, FINISHED, JOINED, JOINING, SEGMENT};
use super::kept_frames::{self, KeptFrames};
use crate::error::{self, Error, Result};
use crate::media::{
    Cut, Packet, Record, SEGMENT_FRAMES, SegmentReader, SegmentSource, SegmentWriter, is_taken, sync_folder,
    through_links,
};
use crate::pipeline::{ResumeState, Store};

/// Extension that the journal's folder adds to the name of the output.
const EXTENSION: &str = ".hasn";

/// The locked folder of a run.
pub struct Journal {
    pub(super) folder: PathBuf,
    /// Complete segments by number.
    pub(super) records: BTreeMap<u64, Record>,
    disk: Disk,
    lock: File,
}

impl Journal {
    /// Path of the journal of an output, whether it exists or not: beside the file that is written.
    pub fn folder_of(output: &Path) -> PathBuf {
        let mut name = through_links(output).into_os_string();
        name.push(EXTENSION);
        name.into()
    }

    /// Fails if the folder holds what hasn did not write, and is no journal.
    pub fn check_own(folder: &Path) -> Result<()> {
        folder::check_own(folder)
    }

    /// Creates a journal, or opens the one of an earlier run with the same fingerprint, for this process alone. Setting
    /// `interrupt` ends a wait for space.
    pub fn open(folder: &Path, fingerprint: &JobFingerprint, interrupt: &Arc<AtomicBool>) -> Result<Journal> {
        let disk = Disk::new(folder, interrupt.clone());
        let lock = folder::open(folder, fingerprint, SEGMENT, &disk)?;
        Journal::scanned(folder, disk, lock)
    }

    /// Lets a run with `fingerprint` continue with another FFmpeg than that with which the journal was started.
    pub fn allow_other_ffmpeg(folder: &Path, fingerprint: &mut JobFingerprint) -> Result<()> {
        let path = folder.join(FINGERPRINT);
        let bytes = fs::read(&path).map_err(|e| failed(&path, e))?;
        JobFingerprint::parse(&bytes, &path)?.pass_ffmpeg_on(fingerprint, folder);
        Ok(())
    }

    /// The entry of that name in the fingerprint of the journal in `folder`; `None` if there is no journal.
    pub fn recorded(folder: &Path, name: &str) -> Result<Option<String>> {
        let path = folder.join(FINGERPRINT);
        match fs::read(&path) {
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
            Err(e) => Err(failed(&path, e)),
            Ok(bytes) => Ok(JobFingerprint::parse(&bytes, &path)?.take(name)),
        }
    }

    /// Fails where a run with `fingerprint` could not continue the journal in `folder`. Returns the number of frames that it
    /// holds. It changes nothing.
    pub fn finished_frames(folder: &Path, fingerprint: &JobFingerprint) -> Result<u64> {
        let path = folder.join(FINGERPRINT);
        match fs::read(&path) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(0),
            Err(e) => return Err(failed(&path, e)),
            Ok(bytes) => JobFingerprint::parse(&bytes, &path)?.check_same(fingerprint, folder)?,
        }
        let mut frames = 0;
        for entry in fs::read_dir(folder).map_err(|e| failed(folder, e))? {
            let path = entry.map_err(|e| failed(folder, e))?.path();
            if number_of(&path).is_some()
                && let Ok(segment) = SegmentReader::open(&path)
            {
                frames += segment.record().source.frames;
            }
        }
        let images = fs::read_to_string(folder.join(FINISHED)).unwrap_or_default();
        Ok(frames + images.lines().count() as u64)
    }

    /// Opens an existing journal together with other processes that encode segments of the same video.
    pub fn open_shared(
        folder: &Path,
        fingerprint: &JobFingerprint,
        interrupt: &Arc<AtomicBool>,
    ) -> Result<Journal> {
        let lock = folder::lock(folder, File::try_lock_shared)?;
        let path = folder.join(FINGERPRINT);
        let bytes = fs::read(&path).map_err(|e| failed(&path, e))?;
        JobFingerprint::parse(&bytes, &path)?.check_same(fingerprint, folder)?;
        Journal::scanned(folder, Disk::new(folder, interrupt.clone()), lock)
    }

    fn scanned(folder: &Path, disk: Disk, lock: File) -> Result<Journal> {
        let mut journal = Journal { folder: folder.to_owned(), records: BTreeMap::new(), disk, lock };
        journal.scan()?;
        Ok(journal)
    }

    /// Reads which segments exist, and removes truncated ones.
    pub fn scan(&mut self) -> Result<()> {
        self.records.clear();
        for entry in fs::read_dir(&self.folder).map_err(|e| failed(&self.folder, e))? {
            let path = entry.map_err(|e| failed(&self.folder, e))?.path();
            let Some(number) = number_of(&path) else { continue };
            match SegmentReader::open(&path).map(|reader| reader.record().clone()) {
                Ok(record) if record.segment == number => drop(self.records.insert(number, record)),
                Err(e) if e.kind() != ErrorKind::InvalidData => return Err(failed(&path, e)),
                _ => {
                    warn!("{}: is truncated, and is encoded again", path.display());
                    fs::remove_file(&path).map_err(|e| failed(&path, e))?;
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

    /// Whether a folder is a journal.
    pub fn is_journal(folder: &Path) -> bool {
        folder.join(FINGERPRINT).exists()
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

    /// Count of frames whose work is kept: those in complete segments, and upscaled ones.
    pub fn kept_frames(&self) -> u64 {
        self.frames() + kept_frames::count(&self.folder, &self.finished())
    }

    /// The same of the journal in a folder, for messages.
    pub fn kept_frames_in(folder: &Path) -> u64 {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let segments = entries.map(|entry| entry.path()).filter(|path| number_of(path).is_some());
        let records = segments.filter_map(|path| Some(SegmentReader::open(&path).ok()?.record().clone()));
        let frames: BTreeMap<u64, u64> =
            records.map(|record| (record.segment, record.source.frames)).collect();
        let finished = frames.keys().copied().collect();
        frames.values().sum::<u64>() + kept_frames::count(folder, &finished)
    }

    /// Upscaled frames of segments that are not complete.
    pub fn frame_cache(&self) -> KeptFrames {
        KeptFrames::open(&self.folder, &self.finished(), self.disk.clone())
    }

    fn finished(&self) -> BTreeSet<u64> {
        self.records.keys().copied().collect()
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
            finished_segments: self.finished(),
            sources: self.records.iter().map(|(&segment, record)| (segment, record.source.clone())).collect(),
            finished_frames: self.frames(),
            encoder_states: self.records.iter().map(next).collect(),
            ..ResumeState::default()
        }
    }

    /// The file system of the journal.
    pub fn disk(&self) -> &Disk {
        &self.disk
    }

    /// Returns the writer of the segments of a run of `frames` frames; 0 where their count is not known.
    pub fn store(&self, frames: u64) -> SegmentStore {
        let (disk, frames_to_estimate) = (self.disk.clone(), frames.checked_sub(self.frames()));
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

    /// Marks the file at `partial`, which is about to be created, as the journal's own. Without `overwrite`, another file
    /// of that name is an error.
    pub fn claim_partial(&self, partial: &Path, overwrite: bool) -> Result<()> {
        if Journal::owns_partial(&self.folder) {
            return Ok(());
        }
        if !overwrite && is_taken(partial) {
            let remedy = "it is not of this run: move it away, or -y overwrites it";
            let error = Error::new(partial.to_string_lossy(), "already exists", remedy);
            return Err(error.with_kind(error::ErrorKind::Exists));
        }
        self.write(JOINING, b"")
    }

    /// Removes the mark of the file at `partial`, if a failed run has removed that file.
    pub fn release_partial(&self, partial: &Path) {
        if !is_taken(partial) {
            // A mark that stays only lets the next run overwrite that file.
            let _ = fs::remove_file(self.folder.join(JOINING));
        }
    }

    /// Whether a partial output beside the folder is the journal's own.
    pub fn owns_partial(folder: &Path) -> bool {
        folder.join(JOINING).exists()
    }

    /// Records that the file at `partial` is the complete video, which only lacks its name.
    /// `report`: that of the run, in case it gets no chance to write it.
    pub fn mark_joined(&self, partial: &Path, report: &str) -> Result<()> {
        self.write(JOINED, format!("{}\n{report}", content_of(partial)?).as_bytes())
    }

    /// The report of the run that has completed the output; `None` if there is none.
    pub fn joined_report(folder: &Path) -> Option<String> {
        let joined = fs::read_to_string(folder.join(JOINED)).ok()?;
        joined.split_once('\n').map(|(_, report)| report.to_owned()).filter(|report| !report.is_empty())
    }

    /// Writes a file into the folder.
    pub(super) fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let path = self.folder.join(name);
        self.disk.retry_call(bytes.len() as u64, || folder::write_atomically(&path, bytes))
    }

    /// Whether the file at `path`, an output or its partial file, is the complete video of this journal.
    pub fn is_finished(folder: &Path, path: &Path) -> bool {
        let Ok(joined) = fs::read_to_string(folder.join(JOINED)) else { return false };
        content_of(path).is_ok_and(|content| joined.lines().next() == Some(content.as_str()))
    }

    /// Whether a run that was to write `output` has not ended.
    pub(super) fn is_unfinished(output: &Path) -> bool {
        let folder = Journal::folder_of(output);
        folder.join(FINGERPRINT).exists() && !Journal::is_finished(&folder, output)
    }

    /// Removes the journal, when the output has its name. What cannot be removed is no error any more.
    pub fn remove(self) {
        folder::remove_or_warn(&self.folder, self.lock);
    }

    /// Removes a journal that no process is using, and the partial file that is its own.
    pub fn discard(folder: &Path, partial: Option<&Path>) -> Result<()> {
        let lock = folder::lock(folder, File::try_lock)?;
        if let Some(partial) = partial.filter(|partial| Journal::owns_partial(folder) && is_taken(partial)) {
            fs::remove_file(partial).map_err(|e| failed(partial, e))?;
        }
        folder::remove(folder, lock).map_err(|e| failed(folder, e))
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
                let file = folder::temporary(folder)?;
                let writer = SegmentWriter::create(file.path())?;
                Ok((file, writer))
            };
            self.open = Some(disk.retry_call(0, open)?);
        }
        let (_, writer) = self.open.as_mut().expect("just opened");
        disk.retry_call(packet.size() as u64, || writer.write(&packet))
    }

    fn close(&mut self, cut: Cut) -> Result<()> {
        let (file, mut writer) = self.open.take().expect("a segment has packets");
        self.disk.retry_call(0, || writer.seal(&cut))?;
        let file = self.sync(file, &writer)?;
        let path = segment_path(&self.folder, cut.segment);
        self.disk.retry_call(0, || fs::rename(&file, &path))?;
        self.disk.retry_call(0, || sync_folder(&self.folder))?;
        kept_frames::remove(&self.folder, cut.segment);
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
    /// Syncs a sealed segment to the disk. After a failed sync, Linux may take the lost pages for written ones: only a copy
    /// that is synced itself is known to be on the disk.
    fn sync(&self, file: NamedTempFile, writer: &SegmentWriter) -> Result<TempPath> {
        let Err(error) = writer.sync() else { return Ok(file.into_temp_path()) };
        warn!("{}: a segment cannot be synced to the disk: {error}; it is copied", self.folder.display());
        let size = file.as_file().metadata().map_or(0, |metadata| metadata.len());
        let mut full = Some(error).filter(is_full);
        self.disk.retry_call(size, || {
            if let Some(error) = full.take() {
                return Err(error);
            }
            let mut copy = folder::temporary(&self.folder)?;
            io::copy(&mut File::open(file.path())?, &mut copy)?;
            let mut reader = SegmentReader::open(copy.path())?;
            while reader.next_packet()?.is_some() {}
            copy.as_file().sync_all()?;
            Ok(copy.into_temp_path())
        })
    }

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

//! Upscaled frames of segments that are not finished: where a segment takes long, they are kept between its cuts, so that a
//! run that is killed loses seconds of work. Cuts, and with them the packets, stay as they are.
//!
//! `000017.frames` beside the segments, until `000017.segment` is complete:
//!
//! ```text
//! (MAGIC, index, pts, origin: checksum, damaged, size of the samples, CRC-32 of all this and the samples, samples)*
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, TryLockError};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tracing::{debug, warn};

use super::disk::{Disk, format_bytes};
use super::folder::FRAMES;
use crate::frame::{Frame, Timestamp};
use crate::media::SEGMENT_FRAMES;
use crate::pipeline::FrameCache;

/// Time that a segment takes at least where its frames are kept: those of fast runs are not worth the writes.
const SLOW: Duration = Duration::from_secs(20);
/// Time between two syncs to the disk.
const SYNC_INTERVAL: Duration = Duration::from_secs(10);
const BUFFER_BYTES: usize = 1 << 20;

const MAGIC: [u8; 8] = *b"hasn-frm";
/// Bytes before the samples: magic, index, pts, checksum, damaged, size, CRC-32.
const HEADER_BYTES: u64 = 8 + 8 + 8 + 4 + 4 + 8 + 4;

/// Reads the frames that earlier runs have kept, and keeps those of this run.
pub struct KeptFrames {
    folder: PathBuf,
    disk: Disk,
    /// By the index of the frame.
    found: BTreeMap<u64, Found>,
    /// The segment of the last frame.
    segment: Option<u64>,
    /// When its first frame came; of the first segment, when the run started.
    since: Instant,
    is_slow: bool,
    /// The file of that segment.
    open: Option<BufWriter<File>>,
    synced: Instant,
    /// Whether frames are not kept any more.
    has_failed: bool,
}

/// A frame in a file.
struct Found {
    path: PathBuf,
    header: Header,
    /// Where its samples begin.
    offset: u64,
    checksum: u32,
}

/// What a frame was upscaled from, and the size of its samples.
#[derive(PartialEq)]
struct Header {
    time: [u64; 3],
    size: u64,
}

impl Header {
    fn of(time: &Timestamp, size: u64) -> Header {
        let origin = u64::from(time.origin.checksum) << 32 | u64::from(time.origin.damaged);
        Header { time: [time.index, time.pts as u64, origin], size }
    }

    fn bytes(&self) -> [u8; 40] {
        let [index, pts, origin] = self.time.map(u64::to_le_bytes);
        let mut bytes = [0; 40];
        for (part, value) in bytes.chunks_mut(8).zip([MAGIC, index, pts, origin, self.size.to_le_bytes()]) {
            part.copy_from_slice(&value);
        }
        bytes
    }

    fn parse(bytes: &[u8; HEADER_BYTES as usize]) -> Option<(Header, u32)> {
        let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        let checksum = u32::from_le_bytes(bytes[40..].try_into().expect("four bytes"));
        let header = Header { time: [word(8), word(16), word(24)], size: word(32) };
        (bytes[..8] == MAGIC).then_some((header, checksum))
    }
}

impl KeptFrames {
    /// Frames in `folder` of segments that are not `finished`.
    pub fn open(folder: &Path, finished: &BTreeSet<u64>, disk: Disk) -> KeptFrames {
        let found = find(folder, finished);
        KeptFrames {
            folder: folder.to_owned(),
            disk,
            is_slow: !found.is_empty(),
            found,
            segment: None,
            since: Instant::now(),
            open: None,
            synced: Instant::now(),
            has_failed: false,
        }
    }

    fn write(&mut self, frame: &Frame, segment: u64) -> io::Result<()> {
        let size = frame.format.bytes() as u64;
        if self.open.is_none() {
            let needed = 2 * SEGMENT_FRAMES * (HEADER_BYTES + size);
            if self.disk.available() < needed {
                let problem = format!("a run that is killed loses up to {SEGMENT_FRAMES} frames");
                warn!("{}: has less than {} free: {problem}", self.folder.display(), format_bytes(needed));
                self.has_failed = true;
                return Ok(());
            }
            self.open = Some(BufWriter::with_capacity(BUFFER_BYTES, open_to_append(&self.folder, segment)?));
        }
        let file = self.open.as_mut().expect("just opened");
        let header = Header::of(&frame.time, size);
        let mut checksum = crc32fast::Hasher::new();
        checksum.update(&header.bytes());
        rows(frame).for_each(|row| checksum.update(row));
        file.write_all(&header.bytes())?;
        file.write_all(&checksum.finalize().to_le_bytes())?;
        rows(frame).try_for_each(|row| file.write_all(row))?;
        file.flush()?;
        if self.synced.elapsed() >= SYNC_INTERVAL {
            self.synced = Instant::now();
            file.get_ref().sync_data()?;
        }
        Ok(())
    }
}

impl FrameCache for KeptFrames {
    fn has(&self, time: &Timestamp) -> bool {
        let found = self.found.get(&time.index);
        found.is_some_and(|found| found.header.time == Header::of(time, 0).time)
    }

    fn restore(&mut self, time: &Timestamp, sr: &mut Frame) -> bool {
        let Some(found) = self.found.get(&time.index) else { return false };
        let is_whole = found.header.size == sr.format.bytes() as u64 && read(found, sr).unwrap_or(false);
        if !is_whole {
            debug!("{}: frame {} is not whole, and is upscaled again", found.path.display(), time.index);
        }
        is_whole
    }

    fn keep(&mut self, frame: &Frame) {
        let segment = frame.time.index / SEGMENT_FRAMES;
        let is_slow = self.since.elapsed() >= SLOW;
        if self.segment.replace(segment).is_some_and(|before| before != segment) {
            (self.since, self.is_slow, self.open) = (Instant::now(), is_slow, None);
        }
        self.is_slow |= is_slow;
        if self.has_failed || !self.is_slow {
            return;
        }
        if let Err(e) = self.write(frame, segment) {
            let folder = self.folder.display();
            warn!("{folder}: upscaled frames cannot be kept: {e}; the run continues without them");
            self.has_failed = true;
            if self.open.take().is_some() {
                // What it takes of a full disk is for the segments.
                remove(&self.folder, segment);
            }
        }
    }
}

/// The rows of samples of all planes.
fn rows(frame: &Frame) -> impl Iterator<Item = &[u8]> {
    (0..usize::from(frame.format.pixel_format.planes)).flat_map(move |plane| {
        let (row_len, rows) = frame.format.plane_size(plane);
        let lines = frame.buffer.plane(plane).chunks(frame.buffer.linesize(plane));
        lines.take(rows).map(move |line| &line[..row_len])
    })
}

/// Reads a frame. Returns whether it is what was written.
fn read(found: &Found, sr: &mut Frame) -> io::Result<bool> {
    let (file, mut at) = (File::open(&found.path)?, found.offset);
    let mut checksum = crc32fast::Hasher::new();
    checksum.update(&found.header.bytes());
    for plane in 0..usize::from(sr.format.pixel_format.planes) {
        let ((row_len, rows), linesize) = (sr.format.plane_size(plane), sr.buffer.linesize(plane));
        for line in sr.buffer.plane_mut(plane).chunks_mut(linesize).take(rows) {
            file.read_exact_at(&mut line[..row_len], at)?;
            checksum.update(&line[..row_len]);
            at += row_len as u64;
        }
    }
    Ok(checksum.finalize() == found.checksum)
}

/// Lists the kept frames of a folder, and removes those of finished segments.
fn find(folder: &Path, finished: &BTreeSet<u64>) -> BTreeMap<u64, Found> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let Some(segment) = number_of(&path) else { continue };
        if finished.contains(&segment) {
            remove(folder, segment);
        } else if let Err(e) = find_in(&path, &mut all) {
            debug!("{}: {e}", path.display());
        }
    }
    all
}

/// Adds the frames of a file. Returns where the last one ends that is written to its end.
fn find_in(path: &Path, all: &mut BTreeMap<u64, Found>) -> io::Result<u64> {
    let file = File::open(path)?;
    let (len, mut at) = (file.metadata()?.len(), 0);
    while at + HEADER_BYTES <= len {
        let mut bytes = [0; HEADER_BYTES as usize];
        file.read_exact_at(&mut bytes, at)?;
        let Some((header, checksum)) = Header::parse(&bytes) else { break };
        let offset = at + HEADER_BYTES;
        let Some(end) = offset.checked_add(header.size).filter(|&end| end <= len) else { break };
        all.insert(header.time[0], Found { path: path.to_owned(), header, offset, checksum });
        at = end;
    }
    Ok(at)
}

/// Opens the file of a segment behind its last frame. Another process may hold it that encodes the same segment.
fn open_to_append(folder: &Path, segment: u64) -> io::Result<File> {
    let path = path_of(folder, segment);
    let file = File::options().create(true).append(true).open(&path)?;
    if let Err(TryLockError::WouldBlock) = file.try_lock() {
        return Err(io::Error::new(ErrorKind::WouldBlock, "another process encodes the same segment"));
    }
    file.set_len(find_in(&path, &mut BTreeMap::new())?)?;
    Ok(file)
}

/// Count of the frames that are kept in a folder of segments that are not `finished`.
pub(super) fn count(folder: &Path, finished: &BTreeSet<u64>) -> u64 {
    find(folder, finished).len() as u64
}

/// Removes the frames of a segment that is complete.
pub(super) fn remove(folder: &Path, segment: u64) {
    // Those that stay only take space, until the folder is removed.
    let _ = fs::remove_file(path_of(folder, segment));
}

fn path_of(folder: &Path, segment: u64) -> PathBuf {
    folder.join(format!("{segment:06}{FRAMES}"))
}

fn number_of(path: &Path) -> Option<u64> {
    path.file_name()?.to_str()?.strip_suffix(FRAMES)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::frame::Origin;
    use crate::testing::frame_format;

    /// A frame whose samples are all `index`.
    fn frame(index: u64) -> Frame {
        let mut frame = Frame::new(frame_format(6, 4, "yuv420p"));
        (0..3).for_each(|plane| frame.buffer.plane_mut(plane).fill(index as u8));
        let origin = Origin { checksum: 7, damaged: 0 };
        frame.time = Timestamp { index, pts: 10 * index as i64, origin, ..Timestamp::default() };
        frame
    }

    fn open(folder: &Path, finished: &[u64]) -> KeptFrames {
        let finished = finished.iter().copied().collect();
        KeptFrames::open(folder, &finished, Disk::new(folder, Arc::default()))
    }

    fn restores(kept: &mut KeptFrames, wanted: &Frame) -> bool {
        let mut sr = frame(0);
        kept.has(&wanted.time) && kept.restore(&wanted.time, &mut sr) && sr.has_samples_of(wanted)
    }

    #[test]
    fn only_what_was_kept_of_the_same_source_is_restored() {
        let folder = tempfile::tempdir().unwrap();
        let keep = |indices: &[u64]| {
            let mut kept = KeptFrames { is_slow: true, ..open(folder.path(), &[]) };
            indices.iter().for_each(|&index| kept.keep(&frame(index)));
        };
        keep(&[1, 2]);
        keep(&[3, 4]);
        let mut kept = open(folder.path(), &[]);
        assert!([1, 2, 3, 4].iter().all(|&index| restores(&mut kept, &frame(index))));
        let mut other = frame(2);
        other.time.origin.checksum = 8;
        assert!(!restores(&mut kept, &other) && !restores(&mut kept, &frame(5)));

        let path = path_of(folder.path(), 0);
        let mut bytes = fs::read(&path).unwrap();
        let of_one = bytes.len() / 4;
        bytes[of_one + 50] ^= 1;
        bytes.truncate(bytes.len() - 1);
        fs::write(&path, bytes).unwrap();
        keep(&[5]);
        let mut kept = open(folder.path(), &[]);
        let restored: Vec<_> = (1..6).filter(|&index| restores(&mut kept, &frame(index))).collect();
        assert_eq!((restored, count(folder.path(), &BTreeSet::new())), (vec![1, 3, 5], 4));
        assert_eq!(count(folder.path(), &BTreeSet::from([0])), 0);
        assert!(!path.exists(), "the frames of a finished segment are kept");
    }

    #[test]
    fn frames_of_fast_segments_are_not_kept() {
        let folder = tempfile::tempdir().unwrap();
        let mut kept = open(folder.path(), &[]);
        (0..3 * SEGMENT_FRAMES).for_each(|index| kept.keep(&frame(index)));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        kept.since -= SLOW;
        kept.keep(&frame(3 * SEGMENT_FRAMES - 1));
        kept.keep(&frame(3 * SEGMENT_FRAMES));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }
}

//! Join: the packets of the segments and those copied from the input become one file. Nothing is encoded again.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tracing::info;

use super::disk::{Stall, failed, format_bytes};
use super::segments::{Journal, segment_path};
use crate::error::{Error, ErrorKind, Result};
use crate::media::{
    AV_LAG_US_MAX, CHECK_DEVICE, Damage, Input, Muxer, Packet, PacketQueue, SegmentReader, StreamTallies,
    Transcoders,
};

/// Longest wait before the join starts again where the file system reports enough free space: all is written again.
const BACKOFF_MAX: Duration = Duration::from_secs(600);

/// Parts of a video that is joined.
pub struct JoinOutput {
    /// Muxer whose header is written.
    pub muxer: Muxer,
    /// Streams that are copied; `None` where the segments have them.
    pub copied: Option<CopiedInput>,
}

/// Streams of the input that are read again for a join.
pub struct CopiedInput {
    /// The input, opened at its start.
    pub input: Input,
    /// Transcoders of the streams that are not copied.
    pub transcoders: Transcoders,
    /// What was read of them when the segments were encoded: the same must be read again.
    pub tallies: StreamTallies,
    /// Damage of the source, to which a complete join adds that of the converted streams.
    pub damage: Damage,
}

/// Joins the segments of a journal, all of which must have the encoder's `header`, into the output that `open` opens.
/// Returns the muxer, whose file is complete under its partial name. When the disk is full, the partial file is removed,
/// and the join starts again when there is space.
pub fn join(
    journal: &Journal,
    header: u32,
    interrupt: &Arc<AtomicBool>,
    mut open: impl FnMut() -> Result<JoinOutput>,
) -> Result<Muxer> {
    check_segments(journal, header)?;
    let (disk, wanted) = (journal.disk(), journal.size()?);
    let (folder, segments) = (journal.folder.display(), journal.records.len());
    info!("{folder}: joining {segments} segments ({})", format_bytes(wanted));
    let mut stall = Stall::new(BACKOFF_MAX);
    if disk.available() < wanted {
        stall.wait(disk, wanted)?;
    }
    loop {
        let joined = match open() {
            Err(error) if error.kind() == ErrorKind::DiskFull => None,
            output => Join::new(output?).run(journal, interrupt)?,
        };
        match joined {
            Some(muxer) => {
                stall.end(disk);
                return Ok(muxer);
            }
            None => stall.wait(disk, wanted)?,
        }
    }
}

fn check_segments(journal: &Journal, header: u32) -> Result<()> {
    let failed = |problem: String, remedy: &str, kind: ErrorKind| {
        Err(Error::new(journal.folder.to_string_lossy(), problem, remedy).with_kind(kind))
    };
    let segments = journal.records.len() as u64;
    if let Some(missing) = (0..segments).find(|segment| !journal.records.contains_key(segment)) {
        return failed(format!("segment {missing} is missing"), "encode it first", ErrorKind::NotFound);
    }
    if let Some((segment, _)) = journal.records.iter().find(|(_, record)| record.header != header) {
        let problem =
            format!("segment {segment} has another codec header and cannot be joined with the others");
        return failed(problem, "choose another --encoder", ErrorKind::Unsupported);
    }
    Ok(())
}

/// A join in progress.
struct Join {
    muxer: Muxer,
    copied: CopiedStreams,
    /// Whether the muxer has run out of space.
    is_disk_full: bool,
}

impl Join {
    fn new(output: JoinOutput) -> Join {
        let JoinOutput { muxer, copied } = output;
        let copied = CopiedStreams {
            is_at_end: copied.is_none(),
            source: copied,
            queue: PacketQueue::default(),
            read_us: i64::MIN,
            newest_us: i64::MIN,
        };
        Join { muxer, copied, is_disk_full: false }
    }

    /// Returns the muxer of the complete file; `None` where the disk was full and the partial file is removed.
    fn run(mut self, journal: &Journal, interrupt: &AtomicBool) -> Result<Option<Muxer>> {
        match self.write_all(journal, interrupt) {
            Ok(()) => {
                if let Some(CopiedInput { transcoders, damage, .. }) = &self.copied.source {
                    damage.add(transcoders.damage());
                }
                Ok(Some(self.muxer))
            }
            // A muxer that is dropped removes its partial file.
            Err(_) if self.is_disk_full => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn write_all(&mut self, journal: &Journal, interrupt: &AtomicBool) -> Result<()> {
        for segment in 0..journal.records.len() as u64 {
            self.write_segment(journal, segment, interrupt)?;
        }
        // Audio may be much longer than the video: it is written as it is read.
        while self.copied.read_some()? {
            let until_us = self.copied.newest_us.saturating_sub(AV_LAG_US_MAX);
            while let Some(packet) = self.copied.queue.pop_until(until_us)? {
                self.write(packet)?;
            }
        }
        self.write_copied_before(None)?;
        self.copied.check_complete()?;
        let finished = self.muxer.finish();
        self.note(finished)
    }

    fn write_segment(&mut self, journal: &Journal, segment: u64, interrupt: &AtomicBool) -> Result<()> {
        let path = segment_path(&journal.folder, segment);
        let broken = |e: io::Error| {
            if e.kind() == io::ErrorKind::InvalidData {
                // The next run encodes it again.
                let _ = std::fs::remove_file(&path);
            }
            failed(&path, e)
        };
        let mut reader = SegmentReader::open(&path).map_err(broken)?;
        while let Some(packet) = reader.next_packet().map_err(broken)? {
            if interrupt.load(Ordering::Relaxed) {
                let (subject, remedy) = (journal.folder.to_string_lossy(), "run the same command again");
                let error = Error::new(subject, "the join was interrupted", remedy);
                return Err(error.with_kind(ErrorKind::Interrupted));
            }
            self.copied.read_up_to(packet.dts_us().saturating_add(AV_LAG_US_MAX))?;
            self.write_copied_before(Some(&packet))?;
            self.write(packet)?;
        }
        Ok(())
    }

    /// Writes the copied packets that precede `next`; all of them without one.
    fn write_copied_before(&mut self, next: Option<&Packet>) -> Result<()> {
        while let Some(packet) = self.copied.queue.pop_before(next)? {
            self.write(packet)?;
        }
        Ok(())
    }

    fn write(&mut self, packet: Packet) -> Result<()> {
        let written = self.muxer.write(packet);
        self.note(written)
    }

    /// Passes on the muxer's result, and notes a full disk. A full disk elsewhere, such as that of the queue's
    /// temporary file, is an error.
    fn note(&mut self, written: Result<()>) -> Result<()> {
        self.is_disk_full = written.as_ref().is_err_and(|error| error.kind() == ErrorKind::DiskFull);
        written
    }
}

/// Copied streams of the input, read as far as the frames have got.
struct CopiedStreams {
    source: Option<CopiedInput>,
    is_at_end: bool,
    queue: PacketQueue,
    /// Largest dts of the video packets that were read.
    read_us: i64,
    /// Largest dts of all packets that were read.
    newest_us: i64,
}

impl CopiedStreams {
    fn read_up_to(&mut self, wanted_us: i64) -> Result<()> {
        while self.read_us < wanted_us && self.read_some()? {}
        Ok(())
    }

    /// Reads a packet into the queue. Returns false after the last one.
    fn read_some(&mut self) -> Result<bool> {
        let Some(CopiedInput { input, transcoders, .. }) = self.source.as_mut().filter(|_| !self.is_at_end)
        else {
            return Ok(false);
        };
        let packets = match input.next_packet()? {
            Some(packet) if input.is_video(&packet) => {
                self.read_us = self.read_us.max(packet.dts_us());
                Vec::new()
            }
            Some(packet) => transcoders.convert(packet)?,
            None => {
                self.is_at_end = true;
                transcoders.finish()?
            }
        };
        for packet in packets {
            self.newest_us = self.newest_us.max(packet.dts_us());
            self.queue.push(packet)?;
        }
        Ok(true)
    }

    /// An error if less or something else was read than when the segments were encoded.
    fn check_complete(&self) -> Result<()> {
        let Some(CopiedInput { input, tallies, .. }) = &self.source else { return Ok(()) };
        match tallies.difference(&input.tallies()) {
            None => Ok(()),
            Some(difference) => {
                Err(Error::new(input.name(), difference, CHECK_DEVICE).with_kind(ErrorKind::Io))
            }
        }
    }
}

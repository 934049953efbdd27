//! Join: segments become the video, without being coded again, among what is copied of the input.

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tracing::info;

use super::disk::{Disk, in_words};
use super::folder::failed;
use super::segments::{Journal, segment_path};
use crate::error::{Error, Result};
use crate::media::{AV_LAG_US_MAX, Input, Muxer, PacketQueue, SegmentReader, Transcoders};

/// A video that is to be written.
pub struct JoinOutput {
    /// What is copied comes from here; read from its beginning.
    pub input: Input,
    /// Of streams that are not copied as they are.
    pub transcoders: Transcoders,
    /// Its header written.
    pub muxer: Muxer,
}

/// Writes the video that `make` makes, under the encoder's `header`, and ends it under its partial name. A full disk is
/// waited for, and the video begun again.
pub fn join(
    journal: &Journal,
    header: u32,
    interrupt: &Arc<AtomicBool>,
    mut make: impl FnMut() -> Result<JoinOutput>,
) -> Result<Muxer> {
    let segments = journal.records.len() as u64;
    if let Some(missing) = (0..segments).find(|segment| !journal.records.contains_key(segment)) {
        let problem = format!("segment {missing} is missing");
        return Err(Error::new(journal.folder.to_string_lossy(), problem, "make it first"));
    }
    if let Some((segment, _)) = journal.records.iter().find(|(_, record)| record.header != header) {
        let problem =
            format!("segment {segment} has another header, so that it cannot be joined with others");
        return Err(Error::new(journal.folder.to_string_lossy(), problem, "choose another --encoder"));
    }
    let disk = Disk::new(&journal.folder, interrupt.clone());
    let mut wanted = journal.size()?;
    info!("{}: {segments} segments, {}, are joined", journal.folder.display(), in_words(wanted));
    loop {
        if disk.available() < wanted {
            disk.wait_for(wanted)?;
        }
        let JoinOutput { input, transcoders, mut muxer } = make()?;
        let copies =
            Copies { input: Some(input), transcoders, queue: PacketQueue::default(), read_us: i64::MIN };
        match write(journal, segments, copies, &mut muxer, interrupt) {
            // A muxer that is dropped takes what it has written with it. What is copied takes more than was thought.
            Err(_) if disk.is_full() => wanted += wanted / 4,
            result => return result.map(|()| muxer),
        }
    }
}

fn write(
    journal: &Journal,
    segments: u64,
    mut copies: Copies,
    muxer: &mut Muxer,
    interrupt: &AtomicBool,
) -> Result<()> {
    for segment in 0..segments {
        let path = segment_path(&journal.folder, segment);
        let broken = |e: std::io::Error| {
            if e.kind() == ErrorKind::InvalidData {
                // The next run makes it again.
                let _ = std::fs::remove_file(&path);
            }
            failed(&path, e)
        };
        let mut reader = SegmentReader::open(&path).map_err(broken)?;
        while let Some(packet) = reader.next_packet().map_err(broken)? {
            copies.read_up_to(packet.dts_us().saturating_add(AV_LAG_US_MAX))?;
            while let Some(copy) = copies.queue.pop_before(Some(&packet))? {
                muxer.write(copy)?;
            }
            muxer.write(packet)?;
        }
        if interrupt.load(Ordering::Relaxed) {
            let folder = journal.folder.to_string_lossy();
            return Err(Error::new(folder, "was not joined to its end", "run it again"));
        }
    }
    copies.read_up_to(i64::MAX)?;
    while let Some(copy) = copies.queue.pop_before(None)? {
        muxer.write(copy)?;
    }
    muxer.finish()
}

/// What is copied of the input, read as far as the frames have got.
struct Copies {
    /// `None` after its end.
    input: Option<Input>,
    transcoders: Transcoders,
    queue: PacketQueue,
    /// Up to this time the input's frames were passed.
    read_us: i64,
}

impl Copies {
    fn read_up_to(&mut self, wanted_us: i64) -> Result<()> {
        while self.read_us < wanted_us
            && let Some(input) = &mut self.input
        {
            let packets = match input.next_packet()? {
                Some(packet) if input.is_video(&packet) => {
                    self.read_us = self.read_us.max(packet.dts_us());
                    Vec::new()
                }
                Some(packet) => self.transcoders.convert(packet)?,
                None => {
                    self.input = None;
                    self.transcoders.finish()?
                }
            };
            packets.into_iter().try_for_each(|packet| self.queue.push(packet))?;
        }
        Ok(())
    }
}

//! Copied packets that wait to be muxed: in memory up to a bound, past it in an unnamed temporary file.
//!
//! Audio may lie far ahead of the video in a file. It never blocks (a muxer that waits for video while the encoder looks
//! ahead would deadlock), and memory stays bounded.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use ffmpeg_next as ffmpeg;

use crate::error::{Error, Result};
use crate::media::ffmpeg::check;
use crate::media::packet::Packet;

/// Some hours of compressed audio; a restoration machine has it to spare.
const MEMORY_BYTES_MAX: usize = 256 << 20;

/// A FIFO for each stream: one whose packets are far ahead (a subtitle at the end of the video) does not block the
/// others.
pub struct PacketQueue {
    /// Indexed by stream.
    packets: Vec<VecDeque<Queued>>,
    memory_bytes: usize,
    memory_bytes_max: usize,
    file: Option<File>,
    file_end: u64,
    packets_in_file: usize,
}

enum Queued {
    Memory(Packet),
    /// The packet without its payload, and where in the file that lies.
    File {
        header: Packet,
        offset: u64,
        size: usize,
    },
}

impl Queued {
    fn header(&self) -> &Packet {
        let (Queued::Memory(packet) | Queued::File { header: packet, .. }) = self;
        packet
    }
}

impl Default for PacketQueue {
    fn default() -> PacketQueue {
        PacketQueue::with_limit(MEMORY_BYTES_MAX)
    }
}

impl PacketQueue {
    fn with_limit(memory_bytes_max: usize) -> PacketQueue {
        PacketQueue {
            packets: Vec::new(),
            memory_bytes: 0,
            memory_bytes_max,
            file: None,
            file_end: 0,
            packets_in_file: 0,
        }
    }

    /// Appends a packet to the queue of its stream.
    pub fn push(&mut self, packet: Packet) -> Result<()> {
        let stream = packet.stream;
        if self.packets.len() <= stream {
            self.packets.resize_with(stream + 1, VecDeque::new);
        }
        let queued = if self.memory_bytes + packet.size() <= self.memory_bytes_max {
            self.memory_bytes += packet.size();
            Queued::Memory(packet)
        } else {
            self.write_to_file(packet).map_err(|e| {
                let folder = std::env::temp_dir();
                Error::new(
                    folder.to_string_lossy(),
                    format!("cannot store queued packets: {e}"),
                    "free some space there, or set TMPDIR",
                )
                .with_kind(e.kind().into())
                .with_source(e)
            })?
        };
        self.packets[stream].push_back(queued);
        Ok(())
    }

    /// The oldest packets of a stream that lie in memory, `count` at most. They stay in the queue.
    pub fn oldest_of(&self, stream: usize, count: usize) -> Vec<Packet> {
        let queued = self.packets.get(stream).into_iter().flatten().take(count);
        let in_memory = queued.map_while(|queued| match queued {
            Queued::Memory(packet) => Some(packet.share()),
            Queued::File { .. } => None,
        });
        in_memory.collect()
    }

    /// The stream whose oldest packet is the first of all to be written, and that packet.
    fn first(&self) -> Option<(usize, &Packet)> {
        let oldest =
            self.packets.iter().enumerate().filter_map(|(i, queue)| Some((i, queue.front()?.header())));
        oldest.reduce(|first, other| if other.1.precedes(first.1) { other } else { first })
    }

    fn write_to_file(&mut self, packet: Packet) -> io::Result<Queued> {
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(tempfile::tempfile()?),
        };
        let data = packet.packet.data().unwrap_or_default();
        file.write_all_at(data, self.file_end)?;
        let (offset, size) = (self.file_end, data.len());
        self.file_end += size as u64;
        self.packets_in_file += 1;
        let header = Packet { packet: with_payload(&packet.packet, &[]), ..packet };
        Ok(Queued::File { header, offset, size })
    }

    /// The oldest packet, if it is to be written before `next` or there is no `next`.
    pub fn pop_before(&mut self, next: Option<&Packet>) -> Result<Option<Packet>> {
        let due = self.first().filter(|(_, oldest)| next.is_none_or(|next| oldest.precedes(next)));
        due.map(|(stream, _)| stream).map_or(Ok(None), |stream| self.pop_of(stream))
    }

    /// The oldest packet, if its dts lies before this time.
    pub fn pop_until(&mut self, dts_us: i64) -> Result<Option<Packet>> {
        let due = self.first().filter(|(_, oldest)| oldest.dts_us() < dts_us);
        due.map(|(stream, _)| stream).map_or(Ok(None), |stream| self.pop_of(stream))
    }

    /// The oldest packet of a stream.
    pub fn pop_of(&mut self, stream: usize) -> Result<Option<Packet>> {
        match self.packets.get_mut(stream).and_then(VecDeque::pop_front) {
            None => Ok(None),
            Some(Queued::Memory(packet)) => {
                self.memory_bytes -= packet.size();
                Ok(Some(packet))
            }
            Some(Queued::File { header, offset, size }) => {
                let mut data = vec![0; size];
                let file = self.file.as_ref().expect("a packet was written to it");
                file.read_exact_at(&mut data, offset).map_err(|e| {
                    Error::new("temporary file", format!("cannot be read back: {e}"), "check that disk")
                        .with_kind(e.kind().into())
                        .with_source(e)
                })?;
                self.packets_in_file -= 1;
                if self.packets_in_file == 0 {
                    // The file is empty: its space is reused.
                    self.file_end = 0;
                }
                Ok(Some(Packet { packet: with_payload(&header.packet, &data), ..header }))
            }
        }
    }
}

/// A copy of the packet and its side data with another payload.
fn with_payload(packet: &ffmpeg::Packet, data: &[u8]) -> ffmpeg::Packet {
    use ffmpeg::packet::{Mut, Ref};
    let mut copy = ffmpeg::Packet::copy(data);
    // SAFETY: both packets are owned; copying props duplicates side data and touches no payload.
    let code = unsafe { ffmpeg::ffi::av_packet_copy_props(copy.as_mut_ptr(), packet.as_ptr()) };
    check(code).expect("no memory for a packet's side data");
    copy.set_stream(packet.stream());
    copy
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_that_is_far_ahead_blocks_no_other() {
        let mut queue = PacketQueue::with_limit(10);
        queue.push(packet(100, b"late")).unwrap();
        for dts in [1, 2, 3] {
            let mut early = packet(dts, b"early");
            early.stream = 5;
            queue.push(early).unwrap();
        }
        let mut popped = |until: i64| {
            let limit = packet(until, &[]);
            let next = std::iter::from_fn(|| queue.pop_before(Some(&limit)).unwrap());
            next.map(|coded| coded.packet.dts().unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(popped(3), [1, 2]);
        assert_eq!(popped(100), [3]);
        assert_eq!(popped(101), [100]);
    }

    fn packet(dts: i64, data: &[u8]) -> Packet {
        let mut packet = ffmpeg::Packet::copy(data);
        packet.set_dts(Some(dts));
        packet.set_pts(Some(dts + 1));
        packet.set_duration(7);
        packet.set_stream(2);
        Packet { packet, stream: 2, time_base: ffmpeg::Rational(1, 1000), index: 0 }
    }

    #[test]
    fn packets_past_the_limit_come_back_unchanged_from_the_file() {
        let mut queue = PacketQueue::with_limit(10);
        let payloads: Vec<Vec<u8>> = (0..20u8).map(|i| vec![i; usize::from(i) + 1]).collect();
        for (i, payload) in payloads.iter().enumerate() {
            queue.push(packet(i as i64, payload)).unwrap();
        }
        assert!(queue.memory_bytes <= 10 && queue.file_end > 100);
        let limit = packet(5, &[]);
        let mut out = Vec::new();
        while let Some(packet) = queue.pop_before(Some(&limit)).unwrap() {
            out.push(packet);
        }
        assert_eq!(out.len(), 5, "only packets before the next frame are due");
        while let Some(packet) = queue.pop_before(None).unwrap() {
            out.push(packet);
        }
        assert_eq!(out.len(), 20);
        for (i, coded) in out.iter().enumerate() {
            assert_eq!(coded.packet.data().unwrap(), payloads[i], "payload {i}");
            assert_eq!((coded.packet.dts(), coded.packet.pts()), (Some(i as i64), Some(i as i64 + 1)));
            assert_eq!((coded.packet.duration(), coded.packet.stream()), (7, 2));
        }
        assert_eq!(queue.memory_bytes, 0);
    }
}

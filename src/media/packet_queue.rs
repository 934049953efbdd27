//! Copied packets that wait for their turn: in memory up to a bound, beyond it in a file without a name.
//!
//! Audio may lie far ahead of the frames in a file. It is never held back (a muxer that waits for video
//! while the encoder looks ahead would wait for ever) and never lets memory grow without bound.

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

/// First in, first out, in a queue a stream: one whose packets are for later (a sign at the end of the video) does not
/// hold up the others.
pub struct PacketQueue {
    /// By stream.
    packets: Vec<VecDeque<Held>>,
    in_memory: usize,
    limit: usize,
    file: Option<File>,
    file_end: u64,
    in_file: usize,
}

enum Held {
    Memory(Packet),
    /// The packet without its payload, and where that lies.
    File {
        shell: Packet,
        offset: u64,
        size: usize,
    },
}

impl Held {
    fn shell(&self) -> &Packet {
        let (Held::Memory(packet) | Held::File { shell: packet, .. }) = self;
        packet
    }
}

impl Default for PacketQueue {
    fn default() -> PacketQueue {
        PacketQueue::with_limit(MEMORY_BYTES_MAX)
    }
}

impl PacketQueue {
    fn with_limit(limit: usize) -> PacketQueue {
        PacketQueue { packets: Vec::new(), in_memory: 0, limit, file: None, file_end: 0, in_file: 0 }
    }

    /// Takes a packet in.
    pub fn push(&mut self, packet: Packet) -> Result<()> {
        let stream = packet.stream;
        if self.packets.len() <= stream {
            self.packets.resize_with(stream + 1, VecDeque::new);
        }
        let held = if self.in_memory + packet.size() <= self.limit {
            self.in_memory += packet.size();
            Held::Memory(packet)
        } else {
            self.spill(packet).map_err(|e| {
                Error::new(
                    std::env::temp_dir().to_string_lossy(),
                    format!("cannot hold waiting audio: {e}"),
                    "free some space there, or set TMPDIR",
                )
            })?
        };
        self.packets[stream].push_back(held);
        Ok(())
    }

    /// The queue whose oldest packet is the first of all to be written.
    fn first(&self) -> Option<(usize, &Packet)> {
        let oldest =
            self.packets.iter().enumerate().filter_map(|(i, queue)| Some((i, queue.front()?.shell())));
        oldest.reduce(|first, other| if other.1.precedes(first.1) { other } else { first })
    }

    fn spill(&mut self, packet: Packet) -> io::Result<Held> {
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(tempfile::tempfile()?),
        };
        let data = packet.packet.data().unwrap_or_default();
        file.write_all_at(data, self.file_end)?;
        let (offset, size) = (self.file_end, data.len());
        self.file_end += size as u64;
        self.in_file += 1;
        let shell = Packet { packet: with_payload(&packet.packet, &[]), ..packet };
        Ok(Held::File { shell, offset, size })
    }

    /// The oldest packet if it is to be written before `next`, or in any case without one.
    pub fn pop_before(&mut self, next: Option<&Packet>) -> Result<Option<Packet>> {
        let due = self.first().filter(|(_, oldest)| next.is_none_or(|next| oldest.precedes(next)));
        due.map(|(queue, _)| queue).map_or(Ok(None), |queue| self.pop_of(queue))
    }

    /// The oldest packet of a stream.
    pub fn pop_of(&mut self, stream: usize) -> Result<Option<Packet>> {
        match self.packets.get_mut(stream).and_then(VecDeque::pop_front) {
            None => Ok(None),
            Some(Held::Memory(packet)) => {
                self.in_memory -= packet.size();
                Ok(Some(packet))
            }
            Some(Held::File { shell, offset, size }) => {
                let mut data = vec![0; size];
                let file = self.file.as_ref().expect("a packet was written to it");
                file.read_exact_at(&mut data, offset).map_err(|e| {
                    Error::new("temporary file", format!("cannot be read back: {e}"), "check that disk")
                })?;
                self.in_file -= 1;
                if self.in_file == 0 {
                    // Nothing in it is needed any more: its space is used again.
                    self.file_end = 0;
                }
                Ok(Some(Packet { packet: with_payload(&shell.packet, &data), ..shell }))
            }
        }
    }
}

/// The same packet, side data included, around another payload.
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
    fn a_stream_that_is_far_ahead_holds_nothing_up() {
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
    fn packets_past_the_limit_come_back_from_the_file_as_they_were() {
        let mut queue = PacketQueue::with_limit(10);
        let payloads: Vec<Vec<u8>> = (0..20u8).map(|i| vec![i; usize::from(i) + 1]).collect();
        for (i, payload) in payloads.iter().enumerate() {
            queue.push(packet(i as i64, payload)).unwrap();
        }
        assert!(queue.in_memory <= 10 && queue.file_end > 100);
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
        assert_eq!(queue.in_memory, 0);
    }
}

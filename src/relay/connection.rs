//! Connection: one connection of a source, from its first packet to its loss.
//!
//! In: packets with their arrival. Out: frames and packets of audio with times of the output, which `mapping.rs` gives them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use tracing::warn;

use super::mapping::Mapping;
use super::pacer::OutputClock;
use super::queue::{AudioQueue, FrameQueue, PendingFrame};
use super::read_ahead::{Arrival, ReadAhead};
use super::source::Session;
use super::stats::Stats;
use crate::error::{Error, Result};
use crate::frame::Frame;
use crate::media::{Decoder, LiveAudio, LiveStreams};

/// Video that is read before it is due, where it comes in bursts; else a source is read as fast as it is decoded.
const READ_AHEAD_PACED_US: i64 = 30_000_000;
const READ_AHEAD_US: i64 = 500_000;
/// Audio that was converted across a jump of the clock may have any time: past this, it is left out.
const AUDIO_AHEAD_MAX_US: i64 = 10_000_000;
/// Rounding of the timestamps of a packet and of its frame.
const ROUNDING_US: i64 = 1_000;
/// Packets of video to remember: more than the frames that a decoder holds.
const TAKEN_MAX: usize = 64;

/// What is known of a packet of video that the decoder holds.
struct Taken {
    at: Instant,
    offset_us: i64,
}

/// Where a source's frames and audio go.
pub(super) struct SourceIo<'a> {
    pub frames: &'a FrameQueue,
    pub audio: &'a AudioQueue,
    pub streams: &'a LiveStreams,
    pub clock: &'a OutputClock,
    pub stats: &'a Stats,
    pub stop: &'a Arc<AtomicBool>,
}

/// Reads and decodes a source until it is lost, or `stop` is set.
pub(super) fn run(session: Session, io: &SourceIo) -> Result<()> {
    let (frame_us, is_paced) = ((1e6 / session.fps()) as i64, session.input.needs_pacing());
    let latency_max_us = io.stats.latency_max.as_micros() as i64;
    let opened_at = Instant::now();
    let is_later = io.clock.time(opened_at).last_us.is_some();
    let Session { input, decoder, watch, silence_max, .. } = session;
    let ahead = ReadAhead::new(if is_paced { READ_AHEAD_PACED_US } else { READ_AHEAD_US }, frame_us);
    let mut connection = Connection {
        io,
        name: input.name().to_owned(),
        audio: io.streams.open_audio(&input)?,
        decoder,
        mapping: Mapping::new(frame_us, is_paced, is_later, latency_max_us),
        taken: BTreeMap::new(),
        opened_at,
    };
    thread::scope(|scope| {
        let read = || ahead.read(input, &watch, silence_max);
        let spawned = thread::Builder::new().name("read".into()).spawn_scoped(scope, read);
        spawned.map_err(|e| Error::io("the read thread", e, "look at the system's limits"))?;
        let result = connection.play(&ahead);
        ahead.cancel(&watch);
        result
    })
}

/// One connection.
struct Connection<'a> {
    io: &'a SourceIo<'a>,
    name: String,
    decoder: Decoder,
    audio: Option<LiveAudio>,
    mapping: Mapping,
    /// By the pts of packets.
    taken: BTreeMap<i64, Taken>,
    opened_at: Instant,
}

impl Connection<'_> {
    fn play(&mut self, ahead: &ReadAhead) -> Result<()> {
        let ended = loop {
            while let Some(frame) = self.decoded()? {
                self.push(frame);
            }
            match ahead.pop(self.io.stop) {
                Ok(Some((arrival, ahead_us))) => self.take(arrival, ahead_us)?,
                // The decoder may still hold frames.
                last => break last.map(drop),
            }
        };
        self.decoder.finish()?;
        while let Some(frame) = self.decoded()? {
            self.push(frame);
        }
        ended
    }

    /// Puts a packet on the output's clock, and decodes it.
    fn take(&mut self, arrival: Arrival, ahead_us: i64) -> Result<()> {
        let Arrival { packet, is_video, clock_jumps, mut at } = arrival;
        let Connection { io, mapping, .. } = self;
        io.stats.source_bytes.fetch_add(packet.size() as u64, Relaxed);
        let now = Instant::now();
        let placed = mapping.place(packet.dts_us(), clock_jumps, io.clock.time(now));
        if placed.has_jumped {
            io.stats.source_clock_jumps.fetch_add(1, Relaxed);
            warn!("{}: timestamps jump; the output's continue", self.name);
        }
        let hold = mapping.hold(micros(now - self.opened_at), placed.time_us, ahead_us);
        let due = now + Duration::from_micros(hold.wait_us() as u64);
        while Instant::now() < due && !io.stop.load(Relaxed) {
            thread::sleep(due.saturating_duration_since(Instant::now()).min(Duration::from_millis(50)));
        }
        let now = Instant::now();
        if mapping.is_paced() {
            at = now;
        }
        let (moment, output) = (micros(now - self.opened_at), io.clock.time(now));
        if mapping.follow(moment, &placed, is_video, &hold, output) {
            warn!("{}: stalled; the output continues with what it sends now", self.name);
        }
        if is_video {
            self.taken.insert(packet.pts_us(), Taken { at, offset_us: placed.offset_us });
            while self.taken.len() > TAKEN_MAX {
                self.taken.pop_first();
            }
            let start = Instant::now();
            self.decoder.send(packet)?;
            io.stats.decode.note(start.elapsed());
        } else if let (Some(audio), Some(offset_us)) = (&mut self.audio, mapping.audio_offset_us(&placed)) {
            let ahead_max_us = placed.time_us - placed.offset_us + offset_us + AUDIO_AHEAD_MAX_US;
            for packet in audio.convert(packet)? {
                let packet = packet.shifted_by_us(offset_us);
                if (0..ahead_max_us).contains(&packet.dts_us()) {
                    io.audio.push(packet);
                }
            }
        }
        Ok(())
    }

    fn decoded(&mut self) -> Result<Option<Frame>> {
        let start = Instant::now();
        let decoded = self.decoder.receive();
        self.io.stats.decode.note(start.elapsed());
        decoded
    }

    fn push(&mut self, frame: Frame) {
        self.io.stats.decoded.fetch_add(1, Relaxed);
        let stated_us = time_us(&frame);
        let near =
            self.taken.range(stated_us - ROUNDING_US..=stated_us + ROUNDING_US).next().map(|(&us, _)| us);
        let Taken { at, offset_us } = near
            .and_then(|us| self.taken.remove(&us))
            .unwrap_or_else(|| Taken { at: Instant::now(), offset_us: self.mapping.offset_us() });
        let time_us = self.mapping.frame_time_us(stated_us, offset_us);
        self.io.stats.queue.enter();
        if !self.io.frames.push(PendingFrame { lr: frame, time_us, arrived_at: at }) {
            self.io.stats.queue.discard();
            self.io.stats.dropped_overflow.fetch_add(1, Relaxed);
        }
    }
}

fn micros(time: Duration) -> i64 {
    time.as_micros() as i64
}

fn time_us(frame: &Frame) -> i64 {
    let base = frame.time.time_base;
    let us = i128::from(frame.time.pts) * 1_000_000 * i128::from(base.num) / i128::from(base.den);
    us as i64
}

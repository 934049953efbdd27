//! Connection: one connection of a source, from its first packet to its loss.
//!
//! In: packets with their arrival. Out: frames and packets of audio with times of the output. Packets, not frames, show where
//! the output's time is lost, as frames come later and audio not at all: what moves a packet of video moves the audio with it.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, Instant};

use tracing::warn;

use super::continuity::Continuity;
use super::pace::Pace;
use super::queue::PendingFrame;
use super::read_ahead::{Arrival, ReadAhead};
use super::source::{Session, SourceIo};
use crate::error::{Error, Result};
use crate::frame::Frame;
use crate::media::{Decoder, LiveAudio, Packet};

/// Lead of a new connection's first packet over the output's time: frames are duplicated while it is upscaled. Afterwards
/// one of so many frames is dropped until the lead is used up: a loss does not leave viewers behind.
const LEAD_US: i64 = 200_000;
const LEAD_DROPS_EVERY: u32 = 8;
/// A packet may be that far behind what is expected, as one of a stream that was away, and so far ahead of it beside the
/// latency ceiling: past it, its timestamp belongs to another clock.
const BEHIND_MAX_US: i64 = 60_000_000;
const AHEAD_MAX_US: i64 = 2_000_000;
/// The latter of packets that are held back until they are due, by which time streams are interleaved only.
const INTERLEAVED_MAX_US: i64 = 10_000_000;
/// What a server or a probe has kept arrives at once: the output continues with the newest of it.
const SETTLED_AFTER: Duration = Duration::from_secs(2);
/// After a jump that the demuxer has compensated, timestamps continue from the last packet, but the output advanced meanwhile.
const PAUSE_MIN_US: i64 = 100_000;
/// A source that catches up after a stall does so at once. One whose frames are all superseded for this long stays behind.
const BEHIND_FOR: Duration = Duration::from_secs(1);
/// Video that is read before it is due, where it comes in bursts; else a source is read as fast as it is decoded.
const READ_AHEAD_PACED_US: i64 = 30_000_000;
const READ_AHEAD_US: i64 = 500_000;
/// Rounding of the timestamps of a packet and of its frame.
const ROUNDING_US: i64 = 1_000;
/// Packets of video to remember: more than the frames that a decoder holds.
const TAKEN_MAX: usize = 64;

/// What is known of a packet of video that the decoder holds.
struct Taken {
    at: Instant,
    offset_us: i64,
}

/// Reads and decodes a source until it is lost, or `stop` is set.
pub(super) fn run(session: Session, io: &SourceIo) -> Result<()> {
    let (frame_us, pace) = ((1e6 / session.fps()) as i64, session.input.needs_pacing().then(Pace::default));
    let (span_max_us, ahead_us) = match pace {
        Some(_) => (READ_AHEAD_PACED_US, INTERLEAVED_MAX_US),
        None => (READ_AHEAD_US, AHEAD_MAX_US + io.stats.latency_max.as_micros() as i64),
    };
    let Session { input, decoder, watch, silence_max, .. } = session;
    let ahead = ReadAhead::new(span_max_us, frame_us);
    let mut connection = Connection {
        io,
        name: input.name().to_owned(),
        audio: io.streams.open_audio(&input)?,
        decoder,
        frame_us,
        continuity: Continuity::new(BEHIND_MAX_US, ahead_us),
        map_us: None,
        lead_us: 0,
        frames: 0,
        offset_us: 0,
        furthest_us: None,
        clock_jumps: 0,
        behind_since: None,
        taken: BTreeMap::new(),
        pace,
        opened_at: Instant::now(),
        is_later: io.clock.now_us() > 0,
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
    continuity: Continuity,
    /// Added to continuous timestamps: `None` before the first frame of the relay's first connection, at which the output
    /// begins.
    map_us: Option<i64>,
    /// What is left of the lead, and the frames since it became shorter.
    lead_us: i64,
    frames: u32,
    /// What [`Self::continuity`] adds to the source's timestamps, as of the last packet of video.
    offset_us: i64,
    frame_us: i64,
    /// The largest continuous timestamp so far.
    furthest_us: Option<i64>,
    /// Clock jumps of the source that the demuxer has compensated.
    clock_jumps: u64,
    /// The moment since which every frame is superseded by a duplicate.
    behind_since: Option<Instant>,
    /// By the pts of packets.
    taken: BTreeMap<i64, Taken>,
    /// Of packets that are available before their time, and have to be held back.
    pace: Option<Pace>,
    opened_at: Instant,
    /// Whether the output had begun before.
    is_later: bool,
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
        self.io.stats.source_bytes.fetch_add(packet.size() as u64, Relaxed);
        let offset_us = self.place(&packet, clock_jumps);
        let time_us = packet.dts_us().saturating_add(offset_us);
        if self.pace.is_some() {
            self.hold_back(time_us, ahead_us);
            at = Instant::now();
        }
        self.follow_output(time_us, is_video);
        if is_video {
            self.offset_us = offset_us;
            self.taken.insert(packet.pts_us(), Taken { at, offset_us });
            while self.taken.len() > TAKEN_MAX {
                self.taken.pop_first();
            }
            let start = Instant::now();
            self.decoder.send(packet)?;
            self.io.stats.decode.note(start.elapsed());
        } else if let (Some(audio), Some(map_us)) = (&mut self.audio, self.map_us) {
            for packet in audio.convert(packet)? {
                let packet = packet.shifted_by_us(offset_us + map_us);
                // One that was converted across a jump may lie anywhere.
                let is_near = packet.dts_us() <= time_us + map_us + INTERLEAVED_MAX_US;
                if packet.dts_us() >= 0 && is_near {
                    self.io.audio.push(packet);
                }
            }
        }
        Ok(())
    }

    /// Returns what to add to the packet's timestamps: its stream continues where it should be by now.
    fn place(&mut self, packet: &Packet, clock_jumps: u64) -> i64 {
        let stated_us = packet.dts_us();
        if stated_us == i64::MIN {
            return self.offset_us;
        }
        let now_us = self.io.clock.now_us();
        let expected_us = match (&self.pace, self.map_us) {
            (None, Some(map_us)) if now_us > 0 => now_us + LEAD_US - map_us,
            // The output waits for its first frame, or the pace decides when the packet is due.
            _ => self.furthest_us.unwrap_or(stated_us),
        };
        let placed = self.continuity.place(stated_us, expected_us);
        let has_jumped = placed.has_jumped || clock_jumps > self.clock_jumps;
        self.clock_jumps = clock_jumps;
        if has_jumped {
            self.io.stats.source_clock_jumps.fetch_add(1, Relaxed);
            warn!("{}: timestamps jump; the output's continue", self.name);
            if self.map_us.is_some_and(|map_us| now_us - (placed.time_us + map_us) > PAUSE_MIN_US) {
                self.map(placed.time_us);
            } else if placed.has_jumped && self.pace.is_none() {
                (self.lead_us, self.frames) = (LEAD_US, 0);
            }
        }
        self.furthest_us = self.furthest_us.max(Some(placed.time_us));
        placed.offset_us
    }

    /// Waits until a packet is due.
    fn hold_back(&mut self, time_us: i64, ahead_us: i64) {
        let Some(pace) = &mut self.pace else { return };
        let now = Instant::now();
        let hold = pace.hold((now - self.opened_at).as_micros() as i64, time_us, ahead_us);
        let due = now + Duration::from_micros(hold.wait_us as u64);
        while Instant::now() < due && !self.io.stop.load(Relaxed) {
            thread::sleep(due.saturating_duration_since(Instant::now()).min(Duration::from_millis(50)));
        }
        if hold.has_slipped && self.map_us.is_some() {
            warn!("{}: stalled; its frames are delayed from now on", self.name);
            self.map(time_us);
        }
    }

    /// Lets the packet with this continuous time be due at the current time of the output.
    fn map(&mut self, time_us: i64) {
        self.map_us = Some(self.io.clock.now_us() + LEAD_US - time_us);
        (self.lead_us, self.frames, self.behind_since) = (LEAD_US, 0, None);
    }

    /// Moves what comes before or after the output's time for good, from this packet on.
    fn follow_output(&mut self, time_us: i64, is_video: bool) {
        let Some(map_us) = self.map_us else {
            if self.is_later {
                self.map(time_us);
            }
            return;
        };
        let is_settling = self.is_later && self.pace.is_none() && self.opened_at.elapsed() < SETTLED_AFTER;
        if is_video && is_settling && time_us + map_us > self.io.clock.now_us() + LEAD_US {
            self.map(time_us);
        }
        // Audio may be interleaved late.
        if !is_video || !self.io.clock.is_past(time_us + map_us) {
            self.behind_since = self.behind_since.filter(|_| !is_video);
        } else if self.behind_since.get_or_insert_with(Instant::now).elapsed() > BEHIND_FOR {
            warn!("{}: stalled; its frames are delayed from now on", self.name);
            self.map(time_us);
        }
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
            .unwrap_or_else(|| Taken { at: Instant::now(), offset_us: self.offset_us });
        let map_us = self.map_us.get_or_insert(-(stated_us + offset_us));
        self.frames += 1;
        if self.lead_us >= self.frame_us && self.frames.is_multiple_of(LEAD_DROPS_EVERY) {
            self.lead_us -= self.frame_us;
            // The frame before it has this time: it is superseded.
            *map_us -= self.frame_us;
        }
        let map_us = *map_us;
        let pending = PendingFrame { lr: frame, time_us: stated_us + offset_us + map_us, arrived_at: at };
        self.io.stats.queue.enter();
        if !self.io.frames.push(pending) {
            self.io.stats.queue.discard();
            self.io.stats.dropped_overflow.fetch_add(1, Relaxed);
        }
    }
}

fn time_us(frame: &Frame) -> i64 {
    let base = frame.time.time_base;
    let us = i128::from(frame.time.pts) * 1_000_000 * i128::from(base.num) / i128::from(base.den);
    us as i64
}

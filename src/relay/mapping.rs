//! Mapping: the times of one connection's packets become times of the output.
//!
//! In: the time of each packet, and the output's time. Out: its time in the output, and how long it is held back. It has no
//! clock of its own. Packets, not frames, show where the output's time is lost, as frames come later and audio not at all: what
//! moves a packet of video moves the audio with it.
//!
//! A packet's time becomes continuous first (`continuity.rs`); in that time a source in bursts is paced (`pace.rs`). Then it is
//! mapped to the output's.

use super::continuity::Continuity;
use super::pace::{Hold, Pace};
use super::pacer::OutputTime;

/// Lead of a new connection's first packet over the output's time: frames are duplicated while it is upscaled. Afterwards
/// every eighth frame is dropped until the lead is used up: a loss does not leave viewers behind.
const LEAD_US: i64 = 200_000;
const LEAD_DROPS_EVERY: u32 = 8;
/// A packet may be that far behind what is expected, as one of a stream that was away, and so far ahead of it beside the
/// latency ceiling: past it, its timestamp belongs to another clock.
const BEHIND_MAX_US: i64 = 60_000_000;
const AHEAD_MAX_US: i64 = 2_000_000;
/// The latter of packets that are held back until they are due, by which time streams are interleaved only.
const INTERLEAVED_MAX_US: i64 = 10_000_000;
/// What a server or a probe has kept arrives at once: the output continues with the newest of it.
const SETTLED_AFTER_US: i64 = 2_000_000;
/// After a jump that the demuxer has compensated, timestamps continue from the last packet, but the output advanced meanwhile.
const PAUSE_MIN_US: i64 = 100_000;
/// A source that catches up after a stall does so at once. One whose frames are all superseded for this long stays behind.
const BEHIND_FOR_US: i64 = 500_000;

/// The times of one connection, in microseconds. Moments are counted from its beginning.
pub(super) struct Mapping {
    frame_us: i64,
    /// Whether the output had begun before.
    is_later: bool,
    continuity: Continuity,
    /// Of packets that are available before their time, and have to be held back.
    pace: Option<Pace>,
    /// Added to continuous timestamps: `None` before the first frame of the relay's first connection, at which the output
    /// begins.
    map_us: Option<i64>,
    /// What is left of the lead, and the frames since it began.
    lead_us: i64,
    frames: u32,
    /// What makes the timestamps of the last packet of video continuous.
    offset_us: i64,
    /// The largest continuous timestamp so far.
    furthest_us: Option<i64>,
    /// Clock jumps of the source that the demuxer has compensated.
    clock_jumps: u64,
    /// The moment since which every frame is superseded by a duplicate.
    behind_since: Option<i64>,
}

/// A packet on the continuous clock.
pub(super) struct Continuous {
    pub time_us: i64,
    /// What was added to its timestamps.
    pub offset_us: i64,
    pub has_jumped: bool,
}

impl Mapping {
    /// `frame_us`: from one frame to the next. `is_paced`: packets are available before their time. `is_later`: the output has
    /// begun before.
    pub fn new(frame_us: i64, is_paced: bool, is_later: bool, latency_max_us: i64) -> Mapping {
        let ahead_us = if is_paced { INTERLEAVED_MAX_US } else { AHEAD_MAX_US + latency_max_us };
        Mapping {
            frame_us,
            is_later,
            continuity: Continuity::new(BEHIND_MAX_US, ahead_us),
            pace: is_paced.then(Pace::default),
            map_us: None,
            lead_us: 0,
            frames: 0,
            offset_us: 0,
            furthest_us: None,
            clock_jumps: 0,
            behind_since: None,
        }
    }

    /// Whether packets are held back until they are due.
    pub fn is_paced(&self) -> bool {
        self.pace.is_some()
    }

    /// Makes the time of a packet continuous; `i64::MIN` is an unknown one. `clock_jumps`: how many jumps the demuxer has
    /// compensated so far.
    pub fn place(&mut self, stated_us: i64, clock_jumps: u64, output: OutputTime) -> Continuous {
        if stated_us == i64::MIN {
            let time_us = self.furthest_us.unwrap_or_default();
            return Continuous { time_us, offset_us: self.offset_us, has_jumped: false };
        }
        let expected_us = match (&self.pace, self.map_us) {
            (None, Some(map_us)) if output.last_us.is_some() => output.now_us + LEAD_US - map_us,
            // The output waits for its first frame, or the pace decides when the packet is due.
            _ => self.furthest_us.unwrap_or(stated_us),
        };
        let placed = self.continuity.place(stated_us, expected_us);
        let has_jumped = placed.has_jumped || clock_jumps > self.clock_jumps;
        self.clock_jumps = clock_jumps;
        match self.map_us {
            Some(map_us) if has_jumped && output.now_us - (placed.time_us + map_us) > PAUSE_MIN_US => {
                self.map(placed.time_us, output);
            }
            Some(_) if placed.has_jumped && self.pace.is_none() => (self.lead_us, self.frames) = (LEAD_US, 0),
            _ => {}
        }
        self.furthest_us = self.furthest_us.max(Some(placed.time_us));
        Continuous { time_us: placed.time_us, offset_us: placed.offset_us, has_jumped }
    }

    /// Returns what becomes of a packet that is taken at the moment `now`, while `ahead_us` of video has been read behind
    /// it.
    pub fn hold(&mut self, now: i64, time_us: i64, ahead_us: i64) -> Hold {
        match &mut self.pace {
            Some(pace) => pace.hold(now, time_us, ahead_us),
            None => Hold::Wait(0),
        }
    }

    /// Lets the packet with this continuous time be due at the current time of the output.
    fn map(&mut self, time_us: i64, output: OutputTime) {
        self.map_us = Some(output.now_us + LEAD_US - time_us);
        (self.lead_us, self.frames, self.behind_since) = (LEAD_US, 0, None);
    }

    /// Moves what comes before or after the output's time for good, from this packet on. Returns whether the source has
    /// stalled, or is behind.
    pub fn follow(
        &mut self,
        now: i64,
        packet: &Continuous,
        is_video: bool,
        hold: &Hold,
        output: OutputTime,
    ) -> bool {
        let time_us = packet.time_us;
        if is_video {
            self.offset_us = packet.offset_us;
        }
        let Some(map_us) = self.map_us else {
            if self.is_later {
                self.map(time_us, output);
            }
            return false;
        };
        let is_settling = is_video && self.is_later && self.pace.is_none() && now < SETTLED_AFTER_US;
        if is_settling && time_us + map_us > output.now_us + LEAD_US {
            self.map(time_us, output);
        }
        if let Hold::Skip(until_us) = *hold {
            // Its frame is behind the output's time.
            self.map(until_us, output);
            return false;
        }
        // Audio may be interleaved late.
        if is_video {
            let is_past = output.last_us.is_some_and(|last_us| time_us + map_us <= last_us);
            self.behind_since = is_past.then(|| self.behind_since.unwrap_or(now));
        }
        let is_behind = self.behind_since.is_some_and(|since| is_video && now - since > BEHIND_FOR_US);
        let is_moved = is_behind || matches!(hold, Hold::Moved(_));
        if is_moved {
            self.map(time_us, output);
        }
        is_moved
    }

    /// Returns what to add to the timestamps of audio; `None` before the output begins.
    pub fn audio_offset_us(&self, packet: &Continuous) -> Option<i64> {
        self.map_us.map(|map_us| packet.offset_us + map_us)
    }

    /// Returns what makes the timestamps of the last packet of video continuous.
    pub fn offset_us(&self) -> i64 {
        self.offset_us
    }

    /// Returns the time of a frame in the output, by that of its packet.
    pub fn frame_time_us(&mut self, stated_us: i64, offset_us: i64) -> i64 {
        let map_us = self.map_us.get_or_insert(-(stated_us + offset_us));
        self.frames += 1;
        if self.lead_us >= self.frame_us && self.frames.is_multiple_of(LEAD_DROPS_EVERY) {
            self.lead_us -= self.frame_us;
            // The frame before it has this time: it is superseded.
            *map_us -= self.frame_us;
        }
        stated_us + offset_us + *map_us
    }
}

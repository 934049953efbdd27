//! Timeline: a clock that jumps is made continuous, for all streams alike. That of a broadcast may jump anywhere; that of a
//! file goes back where two recordings were joined, and only then.

use ffmpeg_next::{self as ffmpeg, Rational, Rescale};
use tracing::warn;

use crate::media::ffmpeg::MICROSECONDS;

/// FFmpeg's `-dts_delta_threshold`: a shorter jump ahead is a gap, not another clock.
const JUMP_US: i64 = 10_000_000;
/// How far dts of one stream may go back in a broadcast, whose packets state it.
const BACK_US: i64 = 100_000;
/// The same in other formats, where FFmpeg derives dts from a few frames: their duration, within these limits.
const BACK_FRAMES: i64 = 4;
const BACK_US_MIN: i64 = 250_000;
const BACK_US_MAX: i64 = 1_000_000;
/// Age at which the end of a stream's last packet no longer shows where its next one belongs.
const RECENT_US: i64 = 1_000_000;

/// The clock of one input.
pub(crate) struct Timeline {
    /// Whether the format is one whose clock may jump in both directions.
    may_jump: bool,
    is_logged: bool,
    /// Offset that is added to all timestamps.
    offset_us: i64,
    streams: Vec<Option<StreamClock>>,
    /// Newest dts of all streams of video and audio.
    newest_us: Option<i64>,
    last_jump: Option<Jump>,
    jumps: u64,
}

/// The last dts of a stream, and where its packet ends.
#[derive(Clone, Copy)]
struct StreamClock {
    last_us: i64,
    next_us: i64,
}

/// A correction.
#[derive(Clone, Copy)]
struct Jump {
    at_us: i64,
    /// What it added to the offset.
    added_us: i64,
}

/// Times of a packet, before the next correction.
#[derive(Clone, Copy)]
struct Times {
    dts_us: i64,
    duration_us: i64,
}

impl Timeline {
    /// `may_jump`: a format whose clock may jump in both directions. `is_quiet`: nothing is logged.
    pub(crate) fn new(may_jump: bool, is_quiet: bool) -> Timeline {
        Timeline {
            may_jump,
            is_logged: is_quiet,
            offset_us: 0,
            streams: Vec::new(),
            newest_us: None,
            last_jump: None,
            jumps: 0,
        }
    }

    /// Whether the format is one whose clock may jump in both directions.
    pub(crate) fn may_jump(&self) -> bool {
        self.may_jump
    }

    /// Number of jumps.
    pub(crate) fn jumps(&self) -> u64 {
        self.jumps
    }

    /// Expects nothing, as after a seek.
    pub(crate) fn reset(&mut self) {
        *self = Timeline::new(self.may_jump, self.is_logged);
    }

    /// Puts the packet on the continuous clock. Only a stream that `is_timed`, of video or audio and no attached picture,
    /// shows a jump. `usual_us` is the duration of a packet that states none.
    pub(crate) fn correct(
        &mut self,
        packet: &mut ffmpeg::Packet,
        time_base: Rational,
        is_timed: bool,
        usual_us: i64,
    ) {
        let us = |ticks: i64| ticks.rescale(time_base, MICROSECONDS);
        if let Some(dts) = packet.dts().filter(|_| is_timed) {
            let duration_us = if packet.duration() > 0 { us(packet.duration()) } else { usual_us };
            self.follow(packet.stream(), us(dts), duration_us);
        }
        let offset = self.offset_us.rescale(MICROSECONDS, time_base);
        packet.set_pts(packet.pts().map(|pts| pts + offset));
        packet.set_dts(packet.dts().map(|dts| dts + offset));
    }

    /// Takes the next dts of a stream, as the source states it, and adapts the offset to it.
    fn follow(&mut self, stream: usize, stated_us: i64, duration_us: i64) {
        if self.streams.len() <= stream {
            self.streams.resize(stream + 1, None);
        }
        let (own, mut times) =
            (self.streams[stream], Times { dts_us: stated_us + self.offset_us, duration_us });
        if let Some(newest_us) = self.newest_us {
            let added_us = match self.returns(own, newest_us, times) {
                // One stray packet is one jump.
                Some(added_us) => added_us,
                None if self.is_jump(own, newest_us, times) => {
                    self.note_jump(times.dts_us);
                    let next_us = own.map(|own| own.next_us).filter(|next| newest_us - next <= RECENT_US);
                    next_us.unwrap_or(newest_us) - times.dts_us
                }
                None => 0,
            };
            if added_us != 0 {
                self.offset_us += added_us;
                times.dts_us += added_us;
                self.last_jump = Some(Jump { at_us: times.dts_us, added_us });
            }
        }
        self.newest_us = self.newest_us.max(Some(times.dts_us));
        let (last_us, next_us) = (times.dts_us, times.dts_us + duration_us);
        self.streams[stream] = Some(StreamClock { last_us, next_us });
    }

    /// What to add to the offset for a packet that is on the clock of before the last jump again: that was one of a few
    /// stray packets, or of a stream with another clock.
    fn returns(&self, own: Option<StreamClock>, newest_us: i64, times: Times) -> Option<i64> {
        let Jump { at_us, added_us } = self.last_jump?;
        let expected_us = own.map_or(newest_us, |own| own.next_us);
        let near_us = 2 * times.duration_us + BACK_US;
        let is_near = |time_us: i64| time_us.abs_diff(expected_us) <= near_us as u64;
        let is_recent = newest_us - at_us <= JUMP_US && added_us.abs() > 2 * near_us;
        (is_recent && is_near(times.dts_us - added_us)).then_some(-added_us)
    }

    fn is_jump(&self, own: Option<StreamClock>, newest_us: i64, times: Times) -> bool {
        let Times { dts_us, duration_us } = times;
        let back_us = match self.may_jump {
            true => BACK_US,
            false => (BACK_FRAMES * duration_us).clamp(BACK_US_MIN, BACK_US_MAX),
        };
        let ahead_us = dts_us - newest_us;
        match own {
            Some(own) => dts_us < own.last_us - back_us || (self.may_jump && ahead_us > JUMP_US),
            None => self.may_jump && ahead_us.abs() > JUMP_US,
        }
    }

    fn note_jump(&mut self, dts_us: i64) {
        self.jumps += 1;
        if !std::mem::replace(&mut self.is_logged, true) {
            let seconds = dts_us as f64 / 1e6;
            warn!("the input's clock jumps at {seconds:.3} s; timestamps after it are made continuous");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VIDEO: usize = 0;
    const AUDIO: usize = 1;
    /// Both have packets of this duration.
    const MS: i64 = 40;

    /// The clock that results for packets of these streams at these times, in milliseconds, and the number of jumps.
    fn corrected(may_jump: bool, stated: &[(usize, i64)]) -> (Vec<i64>, u64) {
        let mut timeline = Timeline::new(may_jump, true);
        let mut correct = |&(stream, ms): &(usize, i64)| {
            timeline.follow(stream, ms * 1000, MS * 1000);
            ms + timeline.offset_us / 1000
        };
        let corrected = stated.iter().map(&mut correct).collect();
        (corrected, timeline.jumps)
    }

    /// Packets of both streams from one time to another.
    fn both(from: i64, to: i64) -> Vec<(usize, i64)> {
        let times = (from..to).step_by(MS as usize);
        times.flat_map(|ms| [(VIDEO, ms), (AUDIO, ms)]).collect()
    }

    fn times_of(stated: &[(usize, i64)]) -> Vec<i64> {
        stated.iter().map(|&(_, ms)| ms).collect()
    }

    #[test]
    fn a_stream_that_was_away_is_where_it_was() {
        let mut stated = both(0, 60_000);
        stated.retain(|&(stream, ms)| stream == VIDEO || !(4_000..46_000).contains(&ms));
        for may_jump in [true, false] {
            assert_eq!(corrected(may_jump, &stated), (times_of(&stated), 0));
        }
    }

    #[test]
    fn a_clock_that_goes_back_continues_in_every_format() {
        let stated = [both(0, 8_000), both(0, 2_000), both(1_000, 3_000)].concat();
        for may_jump in [true, false] {
            assert_eq!(corrected(may_jump, &stated), (times_of(&both(0, 12_000)), 2));
        }
    }

    #[test]
    fn only_a_broadcast_jumps_ahead() {
        let stated = [both(0, 2_000), both(60_000, 62_000)].concat();
        assert_eq!(corrected(true, &stated), (times_of(&both(0, 4_000)), 1));
        assert_eq!(corrected(false, &stated), (times_of(&stated), 0));
        let gap = [both(0, 2_000), both(11_000, 13_000)].concat();
        assert_eq!(corrected(true, &gap), (times_of(&gap), 0));
    }

    #[test]
    fn a_few_stray_packets_shift_none_after_them() {
        for may_jump in [true, false] {
            for strays in [vec![(VIDEO, 3)], vec![(AUDIO, 3)], both(3, 803)] {
                // They come instead of packets.
                let last = strays.iter().map(|&(_, ms)| ms).max().unwrap();
                let (before, after) = (both(0, 20_000), both(20_000 + last + MS - 3, 22_000));
                let stated = [before.clone(), strays.clone(), after.clone()].concat();
                let (times, jumps) = corrected(may_jump, &stated);
                assert_eq!(jumps, 1, "{strays:?}");
                assert_eq!(times[times.len() - after.len() + 2..], times_of(&after)[2..], "{strays:?}");
            }
        }
        let stated = [both(0, 20_000), vec![(VIDEO, 90_000)], both(20_000 + MS, 22_000)].concat();
        let (times, jumps) = corrected(true, &stated);
        assert_eq!((times[times.len() - 1], jumps), (21_960, 1));
    }

    #[test]
    fn dts_that_fall_a_little_are_not_a_jump() {
        let stated = [(VIDEO, 0), (VIDEO, 40), (VIDEO, 40), (VIDEO, 0), (VIDEO, 160), (VIDEO, 200)];
        assert_eq!(corrected(false, &stated), (times_of(&stated), 0));
    }

    #[test]
    fn a_stream_with_a_clock_of_its_own_stays_on_it() {
        let mut audio_starts_anew = both(20_000, 22_000);
        audio_starts_anew.iter_mut().for_each(|(stream, ms)| *ms -= 20_000 * *stream as i64);
        for may_jump in [true, false] {
            let stated = [both(0, 20_000), audio_starts_anew.clone()].concat();
            assert_eq!(corrected(may_jump, &stated), (times_of(&both(0, 22_000)), 1));
        }
    }
}

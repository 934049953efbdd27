//! Pace: when the packets of a source that comes in bursts, such as HLS, are due.
//!
//! In: the time of each packet, the moment at which it is taken, and how much has been read behind it. Out: how long to hold it
//! back. It has no clock of its own.
//!
//! What is read ahead of time is the cushion against stalls. Its lowest level is kept: as the source's clock is not exactly
//! ours, the pace is a little faster or slower than time. Where packets are late, as after a stall, it slips by their
//! lateness and a new cushion, which doubles if it does not last. Where far more is ahead afterwards than before, as the
//! source has not stalled but waited for us, that is skipped.

/// Lateness in which no frame is missed: the lead of the output is longer.
const LATE_US: i64 = 100_000;
/// Bounds of the cushion. HLS has segments of up to ten seconds.
const CUSHION_MIN_US: i64 = 500_000;
const CUSHION_MAX_US: i64 = 10_000_000;
/// A cushion that is used up sooner was too small.
const LASTS_US: i64 = 300_000_000;
/// Time over which the lowest level is taken: several segments; after a slip, what is there in a burst.
const WINDOW_US: i64 = 60_000_000;
const WINDOW_SLIPPED_US: i64 = 2_000_000;
/// What is more above the level to keep than this is skipped: more than a segment.
const SKIPPED_MIN_US: i64 = 12_000_000;
/// Change of the pace by a change of that level: 100 ppm for 0.1 s, which makes 200 ppm of drift an offset of 0.2 s.
const PACE_PER_S: f64 = 1e-3;
/// The largest change of the pace.
const PACE_MAX: f64 = 5e-4;

/// The pace of one connection. All times are in microseconds.
#[derive(Default)]
pub(super) struct Pace {
    /// A moment, and the timestamp that is due then.
    anchor: Option<(i64, i64)>,
    /// The largest timestamp so far: streams are not interleaved exactly.
    furthest: i64,
    /// The moment of the last slip, and its cushion.
    slip: Option<(i64, i64)>,
    /// The timestamp before which packets are skipped.
    skipped_until: Option<i64>,
    cushion: Cushion,
    /// By how much faster than time packets are due.
    faster: f64,
}

/// What is read ahead.
#[derive(Default)]
struct Cushion {
    /// The lowest level since a moment.
    lowest: Option<(i64, i64)>,
    has_slipped: bool,
    /// The level to keep.
    kept: Option<i64>,
}

/// What becomes of a packet.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Hold {
    /// It is held back for this long.
    Wait(i64),
    /// The same; it is late, or the first one after those that were skipped: the output's time has to be mapped again.
    Moved(i64),
    /// It is skipped, and so is what follows before this timestamp.
    Skip(i64),
}

impl Hold {
    pub fn wait_us(&self) -> i64 {
        match self {
            Hold::Wait(us) | Hold::Moved(us) => *us,
            Hold::Skip(_) => 0,
        }
    }
}

impl Pace {
    /// Holds a packet with the timestamp `time` that is taken at the moment `now`, while `ahead` has been read behind it.
    pub fn hold(&mut self, now: i64, time: i64, ahead: i64) -> Hold {
        self.anchor.get_or_insert_with(|| {
            self.furthest = time;
            (now, time)
        });
        self.furthest = self.furthest.max(time);
        if self.skipped_until.is_none() {
            self.follow(now, ahead);
        }
        match self.skipped_until {
            Some(until) if self.furthest < until => return Hold::Skip(until),
            Some(_) => {
                (self.skipped_until, self.anchor) = (None, Some((now, self.furthest)));
                return Hold::Moved(0);
            }
            None => {}
        }
        let due = self.due();
        if now - due <= LATE_US {
            return Hold::Wait((due - now).max(0));
        }
        let wait = match self.slip {
            Some((slipped_at, cushion)) if now - slipped_at < LASTS_US => (2 * cushion).min(CUSHION_MAX_US),
            _ => CUSHION_MIN_US,
        };
        (self.anchor, self.slip) = (Some((now + wait, self.furthest)), Some((now, wait)));
        (self.cushion.lowest, self.cushion.has_slipped) = (None, true);
        Hold::Moved(wait)
    }

    /// The moment at which the furthest packet is due.
    fn due(&self) -> i64 {
        let (at, from) = self.anchor.expect("a packet was taken before");
        at + ((self.furthest - from) as f64 / (1.0 + self.faster)) as i64
    }

    /// Adapts the pace to the level of the cushion.
    fn follow(&mut self, now: i64, ahead: i64) {
        let Cushion { lowest, has_slipped, kept } = &mut self.cushion;
        let (since, level) = lowest.get_or_insert((now, ahead));
        *level = ahead.min(*level);
        if now - *since < if *has_slipped { WINDOW_SLIPPED_US } else { WINDOW_US } {
            return;
        }
        let level = *level;
        *lowest = None;
        let kept = *kept.get_or_insert(level.max(CUSHION_MIN_US));
        if level - kept > SKIPPED_MIN_US {
            // There may be more that is not read yet.
            *has_slipped = true;
            self.skipped_until = Some(self.furthest + level - kept);
            return;
        }
        // What came in a burst says nothing about the clock.
        if !std::mem::take(has_slipped) {
            self.anchor = Some((self.due(), self.furthest));
            self.faster = (1e-6 * (level - kept) as f64 * PACE_PER_S).clamp(-PACE_MAX, PACE_MAX);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME_US: i64 = 40_000;
    const SEGMENT_FRAMES: i64 = 50;
    const SEGMENT_US: i64 = SEGMENT_FRAMES * FRAME_US;
    const MINUTE_US: i64 = 60_000_000;
    const DAY_US: i64 = 24 * 60 * MINUTE_US;
    /// Segments that a player starts behind the newest one.
    const BEHIND: i64 = 2;

    /// What has been seen of a stream.
    #[derive(Default, Debug)]
    struct Played {
        /// The moments at which the pace slipped.
        slips: Vec<i64>,
        /// All slips added together.
        delay_us: i64,
        skipped_us: i64,
        /// What was played when the last segment came.
        ended_us: i64,
        /// The least and the most that was read ahead when a new segment came.
        ahead_us: Option<[i64; 2]>,
    }

    /// Plays segments of two seconds; `there_at` is the moment at which a segment can be read.
    fn play(segments: i64, there_at: impl Fn(i64) -> i64) -> Played {
        let (mut pace, mut now, mut played) = (Pace::default(), there_at(BEHIND), Played::default());
        let (mut newest, mut expected) = (BEHIND, now);
        for segment in 0..segments {
            now = now.max(there_at(segment));
            for frame in 0..SEGMENT_FRAMES {
                while there_at(newest + 1) <= now {
                    newest += 1;
                    let [least, most] = played.ahead_us.get_or_insert([i64::MAX, 0]);
                    let ahead = (newest - segment) * SEGMENT_US - frame * FRAME_US;
                    if newest < segments {
                        played.ended_us = segment * SEGMENT_US + frame * FRAME_US;
                    }
                    (*least, *most) = (ahead.min(*least), ahead.max(*most));
                }
                let ahead =
                    (newest.max(segment) - segment) * SEGMENT_US + SEGMENT_US - (frame + 1) * FRAME_US;
                match pace.hold(now, segment * SEGMENT_US + frame * FRAME_US, ahead) {
                    Hold::Wait(wait) => now += wait,
                    Hold::Moved(wait) => {
                        now += wait;
                        played.slips.push(now);
                        played.delay_us += now - expected;
                        expected = now;
                    }
                    Hold::Skip(_) => {
                        played.skipped_us += FRAME_US;
                        continue;
                    }
                }
                assert!((now - expected).abs() <= LATE_US, "a packet leaves {} us off", now - expected);
                // The pace may be a little off.
                expected = now + FRAME_US;
            }
        }
        played
    }

    /// Up to 0.4 s, the same for the same number.
    fn jitter_us(number: i64) -> i64 {
        number * 7919 % 41 * 10_000
    }

    #[test]
    fn after_a_stall_a_cushion_is_built_once() {
        for stall_us in [300_000, 1_500_000, 6_500_000, 60_000_000] {
            let stalled = |segment: i64| if segment >= 100 { stall_us } else { 0 };
            let played = play(10_000, |segment| segment * SEGMENT_US + jitter_us(segment) + stalled(segment));
            // Two segments of cushion outlast the shorter stalls.
            let slips = usize::from(stall_us > 4_000_000);
            assert!(played.slips.len() == slips, "{stall_us}: {played:?}");
            assert!(played.delay_us <= stall_us, "{stall_us}: {played:?}");
        }
    }

    #[test]
    fn an_hourly_stall_costs_no_more_than_itself_and_a_cushion() {
        // A day, with a stall of 1 to 60 s an hour.
        let stalls =
            |segment: i64| (1..=segment / 1800).map(|hour| 1_000_000 * (1 + hour * 37 % 60)).sum::<i64>();
        let played = play(43_200, |segment| segment * SEGMENT_US + jitter_us(segment) + stalls(segment));
        let total = stalls(43_200);
        assert!(played.slips.len() <= 24, "{played:?}");
        assert!(played.delay_us <= total + 24 * 500_000, "{played:?} after stalls of {total}");
    }

    #[test]
    fn a_clock_that_is_fast_or_slow_is_followed() {
        for ppm in [-200, -100, 100, 200] {
            let segment_us = SEGMENT_US - SEGMENT_US * ppm / 1_000_000;
            let played = play(2 * DAY_US / SEGMENT_US, |segment| segment * segment_us + jitter_us(segment));
            // Two days at 100 ppm are 17 s.
            assert!(played.slips.is_empty(), "{ppm} ppm: {played:?}");
            let [least, most] = played.ahead_us.unwrap();
            assert!(most - least <= 900_000, "{ppm} ppm: {played:?}");
        }
    }

    #[test]
    fn what_has_waited_for_us_is_skipped() {
        // A minute in which nothing can be read; then all of it is there.
        let there_at = |segment: i64| if (100..130).contains(&segment) { 130 } else { segment } * SEGMENT_US;
        let played = play(1_000, there_at);
        let stall_us = 30 * SEGMENT_US;
        assert_eq!(played.slips.len(), 2, "late, and after what is skipped: {played:?}");
        assert!((stall_us - SKIPPED_MIN_US..stall_us).contains(&played.skipped_us), "{played:?}");
        let left_us = 999 * SEGMENT_US + SEGMENT_US - played.ended_us;
        assert!(left_us <= (BEHIND + 2) * SEGMENT_US + SKIPPED_MIN_US, "{left_us} us behind: {played:?}");
    }

    #[test]
    fn streams_apart_are_no_lateness() {
        let mut pace = Pace::default();
        let hold = Hold::Wait;
        assert_eq!(pace.hold(0, 10_000_000, 1_000_000), hold(0));
        assert_eq!(pace.hold(0, 16_000_000, 1_000_000), hold(6_000_000));
        // Audio that is interleaved 6 s late.
        assert_eq!(pace.hold(6_000_000, 10_100_000, 1_000_000), hold(0));
        assert_eq!(pace.hold(6_000_000, 16_040_000, 1_000_000), hold(40_000));
        // The process was stopped for a minute: nothing is sent in a burst.
        assert_eq!(pace.hold(66_040_000, 16_080_000, 1_000_000), Hold::Moved(500_000));
        assert_eq!(pace.hold(66_540_000, 16_120_000, 1_000_000), hold(40_000));
    }
}

//! Pace: when the packets of a source that comes in bursts, such as HLS, are due.
//!
//! In: the time of each packet, and the moment at which it is there. Out: how long to hold it back. It has no clock of its
//! own. Where packets are late, as after a stall, the pace slips by their lateness and a cushion, which doubles if it does
//! not last.

/// Lateness in which no frame is missed: the lead of the output is longer.
const LATE_US: i64 = 100_000;
/// Bounds of the cushion. HLS has segments of up to ten seconds.
const CUSHION_MIN_US: i64 = 500_000;
const CUSHION_MAX_US: i64 = 10_000_000;
/// A cushion that is used up sooner was too small.
const LASTS_US: i64 = 300_000_000;
/// Distance between packets beyond which timestamps belong to another clock.
const JUMP_US: i64 = 5_000_000;

/// The pace of one connection. All times are in microseconds.
#[derive(Default)]
pub(super) struct Pace {
    /// A moment, and the timestamp that is due then.
    anchor: Option<(i64, i64)>,
    /// The largest timestamp since the last jump: streams are not interleaved exactly.
    furthest: i64,
    /// The moment of the last slip, and its cushion.
    slip: Option<(i64, i64)>,
}

/// How long a packet is held back.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Hold {
    pub wait_us: i64,
    /// The packet is late: the output's time has to be mapped again.
    pub has_slipped: bool,
}

impl Pace {
    /// Holds a packet with the timestamp `time` that is there at the moment `now`.
    pub fn hold(&mut self, now: i64, time: i64) -> Hold {
        let (mut at, mut from) = *self.anchor.get_or_insert_with(|| {
            self.furthest = time;
            (now, time)
        });
        if (time - self.furthest).abs() > JUMP_US {
            (at, from) = (now.max(at + self.furthest - from), time);
            (self.anchor, self.furthest) = (Some((at, from)), time);
        }
        self.furthest = self.furthest.max(time);
        let due = at + self.furthest - from;
        if now - due <= LATE_US {
            return Hold { wait_us: (due - now).max(0), has_slipped: false };
        }
        let wait_us = match self.slip {
            Some((slipped_at, cushion)) if now - slipped_at < LASTS_US => (2 * cushion).min(CUSHION_MAX_US),
            _ => CUSHION_MIN_US,
        };
        (self.anchor, self.slip) = (Some((now + wait_us, self.furthest)), Some((now, wait_us)));
        Hold { wait_us, has_slipped: true }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME_US: i64 = 40_000;
    const SEGMENT_FRAMES: i64 = 50;
    const SEGMENT_US: i64 = SEGMENT_FRAMES * FRAME_US;
    const MINUTE_US: i64 = 60_000_000;

    /// Plays segments of two seconds; `there_at` is the moment at which a segment can be read. Returns the moments at which
    /// the pace slipped, and all delays added together.
    fn play(segments: i64, there_at: impl Fn(i64) -> i64) -> (Vec<i64>, i64) {
        let (mut pace, mut now, mut slips, mut delay) = (Pace::default(), there_at(0), Vec::new(), 0);
        let mut expected = now;
        for segment in 0..segments {
            for frame in 0..SEGMENT_FRAMES {
                now = now.max(there_at(segment));
                let hold = pace.hold(now, segment * SEGMENT_US + frame * FRAME_US);
                now += hold.wait_us;
                if hold.has_slipped {
                    slips.push(now);
                    delay += now - expected;
                    expected = now;
                }
                assert!((now - expected).abs() <= LATE_US, "a packet leaves {} us off", now - expected);
                expected += FRAME_US;
            }
        }
        (slips, delay)
    }

    /// Up to 0.4 s, the same for the same number.
    fn jitter_us(number: i64) -> i64 {
        number * 7919 % 41 * 10_000
    }

    #[test]
    fn after_a_stall_a_cushion_is_built_once() {
        for stall_us in [300_000, 1_500_000, 6_500_000, 60_000_000] {
            let stalled = |segment: i64| if segment >= 100 { stall_us } else { 0 };
            let (slips, delay) =
                play(10_000, |segment| segment * SEGMENT_US + jitter_us(segment) + stalled(segment));
            // One at the start, which has no cushion, and one after the stall.
            assert!(slips.len() <= 2 && delay <= stall_us + 1_500_000, "{stall_us}: {delay} in {slips:?}");
        }
    }

    #[test]
    fn an_hourly_stall_costs_no_more_than_itself_and_a_cushion() {
        // A day, with a stall of 1 to 60 s an hour.
        let stalls =
            |segment: i64| (1..=segment / 1800).map(|hour| 1_000_000 * (1 + hour * 37 % 60)).sum::<i64>();
        let (slips, delay) =
            play(43_200, |segment| segment * SEGMENT_US + jitter_us(segment) + stalls(segment));
        let total = stalls(43_200);
        assert!(slips.len() <= 24, "{}", slips.len());
        assert!(delay <= total + 24 * 500_000, "{delay} after stalls of {total}");
    }

    #[test]
    fn a_slow_clock_slips_seldom() {
        // 14 days of a source that is 100 ppm slow: 121 s in all.
        let segments = 14 * 24 * 60 * MINUTE_US / SEGMENT_US;
        let (slips, delay) =
            play(segments, |segment| segment * (SEGMENT_US + SEGMENT_US / 10_000) + jitter_us(segment));
        let drift = segments * SEGMENT_US / 10_000;
        assert!(slips.len() as i64 <= drift / CUSHION_MIN_US + 1, "{} slips", slips.len());
        assert!((drift - 500_000..drift + 1_500_000).contains(&delay), "{delay}, drift {drift}");
    }

    #[test]
    fn streams_apart_and_jumps_are_no_lateness() {
        let mut pace = Pace::default();
        let hold = |wait_us| Hold { wait_us, has_slipped: false };
        assert_eq!(pace.hold(0, 10_000_000), hold(0));
        assert_eq!(pace.hold(0, 10_700_000), hold(700_000));
        // Audio that is interleaved 0.6 s late.
        assert_eq!(pace.hold(700_000, 10_100_000), hold(0));
        assert_eq!(pace.hold(700_000, 10_740_000), hold(40_000));
        // Another clock continues where the last packet was due.
        assert_eq!(pace.hold(700_000, 1_000_000), hold(40_000));
        assert_eq!(pace.hold(740_000, 1_040_000), hold(40_000));
        assert_eq!(pace.hold(780_000, 90_000_000), hold(0));
        // The process was stopped for a minute: nothing is sent in a burst.
        assert_eq!(pace.hold(60_780_000, 90_040_000), Hold { wait_us: 500_000, has_slipped: true });
        assert_eq!(pace.hold(61_280_000, 90_080_000), hold(40_000));
    }
}

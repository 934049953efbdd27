//! Pacer: the output's time, which goes on evenly whatever the source does.
//!
//! In: frames with times of the output, as they are ready. Out: whether each is still wanted, and when one has to be made
//! because none came. It knows no frames.

use std::time::{Duration, Instant};

/// A source that is silent for so long is taken to be gone: then frames are made.
const GONE_AFTER: Duration = Duration::from_millis(500);

/// Of one output.
pub struct Pacer {
    period: Duration,
    /// Time of the last frame in microseconds, and when it went out.
    last: Option<(i64, Instant)>,
    /// Whether frames are being made.
    makes: bool,
}

impl Pacer {
    /// `period`: from one frame to the next.
    pub fn new(period: Duration) -> Pacer {
        Pacer { period, last: None, makes: false }
    }

    /// What time it is in the output: 0 when it begins.
    pub fn now_us(&self, now: Instant) -> i64 {
        self.last.map_or(0, |(last_us, at)| last_us + (now - at).as_micros() as i64)
    }

    /// Whether a frame of this time goes out now; else it comes too late, after one that was made in its place.
    pub fn takes(&mut self, time_us: i64, now: Instant) -> bool {
        let is_next = !self.is_past(time_us);
        if is_next {
            (self.last, self.makes) = (Some((time_us, now)), false);
        }
        is_next
    }

    /// Whether the output has gone on past this time.
    pub fn is_past(&self, time_us: i64) -> bool {
        self.last.is_some_and(|(last_us, _)| time_us <= last_us)
    }

    /// How long the next frame is waited for; `None` before the first one.
    pub fn patience(&self, now: Instant) -> Option<Duration> {
        let (_, at) = self.last?;
        let patience = if self.makes { self.period } else { GONE_AFTER.max(3 * self.period) };
        Some((at + patience).saturating_duration_since(now))
    }

    /// The time of a frame that has to be made now, for none came.
    pub fn make(&mut self) -> i64 {
        let (last_us, at) = self.last.expect("only what has begun goes on");
        let next = (last_us + self.period.as_micros() as i64, at + self.period);
        (self.last, self.makes) = (Some(next), true);
        next.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_made_in_the_place_of_those_that_do_not_come() {
        let period = Duration::from_millis(40);
        let mut pacer = Pacer::new(period);
        let start = Instant::now();
        assert_eq!(pacer.patience(start), None, "nothing is made before the first frame");
        assert!(pacer.takes(0, start) && pacer.takes(40_000, start + period));
        let mut now = start + period;
        let mut made = Vec::new();
        while now < start + Duration::from_secs(2) {
            now += pacer.patience(now).unwrap();
            made.push(pacer.make());
        }
        let times: Vec<i64> = (2..=50).map(|frame| frame * 40_000).collect();
        assert_eq!(made, times, "without a gap");
        assert!((now - start).as_millis() < 2050, "and not before their time");
        assert!(!pacer.takes(1_000_000, now), "what was made up for does not come after it");
        let back_us = pacer.now_us(now + period);
        assert!(back_us > 2_000_000 && pacer.takes(back_us, now + period));
        assert!(
            pacer.patience(now + period).unwrap() > Duration::from_millis(400),
            "the source has its time again"
        );
    }
}

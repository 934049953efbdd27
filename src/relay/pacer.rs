//! Pacer: the output's time, which advances evenly whatever the source does.
//!
//! In: upscaled frames with times of the output. Out: whether each is still wanted, and when one has to be duplicated
//! because none arrived. It knows no frames.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::sync::lock;

/// Time without a frame after which frames are duplicated.
const LOST_AFTER: Duration = Duration::from_millis(500);

/// What is sent while the source is lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum OnLoss {
    /// The last frame, repeated.
    Hold,
    /// Black frames.
    Black,
    /// The last frame until the source counts as lost; then the relay ends with an error.
    Stop,
}

/// A [`Pacer`] by the machine's clock, shared by source and encoder.
pub(super) struct OutputClock(Mutex<Pacer>);

impl OutputClock {
    /// `period`: from one frame to the next.
    pub fn new(period: Duration) -> OutputClock {
        OutputClock(Mutex::new(Pacer::new(period)))
    }

    pub fn now_us(&self) -> i64 {
        lock(&self.0).now_us(Instant::now())
    }

    pub fn is_past(&self, time_us: i64) -> bool {
        lock(&self.0).is_past(time_us)
    }

    pub fn accept(&self, time_us: i64) -> bool {
        lock(&self.0).accept(time_us, Instant::now())
    }

    pub fn patience(&self) -> Option<Duration> {
        lock(&self.0).patience(Instant::now())
    }

    pub fn duplicate(&self) -> i64 {
        lock(&self.0).duplicate()
    }
}

/// The time of one output.
struct Pacer {
    period: Duration,
    /// Time of the last frame in microseconds, and when it went out.
    last: Option<(i64, Instant)>,
    is_duplicating: bool,
}

impl Pacer {
    fn new(period: Duration) -> Pacer {
        Pacer { period, last: None, is_duplicating: false }
    }

    /// Returns the current time of the output: 0 before its first frame.
    fn now_us(&self, now: Instant) -> i64 {
        self.last.map_or(0, |(last_us, at)| last_us + (now - at).as_micros() as i64)
    }

    /// Returns whether a frame of this time goes out now, or is too late because a duplicate took its place.
    fn accept(&mut self, time_us: i64, now: Instant) -> bool {
        let is_next = !self.is_past(time_us);
        if is_next {
            (self.last, self.is_duplicating) = (Some((time_us, now)), false);
        }
        is_next
    }

    /// Returns whether a frame of this time or a later one has gone out.
    fn is_past(&self, time_us: i64) -> bool {
        self.last.is_some_and(|(last_us, _)| time_us <= last_us)
    }

    /// Returns how long to wait for the next frame; `None` before the first one.
    fn patience(&self, now: Instant) -> Option<Duration> {
        let (_, at) = self.last?;
        let patience = if self.is_duplicating { self.period } else { LOST_AFTER.max(3 * self.period) };
        Some((at + patience).saturating_duration_since(now))
    }

    /// Advances by a period, and returns the time of the frame to duplicate.
    fn duplicate(&mut self) -> i64 {
        let (last_us, at) = self.last.expect("a frame went out before");
        let next = (last_us + self.period.as_micros() as i64, at + self.period);
        (self.last, self.is_duplicating) = (Some(next), true);
        next.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_that_do_not_arrive_are_duplicated() {
        let period = Duration::from_millis(40);
        let mut pacer = Pacer::new(period);
        let start = Instant::now();
        assert_eq!(pacer.patience(start), None, "nothing is duplicated before the first frame");
        assert!(pacer.accept(0, start) && pacer.accept(40_000, start + period));
        let mut now = start + period;
        let mut duplicated = Vec::new();
        while now < start + Duration::from_secs(2) {
            now += pacer.patience(now).unwrap();
            duplicated.push(pacer.duplicate());
        }
        let times: Vec<i64> = (2..=50).map(|frame| frame * 40_000).collect();
        assert_eq!(duplicated, times, "without a gap");
        assert!((now - start).as_millis() < 2050, "and not before their time");
        assert!(!pacer.accept(1_000_000, now), "a frame that was duplicated is not shown as well");
        let back_us = pacer.now_us(now + period);
        assert!(back_us > 2_000_000 && pacer.accept(back_us, now + period));
        assert!(
            pacer.patience(now + period).unwrap() > Duration::from_millis(400),
            "the source has its time again"
        );
    }
}

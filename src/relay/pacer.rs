//! Pacer: the output's time, which advances evenly whatever the source does.
//!
//! In: upscaled frames with times of the output. Out: whether each is still wanted, and when one has to be duplicated
//! because none arrived. It knows no frames.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::sync::lock;

/// Time without a frame after which frames are duplicated.
const LOST_AFTER: Duration = Duration::from_millis(500);

/// Time in which the output's clock follows an offset of the frames' times to a third.
const FOLLOWED_IN: Duration = Duration::from_secs(10);

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

/// The output's time, in microseconds.
#[derive(Clone, Copy)]
pub(super) struct OutputTime {
    pub now_us: i64,
    /// That of its last frame; `None` before the first one.
    pub last_us: Option<i64>,
}

/// A [`Pacer`] by the machine's clock, shared by source and encoder.
pub(super) struct OutputClock(Mutex<Pacer>);

impl OutputClock {
    /// `period`: from one frame to the next.
    pub fn new(period: Duration) -> OutputClock {
        OutputClock(Mutex::new(Pacer::new(period)))
    }

    pub fn time(&self, now: Instant) -> OutputTime {
        lock(&self.0).time(now)
    }

    pub fn accept(&self, time_us: i64) -> bool {
        lock(&self.0).accept(time_us, Instant::now())
    }

    pub fn patience(&self) -> Option<Duration> {
        lock(&self.0).patience(Instant::now())
    }

    pub fn duplicate(&self) -> i64 {
        lock(&self.0).duplicate(Instant::now())
    }
}

/// The time of one output.
pub(super) struct Pacer {
    period: Duration,
    /// Time of the last frame in microseconds, and when it went out.
    last: Option<(i64, Instant)>,
    /// The output's time in microseconds at a moment. It follows the frames' times slowly: a source that sends a minute at
    /// once does not move it by a minute.
    clock: (i64, Instant),
    is_duplicating: bool,
}

impl Pacer {
    pub fn new(period: Duration) -> Pacer {
        Pacer { period, last: None, clock: (0, Instant::now()), is_duplicating: false }
    }

    /// Returns the current time of the output.
    pub fn time(&self, now: Instant) -> OutputTime {
        OutputTime { now_us: self.now_us(now), last_us: self.last.map(|(us, _)| us) }
    }

    /// Returns the current time of the output: 0 before its first frame. It stands still while the process is stopped.
    fn now_us(&self, now: Instant) -> i64 {
        let (us, at) = self.clock;
        self.last.map_or(0, |_| us + (now - at).min(self.step_max()).as_micros() as i64)
    }

    /// Returns whether a frame of this time goes out now, or is too late because a duplicate took its place.
    pub fn accept(&mut self, time_us: i64, now: Instant) -> bool {
        let is_next = !self.is_past(time_us);
        if is_next {
            let (clock_us, part) = match self.last {
                Some(_) => (self.now_us(now), (now - self.clock.1).div_duration_f64(FOLLOWED_IN).min(1.0)),
                None => (time_us, 0.0),
            };
            self.clock = (clock_us + ((time_us - clock_us) as f64 * part) as i64, now);
            (self.last, self.is_duplicating) = (Some((time_us, now)), false);
        }
        is_next
    }

    /// Returns whether a frame of this time or a later one has gone out.
    fn is_past(&self, time_us: i64) -> bool {
        self.last.is_some_and(|(last_us, _)| time_us <= last_us)
    }

    /// Returns how long to wait for the next frame; `None` before the first one.
    pub fn patience(&self, now: Instant) -> Option<Duration> {
        let (_, at) = self.last?;
        let patience = if self.is_duplicating { self.period } else { self.patience_max() };
        Some((at + patience).saturating_duration_since(now))
    }

    /// Advances by a period, and returns the time of the frame to duplicate. One that is due since long ago tells that the
    /// process was stopped, or the machine asleep: what was missed meanwhile is not made up for.
    pub fn duplicate(&mut self, now: Instant) -> i64 {
        let (last_us, at) = self.last.expect("a frame went out before");
        let was_stopped = now - at > self.step_max();
        let next_at = if was_stopped { now } else { at + self.period };
        let next_us = last_us + self.period.as_micros() as i64;
        self.clock = (next_us, next_at);
        (self.last, self.is_duplicating) = (Some(self.clock), true);
        next_us
    }

    /// Time without a frame after which one is duplicated.
    fn patience_max(&self) -> Duration {
        LOST_AFTER.max(3 * self.period)
    }

    /// The longest time from one frame to the next of a process that runs.
    fn step_max(&self) -> Duration {
        self.patience_max() + LOST_AFTER
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
            duplicated.push(pacer.duplicate(now));
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

    #[test]
    fn a_process_that_was_stopped_sends_no_burst() {
        let (period, start) = (Duration::from_millis(40), Instant::now());
        for is_lost in [false, true] {
            let mut pacer = Pacer::new(period);
            (0..25)
                .for_each(|frame| assert!(pacer.accept(40_000 * i64::from(frame), start + frame * period)));
            let mut now = start + 24 * period;
            if is_lost {
                while now < start + Duration::from_secs(2) {
                    now += pacer.patience(now).unwrap();
                    pacer.duplicate(now);
                }
            }
            let before_us = pacer.last.unwrap().0;
            now += Duration::from_secs(60);
            assert!(pacer.now_us(now) - before_us <= 1_000_000, "{}", pacer.now_us(now));
            let mut burst = 0;
            while pacer.patience(now) == Some(Duration::ZERO) {
                burst += 1;
                assert_eq!(pacer.duplicate(now), before_us + 40_000 * burst);
            }
            assert_eq!((burst, pacer.patience(now)), (1, Some(period)), "lost before: {is_lost}");
            assert_eq!(pacer.now_us(now), before_us + 40_000);
        }
    }

    #[test]
    fn the_clock_follows_a_drift_and_no_burst() {
        let (period, start) = (Duration::from_millis(40), Instant::now());
        let mut pacer = Pacer::new(period);
        // An hour of a source that is 200 ppm fast.
        for frame in 0..90_000_u32 {
            let (time_us, now) = (i64::from(frame) * 40_008, start + frame * period);
            assert!(pacer.accept(time_us, now));
            let off_us = (pacer.now_us(now) - time_us).abs();
            assert!(off_us <= 2_100, "{off_us} us at frame {frame}");
        }
        // Then ten seconds at once.
        let now = start + 90_000 * period;
        let before_us = pacer.now_us(now);
        (90_000..90_250).for_each(|frame| assert!(pacer.accept(frame * 40_008, now)));
        assert!((pacer.now_us(now) - before_us).abs() < 2_000, "{}", pacer.now_us(now) - before_us);
    }
}

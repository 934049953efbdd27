//! Ladder: chooses by which of several networks a frame is upscaled, so that it meets its deadline.
//!
//! In: the time each network took when nothing else ran on the machine, the time frames take now, the frame's deadline.
//! Out: the best rung that meets it, or none. It knows neither frames nor engines.

use std::time::{Duration, Instant};

/// Part of the frame period that a rung may take before the ladder descends.
const BUSY_MAX: f64 = 0.95;
/// Part of the frame period below which a better rung is climbed to: hysteresis.
const BUSY_MIN: f64 = 0.7;
/// Time for which the load has to stay below that; doubled each time that a rung did not hold.
const CALM_MIN: Duration = Duration::from_secs(3);
const CALM_MAX: Duration = Duration::from_secs(60);
/// A rung that was left sooner than this did not hold.
const HELD_MIN: Duration = Duration::from_secs(10);
/// Weight of the newest frame in the estimate of the load.
const NEWEST: f64 = 0.35;
/// Part of the load that is forgotten with each frame that is dropped.
const FORGOTTEN: f64 = 0.1;
/// Part of the frame period that wake-ups and cold caches may cost, whatever else the machine does: a network that takes no
/// longer than this says little about the load.
const NOISE: f64 = 0.1;

/// Networks, best first.
pub(super) struct Ladder {
    /// Seconds per frame on an idle machine, by rung.
    alone_s: Vec<f64>,
    /// Seconds from one frame to the next.
    period_s: f64,
    current: usize,
    /// Factor by which frames take longer than on an idle machine.
    load: f64,
    calm_since: Option<Instant>,
    calm: Duration,
    climbed_at: Option<Instant>,
}

impl Ladder {
    /// Starts on the best rung that is fast enough.
    pub fn new(alone_s: Vec<f64>, period_s: f64) -> Ladder {
        let last = alone_s.len() - 1;
        let current = alone_s.iter().position(|&s| s < BUSY_MIN * period_s).unwrap_or(last);
        Ladder { alone_s, period_s, current, load: 1.0, calm_since: None, calm: CALM_MIN, climbed_at: None }
    }

    /// Returns the rung for a frame that has to be upscaled by `deadline`; `None` if no rung is fast enough.
    pub fn choose(&mut self, now: Instant, deadline: Instant) -> Option<usize> {
        let last = self.alone_s.len() - 1;
        if self.current < last && self.expected_s(self.current) > BUSY_MAX * self.period_s {
            self.descend(self.current + 1, now);
        }
        self.climb_if_calm(now);
        let left_s = deadline.saturating_duration_since(now).as_secs_f64();
        let Some(in_time) = (self.current..=last).find(|&rung| self.expected_s(rung) < left_s) else {
            // No frame would correct the load that one frame has shown, as of a process that was stopped.
            self.load += FORGOTTEN * (1.0 - self.load);
            return None;
        };
        if in_time > self.current {
            self.descend(in_time, now);
        }
        Some(in_time)
    }

    /// Notes the time of one frame on a rung.
    pub fn note_time(&mut self, rung: usize, seconds: f64) {
        let noise_s = NOISE * self.period_s;
        let now = (seconds + noise_s) / (self.alone_s[rung] + noise_s);
        // The machine was busy while the networks were timed, which slowed all alike.
        if now < 1.0 {
            self.alone_s.iter_mut().for_each(|alone_s| *alone_s *= 0.9 + 0.1 * now);
        }
        self.load += NEWEST * (now.max(1.0) - self.load);
    }

    /// The current rung.
    #[cfg(test)]
    pub fn current(&self) -> usize {
        self.current
    }

    fn expected_s(&self, rung: usize) -> f64 {
        self.alone_s[rung] * self.load
    }

    fn descend(&mut self, rung: usize, now: Instant) {
        let held = self.climbed_at.is_none_or(|climbed| now - climbed > HELD_MIN);
        self.calm = if held { CALM_MIN } else { (2 * self.calm).min(CALM_MAX) };
        (self.current, self.calm_since) = (rung, None);
    }

    fn climb_if_calm(&mut self, now: Instant) {
        let Some(better) = self.current.checked_sub(1) else { return };
        if self.expected_s(better) > BUSY_MIN * self.period_s {
            self.calm_since = None;
        } else if now - *self.calm_since.get_or_insert(now) > self.calm {
            (self.current, self.calm_since, self.climbed_at) = (better, None, Some(now));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Frames every 40 ms with deadlines 300 ms after their arrival, on a machine that `load` slows down by a factor. Returns
    /// the rung of each frame, and by how much the worst missed its deadline.
    fn run(seconds: usize, load: impl Fn(f64) -> f64) -> (Vec<Option<usize>>, f64) {
        let alone = [0.100, 0.024, 0.002];
        let mut ladder = Ladder::new(alone.to_vec(), 0.04);
        let start = Instant::now();
        let at = |s: f64| start + Duration::from_secs_f64(s);
        let (mut free_s, mut late_s, mut rungs) = (0.0_f64, f64::MIN, Vec::new());
        for frame in 0..seconds * 25 {
            let arrived_s = frame as f64 * 0.04;
            free_s = free_s.max(arrived_s);
            let rung = ladder.choose(at(free_s), at(arrived_s + 0.3));
            if let Some(rung) = rung {
                let took_s = alone[rung] * load(free_s);
                ladder.note_time(rung, took_s);
                free_s += took_s;
                late_s = late_s.max(free_s - (arrived_s + 0.3));
            }
            rungs.push(rung);
        }
        (rungs, late_s)
    }

    #[test]
    fn the_best_rung_that_keeps_up_is_kept() {
        let (rungs, late_s) = run(20, |_| 1.0);
        assert!(rungs.iter().all(|&rung| rung == Some(1)), "{rungs:?}");
        assert!(late_s < 0.0, "{late_s}");
    }

    #[test]
    fn load_leads_down_within_a_second_and_its_end_up_again() {
        let (rungs, late_s) = run(40, |s| if (10.0..20.0).contains(&s) { 3.0 } else { 1.0 });
        let first_low = rungs.iter().position(|&rung| rung == Some(2)).unwrap();
        assert!((250..275).contains(&first_low), "frame {first_low}");
        assert!(rungs[275..500].iter().all(|&rung| rung == Some(2)));
        assert!(rungs[1000 - 25..].iter().all(|&rung| rung == Some(1)), "it is climbed again");
        assert!(late_s < 0.0, "{late_s}");
        let changes = rungs.windows(2).filter(|pair| pair[0] != pair[1]).count();
        assert_eq!(changes, 2, "quality does not flutter");
    }

    #[test]
    fn a_rung_that_does_not_hold_is_tried_ever_less_often() {
        // The network alone suffers: from the plain resampler nothing of the load is seen.
        let alone = [0.024, 0.002];
        let mut ladder = Ladder::new(alone.to_vec(), 0.04);
        let (start, mut climbs, mut before) = (Instant::now(), Vec::new(), 0);
        for frame in 0..120 * 25 {
            let now = start + Duration::from_secs_f64(f64::from(frame) * 0.04);
            let rung = ladder.choose(now, now + Duration::from_secs(1)).unwrap();
            ladder.note_time(rung, alone[rung] * if rung == 0 { 3.0 } else { 1.0 });
            if rung < before {
                climbs.push(frame);
            }
            before = rung;
        }
        assert!((2..8).contains(&climbs.len()), "{climbs:?}");
        assert!(climbs.windows(3).all(|three| three[2] - three[1] > three[1] - three[0]), "{climbs:?}");
    }

    #[test]
    fn a_plain_rung_that_takes_a_moment_longer_is_no_load() {
        let mut ladder = Ladder::new(vec![0.024, 0.001], 0.04);
        let start = Instant::now();
        let mut climbed = None;
        for frame in 0..20 * 25 {
            let now = start + Duration::from_secs_f64(f64::from(frame) * 0.04);
            let rung = ladder.choose(now, now + Duration::from_secs(1)).unwrap();
            let is_loaded = frame < 50;
            ladder.note_time(rung, if is_loaded { 0.1 } else { [0.024, 0.0015][rung] });
            climbed = climbed.or((!is_loaded && rung == 0).then_some(frame));
        }
        let climbed = climbed.expect("it is climbed again");
        assert!((100..200).contains(&climbed), "frame {climbed}");
        assert_eq!(ladder.current(), 0);
    }

    #[test]
    fn times_measured_on_a_busy_machine_are_corrected() {
        let alone = [0.024, 0.002];
        let mut ladder = Ladder::new(alone.map(|s| 4.0 * s).to_vec(), 0.04);
        let start = Instant::now();
        for frame in 0..20 * 25 {
            let now = start + Duration::from_secs_f64(f64::from(frame) * 0.04);
            let rung = ladder.choose(now, now + Duration::from_secs(1)).unwrap();
            ladder.note_time(rung, alone[rung]);
        }
        assert_eq!(ladder.current(), 0);
    }

    #[test]
    fn a_frame_that_no_rung_can_save_is_dropped() {
        let mut ladder = Ladder::new(vec![0.02, 0.002], 0.04);
        let now = Instant::now();
        assert_eq!(ladder.choose(now, now + Duration::from_millis(10)), Some(1));
        assert_eq!(ladder.choose(now, now + Duration::from_millis(1)), None);
        assert_eq!(ladder.choose(now, now - Duration::from_millis(1)), None);
    }

    #[test]
    fn a_process_that_was_stopped_in_a_frame_upscales_again() {
        for stop_s in [3.0, 60.0, 3600.0] {
            let mut ladder = Ladder::new(vec![0.02, 0.002], 0.04);
            ladder.note_time(1, stop_s);
            let (start, mut dropped) = (Instant::now(), 0);
            let at = |frame: u32| start + frame * Duration::from_millis(40);
            while ladder.choose(at(dropped), at(dropped) + Duration::from_secs(1)).is_none() {
                dropped += 1;
            }
            // An hour is 200 thousand times as long as a frame.
            assert!(dropped <= 75, "{dropped} frames after {stop_s} s");
        }
    }
}

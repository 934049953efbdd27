//! What a run with faults has shown: printed as a table, and held to its bounds.

use super::pieces::{Misfit, Shown};
use super::watch::Load;
use super::{CEILING_MS, Fault, KINDS, Kind, Latency, SETTLE_S, SINKS, Violation};
use crate::common::flat::{Sample, assert_flat};

/// A beep and its flash, at most.
const APART_MAX_S: f64 = 0.040;
/// From one flash to the next without a fault, beside a second.
const SECOND_OFF_MAX_S: f64 = 0.045;
/// After a fault A/V sync may be off for so long.
const APART_AFTER_S: f64 = 1.0;
/// Between the time of a stop as the test counts it and the gap that it leaves.
const GAP_OFF_MAX_S: f64 = 1.0;
const GROWTH_MAX: f64 = 1.05;
/// A short run is still filling its caches.
const GROWTH_MAX_SHORT: f64 = 1.25;
/// Load so long before a violation may explain it.
const LOAD_BEFORE_S: f64 = 3.0;
/// By which the output's time and the machine's may part at the end, beside a frame for each connection of the source.
const CLOCK_OFF_MAX_S: f64 = 0.2;
const CLOCK_OFF_BY_CONNECTION_S: f64 = 0.04;

pub struct Outcome {
    run_s: f64,
    pub faults: Vec<Fault>,
    violations: Vec<Violation>,
    /// At each line.
    pub loads: Vec<(f64, Load)>,
    /// By sink.
    pub latencies: [Vec<Latency>; 4],
    pub quiet_s: f64,
    /// Of quiet stretches.
    pub samples: Vec<Sample>,
    /// Number of segments, and the longest time from one to the next in seconds.
    pub playlist: (u64, f64),
    /// Of the source and of the RTMP sink.
    pub connections: (u64, u64),
    pub latency_ms_max: u64,
    pub streams: Vec<(String, Shown)>,
    /// Time of arrival and presentation of the frames by UDP.
    pub frames: Vec<[f64; 2]>,
}

impl Outcome {
    pub fn new(run_s: f64) -> Outcome {
        Outcome {
            run_s,
            faults: Vec::new(),
            violations: Vec::new(),
            loads: Vec::new(),
            latencies: Default::default(),
            quiet_s: 0.0,
            samples: Vec::new(),
            playlist: (0, 0.0),
            connections: (0, 0),
            latency_ms_max: 0,
            streams: Vec::new(),
            frames: Vec::new(),
        }
    }

    /// Forgets what was noted while all parts found each other.
    pub fn clear(&mut self) {
        *self = Outcome::new(self.run_s);
    }

    /// Notes a violation, with the load of these seconds if it explains it.
    pub fn blame(&mut self, at: f64, what: String) {
        let near = self.loads.iter().rev().take_while(|(line_at, _)| *line_at > at - LOAD_BEFORE_S);
        let load =
            near.filter(|(line_at, load)| *line_at < at + 1.0 && load.explains()).map(|line| line.1).next();
        let violation = Violation { at, what, load };
        violation.print();
        self.violations.push(violation);
    }

    /// Whether a time lies outside of what faults may change.
    fn is_quiet(&self, at: f64) -> bool {
        !self.faults.iter().any(|fault| fault.covers(at - 0.5, at + 0.5))
    }

    /// Whether A/V sync of a stream may be off at this time.
    fn may_be_apart(&self, at: f64, is_rtmp: bool) -> bool {
        self.faults.iter().filter(|fault| is_rtmp || !fault.kind.is_receiver()).any(|fault| {
            let back_at = if fault.kind.is_receiver() { fault.recovered } else { fault.fresh_at };
            let until =
                back_at.or(fault.recovered).unwrap_or(f64::INFINITY).max(fault.end.unwrap_or_default());
            (fault.start - 0.5..until + APART_AFTER_S).contains(&at)
        })
    }

    /// The relay's stop at this time, in seconds.
    fn stopped_s(&self, at: f64) -> f64 {
        let stops = self.faults.iter().filter(|fault| fault.kind == Kind::RelayStopped);
        let near = |fault: &&Fault| {
            let end = fault.recovered.unwrap_or(f64::INFINITY) + SETTLE_S;
            (fault.start - 1.0..end).contains(&at)
        };
        stops.filter(near).map(Fault::seconds).fold(0.0, f64::max)
    }

    /// Prints the figures and asserts the bounds.
    pub fn assert_good(mut self) {
        println!("{:.0} s, of which {:.0} s without a fault", self.run_s, self.quiet_s);
        self.print_faults();
        self.print_latencies();
        self.check_streams();
        self.check_clock();
        self.print_loads();
        let (segments, wait_max_s) = self.playlist;
        println!("hls: {segments} segments, at most {wait_max_s:.1} s from one to the next");
        let (source, rtmp) = self.connections;
        println!("connections: {source} of the source, {rtmp} of the RTMP sink");
        println!("slowest frame: {} ms", self.latency_ms_max);
        let (excused, wrong): (Vec<_>, Vec<_>) = self.violations.iter().partition(|it| it.load.is_some());
        println!("{} violations, and {} under load", wrong.len(), excused.len());
        wrong.iter().for_each(|violation| violation.print());
        let growth_max = if self.run_s < super::LONG_S { GROWTH_MAX_SHORT } else { GROWTH_MAX };
        assert_flat(&format!("a relay for {:.0} s", self.run_s), &self.samples, growth_max);
        assert!(KINDS.iter().all(|&kind| self.faults.iter().any(|fault| fault.kind == kind)));
        assert!(wrong.is_empty(), "{} violations, which are listed above", wrong.len());
    }

    fn print_faults(&self) {
        println!("fault            count  longest  recovery median and max  duplicated  lost  sinks dropped");
        for kind in KINDS {
            let faults: Vec<&Fault> = self.faults.iter().filter(|fault| fault.kind == kind).collect();
            let mut recovery: Vec<f64> = faults.iter().map(|fault| fault.recovery_s()).collect();
            recovery.sort_by(f64::total_cmp);
            let sum = |count: fn(&Fault) -> u64| faults.iter().map(|fault| count(fault)).sum::<u64>();
            println!(
                "{:16} {:5} {:6.1} s {:12.1} s {:7.1} s {:11} {:5} {:14}",
                format!("{kind:?}"),
                faults.len(),
                faults.iter().map(|fault| fault.seconds()).fold(0.0, f64::max),
                recovery.get(recovery.len() / 2).unwrap_or(&0.0),
                recovery.last().unwrap_or(&0.0),
                sum(|fault| fault.duplicated),
                sum(|fault| fault.lost),
                sum(|fault| fault.sinks_dropped),
            );
        }
    }

    fn print_latencies(&self) {
        for (name, latencies) in SINKS.iter().zip(&self.latencies) {
            let figures = |in_fault: bool, of: fn(&Latency) -> u64| {
                let mut ms: Vec<u64> =
                    latencies.iter().filter(|it| it.in_fault == in_fault).map(of).collect();
                ms.sort_unstable();
                let at = |part: f64| {
                    ms.get((part * (ms.len() as f64 - 1.0)) as usize).copied().unwrap_or_default()
                };
                [at(0.5), at(0.99), at(1.0)]
            };
            let ([p50, p99, max], [.., age_max]) = (figures(false, |it| it.p99), figures(false, |it| it.age));
            let [.., fault_max] = figures(true, |it| it.p99.max(it.age));
            println!(
                "{name}: p99 of each second: median {p50} ms, p99 {p99} ms, max {max} ms; oldest packet {age_max} ms; in a \
                 fault of its own at most {fault_max} ms; ceiling {CEILING_MS} ms"
            );
        }
    }

    fn check_streams(&mut self) {
        let mut violations = Vec::new();
        for name in ["rtmp", "hls", "file"] {
            let is_rtmp = name == "rtmp";
            let (mut apart_ms, mut off_ms, mut misfits) = (Vec::new(), 0.0f64, 0);
            for (_, shown) in self.streams.iter().filter(|(stream, _)| stream.starts_with(name)) {
                for misfit in &shown.misfits {
                    misfits += 1;
                    let Misfit { at, step_s, what } = misfit;
                    let is_stop = *step_s > 0.0 && *step_s < self.stopped_s(*at) + GAP_OFF_MAX_S;
                    if !is_stop {
                        violations.push((*at, format!("{name}: {what}")));
                    }
                }
                // The first one may be without audio.
                for flash in
                    shown.flashes.iter().skip(1).filter(|flash| !self.may_be_apart(flash.at, is_rtmp))
                {
                    apart_ms.push(1e3 * flash.apart_s);
                    if flash.apart_s.abs() > APART_MAX_S {
                        violations.push((flash.at, format!("{name}: a beep is {:.3} s off", flash.apart_s)));
                    }
                    let off_s = flash.since_s - 1.0;
                    if self.is_quiet(flash.at) && self.is_quiet(flash.at - 1.0) {
                        off_ms = off_ms.max(1e3 * off_s.abs());
                        if off_s.abs() > SECOND_OFF_MAX_S {
                            let what = format!("{name}: {:.3} s from one flash to the next", flash.since_s);
                            violations.push((flash.at, what));
                        }
                    }
                }
            }
            apart_ms.sort_by(f64::total_cmp);
            let at = |part: f64| {
                apart_ms.get((part * (apart_ms.len() as f64 - 1.0)) as usize).unwrap_or(&f64::NAN)
            };
            println!(
                "{name}: {} flashes outside of faults, beeps {:.1} to {:.1} ms after them, median {:.1} ms; seconds off by \
                 {off_ms:.1} ms at most; {misfits} gaps",
                apart_ms.len(),
                at(0.0),
                at(1.0),
                at(0.5),
            );
            assert!(apart_ms.len() as f64 > 0.8 * self.quiet_s - 6.0, "{name}: flashes are missing");
        }
        violations.into_iter().for_each(|(at, what)| self.blame(at, what));
    }

    /// The output's time against the machine's, as a receiver by UDP sees it.
    fn check_clock(&mut self) {
        // Median of presentation time less arrival, in the quiet stretch before each fault and after the last one.
        let mut leads = Vec::new();
        let mut from = 0.0;
        let ends = self.faults.iter().map(|it| (it.start, it.recovered.unwrap_or(f64::INFINITY) + SETTLE_S));
        let (mut count, mut wait_max_s) = (0, 0.0f64);
        for (until, next) in ends.chain([(f64::INFINITY, 0.0)]) {
            let start = self.frames.partition_point(|frame| frame[0] < from);
            let end = self.frames.partition_point(|frame| frame[0] < until);
            let frames = &self.frames[start..end];
            let mut stretch: Vec<f64> = frames.iter().map(|[at, pts]| pts - at).collect();
            stretch.sort_by(f64::total_cmp);
            leads.push(stretch.get(stretch.len() / 2).copied());
            let waits = frames.windows(2).map(|pair| pair[1][0] - pair[0][0]);
            (count, wait_max_s) = (count + frames.len(), waits.fold(wait_max_s, f64::max));
            from = next;
        }
        println!(
            "udp: {count} frames without a fault, at most {:.0} ms from one to the next",
            1e3 * wait_max_s
        );
        println!("time of the output - time of the machine, by fault: all together, least and most of one");
        for kind in KINDS {
            let of_kind = self.faults.iter().zip(leads.windows(2)).filter(|(fault, _)| fault.kind == kind);
            let moved: Vec<f64> = of_kind.filter_map(|(_, pair)| Some(pair[1]? - pair[0]?)).collect();
            let [min, max] = [f64::min, f64::max].map(|choose| moved.iter().copied().reduce(choose));
            let (sum, min, max) =
                (moved.iter().sum::<f64>(), min.unwrap_or_default(), max.unwrap_or_default());
            println!("{:16} {sum:+.3} s, {min:+.3} s, {max:+.3} s", format!("{kind:?}"));
        }
        let leads: Vec<f64> = leads.into_iter().flatten().collect();
        let off_s = leads.last().expect("quiet stretches") - leads[0];
        let stops = self.faults.iter().filter(|it| it.kind == Kind::RelayStopped);
        let stopped_s = stops.map(Fault::seconds).sum::<f64>();
        println!("at the end {off_s:+.3} s; the relay was stopped for {stopped_s:.1} s");
        let again = self.connections.0.saturating_sub(1) as f64;
        let off_max_s = CLOCK_OFF_MAX_S + CLOCK_OFF_BY_CONNECTION_S * again;
        // It stands still while the relay is stopped.
        if !(-stopped_s - off_max_s..=off_max_s).contains(&off_s) {
            let what = format!("the time of the output is {off_s:+.3} s off");
            self.blame(f64::INFINITY, what);
        }
    }

    fn print_loads(&self) {
        let figure = |name: &str, of: fn(&Load) -> f64| {
            let mut all: Vec<f64> = self.loads.iter().map(|line| of(&line.1)).collect();
            all.sort_by(f64::total_cmp);
            let at =
                |part: f64| all.get((part * (all.len() as f64 - 1.0)) as usize).copied().unwrap_or_default();
            println!(
                "{name} of each second: median {:.0} ms, p99 {:.0} ms, max {:.0} ms",
                at(0.5),
                at(0.99),
                at(1.0)
            );
        };
        figure("CPU pressure", |load| load.pressure_ms);
        figure("stolen time", |load| load.steal_ms);
        figure("longest wait of a thread", |load| load.waited_ms);
        figure("oversleeping", |load| load.overslept_ms);
    }
}

impl Fault {
    fn seconds(&self) -> f64 {
        self.end.unwrap_or(f64::INFINITY) - self.start
    }

    fn recovery_s(&self) -> f64 {
        self.recovered.unwrap_or(f64::INFINITY) - self.end.unwrap_or_default()
    }

    pub fn print(&self, seconds: f64) {
        println!(
            "{:7.1} s: {:?} for {seconds:.1} s, recovered after {:.1} s: {} frames duplicated, {} dropped, {} packets \
             dropped",
            self.start,
            self.kind,
            self.recovery_s(),
            self.duplicated,
            self.lost,
            self.sinks_dropped
        );
    }
}

impl Violation {
    fn print(&self) {
        let Violation { at, what, load } = self;
        match load {
            None => println!("VIOLATION at {at:.1} s: {what}"),
            Some(load) => println!("under load, at {at:.1} s: {what}; {load}"),
        }
    }
}

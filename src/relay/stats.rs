//! Stats: what a relay did so far, counted where it happens and read by whoever shows it.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::frame::Frame;
use crate::sync::lock;

/// Counters of a relay.
pub struct Stats {
    /// The ceiling, and the source's name without secrets: what a reader wants to see beside the counters.
    pub(super) latency_max: Duration,
    pub(super) source: String,
    pub(super) decoded: AtomicU64,
    pub(super) encoded: AtomicU64,
    pub(super) duplicated: AtomicU64,
    /// No rung was fast enough.
    pub(super) dropped_late: AtomicU64,
    /// Ready after the output had gone on without them.
    pub(super) dropped_past: AtomicU64,
    /// The queue before the network was full.
    pub(super) dropped_full: AtomicU64,
    pub(super) on_air: AtomicBool,
    pub(super) connections: AtomicU64,
    pub(super) clock_jumps: AtomicU64,
    /// Bytes of packets that the source sent.
    pub(super) bytes: AtomicU64,
    /// Every network that was ever on the ladder, and which one of them the last frame took.
    pub(super) rungs: Mutex<Vec<Arc<RungStats>>>,
    pub(super) rung: AtomicUsize,
    pub(super) decode: Busy,
    pub(super) upscale: Busy,
    pub(super) encode: Busy,
    /// Frames before the network; the oldest is in work.
    pub(super) waiting: Waits,
    pub(super) sinks: Vec<SinkStats>,
    pub(super) latency: Mutex<Latency>,
    last_frame: Mutex<Option<Instant>>,
    shown: Mutex<Shown>,
}

/// Counters of one network.
pub(super) struct RungStats {
    pub name: String,
    pub frames: AtomicU64,
}

/// Counters of one output.
#[derive(Default)]
pub(super) struct SinkStats {
    pub name: String,
    pub connected: AtomicBool,
    pub connections: AtomicU64,
    pub packets: AtomicU64,
    pub bytes: AtomicU64,
    /// Packets that did not find room, or nobody to take them.
    pub dropped: AtomicU64,
    pub waiting: Waits,
}

/// How long a stage worked.
#[derive(Default)]
pub(super) struct Busy(AtomicU64);

impl Busy {
    pub fn note(&self, time: Duration) {
        self.0.fetch_add(time.as_nanos() as u64, Relaxed);
    }

    pub fn seconds(&self) -> f64 {
        self.0.load(Relaxed) as f64 * 1e-9
    }
}

/// How much waits in a queue, and since when the oldest of it does.
#[derive(Default)]
pub(super) struct Waits {
    count: AtomicU64,
    oldest: Mutex<Option<Instant>>,
}

impl Waits {
    pub fn came(&self) {
        self.count.fetch_add(1, Relaxed);
    }

    /// This one is taken out and worked at.
    pub fn begins(&self, came: Instant) {
        *lock(&self.oldest) = Some(came);
    }

    /// It is done with, or was thrown away.
    pub fn ends(&self) {
        self.count.fetch_sub(1, Relaxed);
        *lock(&self.oldest) = None;
    }

    /// One was thrown away before it was worked at.
    pub fn is_thrown(&self) {
        self.count.fetch_sub(1, Relaxed);
    }

    pub fn count(&self) -> u64 {
        self.count.load(Relaxed)
    }

    pub fn age(&self) -> Duration {
        lock(&self.oldest).map_or(Duration::ZERO, |since| since.elapsed())
    }
}

/// A frame before and after, for whoever asked for one.
#[derive(Default)]
struct Shown {
    is_wanted: bool,
    /// Counts pairs from 1.
    number: u64,
    pair: Option<[Frame; 2]>,
}

/// Of one moment.
#[derive(Serialize, Clone, Debug)]
pub struct Snapshot {
    /// Frames that came out of the decoder.
    pub decoded: u64,
    /// Frames that went out, made ones among them.
    pub encoded: u64,
    /// Made, for the source was silent.
    pub duplicated: u64,
    /// Not made larger, for there was no time left.
    pub dropped_late: u64,
    /// Ready when the output had gone on without them.
    pub dropped_past: u64,
    /// For there was no room before the network.
    pub dropped_full: u64,
    /// Frames by network, best first.
    pub ladder: Vec<Rung>,
    /// The network of the last frame.
    pub rung: String,
    /// Whether the source is there.
    pub on_air: bool,
    /// How often it was found.
    pub connections: u64,
    /// How often its times jumped.
    pub clock_jumps: u64,
    /// Bytes that came in.
    pub bytes: u64,
    /// From the arrival of a frame's packet to its coded frame, since the snapshot before.
    pub latency_ms_p50: u64,
    /// The same, of the slowest in a hundred.
    pub latency_ms_p99: u64,
    /// The slowest of all since the beginning.
    pub latency_ms_max: u64,
    /// Seconds that decoder, network and encoder worked.
    pub busy_s: [f64; 3],
    /// Frames before the network, and the age of the oldest.
    pub waiting: Queue,
    /// In the order of the command line.
    pub sinks: Vec<Sink>,
}

/// A network and how many frames took it.
#[derive(Serialize, Clone, Debug)]
pub struct Rung {
    /// Its name.
    pub model: String,
    /// How many.
    pub frames: u64,
}

/// What waits.
#[derive(Serialize, Clone, Debug)]
pub struct Queue {
    /// How much.
    pub count: u64,
    /// How long the oldest has.
    pub age_ms: u64,
}

/// What one output got.
#[derive(Serialize, Clone, Debug)]
pub struct Sink {
    /// Its address, without secrets.
    pub name: String,
    /// Whether it takes packets.
    pub connected: bool,
    /// How often it was opened.
    pub connections: u64,
    /// Packets it took.
    pub packets: u64,
    /// Bytes in them.
    pub bytes: u64,
    /// Packets it did not take in time.
    pub dropped: u64,
    /// Packets on their way to it.
    pub waiting: Queue,
}

impl Stats {
    /// For a source and sinks of these names, which hold no secrets.
    pub(super) fn new(source: String, sinks: Vec<String>, latency_max: Duration) -> Stats {
        let told = |i: usize| match sinks[..i].iter().filter(|before| **before == sinks[i]).count() {
            0 => sinks[i].clone(),
            // Two keys of one server look alike without them.
            before => format!("{} ({})", sinks[i], before + 1),
        };
        let sink = |i| SinkStats { name: told(i), ..SinkStats::default() };
        Stats {
            latency_max,
            source,
            decoded: AtomicU64::default(),
            encoded: AtomicU64::default(),
            duplicated: AtomicU64::default(),
            dropped_late: AtomicU64::default(),
            dropped_past: AtomicU64::default(),
            dropped_full: AtomicU64::default(),
            on_air: AtomicBool::default(),
            connections: AtomicU64::default(),
            clock_jumps: AtomicU64::default(),
            bytes: AtomicU64::default(),
            rungs: Mutex::default(),
            rung: AtomicUsize::default(),
            decode: Busy::default(),
            upscale: Busy::default(),
            encode: Busy::default(),
            waiting: Waits::default(),
            sinks: (0..sinks.len()).map(sink).collect(),
            latency: Mutex::new(Latency::default()),
            last_frame: Mutex::default(),
            shown: Mutex::default(),
        }
    }

    /// The counters of a network: those it has, or new ones.
    pub(super) fn rung_of(&self, name: &str) -> (usize, Arc<RungStats>) {
        let mut rungs = lock(&self.rungs);
        let index = rungs.iter().position(|rung| rung.name == name).unwrap_or_else(|| {
            rungs.push(Arc::new(RungStats { name: name.to_owned(), frames: AtomicU64::default() }));
            rungs.len() - 1
        });
        (index, rungs[index].clone())
    }

    pub(super) fn note_latency(&self, latency: Duration) {
        lock(&self.latency).note(latency);
    }

    /// A frame went out.
    pub(super) fn note_frame(&self) {
        self.encoded.fetch_add(1, Relaxed);
        *lock(&self.last_frame) = Some(Instant::now());
    }

    /// `None` before the first one.
    pub(super) fn since_last_frame(&self) -> Option<Duration> {
        lock(&self.last_frame).map(|then| then.elapsed())
    }

    /// Asks for a pair of frames. Gives the number of the last one, 0 before the first.
    pub(super) fn want_frame(&self) -> u64 {
        let mut shown = lock(&self.shown);
        shown.is_wanted = true;
        shown.number
    }

    pub(super) fn is_frame_wanted(&self) -> bool {
        lock(&self.shown).is_wanted
    }

    /// A frame before and after.
    pub(super) fn show(&self, lr: Frame, sr: Frame) {
        let mut shown = lock(&self.shown);
        *shown = Shown { is_wanted: false, number: shown.number + 1, pair: Some([lr, sr]) };
    }

    /// One of the last pair, and the pair's number.
    pub(super) fn shown(&self, which: usize) -> Option<(u64, Frame)> {
        let shown = lock(&self.shown);
        shown.pair.as_ref().map(|pair| (shown.number, pair[which].share()))
    }

    /// All counters; the latency is that of frames since the call before with this mark.
    pub fn snapshot(&self, mark: &mut Mark) -> Snapshot {
        let latency = lock(&self.latency);
        let [p50, p99] = latency.quantiles_since(mark, [0.5, 0.99]);
        let latency_ms_max = latency.max_ms;
        drop(latency);
        let get = |counter: &AtomicU64| counter.load(Relaxed);
        let queue = |waits: &Waits| Queue { count: waits.count(), age_ms: waits.age().as_millis() as u64 };
        let rungs = lock(&self.rungs);
        Snapshot {
            decoded: get(&self.decoded),
            encoded: get(&self.encoded),
            duplicated: get(&self.duplicated),
            dropped_late: get(&self.dropped_late),
            dropped_past: get(&self.dropped_past),
            dropped_full: get(&self.dropped_full),
            ladder: (rungs.iter())
                .map(|rung| Rung { model: rung.name.clone(), frames: get(&rung.frames) })
                .collect(),
            rung: rungs.get(self.rung.load(Relaxed)).map_or(String::new(), |rung| rung.name.clone()),
            on_air: self.on_air.load(Relaxed),
            connections: get(&self.connections),
            clock_jumps: get(&self.clock_jumps),
            bytes: get(&self.bytes),
            latency_ms_p50: p50,
            latency_ms_p99: p99,
            latency_ms_max,
            busy_s: [&self.decode, &self.upscale, &self.encode].map(Busy::seconds),
            waiting: queue(&self.waiting),
            sinks: (self.sinks.iter())
                .map(|sink| Sink {
                    name: sink.name.clone(),
                    connected: sink.connected.load(Relaxed),
                    connections: get(&sink.connections),
                    packets: get(&sink.packets),
                    bytes: get(&sink.bytes),
                    dropped: get(&sink.dropped),
                    waiting: queue(&sink.waiting),
                })
                .collect(),
        }
    }
}

/// Latencies are counted by the millisecond, up to this many.
const LATENCY_MS_MAX: usize = 10_000;

/// Of all frames since the beginning.
pub(super) struct Latency {
    by_ms: Vec<u64>,
    max_ms: u64,
    pub sum_s: f64,
}

/// Which frames a reader has seen the latency of.
#[derive(Default)]
pub struct Mark(Vec<u64>);

impl Default for Latency {
    fn default() -> Latency {
        Latency { by_ms: vec![0; LATENCY_MS_MAX], max_ms: 0, sum_s: 0.0 }
    }
}

impl Latency {
    fn note(&mut self, latency: Duration) {
        let ms = latency.as_millis() as u64;
        self.by_ms[(ms as usize).min(LATENCY_MS_MAX - 1)] += 1;
        self.max_ms = self.max_ms.max(ms);
        self.sum_s += latency.as_secs_f64();
    }

    /// How many frames took less than so long.
    pub fn count_below(&self, ms: usize) -> u64 {
        self.by_ms[..ms.min(LATENCY_MS_MAX)].iter().sum()
    }

    /// Milliseconds that so large a part of all frames since the mark did not exceed; then the mark is here.
    fn quantiles_since<const N: usize>(&self, mark: &mut Mark, parts: [f64; N]) -> [u64; N] {
        mark.0.resize(LATENCY_MS_MAX, 0);
        let new: Vec<u64> = self.by_ms.iter().zip(&mark.0).map(|(now, then)| now - then).collect();
        mark.0.clone_from(&self.by_ms);
        let count: u64 = new.iter().sum();
        parts.map(|part| {
            let rank = (part * count as f64).ceil() as u64;
            let mut seen = 0;
            let ms = new.iter().position(|&count| {
                seen += count;
                seen >= rank
            });
            ms.unwrap_or(0) as u64
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_frames_since_each_readers_mark() {
        let (mut latency, mut mark, mut other) = (Latency::default(), Mark::default(), Mark::default());
        (1..=100).for_each(|ms| latency.note(Duration::from_millis(ms)));
        assert_eq!(latency.quantiles_since(&mut mark, [0.5, 0.99, 1.0]), [50, 99, 100]);
        latency.note(Duration::from_millis(7));
        assert_eq!(latency.quantiles_since(&mut mark, [0.5, 0.99]), [7, 7]);
        assert_eq!(latency.quantiles_since(&mut mark, [0.5]), [0]);
        latency.note(Duration::from_secs(100));
        assert_eq!((latency.quantiles_since(&mut mark, [0.5]), latency.max_ms), ([9_999], 100_000));
        assert_eq!(latency.quantiles_since(&mut other, [0.5, 1.0]), [50, 9_999]);
        assert_eq!((latency.count_below(8), latency.count_below(usize::MAX)), (8, 102));
    }

    #[test]
    fn outputs_that_look_alike_are_told_apart() {
        let stats = Stats::new(String::new(), ["a", "b", "a"].map(String::from).to_vec(), Duration::ZERO);
        let names: Vec<&str> = stats.sinks.iter().map(|sink| sink.name.as_str()).collect();
        assert_eq!(names, ["a", "b", "a (2)"]);
    }
}

//! Stats: what a relay did so far, counted where it happens and read by whoever shows it.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use serde::Serialize;

/// Counters of a relay.
pub struct Stats {
    pub(super) decoded: AtomicU64,
    pub(super) encoded: AtomicU64,
    /// By rung of the ladder, best first.
    pub(super) by_rung: Vec<(String, AtomicU64)>,
    pub(super) made: AtomicU64,
    /// No rung was fast enough.
    pub(super) dropped_late: AtomicU64,
    /// Ready after the output had gone on without them.
    pub(super) dropped_past: AtomicU64,
    /// The queue before the network was full.
    pub(super) dropped_full: AtomicU64,
    pub(super) on_air: AtomicBool,
    pub(super) connections: AtomicU64,
    pub(super) clock_jumps: AtomicU64,
    pub(super) sinks: Vec<SinkStats>,
    latency: Mutex<Latency>,
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
}

/// Of one moment.
#[derive(Serialize, Clone, Debug)]
pub struct Snapshot {
    /// Pictures that came out of the decoder.
    pub decoded: u64,
    /// Pictures that went out, made ones among them.
    pub encoded: u64,
    /// Made, for the source was silent.
    pub made: u64,
    /// Not made larger, for there was no time left.
    pub dropped_late: u64,
    /// Ready when the output had gone on without them.
    pub dropped_past: u64,
    /// For there was no room before the network.
    pub dropped_full: u64,
    /// Pictures by network, best first.
    pub ladder: Vec<Rung>,
    /// Whether the source is there.
    pub on_air: bool,
    /// How often it was found.
    pub connections: u64,
    /// How often its times jumped.
    pub clock_jumps: u64,
    /// From the arrival of a picture's packet to its coded picture, since the snapshot before.
    pub latency_ms_p50: u64,
    /// The same, of the slowest in a hundred.
    pub latency_ms_p99: u64,
    /// The slowest of all since the beginning.
    pub latency_ms_max: u64,
    /// In the order of the command line.
    pub sinks: Vec<Sink>,
}

/// A network and how many pictures took it.
#[derive(Serialize, Clone, Debug)]
pub struct Rung {
    /// Its name.
    pub model: String,
    /// How many.
    pub pictures: u64,
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
}

impl Stats {
    pub(super) fn new(rungs: &[String], sinks: Vec<String>) -> Stats {
        Stats {
            decoded: AtomicU64::default(),
            encoded: AtomicU64::default(),
            by_rung: rungs.iter().map(|name| (name.clone(), AtomicU64::default())).collect(),
            made: AtomicU64::default(),
            dropped_late: AtomicU64::default(),
            dropped_past: AtomicU64::default(),
            dropped_full: AtomicU64::default(),
            on_air: AtomicBool::default(),
            connections: AtomicU64::default(),
            clock_jumps: AtomicU64::default(),
            sinks: sinks.into_iter().map(|name| SinkStats { name, ..SinkStats::default() }).collect(),
            latency: Mutex::new(Latency::new()),
        }
    }

    pub(super) fn note_latency(&self, latency: Duration) {
        self.latency.lock().expect("nobody panics with it").note(latency);
    }

    /// All counters; the latency is that of pictures since the call before.
    pub fn snapshot(&self) -> Snapshot {
        let mut latency = self.latency.lock().expect("nobody panics with it");
        let [p50, p99] = latency.take_quantiles([0.5, 0.99]);
        let get = |counter: &AtomicU64| counter.load(Relaxed);
        Snapshot {
            decoded: get(&self.decoded),
            encoded: get(&self.encoded),
            made: get(&self.made),
            dropped_late: get(&self.dropped_late),
            dropped_past: get(&self.dropped_past),
            dropped_full: get(&self.dropped_full),
            ladder: (self.by_rung.iter())
                .map(|(model, pictures)| Rung { model: model.clone(), pictures: get(pictures) })
                .collect(),
            on_air: self.on_air.load(Relaxed),
            connections: get(&self.connections),
            clock_jumps: get(&self.clock_jumps),
            latency_ms_p50: p50,
            latency_ms_p99: p99,
            latency_ms_max: latency.max_ms,
            sinks: (self.sinks.iter())
                .map(|sink| Sink {
                    name: sink.name.clone(),
                    connected: sink.connected.load(Relaxed),
                    connections: get(&sink.connections),
                    packets: get(&sink.packets),
                    bytes: get(&sink.bytes),
                    dropped: get(&sink.dropped),
                })
                .collect(),
        }
    }
}

/// Latencies are counted by the millisecond, up to this many.
const LATENCY_MS_MAX: usize = 10_000;

struct Latency {
    by_ms: Vec<u32>,
    count: u32,
    max_ms: u64,
}

impl Latency {
    fn new() -> Latency {
        Latency { by_ms: vec![0; LATENCY_MS_MAX], count: 0, max_ms: 0 }
    }

    fn note(&mut self, latency: Duration) {
        let ms = latency.as_millis() as u64;
        self.by_ms[(ms as usize).min(LATENCY_MS_MAX - 1)] += 1;
        self.count += 1;
        self.max_ms = self.max_ms.max(ms);
    }

    /// Milliseconds that so large a part of all pictures did not exceed; then counts anew.
    fn take_quantiles<const N: usize>(&mut self, parts: [f64; N]) -> [u64; N] {
        let quantiles = parts.map(|part| {
            let rank = (part * f64::from(self.count)).ceil() as u32;
            let mut seen = 0;
            let ms = self.by_ms.iter().position(|&count| {
                seen += count;
                seen >= rank
            });
            ms.unwrap_or(0) as u64
        });
        self.by_ms.fill(0);
        self.count = 0;
        quantiles
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_pictures_since_the_last_time() {
        let mut latency = Latency::new();
        (1..=100).for_each(|ms| latency.note(Duration::from_millis(ms)));
        assert_eq!(latency.take_quantiles([0.5, 0.99, 1.0]), [50, 99, 100]);
        latency.note(Duration::from_millis(7));
        assert_eq!(latency.take_quantiles([0.5, 0.99]), [7, 7]);
        assert_eq!(latency.take_quantiles([0.5]), [0]);
        latency.note(Duration::from_secs(100));
        assert_eq!((latency.take_quantiles([0.5]), latency.max_ms), ([9_999], 100_000));
    }
}

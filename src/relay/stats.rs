//! Stats: the counters of a relay, updated by its stages and read by metrics, page and progress lines.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::gauges::{Busy, QueueGauge};
use super::latency::Latency;
use crate::error::Error;
use crate::frame::Frame;
use crate::sync::lock;

/// The output duplicates frames when none arrive: without one for this long, a stage hangs.
const STALLED_AFTER: Duration = Duration::from_secs(10);

/// Counters of a relay.
pub struct Stats {
    /// Ceiling on the latency.
    pub(super) latency_max: Duration,
    /// Address of the source without secrets.
    pub(super) source: String,
    pub(super) decoded: AtomicU64,
    pub(super) encoded: AtomicU64,
    pub(super) duplicated: AtomicU64,
    /// No network would have met the deadline.
    pub(super) dropped_late: AtomicU64,
    /// Upscaled after a duplicate had taken its place.
    pub(super) dropped_superseded: AtomicU64,
    /// The queue before the network was full.
    pub(super) dropped_overflow: AtomicU64,
    /// Time after which the relay gives a source up that is away.
    reconnect_max: Option<Duration>,
    /// Whether the source is connected, and since when it is or is not.
    source_connected: Mutex<(bool, Instant)>,
    pub(super) source_connections: AtomicU64,
    pub(super) source_clock_jumps: AtomicU64,
    /// Bytes of the source's packets.
    pub(super) source_bytes: AtomicU64,
    /// Every network that was ever on the ladder.
    pub(super) rungs: Mutex<Vec<Arc<RungStats>>>,
    /// Index in `rungs` of the last frame's network.
    pub(super) rung: AtomicUsize,
    pub(super) decode: Busy,
    pub(super) upscale: Busy,
    pub(super) encode: Busy,
    /// Frames that wait for the network or are in it.
    pub(super) queue: QueueGauge,
    pub(super) sinks: Vec<SinkStats>,
    pub(super) latency: Mutex<Latency>,
    /// Whether a thread of the relay has panicked.
    pub(super) has_panicked: AtomicBool,
    /// Whether the encode stage has a frame to encode, or to duplicate: once it has got the first one, always.
    pub(super) has_work_for_encode: AtomicBool,
    /// A stage hangs.
    hang: Mutex<Option<Error>>,
    /// Whether all is done that can be without that stage.
    is_abandoned: AtomicBool,
    last_frame: Mutex<Option<Instant>>,
    /// The last frame of the source.
    last_new_frame: Mutex<Option<Instant>>,
    preview: Mutex<Preview>,
    #[cfg(test)]
    panicking: Mutex<&'static str>,
    #[cfg(test)]
    hanging: Mutex<&'static str>,
}

/// Counters of one network.
pub(super) struct RungStats {
    pub name: String,
    pub frames: AtomicU64,
}

/// Counters of one sink.
#[derive(Default)]
pub(super) struct SinkStats {
    pub name: String,
    pub connected: AtomicBool,
    pub connections: AtomicU64,
    pub packets: AtomicU64,
    pub bytes: AtomicU64,
    /// Packets dropped: the sink was slow or not connected.
    pub dropped: AtomicU64,
    pub queue: QueueGauge,
    pub latency: Mutex<Latency>,
}

/// A frame before and after the network, kept on request.
#[derive(Default)]
struct Preview {
    is_requested: bool,
    /// Number of the pair, from 1 on.
    number: u64,
    /// LR and SR.
    pair: Option<[Frame; 2]>,
}

/// The counters at one moment.
#[derive(Serialize, Clone, Debug)]
#[non_exhaustive]
pub struct Snapshot {
    /// Frames that the decoder returned.
    pub decoded: u64,
    /// Frames that were encoded, duplicates included.
    pub encoded: u64,
    /// Frames duplicated while the source was silent.
    pub duplicated: u64,
    /// Frames dropped: no network would have met the deadline.
    pub dropped_late: u64,
    /// Frames dropped: upscaled after a duplicate had taken their place.
    pub dropped_superseded: u64,
    /// Frames dropped: the queue before the network was full.
    pub dropped_overflow: u64,
    /// Frames by network, best first.
    pub ladder: Vec<Rung>,
    /// Network of the last frame; empty before the first one.
    pub model: String,
    /// Whether the source is connected.
    pub source_connected: bool,
    /// Number of times the source was connected.
    pub source_connections: u64,
    /// Number of jumps of the source's timestamps.
    pub source_clock_jumps: u64,
    /// Bytes received from the source.
    pub source_bytes: u64,
    /// Median time from the arrival of a frame's packet until a sink has taken the encoded frame, of all sinks since the
    /// previous snapshot.
    pub latency_ms_p50: u64,
    /// 99th percentile of the same.
    pub latency_ms_p99: u64,
    /// Maximum of all frames so far.
    pub latency_ms_max: u64,
    /// Time that each stage was busy.
    pub busy_s: BusySeconds,
    /// Frames that wait for the network or are in it.
    pub queue: Queue,
    /// Counters of the sinks, in the order of the options.
    pub sinks: Vec<Sink>,
}

/// A network and its frames.
#[derive(Serialize, Clone, Debug)]
pub struct Rung {
    /// Name of the network.
    pub model: String,
    /// Number of frames.
    pub frames: u64,
}

/// Time that each stage was busy, in seconds.
#[derive(Serialize, Clone, Copy, Debug)]
#[non_exhaustive]
pub struct BusySeconds {
    /// Decoder.
    pub decode: f64,
    /// Networks.
    pub upscale: f64,
    /// Encoder.
    pub encode: f64,
}

/// State of a queue.
#[derive(Serialize, Clone, Copy, Debug)]
pub struct Queue {
    /// Number of entries.
    pub length: u64,
    /// Age of the oldest entry in milliseconds.
    pub age_ms: u64,
}

impl Queue {
    fn of(gauge: &QueueGauge) -> Queue {
        Queue { length: gauge.length(), age_ms: gauge.age().as_millis() as u64 }
    }
}

/// Counters of one sink.
#[derive(Serialize, Clone, Debug)]
#[non_exhaustive]
pub struct Sink {
    /// Address without secrets.
    pub name: String,
    /// Whether it is connected.
    pub connected: bool,
    /// Number of times it was connected.
    pub connections: u64,
    /// Packets written.
    pub packets: u64,
    /// Bytes written.
    pub bytes: u64,
    /// Packets dropped: the sink was slow or not connected.
    pub dropped: u64,
    /// Packets that wait for the sink.
    pub queue: Queue,
    /// 99th percentile of the time from the arrival of a frame's packet until the sink has taken the encoded frame, since
    /// the previous snapshot.
    pub latency_ms_p99: u64,
}

impl Stats {
    /// Counters of a relay; the names hold no secrets.
    pub(super) fn new(
        source: String,
        sinks: Vec<String>,
        latency_max: Duration,
        reconnect_max: Option<Duration>,
    ) -> Stats {
        let name = |i: usize| match sinks[..i].iter().filter(|before| **before == sinks[i]).count() {
            0 => sinks[i].clone(),
            // Two stream keys of one server look alike without their secrets.
            before => format!("{} ({})", sinks[i], before + 1),
        };
        let sink = |i| SinkStats { name: name(i), ..SinkStats::default() };
        Stats {
            latency_max,
            source,
            decoded: AtomicU64::default(),
            encoded: AtomicU64::default(),
            duplicated: AtomicU64::default(),
            dropped_late: AtomicU64::default(),
            dropped_superseded: AtomicU64::default(),
            dropped_overflow: AtomicU64::default(),
            reconnect_max,
            source_connected: Mutex::new((false, Instant::now())),
            source_connections: AtomicU64::default(),
            source_clock_jumps: AtomicU64::default(),
            source_bytes: AtomicU64::default(),
            rungs: Mutex::default(),
            rung: AtomicUsize::default(),
            decode: Busy::default(),
            upscale: Busy::default(),
            encode: Busy::default(),
            queue: QueueGauge::default(),
            sinks: (0..sinks.len()).map(sink).collect(),
            latency: Mutex::new(Latency::default()),
            has_panicked: AtomicBool::default(),
            has_work_for_encode: AtomicBool::default(),
            hang: Mutex::default(),
            is_abandoned: AtomicBool::default(),
            last_frame: Mutex::default(),
            last_new_frame: Mutex::default(),
            preview: Mutex::default(),
            #[cfg(test)]
            panicking: Mutex::default(),
            #[cfg(test)]
            hanging: Mutex::default(),
        }
    }

    /// Makes the next thread of this name panic.
    #[cfg(test)]
    pub(super) fn ask_for_panic(&self, thread: &'static str) {
        *lock(&self.panicking) = thread;
    }

    #[cfg(test)]
    pub(super) fn panic_if_asked(&self, thread: &str) {
        assert!(*lock(&self.panicking) != thread, "as the test asks");
    }

    /// Makes the next thread of this name hang until another name is given.
    #[cfg(test)]
    pub(super) fn ask_for_hang(&self, thread: &'static str) {
        *lock(&self.hanging) = thread;
    }

    #[cfg(test)]
    pub(super) fn hang_if_asked(&self, thread: &str) {
        while *lock(&self.hanging) == thread {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Returns index and counters of a network, which are created for a new one.
    pub(super) fn rung_of(&self, name: &str) -> (usize, Arc<RungStats>) {
        let mut rungs = lock(&self.rungs);
        let index = rungs.iter().position(|rung| rung.name == name).unwrap_or_else(|| {
            rungs.push(Arc::new(RungStats { name: name.to_owned(), frames: AtomicU64::default() }));
            rungs.len() - 1
        });
        (index, rungs[index].clone())
    }

    /// Notes how long a frame took to a sink.
    pub(super) fn note_latency(&self, sink: &SinkStats, latency: Duration) {
        lock(&self.latency).note(latency);
        lock(&sink.latency).note(latency);
    }

    /// Notes an encoded frame, of the source or a duplicate.
    pub(super) fn note_frame(&self, is_of_source: bool) {
        self.encoded.fetch_add(1, Relaxed);
        let now = Some(Instant::now());
        *lock(&self.last_frame) = now;
        if is_of_source {
            *lock(&self.last_new_frame) = now;
        }
    }

    pub(super) fn set_source_connected(&self, is_connected: bool) {
        let mut connected = lock(&self.source_connected);
        if connected.0 != is_connected {
            *connected = (is_connected, Instant::now());
        }
    }

    pub(super) fn is_source_connected(&self) -> bool {
        lock(&self.source_connected).0
    }

    /// Notes that a stage hangs.
    pub(super) fn set_hang(&self, error: Error) {
        lock(&self.hang).get_or_insert(error);
    }

    /// Notes that all is done that can be without the stage that hangs.
    pub(super) fn abandon(&self) {
        self.is_abandoned.store(true, Relaxed);
    }

    /// Why the process has to be ended: a stage hangs and may do so for ever, and the sinks are closed.
    pub fn abandoned(&self) -> Option<Error> {
        lock(&self.hang).clone().filter(|_| self.is_abandoned.load(Relaxed))
    }

    /// Why the relay does not work as of `now`; `None` if it does, waits for its source, or holds a frame without it.
    pub(super) fn problem(&self, now: Instant) -> Option<String> {
        if self.has_panicked.load(Relaxed) {
            return Some("a thread has panicked".into());
        }
        if let Some(hang) = &*lock(&self.hang) {
            return Some(hang.to_string());
        }
        let silence = |since: Instant, max: Duration| {
            let silence = now.saturating_duration_since(since);
            (silence > max).then_some(silence.as_secs())
        };
        if let Some(seconds) = lock(&self.last_frame).and_then(|last| silence(last, STALLED_AFTER)) {
            return Some(format!("no frame was encoded for {seconds} s"));
        }
        let (is_connected, since) = *lock(&self.source_connected);
        if !is_connected {
            // The relay ends then, unless its source thread hangs.
            let seconds = silence(since, self.reconnect_max?.saturating_add(STALLED_AFTER))?;
            return Some(format!("the source is away for {seconds} s, longer than --reconnect-max"));
        }
        let since = lock(&self.last_new_frame).map_or(since, |last| last.max(since));
        let seconds = silence(since, STALLED_AFTER)?;
        Some(format!("the source is connected and gave no frame for {seconds} s"))
    }

    /// Requests a preview. Returns the number of the last one, 0 before the first.
    pub(super) fn request_preview(&self) -> u64 {
        let mut preview = lock(&self.preview);
        preview.is_requested = true;
        preview.number
    }

    pub(super) fn is_preview_requested(&self) -> bool {
        lock(&self.preview).is_requested
    }

    pub(super) fn set_preview(&self, lr: Frame, sr: Frame) {
        let mut preview = lock(&self.preview);
        *preview = Preview { is_requested: false, number: preview.number + 1, pair: Some([lr, sr]) };
    }

    /// The LR (0) or SR (1) frame of the last preview, and its number.
    pub(super) fn preview(&self, which: usize) -> Option<(u64, Frame)> {
        let preview = lock(&self.preview);
        preview.pair.as_ref().map(|pair| (preview.number, pair[which].share()))
    }

    /// Reads all counters. The latency is that of the frames since the previous snapshot with this mark.
    pub fn snapshot(&self, mark: &mut LatencyMark) -> Snapshot {
        let latency = lock(&self.latency);
        let [p50, p99] = latency.quantiles_since(&mut mark.all, [0.5, 0.99]);
        mark.by_sink.resize(self.sinks.len(), Vec::new());
        let latency_ms_max = latency.max_ms;
        drop(latency);
        let get = |counter: &AtomicU64| counter.load(Relaxed);
        let rungs = lock(&self.rungs);
        Snapshot {
            decoded: get(&self.decoded),
            encoded: get(&self.encoded),
            duplicated: get(&self.duplicated),
            dropped_late: get(&self.dropped_late),
            dropped_superseded: get(&self.dropped_superseded),
            dropped_overflow: get(&self.dropped_overflow),
            ladder: (rungs.iter())
                .map(|rung| Rung { model: rung.name.clone(), frames: get(&rung.frames) })
                .collect(),
            model: rungs.get(self.rung.load(Relaxed)).map_or(String::new(), |rung| rung.name.clone()),
            source_connected: self.is_source_connected(),
            source_connections: get(&self.source_connections),
            source_clock_jumps: get(&self.source_clock_jumps),
            source_bytes: get(&self.source_bytes),
            latency_ms_p50: p50,
            latency_ms_p99: p99,
            latency_ms_max,
            busy_s: BusySeconds {
                decode: self.decode.seconds(),
                upscale: self.upscale.seconds(),
                encode: self.encode.seconds(),
            },
            queue: Queue::of(&self.queue),
            sinks: self.sinks.iter().zip(&mut mark.by_sink).map(|(sink, mark)| sink.read(mark)).collect(),
        }
    }
}

impl SinkStats {
    fn read(&self, mark: &mut Vec<u64>) -> Sink {
        let [latency_ms_p99] = lock(&self.latency).quantiles_since(mark, [0.99]);
        Sink {
            name: self.name.clone(),
            connected: self.connected.load(Relaxed),
            connections: self.connections.load(Relaxed),
            packets: self.packets.load(Relaxed),
            bytes: self.bytes.load(Relaxed),
            dropped: self.dropped.load(Relaxed),
            queue: Queue::of(&self.queue),
            latency_ms_p99,
        }
    }
}

/// The frames whose latency a reader has already seen.
#[derive(Default)]
pub struct LatencyMark {
    all: Vec<u64>,
    by_sink: Vec<Vec<u64>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relay_is_healthy_while_new_frames_go_out_or_its_source_is_away() {
        let (latency_max, reconnect_max) = (Duration::from_secs(2), Some(Duration::from_secs(100)));
        let stats = Stats::new("in".into(), vec![], latency_max, reconnect_max);
        let later = |seconds| Instant::now() + Duration::from_secs(seconds);
        assert_eq!(stats.problem(later(100)), None, "it waits for its source");
        let away = "the source is away for 112 s, longer than --reconnect-max";
        assert_eq!(stats.problem(later(112)).unwrap(), away);
        stats.set_source_connected(true);
        assert_eq!(stats.problem(later(5)), None);
        assert_eq!(stats.problem(later(12)).unwrap(), "the source is connected and gave no frame for 12 s");
        stats.note_frame(true);
        assert_eq!(stats.problem(later(5)), None);
        assert_eq!(stats.problem(later(12)).unwrap(), "no frame was encoded for 12 s");
        // A frame is held while the source is connected, and while it is away.
        *lock(&stats.last_frame) = Some(later(12));
        assert!(stats.problem(later(12)).unwrap().starts_with("the source is connected"));
        stats.set_source_connected(false);
        assert_eq!(stats.problem(later(12)), None);
        *lock(&stats.last_frame) = Some(later(112));
        assert_eq!(stats.problem(later(112)).unwrap(), away);
        stats.set_hang(Error::new("the encode stage", "hangs", ""));
        assert_eq!(stats.problem(later(0)).unwrap(), "the encode stage: hangs");
        stats.has_panicked.store(true, Relaxed);
        assert_eq!(stats.problem(later(0)).unwrap(), "a thread has panicked");
    }

    #[test]
    fn outputs_that_look_alike_have_distinct_names() {
        let stats =
            Stats::new(String::new(), ["a", "b", "a"].map(String::from).to_vec(), Duration::ZERO, None);
        let names: Vec<&str> = stats.sinks.iter().map(|sink| sink.name.as_str()).collect();
        assert_eq!(names, ["a", "b", "a (2)"]);
    }
}

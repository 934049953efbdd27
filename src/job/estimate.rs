//! Estimate: what a run is going to take, measured on short spans of the input's own frames. They go through the stages of
//! a run, whose packets are counted and dropped.

use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;
use tracing::debug;
use tracing::subscriber::{NoSubscriber, with_default};

use super::interrupt::Interrupt;
use super::options::Options;
use super::parts::{OpenAt, Parts};
use super::progress::Progress;
use crate::error::{Error, ErrorKind, Result};
use crate::media::{Cut, Input, Packet, Plan, SEGMENT_FRAMES};
use crate::pipeline::{ResumeState, Sink, Store};
use crate::sync::lock;

/// Number of spans, spread evenly.
const SPANS: u64 = 3;
/// Frames of a span at most: more than x264 and x265 look ahead.
const SPAN_FRAMES_MAX: u64 = 64;
/// Frames of a span at least. A shorter input is measured completely.
const SPAN_FRAMES_MIN: u64 = 12;
/// Time for a span at most, besides that of the frames in flight.
const SPAN_TIME: Duration = Duration::from_secs(5);
const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// Length of the parts whose copied packets are counted, in seconds; a shorter input is counted completely.
const COPIED_S: f64 = 10.0;

/// What a run is going to take.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Estimate {
    /// Frames to encode; `None` where the container does not state how long it is, and with it what depends on them.
    pub frames: Option<u64>,
    /// Frames per second.
    pub fps: f64,
    /// Time of the run in seconds.
    pub seconds: Option<f64>,
    /// Size of the output in bytes.
    pub output_bytes: Option<u64>,
    /// Size of its video.
    pub video_bytes: Option<u64>,
    /// Frames that were measured.
    pub measured_frames: u64,
    /// Time that they took, in seconds.
    pub measured_seconds: f64,
}

/// What was measured.
#[derive(Default)]
struct Measured {
    spans: u64,
    frames: u64,
    seconds: f64,
    packets: Packets,
}

/// Packets of the video.
#[derive(Default)]
struct Packets {
    count: u64,
    bytes: u64,
    keys: u64,
    key_bytes: u64,
}

impl Estimate {
    /// Measures a job that is opened as `parts`.
    pub(super) fn measure(options: &Options, parts: Parts, interrupt: &Interrupt) -> Result<Estimate> {
        let (summary, engine) = (parts.summary.clone(), Some(parts.engine.kind));
        let growth = if summary.input_fps > 0.0 { summary.fps / summary.input_fps } else { 1.0 };
        let frames = (summary.frames_expected as f64 * growth).round() as u64;
        let frames = if parts.output.is_one_image() { 1 } else { frames };
        let duration_s = frames as f64 / summary.fps.max(f64::MIN_POSITIVE);
        let is_read_twice = options.is_read_twice()?;
        let other_bytes = match is_read_twice {
            true => other_bytes(options, &parts.input, &parts.plan, duration_s)?,
            false => parts.plan.converted_bit_rate() / 8.0 * duration_s,
        };
        let is_segmented = parts.output.is_segmented();
        let mut measured = Measured::default();
        if !is_read_twice || frames <= 2 * SPANS * SPAN_FRAMES_MIN {
            measured.add_span(options, parts, interrupt)?;
        } else {
            // Their memory is free for the spans.
            drop(parts);
            let length_s = (frames / (2 * SPANS)).min(SPAN_FRAMES_MAX) as f64 / summary.fps;
            let mut failure = None;
            for from_s in starts(options.from_s.unwrap_or(0.0), duration_s, length_s) {
                let span = Options { from_s: Some(from_s), to_s: Some(from_s + length_s), ..options.clone() };
                let at = OpenAt { overwrite: true, engine, ..OpenAt::default() };
                let opened = Parts::open_again(&span, at, interrupt);
                let added = opened.and_then(|parts| measured.add_span(&span, parts, interrupt));
                // Where the input is shorter than it states, the other spans say enough.
                match added {
                    Err(error) if error.kind() == ErrorKind::Interrupted => return Err(error),
                    Err(error) => failure = Some(error),
                    Ok(()) => {}
                }
            }
            if let (0, Some(error)) = (measured.frames, failure) {
                return Err(error);
            }
        }
        let Measured { frames: measured_frames, seconds, .. } = measured;
        let fps = measured_frames as f64 / seconds.max(f64::MIN_POSITIVE);
        let known = (frames > 0).then_some(frames);
        let video = |frames: u64| (measured.bytes_per_frame(is_segmented) * frames as f64) as u64;
        let rounded = |number: f64| (number * 1e3).round() / 1e3;
        Ok(Estimate {
            frames: known,
            fps: rounded(fps),
            seconds: known.map(|frames| rounded(frames as f64 / fps)),
            output_bytes: known.map(|frames| video(frames) + other_bytes as u64),
            video_bytes: known.map(video),
            measured_frames,
            measured_seconds: rounded(seconds),
        })
    }
}

/// Starts of the spans of `length_s` seconds.
fn starts(from_s: f64, duration_s: f64, length_s: f64) -> impl Iterator<Item = f64> {
    let middle = move |span: u64| from_s + duration_s * (2 * span + 1) as f64 / (2 * SPANS) as f64;
    (0..SPANS).map(move |span| middle(span) - length_s / 2.0)
}

impl Measured {
    /// Runs the stages on the frames of `parts`, for [`SPAN_TIME`] at most.
    fn add_span(&mut self, options: &Options, parts: Parts, interrupt: &Interrupt) -> Result<()> {
        let packets = Arc::new(Mutex::new(Packets::default()));
        let store = Box::new(Counter { packets: packets.clone() });
        let sink = |_| Sink::Segments {
            store,
            transcoders: None,
            resume_state: ResumeState::default(),
            cache: None,
        };
        let (stop, (end, ended)) = (Interrupt::default(), mpsc::channel::<()>());
        let outcome = thread::scope(|scope| {
            let stop = &stop;
            scope.spawn(move || {
                let started = Instant::now();
                while ended.recv_timeout(POLL_INTERVAL) == Err(mpsc::RecvTimeoutError::Timeout) {
                    if interrupt.is_set() || started.elapsed() > SPAN_TIME {
                        stop.set();
                    }
                }
            });
            let outcome = parts.run(options, sink, &Progress::default(), stop);
            drop(end);
            outcome
        });
        if interrupt.is_set() {
            let error = Error::new("the measurement", "was interrupted", "run it again");
            return Err(error.with_kind(ErrorKind::Interrupted));
        }
        let report = outcome?.report;
        debug!("{} frames in {:.3} s, {:.1} fps", report.frames.encoded, report.seconds, report.fps);
        self.spans += 1;
        self.frames += report.frames.encoded;
        self.seconds += report.seconds;
        self.packets.add(&lock(&packets));
        Ok(())
    }

    /// Mean size of a packet in a run: one begins each segment, others where the encoder sees a cut. Those that begin a
    /// span do not count.
    fn bytes_per_frame(&self, is_segmented: bool) -> f64 {
        let Packets { count, bytes, keys, key_bytes } = self.packets;
        let others = count - keys;
        let mean = |bytes: u64, count: u64| bytes as f64 / count.max(1) as f64;
        if keys == 0 || others == 0 {
            return mean(bytes, count);
        }
        let begins = if is_segmented { 1.0 / SEGMENT_FRAMES as f64 } else { 0.0 };
        let share = (begins + mean(keys.saturating_sub(self.spans), count)).min(1.0);
        mean(key_bytes, keys) * share + mean(bytes - key_bytes, others) * (1.0 - share)
    }
}

impl Packets {
    fn add(&mut self, other: &Packets) {
        self.count += other.count;
        self.bytes += other.bytes;
        self.keys += other.keys;
        self.key_bytes += other.key_bytes;
    }
}

/// A store that counts packets and keeps none.
struct Counter {
    packets: Arc<Mutex<Packets>>,
}

impl Store for Counter {
    fn write(&mut self, packet: Packet) -> Result<()> {
        let mut packets = lock(&self.packets);
        let bytes = packet.size() as u64;
        packets.count += 1;
        packets.bytes += bytes;
        if packet.is_key() {
            packets.keys += 1;
            packets.key_bytes += bytes;
        }
        Ok(())
    }

    fn close(&mut self, _: Cut) -> Result<()> {
        Ok(())
    }
}

/// Bytes of the streams besides the video, of which those that are copied are counted in parts of the input.
fn other_bytes(options: &Options, input: &Input, plan: &Plan, duration_s: f64) -> Result<f64> {
    let converted = plan.converted_bit_rate() / 8.0 * duration_s + plan.attached_bytes(input) as f64;
    if !plan.copies_any() {
        return Ok(converted);
    }
    let is_short = duration_s <= 2.0 * SPANS as f64 * COPIED_S;
    let parts: Vec<_> = match is_short {
        true => vec![(options.from_s, options.to_s)],
        false => starts(options.from_s.unwrap_or(0.0), duration_s, COPIED_S)
            .map(|from_s| (Some(from_s), Some(from_s + COPIED_S)))
            .collect(),
    };
    let counted_s = if is_short { duration_s } else { SPANS as f64 * COPIED_S };
    let mut bytes = 0;
    for (from_s, to_s) in parts {
        let part = input.trim(from_s, to_s);
        let mut source = with_default(NoSubscriber::default(), || input.reopen(part))?;
        while let Some(packet) = source.next_packet()? {
            if plan.copies(packet.stream) && part.contains(packet.dts_us()) {
                bytes += packet.size() as u64;
            }
        }
    }
    Ok(converted + bytes as f64 / counted_s.max(f64::MIN_POSITIVE) * duration_s)
}

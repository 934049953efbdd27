//! Relay: a stream that comes in over a network goes out larger, to several places, and not later than it may.
//!
//! In: an opened [`Relay`]. Out: its sinks, for as long as the source or the user want it. It knows no layer and no
//! container.
//!
//! ```text
//! source ─frames→ ladder ─frames→ pacer, encode ─packets→ sinks
//!    └──────────────────── audio ───────────┘
//! ```
//!
//! The source is read and decoded at its own pace. A frame has to be coded at the latest a given time after its packet came:
//! the [`ladder`] takes the best network that can do it, and drops what none can; this is the only place where frames are
//! dropped for being late. The [`pacer`] makes frames when none come. Each sink has a thread and a ring of packets.

mod encode;
mod http;
pub mod ladder;
mod metrics;
pub mod pacer;
mod queue;
mod sinks;
mod source;
mod stats;
mod upscale;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::engine::{EngineSpec, Network};
use crate::error::{Error, Result};
use crate::media::{Encoder, LiveStreams, redacted};
use crate::sync::lock;
use encode::EncodeIo;
use pacer::Pacer;
use queue::{AudioQueue, LiveQueue};
use sinks::Lane;
use source::SourceIo;
use upscale::UpscaleIo;

pub use http::{Server, ServerEnd};
pub use source::{Session, SourceSpec};
pub use stats::{Mark, Queue, Rung, Sink, Snapshot, Stats};

/// Larger frames ahead of the encoder: more would only be later.
const FRAMES_TO_ENCODE: usize = 1;

/// What goes out when nothing comes in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OnLoss {
    /// The last frame.
    Hold,
    /// Black.
    Black,
}

/// All parts of a relay, opened but for its sinks.
pub struct Relay {
    /// Where it comes from.
    pub source: SourceSpec,
    /// The source, as it was found.
    pub first: Session,
    /// With the ladder's networks, best first.
    pub engine: EngineSpec,
    /// For frames of the engine's output.
    pub encoder: Encoder,
    /// What every sink gets.
    pub streams: LiveStreams,
    /// Where it goes.
    pub sinks: Vec<String>,
    /// From a packet's arrival to its coded frame.
    pub latency_max: Duration,
    /// What goes out when nothing comes in.
    pub on_loss: OnLoss,
}

/// Counters for a relay from there to there.
pub fn stats(source: &str, sinks: &[String], latency_max: Duration) -> Arc<Stats> {
    let sinks = sinks.iter().map(|sink| redacted(sink)).collect();
    Arc::new(Stats::new(redacted(source), sinks, latency_max))
}

/// What is changed while a relay runs.
#[derive(Default)]
pub struct Control {
    networks: Mutex<Option<Vec<Network>>>,
    /// 0 when it stays as it is.
    bit_rate: AtomicU64,
}

impl Control {
    /// From now on the ladder has these networks, once they were timed.
    pub fn set_networks(&self, networks: Vec<Network>) {
        *lock(&self.networks) = Some(networks);
    }

    /// From the next frame on the encoder spends so many bits a second.
    pub fn set_bit_rate(&self, bit_rate: u64) {
        self.bit_rate.store(bit_rate, Relaxed);
    }

    fn take_networks(&self) -> Option<Vec<Network>> {
        lock(&self.networks).take()
    }

    fn take_bit_rate(&self) -> Option<u64> {
        Some(self.bit_rate.swap(0, Relaxed)).filter(|&bit_rate| bit_rate > 0)
    }
}

/// The output's time, which source and encoder share.
struct Clock(Mutex<Pacer>);

impl Clock {
    fn now_us(&self) -> i64 {
        lock(&self.0).now_us(Instant::now())
    }

    fn is_past(&self, time_us: i64) -> bool {
        lock(&self.0).is_past(time_us)
    }
}

/// Runs the relay until its source ends for good, or `stop` is set.
pub fn run(relay: Relay, control: &Control, stats: &Stats, stop: &Arc<AtomicBool>) -> Result<()> {
    let Relay { source, first, engine, encoder, streams, sinks, latency_max, on_loss } = relay;
    let period = Duration::from_secs_f64(1.0 / first.input.video().fps());
    let (frames, audio) = (LiveQueue::default(), AudioQueue::default());
    let clock = Clock(Mutex::new(Pacer::new(period)));
    let budget = Budget { latency_max, tail_us: AtomicU64::new(0) };
    let silence = streams.silence();
    let (output, ready) = sync_channel(FRAMES_TO_ENCODE);
    let (lanes, rings): (Vec<Lane>, Vec<_>) = sinks.iter().map(|_| Lane::new()).unzip();
    let (failure, unwhole) = (Mutex::new(None), Mutex::new(None));
    let first_of = |errors: &Mutex<Option<Error>>, error: Error| {
        lock(&errors).get_or_insert(error);
    };
    // One part that fails ends all.
    let noted = |result: Result<()>| {
        if let Err(error) = result {
            first_of(&failure, error);
            stop.store(true, Relaxed);
        }
    };
    thread::scope(|scope| {
        let (frames, audio, clock, budget, noted) = (&frames, &audio, &clock, &budget, &noted);
        let (first_of, unwhole) = (&first_of, &unwhole);
        for ((sink, ring), stats) in sinks.iter().zip(rings).zip(&stats.sinks) {
            let streams = streams.clone();
            // One that fails ends no other.
            scope.spawn(move || {
                sinks::run(sink, &streams, &ring, stats).map_err(|error| first_of(unwhole, error))
            });
        }
        scope.spawn(move || {
            noted(upscale::run(engine, &UpscaleIo { frames, output, budget, control, stats, period }));
            // Nobody waits for a place that none will take.
            frames.close();
        });
        scope.spawn(move || {
            let io = EncodeIo { ready, audio, lanes, clock, budget, control, stats };
            noted(encode::run(encoder, on_loss, silence, io));
        });
        let io = SourceIo { frames, audio, streams: &streams, clock, stats, stop };
        noted(source::run(&source, first, &io));
        frames.close();
    });
    let errors = [failure, unwhole].map(|error| error.into_inner().expect("no part panicked"));
    errors.into_iter().flatten().next().map_or(Ok(()), Err)
}

/// How long a frame may take, and what of that the encoder needs.
struct Budget {
    latency_max: Duration,
    tail_us: AtomicU64,
}

impl Budget {
    /// When the network has to have done with a frame that came then.
    fn deadline(&self, arrived: Instant) -> Instant {
        let tail = Duration::from_micros(self.tail_us.load(Relaxed));
        arrived + self.latency_max.saturating_sub(tail)
    }

    /// A frame took so long from the network to its packet. What is rare is soon forgotten, not at once.
    fn note_tail(&self, tail: Duration) {
        let kept_us = self.tail_us.load(Relaxed) * 49 / 50;
        self.tail_us.store(kept_us.max(tail.as_micros() as u64 * 5 / 4), Relaxed);
    }
}

/// What a relay needs at least: somewhere to go, and time.
pub fn check(sinks: &[String], latency_max: Duration) -> Result<()> {
    if latency_max.is_zero() {
        return Err(Error::new("--latency-max", "is no time at all", "write it like 2s or 500ms"));
    }
    match sinks.iter().enumerate().find(|(i, sink)| sinks[..*i].contains(sink)) {
        Some((_, twice)) => Err(Error::new(redacted(twice), "is named twice", "name each sink once")),
        None => Ok(()),
    }
}

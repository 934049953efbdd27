//! Relay: a stream that comes in over a network goes out larger, to several places, and not later than it may.
//!
//! In: an opened [`Relay`]. Out: its sinks, for as long as the source or the user want it. It knows no layer and no
//! container.
//!
//! ```text
//! source ─pictures→ ladder ─pictures→ pacer, encode ─packets→ sinks
//!    └──────────────────── sound ───────────┘
//! ```
//!
//! The source is read and decoded at its own pace. A picture has to be coded at the latest a given time after its packet came:
//! the [`ladder`] takes the best network that can do it, and drops what none can; this is the only place where pictures are
//! dropped for being late. The [`pacer`] makes pictures when none come. Each sink has a thread and a ring of packets.

pub mod ladder;
pub mod pacer;
mod queue;
mod sinks;
mod source;
mod stats;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use tracing::info;

use crate::engine::{Engine, EngineSpec, NetworkId, blacken};
use crate::error::{Error, Result};
use crate::media::{Coded, Encoder, LiveStreams, PicturePool, Silence, redacted};
use crate::picture::{Picture, PictureTime};
use ladder::Ladder;
use pacer::Pacer;
use queue::{LiveQueue, SoundQueue, Waiting};
use sinks::{Lane, Shared};
use source::SourceIo;

pub use source::{Session, SourceSpec};
pub use stats::{Rung, Sink, Snapshot, Stats};

/// Larger pictures ahead of the encoder: more would only be later.
const PICTURES_TO_ENCODE: usize = 1;
/// How often each network is tried at the start.
const TRIALS: usize = 3;

/// What goes out when nothing comes in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OnLoss {
    /// The last picture.
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
    /// For pictures of the engine's output.
    pub encoder: Encoder,
    /// What every sink gets.
    pub streams: LiveStreams,
    /// Where it goes.
    pub sinks: Vec<String>,
    /// From a packet's arrival to its coded picture.
    pub latency_max: Duration,
    /// What goes out when nothing comes in.
    pub on_loss: OnLoss,
}

impl Relay {
    /// Counters for a relay with these rungs and sinks.
    pub fn stats(rungs: &[String], sinks: &[String]) -> Stats {
        Stats::new(rungs, sinks.iter().map(|sink| redacted(sink)).collect())
    }
}

/// The output's time, which source and encoder share.
struct Clock(Mutex<Pacer>);

impl Clock {
    fn now_us(&self) -> i64 {
        self.0.lock().expect("nobody panics with it").now_us(Instant::now())
    }
}

/// Runs the relay until its source ends for good, or `stop` is set.
pub fn run(relay: Relay, stats: &Stats, stop: &Arc<AtomicBool>) -> Result<()> {
    let Relay { source, first, engine, encoder, streams, sinks, latency_max, on_loss } = relay;
    let period = Duration::from_secs_f64(1.0 / f64::from(first.input.video().frame_rate));
    let (pictures, sound) = (LiveQueue::default(), SoundQueue::default());
    let clock = Clock(Mutex::new(Pacer::new(period)));
    let budget = Budget { latency_max, tail_us: AtomicU64::new(0) };
    let pool = PicturePool::new(encoder.geometry());
    let silence = streams.silence();
    let (to_encode, from_upscale) = sync_channel(PICTURES_TO_ENCODE);
    let (lanes, rings): (Vec<Lane>, Vec<_>) = sinks.iter().map(|_| Lane::new()).unzip();
    let (failure, unwhole) = (Mutex::new(None), Mutex::new(None));
    let first_of = |errors: &Mutex<Option<Error>>, error: Error| {
        errors.lock().expect("nobody panics with it").get_or_insert(error);
    };
    // One part that fails ends all.
    let noted = |result: Result<()>| {
        if let Err(error) = result {
            first_of(&failure, error);
            stop.store(true, Relaxed);
        }
    };
    thread::scope(|scope| {
        let (pictures, sound, clock, budget, noted) = (&pictures, &sound, &clock, &budget, &noted);
        let (first_of, unwhole) = (&first_of, &unwhole);
        for ((sink, ring), stats) in sinks.iter().zip(rings).zip(&stats.sinks) {
            let streams = streams.clone();
            // One that fails ends no other.
            scope.spawn(move || {
                sinks::run(sink, &streams, &ring, stats).map_err(|error| first_of(unwhole, error))
            });
        }
        scope.spawn(move || {
            noted(upscale(engine, period, pictures, &to_encode, (budget, pool), stats));
            // Nobody waits for a place that none will take.
            pictures.close();
        });
        scope.spawn(move || {
            let io = EncodeIo { ready: from_upscale, sound, lanes, clock, budget, stats };
            noted(encode(encoder, on_loss, silence, io));
        });
        let io = SourceIo { pictures, sound, streams: &streams, clock, stats, stop };
        noted(source::run(&source, first, &io));
        pictures.close();
    });
    let errors = [failure, unwhole].map(|error| error.into_inner().expect("no part panicked"));
    errors.into_iter().flatten().next().map_or(Ok(()), Err)
}

/// How long a picture may take, and what of that the encoder needs.
struct Budget {
    latency_max: Duration,
    tail_us: AtomicU64,
}

impl Budget {
    /// When the network has to have done with a picture that came then.
    fn deadline(&self, arrived: Instant) -> Instant {
        let tail = Duration::from_micros(self.tail_us.load(Relaxed));
        arrived + self.latency_max.saturating_sub(tail)
    }

    /// A picture took so long from the network to its packet. What is rare is soon forgotten, not at once.
    fn note_tail(&self, tail: Duration) {
        let kept_us = self.tail_us.load(Relaxed) * 49 / 50;
        self.tail_us.store(kept_us.max(tail.as_micros() as u64 * 5 / 4), Relaxed);
    }
}

/// A larger picture.
struct Ready {
    sr: Picture,
    time_us: i64,
    arrived: Instant,
    made: Instant,
}

/// Each picture by the best network that makes it in time.
fn upscale(
    mut spec: EngineSpec,
    period: Duration,
    pictures: &LiveQueue,
    output: &SyncSender<Ready>,
    (budget, pool): (&Budget, PicturePool),
    stats: &Stats,
) -> Result<()> {
    let mut engine = spec.open()?;
    let mut ladder = None;
    while let Some(Waiting { lr, time_us, arrived }) = pictures.pop() {
        if lr.geometry != spec.lr {
            spec.lr = lr.geometry;
            (engine, ladder) = (spec.open()?, None);
        }
        let ladder = match &mut ladder {
            Some(ladder) => ladder,
            None => ladder.insert(measured(engine.as_mut(), &lr, &pool, period, stats)?),
        };
        let begun = Instant::now();
        let Some(rung) = ladder.choose(begun, budget.deadline(arrived)) else {
            stats.dropped_late.fetch_add(1, Relaxed);
            continue;
        };
        let sr = engine_runs(engine.as_mut(), lr, pool.take()?, rung)?;
        let made = Instant::now();
        ladder.took(rung, (made - begun).as_secs_f64());
        stats.by_rung[rung].1.fetch_add(1, Relaxed);
        if output.send(Ready { sr, time_us, arrived, made }).is_err() {
            break;
        }
    }
    Ok(())
}

/// One picture through one network, with what travels along.
fn engine_runs(engine: &mut dyn Engine, lr: Picture, sr: Picture, rung: usize) -> Result<Picture> {
    engine.submit(lr, sr, NetworkId(rung))?;
    let (lr, mut sr) = engine.collect()?.expect("it was submitted");
    sr.props = lr.props;
    Ok(sr)
}

/// Times every network on this machine, with this picture.
fn measured(
    engine: &mut dyn Engine,
    lr: &Picture,
    pool: &PicturePool,
    period: Duration,
    stats: &Stats,
) -> Result<Ladder> {
    let mut alone_s = Vec::new();
    for (rung, (name, _)) in stats.by_rung.iter().enumerate() {
        let mut best_s = f64::MAX;
        for _ in 0..TRIALS {
            let begun = Instant::now();
            engine_runs(engine, lr.share(), pool.take()?, rung)?;
            best_s = best_s.min(begun.elapsed().as_secs_f64());
        }
        info!("{name}: {:.1} ms a picture", 1e3 * best_s);
        alone_s.push(best_s);
    }
    Ok(Ladder::new(alone_s, period.as_secs_f64()))
}

/// What the encode stage takes and gives.
struct EncodeIo<'a> {
    ready: Receiver<Ready>,
    sound: &'a SoundQueue,
    lanes: Vec<Lane>,
    clock: &'a Clock,
    budget: &'a Budget,
    stats: &'a Stats,
}

/// Pictures as they come, or made ones, become packets for all sinks.
fn encode(encoder: Encoder, on_loss: OnLoss, silence: Option<Silence>, io: EncodeIo) -> Result<()> {
    let mut black = PicturePool::new(encoder.geometry()).take()?;
    blacken(&mut black);
    let mut last = black.share();
    let begun = BTreeMap::new();
    let mut stage = Encode { encoder, io, begun, index: 0, last_pts: i64::MIN, sound_end_us: 0 };
    loop {
        let now = Instant::now();
        let pacer = || stage.io.clock.0.lock().expect("nobody panics with it");
        let patience = pacer().patience(now);
        let received = match patience {
            Some(patience) => stage.io.ready.recv_timeout(patience),
            None => stage.io.ready.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match received {
            Ok(ready) if pacer().takes(ready.time_us, Instant::now()) => {
                last = ready.sr.share();
                stage.send(ready.sr, ready.time_us, Some((ready.arrived, ready.made)))?;
            }
            Ok(_) => drop(stage.io.stats.dropped_past.fetch_add(1, Relaxed)),
            Err(RecvTimeoutError::Timeout) => {
                let time_us = pacer().make();
                let picture = if on_loss == OnLoss::Black { &black } else { &last };
                stage.io.stats.made.fetch_add(1, Relaxed);
                stage.send(picture.share(), time_us, None)?;
                stage.be_silent_until(time_us, silence.as_ref());
            }
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    stage.encoder.finish()?;
    stage.give_packets()
}

struct Encode<'a> {
    encoder: Encoder,
    io: EncodeIo<'a>,
    /// Time of a picture in the encoder -> when its packet came, and when the network had done.
    begun: BTreeMap<i64, (Instant, Instant)>,
    index: u64,
    last_pts: i64,
    sound_end_us: i64,
}

/// Packets of sound may overlap by what their times are rounded by.
const SOUND_ROUNDING_US: i64 = 2_000;

impl Encode<'_> {
    fn send(&mut self, mut picture: Picture, time_us: i64, begun: Option<(Instant, Instant)>) -> Result<()> {
        let base = self.encoder.time_base();
        let ticks = i128::from(time_us) * i128::from(base.den) / (1_000_000 * i128::from(base.num));
        let pts = (ticks as i64).max(self.last_pts.saturating_add(1));
        picture.time = PictureTime { index: self.index, pts, duration: 0, time_base: base };
        (self.index, self.last_pts) = (self.index + 1, pts);
        if let Some(begun) = begun {
            self.begun.insert(pts, begun);
        }
        self.encoder.send(picture)?;
        self.io.stats.encoded.fetch_add(1, Relaxed);
        self.give_packets()
    }

    fn give_packets(&mut self) -> Result<()> {
        while let Some(packet) = self.encoder.receive()? {
            if let Some((arrived, made)) = self.begun.remove(&packet.pts()) {
                self.io.budget.note_tail(made.elapsed());
                self.io.stats.note_latency(arrived.elapsed());
            }
            let packet = packet.moved_by_us(0);
            let until_us = packet.dts_us();
            // The picture first: with it outputs begin.
            self.share_out(packet, false);
            while let Some(sound) = self.io.sound.pop_until(until_us) {
                if sound.pts_us() >= self.sound_end_us - SOUND_ROUNDING_US {
                    self.sound_end_us = sound.end_us();
                    self.share_out(sound, true);
                }
            }
        }
        Ok(())
    }

    /// While pictures are made no sound comes either.
    fn be_silent_until(&mut self, time_us: i64, silence: Option<&Silence>) {
        let Some(silence) = silence else { return };
        while self.sound_end_us < time_us {
            self.share_out(silence.at_us(self.sound_end_us), true);
            self.sound_end_us += silence.duration_us();
        }
    }

    fn share_out(&mut self, packet: Coded, is_sound: bool) {
        let shared = Arc::new(Shared { packet, is_sound });
        for (lane, stats) in self.io.lanes.iter_mut().zip(&self.io.stats.sinks) {
            lane.send(&shared, stats);
        }
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

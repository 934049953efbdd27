//! Upscale: upscales each frame by the best network that meets the frame's deadline.
//!
//! In: decoded frames with their arrival times. Out: upscaled frames. A frame that no network can finish in time is dropped
//! here and nowhere else.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel};
use std::thread::{self, Scope};
use std::time::{Duration, Instant};

use rustix::process::nice;
use tracing::{info, warn};

use super::budget::LatencyBudget;
use super::control::Control;
use super::failures::Failures;
use super::ladder::Ladder;
use super::queue::{FrameQueue, PendingFrame};
use super::stats::{RungStats, Stats};
use crate::engine::{Engine, EngineSpec, Network, NetworkId};
use crate::error::Result;
use crate::frame::{Frame, FrameFormat};
use crate::media::FramePool;

/// Number of runs by which each network is timed; a network that takes more than two frame periods is run once.
const TIMED_RUNS: usize = 3;

/// Niceness of the threads that time networks: beside busy threads they get a tenth of one's share. At 19 they get a
/// seventieth, and do not end within a minute on a busy machine.
const TIMING_NICENESS: i32 = 10;

/// A frame for the encoder.
pub(super) struct UpscaledFrame {
    pub sr: Frame,
    /// Presentation time in the output's clock.
    pub time_us: i64,
    /// Arrival of the frame's packet.
    pub arrived_at: Instant,
    pub upscaled_at: Instant,
}

/// Inputs and outputs of the upscale stage.
pub(super) struct UpscaleIo<'a> {
    pub frames: &'a FrameQueue,
    pub output: SyncSender<UpscaledFrame>,
    pub budget: &'a LatencyBudget,
    pub control: &'a Control,
    pub stats: &'a Stats,
    pub failures: &'a Arc<Failures>,
    /// Time from one frame to the next.
    pub period: Duration,
}

/// Upscales until no frame follows.
pub(super) fn run(spec: EngineSpec, io: &UpscaleIo) -> Result<()> {
    let engine = spec.open()?;
    let rungs = rungs(&spec.networks, io.stats);
    let (sender, timed_ladders) = channel();
    thread::scope(|scope| {
        let pool = FramePool::new(spec.sr)?;
        let mut upscale = Upscale { spec, engine: Some(engine), ladder: None, rungs, pool, io };
        while let Some(pending) = io.frames.pop() {
            io.stats.queue.start(pending.arrived_at);
            if let Some(networks) = io.control.take_networks() {
                upscale.time_concurrently(networks, &pending.lr, scope, &sender);
            }
            upscale.change_ladder(&timed_ladders);
            let upscaled = upscale.upscale(pending);
            io.stats.queue.finish();
            let Some(frame) = upscaled? else { continue };
            io.stats.has_work_for_encode.store(true, Relaxed);
            if io.output.send(frame).is_err() {
                break;
            }
        }
        Ok(())
    })
}

struct Upscale<'a> {
    spec: EngineSpec,
    /// `None` only while another is opened in its place.
    engine: Option<Box<dyn Engine>>,
    /// `None` until the networks were timed with a frame of this format.
    ladder: Option<Ladder>,
    /// By rung: index in [`Stats::rungs`] and counters.
    rungs: Vec<(usize, Arc<RungStats>)>,
    pool: FramePool,
    io: &'a UpscaleIo<'a>,
}

/// Networks and their times for frames of one format.
struct TimedNetworks {
    networks: Vec<Network>,
    lr: FrameFormat,
    alone_s: Vec<f64>,
}

impl Upscale<'_> {
    /// Upscales a frame by the network that the ladder chooses; `None` if none would meet its deadline.
    fn upscale(
        &mut self,
        PendingFrame { lr, time_us, arrived_at }: PendingFrame,
    ) -> Result<Option<UpscaledFrame>> {
        let (stats, period) = (self.io.stats, self.io.period);
        if lr.format != self.spec.lr {
            self.spec.lr = lr.format;
            // Its memory is free for the next one.
            (self.engine, self.ladder) = (None, None);
            self.engine = Some(self.spec.open()?);
        }
        let engine = self.engine.as_deref_mut().expect("open between frames");
        let ladder = match &mut self.ladder {
            Some(ladder) => ladder,
            None => {
                let alone_s =
                    time_networks(engine, &self.spec, &lr, &self.pool, period, || stats.queue.step())?;
                self.ladder.insert(Ladder::new(alone_s, period.as_secs_f64()))
            }
        };
        let start = Instant::now();
        let Some(rung) = ladder.choose(start, self.io.budget.deadline(arrived_at)) else {
            stats.dropped_late.fetch_add(1, Relaxed);
            return Ok(None);
        };
        let preview = stats.is_preview_requested().then(|| lr.share());
        let sr = run_network(engine, lr, self.pool.take()?, rung)?;
        let upscaled_at = Instant::now();
        let time = upscaled_at - start;
        ladder.note_time(rung, time.as_secs_f64());
        let (index, counters) = &self.rungs[rung];
        counters.frames.fetch_add(1, Relaxed);
        stats.rung.store(*index, Relaxed);
        stats.upscale.note(time);
        if let Some(lr) = preview {
            stats.set_preview(lr, sr.share());
        }
        Ok(Some(UpscaledFrame { sr, time_us, arrived_at, upscaled_at }))
    }

    /// Times other networks on a thread of their own; the stream keeps its ladder meanwhile.
    fn time_concurrently<'scope>(
        &self,
        networks: Vec<Network>,
        lr: &Frame,
        scope: &'scope Scope<'scope, '_>,
        timed: &Sender<TimedNetworks>,
    ) {
        // The stream's own engine holds its memory already.
        let spec = EngineSpec { networks, lr: lr.format, memory_max: None, ..self.spec.clone() };
        let (lr, period, timed) = (lr.share(), self.io.period, timed.clone());
        let failures = self.io.failures.clone();
        let time = move || {
            // Of this thread, and of those that the engine starts: they get the time that the frames on air leave.
            if let Err(e) = nice(TIMING_NICENESS) {
                warn!("the priority of a thread cannot be lowered: {e}");
            }
            let times = (spec.check().and_then(|()| spec.open())).and_then(|mut engine| {
                time_networks(engine.as_mut(), &spec, &lr, &FramePool::new(spec.sr)?, period, || ())
            });
            match times {
                // The relay may have ended meanwhile.
                Ok(alone_s) => {
                    drop(timed.send(TimedNetworks { networks: spec.networks, lr: spec.lr, alone_s }))
                }
                Err(error) => warn!("ladder unchanged: {error}"),
            }
            Ok(())
        };
        scope.spawn(move || failures.guard("the thread that times networks", time));
    }

    fn change_ladder(&mut self, timed: &Receiver<TimedNetworks>) {
        let Some(TimedNetworks { networks, lr, alone_s }) = timed.try_iter().last() else { return };
        let spec = EngineSpec { networks, memory_max: None, ..self.spec.clone() };
        match spec.open() {
            Ok(engine) => {
                let ladder = Ladder::new(alone_s, self.io.period.as_secs_f64());
                self.ladder = (spec.lr == lr).then_some(ladder);
                self.rungs = rungs(&spec.networks, self.io.stats);
                (self.spec, self.engine) = (spec, Some(engine));
                let names: Vec<&str> = self.spec.networks.iter().map(Network::name).collect();
                info!("ladder: {}", names.join(", "));
            }
            Err(error) => warn!("ladder unchanged: {error}"),
        }
    }
}

fn rungs(networks: &[Network], stats: &Stats) -> Vec<(usize, Arc<RungStats>)> {
    networks.iter().map(|network| stats.rung_of(network.name())).collect()
}

/// Runs one frame through one network; the frame's properties come along.
fn run_network(engine: &mut dyn Engine, lr: Frame, sr: Frame, rung: usize) -> Result<Frame> {
    engine.submit(lr, sr, NetworkId(rung))?;
    let (lr, mut sr) = engine.collect()?.expect("a frame was submitted");
    sr.props = lr.props;
    Ok(sr)
}

/// Returns the seconds that each network takes for this frame on this machine. `step` is called after each run.
fn time_networks(
    engine: &mut dyn Engine,
    spec: &EngineSpec,
    lr: &Frame,
    pool: &FramePool,
    period: Duration,
    step: impl Fn(),
) -> Result<Vec<f64>> {
    let time = |(rung, network): (usize, &Network)| {
        let mut best = Duration::MAX;
        for _ in 0..TIMED_RUNS {
            let start = Instant::now();
            run_network(engine, lr.share(), pool.take()?, rung)?;
            best = best.min(start.elapsed());
            step();
            if best > 2 * period {
                break;
            }
        }
        info!("{}: {:.1} ms per frame", network.name(), 1e3 * best.as_secs_f64());
        Ok(best.as_secs_f64())
    };
    spec.networks.iter().enumerate().map(time).collect()
}

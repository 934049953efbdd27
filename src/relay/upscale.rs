//! Upscale: each frame by the best network that makes it in time.
//!
//! In: decoded frames with their moments of arrival. Out: larger ones. Those for which no network is fast enough are
//! dropped here and nowhere else.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel};
use std::thread::{self, Scope};
use std::time::{Duration, Instant};

use tracing::{info, warn};

use super::ladder::Ladder;
use super::queue::{LiveQueue, Waiting};
use super::stats::RungStats;
use super::{Budget, Control, Stats};
use crate::engine::{Engine, EngineSpec, Network, NetworkId};
use crate::error::Result;
use crate::frame::{Frame, FrameFormat};
use crate::media::FramePool;

/// How often each network is tried at the start; one that cannot keep up is not tried again.
const TRIALS: usize = 3;

/// A larger frame.
pub(super) struct Ready {
    pub sr: Frame,
    /// When it is shown, in the output's time.
    pub time_us: i64,
    pub arrived: Instant,
    pub made: Instant,
}

/// Where frames come from and go, and what is to be heeded on the way.
pub(super) struct UpscaleIo<'a> {
    pub frames: &'a LiveQueue,
    pub output: SyncSender<Ready>,
    pub budget: &'a Budget,
    pub control: &'a Control,
    pub stats: &'a Stats,
    /// From one frame to the next.
    pub period: Duration,
}

/// Makes frames larger until none follows.
pub(super) fn run(spec: EngineSpec, io: &UpscaleIo) -> Result<()> {
    let engine = spec.open()?;
    let rungs = rungs(&spec.networks, io.stats);
    let (tried, new_ladders) = channel();
    thread::scope(|scope| {
        let pool = FramePool::new(spec.sr);
        let mut upscale = Upscale { spec, engine, ladder: None, rungs, pool, io };
        while let Some(waiting) = io.frames.pop() {
            io.stats.waiting.begins(waiting.arrived);
            if let Some(networks) = io.control.take_networks() {
                upscale.try_out(networks, &waiting.lr, scope, &tried);
            }
            upscale.change_ladder(&new_ladders);
            let ready = upscale.make(waiting);
            io.stats.waiting.ends();
            if let Some(ready) = ready?
                && io.output.send(ready).is_err()
            {
                break;
            }
        }
        Ok(())
    })
}

struct Upscale<'a> {
    spec: EngineSpec,
    engine: Box<dyn Engine>,
    /// Timed with the first frame of a size.
    ladder: Option<Ladder>,
    rungs: Vec<(usize, Arc<RungStats>)>,
    pool: FramePool,
    io: &'a UpscaleIo<'a>,
}

/// Networks for frames of this size, and how long each takes.
struct Tried {
    networks: Vec<Network>,
    lr: FrameFormat,
    alone_s: Vec<f64>,
}

impl Upscale<'_> {
    fn make(&mut self, Waiting { lr, time_us, arrived }: Waiting) -> Result<Option<Ready>> {
        let (stats, period) = (self.io.stats, self.io.period);
        if lr.format != self.spec.lr {
            self.spec.lr = lr.format;
            (self.engine, self.ladder) = (self.spec.open()?, None);
        }
        let ladder = match &mut self.ladder {
            Some(ladder) => ladder,
            None => {
                let alone_s = time_all(self.engine.as_mut(), &self.spec, &lr, &self.pool, period)?;
                self.ladder.insert(Ladder::new(alone_s, period.as_secs_f64()))
            }
        };
        let begun = Instant::now();
        let Some(rung) = ladder.choose(begun, self.io.budget.deadline(arrived)) else {
            stats.dropped_late.fetch_add(1, Relaxed);
            return Ok(None);
        };
        let is_shown = stats.is_frame_wanted().then(|| lr.share());
        let sr = engine_runs(self.engine.as_mut(), lr, self.pool.take()?, rung)?;
        let made = Instant::now();
        ladder.took(rung, (made - begun).as_secs_f64());
        let (index, of_rung) = &self.rungs[rung];
        of_rung.frames.fetch_add(1, Relaxed);
        stats.rung.store(*index, Relaxed);
        stats.upscale.note(made - begun);
        if let Some(lr) = is_shown {
            stats.show(lr, sr.share());
        }
        Ok(Some(Ready { sr, time_us, arrived, made }))
    }

    /// Times other networks beside the stream, which goes on with those it has.
    fn try_out<'scope>(
        &self,
        networks: Vec<Network>,
        lr: &Frame,
        scope: &'scope Scope<'scope, '_>,
        tried: &Sender<Tried>,
    ) {
        let spec = EngineSpec { networks, lr: lr.format, ..self.spec.clone() };
        let (lr, period, tried) = (lr.share(), self.io.period, tried.clone());
        scope.spawn(move || {
            let pool = FramePool::new(spec.sr);
            let timed = (spec.check().and_then(|()| spec.open()))
                .and_then(|mut engine| time_all(engine.as_mut(), &spec, &lr, &pool, period));
            match timed {
                // It is not waited for when all ends.
                Ok(alone_s) => drop(tried.send(Tried { networks: spec.networks, lr: spec.lr, alone_s })),
                Err(error) => warn!("the ladder stays as it was: {error}"),
            }
        });
    }

    fn change_ladder(&mut self, new_ladders: &Receiver<Tried>) {
        let Some(Tried { networks, lr, alone_s }) = new_ladders.try_iter().last() else { return };
        let spec = EngineSpec { networks, ..self.spec.clone() };
        match spec.open() {
            Ok(engine) => {
                let ladder = Ladder::new(alone_s, self.io.period.as_secs_f64());
                self.ladder = (spec.lr == lr).then_some(ladder);
                self.rungs = rungs(&spec.networks, self.io.stats);
                (self.spec, self.engine) = (spec, engine);
                info!("the ladder is {}", names(&self.spec.networks).join(", "));
            }
            Err(error) => warn!("the ladder stays as it was: {error}"),
        }
    }
}

/// Names of networks, best first.
pub(super) fn names(networks: &[Network]) -> Vec<String> {
    networks.iter().map(|network| network.name().to_owned()).collect()
}

fn rungs(networks: &[Network], stats: &Stats) -> Vec<(usize, Arc<RungStats>)> {
    networks.iter().map(|network| stats.rung_of(network.name())).collect()
}

/// One frame through one network, with what travels along.
fn engine_runs(engine: &mut dyn Engine, lr: Frame, sr: Frame, rung: usize) -> Result<Frame> {
    engine.submit(lr, sr, NetworkId(rung))?;
    let (lr, mut sr) = engine.collect()?.expect("it was submitted");
    sr.props = lr.props;
    Ok(sr)
}

/// Times every network on this machine, with this frame, in seconds.
fn time_all(
    engine: &mut dyn Engine,
    spec: &EngineSpec,
    lr: &Frame,
    pool: &FramePool,
    period: Duration,
) -> Result<Vec<f64>> {
    let time = |(rung, network): (usize, &Network)| {
        let mut best = Duration::MAX;
        for _ in 0..TRIALS {
            let begun = Instant::now();
            engine_runs(engine, lr.share(), pool.take()?, rung)?;
            best = best.min(begun.elapsed());
            if best > 2 * period {
                break;
            }
        }
        info!("{}: {:.1} ms a frame", network.name(), 1e3 * best.as_secs_f64());
        Ok(best.as_secs_f64())
    };
    spec.networks.iter().enumerate().map(time).collect()
}

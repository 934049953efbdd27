//! Run: opens the parts of a relay and drives each on a thread of its own.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use tracing::info;

use super::budget::LatencyBudget;
use super::control::Control;
use super::encode::{self, EncodeIo};
use super::options::{Options, open_networks};
use super::pacer::{OnLoss, OutputClock};
use super::queue::{AudioQueue, FrameQueue};
use super::sinks::{self, SinkQueue};
use super::source::{self, Session, SourceIo, SourceSpec};
use super::stats::Stats;
use super::upscale::{self, UpscaleIo};
use crate::engine::{EngineSpec, Network, thread_count};
use crate::error::{Error, Result};
use crate::frame::FrameFormat;
use crate::media::{self, Encoder, LiveOutput, LiveStreams, Output, Target, redacted};
use crate::sync::lock;

/// Upscaled frames ahead of the encoder: more would only add latency.
const UPSCALED_FRAMES_MAX: usize = 1;

/// A relay that is not connected yet.
pub struct Relay {
    options: Options,
    networks: Vec<Network>,
    control: Control,
    stats: Arc<Stats>,
}

/// A relay whose source is connected, and whose parts are open except for its sinks.
pub struct OpenedRelay<'a> {
    relay: &'a Relay,
    source: SourceSpec,
    session: Session,
    engine: EngineSpec,
    encoder: Encoder,
    streams: LiveStreams,
}

impl Relay {
    /// Checks the options and opens the networks of the ladder.
    pub fn new(options: Options) -> Result<Relay> {
        media::start();
        options.check()?;
        let networks = open_networks(&options.ladder)?;
        let sinks = options.sinks.iter().map(|sink| redacted(sink)).collect();
        let stats = Arc::new(Stats::new(redacted(&options.source), sinks, options.latency_max));
        Ok(Relay { options, networks, control: Control::default(), stats })
    }

    /// The counters, which can be read from any thread at any time.
    pub fn stats(&self) -> &Arc<Stats> {
        &self.stats
    }

    /// Changes the relay while it runs.
    pub fn control(&self) -> &Control {
        &self.control
    }

    /// Waits for the source, opens everything but the sinks and checks that the sinks can take the streams. Returns `None`
    /// when `stop` is set first.
    pub fn open(&self, stop: &Arc<AtomicBool>) -> Result<Option<OpenedRelay<'_>>> {
        let options = &self.options;
        let source = SourceSpec {
            address: options.source.clone(),
            listen: options.listen,
            filter: options.filter(),
            reconnect_max: options.reconnect_max,
            stop_on_loss: options.on_loss == OnLoss::Stop,
        };
        let Some(session) = source.connect(stop)? else { return Ok(None) };
        let threads = thread_count(options.threads);
        let (lr, output) = (session.format(), Output::live());
        let size = options.size_for(&lr)?;
        let spec = options.encoder_spec(session.fps(), size, threads);
        let target = Target::choose(&spec, &output, &lr, size)?;
        let engine = self.engine_spec(lr, target.format, threads)?;
        let encoder = session.open_encoder(target, &output)?;
        let streams = LiveStreams::new(&encoder, &session.input, &options.audio, &options.sinks)?;
        for sink in &options.sinks {
            LiveOutput::check(sink, &streams, options.overwrite)?;
        }
        let size_of = |format: &FrameFormat| format!("{}x{}", format.width, format.height);
        let (name, kind) = (redacted(&options.source), engine.kind.name());
        info!("{name}: {} -> {} by {kind}", size_of(&lr), size_of(&engine.sr));
        Ok(Some(OpenedRelay { relay: self, source, session, engine, encoder, streams }))
    }

    fn engine_spec(&self, lr: FrameFormat, sr: FrameFormat, threads: usize) -> Result<EngineSpec> {
        let networks = &self.networks;
        let spec = |kind| EngineSpec { kind, threads, in_flight: 1, networks: networks.clone(), lr, sr };
        let depth = sr.pixel_format.depth();
        let engine = spec(self.options.engine.resolve(None, depth, |kind| spec(kind).check())?);
        engine.check()?;
        Ok(engine)
    }
}

impl OpenedRelay<'_> {
    /// Runs until the source ends for good or `stop` is set. A sink that fails ends no other part; what it lost is the
    /// result at the end, if nothing else failed.
    pub fn run(self, stop: &Arc<AtomicBool>) -> Result<()> {
        let OpenedRelay { relay, source, session, engine, encoder, streams } = self;
        let Relay { options, control, stats, .. } = relay;
        let period = Duration::from_secs_f64(1.0 / session.fps());
        let (frames, audio) = (FrameQueue::default(), AudioQueue::default());
        let (clock, budget) = (OutputClock::new(period), LatencyBudget::new(options.latency_max));
        let silence = streams.silence();
        let (output, upscaled) = sync_channel(UPSCALED_FRAMES_MAX);
        let (sinks, packets): (Vec<_>, Vec<_>) = options.sinks.iter().map(|_| SinkQueue::new()).unzip();
        let (failures, sink_failures) = (FirstError::default(), FirstError::default());
        // A part that fails ends the relay.
        let finish = |result: Result<()>| {
            if let Err(error) = result {
                failures.note(error);
                stop.store(true, Relaxed);
            }
        };
        thread::scope(|scope| {
            let (frames, audio, clock, budget) = (&frames, &audio, &clock, &budget);
            let (finish, sink_failures) = (&finish, &sink_failures);
            for ((sink, packets), stats) in options.sinks.iter().zip(packets).zip(&stats.sinks) {
                let streams = streams.clone();
                scope.spawn(move || {
                    if let Err(error) = sinks::run(sink, options.overwrite, &streams, &packets, stats) {
                        sink_failures.note(error);
                    }
                });
            }
            scope.spawn(move || {
                let io = UpscaleIo { frames, output, budget, control, stats, period };
                finish(upscale::run(engine, &io));
                frames.close();
            });
            scope.spawn(move || {
                let io = EncodeIo { upscaled, audio, sinks, clock, budget, control, stats };
                finish(encode::run(encoder, options.on_loss, silence, io));
            });
            let io = SourceIo { frames, audio, streams: &streams, clock, stats, stop };
            finish(source::run(&source, session, &io));
            frames.close();
        });
        let first = failures.into_inner().or(sink_failures.into_inner());
        first.map_or(Ok(()), Err)
    }
}

/// The first of several errors.
#[derive(Default)]
struct FirstError(Mutex<Option<Error>>);

impl FirstError {
    fn note(&self, error: Error) {
        lock(&self.0).get_or_insert(error);
    }

    fn into_inner(self) -> Option<Error> {
        self.0.into_inner().expect("no thread panics while it holds a lock")
    }
}

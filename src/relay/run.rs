//! Run: opens the parts of a relay and drives each on a thread of its own.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{Receiver, channel, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use tracing::{info, warn};

use super::budget::LatencyBudget;
use super::connection::SourceIo;
use super::control::Control;
use super::encode::{self, EncodeIo};
use super::failures::Failures;
use super::options::{Options, open_networks};
use super::pacer::{OnLoss, OutputClock};
use super::queue::{AudioQueue, FRAMES_MAX, FrameQueue};
use super::reconnect;
use super::ring::Ring;
use super::sinks::{self, SinkIo};
use super::source::{Backoff, Session, SourceSpec};
use super::stats::Stats;
use super::upscale::{self, UpscaleIo};
use super::watchdog;
use crate::engine::{EngineSpec, Network, thread_count};
use crate::error::{Error, ErrorKind, Result};
use crate::frame::FrameFormat;
use crate::media::{self, Encoder, LiveOutput, LiveStreams, Output, Playlists, Target, redacted};

/// Time for the sinks to write what is queued at the end: more than their own timeouts of a last write and of a trailer.
const SINKS_END_MAX: Duration = Duration::from_secs(12);
/// Frames that the encoder of a live stream, which looks ahead at none, holds at a time.
const FRAMES_ENCODED: u64 = 3;
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
        let sinks = options.sinks.iter().map(redacted).collect();
        let stats = Arc::new(Stats::new(
            redacted(&options.source),
            sinks,
            options.latency_max,
            options.reconnect_max,
        ));
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
            playlists: if options.allow_playlist { Playlists::Always } else { Playlists::ByName },
            filter: options.filter(),
            reconnect_max: options.reconnect_max,
            stop_on_loss: options.on_loss == OnLoss::Stop,
        };
        let Some(session) = source.connect(&mut Backoff::new(), stop)? else { return Ok(None) };
        let threads = thread_count(options.threads);
        let (lr, output) = (session.format(), Output::live());
        let size = options.size_for(&lr)?;
        let spec = options.encoder_spec(session.fps(), size, threads);
        let target = Target::choose(&spec, &output, &lr, size)?;
        let engine = self.engine_spec(lr, &target, threads)?;
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

    fn engine_spec(&self, lr: FrameFormat, target: &Target, threads: usize) -> Result<EngineSpec> {
        let (networks, sr) = (&self.networks, target.format);
        let spec = |kind| EngineSpec {
            kind,
            threads,
            in_flight: 1,
            networks: networks.clone(),
            memory_max: None,
            lr,
            sr,
        };
        let depth = sr.pixel_format.depth();
        let engine = spec(self.options.engine.resolve(None, depth, |kind| spec(kind).check())?);
        let frames = FRAMES_MAX * lr.bytes() + (UPSCALED_FRAMES_MAX + 1) * sr.bytes();
        let name = redacted(&self.options.source);
        Ok(engine.fit(&name, frames as u64, target.memory_estimate(FRAMES_ENCODED))?.0)
    }
}

impl OpenedRelay<'_> {
    /// Runs until the source ends for good or `stop` is set. A sink that fails ends no other part; what it lost, or that it
    /// has not taken its last packets in time, is the result at the end, if nothing else failed. A panic of any thread ends
    /// the relay with an error, and so does a stage that hangs; while it does, this waits for it, the sinks are closed, and
    /// [`Stats::abandoned`] says so.
    pub fn run(self, stop: &Arc<AtomicBool>) -> Result<()> {
        let OpenedRelay { relay, source, session, engine, encoder, streams } = self;
        let Relay { options, control, stats, .. } = relay;
        let period = Duration::from_secs_f64(1.0 / session.fps());
        let (frames, audio) = (Arc::<FrameQueue>::default(), AudioQueue::default());
        let failures = Failures::new(stop, &frames, stats);
        let (clock, budget) = (OutputClock::new(period), LatencyBudget::new(options.latency_max));
        let silence = streams.silence();
        let (output, upscaled) = sync_channel(UPSCALED_FRAMES_MAX);
        let (running, rings) = RunningSinks::start(relay, &streams, stop, &failures)?;
        let incomplete = thread::scope(|scope| {
            let (rings, (ended, end)) = (&rings, channel());
            let (frames, audio, clock, budget, failures) = (&frames, &audio, &clock, &budget, &failures);
            scope.spawn(move || {
                let io = UpscaleIo { frames, output, budget, control, stats, failures, period };
                failures.guard("the upscale thread", move || upscale::run(engine, &io));
                frames.close();
            });
            scope.spawn(move || {
                let io = EncodeIo { upscaled, audio, rings, clock, budget, control, stats };
                failures.guard("the encode thread", || encode::run(encoder, options.on_loss, silence, io));
                rings.iter().for_each(|ring| ring.close());
                drop(ended);
            });
            let sinks = scope.spawn(move || {
                let hang = watchdog::watch(stats, period, &end);
                if let Some(error) = hang.clone() {
                    stats.set_hang(error.clone());
                    failures.end(error);
                    rings.iter().for_each(|ring| ring.close());
                }
                let incomplete = running.wait();
                if hang.is_some() {
                    stats.abandon();
                }
                incomplete
            });
            let io = SourceIo { frames, audio, streams: &streams, clock, stats, stop };
            failures.guard("the source thread", || reconnect::run(&source, session, &io));
            frames.close();
            sinks.join().expect("the watchdog does not panic")
        });
        failures.first().map_or(incomplete, Err)
    }
}

/// The threads of the sinks. They are waited for, but not for ever: a device may not return from a write.
struct RunningSinks {
    names: Vec<String>,
    /// The index of a sink that has ended, and what it has lost.
    ended: Receiver<(usize, Result<()>)>,
}

impl RunningSinks {
    fn start(
        relay: &Relay,
        streams: &LiveStreams,
        stop: &Arc<AtomicBool>,
        failures: &Arc<Failures>,
    ) -> Result<(RunningSinks, Vec<Arc<Ring>>)> {
        let Relay { options, stats, .. } = relay;
        let overwrite = options.overwrite;
        let (end, ended) = channel();
        let mut rings = Vec::new();
        for (index, sink) in options.sinks.iter().enumerate() {
            let is_file = LiveOutput::is_one_file(sink);
            let ring = Arc::new(Ring::new((!is_file).then_some(options.latency_max)));
            rings.push(ring.clone());
            let (sink, streams, stats, stop) = (sink.clone(), streams.clone(), stats.clone(), stop.clone());
            let (failures, end) = (failures.clone(), end.clone());
            let run = move || {
                let (sink, streams, relay) = (&*sink, &streams, &*stats);
                let io = SinkIo { sink, overwrite, streams, stats: &relay.sinks[index], relay, stop: &stop };
                let result = failures.guard_sink("the thread of a sink", move || sinks::run(io, &ring));
                // Nothing receives it once the relay has ended without this sink.
                let _ = end.send((index, result));
            };
            let spawned = thread::Builder::new().name("sink".into()).spawn(run);
            spawned.map_err(|e| Error::io("the thread of a sink", e, "look at the system's limits"))?;
        }
        let names = stats.sinks.iter().map(|sink| sink.name.clone()).collect();
        Ok((RunningSinks { names, ended }, rings))
    }

    /// Waits until the sinks have written what is queued, or for [`SINKS_END_MAX`]. Returns the first error.
    fn wait(self) -> Result<()> {
        let until = Instant::now() + SINKS_END_MAX;
        let (mut running, mut first): (BTreeSet<_>, _) = ((0..self.names.len()).collect(), Ok(()));
        while !running.is_empty() {
            let left = until.saturating_duration_since(Instant::now());
            let Ok((index, result)) = self.ended.recv_timeout(left) else { break };
            running.remove(&index);
            first = first.and(result);
        }
        for index in running {
            let problem = format!("has not taken its last packets within {} s", SINKS_END_MAX.as_secs());
            let error =
                Error::new(&self.names[index], problem, "check the receiver").with_kind(ErrorKind::Io);
            warn!("{error}");
            first = first.and(Err(error));
        }
        first
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Relaxed;

    use super::*;

    #[test]
    fn a_panic_in_any_thread_ends_the_relay_and_finishes_its_sinks() {
        for thread in ["the upscale thread", "the encode thread", "the source thread", "the thread of a sink"]
        {
            let folder = tempfile::tempdir().unwrap();
            let sink = folder.path().join("out.ts").to_string_lossy().into_owned();
            let mut options = Options::new("lavfi:testsrc2=s=96x64:r=25", vec![sink]);
            (options.ladder, options.threads) = (vec!["none".into()], Some(1));
            let relay = Relay::new(options).unwrap();
            let stop = Arc::default();
            let opened = relay.open(&stop).unwrap().expect("the source is connected");
            relay.stats.ask_for_panic(thread);
            let started = Instant::now();
            let error = opened.run(&stop).unwrap_err();
            assert!(started.elapsed() < SINKS_END_MAX, "{thread}: {:?}", started.elapsed());
            assert_eq!(error.kind(), ErrorKind::Internal, "{error}");
            assert!(
                error.to_string().starts_with(&format!("{thread}: panicked: as the test asks;")),
                "{error}"
            );
            assert!(stop.load(Relaxed) && relay.stats.has_panicked.load(Relaxed), "{thread}");
        }
    }

    #[test]
    fn a_stage_that_hangs_ends_the_relay_and_finishes_its_sinks() {
        for (thread, stage) in [("the upscale thread", "upscale"), ("the encode thread", "encode")] {
            let folder = tempfile::tempdir().unwrap();
            let sink = folder.path().join("out.ts").to_string_lossy().into_owned();
            let mut options = Options::new("lavfi:testsrc2=s=96x64:r=25,realtime", vec![sink]);
            (options.ladder, options.threads) = (vec!["none".into()], Some(1));
            let relay = Relay::new(options).unwrap();
            let stats = relay.stats().clone();
            let run = move || {
                let stop = Arc::default();
                let opened = relay.open(&stop).unwrap().expect("the source is connected");
                relay.stats.ask_for_hang(thread);
                opened.run(&stop)
            };
            let running = thread::spawn(run);
            let started = Instant::now();
            let error = loop {
                if let Some(error) = stats.abandoned() {
                    break error;
                }
                assert!(started.elapsed() < 2 * SINKS_END_MAX, "{stage}");
                thread::sleep(Duration::from_millis(5));
            };
            assert!(
                error.to_string().starts_with(&format!("the {stage} stage: has made no step")),
                "{error}"
            );
            assert_eq!(stats.problem(Instant::now()), Some(error.to_string()));
            assert!(!running.is_finished(), "{stage}");
            stats.ask_for_hang("");
            assert_eq!(running.join().unwrap().unwrap_err().to_string(), error.to_string());
        }
    }
}

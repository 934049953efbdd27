//! A run: every stage on a thread of its own, from the first packet to the report.

use std::panic::resume_unwind;
use std::sync::atomic::AtomicBool;
use std::thread::{self, Scope, ScopedJoinHandle};
use std::time::Instant;

use crossbeam_channel::bounded;

use super::clock::{Clock, Progress, Stage};
use super::report::{FrameCounts, Report};
use super::resume::ResumeState;
use super::shared::{Shared, Stop};
use super::sink::{Sink, Store};
use super::stages::{self, UpscaleSpec};
use crate::engine::{EngineSpec, NetworkId};
use crate::error::{Error, ErrorKind, Result};
use crate::frame::FrameFormat;
use crate::media::{Decoder, Encoder, FramePool, Input, Muxer, Transcoders};
use crate::sync::catch_panic;

/// Packets queued for the decoder: enough to hide a slow read, little memory.
const PACKETS_TO_DECODE: usize = 16;
/// Frames queued for the engine: one is ready whenever it asks, one more evens out I frames.
const FRAMES_TO_UPSCALE: usize = 2;
/// Frames queued for the encoder, for the same reason. SR frames are the large ones: 12 MB each at 4K.
const FRAMES_TO_ENCODE: usize = 2;
/// Packets queued for the muxer: encoders emit them in bursts.
const PACKETS_TO_MUX: usize = 32;
/// Bound of a queue of packets in bytes: a losslessly coded packet may be as large as its frame.
const PACKETS_BYTES: usize = 256 << 20;

/// The opened parts of a run.
pub struct Run {
    /// Source of the packets.
    pub input: Input,
    /// Decoder of the input's video, with its first frame decoded.
    pub decoder: Decoder,
    /// Engine, to be opened on the thread that drives it.
    pub engine: EngineSpec,
    /// Network of the engine that upscales the frames.
    pub network: NetworkId,
    /// Whether a frame that equals the previous one gets the previous result.
    pub reuse: bool,
    /// Encoder of the engine's output frames.
    pub encoder: Encoder,
    /// Destination of the packets.
    pub sink: Sink,
}

/// The result of a run.
pub struct Outcome {
    /// Report, as far as it is known before the output is complete.
    pub report: Report,
    /// Input, for its streams and for what was read of them.
    pub input: Input,
    /// Encoder, whose stream a muxer needs to join segments.
    pub encoder: Encoder,
    /// Muxer of [`Sink::Direct`], whose file is complete under its partial name.
    pub muxer: Option<Muxer>,
    /// Finished segments whose frames are read differently now. If there are any, the run ended at them, and its other
    /// fields say nothing.
    pub differing: Vec<u64>,
    /// What ended the run early, where the packets of all streams are in the store and can be joined nevertheless.
    pub failure: Option<Error>,
}

impl Run {
    /// Bytes of the frames between the stages of a run of `frames` frames; the engine counts its own.
    pub fn frame_bytes(lr: &FrameFormat, sr: &FrameFormat, frames: u64, reuse: bool) -> u64 {
        let count = |queue: usize| match frames {
            1 => 0,
            // One is with the stage that takes them.
            _ => (queue + 1 + usize::from(reuse)) as u64,
        };
        count(FRAMES_TO_UPSCALE) * lr.bytes() as u64 + count(FRAMES_TO_ENCODE) * sr.bytes() as u64
    }

    /// Runs to the end of the input, or to the frame at which `interrupt` was seen. An error that follows the interrupt is
    /// of kind [`Interrupted`](crate::ErrorKind::Interrupted).
    pub fn execute(self, progress: &Progress, interrupt: &AtomicBool) -> Result<Outcome> {
        let stop = Stop::new(interrupt);
        let mut outcome = self.execute_until(&stop, progress).map_err(|error| stop.explain(error))?;
        outcome.failure = outcome.failure.map(|error| stop.explain(error));
        Ok(outcome)
    }

    fn execute_until(self, stop: &Stop, progress: &Progress) -> Result<Outcome> {
        let Run { input, decoder, engine, network, reuse, encoder, sink } = self;
        let started = Instant::now();
        let (last, transcoders, resume_state, cache) = match sink {
            Sink::Direct { muxer, transcoders } => {
                (LastStage::Mux(muxer), Some(transcoders), ResumeState::default(), None)
            }
            Sink::Segments { store, transcoders, resume_state, cache } => {
                (LastStage::Store(store), transcoders, resume_state, cache)
            }
        };
        let holds_all_streams = transcoders.is_some();
        progress.start_at(resume_state.finished_frames);
        let upscale = UpscaleSpec { engine, network, reuse, pool: FramePool::new(encoder.format())?, cache };
        let shared = Shared::new(stop, &input, resume_state);
        let mut parts = Parts { input, decoder, encoder, last };
        let Ended { is_encoded, reused } = parts.run(upscale, transcoders, &shared, progress);
        let Parts { input, decoder, encoder, last } = parts;

        let failure = shared.first_error.take();
        let differing = shared.differing.take();
        if let (Some(&segment), true) = (differing.first(), shared.resume_state.end_segment.is_some()) {
            return Err(differs_from_plan(input.name(), segment));
        }
        let interrupted = stop.has_stopped();
        let is_complete = failure.is_none() && differing.is_empty() && !interrupted;
        let mut report = Report::new(&decoder, &encoder, progress, started.elapsed());
        report.frames = count_frames(&decoder, &encoder, &shared);
        report.interrupted = interrupted;
        report.clock_jumps = input.clock_jumps();
        report.reused = reused;
        let (muxer, failure) = match (last, failure) {
            (LastStage::Mux(muxer), Some(error)) => return Err(keep_finished_frames(*muxer, error)),
            (LastStage::Store(_), Some(error)) if !holds_all_streams => return Err(error),
            (LastStage::Store(mut store), failure) => {
                if is_encoded
                    && (is_complete || holds_all_streams)
                    && let Some(cut) = encoder.cut()
                {
                    if !shared.resume_state.agrees(cut.segment, &cut.source) {
                        return Err(differs_from_plan(input.name(), cut.segment));
                    }
                    store.close(cut)?;
                }
                (None, failure)
            }
            (LastStage::Mux(mut muxer), None) => {
                muxer.finish()?;
                report.add_output(&muxer)?;
                (Some(*muxer), None)
            }
        };
        // A run of one segment does not decode the rest.
        if is_complete && shared.resume_state.end_segment.is_none() && !report.frames.add_up() {
            let problem = format!("frames were lost on the way: {:?}", report.frames);
            let remedy = "this is an error of hasn: please report it with the file";
            return Err(Error::new(input.name(), problem, remedy));
        }
        Ok(Outcome { report, input, encoder, muxer, differing, failure })
    }
}

/// What the stages work on, one each.
struct Parts {
    input: Input,
    decoder: Decoder,
    encoder: Encoder,
    last: LastStage,
}

/// How the stages ended.
struct Ended {
    /// Whether the packets of all frames that reached the encoder are written.
    is_encoded: bool,
    /// Number of frames that got the previous result.
    reused: u64,
}

impl Parts {
    /// Runs the stages to their ends, the last one on this thread.
    fn run(
        &mut self,
        upscale: UpscaleSpec,
        transcoders: Option<Transcoders>,
        shared: &Shared,
        progress: &Progress,
    ) -> Ended {
        let Parts { input, decoder, encoder, last } = self;
        let EngineSpec { lr, sr, .. } = &upscale.engine;
        let (to_decode, from_demux) = bounded(packets_in_queue(PACKETS_TO_DECODE, lr));
        let (to_upscale, from_decode) = bounded(FRAMES_TO_UPSCALE);
        let (to_encode, from_upscale) = bounded(FRAMES_TO_ENCODE);
        let (to_mux, from_encode) = bounded(packets_in_queue(PACKETS_TO_MUX, sr));
        let clock = |stage: Stage| -> Clock { progress.clock(stage) };
        thread::scope(|scope| {
            let demux = start(scope, Stage::Demux, shared, move || {
                stages::demux(input, to_decode, transcoders, shared, clock(Stage::Demux))
            });
            let decode = start(scope, Stage::Decode, shared, move || {
                stages::decode(decoder, from_demux, to_upscale, shared, clock(Stage::Decode))
            });
            let upscale = start(scope, Stage::Upscale, shared, move || {
                stages::upscale(upscale, from_decode, to_encode, shared, clock(Stage::Upscale))
            });
            let encode = start(scope, Stage::Encode, shared, move || {
                stages::encode(encoder, from_upscale, to_mux, shared, clock(Stage::Encode))
            });
            let written = guard(Stage::Mux, shared, || match last {
                LastStage::Mux(muxer) => stages::mux(muxer, from_encode, shared, clock(Stage::Mux)),
                LastStage::Store(store) => {
                    stages::store(store.as_mut(), from_encode, shared, clock(Stage::Mux))
                }
            });
            join(demux);
            join(decode);
            let reused = join(upscale).unwrap_or(0);
            let is_encoded = join(encode).is_some() && written.is_some();
            Ended { is_encoded, reused }
        })
    }
}

/// Last stage of a run.
enum LastStage {
    Mux(Box<Muxer>),
    Store(Box<dyn Store>),
}

/// Returns the length of a queue: `max` packets of such frames, or fewer within [`PACKETS_BYTES`].
fn packets_in_queue(max: usize, frame_format: &FrameFormat) -> usize {
    max.min(PACKETS_BYTES / frame_format.bytes().max(1)).max(1)
}

/// Counts the frames of this run and of those that it resumes.
fn count_frames(decoder: &Decoder, encoder: &Encoder, shared: &Shared) -> FrameCounts {
    let ResumeState { finished_frames, skipped_frames, .. } = &shared.resume_state;
    let mut frames = FrameCounts::count(decoder, finished_frames + encoder.sent());
    frames.decoded += skipped_frames;
    frames
}

/// The error of a run that has read other frames for a segment than its plan.
fn differs_from_plan(source: &str, segment: u64) -> Error {
    let problem = format!("the frames of segment {segment} are not those of the plan");
    let remedy =
        "run it again; if they differ again, check the drive, or plan the video again with --restart";
    Error::new(source, problem, remedy).with_kind(ErrorKind::Io)
}

/// Leaves the partial file with the frames that it holds: a late error does not discard the work.
fn keep_finished_frames(mut muxer: Muxer, error: Error) -> Error {
    if !muxer.keep_failed() {
        return error;
    }
    let (partial, frames, reached_s) = (muxer.partial_name(), muxer.frames(), muxer.reached_s());
    error.keeping(&format!("{partial} keeps the first {frames} frames, up to {reached_s:.3} s"))
}

/// Returns the value of a stage. Its error or its panic is noted: what the other stages have finished is kept.
fn guard<T>(stage: Stage, shared: &Shared, run: impl FnOnce() -> Result<T>) -> Option<T> {
    shared.note(catch_panic(&format!("the {} stage", stage.name()), run))
}

/// Starts the thread of a stage. `None`, and an error, where the system starts none.
fn start<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    stage: Stage,
    shared: &'scope Shared,
    run: impl FnOnce() -> Result<T> + Send + 'scope,
) -> Option<ScopedJoinHandle<'scope, Option<T>>> {
    let builder = thread::Builder::new().name(stage.name().into());
    let handle = builder.spawn_scoped(scope, move || guard(stage, shared, run)).map_err(|e| {
        let subject = format!("the thread of the {} stage", stage.name());
        Error::io(subject, e, "raise the system's limits of threads and memory")
    });
    shared.note(handle)
}

/// Returns the value of a stage, if it has ended without an error.
fn join<T>(handle: Option<ScopedJoinHandle<'_, Option<T>>>) -> Option<T> {
    handle?.join().unwrap_or_else(|panic| resume_unwind(panic))
}

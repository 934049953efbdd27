//! A run: every stage on a thread of its own, from the first packet to the report.

use std::panic::resume_unwind;
use std::sync::atomic::AtomicBool;
use std::thread::{self, ScopedJoinHandle};
use std::time::Instant;

use crossbeam_channel::bounded;

use super::clock::{Clock, Progress, Stage};
use super::report::{FrameCounts, Report};
use super::resume::ResumeState;
use super::shared::{Shared, Stop};
use super::sink::{Sink, Store};
use super::stages::{self, UpscaleSpec};
use crate::engine::{EngineSpec, NetworkId};
use crate::error::{Error, Result};
use crate::frame::FrameFormat;
use crate::media::{Decoder, Encoder, FramePool, Input, Muxer, SEGMENT_FRAMES, Transcoders};
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
    /// Encoder, whose stream a muxer needs to join segments.
    pub encoder: Encoder,
    /// Muxer of [`Sink::Direct`], whose file is complete under its partial name.
    pub muxer: Option<Muxer>,
}

impl Run {
    /// Runs to the end of the input, or to the frame at which `interrupt` was seen. An error that follows the interrupt is
    /// of kind [`Interrupted`](crate::ErrorKind::Interrupted).
    pub fn execute(self, progress: &Progress, interrupt: &AtomicBool) -> Result<Outcome> {
        let stop = Stop::new(interrupt);
        self.execute_until(&stop, progress).map_err(|error| stop.explain(error))
    }

    fn execute_until(self, stop: &Stop, progress: &Progress) -> Result<Outcome> {
        let Run { input, decoder, engine, network, reuse, encoder, sink } = self;
        let started = Instant::now();
        let source = input.name().to_owned();
        let (mut last, transcoders, resume_state) = match sink {
            Sink::Direct { muxer, transcoders } => {
                (LastStage::Mux(muxer), Some(transcoders), ResumeState::default())
            }
            Sink::Segments { store, resume_state } => (LastStage::Store(store), None, resume_state),
        };
        progress.start_at(resume_state.finished_frames);
        let upscale = UpscaleSpec { engine, network, reuse, pool: FramePool::new(encoder.format()) };
        let parts = Parts { input, transcoders, decoder, upscale, encoder };
        let shared = Shared::new(stop, &parts.input, resume_state);
        let Ended { clock_jumps, decoder, reused, encoder } = parts.run(&mut last, &shared, progress);

        if let Some(error) = shared.first_error.take() {
            return Err(match last {
                LastStage::Mux(muxer) => keep_finished_frames(*muxer, error),
                LastStage::Store(_) => error,
            });
        }
        let decoder = decoder.expect("decode did not fail");
        let encoder = encoder.expect("encode did not fail");
        let interrupted = stop.has_stopped();
        if let (LastStage::Store(store), Some(cut), false) = (&mut last, encoder.cut(), interrupted) {
            store.close(cut)?;
        }
        let frames = count_frames(&decoder, &encoder, &shared, &source)?;
        let mut report = Report::new(frames, decoder.damage(), &encoder, progress, started.elapsed());
        report.interrupted = interrupted;
        report.clock_jumps = clock_jumps.unwrap_or(0);
        report.reused = reused.unwrap_or(0);
        let muxer = match last {
            LastStage::Mux(mut muxer) => {
                muxer.finish()?;
                report.add_output(&muxer)?;
                Some(*muxer)
            }
            LastStage::Store(_) => None,
        };
        Ok(Outcome { report, encoder, muxer })
    }
}

/// What is moved to the threads of the stages.
struct Parts {
    input: Input,
    /// `None` where copied streams are read when segments are joined.
    transcoders: Option<Transcoders>,
    decoder: Decoder,
    upscale: UpscaleSpec,
    encoder: Encoder,
}

/// What the stages return; `None` for a stage that failed.
struct Ended {
    clock_jumps: Option<u64>,
    decoder: Option<Decoder>,
    reused: Option<u64>,
    encoder: Option<Encoder>,
}

impl Parts {
    /// Runs the stages to their ends, the last one on this thread.
    fn run(self, last: &mut LastStage, shared: &Shared, progress: &Progress) -> Ended {
        let Parts { input, transcoders, decoder, upscale, encoder } = self;
        let EngineSpec { lr, sr, .. } = &upscale.engine;
        let (to_decode, from_demux) = bounded(packets_in_queue(PACKETS_TO_DECODE, lr));
        let (to_upscale, from_decode) = bounded(FRAMES_TO_UPSCALE);
        let (to_encode, from_upscale) = bounded(FRAMES_TO_ENCODE);
        let (to_mux, from_encode) = bounded(packets_in_queue(PACKETS_TO_MUX, sr));
        let clock = |stage: Stage| -> Clock { progress.clock(stage) };
        thread::scope(|scope| {
            let spawn = |stage: Stage| thread::Builder::new().name(stage.name().into());
            let demux = spawn(Stage::Demux).spawn_scoped(scope, move || {
                guard(Stage::Demux, shared, || {
                    stages::demux(input, to_decode, transcoders, shared, clock(Stage::Demux))
                })
            });
            let decode = spawn(Stage::Decode).spawn_scoped(scope, move || {
                guard(Stage::Decode, shared, || {
                    stages::decode(decoder, from_demux, to_upscale, shared, clock(Stage::Decode))
                })
            });
            let upscale = spawn(Stage::Upscale).spawn_scoped(scope, move || {
                guard(Stage::Upscale, shared, || {
                    stages::upscale(upscale, from_decode, to_encode, shared, clock(Stage::Upscale))
                })
            });
            let encode = spawn(Stage::Encode).spawn_scoped(scope, move || {
                guard(Stage::Encode, shared, || {
                    stages::encode(encoder, from_upscale, to_mux, shared, clock(Stage::Encode))
                })
            });
            guard(Stage::Mux, shared, || match last {
                LastStage::Mux(muxer) => stages::mux(muxer, from_encode, shared, clock(Stage::Mux)),
                LastStage::Store(store) => stages::store(store.as_mut(), from_encode, clock(Stage::Mux)),
            });
            Ended {
                clock_jumps: join(demux),
                decoder: join(decode),
                reused: join(upscale),
                encoder: join(encode),
            }
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
    let plane_bytes = |plane| {
        let (row_len, rows) = frame_format.plane_size(usize::from(plane));
        row_len * rows
    };
    let frame_bytes: usize = (0..frame_format.pixel_format.planes).map(plane_bytes).sum();
    max.min(PACKETS_BYTES / frame_bytes.max(1)).max(1)
}

/// Counts the frames of a run, and checks that none was lost.
fn count_frames(decoder: &Decoder, encoder: &Encoder, shared: &Shared, source: &str) -> Result<FrameCounts> {
    let ResumeState { finished_frames, skipped_frames, end_segment, .. } = &shared.resume_state;
    let mut frames = FrameCounts::count(decoder, finished_frames + encoder.sent());
    frames.decoded += skipped_frames;
    // An interrupted run leaves frames behind in its queues, and a run of one segment does not decode the rest.
    let is_complete = !shared.stop.has_stopped() && end_segment.is_none();
    if is_complete && !frames.add_up() {
        let problem = format!("frames were lost on the way: {frames:?}");
        return Err(Error::new(source, problem, "this is an error of hasn: please report it with the file"));
    }
    Ok(frames)
}

/// Ends the partial file where it holds at least a segment: a late error does not discard days of work.
fn keep_finished_frames(mut muxer: Muxer, error: Error) -> Error {
    let (frames, reached_s) = (muxer.frames(), muxer.reached_s());
    if frames < SEGMENT_FRAMES {
        return error;
    }
    muxer.end_at_video();
    match muxer.finish().map(|()| muxer.keep_partial()) {
        Ok(Some(partial)) => {
            let partial = partial.display();
            error.keeping(&format!("{partial} keeps the first {frames} frames, up to {reached_s:.3} s"))
        }
        // Where the end of the file cannot be written either, the first error is the one to report.
        Ok(None) | Err(_) => error,
    }
}

/// Returns the value of a stage. Its error or its panic is noted: what the other stages have finished is kept.
fn guard<T>(stage: Stage, shared: &Shared, run: impl FnOnce() -> Result<T>) -> Option<T> {
    shared.note(catch_panic(&format!("the {} stage", stage.name()), run))
}

fn join<T>(handle: std::io::Result<ScopedJoinHandle<'_, T>>) -> T {
    handle.expect("the system starts a thread").join().unwrap_or_else(|panic| resume_unwind(panic))
}

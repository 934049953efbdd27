//! A run: every stage on a thread of its own, from the first packet to the report.

use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::Instant;

use crossbeam_channel::bounded;

use super::clock::{Progress, Stage};
use super::report::{FrameCounts, Report};
use super::resume::ResumeState;
use super::shared::{Copies, Failure, Stop};
use super::sink::{Sink, Store};
use super::stages;
use crate::engine::{EngineSpec, NetworkId};
use crate::error::{Error, Result};
use crate::frame::FrameFormat;
use crate::media::{Decoder, Encoder, FramePool, Input, Muxer, SEGMENT_FRAMES};

/// Compressed frames ahead of the decoder: enough to hide a slow read, little memory.
const PACKETS_TO_DECODE: usize = 16;
/// Decoded frames ahead of the engine: one is ready whenever it asks, one more evens out I frames.
const FRAMES_TO_UPSCALE: usize = 2;
/// The same for the encoder. SR frames are the large ones: 12 MB each at 4K.
const FRAMES_TO_ENCODE: usize = 2;
/// Encoders give packets in bursts.
const PACKETS_TO_MUX: usize = 32;
/// A packet of what is coded without loss may be as large as its frame: a queue of packets holds no more than this.
const PACKETS_BYTES: usize = 256 << 20;

/// All parts of a run, opened.
pub struct Run {
    /// Where packets come from.
    pub input: Input,
    /// Of the input's video, its first frame decoded.
    pub decoder: Decoder,
    /// Opened on the thread that drives it.
    pub engine: EngineSpec,
    /// Which of the engine's networks frames take.
    pub network: NetworkId,
    /// Whether a frame that is as the one before gets its result.
    pub reuse: bool,
    /// Open for frames of the engine's output.
    pub encoder: Encoder,
    /// Where packets go.
    pub sink: Sink,
}

/// How a run ended.
pub struct Outcome {
    /// What it did, as far as is known before the output is whole.
    pub report: Report,
    /// To tell the muxer what it made.
    pub encoder: Encoder,
    /// Of [`Sink::Direct`]: the output, ended, under its partial name.
    pub muxer: Option<Muxer>,
}

impl Run {
    /// Runs to the end of the input, or to the frame at which `interrupt` was seen.
    pub fn execute(self, progress: &Progress, interrupt: &AtomicBool) -> Result<Outcome> {
        let Run { input, decoder, engine, network, reuse, encoder, sink } = self;
        let started = Instant::now();
        let source = input.name().to_owned();
        let failure = Failure::default();
        let stop = Stop { asked: interrupt, stopped: AtomicBool::new(false) };
        let (to_decode, from_demux) = bounded(packets(PACKETS_TO_DECODE, &engine.lr));
        let (to_upscale, from_decode) = bounded(FRAMES_TO_UPSCALE);
        let (to_encode, from_upscale) = bounded(FRAMES_TO_ENCODE);
        let (to_mux, from_encode) = bounded(packets(PACKETS_TO_MUX, &engine.sr));
        let copies = Copies::default();
        let pool = FramePool::new(encoder.format());
        let (mut end, transcoders, resume_state) = match sink {
            Sink::Direct { muxer, transcoders } => {
                (End::Muxer(muxer), Some(transcoders), ResumeState::default())
            }
            Sink::Segments { store, resume_state } => (End::Store(store), None, resume_state),
        };
        progress.begin_at(resume_state.finished_frames);

        let (clock_jumps, decoder, reused, encoder) = thread::scope(|scope| {
            let spawn = |stage: Stage| thread::Builder::new().name(stage.name().into());
            let clock = |stage: Stage| progress.clock(stage);
            let (failure, stop, copies, resume_state) = (&failure, &stop, &copies, &resume_state);
            let demux = spawn(Stage::Demux).spawn_scoped(scope, move || {
                let copies = transcoders.map(|transcoders| (copies, transcoders));
                failure.note(stages::demux(input, to_decode, copies, stop, clock(Stage::Demux)))
            });
            let decode = spawn(Stage::Decode).spawn_scoped(scope, move || {
                let clock = clock(Stage::Decode);
                failure.note(stages::decode(decoder, from_demux, to_upscale, (resume_state, stop), clock))
            });
            let upscale = spawn(Stage::Upscale).spawn_scoped(scope, move || {
                let io = stages::UpscaleIo { input: from_decode, output: to_encode, pool };
                failure.note(stages::upscale(engine, network, reuse, io, clock(Stage::Upscale)))
            });
            let encode = spawn(Stage::Encode).spawn_scoped(scope, move || {
                failure.note(stages::encode(
                    encoder,
                    from_upscale,
                    to_mux,
                    resume_state,
                    clock(Stage::Encode),
                ))
            });
            match &mut end {
                End::Muxer(muxer) => {
                    failure.note(stages::mux(muxer, from_encode, copies, stop, clock(Stage::Mux)))
                }
                End::Store(store) => {
                    failure.note(stages::store(store.as_mut(), from_encode, clock(Stage::Mux)))
                }
            };
            (join(demux), join(decode), join(upscale), join(encode))
        });

        if let Some(error) = failure.0.into_inner().expect("no stage panicked") {
            return Err(match end {
                End::Muxer(muxer) => keep_what_is_done(*muxer, error),
                End::Store(_) => error,
            });
        }
        let (decoder, encoder) =
            (decoder.expect("decode did not fail"), encoder.expect("encode did not fail"));
        let interrupted = stop.has_stopped();
        if let (End::Store(store), Some(cut), false) = (&mut end, encoder.cut(), interrupted) {
            store.close(cut)?;
        }
        let mut frames = FrameCounts::count(&decoder, resume_state.finished_frames + encoder.sent());
        frames.decoded += resume_state.skipped_frames;
        // An interrupted run leaves frames behind in its queues, one of a part does not decode the rest.
        if !interrupted && resume_state.end_segment.is_none() && !frames.add_up() {
            let problem = format!("frames were lost on the way: {frames:?}");
            return Err(Error::new(
                source,
                problem,
                "this is an error of hasn: please report it with the file",
            ));
        }
        let mut report = Report::new(frames, decoder.damage(), &encoder, progress, started.elapsed());
        report.interrupted = interrupted;
        report.clock_jumps = clock_jumps.unwrap_or(0);
        report.reused = reused.unwrap_or(0);
        let muxer = match end {
            End::Muxer(mut muxer) => {
                muxer.finish()?;
                report.add_output(&muxer)?;
                Some(*muxer)
            }
            End::Store(_) => None,
        };
        Ok(Outcome { report, encoder, muxer })
    }
}

/// Room for so many packets of such frames, or for as many as memory allows.
fn packets(most: usize, frame_format: &FrameFormat) -> usize {
    let plane_bytes = |plane| {
        let (row_len, rows) = frame_format.plane_size(usize::from(plane));
        row_len * rows
    };
    let frame_bytes: usize = (0..frame_format.pixel_format.planes).map(plane_bytes).sum();
    most.min(PACKETS_BYTES / frame_bytes.max(1)).max(1)
}

/// The last stage of a run.
enum End {
    Muxer(Box<Muxer>),
    Store(Box<dyn Store>),
}

/// Days of work are not thrown away for an error at their end: what is worth it stays under the partial name.
fn keep_what_is_done(mut muxer: Muxer, error: Error) -> Error {
    let (frames, reached_s) = (muxer.frames(), muxer.reached_s());
    if frames < SEGMENT_FRAMES {
        return error;
    }
    muxer.cut_here();
    match muxer.finish().map(|()| muxer.keep_partial()) {
        Ok(Some(partial)) => {
            let partial = partial.display();
            error.keeping(&format!("{partial} keeps the first {frames} frames, up to {reached_s:.3} s"))
        }
        // Where the end of the file cannot be written either, there is only the first error to tell.
        Ok(None) | Err(_) => error,
    }
}

fn join<T>(handle: std::io::Result<thread::ScopedJoinHandle<'_, T>>) -> T {
    match handle.expect("the system starts a thread").join() {
        Ok(value) => value,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

//! Stages on threads with bounded queues between them: the way of a frame from demux to mux.
//!
//! In: an opened [`Job`]. Out: an [`Outcome`]: segments that are kept, or a muxer whose file is whole, and a [`Report`]. It knows no sample, no layer
//! and no file format.
//!
//! ```text
//! demux ─packets→ decode ─frames→ upscale ─frames→ encode ─packets→ mux
//!   └──────────────── packets of other streams, never held back ─────────┘
//! ```
//!
//! A slow stage fills the queue before it and so stops its producer. The end of a stream is a dropped
//! sender; a dead consumer is a failed send. The first error wins and is told once.

mod clock;
mod report;
mod stages;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use crossbeam_channel::bounded;

use crate::engine::{EngineSpec, NetworkId};
use crate::error::{Error, Result};
use crate::frame::{FrameFormat, Timestamp};
use crate::media::{
    CopyQueue, Cut, CutState, Decoder, Encoder, FramePool, Input, Muxer, Numbering, Packet, SEGMENT_FRAMES,
    Transcoders,
};

pub use clock::{Progress, STAGES, Stage};
pub use report::{FrameCounts, Place, Report, StageReport, StreamReport, VerificationReport};

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
pub struct Job {
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

/// Where packets go.
pub enum Sink {
    /// Into the output as they come, among those that are copied: for pipes, still frames and what else cannot be
    /// joined from parts, and for what cannot be read twice.
    Direct {
        /// Its header written.
        muxer: Box<Muxer>,
        /// Of streams that are not copied as they are.
        transcoders: Transcoders,
    },
    /// Into segments, to be joined when all are there, or into files of their own.
    Segments {
        /// Who keeps them.
        store: Box<dyn Store>,
        /// Which ones are wanted.
        resume_state: ResumeState,
    },
}

/// Who keeps segments.
pub trait Store: Send {
    /// The next packet of the segment.
    fn write(&mut self, packet: Packet) -> Result<()>;
    /// The segment has all its packets.
    fn close(&mut self, cut: Cut) -> Result<()>;
}

/// Which frames are to be made.
#[derive(Default)]
pub struct ResumeState {
    /// These segments are there.
    pub ready: BTreeSet<u64>,
    /// Of a sequence: these frames are there, by number.
    pub numbers_ready: Option<(Numbering, BTreeSet<u64>)>,
    /// So many frames are there.
    pub frames_ready: u64,
    /// So many of them are not read again.
    pub passed_over: u64,
    /// This one and those after it are not wanted.
    pub until: Option<u64>,
    /// First frame after one that is there -> how the encoder goes on.
    pub starts: BTreeMap<u64, CutState>,
}

impl ResumeState {
    /// Whether a frame is there.
    fn has(&self, time: &Timestamp) -> bool {
        let of_sequence = |(numbering, ready): &(Numbering, BTreeSet<u64>)| {
            ready.contains(&numbering.number(time.index, time.pts))
        };
        self.ready.contains(&(time.index / SEGMENT_FRAMES))
            || self.numbers_ready.as_ref().is_some_and(of_sequence)
    }
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

/// Runs the job to its end, or to the frame at which `interrupt` was seen.
pub fn run(job: Job, progress: &Progress, interrupt: &AtomicBool) -> Result<Outcome> {
    let Job { input, decoder, engine, network, reuse, encoder, sink } = job;
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
        Sink::Direct { muxer, transcoders } => (End::Muxer(muxer), Some(transcoders), ResumeState::default()),
        Sink::Segments { store, resume_state } => (End::Store(store), None, resume_state),
    };
    progress.begin_at(resume_state.frames_ready);

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
            failure.note(stages::encode(encoder, from_upscale, to_mux, resume_state, clock(Stage::Encode)))
        });
        match &mut end {
            End::Muxer(muxer) => {
                failure.note(stages::mux(muxer, from_encode, copies, stop, clock(Stage::Mux)))
            }
            End::Store(store) => failure.note(stages::store(store.as_mut(), from_encode, clock(Stage::Mux))),
        };
        (join(demux), join(decode), join(upscale), join(encode))
    });

    if let Some(error) = failure.0.into_inner().expect("no stage panicked") {
        return Err(match end {
            End::Muxer(muxer) => keep_what_is_done(*muxer, error),
            End::Store(_) => error,
        });
    }
    let (decoder, encoder) = (decoder.expect("decode did not fail"), encoder.expect("encode did not fail"));
    let interrupted = stop.has_stopped();
    if let (End::Store(store), Some(cut), false) = (&mut end, encoder.cut(), interrupted) {
        store.close(cut)?;
    }
    let mut frames = FrameCounts::count(&decoder, resume_state.frames_ready + encoder.sent());
    frames.decoded += resume_state.passed_over;
    // An interrupted run leaves frames behind in its queues, one of a part does not decode the rest.
    if !interrupted && resume_state.until.is_none() && !frames.add_up() {
        let problem = format!("frames were lost on the way: {frames:?}");
        return Err(Error::new(source, problem, "this is an error of hasn: please report it with the file"));
    }
    let mut report = Report::new(frames, decoder.damage(), &encoder, progress, started.elapsed());
    report.interrupted = interrupted;
    report.clock_jumps = clock_jumps.unwrap_or(0);
    report.reused = reused.unwrap_or(0);
    let muxer = match end {
        End::Muxer(mut muxer) => {
            muxer.finish()?;
            report.tell_output(&muxer)?;
            Some(*muxer)
        }
        End::Store(_) => None,
    };
    Ok(Outcome { report, encoder, muxer })
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

/// The user's wish to end, and whether it came before the end came by itself.
struct Stop<'a> {
    asked: &'a AtomicBool,
    stopped: AtomicBool,
}

impl Stop<'_> {
    /// Whether a stage that has more to do is to stop.
    fn now(&self) -> bool {
        let asked = self.asked.load(Ordering::Relaxed);
        if asked {
            self.stopped.store(true, Ordering::Relaxed);
        }
        asked
    }

    fn has_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }
}

/// Packets that go by the frames, counted in bytes from the moment they are read.
#[derive(Default)]
struct Copies(Mutex<CopyQueue>);

impl Copies {
    fn push(&self, packet: Packet) -> Result<()> {
        self.0.lock().expect("no stage panicked").push(packet)
    }

    fn pop_before(&self, next: Option<&Packet>) -> Result<Option<Packet>> {
        self.0.lock().expect("no stage panicked").pop_before(next)
    }
}

/// The first error of any stage: later ones are its consequences.
#[derive(Default)]
struct Failure(Mutex<Option<Error>>);

impl Failure {
    fn note<T>(&self, result: Result<T>) -> Option<T> {
        result.map_err(|error| self.0.lock().expect("no stage panicked").get_or_insert(error).clone()).ok()
    }
}

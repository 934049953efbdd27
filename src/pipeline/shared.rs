//! What the stages of a run share: the request to stop, copied packets, the first error.

use std::mem;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use super::resume::ResumeState;
use crate::error::{Error, ErrorKind, Result};
use crate::media::{Input, Packet, PacketQueue, Watch};
use crate::sync::lock;

/// Shared state of the stages.
pub(super) struct Shared<'a> {
    pub stop: &'a Stop<'a>,
    /// Of the source.
    watch: Watch,
    pub copied: CopiedPackets,
    pub first_error: FirstError,
    pub differing: Differing,
    /// Whether demux has read the input to its end: without an error and without a request to stop.
    pub is_at_end: AtomicBool,
    pub resume_state: ResumeState,
}

impl Shared<'_> {
    pub fn new<'a>(stop: &'a Stop<'a>, input: &Input, resume_state: ResumeState) -> Shared<'a> {
        Shared {
            stop,
            watch: input.watch().clone(),
            copied: CopiedPackets::default(),
            first_error: FirstError::default(),
            differing: Differing::default(),
            is_at_end: AtomicBool::new(false),
            resume_state,
        }
    }

    /// Returns the value of a stage, or notes its error and ends a read that waits.
    pub fn note<T>(&self, result: Result<T>) -> Option<T> {
        let note = |error| {
            self.first_error.note(error);
            self.watch.end();
        };
        result.map_err(note).ok()
    }
}

/// The user's request to stop, and whether a stage has stopped for it.
pub(super) struct Stop<'a> {
    interrupt: &'a AtomicBool,
    has_stopped: AtomicBool,
}

impl Stop<'_> {
    pub fn new(interrupt: &AtomicBool) -> Stop<'_> {
        Stop { interrupt, has_stopped: AtomicBool::new(false) }
    }

    /// Whether a stage that has more input must stop.
    pub fn now(&self) -> bool {
        let is_requested = self.interrupt.load(Ordering::Relaxed);
        if is_requested {
            self.has_stopped.store(true, Ordering::Relaxed);
        }
        is_requested
    }

    pub fn has_stopped(&self) -> bool {
        self.has_stopped.load(Ordering::Relaxed)
    }

    /// Gives an error that follows the request the kind [`ErrorKind::Interrupted`]: the programs before and after this one
    /// in a shell's pipe get the same signal, and their ends arrive here as errors of the input and the output.
    pub fn explain(&self, error: Error) -> Error {
        if self.interrupt.load(Ordering::Relaxed) { error.with_kind(ErrorKind::Interrupted) } else { error }
    }
}

/// Copied packets that bypass the frames, counted in bytes from the moment they are read.
#[derive(Default)]
pub(super) struct CopiedPackets(Mutex<PacketQueue>);

impl CopiedPackets {
    pub fn push(&self, packet: Packet) -> Result<()> {
        lock(&self.0).push(packet)
    }

    pub fn pop_before(&self, next: Option<&Packet>) -> Result<Option<Packet>> {
        lock(&self.0).pop_before(next)
    }
}

/// Finished segments whose frames are read differently now.
#[derive(Default)]
pub(super) struct Differing(Mutex<Vec<u64>>);

impl Differing {
    pub fn note(&self, segment: u64) {
        lock(&self.0).push(segment);
    }

    pub fn take(&self) -> Vec<u64> {
        mem::take(&mut lock(&self.0))
    }
}

/// The first error of any stage: later ones are its consequences.
#[derive(Default)]
pub(super) struct FirstError(Mutex<Option<Error>>);

impl FirstError {
    fn note(&self, error: Error) {
        lock(&self.0).get_or_insert(error);
    }

    pub fn take(&self) -> Option<Error> {
        lock(&self.0).take()
    }
}

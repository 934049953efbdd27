//! What an earlier run has finished, and what is left to do.

use std::collections::{BTreeMap, BTreeSet};

use crate::frame::Timestamp;
use crate::media::{CutState, Numbering, SEGMENT_FRAMES};

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
    pub(super) fn has(&self, time: &Timestamp) -> bool {
        let of_sequence = |(numbering, ready): &(Numbering, BTreeSet<u64>)| {
            ready.contains(&numbering.number(time.index, time.pts))
        };
        self.ready.contains(&(time.index / SEGMENT_FRAMES))
            || self.numbers_ready.as_ref().is_some_and(of_sequence)
    }
}

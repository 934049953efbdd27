//! What earlier runs have finished, and what is left to do.

use std::collections::{BTreeMap, BTreeSet};

use crate::frame::Timestamp;
use crate::media::{CutState, Numbering, SegmentSource};

/// The frames that a run need not upscale, and the state of the encoder where it resumes.
#[derive(Default)]
pub struct ResumeState {
    /// Numbers of finished segments.
    pub finished_segments: BTreeSet<u64>,
    /// The frames of segments that an earlier run or a plan has read, by number: this run must read the same.
    pub sources: BTreeMap<u64, SegmentSource>,
    /// Finished files of an image sequence.
    pub finished_images: Option<FinishedImages>,
    /// Count of finished frames.
    pub finished_frames: u64,
    /// Finished frames that are not read again.
    pub skipped_frames: u64,
    /// First segment that this run does not encode.
    pub end_segment: Option<u64>,
    /// State of the encoder by the index of the first frame after a finished segment.
    pub encoder_states: BTreeMap<u64, CutState>,
}

/// Finished files of an image sequence.
pub struct FinishedImages {
    /// How frames are numbered.
    pub numbering: Numbering,
    /// Numbers of the finished files.
    pub numbers: BTreeSet<u64>,
}

impl ResumeState {
    /// Whether the frames of a segment were read as before, if they were.
    pub(super) fn agrees(&self, segment: u64, source: &SegmentSource) -> bool {
        self.sources.get(&segment).is_none_or(|before| before == source)
    }

    /// Whether the image of a frame is finished.
    pub(super) fn has_image(&self, time: &Timestamp) -> bool {
        let of_sequence = |FinishedImages { numbering, numbers }: &FinishedImages| {
            numbers.contains(&numbering.number(time.index, time.pts))
        };
        self.finished_images.as_ref().is_some_and(of_sequence)
    }
}

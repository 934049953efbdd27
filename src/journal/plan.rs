//! The plan of a distributed run: where the segments of a video start, so that any machine can encode any of them.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::folder::{JOINED, PLAN, check_own};
use super::segments::Journal;
use crate::error::{Error, Result};
use crate::media::{CutState, SEGMENT_FRAMES, SeekPoint, SegmentSource, StreamTallies};
use crate::pipeline::ResumeState;

/// Segments of a video, and the command that upscales it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkPlan {
    /// Folder to which relative paths of the command refer.
    pub folder: PathBuf,
    /// Arguments of `hasn upscale`.
    pub command: Vec<String>,
    /// Count of frames in all segments.
    pub frames: u64,
    /// Whether decoding can start at any segment.
    pub random_access: bool,
    /// Start of each segment.
    pub cuts: Vec<CutPoint>,
    /// What the input holds besides the video.
    pub tallies: StreamTallies,
}

/// Start of a segment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CutPoint {
    /// Timestamp of the first frame, in the source's time base.
    pub pts: i64,
    /// State of the encoder.
    pub state: CutState,
    /// Frames of the segment.
    pub source: SegmentSource,
}

impl WorkPlan {
    /// Writes the plan into a journal's folder.
    pub fn write(&self, journal: &Journal) -> Result<()> {
        journal.write(PLAN, &serde_json::to_vec(self).expect("plain data is always JSON"))
    }

    /// Whether a folder is what is left of a plan whose video is complete: its removal was cut short.
    pub fn is_left_over(folder: &Path) -> bool {
        folder.join(JOINED).exists() && !folder.join(PLAN).exists() && check_own(folder).is_ok()
    }

    /// Reads the plan of a journal's folder.
    pub fn read(folder: &Path) -> Result<WorkPlan> {
        let path = folder.join(PLAN);
        let wrong = |problem: String| {
            Error::new(path.to_string_lossy(), problem, "name a folder that hasn plan wrote")
        };
        let bytes = fs::read(&path).map_err(|e| wrong(e.to_string()).caused_by(e))?;
        serde_json::from_slice(&bytes).map_err(|e| wrong(format!("is not a plan: {e}")))
    }

    /// Where decoding starts for a segment; `None` for the first frame of the video.
    pub fn decode_start(&self, segment: u64) -> Option<SeekPoint> {
        let start = SeekPoint { pts: self.cuts[segment as usize].pts, index: segment * SEGMENT_FRAMES };
        (self.random_access && segment > 0).then_some(start)
    }

    /// State of a run that encodes `segment` only.
    pub fn resume_state(&self, segment: u64) -> ResumeState {
        let state = self.cuts[segment as usize].state.clone();
        ResumeState {
            finished_segments: (0..segment).collect(),
            sources: (0..).zip(&self.cuts).map(|(segment, cut)| (segment, cut.source.clone())).collect(),
            end_segment: Some(segment + 1),
            encoder_states: [(segment * SEGMENT_FRAMES, state)].into(),
            ..ResumeState::default()
        }
    }
}

//! Plan: where the segments of a video begin, so that each can be made by itself, on any machine.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::folder::{failed, write_whole};
use crate::error::{Error, Result};
use crate::media::{CutState, SEGMENT_FRAMES, SeekPoint};
use crate::pipeline::ResumeState;

const PLAN: &str = "plan.json";

/// A video's segments, and the command that they are of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkPlan {
    /// Where paths of the command lead from.
    pub folder: PathBuf,
    /// Words of `hasn upscale`.
    pub command: Vec<String>,
    /// How many there will be in all.
    pub frames: u64,
    /// Whether a segment can be begun without decoding all before it.
    pub random_access: bool,
    /// By segment.
    pub cuts: Vec<CutPoint>,
}

/// The beginning of a segment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CutPoint {
    /// Of its first frame, in the source's ticks.
    pub pts: i64,
    /// How its encoder begins.
    pub state: CutState,
}

impl WorkPlan {
    /// Writes it into a journal's folder.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let path = folder.join(PLAN);
        let json = serde_json::to_vec(self).expect("plain data is always JSON");
        write_whole(&path, &json).map_err(|e| failed(&path, e))
    }

    /// Reads it from there.
    pub fn read(folder: &Path) -> Result<WorkPlan> {
        let path = folder.join(PLAN);
        let wrong = |problem: String| {
            Error::new(path.to_string_lossy(), problem, "name a folder that hasn plan made")
        };
        let bytes = fs::read(&path).map_err(|e| wrong(e.to_string()))?;
        serde_json::from_slice(&bytes).map_err(|e| wrong(format!("is no plan: {e}")))
    }

    /// Where the decoder of a segment begins; `None`: at the first frame.
    pub fn decode_start(&self, segment: u64) -> Option<SeekPoint> {
        let first = (segment * SEGMENT_FRAMES, &self.cuts[segment as usize]);
        let begin = SeekPoint { pts: first.1.pts, index: first.0 };
        (self.random_access && segment > 0).then_some(begin)
    }

    /// This segment and no other.
    pub fn resume_state(&self, segment: u64) -> ResumeState {
        let state = self.cuts[segment as usize].state.clone();
        ResumeState {
            finished_segments: (0..segment).collect(),
            finished_frames: 0,
            end_segment: Some(segment + 1),
            encoder_states: [(segment * SEGMENT_FRAMES, state)].into(),
            ..ResumeState::default()
        }
    }
}

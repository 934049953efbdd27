//! Plan: where the segments of a film begin, so that each can be made by itself, on any machine.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{failed, write_whole};
use crate::error::{Error, Result};
use crate::media::{Begin, CutState, SEGMENT_PICTURES};
use crate::pipeline::Todo;

const PLAN: &str = "plan.json";

/// A film's segments, and the command that they are of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkPlan {
    /// Where paths of the command lead from.
    pub folder: PathBuf,
    /// Words of `hasn upscale`.
    pub command: Vec<String>,
    /// How many there will be in all.
    pub pictures: u64,
    /// Whether a segment can be begun without decoding all before it.
    pub begins_anywhere: bool,
    /// By segment.
    pub cuts: Vec<CutPoint>,
}

/// The beginning of a segment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CutPoint {
    /// Of its first picture, in the source's ticks.
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

    /// Where the decoder of a segment begins; `None`: at the first picture.
    pub fn begin(&self, segment: u64) -> Option<Begin> {
        let first = (segment * SEGMENT_PICTURES, &self.cuts[segment as usize]);
        let begin = Begin { pts: first.1.pts, index: first.0 };
        (self.begins_anywhere && segment > 0).then_some(begin)
    }

    /// This segment and no other.
    pub fn todo(&self, segment: u64) -> Todo {
        let state = self.cuts[segment as usize].state.clone();
        Todo {
            ready: (0..segment).collect(),
            pictures_ready: 0,
            until: Some(segment + 1),
            starts: [(segment * SEGMENT_PICTURES, state)].into(),
            ..Todo::default()
        }
    }
}

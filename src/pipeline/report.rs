//! What a run did, for people and for machines.

use std::time::Duration;

use serde::Serialize;

use super::clock::{Progress, STAGES};
use crate::error::Result;
use crate::media::{Damage, DamagedPlace, Decoder, Encoder, Found, Muxer, Verification};

/// A run in figures.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Where the frames went.
    pub frames: FrameCounts,
    /// Damaged frames and packets of the source.
    pub damaged: u64,
    /// The first of them.
    pub damaged_places: Vec<DamageReport>,
    /// Ended before the end of the input by the user.
    pub interrupted: bool,
    /// Seconds of the input up to the end of the last frame.
    pub reached_s: f64,
    /// From the first packet to the last.
    pub seconds: f64,
    /// Frames that were encoded in that time: an earlier run's are not among them.
    pub fps: f64,
    /// How many times an encoder was opened.
    pub segments: u64,
    /// Streams that the container could not hold, and side data of frames that the encoder does not take.
    pub left_out: Vec<String>,
    /// Streams whose codec it could not hold, and what they became.
    pub converted: Vec<String>,
    /// Frames that were as the one before and got its result, unless `--no-reuse` was given.
    pub reused: u64,
    /// How often the input's clock jumped and was made to go on.
    pub clock_jumps: u64,
    /// What the finished file was found to hold; `None` for pipes and interrupted runs.
    pub verification: Option<VerificationReport>,
    /// In the order of the flow.
    pub stages: Vec<StageReport>,
    /// The stage that worked longest.
    pub limited_by: &'static str,
    /// Of the whole process; 0 where the system does not tell.
    pub peak_memory_bytes: u64,
}

/// The proof that no frame was lost: `decoded + duplicated = encoded + dropped`.
#[derive(Debug, Serialize, Clone, Copy)]
pub struct FrameCounts {
    /// Came out of the decoder, in the wanted part.
    pub decoded: u64,
    /// Made where the source had none: by the filters, in a file run.
    pub duplicated: u64,
    /// Went into the encoder and came out as a packet.
    pub encoded: u64,
    /// Left out: by the filters, in a file run.
    pub dropped: u64,
    /// Among the decoded: their time was missing or went back, and was made up.
    pub timestamps_repaired: u64,
    /// Times at which no frame came for a while where they had come evenly.
    pub gaps: u64,
    /// Among the decoded: damaged in the source, and patched by the decoder.
    pub patched: u64,
}

/// [`Verification`], to be written down.
#[derive(Debug, Serialize)]
#[allow(missing_docs, reason = "they are the verification's own")]
pub struct VerificationReport {
    pub frames: u64,
    pub duration_s: f64,
    pub first_pts_s: f64,
    pub last_pts_s: f64,
    pub streams: Vec<StreamReport>,
    pub seconds: f64,
}

/// A stream of it.
#[derive(Debug, Serialize)]
#[allow(missing_docs, reason = "they are the verification's own")]
pub struct StreamReport {
    pub kind: String,
    pub codec: String,
    pub language: Option<String>,
    pub dispositions: Vec<&'static str>,
    pub packets: u64,
}

impl From<Verification> for VerificationReport {
    fn from(verification: Verification) -> VerificationReport {
        let Verification { frames, duration_s, first_pts_s, last_pts_s, streams, seconds } = verification;
        let report = |found: Found| {
            let Found { kind, codec, language, dispositions, packets } = found;
            StreamReport { kind, codec, language, dispositions, packets }
        };
        let streams = streams.into_iter().map(report).collect();
        VerificationReport { frames, duration_s, first_pts_s, last_pts_s, streams, seconds }
    }
}

/// Where the source is damaged.
#[derive(Debug, Serialize)]
pub struct DamageReport {
    /// What is wrong.
    pub problem: String,
    /// Index of the frame, or of the one that was decoded next.
    pub frame: Option<u64>,
    /// In the source's ticks.
    pub pts: Option<i64>,
    /// The same in seconds.
    pub seconds: Option<f64>,
}

impl From<DamagedPlace> for DamageReport {
    fn from(place: DamagedPlace) -> DamageReport {
        let DamagedPlace { problem, frame, pts, seconds } = place;
        DamageReport { problem, frame, pts, seconds }
    }
}

/// Of one stage.
#[derive(Debug, Serialize)]
pub struct StageReport {
    /// Its name.
    pub stage: &'static str,
    /// Seconds at work.
    pub worked_s: f64,
    /// Seconds in which its input queue was empty.
    pub waited_for_input_s: f64,
    /// Seconds in which its output queue was full.
    pub waited_for_output_s: f64,
}

impl FrameCounts {
    pub(super) fn count(decoder: &Decoder, encoded: u64) -> FrameCounts {
        // Filters alone make or drop frames in a file run.
        let (duplicated, dropped) = decoder.duplicated_and_dropped();
        FrameCounts {
            decoded: decoder.decoded(),
            duplicated,
            encoded,
            dropped,
            timestamps_repaired: decoder.repaired(),
            gaps: decoder.gaps(),
            patched: decoder.patched(),
        }
    }

    /// Whether every frame is accounted for.
    pub fn add_up(&self) -> bool {
        self.decoded + self.duplicated == self.encoded + self.dropped
    }
}

impl Report {
    pub(super) fn new(
        frames: FrameCounts,
        damage: &Damage,
        encoder: &Encoder,
        progress: &Progress,
        elapsed: Duration,
    ) -> Report {
        let stages = STAGES.map(|stage| {
            let [worked, input, output] = progress.times(stage);
            StageReport {
                stage: stage.name(),
                worked_s: round(worked),
                waited_for_input_s: round(input),
                waited_for_output_s: round(output),
            }
        });
        Report {
            frames,
            damaged: damage.count(),
            damaged_places: damage.places().into_iter().map(DamageReport::from).collect(),
            interrupted: false,
            reached_s: 0.0,
            seconds: round(elapsed),
            fps: (encoder.sent() as f64 / elapsed.as_secs_f64() * 1e3).round() / 1e3,
            segments: encoder.segments(),
            left_out: encoder.left_out().iter().map(|&name| name.into()).collect(),
            converted: Vec::new(),
            reused: 0,
            clock_jumps: 0,
            verification: None,
            stages: stages.into(),
            limited_by: progress.bottleneck().name(),
            peak_memory_bytes: peak_memory_bytes(),
        }
    }

    /// Adds what there is to say of an ended output, and the proof of one that is whole.
    pub fn add_output(&mut self, muxer: &Muxer) -> Result<()> {
        self.reached_s = muxer.reached_s();
        self.left_out.splice(0..0, muxer.left_out().iter().cloned());
        self.converted = muxer.converted().to_vec();
        self.peak_memory_bytes = peak_memory_bytes();
        if !self.interrupted {
            let verification =
                muxer.verify().map_err(|error| error.keeping("the file is left there to be looked at"))?;
            self.verification = verification.map(VerificationReport::from);
        }
        Ok(())
    }
}

fn round(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e3).round() / 1e3
}

/// The kernel's high-water mark of resident memory.
fn peak_memory_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    line.trim().trim_end_matches("kB").trim().parse::<u64>().map_or(0, |kib| kib * 1024)
}

//! The report of a run, whose fields are keys of the JSON report. `docs/transcoding.md` describes each of them.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::clock::{Progress, STAGES, StageTimes};
use crate::error::Result;
use crate::media::{Damage, DamagedPlace, Decoder, Encoder, Muxer, Verification, VerifiedStream};

/// Report of a run.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// Counts of frames.
    pub frames: FrameCounts,
    /// Count of damaged frames and packets of the source.
    pub damaged: u64,
    /// The first damaged places.
    pub damaged_places: Vec<DamageReport>,
    /// Whether the user ended the run before the end of the input.
    pub interrupted: bool,
    /// End of the last frame, in seconds of the input.
    pub reached_s: f64,
    /// Time from the first packet to the last, in seconds.
    pub seconds: f64,
    /// Frames upscaled and encoded per second by this run, without those of earlier runs.
    pub fps: f64,
    /// Count of encoder openings.
    pub segments: u64,
    /// Streams that the container cannot hold, and side data that the encoder does not take.
    pub left_out: Vec<String>,
    /// Streams whose codec the container cannot hold, with their new codec, and colour properties that the file cannot
    /// state, with what readers assume.
    pub converted: Vec<String>,
    /// Count of frames that equal the previous one and got the previous result; 0 with `--no-reuse`.
    pub reused: u64,
    /// Count of jumps of the input's clock, each of which was repaired.
    pub clock_jumps: u64,
    /// Count of changes from interlaced to progressive frames and back.
    pub scan_changes: u64,
    /// Verification of the finished file; `None` for pipes and interrupted runs.
    pub verification: Option<VerificationReport>,
    /// Times of the stages, in the order of the flow.
    pub stages: Vec<StageReport>,
    /// Name of the stage that worked longest.
    pub limited_by: &'static str,
    /// Peak resident memory of the process in bytes; 0 where the system does not report it.
    pub peak_memory_bytes: u64,
}

/// Counts of frames. No frame was lost where `decoded + duplicated = encoded + dropped`.
#[derive(Debug, Default, Serialize, Clone, Copy)]
pub struct FrameCounts {
    /// Frames from the decoder, in the selected part of the input.
    pub decoded: u64,
    /// Frames that filters added.
    pub duplicated: u64,
    /// Frames that the encoder returned as packets.
    pub encoded: u64,
    /// Frames that filters dropped.
    pub dropped: u64,
    /// Decoded frames whose timestamp was missing or went back, and was repaired.
    pub timestamps_repaired: u64,
    /// Gaps in otherwise evenly spaced timestamps.
    pub gaps: u64,
    /// Decoded frames that were damaged in the source and patched by the decoder.
    pub patched: u64,
    /// Decoded frames that were deinterlaced.
    pub deinterlaced: u64,
}

/// Verification of the finished file.
#[derive(Debug, Serialize)]
pub struct VerificationReport {
    /// Count of video frames.
    pub frames: u64,
    /// Duration of the video in seconds.
    pub duration_s: f64,
    /// Timestamp of the first frame in seconds.
    pub first_pts_s: f64,
    /// Timestamp of the last frame in seconds.
    pub last_pts_s: f64,
    /// Streams of the file.
    pub streams: Vec<StreamReport>,
    /// Time that the verification took, in seconds.
    pub seconds: f64,
}

/// Stream of a verified file.
#[derive(Debug, Serialize)]
pub struct StreamReport {
    /// Medium of the stream: `video`, `audio`, `subtitle` and so on.
    pub kind: String,
    /// FFmpeg's name of the codec.
    pub codec: String,
    /// Language tag.
    pub language: Option<String>,
    /// Dispositions that are set.
    pub dispositions: Vec<&'static str>,
    /// Count of packets.
    pub packets: u64,
}

impl From<Verification> for VerificationReport {
    fn from(verification: Verification) -> VerificationReport {
        let Verification { frames, duration_s, first_pts_s, last_pts_s, streams, seconds } = verification;
        let report = |found: VerifiedStream| {
            let VerifiedStream { kind, codec, language, dispositions, packets } = found;
            StreamReport { kind, codec, language, dispositions, packets }
        };
        let streams = streams.into_iter().map(report).collect();
        VerificationReport { frames, duration_s, first_pts_s, last_pts_s, streams, seconds }
    }
}

/// Damaged place of the source.
#[derive(Debug, Serialize, Deserialize)]
pub struct DamageReport {
    /// Description of the damage.
    pub problem: String,
    /// Index of the damaged frame, or of the frame decoded next.
    pub frame: Option<u64>,
    /// Timestamp in the source's time base.
    pub pts: Option<i64>,
    /// Timestamp in seconds.
    pub seconds: Option<f64>,
}

impl From<DamagedPlace> for DamageReport {
    fn from(place: DamagedPlace) -> DamageReport {
        let DamagedPlace { problem, frame, pts, seconds } = place;
        DamageReport { problem, frame, pts, seconds }
    }
}

/// Times of a stage.
#[derive(Debug, Serialize)]
pub struct StageReport {
    /// Name of the stage.
    pub stage: &'static str,
    /// Time at work, in seconds.
    pub worked_s: f64,
    /// Time in which its input queue was empty, in seconds.
    pub waited_for_input_s: f64,
    /// Time in which its output queue was full, in seconds.
    pub waited_for_output_s: f64,
}

impl FrameCounts {
    pub(super) fn count(decoder: &Decoder, encoded: u64) -> FrameCounts {
        // In a file run only filters add or drop frames.
        let (duplicated, dropped) = decoder.duplicated_and_dropped();
        FrameCounts {
            decoded: decoder.decoded(),
            duplicated,
            encoded,
            dropped,
            timestamps_repaired: decoder.repaired(),
            gaps: decoder.gaps(),
            patched: decoder.patched(),
            deinterlaced: decoder.deinterlaced().0,
        }
    }

    /// Whether every frame is accounted for.
    pub fn add_up(&self) -> bool {
        self.decoded + self.duplicated == self.encoded + self.dropped
    }
}

impl Report {
    pub(super) fn new(
        decoder: &Decoder,
        encoder: &Encoder,
        progress: &Progress,
        elapsed: Duration,
    ) -> Report {
        let stages = STAGES.map(|stage| {
            let StageTimes { worked, waited_for_input, waited_for_output } = progress.times(stage);
            StageReport {
                stage: stage.name(),
                worked_s: seconds(worked),
                waited_for_input_s: seconds(waited_for_input),
                waited_for_output_s: seconds(waited_for_output),
            }
        });
        let mut report = Report {
            frames: FrameCounts::default(),
            damaged: 0,
            damaged_places: Vec::new(),
            interrupted: false,
            reached_s: 0.0,
            seconds: seconds(elapsed),
            fps: (encoder.sent().saturating_sub(progress.restored()) as f64 / elapsed.as_secs_f64() * 1e3)
                .round()
                / 1e3,
            segments: encoder.segments(),
            left_out: encoder.left_out().iter().copied().chain(decoder.left_out()).map(Into::into).collect(),
            converted: encoder.color_converted().to_vec(),
            reused: 0,
            clock_jumps: 0,
            scan_changes: decoder.deinterlaced().1,
            verification: None,
            stages: stages.into(),
            limited_by: progress.bottleneck().name(),
            peak_memory_bytes: peak_memory_bytes(),
        };
        report.count_damage(decoder.damage());
        report
    }

    /// Takes the damage that was found so far: what is converted for a join is read after the run.
    pub(crate) fn count_damage(&mut self, damage: &Damage) {
        self.damaged = damage.count();
        self.damaged_places = damage.places().into_iter().map(DamageReport::from).collect();
    }

    /// Adds what the ended output holds, and the verification of a complete one.
    pub fn add_output(&mut self, muxer: &Muxer) -> Result<()> {
        self.reached_s = muxer.reached_s();
        self.left_out.splice(0..0, muxer.left_out().iter().cloned());
        self.converted.splice(0..0, muxer.converted().iter().cloned());
        self.peak_memory_bytes = peak_memory_bytes();
        if !self.interrupted {
            let verification =
                muxer.verify().map_err(|error| error.keeping("the file is left there for inspection"))?;
            self.verification = verification.map(VerificationReport::from);
        }
        Ok(())
    }
}

/// Returns seconds, rounded to milliseconds.
fn seconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e3).round() / 1e3
}

/// Returns the kernel's high-water mark of resident memory.
pub(crate) fn peak_memory_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    line.trim().trim_end_matches("kB").trim().parse::<u64>().map_or(0, |kib| kib * 1024)
}

//! Job: one input upscaled to one output, from options to a report. The entry point of the library and of the program.
//!
//! ```text
//! Options ─open→ Job ─run→ Report
//!                 │ direct: standard output and images; packets go straight into the output
//!                 │ journal, pipe: video files; packets go into segments, which are joined at the end
//!                 │ sequence: image sequences; one file per frame
//! ```
//!
//! [`open`] opens and checks everything and writes nothing. [`Job::run`] writes under a partial name, or into a journal
//! beside the output, verifies what it has written and renames it at the end. A run that was interrupted or killed
//! resumes with the same options. Nothing here prints or asks: progress goes to [`Progress`], questions are answered by
//! [`Options`], and log lines go to `tracing`.
//!
//! | file | what |
//! |---|---|
//! | `options` | all that a user can choose |
//! | `run` | opens a job, and chooses between direct, journal and sequence |
//! | `parts` | input, decoder, engine and encoder, opened from options |
//! | `resume`, `pipe`, `sequence` | runs with a journal: segments of a video, of a pipe, files of an image sequence |
//! | `publish` | the end of a run: the output's name, the report |
//! | `fingerprint` | what the packets in a journal depend on |
//! | `dry_run`, `estimate` | what a run would do, and what it would take, measured on short spans |
//! | `preview` | single frames, upscaled and by FFmpeg's bicubic filter |
//! | `farm` | one video upscaled by many processes |
//! | `batch`, `collect` | many videos: finding them, and the outcome of each |
//! | `progress`, `report`, `end` | what a caller sees |

pub(crate) mod batch;
pub(crate) mod collect;
pub(crate) mod dry_run;
mod end;
pub(crate) mod estimate;
pub(crate) mod farm;
mod fingerprint;
mod interrupt;
mod options;
mod parts;
mod pipe;
pub(crate) mod preview;
mod progress;
mod publish;
mod report;
mod resume;
mod run;
mod sequence;

pub use crate::engine::EngineChoice;
pub use crate::engine::cpu::Precision;
pub use crate::media::{AudioMode, Deinterlace};
pub use crate::pipeline::{
    DamageReport, FrameCounts, Report as RunReport, STAGES, Stage, StageReport, StageTimes, StreamReport,
    VerificationReport,
};
pub(crate) use end::{End, INTERRUPTED, SCHEMA, files_of, now, rfc3339};
pub use interrupt::Interrupt;
pub use options::{Options, Preset, Resume, Size};
pub use progress::{Event, Progress};
pub use report::{Kept, Report, Summary};
pub(crate) use report::{check_report, check_report_writable, write_report};
pub use run::{Job, open};

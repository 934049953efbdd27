//! Stages on threads with bounded queues between them: the path of a frame from demux to mux.
//!
//! In: an opened [`Run`]. Out: an [`Outcome`]: stored segments, or a muxer whose file is complete, and a [`Report`]. The
//! pipeline knows no sample, no layer and no file format.
//!
//! ```text
//! demux ─packets→ decode ─frames→ upscale ─frames→ encode ─packets→ mux
//!   └──────────────── packets of other streams, never held back ─────────┘
//! ```
//!
//! A slow stage fills the queue before it and so stops its producer. A stage ends its stream by dropping the sender, and
//! notices a consumer that has stopped by a failed send. Only the first error is reported.

mod clock;
mod report;
mod resume;
mod run;
mod shared;
mod sink;
mod stages;

pub use clock::{Progress, STAGES, Stage, StageTimes};
pub(crate) use report::peak_memory_bytes;
pub use report::{DamageReport, FrameCounts, Report, StageReport, StreamReport, VerificationReport};
pub use resume::{FinishedImages, ResumeState};
pub use run::{Outcome, Run};
pub use sink::{FrameCache, Sink, Store};

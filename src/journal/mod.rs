//! The journal of a long run: segments that survive a crash, and the file that is joined from them at the end.
//!
//! In: packets, and cuts that depend on the input alone. Out: a muxer whose file is complete. The journal knows neither
//! samples nor how packets were encoded, but it stores what they depend on: the job's fingerprint.
//!
//! `video.mkv.hasn/` lies next to `video.mkv` until that is complete:
//!
//! ```text
//! journal.json     the job's fingerprint; a run with another one is refused
//! joining          the partial file beside the folder is written from these segments
//! joined           size and checksum of the joined file, and the run's report, written just before it gets its name
//! lock             locked by the process that writes
//! plan.json        of a distributed run: where segments start
//! 000000.segment   a segment, which gets its name when it is complete and on the disk; a record at its end describes it
//! 000000.frames    upscaled frames of a segment that is not complete and takes long
//! .writing-*       a file that is being written, useless after a crash
//! ```
//!
//! There is no list of segments: those that exist are finished. An image sequence has another folder, described in
//! `sequence`.

mod batch_record;
mod disk;
mod fingerprint;
mod folder;
mod join;
mod kept_frames;
mod plan;
mod segments;
mod sequence;

pub use batch_record::{BatchRecord, OutputState};
pub use disk::Disk;
pub use fingerprint::{FFMPEG, JobFingerprint, checksum};
pub(crate) use folder::{check_writable, replace};
pub use join::{CopiedInput, JoinOutput, join};
pub use plan::{CutPoint, WorkPlan};
pub use segments::Journal;
pub use sequence::SequenceJournal;

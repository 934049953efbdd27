//! Journal: a long run in segments that no crash undoes, and the file that is joined from them at the end.
//!
//! In: packets, and cuts that depend on the input alone. Out: a muxer whose file is whole. It knows neither samples nor
//! how packets came about, only what they depend on: the facts.
//!
//! `video.mkv.hasn/` lies beside `video.mkv` while it is made:
//!
//! ```text
//! journal.json     the facts; what is begun with others is refused by name
//! joined           which file is the video, just before it gets its name
//! lock             whoever writes holds it
//! plan.json        of work that is shared out: where segments begin
//! 000000.segment   has its name when it is whole and on the disk; its end says what it holds
//! .writing-*       the segment that is written: worth nothing after a crash
//! ```
//!
//! There is no list of segments: those that are there, are done. A sequence of frames has another folder, told of in
//! `frames`.

mod batch_record;
mod disk;
mod fingerprint;
mod folder;
mod join;
mod plan;
mod segments;
mod sequence;

pub use batch_record::{BatchRecord, OutputState};
pub use fingerprint::{JobFingerprint, checksum};
pub use join::{JoinOutput, join};
pub use plan::{CutPoint, WorkPlan};
pub use segments::Journal;
pub use sequence::SequenceJournal;

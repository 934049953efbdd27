//! A video upscaler: FFmpeg decodes, the HASN super-resolution network upscales, FFmpeg encodes. Streams, timestamps and
//! tags of the input are kept.
//!
//! # From file to file
//!
//! ```
//! use hasn::job::{self, Interrupt, Options, Progress};
//!
//! # fn main() -> hasn::Result<()> {
//! # let folder = tempfile::tempdir().unwrap();
//! # std::env::set_current_dir(&folder).unwrap();
//! # let frame = [b"FRAME\n".as_slice(), &[90; 32 * 24 * 3 / 2]].concat();
//! # let header = b"YUV4MPEG2 W32 H24 F25:1 C420jpeg\n".as_slice();
//! # std::fs::write("input.y4m", [header, &frame, &frame].concat()).unwrap();
//! let mut options = Options::new("input.y4m", "output.mkv");
//! options.encoder_options.push(("crf".into(), "16".into()));
//!
//! let job = job::open(&options, &Interrupt::default())?;
//! println!("{}x{}", job.summary().width, job.summary().height);
//! let report = job.run(&Progress::default())?;
//! println!("{} frames at {:.1} fps", report.run.frames.encoded, report.run.fps);
//! # assert_eq!((report.summary.width, report.run.frames.encoded), (64, 2));
//! # Ok(())
//! # }
//! ```
//!
//! [`job`] is what the program `hasn upscale` calls as well: resume after a crash, image sequences, verification of the
//! output and the report are part of it. `examples/upscale_video.rs` adds a progress display and Ctrl-C,
//! `examples/upscale_image.rs` drives an [`engine`] with one frame.
//!
//! # Architecture
//!
//! ```text
//! demux ─packets→ decode ─frames→ upscale ─frames→ encode ─packets→ mux
//!   └──────── audio, subtitles, attachments, chapters: copied ──────────┘
//! ```
//!
//! A frame from file to file, module by module:
//!
//! 1. [`job`] opens all parts from [`job::Options`] and writes nothing yet.
//! 2. `media` is all of FFmpeg: it demuxes packets and decodes them to [`frame::Frame`]s, with the timestamps of their
//!    source.
//! 3. `pipeline` runs the stages on threads with bounded queues between them.
//! 4. [`engine`] upscales LR frames to SR frames: code values to numbers (`pixel`), luma or R'G'B' through a network of
//!    [`model`], chroma through the resampler, numbers to code values. [`color`] defines what code values mean.
//! 5. `media` encodes the SR frames in segments, which `journal` stores until all are complete, and muxes them with the
//!    copied streams.
//! 6. [`job`] verifies the file, renames it to its name and returns a [`job::Report`].
//!
//! A live stream takes another path through the same parts: [`relay`]. [`quality`] compares frames: PSNR-Y and SSIM-Y.
//!
//! Modules import in one direction, which a test enforces:
//!
//! ```text
//! error ← color ← frame ← {media, model, pixel} ← engine ← pipeline ← {journal, relay} ← job ← cli ← main
//! ```
//!
//! `media` knows no network, `engine` no FFmpeg, `pipeline` neither samples nor layers. Every dependency is used in one
//! place, and no public item names a type of a dependency. `docs/architecture.md` in the repository has the details.
//!
//! # Logs and errors
//!
//! The library prints nothing: it logs through `tracing`. An [`Error`] is one line, `subject: problem; remedy`, with a
//! [kind](ErrorKind) for programs. Remedies name the options of the command line; the fields of [`job::Options`] have the
//! same names or longer forms of them.

// Lets unit tests use the helpers of the integration tests, which name the crate.
#[cfg(test)]
extern crate self as hasn;

#[doc(hidden)]
pub mod cli;
pub mod color;
pub mod engine;
pub mod error;
pub mod frame;
pub mod job;
mod journal;
mod media;
pub mod model;
mod pipeline;
mod pixel;
pub mod quality;
pub mod relay;
mod sync;
#[cfg(test)]
mod testing;

pub use error::{Error, ErrorKind, Result};
pub use media::{FrameReader, StillWriter};

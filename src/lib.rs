//! A video upscaler: FFmpeg in, the HASN super-resolution network, FFmpeg out.
//!
//! ```text
//! demux ─packets→ decode ─frames→ upscale ─frames→ encode ─packets→ mux
//!   └──────── audio, subtitles, attachments, chapters: copied ──────────┘
//! ```
//!
//! A frame is followed from file to file by reading these in order:
//!
//! 1. [`cli`] makes of typed arguments a [`pipeline::Run`]: all parts opened, nothing written.
//! 2. [`media::Input`] reads packets, [`media::Decoder`] lends decoded frames as [`frame::Frame`]s, with
//!    the time that their source gave them.
//! 3. [`pipeline`] runs the stages on threads with bounded queues between them.
//! 4. [`engine`] makes LR frames into SR frames: code values to numbers ([`pixel`]), luma
//!    or R'G'B' through a network of [`model`], chroma through [`pixel::resample`], numbers to code values.
//!    What a code value means is [`color`]'s to say.
//! 5. [`media::Encoder`] takes the SR frames, which came from its own pool, and cuts segments, which [`journal`] keeps
//!    through crashes until all are there.
//! 6. [`media::Muxer`] writes their packets among the copied ones, and gives the file its name at the end.
//!
//! A live stream goes another way through the same parts: [`relay`].
//!
//! Modules point one way: `error ← color ← frame ← {media, model, engine} ← pipeline ← {journal, relay} ← cli`. Media knows
//! nothing of networks, engines nothing of FFmpeg, the pipeline neither samples nor layers. FFmpeg, rayon,
//! crossbeam and the rest live in one room each.
//!
//! [`engine::reference`] is the network as published, layer by layer: every faster engine is held to it, and
//! it to PyTorch. `examples/upscale_image.rs` is the library in 30 lines.

// So that helpers of the integration tests serve in here too.
#[cfg(test)]
extern crate self as hasn;

pub mod cli;
pub mod color;
pub mod engine;
pub mod error;
pub mod frame;
pub mod job;
pub mod journal;
pub mod media;
pub mod model;
pub mod pipeline;
mod pixel;
pub mod quality;
pub mod relay;
mod sync;
#[cfg(test)]
mod testing;

pub use error::{Error, ErrorKind, Result};

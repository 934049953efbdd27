//! Upscaling of video with HASN.

pub mod cli;
pub mod color;
pub mod engine;
pub mod error;
pub mod media;
pub mod model;
pub mod picture;
pub mod pipeline;
pub mod quality;
#[cfg(test)]
mod testing;

pub use error::{Error, Result};

//! Mux: packets become a file or a live output; the file is verified.

pub(crate) mod audio;
pub(crate) mod channel_layout;
mod grid;
pub(crate) mod language;
pub(crate) mod live;
pub(crate) mod live_output;
pub(crate) mod metadata;
pub(crate) mod muxer;
pub(crate) mod planned;
pub(crate) mod silence;
pub(crate) mod streams;
pub(crate) mod summary;
pub(crate) mod text;
mod time_pattern;
pub(crate) mod transcode;
pub(crate) mod verify;

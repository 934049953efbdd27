//! Mux: packets become a file or a live output, and the file is verified.

pub(crate) mod live_output;
pub(crate) mod muxer;
pub(crate) mod silence;
pub(crate) mod streams;
pub(crate) mod transcode;
pub(crate) mod verify;

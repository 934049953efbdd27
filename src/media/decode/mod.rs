//! Decode: packets become frames, with filters and deinterlacing.

pub(crate) mod alpha;
mod captions;
pub(crate) mod convert;
pub(crate) mod decoder;
pub(crate) mod exr;
pub(crate) mod fields;
pub(crate) mod filter;
pub(crate) mod interlace;
pub(crate) mod open;
pub(crate) mod orientation;
pub(crate) mod reader;
pub(crate) mod shape;
pub(crate) mod timed_frame;
pub(crate) mod timestamps;

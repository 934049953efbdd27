//! Encode: frames become packets, in segments that depend on the input alone.

mod dpx;
pub(crate) mod encoder;
mod exr;
pub(crate) mod field_order;
mod frame_properties;
pub(crate) mod jpeg;
pub(crate) mod list;
pub(crate) mod options;
pub(crate) mod palette;
pub(crate) mod still;
pub(crate) mod target;

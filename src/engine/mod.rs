//! The one dynamic border: whole frames in, whole frames out.
//!
//! An engine is one device with several networks, all of which give the same size, phase and chroma. It
//! is opened on the thread that drives it, from an [`EngineSpec`] that can be sent there. It knows
//! frames, colour and models; it does not know FFmpeg.

mod choice;
pub mod cpu;
pub(crate) mod cuda;
pub mod forward;
mod host;
mod light;
mod open;
mod plan;
pub mod reference;
mod reuse;
mod rewrite;
mod spec;

pub use choice::{EngineChoice, SIDE_MAX, thread_count};
pub use spec::{Engine, EngineKind, EngineSpec, Network, NetworkId};

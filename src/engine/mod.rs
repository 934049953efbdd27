//! Upscaling engines: LR frames in, SR frames out, asynchronously and in order.
//!
//! An engine is one device with several networks, all of which give the same size, phase and chroma. It is opened on the
//! thread that drives it, from an [`EngineSpec`] that can be sent there. It knows frames, colour and models; it does not
//! know FFmpeg.
//!
//! | file | what |
//! |---|---|
//! | `spec` | the trait [`Engine`], and the parameters of an engine |
//! | `choice` | engines and networks by the names that users give |
//! | `open` | from an [`EngineSpec`] to an engine: the only file that knows all of them |
//! | `plan` | the steps from an LR frame to an SR frame |
//! | `host` | the engine of the CPU: runs a plan on worker threads |
//! | `memory`, `available` | memory of its planes and tensors, and what the system leaves of it |
//! | `reference`, `cpu` | the networks that it runs: as published, layer by layer, and in SIMD |
//! | `rewrite` | exact rewrites of the network, shared by `cpu` and `cuda` |
//! | `cuda` | the engine of NVIDIA GPUs |
//! | `linear_light`, `reuse` | wrappers: linear light coded as sRGB; repeated frames |

mod available;
mod choice;
pub mod cpu;
pub(crate) mod cuda;
pub(crate) mod forward;
mod host;
mod linear_light;
pub(crate) mod memory;
mod open;
mod plan;
pub(crate) mod reference;
mod reuse;
mod rewrite;
mod spec;
#[cfg(test)]
mod tests;

pub use choice::{EngineChoice, SIDE_MAX, thread_count};
pub use spec::{Engine, EngineKind, EngineSpec, Network, NetworkId};

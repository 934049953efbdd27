//! The interface of every engine, and the parameters that one is opened from.
//!
//! It must not know the engines themselves: `open` does.

use std::sync::Arc;

use super::cpu::{Level, Precision};
use crate::error::Result;
use crate::frame::{Frame, FrameFormat};
use crate::model::Model;

/// A device that upscales frames, in order.
pub trait Engine {
    /// The number of frames that can be in flight: before another one is submitted, one must be collected.
    fn depth(&self) -> usize;

    /// Starts to upscale `lr` into `sr`, which is filled when [`Engine::collect`] returns both.
    fn submit(&mut self, lr: Frame, sr: Frame, network: NetworkId) -> Result<()>;

    /// Waits for the oldest submitted pair and returns it; `None` when nothing is in flight.
    fn collect(&mut self) -> Result<Option<(Frame, Frame)>>;

    /// The number of frames that equal the previous frame and share its result.
    fn reused(&self) -> u64 {
        0
    }
}

/// Index into [`EngineSpec::networks`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NetworkId(pub usize);

/// A way to upscale a frame.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Network {
    /// The separable resampler alone.
    Resample,
    /// HASN, in as many passes as the size requires, then the resampler to the exact size.
    Hasn(Arc<Model>),
}

impl Network {
    /// The name that users give: `none`, or the model's.
    pub fn name(&self) -> &str {
        match self {
            Network::Resample => "none",
            Network::Hasn(model) => &model.name,
        }
    }
}

/// Which engine runs the networks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum EngineKind {
    /// The network as published, layer by layer in ndarray: slow, the reference of all checks.
    Reference,
    /// SIMD on all cores, by an instruction set of this CPU.
    Cpu(Level, Precision),
    /// The first NVIDIA GPU: f16 on tensor cores, summed in f32.
    Cuda,
}

/// The parameters of an engine, which can be sent to the thread that opens it.
#[derive(Clone, Debug)]
pub struct EngineSpec {
    /// The engine.
    pub kind: EngineKind,
    /// Number of CPU threads, above 0.
    pub threads: usize,
    /// Number of frames that may be submitted before the first one is collected, above 0. With 1 all threads work on one
    /// frame, for the lowest latency; with more a CPU reaches its highest throughput. GPUs have a depth of their own.
    pub in_flight: usize,
    /// The networks that frames can be submitted to.
    pub networks: Vec<Network>,
    /// The memory that the engine may take, with the frames in flight, in bytes; `None` for what can be had when it is
    /// opened. A CPU has fewer frames in flight where that makes them fit.
    pub memory_max: Option<u64>,
    /// Format of the LR frames.
    pub lr: FrameFormat,
    /// Format of the SR frames.
    pub sr: FrameFormat,
}

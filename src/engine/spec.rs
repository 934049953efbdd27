//! What every engine does, and all that one is opened from.
//!
//! It must not know the engines themselves: `open` does.

use std::sync::Arc;

use super::cpu::Precision;
use crate::error::Result;
use crate::frame::{Frame, FrameFormat};
use crate::model::Model;

/// A device that makes LR frames into SR frames, in order.
pub trait Engine {
    /// Frames in flight: after so many submitted ones, one must be collected.
    fn depth(&self) -> usize;

    /// Starts work on `lr`; `sr` is filled by the time both come back from [`Engine::collect`].
    fn submit(&mut self, lr: Frame, sr: Frame, network: NetworkId) -> Result<()>;

    /// The oldest submitted pair, waiting for it if need be; `None` when nothing is in flight.
    fn collect(&mut self) -> Result<Option<(Frame, Frame)>>;

    /// Frames that were as the one before and got its result.
    fn reused(&self) -> u64 {
        0
    }
}

/// Index into [`EngineSpec::networks`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NetworkId(pub usize);

/// One way of making a frame larger.
#[derive(Clone, Debug)]
pub enum Network {
    /// The separable resampler alone.
    Resample,
    /// HASN, as often as the size asks for, then the resampler to the exact size.
    Hasn(Arc<Model>),
}

impl Network {
    /// As users name it.
    pub fn name(&self) -> &str {
        match self {
            Network::Resample => "none",
            Network::Hasn(model) => &model.name,
        }
    }
}

/// Which engine runs the networks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EngineKind {
    /// The paper layer by layer in ndarray: slow, the oracle.
    Reference,
    /// SIMD on all cores.
    Cpu(Precision),
    /// The first NVIDIA GPU: f16 on tensor cores, summed in f32.
    Cuda,
}

/// All that an engine needs to be opened, on whatever thread that happens.
#[derive(Clone, Debug)]
pub struct EngineSpec {
    /// Which one.
    pub kind: EngineKind,
    /// Threads it may use, above 0.
    pub threads: usize,
    /// Frames that may be submitted before the first one is collected, above 0. With 1 all threads work on one frame,
    /// and it is made in the least time; with many a CPU makes the most of them in a second. GPUs choose for themselves.
    pub in_flight: usize,
    /// What can be submitted with.
    pub networks: Vec<Network>,
    /// Of the frames that come in.
    pub lr: FrameFormat,
    /// Of the frames to fill.
    pub sr: FrameFormat,
}

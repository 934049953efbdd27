//! The one dynamic border: whole frames in, whole frames out.
//!
//! An engine is one device with several networks, all of which give the same size, phase and chroma. It
//! is opened on the thread that drives it, from an [`EngineSpec`] that can be sent there. It knows
//! frames, colour and models; it does not know FFmpeg.

pub mod cpu;
pub(crate) mod cuda;
pub mod forward;
mod host;
mod light;
mod plan;
pub mod reference;
mod reuse;
mod rewrite;

use std::sync::Arc;

use crate::error::Result;
use crate::frame::{Frame, FrameFormat};
use crate::model::Model;
use host::{HostEngine, HostNetwork};
use light::Light;
use plan::{Shape, plan};
use reference::{Reference, ReferencePass};
use reuse::Reuse;

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
    Cpu(cpu::Precision),
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

impl EngineSpec {
    /// Whether the engine can do what is asked, without taking its memory.
    pub fn check(&self) -> Result<()> {
        self.networks.iter().try_for_each(|network| {
            let shape = match network {
                Network::Resample => None,
                Network::Hasn(model) => {
                    Some(Shape { scale: model.sizes.scale, in_channels: model.sizes.in_channels })
                }
            };
            plan(&self.lr, &self.sr, shape).map(drop)
        })?;
        if self.kind == EngineKind::Cuda { cuda::check(self) } else { Ok(()) }
    }

    /// Opens the engine on the thread that is going to drive it.
    pub fn open(&self) -> Result<Box<dyn Engine>> {
        if let Some(coded) = light::coded(self) {
            return Ok(Box::new(Light::new(coded.open()?, &coded, self)?));
        }
        match self.kind {
            EngineKind::Cuda => cuda::open(self),
            EngineKind::Reference => {
                // What it takes for a frame no lane knows.
                let spec = EngineSpec { in_flight: 1, ..self.clone() };
                spec.open_host(|model, size, _| {
                    Box::new(ReferencePass { reference: Reference::new(model.clone()), size })
                })
            }
            EngineKind::Cpu(precision) => {
                let level = cpu::level::detect()?;
                tracing::info!(level = level.name(), precision = precision.name(), "CPU engine");
                self.open_host(move |model, size, threads| {
                    Box::new(cpu::Net::new(model, level, precision, size, threads))
                })
            }
        }
    }

    /// The same, with the network left out where a frame is as the one before.
    pub fn open_with_reuse(&self) -> Result<Box<dyn Engine>> {
        Ok(Box::new(Reuse::new(self.open()?)))
    }

    /// An engine of this machine's cores, whose networks are opened by `pass`.
    fn open_host(
        &self,
        pass: impl Fn(&Arc<Model>, (usize, usize), usize) -> Box<dyn forward::Forward> + Copy + 'static,
    ) -> Result<Box<dyn Engine>> {
        let host = |network: &Network| match network {
            Network::Resample => HostNetwork::Resample,
            Network::Hasn(model) => {
                let shape = Shape { scale: model.sizes.scale, in_channels: model.sizes.in_channels };
                let model = model.clone();
                HostNetwork::Net { shape, open: Box::new(move |size, threads| pass(&model, size, threads)) }
            }
        };
        let networks: Vec<_> = self.networks.iter().map(host).collect();
        Ok(Box::new(HostEngine::open(self, &networks)?))
    }
}

//! From an [`EngineSpec`] to an engine: the only file that knows all of them.

use std::sync::Arc;

use tracing::warn;

use super::available::{Available, available};
use super::forward::OpenPass;
use super::host::{Division, HostEngine, HostNetwork, depth};
use super::linear_light::{self, LinearLight};
use super::memory::{REMEDY, in_units};
use super::plan::{Shape, plan};
use super::reference::Reference;
use super::reuse::Reuse;
use super::spec::{Engine, EngineKind, EngineSpec, Network};
use super::{cpu, cuda};
use crate::error::{Error, ErrorKind, Result};
use crate::model::Model;

/// Frames that a GPU has in flight at most, each in a ring of pinned memory besides.
const GPU_FRAMES: u64 = 2 * 4;

impl EngineSpec {
    /// Checks that the engine can run this spec and have the memory that it takes, without allocating it.
    pub fn check(&self) -> Result<()> {
        self.memory().map(drop)
    }

    /// As [`check`](EngineSpec::check). Returns the bytes that the engine takes of the machine's memory, with the frames in
    /// flight.
    pub(crate) fn memory(&self) -> Result<u64> {
        if let Some(coded) = linear_light::coded_as_srgb(self) {
            return Ok(coded.memory()? + self.coded_bytes());
        }
        match self.kind {
            EngineKind::Cuda => {
                for network in &self.networks {
                    plan(&self.lr, &self.sr, network.shape())?;
                }
                cuda::check(self)?;
                Ok(GPU_FRAMES * (self.lr.bytes() + self.sr.bytes()) as u64)
            }
            EngineKind::Reference | EngineKind::Cpu(..) => {
                Ok(Division::choose(self, &self.host_networks())?.bytes)
            }
        }
    }

    /// Most that the copies of the frames in flight take, which are coded by another transfer function.
    fn coded_bytes(&self) -> u64 {
        (self.in_flight.min(depth(self.threads)) * self.lr.bytes()) as u64
    }

    /// The least memory with which the engine runs, as [`memory`](EngineSpec::memory).
    fn memory_least(&self) -> Result<u64> {
        match (linear_light::coded_as_srgb(self), self.kind) {
            (Some(coded), _) => Ok(coded.memory_least()? + self.coded_bytes()),
            (None, EngineKind::Cuda) => self.memory(),
            (None, _) => Ok(Division::least(self, &self.host_networks())?.bytes),
        }
    }

    /// Limits the engine to the memory that a run leaves it, of which its frames outside of the engine take `frames` bytes
    /// and its decoder and its encoder about `codecs`. Returns what the run takes as well. `subject` is what is upscaled.
    pub(crate) fn fit(self, subject: &str, frames: u64, codecs: u64) -> Result<(EngineSpec, u64)> {
        let Some(Available { bytes: available, by }) = available() else {
            let bytes = self.memory()? + frames + codecs;
            return Ok((self, bytes));
        };
        let within = |max: u64| EngineSpec { memory_max: Some(max), ..self.clone() };
        let spec = within(available.saturating_sub(frames + codecs));
        match spec.memory() {
            Ok(bytes) => return Ok((spec, bytes + frames + codecs)),
            Err(error) if error.kind() != ErrorKind::OutOfMemory => return Err(error),
            Err(_) => {}
        }
        // The share of the codecs is an estimate: it refuses nothing.
        let least = self.memory_least()? + frames;
        let sizes = format!("{}x{} to {}x{}", self.lr.width, self.lr.height, self.sr.width, self.sr.height);
        let (needed, had) = (in_units(least), in_units(available));
        if least > available {
            let problem = format!("{sizes} takes {needed} of memory, and {had} can be had {by}");
            return Err(Error::new(subject, problem, REMEDY).with_kind(ErrorKind::OutOfMemory));
        }
        let codecs_take = in_units(codecs);
        warn!(
            "{subject}: {sizes} takes {needed} of memory, decoder and encoder about {codecs_take} more, and {had} can be had {by}: \
             it may run out"
        );
        Ok((within(available - frames), least + codecs))
    }

    /// Opens the engine. Call it on the thread that will drive the engine.
    pub fn open(&self) -> Result<Box<dyn Engine>> {
        if let Some(coded) = linear_light::coded_as_srgb(self) {
            return Ok(Box::new(LinearLight::new(coded.open()?, &coded, self)?));
        }
        match self.kind {
            EngineKind::Cuda => return cuda::open(self),
            EngineKind::Reference => {}
            EngineKind::Cpu(level, precision) => {
                tracing::info!(level = level.name(), precision = precision.name(), "CPU engine");
            }
        }
        Ok(Box::new(HostEngine::open(self, &self.host_networks())?))
    }

    /// Opens the engine, and skips the network where a frame equals the previous one.
    pub fn open_with_reuse(&self) -> Result<Box<dyn Engine>> {
        Ok(Box::new(Reuse::new(self.open()?)))
    }

    /// The networks of an engine on this machine's cores.
    fn host_networks(&self) -> Vec<HostNetwork> {
        let open = |model: &Arc<Model>| -> Box<dyn OpenPass> {
            match self.kind {
                EngineKind::Cpu(level, precision) => {
                    Box::new(cpu::Passes::new(model.clone(), level, precision))
                }
                _ => Box::new(Reference::new(model.clone())),
            }
        };
        let host = |network: &Network| match network {
            Network::Resample => HostNetwork::Resample,
            Network::Hasn(model) => HostNetwork::Net { shape: Shape::of(&model.sizes), open: open(model) },
        };
        self.networks.iter().map(host).collect()
    }
}

impl Network {
    fn shape(&self) -> Option<Shape> {
        match self {
            Network::Resample => None,
            Network::Hasn(model) => Some(Shape::of(&model.sizes)),
        }
    }
}

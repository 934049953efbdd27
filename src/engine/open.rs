//! From an [`EngineSpec`] to an engine: the only file that knows all of them.

use std::sync::Arc;

use super::host::{HostEngine, HostNetwork, OpenPass};
use super::linear_light::{self, LinearLight};
use super::plan::{Shape, plan};
use super::reference::{Reference, ReferencePass};
use super::reuse::Reuse;
use super::spec::{Engine, EngineKind, EngineSpec, Network};
use super::{cpu, cuda};
use crate::error::Result;
use crate::model::Model;

impl EngineSpec {
    /// Checks that the engine can run this spec, without allocating its memory.
    pub fn check(&self) -> Result<()> {
        self.networks.iter().try_for_each(|network| {
            let shape = match network {
                Network::Resample => None,
                Network::Hasn(model) => Some(Shape::of(&model.sizes)),
            };
            plan(&self.lr, &self.sr, shape).map(drop)
        })?;
        if self.kind == EngineKind::Cuda { cuda::check(self) } else { Ok(()) }
    }

    /// Opens the engine. Call it on the thread that will drive the engine.
    pub fn open(&self) -> Result<Box<dyn Engine>> {
        if let Some(coded) = linear_light::coded_as_srgb(self) {
            return Ok(Box::new(LinearLight::new(coded.open()?, &coded, self)?));
        }
        match self.kind {
            EngineKind::Cuda => cuda::open(self),
            EngineKind::Reference => {
                // One worker: the memory that the reference takes is not known.
                let spec = EngineSpec { in_flight: 1, ..self.clone() };
                spec.open_host(|model| {
                    let model = model.clone();
                    Box::new(move |size, _| {
                        Box::new(ReferencePass { reference: Reference::new(model.clone()), size })
                    })
                })
            }
            EngineKind::Cpu(level, precision) => {
                tracing::info!(level = level.name(), precision = precision.name(), "CPU engine");
                self.open_host(|model| {
                    let weights = cpu::Weights::new(model, level, precision);
                    Box::new(move |size, threads| Box::new(cpu::Net::new(weights.clone(), size, threads)))
                })
            }
        }
    }

    /// Opens the engine, and skips the network where a frame equals the previous one.
    pub fn open_with_reuse(&self) -> Result<Box<dyn Engine>> {
        Ok(Box::new(Reuse::new(self.open()?)))
    }

    /// Opens an engine on this machine's cores. `opener` returns what opens the passes of a network, which share its
    /// weights.
    fn open_host(&self, opener: impl Fn(&Arc<Model>) -> Box<OpenPass>) -> Result<Box<dyn Engine>> {
        let host = |network: &Network| match network {
            Network::Resample => HostNetwork::Resample,
            Network::Hasn(model) => HostNetwork::Net { shape: Shape::of(&model.sizes), open: opener(model) },
        };
        let networks: Vec<_> = self.networks.iter().map(host).collect();
        Ok(Box::new(HostEngine::open(self, &networks)?))
    }
}

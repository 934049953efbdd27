//! From an [`EngineSpec`] to an open engine: the one place that knows all of them.

use std::sync::Arc;

use super::forward::Forward;
use super::host::{HostEngine, HostNetwork};
use super::light::{self, Light};
use super::plan::{Shape, plan};
use super::reference::{Reference, ReferencePass};
use super::reuse::Reuse;
use super::spec::{Engine, EngineKind, EngineSpec, Network};
use super::{cpu, cuda};
use crate::error::Result;
use crate::model::Model;

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
        pass: impl Fn(&Arc<Model>, (usize, usize), usize) -> Box<dyn Forward> + Copy + 'static,
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

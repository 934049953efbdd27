//! The CUDA engine: pictures in and out through a ring of pinned memory, copies beside the kernels.

mod archive;
mod device;
mod driver;
mod engine;
mod kernels;
mod net;
mod weights;

pub(crate) use driver::probe;

use super::{Engine, EngineSpec};
use crate::error::Result;
use device::Device;
use driver::Driver;
use engine::CudaEngine;

/// The engine on the machine's first GPU.
pub(super) fn open(spec: &EngineSpec) -> Result<Box<dyn Engine>> {
    let driver = Driver::open()?;
    tracing::info!(device = driver.name(), "CUDA engine");
    Ok(Box::new(CudaEngine::open(driver, spec)?))
}

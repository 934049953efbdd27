//! The CUDA engine: pictures in and out through a ring of pinned memory, copies beside the kernels.
//!
//! | file | what |
//! |---|---|
//! | `engine` | the ring, and a picture through a plan |
//! | `net` | a network as launches |
//! | `kernels` | a typed launcher for each of `kernels/*.cu` |
//! | `maps` | what lies in the device's memory, and how large it is |
//! | `layout` | a picture in one piece of memory |
//! | `weights` | weights as the kernels read them |
//! | `device` | what is asked of a device |
//! | `driver`, `archive` | NVIDIA's driver as a device, and the kernels compiled ahead |
//! | `emulated` | the host as a device, for tests |
//!
//! It must not know FFmpeg, files, or what runs a kernel: only `driver` has met a GPU.

mod archive;
#[cfg(test)]
mod budget;
mod device;
mod driver;
#[cfg(test)]
mod emulated;
mod engine;
mod kernels;
mod layout;
mod maps;
mod net;
#[cfg(test)]
mod tests;
mod weights;

pub(crate) use driver::probe;

use super::{Engine, EngineSpec};
use crate::error::Result;
use device::Device;
use driver::Driver;
use engine::CudaEngine;

/// Whether the machine's first GPU has the memory for it.
pub(super) fn check(spec: &EngineSpec) -> Result<()> {
    CudaEngine::check(&Driver::open()?, spec)
}

/// The engine on the machine's first GPU.
pub(super) fn open(spec: &EngineSpec) -> Result<Box<dyn Engine>> {
    let driver = Driver::open()?;
    tracing::info!(device = driver.name(), "CUDA engine");
    Ok(Box::new(CudaEngine::open(driver, spec)?))
}

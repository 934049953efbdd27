//! The CUDA engine: frames in and out through a ring of pinned memory, with copies that overlap the kernels.
//!
//! | file | what |
//! |---|---|
//! | `engine` | the ring, and a frame through a plan |
//! | `net` | a network as launches |
//! | `kernels`, `args` | a typed launcher for each kernel of `kernels/*.cu`, and the layout of its argument |
//! | `demand` | bytes and operations of launches |
//! | `bench` | the speed of a device and its share of the device's peaks |
//! | `maps` | the tensors and weights in device memory, and their sizes |
//! | `layout` | a frame in one block of memory |
//! | `weights` | weights in the layout of the kernels |
//! | `device` | the interface of a device |
//! | `driver`, `archive` | NVIDIA's driver as a device, and the kernels compiled ahead of time |
//! | `emulated` | a device emulated on the host, for tests |
//! | `check`, `gpu` | comparison of a device with the CPU engine, and of a GPU, for `gpu-check/run` |
//!
//! A new kernel is a file of `kernels/` included by `hasn.cu`, the twin of its argument in `args`, a launcher in `kernels`,
//! its `demand`, and its call in `net` or `engine`; `make kernels` compiles the archive.
//!
//! It must not know FFmpeg or files; only `driver` calls NVIDIA's driver.

mod archive;
mod args;
mod bench;
#[cfg(test)]
mod budget;
#[cfg(test)]
mod check;
mod demand;
mod device;
mod driver;
#[cfg(test)]
mod emulated;
mod engine;
#[cfg(test)]
mod gpu;
mod kernels;
mod layout;
mod maps;
mod net;
#[cfg(test)]
mod tests;
mod weights;

pub(crate) use bench::{Measured, MeasuredKernel, MeasuredSize, Probes, Request};
pub(crate) use demand::Demand;
pub(crate) use driver::probe;

use std::time::Instant;

use super::spec::{Engine, EngineSpec};
use crate::error::Result;
use device::Device;
use driver::Driver;
use engine::CudaEngine;

/// Checks that the machine's first GPU has enough memory for `spec`.
pub(super) fn check(spec: &EngineSpec) -> Result<()> {
    CudaEngine::check(&Driver::open()?, spec)
}

/// Time to open the machine's first GPU.
pub(crate) struct Opening {
    /// Start of NVIDIA's driver.
    pub(crate) driver_s: f64,
    /// Loading of the kernels.
    pub(crate) kernels_s: f64,
}

/// Measures the machine's first GPU.
pub(crate) fn bench(request: &Request) -> Result<(Opening, Measured)> {
    let start = Instant::now();
    let driver = Driver::open()?;
    let driver_s = driver.start_s();
    let opening = Opening { driver_s, kernels_s: start.elapsed().as_secs_f64() - driver_s };
    Ok((opening, bench::measure(&driver, request)?))
}

/// Opens the engine on the machine's first GPU.
pub(super) fn open(spec: &EngineSpec) -> Result<Box<dyn Engine>> {
    let driver = Driver::open()?;
    tracing::info!(device = driver.name(), "CUDA engine");
    Ok(Box::new(CudaEngine::open(driver, spec)?))
}

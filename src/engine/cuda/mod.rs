//! The CUDA engine: frames in and out through a ring of pinned memory, copies beside the kernels.
//!
//! | file | what |
//! |---|---|
//! | `engine` | the ring, and a frame through a plan |
//! | `net` | a network as launches |
//! | `kernels`, `args` | a typed launcher for each of `kernels/*.cu`, and the bytes of its argument |
//! | `demand` | what launches ask of a device |
//! | `bench` | how fast a device is, and how near to what it can do |
//! | `maps` | what lies in the device's memory, and how large it is |
//! | `layout` | a frame in one piece of memory |
//! | `weights` | weights as the kernels read them |
//! | `device` | what is request of a device |
//! | `driver`, `archive` | NVIDIA's driver as a device, and the kernels compiled ahead |
//! | `emulated` | the host as a device, for tests |
//! | `check`, `gpu` | a device held to the CPU engine; a GPU held so, for `gpu-check/run` |
//!
//! It must not know FFmpeg, files, or what runs a kernel: only `driver` has met a GPU.

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

/// Whether the machine's first GPU has the memory for it.
pub(super) fn check(spec: &EngineSpec) -> Result<()> {
    CudaEngine::check(&Driver::open()?, spec)
}

/// How long the machine's first GPU took to be there.
pub(crate) struct Opening {
    /// Of NVIDIA's driver.
    pub(crate) driver_s: f64,
    /// Of the kernels.
    pub(crate) kernels_s: f64,
}

/// Figures of the machine's first GPU.
pub(crate) fn bench(request: &Request) -> Result<(Opening, Measured)> {
    let start = Instant::now();
    let driver = Driver::open()?;
    let driver_s = driver.start_s();
    let opening = Opening { driver_s, kernels_s: start.elapsed().as_secs_f64() - driver_s };
    Ok((opening, bench::measure(&driver, request)?))
}

/// The engine on the machine's first GPU.
pub(super) fn open(spec: &EngineSpec) -> Result<Box<dyn Engine>> {
    let driver = Driver::open()?;
    tracing::info!(device = driver.name(), "CUDA engine");
    Ok(Box::new(CudaEngine::open(driver, spec)?))
}

//! Engines and networks by the names that users give.

use std::sync::Arc;

use tracing::info;

use crate::engine::cpu::Precision;
use crate::engine::cpu::precision::choose;
use crate::engine::{EngineKind, Network, cuda};
use crate::error::{Error, Result};
use crate::model::catalogue;

/// Longest side of an output in luma samples. Encoders, players and the memory of engines have lower limits.
pub const SIDE_MAX: usize = 32768;

/// The engine that a user asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum EngineChoice {
    /// CUDA where there is a GPU with enough memory, else the CPU.
    #[default]
    Auto,
    /// The first NVIDIA GPU.
    Cuda,
    /// SIMD on all cores.
    Cpu,
    /// The network as published, layer by layer: slow, for checks.
    Reference,
}

impl EngineChoice {
    /// Returns the engine to open for frames of `bits` per sample. A named engine that is missing is an error, never a
    /// slow run; a named precision asks for the CPU. `check` returns an error for a kind that cannot do the job.
    pub fn resolve(
        self,
        precision: Option<Precision>,
        bits: u8,
        check: impl FnOnce(EngineKind) -> Result<()>,
    ) -> Result<EngineKind> {
        let cpu = || {
            let (level, precision) = choose(precision, bits)?;
            Ok(EngineKind::Cpu(level, precision))
        };
        match self {
            EngineChoice::Auto if precision.is_some() => cpu(),
            EngineChoice::Auto => match cuda::probe().and_then(|gpu| check(EngineKind::Cuda).map(|()| gpu)) {
                Ok(gpu) => {
                    info!("engine cuda: {gpu}");
                    Ok(EngineKind::Cuda)
                }
                Err(why) => {
                    info!("engine cpu: {why}");
                    cpu()
                }
            },
            EngineChoice::Cpu => cpu(),
            EngineChoice::Reference if precision.is_some_and(|precision| precision != Precision::F32) => {
                Err(Error::new("--precision", "the reference is exact", "leave it out, or use --engine cpu"))
            }
            EngineChoice::Reference => Ok(EngineKind::Reference),
            EngineChoice::Cuda if precision.is_some() => Err(Error::new(
                "--precision",
                "the CUDA engine multiplies f16",
                "leave it out, or use --engine cpu",
            )),
            EngineChoice::Cuda => cuda::probe().map(|_| EngineKind::Cuda),
        }
    }
}

impl EngineKind {
    /// The name in options, reports and logs.
    pub fn name(self) -> &'static str {
        match self {
            EngineKind::Cpu(..) => "cpu",
            EngineKind::Reference => "reference",
            EngineKind::Cuda => "cuda",
        }
    }

    /// The name of the number format that it multiplies.
    pub fn precision_name(self) -> &'static str {
        match self {
            EngineKind::Cpu(_, precision) => precision.name(),
            EngineKind::Reference => Precision::F32.name(),
            EngineKind::Cuda => "f16",
        }
    }
}

impl Network {
    /// Opens a built-in model or a safetensors file; `none` is the plain resampler.
    pub fn open(name: &str) -> Result<Network> {
        match name {
            "none" => Ok(Network::Resample),
            name => catalogue::open(name).map(|model| Network::Hasn(Arc::new(model))),
        }
    }
}

/// Returns the number of threads to use: `requested`, or one for each core.
pub fn thread_count(requested: Option<usize>) -> usize {
    requested.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, Into::into))
}

//! The network on the CPU: SIMD on all cores, in scratch memory of the caller.
//!
//! Weights are packed once, in `Net::new`; a frame runs as waves of small tasks down its rows, on the current rayon pool.
//! The only tensors of frame size are the LR frame and the trunk. The loops are a crate of their own, `hasn_kernels`: they
//! take most of a build's time and change seldom.
//!
//! | file | what |
//! |---|---|
//! | `net`, `stages` | a frame through the graphs of stages, and the work of each stage |
//! | `tensors` | the rows that the stages read and write |
//! | `graph` | their order, memory and dependencies, derived from that |
//! | `weights`, `tail`, `pack` | weights in the layout of the loops, with the exact rewrites |
//! | `calibration` | quantization factors of the int16 precision |
//! | `layout` | tensors in scratch |
//! | `level`, `precision`, `pool` | the CPU level, the precision by measured speed, the threads |
//!
//! It must not know frames, colour or files.

mod calibration;
mod graph;
mod layout;
pub mod level;
mod net;
mod pack;
mod pool;
pub(crate) mod precision;
#[cfg(test)]
pub(super) mod simulation;
mod stages;
mod tail;
mod tensors;
mod weights;

pub use hasn_kernels::{Level, Precision};
pub(crate) use net::{Net, Passes, StageTime, Weights};
pub(crate) use pool::Pool;

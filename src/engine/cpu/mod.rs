//! The network on the CPU: SIMD, on all cores, in scratch that the caller lends.
//!
//! Weights are packed once ([`Net::new`]); a frame runs as waves of small tasks down its rows, on the current
//! rayon pool. One map of the trunk's width is all the memory of frame size. The loops themselves are a crate of their
//! own, `hasn_kernels`: they are most of what a build compiles, and change seldom.
//!
//! | file | what |
//! |---|---|
//! | `net`, `stages` | a frame through the graphs of stages, and what a stage does |
//! | `tensors` | what the stages read and write |
//! | `graph` | from that, their order, their memory and what waits for what |
//! | `weights`, `tail`, `pack` | weights as the loops read them, with the exact rewrites |
//! | `codes` | what a whole number stands for, where the loops multiply those |
//! | `layout` | tensors in scratch |
//! | `level`, `pool` | the kind of CPU, the threads |
//!
//! It must not know frames, colour or files.

mod codes;
mod graph;
mod layout;
pub mod level;
mod net;
mod pack;
mod pool;
mod stages;
mod tail;
mod tensors;
mod weights;

pub use hasn_kernels::{Level, Precision};
pub(crate) use net::{Net, StageTime};
pub(crate) use pool::Pool;

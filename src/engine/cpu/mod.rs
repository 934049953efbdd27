//! The network on the CPU: SIMD, on all cores, in scratch that the caller lends.
//!
//! Weights are packed once ([`Net::new`]); a picture runs as waves of small tasks down its rows, on the current
//! rayon pool. One map of the trunk's width is all the memory of picture size. Rows are kept as [channels,
//! columns], and zero margins round every row of every channel make the loops branch-free.
//!
//! Planes with pixels in the vector lanes waste nothing at 16 or 52 channels and need no transposition between
//! depthwise and dense maps; a broadcast weight serves two registers of pixels.
//!
//! | file | what |
//! |---|---|
//! | `net` | a picture through the stages |
//! | `tensors` | what the stages read and write |
//! | `graph` | from that, their order, their memory and what waits for what |
//! | `pack`, `tail` | weights as the loops read them, with the exact rewrites |
//! | `codes` | what a whole number stands for, where the loops multiply those |
//! | `layout` | tensors in scratch |
//! | `depthwise`, `esa`, `gate`, `dense`, `leave` | the loops, one file a stage of the network |
//! | `math` | 2^x, sigmoid, GELU |
//! | `simd`, `level`, `peak` | vectors of pixels, the table of loops for each kind of CPU, what a core can do |
//! | `pool` | the threads |
//!
//! It must not know pictures, colour or files.

mod codes;
pub(crate) mod curve;
mod dense;
mod depthwise;
pub(crate) mod egress;
mod esa;
mod gate;
mod graph;
pub(crate) mod ingest;
mod layout;
mod leave;
mod level;
mod math;
pub(crate) mod matrix;
mod net;
mod pack;
mod peak;
mod pool;
mod simd;
mod tail;
mod tensors;

pub use level::{Level, Precision};
pub use net::{Net, StageTime};
pub use pool::Pool;

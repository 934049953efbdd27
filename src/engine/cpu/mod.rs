//! The network on the CPU: SIMD, on all cores, in scratch that the caller lends.
//!
//! Weights are packed once ([`Net::new`]); a picture runs as passes over its rows, each a loop over bands of
//! rows on the current rayon pool. Two maps of the trunk's width are all the memory of picture size. A map is
//! kept as [rows, channels, columns], so that a band of rows is one slice and passes need no `unsafe`; zero
//! margins round every row of every channel make the loops branch-free.
//!
//! | file | what |
//! |---|---|
//! | `net` | the passes and their order |
//! | `pack` | weights as the loops read them, with the exact rewrites |
//! | `layout` | maps in scratch |
//! | `depthwise`, `esa`, `gate`, `dense3x3` | the loops, one file a stage of the network |
//! | `taps`, `math` | what the loops share |
//! | `simd`, `level` | vectors of pixels, and the table of loops for each kind of CPU |
//! | `pool` | the threads |
//!
//! It must not know pictures, colour or files.

mod dense3x3;
mod depthwise;
pub(crate) mod egress;
mod esa;
mod gate;
pub(crate) mod ingest;
mod layout;
mod level;
mod math;
pub(crate) mod matrix;
mod net;
mod pack;
mod pool;
mod simd;
mod taps;

pub use level::Level;
pub use net::Net;
pub use pool::Pool;

//! The SIMD loops of the network on a CPU, one file per stage, twins of the CUDA kernels, and those of the samples beside it.
//!
//! In: rows of floats or of words, packed weights, a table of loops chosen by [`Level`]. Out: rows. The loops know neither
//! the order of the stages nor where rows come from. Rows are [channels, columns], and zero margins around every row of
//! every channel make the loops branch-free.
//!
//! Planes with pixels in the vector lanes need no padding at 16 or 52 channels and no transposition between depthwise and
//! dense maps; a broadcast weight serves two registers of pixels.
//!
//! | file | what |
//! |---|---|
//! | `depthwise`, `esa`, `gate`, `dense`, `leave` | the loops |
//! | `weights`, `layout` | what they read |
//! | `samples` | codes to numbers and back, a row resampled |
//! | `math` | 2^x, sigmoid, GELU |
//! | `simd` | vectors of pixels, one file per family of CPUs |
//! | `level` | the table of loops of each CPU level, and its detection |
//! | `peak` | the peak of a core |
//!
//! It is a crate of its own because each loop is compiled for each CPU level, which takes most of a build's time.
//!
//! A new CPU level is a token that implements [`simd::Simd`] in `simd/`, a table in `level.rs` and its detection in
//! [`Level::available`].

pub mod dense;
pub mod depthwise;
pub mod esa;
pub mod gate;
pub mod layout;
pub mod leave;
mod level;
pub mod math;
pub mod peak;
pub mod samples;
pub mod simd;
pub mod weights;

pub use level::{Kernels, Level, Precision};

//! The loops of the network on a CPU, twins of the CUDA kernels beside them, one file a stage.
//!
//! In: rows of floats or of words, packed weights, a table of loops chosen by [`Level`]. Out: rows. They know neither the
//! order of the stages nor where rows come from. Rows are kept as [channels, columns], and zero margins round every row
//! of every channel make the loops branch-free.
//!
//! Planes with pixels in the vector lanes waste nothing at 16 or 52 channels and need no transposition between
//! depthwise and dense maps; a broadcast weight serves two registers of pixels.
//!
//! | file | what |
//! |---|---|
//! | `depthwise`, `esa`, `gate`, `dense`, `leave` | the loops |
//! | `weights`, `layout` | what they read |
//! | `math` | 2^x, sigmoid, GELU |
//! | `simd`, `level`, `peak` | vectors of pixels, the table of loops for each kind of CPU, what a core can do |
//!
//! A crate of their own, since each loop is compiled for each kind of CPU, which is most of what a build has to do.

pub mod dense;
pub mod depthwise;
pub mod esa;
pub mod gate;
pub mod layout;
pub mod leave;
mod level;
pub mod math;
pub mod peak;
pub mod simd;
pub mod weights;

pub use level::{Kernels, Level, Precision};

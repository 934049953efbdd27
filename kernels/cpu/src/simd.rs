//! Vectors of pixels. A token of a level exists only where the CPU has the level, and all operations are its methods.
//!
//! The loops are generic over [`Simd`] and always inlined into a function that enables the level's features (see `level`),
//! where these operations become single instructions. A closure is a separate function without the features, so no loop
//! may use an operation in one: it would become a call.
//!
//! A vector is two registers, so that a broadcast weight is used twice: on Zen 4, where it was measured, a broadcast costs
//! as much as a multiply-add. Loops with few sums take vectors of four where there are 32 registers ([`Simd::Wide`]).
//!
//! A dense map reads 32-bit words: one channel in f32, or two neighbouring ones in bf16 or int16 (the first in the low
//! half). Layout, offsets and loads are the same for all.

mod plain;
mod vector;
#[cfg(target_arch = "x86_64")]
mod x86;

pub use plain::Plain;
pub use vector::{PIXELS_MAX, REACH, Simd, TABLE};
#[cfg(target_arch = "x86_64")]
pub use x86::{Avx2, Avx2Int16, Avx512, Avx512Bf16, Avx512VnniInt16, AvxVnniInt16};

//! Vectors of pixels. A token of a level is proof that the CPU has it, and all operations hang on the token.
//!
//! The loops are generic over [`Simd`] and always inlined into a function that enables the level's features
//! (see `level`), where these operations become single instructions. A closure is a function of its own that
//! does not enable them, so none of the loops may hold an operation in one: it would become a call.
//!
//! A vector is two registers, so that a weight once broadcast is used twice: on the CPUs this was measured on
//! (Zen 4) a broadcast costs as much as a multiply-add.
//!
//! What a dense map reads is kept in words of 32 bits: one channel in f32, or two neighbouring ones in bf16 or as
//! whole numbers of 16 bits (the first in the low half). Layout, offsets and loads are the same for all.

mod plain;
mod vector;
#[cfg(target_arch = "x86_64")]
mod x86;

pub use plain::Plain;
pub use vector::{PIXELS_MAX, REACH, Simd, TABLE};
#[cfg(target_arch = "x86_64")]
pub use x86::{Avx2, Avx2Int16, Avx512, Avx512Bf16, Avx512VnniInt16, AvxVnniInt16};

//! The levels of x86-64: a vector is a pair of registers, and every operation one or a few instructions.
//!
//! In and out: see [`Simd`](super::Simd). A token of a level exists only where the CPU has the level; the caller of `new`
//! guarantees it.

/// Defines a level whose vector is a pair of registers of `$lanes` floats. The parts that differ between levels beyond the
/// names of instructions are in `{ }`.
macro_rules! pair {
    ($(#[$doc:meta])* $token:ident, $register:ty, $lanes:literal;
     $set1:ident $loadu:ident $storeu:ident $fmadd:ident $sqrt:ident;
     $([$name:ident $instruction:ident])*; { $($rest:tt)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy)]
        pub struct $token(());

        impl Simd for $token {
            const PIXELS: usize = 2 * $lanes;
            type V = [$register; 2];
            $($rest)*

            // SAFETY: the caller guarantees that the CPU has the level's features.
            #[inline(always)]
            unsafe fn new() -> Self {
                $token(())
            }
            #[inline(always)]
            fn splat(self, x: f32) -> Self::V {
                // SAFETY: `self` exists, so the CPU has the instruction.
                unsafe { [$set1(x); 2] }
            }
            #[inline(always)]
            fn load(self, from: &[f32]) -> Self::V {
                let from: &[f32; 2 * $lanes] = from.first_chunk().expect("a full vector");
                // SAFETY: `self` exists, so the CPU has the instruction, and the array has two registers.
                unsafe { [$loadu(from.as_ptr()), $loadu(from.as_ptr().add($lanes))] }
            }
            #[inline(always)]
            fn store(self, to: &mut [f32], v: Self::V) {
                let to: &mut [f32; 2 * $lanes] = to.first_chunk_mut().expect("a full vector");
                // SAFETY: `self` exists, so the CPU has the instruction, and the array has two registers.
                unsafe {
                    $storeu(to.as_mut_ptr(), v[0]);
                    $storeu(to.as_mut_ptr().add($lanes), v[1]);
                }
            }
            $(#[inline(always)]
            fn $name(self, a: Self::V, b: Self::V) -> Self::V {
                // SAFETY: `self` exists, so the CPU has the instruction.
                unsafe { [$instruction(a[0], b[0]), $instruction(a[1], b[1])] }
            })*
            #[inline(always)]
            fn mul_add(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
                // SAFETY: `self` exists, so the CPU has the instruction.
                unsafe { [$fmadd(a[0], b[0], c[0]), $fmadd(a[1], b[1], c[1])] }
            }
            #[inline(always)]
            fn sqrt(self, a: Self::V) -> Self::V {
                // SAFETY: `self` exists, so the CPU has the instruction.
                unsafe { [$sqrt(a[0]), $sqrt(a[1])] }
            }
        }
    };
}

/// Words of two channels in int16.
macro_rules! int16_words {
    ($to_int:ident $to_float:ident $cvt_float:ident $cvt_int:ident $packs:ident $pairs:ident) => {
        const CHANNELS: usize = 2;
        const INT16: bool = true;
        #[inline(always)]
        fn begin(self, _bias: f32) -> Self::V {
            self.splat(0.0)
        }
        #[inline(always)]
        fn finish(self, sum: Self::V, scale: f32, bias: f32) -> Self::V {
            // SAFETY: `self` exists, so the CPU has the instruction.
            let sum = unsafe { [$cvt_float($to_int(sum[0])), $cvt_float($to_int(sum[1]))] };
            self.mul_add(sum, self.splat(scale), self.splat(bias))
        }
        #[inline(always)]
        fn pack(self, low: Self::V, high: Self::V) -> Self::V {
            // SAFETY: `self` exists, so the CPU has the instructions.
            unsafe {
                [
                    $to_float($pairs($packs($cvt_int(low[0]), $cvt_int(high[0])))),
                    $to_float($pairs($packs($cvt_int(low[1]), $cvt_int(high[1])))),
                ]
            }
        }
    };
}

/// Dot products of CPUs with one instruction for products and their sum.
macro_rules! vnni {
    ($dot:ident $set1:ident $to_int:ident $to_float:ident) => {
        #[inline(always)]
        fn dot(self, weight: &f32, x: Self::V, c: Self::V) -> Self::V {
            // SAFETY: `self` exists, so the CPU has the instructions.
            unsafe {
                let weight = $to_int($set1(*weight));
                [
                    $to_float($dot($to_int(c[0]), weight, $to_int(x[0]))),
                    $to_float($dot($to_int(c[1]), weight, $to_int(x[1]))),
                ]
            }
        }
    };
}

/// Words of one channel.
macro_rules! f32_words {
    () => {
        const CHANNELS: usize = 1;
        #[inline(always)]
        fn dot(self, weight: &f32, x: Self::V, c: Self::V) -> Self::V {
            self.mul_add(self.splat(*weight), x, c)
        }
        #[inline(always)]
        fn pack(self, _low: Self::V, _high: Self::V) -> Self::V {
            unreachable!("words hold one channel")
        }
    };
}

mod avx2;
mod avx512;

pub use avx2::{Avx2, Avx2Int16, AvxVnniInt16};
pub use avx512::{Avx512, Avx512Bf16, Avx512VnniInt16};

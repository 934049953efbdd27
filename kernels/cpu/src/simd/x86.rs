//! The levels of x86-64: a vector is some registers, and every operation one or a few instructions for each.
//!
//! In and out: see [`Simd`](super::Simd). A token of a level exists only where the CPU has the level; the caller of `new`
//! guarantees it.

/// The vector whose register `i` is `$value`. `$from` is a vector of the same kind.
macro_rules! each {
    ($i:ident, $from:expr => $value:expr) => {{
        let mut v = $from;
        for $i in 0..N {
            // SAFETY: the caller's `self` exists, so the CPU has the instructions.
            v[$i] = unsafe { $value };
        }
        v
    }};
}

/// Defines a level whose vector is `N` registers of `$lanes` floats, an even number. The parts that differ between levels
/// beyond the names of instructions are in `{ }`.
macro_rules! registers {
    ($(#[$doc:meta])* $token:ident, $register:ty, $lanes:literal;
     $set1:ident $loadu:ident $storeu:ident $fmadd:ident $sqrt:ident;
     $([$name:ident $instruction:ident])*; { $($rest:tt)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy)]
        pub struct $token<const N: usize>(());

        impl<const N: usize> Simd for $token<N> {
            const PIXELS: usize = N * $lanes;
            type V = [$register; N];
            $($rest)*

            // SAFETY: the caller guarantees that the CPU has the level's features.
            #[inline(always)]
            unsafe fn new() -> Self {
                $token(())
            }
            #[inline(always)]
            fn splat(self, x: f32) -> Self::V {
                // SAFETY: `self` exists, so the CPU has the instruction.
                unsafe { [$set1(x); N] }
            }
            #[inline(always)]
            fn load(self, from: &[f32]) -> Self::V {
                let from = &from[..N * $lanes];
                // The slice has all registers.
                each!(i, self.splat(0.0) => $loadu(from.as_ptr().add(i * $lanes)))
            }
            #[inline(always)]
            fn store(self, to: &mut [f32], v: Self::V) {
                let to = &mut to[..N * $lanes];
                for i in 0..N {
                    // SAFETY: `self` exists, so the CPU has the instruction, and the slice has all registers.
                    unsafe { $storeu(to.as_mut_ptr().add(i * $lanes), v[i]) };
                }
            }
            #[inline(always)]
            fn prefetch(self, row: &[f32], at: usize) {
                for i in 0..N * $lanes / 16 {
                    // SAFETY: every CPU has the instruction, which reads no memory that a program could tell.
                    unsafe { _mm_prefetch::<_MM_HINT_T0>(row.as_ptr().wrapping_add(at + 16 * i).cast()) };
                }
            }
            $(#[inline(always)]
            fn $name(self, a: Self::V, b: Self::V) -> Self::V {
                each!(i, a => $instruction(a[i], b[i]))
            })*
            #[inline(always)]
            fn mul_add(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
                each!(i, c => $fmadd(a[i], b[i], c[i]))
            }
            #[inline(always)]
            fn sqrt(self, a: Self::V) -> Self::V {
                each!(i, a => $sqrt(a[i]))
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
            let sum = each!(i, sum => $cvt_float($to_int(sum[i])));
            self.mul_add(sum, self.splat(scale), self.splat(bias))
        }
        #[inline(always)]
        fn pack(self, low: Self::V, high: Self::V) -> Self::V {
            each!(i, low => $to_float($pairs($packs($cvt_int(low[i]), $cvt_int(high[i])))))
        }
    };
}

/// Defines the dot product of a CPU with one instruction for products and their sum. In assembly, because the compiler
/// makes two of the intrinsic.
macro_rules! vnni {
    ($name:ident $features:literal $instruction:literal $class:ident $register:ty) => {
        #[inline]
        #[target_feature(enable = $features)]
        fn $name(weight: $register, x: $register, mut c: $register) -> $register {
            // SAFETY: the CPU has the instruction, and it touches these registers alone.
            unsafe {
                asm!(
                    concat!($instruction, " {c}, {weight}, {x}"),
                    c = inout($class) c,
                    weight = in($class) weight,
                    x = in($class) x,
                    options(pure, nomem, nostack, preserves_flags)
                );
            }
            c
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

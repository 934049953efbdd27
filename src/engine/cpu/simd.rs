//! Vectors of pixels. A token of a level is proof that the CPU has it, and all operations hang on the token.
//!
//! The loops are generic over [`Simd`] and always inlined into a function that enables the level's features
//! (see `level`), where these operations become single instructions. A closure is a function of its own that
//! does not enable them, so none of the loops may hold an operation in one: it would become a call. A vector is as wide as keeps eight
//! accumulators of registers busy with four output channels: two registers, or a plain array.

/// All widths divide it, and the rows of maps are padded to it.
pub(super) const PIXELS_MAX: usize = 32;

/// One level's vectors.
pub(super) trait Simd: Copy {
    /// Pixels in a vector.
    const PIXELS: usize;
    /// A vector of [`Simd::PIXELS`] f32.
    type V: Copy;

    /// # Safety
    /// The CPU has the level's features.
    unsafe fn new() -> Self;
    /// `x` in every pixel.
    fn splat(self, x: f32) -> Self::V;
    /// The first [`Simd::PIXELS`] values of a slice.
    fn load(self, from: &[f32]) -> Self::V;
    /// Into the first [`Simd::PIXELS`] values of a slice.
    fn store(self, to: &mut [f32], v: Self::V);
    /// a + b.
    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    /// a - b.
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    /// a · b.
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    /// a / b.
    fn div(self, a: Self::V, b: Self::V) -> Self::V;
    /// The smaller one; `b` where either is NaN.
    fn min(self, a: Self::V, b: Self::V) -> Self::V;
    /// The larger one; `b` where either is NaN.
    fn max(self, a: Self::V, b: Self::V) -> Self::V;
    /// a · b + c, rounded once where the CPU can and twice elsewhere.
    fn mul_add(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// The square root.
    fn sqrt(self, a: Self::V) -> Self::V;
    /// The f32 whose bits are `(bits + 127) << 23`: 2^n where the low bits hold the whole number n.
    fn exponent(self, a: Self::V) -> Self::V;
}

/// Whatever the compiler makes of arrays for the target's baseline.
#[derive(Clone, Copy)]
pub(super) struct Plain(());

impl Plain {
    #[inline(always)]
    fn zip(a: [f32; 8], b: [f32; 8], f: impl Fn(f32, f32) -> f32) -> [f32; 8] {
        std::array::from_fn(|i| f(a[i], b[i]))
    }
}

impl Simd for Plain {
    const PIXELS: usize = 8;
    type V = [f32; 8];

    #[inline(always)]
    unsafe fn new() -> Self {
        Plain(())
    }
    #[inline(always)]
    fn splat(self, x: f32) -> Self::V {
        [x; 8]
    }
    #[inline(always)]
    fn load(self, from: &[f32]) -> Self::V {
        *from.first_chunk().expect("a whole vector")
    }
    #[inline(always)]
    fn store(self, to: &mut [f32], v: Self::V) {
        *to.first_chunk_mut().expect("a whole vector") = v;
    }
    #[inline(always)]
    fn add(self, a: Self::V, b: Self::V) -> Self::V {
        Self::zip(a, b, |a, b| a + b)
    }
    #[inline(always)]
    fn sub(self, a: Self::V, b: Self::V) -> Self::V {
        Self::zip(a, b, |a, b| a - b)
    }
    #[inline(always)]
    fn mul(self, a: Self::V, b: Self::V) -> Self::V {
        Self::zip(a, b, |a, b| a * b)
    }
    #[inline(always)]
    fn div(self, a: Self::V, b: Self::V) -> Self::V {
        Self::zip(a, b, |a, b| a / b)
    }
    #[inline(always)]
    fn min(self, a: Self::V, b: Self::V) -> Self::V {
        Self::zip(a, b, |a, b| if a < b { a } else { b })
    }
    #[inline(always)]
    fn max(self, a: Self::V, b: Self::V) -> Self::V {
        Self::zip(a, b, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    fn mul_add(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        // f32::mul_add would be a call of libm without FMA.
        std::array::from_fn(|i| a[i] * b[i] + c[i])
    }
    #[inline(always)]
    fn sqrt(self, a: Self::V) -> Self::V {
        a.map(f32::sqrt)
    }
    #[inline(always)]
    fn exponent(self, a: Self::V) -> Self::V {
        a.map(|a| f32::from_bits(a.to_bits().wrapping_add(127) << 23))
    }
}

#[cfg(target_arch = "x86_64")]
pub(super) use x86::{Avx2, Avx512};

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::Simd;

    /// A level whose vector is a pair of registers of `$lanes` floats.
    macro_rules! pair {
        ($(#[$doc:meta])* $token:ident, $register:ty, $lanes:literal,
         $set1:ident $loadu:ident $storeu:ident $add:ident $sub:ident $mul:ident $div:ident $min:ident $max:ident
         $fmadd:ident $sqrt:ident; $to_bits:ident $from_bits:ident $set1_epi32:ident $add_epi32:ident
         $slli_epi32:ident) => {
            $(#[$doc])*
            #[derive(Clone, Copy)]
            pub(in super::super) struct $token(());

            pair! { impl $token, $register, $lanes, $set1 $loadu $storeu;
                    [add $add] [sub $sub] [mul $mul] [div $div] [min $min] [max $max];
                    $fmadd $sqrt $to_bits $from_bits $set1_epi32 $add_epi32 $slli_epi32 }
        };
        (impl $token:ident, $register:ty, $lanes:literal, $set1:ident $loadu:ident $storeu:ident;
         $([$name:ident $instruction:ident])*;
         $fmadd:ident $sqrt:ident $to_bits:ident $from_bits:ident $set1_epi32:ident $add_epi32:ident
         $slli_epi32:ident) => {
            impl Simd for $token {
                const PIXELS: usize = 2 * $lanes;
                type V = [$register; 2];

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
                    let from: &[f32; 2 * $lanes] = from.first_chunk().expect("a whole vector");
                    // SAFETY: `self` exists, so the CPU has the instruction, and the array has two registers.
                    unsafe { [$loadu(from.as_ptr()), $loadu(from.as_ptr().add($lanes))] }
                }
                #[inline(always)]
                fn store(self, to: &mut [f32], v: Self::V) {
                    let to: &mut [f32; 2 * $lanes] = to.first_chunk_mut().expect("a whole vector");
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
                #[inline(always)]
                fn exponent(self, a: Self::V) -> Self::V {
                    // SAFETY: `self` exists, so the CPU has the instructions.
                    unsafe {
                        let bias = $set1_epi32(127);
                        [
                            $from_bits($slli_epi32::<23>($add_epi32($to_bits(a[0]), bias))),
                            $from_bits($slli_epi32::<23>($add_epi32($to_bits(a[1]), bias))),
                        ]
                    }
                }
            }
        };
    }

    pair! {
        /// AVX2 and FMA.
        Avx2, __m256, 8,
        _mm256_set1_ps _mm256_loadu_ps _mm256_storeu_ps _mm256_add_ps _mm256_sub_ps _mm256_mul_ps _mm256_div_ps
        _mm256_min_ps _mm256_max_ps _mm256_fmadd_ps _mm256_sqrt_ps;
        _mm256_castps_si256 _mm256_castsi256_ps _mm256_set1_epi32 _mm256_add_epi32 _mm256_slli_epi32
    }

    pair! {
        /// AVX-512 F, BW, DQ and VL.
        Avx512, __m512, 16,
        _mm512_set1_ps _mm512_loadu_ps _mm512_storeu_ps _mm512_add_ps _mm512_sub_ps _mm512_mul_ps _mm512_div_ps
        _mm512_min_ps _mm512_max_ps _mm512_fmadd_ps _mm512_sqrt_ps;
        _mm512_castps_si512 _mm512_castsi512_ps _mm512_set1_epi32 _mm512_add_epi32 _mm512_slli_epi32
    }
}

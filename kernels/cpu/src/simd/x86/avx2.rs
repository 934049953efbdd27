//! AVX2: registers of eight floats, sixteen of them.

use std::arch::asm;
use std::arch::x86_64::*;

use crate::simd::vector::{REACH, Simd, split_by_adding};

/// The operations that both kinds of words share on AVX2.
macro_rules! avx2 {
    ($(#[$doc:meta])* $token:ident { $($rest:tt)* }) => {
        pair! {
            $(#[$doc])*
            $token, __m256, 8;
            _mm256_set1_ps _mm256_loadu_ps _mm256_storeu_ps _mm256_fmadd_ps _mm256_sqrt_ps;
            [add _mm256_add_ps] [sub _mm256_sub_ps] [mul _mm256_mul_ps] [min _mm256_min_ps]
            [max _mm256_max_ps]; {
                $($rest)*

                // Half of the loads that straddle registers stay inside a cache line, and shuffles across lanes
                // would take two instructions.
                type Around<'a> = &'a [f32];
                #[inline(always)]
                fn around(self, from: &[f32]) -> &[f32] {
                    &from[..2 * REACH + 16]
                }
                #[inline(always)]
                fn shifted<const D: i32>(self, around: &[f32]) -> Self::V {
                    self.load(&around[REACH.wrapping_add_signed(D as isize)..])
                }
                #[inline(always)]
                fn recip(self, a: Self::V) -> Self::V {
                    // SAFETY: `self` exists, so the CPU has the instructions.
                    unsafe { [newton8(a[0]), newton8(a[1])] }
                }
                #[inline(always)]
                fn split(self, x: Self::V) -> (Self::V, Self::V) {
                    split_by_adding(self, x)
                }
                #[inline(always)]
                fn scale_by_power(self, p: Self::V, n: Self::V) -> Self::V {
                    // SAFETY: `self` exists, so the CPU has the instructions.
                    unsafe { [scale8(p[0], n[0]), scale8(p[1], n[1])] }
                }
                #[inline(always)]
                fn lookup(self, table: &[f32], index: &[u32], base: u32) -> Self::V {
                    let table: &[f32; 8] = table.first_chunk().expect("a table");
                    let index: &[u32; 16] = index.first_chunk().expect("a full vector");
                    // SAFETY: `self` exists, so the CPU has the instructions, and the arrays are what is read.
                    unsafe {
                        let table = _mm256_loadu_ps(table.as_ptr());
                        let base = _mm256_set1_epi32(base as i32);
                        let low = _mm256_loadu_si256(index.as_ptr().cast());
                        let high = _mm256_loadu_si256(index.as_ptr().add(8).cast());
                        [
                            _mm256_permutevar8x32_ps(table, _mm256_sub_epi32(low, base)),
                            _mm256_permutevar8x32_ps(table, _mm256_sub_epi32(high, base)),
                        ]
                    }
                }
                #[inline(always)]
                fn store_deinterleaved(self, even: &mut [f32], odd: &mut [f32], v: Self::V) {
                    let even: &mut [f32; 8] = even.first_chunk_mut().expect("half a vector");
                    let odd: &mut [f32; 8] = odd.first_chunk_mut().expect("half a vector");
                    // SAFETY: `self` exists, so the CPU has the instructions, and the arrays have a register each.
                    unsafe {
                        let low = _mm256_permute2f128_ps::<0x20>(v[0], v[1]);
                        let high = _mm256_permute2f128_ps::<0x31>(v[0], v[1]);
                        let e = _mm256_shuffle_ps::<0b10_00_10_00>(low, high);
                        let o = _mm256_shuffle_ps::<0b11_01_11_01>(low, high);
                        _mm256_storeu_ps(even.as_mut_ptr(), e);
                        _mm256_storeu_ps(odd.as_mut_ptr(), o);
                    }
                }
                #[inline(always)]
                fn store_interleaved(self, to: &mut [f32], a: Self::V, b: Self::V) {
                    let to: &mut [f32; 32] = to.first_chunk_mut().expect("two vectors");
                    for i in 0..2 {
                        // SAFETY: `self` exists, so the CPU has the instructions, and the array has four registers.
                        unsafe {
                            let low = _mm256_unpacklo_ps(a[i], b[i]);
                            let high = _mm256_unpackhi_ps(a[i], b[i]);
                            let to = to.as_mut_ptr().add(16 * i);
                            _mm256_storeu_ps(to, _mm256_permute2f128_ps::<0x20>(low, high));
                            _mm256_storeu_ps(to.add(8), _mm256_permute2f128_ps::<0x31>(low, high));
                        }
                    }
                }
            }
        }
    };
}

avx2! {
    /// AVX2 and FMA.
    Avx2 {
        const OUTPUTS_MAX: usize = 6;
        f32_words! {}
    }
}

avx2! {
    /// AVX2 with int16 products, of which a register holds twice as many.
    Avx2Int16 {
        const OUTPUTS_MAX: usize = 6;
        const OUTPUTS_WAITING: usize = 4;
        #[inline(always)]
        fn dot(self, weight: &f32, x: Self::V, c: Self::V) -> Self::V {
            // SAFETY: `self` exists, so the CPU has the instructions.
            unsafe { dot8(weight, x, c) }
        }
        int16_words! {
            _mm256_castps_si256 _mm256_castsi256_ps
            _mm256_cvtepi32_ps _mm256_cvtps_epi32 _mm256_packs_epi32 pairs8
        }
    }
}

avx2! {
    /// AVX-VNNI: int16 products with an instruction for products and their sum.
    AvxVnniInt16 {
        const OUTPUTS_MAX: usize = 6;
        const OUTPUTS_WAITING: usize = 4;
        vnni! { _mm256_dpwssd_avx_epi32 _mm256_set1_ps _mm256_castps_si256 _mm256_castsi256_ps }
        int16_words! {
            _mm256_castps_si256 _mm256_castsi256_ps
            _mm256_cvtepi32_ps _mm256_cvtps_epi32 _mm256_packs_epi32 pairs8
        }
    }
}

/// In assembly, because the compiler reorders integer sums and loads weights early, which takes more registers than there
/// are: cab0 of a row of 320 with 52 channels takes 46 us on a Zen 3 in Rust and 40 in assembly (2026-11-28).
#[inline]
#[target_feature(enable = "avx2")]
fn dot8(weight: &f32, x: [__m256; 2], mut c: [__m256; 2]) -> [__m256; 2] {
    // SAFETY: the CPU has the instructions, and they touch these registers and read the weight alone.
    unsafe {
        asm!(
            "vpbroadcastd {splat}, dword ptr [{weight}]",
            "vpmaddwd {product}, {splat}, {x0}",
            "vpmaddwd {splat}, {splat}, {x1}",
            "vpaddd {c0}, {c0}, {product}",
            "vpaddd {c1}, {c1}, {splat}",
            weight = in(reg) weight,
            splat = out(ymm_reg) _,
            product = out(ymm_reg) _,
            x0 = in(ymm_reg) x[0],
            x1 = in(ymm_reg) x[1],
            c0 = inout(ymm_reg) c[0],
            c1 = inout(ymm_reg) c[1],
            options(pure, readonly, nostack, preserves_flags)
        );
    }
    c
}

/// Interleaves the halves of each 128-bit lane of a packed register into pairs.
#[inline]
#[target_feature(enable = "avx2")]
fn pairs8(packed: __m256i) -> __m256i {
    let order = _mm_setr_epi8(0, 1, 8, 9, 2, 3, 10, 11, 4, 5, 12, 13, 6, 7, 14, 15);
    _mm256_shuffle_epi8(packed, _mm256_broadcastsi128_si256(order))
}

#[inline]
#[target_feature(enable = "avx2")]
fn scale8(p: __m256, n: __m256) -> __m256 {
    let n = _mm256_slli_epi32::<23>(_mm256_castps_si256(n));
    _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p), n))
}

/// The instruction gives 12 bits, a Newton step 23.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn newton8(a: __m256) -> __m256 {
    let y = _mm256_rcp_ps(a);
    _mm256_fmadd_ps(_mm256_fnmadd_ps(a, y, _mm256_set1_ps(1.0)), y, y)
}

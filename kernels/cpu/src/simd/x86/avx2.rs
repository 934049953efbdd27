//! AVX2: registers of eight floats, sixteen of them.

use std::arch::asm;
use std::arch::x86_64::*;

use crate::simd::vector::{Simd, split_by_adding};

/// The operations that both kinds of words share on AVX2. Half of the loads of shifted vectors stay inside a cache line,
/// and shuffles across lanes would take two instructions.
macro_rules! avx2 {
    ($(#[$doc:meta])* $token:ident { $($rest:tt)* }) => {
        registers! {
            $(#[$doc])*
            $token, __m256, 8;
            _mm256_set1_ps _mm256_loadu_ps _mm256_storeu_ps _mm256_fmadd_ps _mm256_sqrt_ps;
            [add _mm256_add_ps] [sub _mm256_sub_ps] [mul _mm256_mul_ps] [min _mm256_min_ps]
            [max _mm256_max_ps]; {
                type Wide = Self;
                const OUTPUTS_MAX: usize = 12 / N;
                $($rest)*

                #[inline(always)]
                fn wide(self) -> Self {
                    self
                }
                #[inline(always)]
                fn recip(self, a: Self::V) -> Self::V {
                    each!(i, a => newton8(a[i]))
                }
                #[inline(always)]
                fn split(self, x: Self::V) -> (Self::V, Self::V) {
                    split_by_adding(self, x)
                }
                #[inline(always)]
                fn scale_by_power(self, p: Self::V, n: Self::V) -> Self::V {
                    each!(i, p => scale8(p[i], n[i]))
                }
                #[inline(always)]
                fn lookup(self, table: &[f32], index: &[u32], base: u32) -> Self::V {
                    let table: &[f32; 8] = table.first_chunk().expect("a table");
                    let index = &index[..Self::PIXELS];
                    // The arrays are what is read.
                    each!(i, self.splat(0.0) => {
                        let index = _mm256_loadu_si256(index.as_ptr().add(8 * i).cast());
                        let index = _mm256_sub_epi32(index, _mm256_set1_epi32(base as i32));
                        _mm256_permutevar8x32_ps(_mm256_loadu_ps(table.as_ptr()), index)
                    })
                }
                #[inline(always)]
                fn store_deinterleaved(self, even: &mut [f32], odd: &mut [f32], v: Self::V) {
                    let (even, odd) = (&mut even[..Self::PIXELS / 2], &mut odd[..Self::PIXELS / 2]);
                    for i in 0..N / 2 {
                        let (a, b) = (v[2 * i], v[2 * i + 1]);
                        // SAFETY: `self` exists, so the CPU has the instructions, and each slice has half the registers.
                        unsafe {
                            let low = _mm256_permute2f128_ps::<0x20>(a, b);
                            let high = _mm256_permute2f128_ps::<0x31>(a, b);
                            let e = _mm256_shuffle_ps::<0b10_00_10_00>(low, high);
                            let o = _mm256_shuffle_ps::<0b11_01_11_01>(low, high);
                            _mm256_storeu_ps(even.as_mut_ptr().add(8 * i), e);
                            _mm256_storeu_ps(odd.as_mut_ptr().add(8 * i), o);
                        }
                    }
                }
                #[inline(always)]
                fn store_interleaved(self, to: &mut [f32], a: Self::V, b: Self::V) {
                    let to = &mut to[..2 * Self::PIXELS];
                    for i in 0..N {
                        // SAFETY: `self` exists, so the CPU has the instructions, and the slice has twice the registers.
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
        f32_words! {}
    }
}

avx2! {
    /// AVX2 with int16 products, of which a register holds twice as many.
    Avx2Int16 {
        const OUTPUTS_WAITING: usize = 4;
        #[inline(always)]
        fn dot(self, weight: &f32, x: Self::V, c: Self::V) -> Self::V {
            let mut sum = c;
            for i in 0..N / 2 {
                // SAFETY: `self` exists, so the CPU has the instructions.
                [sum[2 * i], sum[2 * i + 1]] =
                    unsafe { dot8(weight, [x[2 * i], x[2 * i + 1]], [c[2 * i], c[2 * i + 1]]) };
            }
            sum
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
        const OUTPUTS_WAITING: usize = 4;
        #[inline(always)]
        fn dot(self, weight: &f32, x: Self::V, c: Self::V) -> Self::V {
            let weight = self.splat(*weight);
            each!(i, c => dot8_vnni(weight[i], x[i], c[i]))
        }
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

vnni! { dot8_vnni "avx2,avxvnni" "{{vex}} vpdpwssd" ymm_reg __m256 }

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

//! AVX-512: registers of sixteen floats, thirty-two of them.

use std::arch::asm;
use std::arch::x86_64::*;

use crate::simd::vector::{REACH, Simd};

/// The operations that are precise enough for 16-bit words on AVX-512.
macro_rules! avx512_short {
    () => {
        #[inline(always)]
        fn recip(self, a: Self::V) -> Self::V {
            each!(i, a => _mm512_rcp14_ps(a[i]))
        }
        #[inline(always)]
        fn split(self, x: Self::V) -> (Self::V, Self::V) {
            let n = each!(i, x => nearest(x[i]));
            (n, self.sub(x, n))
        }
    };
}

/// The operations that both kinds of words share on AVX-512. Shifted vectors are loaded: on Zen 4, which makes a load that
/// straddles cache lines in two cycles, cab0 of a row takes a tenth less time than with shuffles, which share a port with
/// multiply-adds (2026-11-30).
macro_rules! avx512 {
    ($(#[$doc:meta])* $token:ident { $($rest:tt)* }) => {
        registers! {
            $(#[$doc])*
            $token, __m512, 16;
            _mm512_set1_ps _mm512_loadu_ps _mm512_storeu_ps _mm512_fmadd_ps _mm512_sqrt_ps;
            [add _mm512_add_ps] [sub _mm512_sub_ps] [mul _mm512_mul_ps] [min _mm512_min_ps]
            [max _mm512_max_ps]; {
                type Wide = $token<4>;
                $($rest)*

                #[inline(always)]
                fn wide(self) -> Self::Wide {
                    $token(())
                }
                #[inline(always)]
                fn shuffled<const D: i32>(self, around: &[f32]) -> Self::V {
                    let from = &around[..2 * REACH + Self::PIXELS];
                    // The slice has a register on each side.
                    each!(i, self.splat(0.0) => {
                        let before = _mm512_loadu_ps(from.as_ptr().add(16 * i));
                        let here = _mm512_loadu_ps(from.as_ptr().add(16 * i + 16));
                        let after = _mm512_loadu_ps(from.as_ptr().add(16 * i + 32));
                        match D {
                            -3 => align::<13>(here, before),
                            -2 => align::<14>(here, before),
                            -1 => align::<15>(here, before),
                            0 => here,
                            1 => align::<1>(after, here),
                            2 => align::<2>(after, here),
                            3 => align::<3>(after, here),
                            _ => unreachable!("shifts are -3 to 3"),
                        }
                    })
                }
                #[inline(always)]
                fn scale_by_power(self, p: Self::V, n: Self::V) -> Self::V {
                    each!(i, p => _mm512_scalef_ps(p[i], n[i]))
                }
                #[inline(always)]
                fn lookup(self, table: &[f32], index: &[u32], base: u32) -> Self::V {
                    let table: &[f32; 16] = table.first_chunk().expect("a table");
                    let index = &index[..Self::PIXELS];
                    // The arrays are what is read.
                    each!(i, self.splat(0.0) => {
                        let index = _mm512_loadu_si512(index.as_ptr().add(16 * i).cast());
                        let index = _mm512_sub_epi32(index, _mm512_set1_epi32(base as i32));
                        _mm512_permutexvar_ps(index, _mm512_loadu_ps(table.as_ptr()))
                    })
                }
                #[inline(always)]
                fn store_deinterleaved(self, even: &mut [f32], odd: &mut [f32], v: Self::V) {
                    let (even, odd) = (&mut even[..Self::PIXELS / 2], &mut odd[..Self::PIXELS / 2]);
                    for i in 0..N / 2 {
                        let (a, b) = (v[2 * i], v[2 * i + 1]);
                        // SAFETY: `self` exists, so the CPU has the instructions, and each slice has half the registers.
                        unsafe {
                            let e = _mm512_permutex2var_ps(a, sequence(0, 2), b);
                            let o = _mm512_permutex2var_ps(a, sequence(1, 2), b);
                            _mm512_storeu_ps(even.as_mut_ptr().add(16 * i), e);
                            _mm512_storeu_ps(odd.as_mut_ptr().add(16 * i), o);
                        }
                    }
                }
                #[inline(always)]
                fn store_interleaved(self, to: &mut [f32], a: Self::V, b: Self::V) {
                    let to = &mut to[..2 * Self::PIXELS];
                    for i in 0..N {
                        // SAFETY: `self` exists, so the CPU has the instructions, and the slice has twice the registers.
                        unsafe {
                            let (low, high) = (interleaved(0), interleaved(8));
                            let to = to.as_mut_ptr().add(32 * i);
                            _mm512_storeu_ps(to, _mm512_permutex2var_ps(a[i], low, b[i]));
                            _mm512_storeu_ps(to.add(16), _mm512_permutex2var_ps(a[i], high, b[i]));
                        }
                    }
                }
            }
        }
    };
}

avx512! {
    /// AVX-512 F, BW, DQ and VL.
    Avx512 {
        const OUTPUTS_MAX: usize = 26 / N;
        f32_words! {}

        #[inline(always)]
        fn recip(self, a: Self::V) -> Self::V {
            each!(i, a => newton(a[i]))
        }
        #[inline(always)]
        fn split(self, x: Self::V) -> (Self::V, Self::V) {
            // A Newton step turns infinity into NaN; the lower end needs no clamp.
            let x = self.min(self.splat(126.0), x);
            let n = each!(i, x => nearest(x[i]));
            (n, self.sub(x, n))
        }
    }
}

avx512! {
    /// AVX-512 as above and VNNI, with int16 products.
    Avx512VnniInt16 {
        const OUTPUTS_MAX: usize = 24 / N;

        #[inline(always)]
        fn dot(self, weight: &f32, x: Self::V, c: Self::V) -> Self::V {
            let weight = self.splat(*weight);
            each!(i, c => dot16(weight[i], x[i], c[i]))
        }
        // The compiler keeps the intrinsic in the short loops of 1x1 maps, which take 5 % less time than with assembly.
        #[inline(always)]
        fn dot_alone(self, weight: &f32, x: Self::V, c: Self::V) -> Self::V {
            let weight = self.splat(*weight);
            each!(i, c => {
                let (c, weight, x) = (_mm512_castps_si512(c[i]), _mm512_castps_si512(weight[i]), _mm512_castps_si512(x[i]));
                _mm512_castsi512_ps(_mm512_dpwssd_epi32(c, weight, x))
            })
        }
        int16_words! {
            _mm512_castps_si512 _mm512_castsi512_ps
            _mm512_cvtepi32_ps _mm512_cvtps_epi32 _mm512_packs_epi32 pairs16
        }
        avx512_short! {}
    }
}

avx512! {
    /// AVX-512 as above and BF16.
    Avx512Bf16 {
        const CHANNELS: usize = 2;
        const OUTPUTS_MAX: usize = 24 / N;

        #[inline(always)]
        fn dot(self, weight: &f32, x: Self::V, c: Self::V) -> Self::V {
            let weight = self.splat(*weight);
            each!(i, c => _mm512_dpbf16_ps(c[i], bf16(weight[i]), bf16(x[i])))
        }
        #[inline(always)]
        fn pack(self, low: Self::V, high: Self::V) -> Self::V {
            each!(i, low => pack(low[i], high[i]))
        }
        avx512_short! {}
    }
}

vnni! { dot16 "avx512f,avx512vnni" "vpdpwssd" zmm_reg __m512 }

/// Interleaves the halves of each 128-bit lane of a packed register into pairs.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn pairs16(packed: __m512i) -> __m512i {
    let order = _mm_setr_epi8(0, 1, 8, 9, 2, 3, 10, 11, 4, 5, 12, 13, 6, 7, 14, 15);
    _mm512_shuffle_epi8(packed, _mm512_broadcast_i32x4(order))
}

/// Elements from `I` on of `low` followed by `high`.
#[inline]
#[target_feature(enable = "avx512f")]
fn align<const I: i32>(high: __m512, low: __m512) -> __m512 {
    _mm512_castsi512_ps(_mm512_alignr_epi32::<I>(_mm512_castps_si512(high), _mm512_castps_si512(low)))
}

/// `first`, `first` + `step` ...
#[inline]
#[target_feature(enable = "avx512f")]
fn sequence(first: i32, step: i32) -> __m512i {
    let counting = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    _mm512_add_epi32(_mm512_mullo_epi32(counting, _mm512_set1_epi32(step)), _mm512_set1_epi32(first))
}

/// Indices that interleave two registers, from `first` on.
#[inline]
#[target_feature(enable = "avx512f")]
fn interleaved(first: i32) -> __m512i {
    let order = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    _mm512_add_epi32(order, _mm512_set1_epi32(first))
}

#[inline]
#[target_feature(enable = "avx512f")]
fn nearest(x: __m512) -> __m512 {
    _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(x)
}

/// The instruction gives 14 bits, a Newton step 24.
#[inline]
#[target_feature(enable = "avx512f")]
fn newton(a: __m512) -> __m512 {
    let y = _mm512_rcp14_ps(a);
    _mm512_fmadd_ps(_mm512_fnmadd_ps(a, y, _mm512_set1_ps(1.0)), y, y)
}

#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
fn bf16(v: __m512) -> __m512bh {
    // SAFETY: both are 512 bits without a niche.
    unsafe { std::mem::transmute(v) }
}

/// Pairs of bf16, rounded to nearest even.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
fn pack(low: __m512, high: __m512) -> __m512 {
    // The first 16 elements are of `low`, the last of `high`; a word takes one of each.
    let both = _mm512_cvtne2ps_pbh(high, low);
    let counting = sequence(0x0010_0000, 0x0001_0001);
    // SAFETY: both are 512 bits without a niche.
    let both: __m512i = unsafe { std::mem::transmute(both) };
    _mm512_castsi512_ps(_mm512_permutexvar_epi16(counting, both))
}

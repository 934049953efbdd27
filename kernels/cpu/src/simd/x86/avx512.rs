//! AVX-512: registers of sixteen floats, thirty-two of them.

use std::arch::x86_64::*;

use crate::simd::vector::Simd;

/// The operations that are precise enough for 16-bit words on AVX-512.
macro_rules! avx512_short {
    () => {
        #[inline(always)]
        fn recip(self, a: Self::V) -> Self::V {
            // SAFETY: `self` exists, so the CPU has the instruction.
            unsafe { [_mm512_rcp14_ps(a[0]), _mm512_rcp14_ps(a[1])] }
        }
        #[inline(always)]
        fn split(self, x: Self::V) -> (Self::V, Self::V) {
            // SAFETY: `self` exists, so the CPU has the instruction.
            let n = unsafe { [nearest(x[0]), nearest(x[1])] };
            (n, self.sub(x, n))
        }
    };
}

/// The operations that both kinds of words share on AVX-512.
macro_rules! avx512 {
    ($(#[$doc:meta])* $token:ident { $($rest:tt)* }) => {
        pair! {
            $(#[$doc])*
            $token, __m512, 16;
            _mm512_set1_ps _mm512_loadu_ps _mm512_storeu_ps _mm512_fmadd_ps _mm512_sqrt_ps;
            [add _mm512_add_ps] [sub _mm512_sub_ps] [mul _mm512_mul_ps] [min _mm512_min_ps]
            [max _mm512_max_ps]; {
                // A load that straddles cache lines takes two cycles on Zen 4; a shuffle takes a port that multiply-adds
                // leave free.
                type Around<'a> = [__m512; 4];
                $($rest)*

                #[inline(always)]
                fn around(self, from: &[f32]) -> [__m512; 4] {
                    let from: &[f32; 64] = from.first_chunk().expect("a vector and its neighbours");
                    // SAFETY: `self` exists, so the CPU has the instruction, and the array has four registers.
                    unsafe {
                        [
                            _mm512_loadu_ps(from.as_ptr()),
                            _mm512_loadu_ps(from.as_ptr().add(16)),
                            _mm512_loadu_ps(from.as_ptr().add(32)),
                            _mm512_loadu_ps(from.as_ptr().add(48)),
                        ]
                    }
                }
                #[inline(always)]
                fn shifted<const D: i32>(self, around: [__m512; 4]) -> Self::V {
                    let [a, b, c, d] = around;
                    // SAFETY: `self` exists, so the CPU has the instructions.
                    unsafe {
                        match D {
                            -3 => [align::<13>(b, a), align::<13>(c, b)],
                            -2 => [align::<14>(b, a), align::<14>(c, b)],
                            -1 => [align::<15>(b, a), align::<15>(c, b)],
                            0 => [b, c],
                            1 => [align::<1>(c, b), align::<1>(d, c)],
                            2 => [align::<2>(c, b), align::<2>(d, c)],
                            3 => [align::<3>(c, b), align::<3>(d, c)],
                            _ => unreachable!("shifts are -3 to 3"),
                        }
                    }
                }
                #[inline(always)]
                fn scale_by_power(self, p: Self::V, n: Self::V) -> Self::V {
                    // SAFETY: `self` exists, so the CPU has the instruction.
                    unsafe { [_mm512_scalef_ps(p[0], n[0]), _mm512_scalef_ps(p[1], n[1])] }
                }
                #[inline(always)]
                fn lookup(self, table: &[f32], index: &[u32], base: u32) -> Self::V {
                    let table: &[f32; 16] = table.first_chunk().expect("a table");
                    let index: &[u32; 32] = index.first_chunk().expect("a full vector");
                    // SAFETY: `self` exists, so the CPU has the instructions, and the arrays are what is read.
                    unsafe {
                        let table = _mm512_loadu_ps(table.as_ptr());
                        let base = _mm512_set1_epi32(base as i32);
                        let low = _mm512_loadu_si512(index.as_ptr().cast());
                        let high = _mm512_loadu_si512(index.as_ptr().add(16).cast());
                        [
                            _mm512_permutexvar_ps(_mm512_sub_epi32(low, base), table),
                            _mm512_permutexvar_ps(_mm512_sub_epi32(high, base), table),
                        ]
                    }
                }
                #[inline(always)]
                fn store_deinterleaved(self, even: &mut [f32], odd: &mut [f32], v: Self::V) {
                    let even: &mut [f32; 16] = even.first_chunk_mut().expect("half a vector");
                    let odd: &mut [f32; 16] = odd.first_chunk_mut().expect("half a vector");
                    // SAFETY: `self` exists, so the CPU has the instructions, and the arrays have a register each.
                    unsafe {
                        let [a, b] = v;
                        let e = _mm512_permutex2var_ps(a, sequence(0, 2), b);
                        let o = _mm512_permutex2var_ps(a, sequence(1, 2), b);
                        _mm512_storeu_ps(even.as_mut_ptr(), e);
                        _mm512_storeu_ps(odd.as_mut_ptr(), o);
                    }
                }
                #[inline(always)]
                fn store_interleaved(self, to: &mut [f32], a: Self::V, b: Self::V) {
                    let to: &mut [f32; 64] = to.first_chunk_mut().expect("two vectors");
                    for i in 0..2 {
                        // SAFETY: `self` exists, so the CPU has the instructions, and the array has four registers.
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
        const OUTPUTS_MAX: usize = 13;
        f32_words! {}

        #[inline(always)]
        fn recip(self, a: Self::V) -> Self::V {
            // SAFETY: `self` exists, so the CPU has the instructions.
            unsafe { [newton(a[0]), newton(a[1])] }
        }
        #[inline(always)]
        fn split(self, x: Self::V) -> (Self::V, Self::V) {
            // A Newton step turns infinity into NaN; the lower end needs no clamp.
            let x = self.min(self.splat(126.0), x);
            // SAFETY: `self` exists, so the CPU has the instruction.
            let n = unsafe { [nearest(x[0]), nearest(x[1])] };
            (n, self.sub(x, n))
        }
    }
}

avx512! {
    /// AVX-512 as above and VNNI, with int16 products.
    Avx512VnniInt16 {
        const OUTPUTS_MAX: usize = 12;
        vnni! { _mm512_dpwssd_epi32 _mm512_set1_ps _mm512_castps_si512 _mm512_castsi512_ps }
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
        const OUTPUTS_MAX: usize = 12;

        #[inline(always)]
        fn dot(self, weight: &f32, x: Self::V, c: Self::V) -> Self::V {
            // SAFETY: `self` exists, so the CPU has the instruction.
            unsafe {
                let weight = bf16(_mm512_set1_ps(*weight));
                [_mm512_dpbf16_ps(c[0], weight, bf16(x[0])), _mm512_dpbf16_ps(c[1], weight, bf16(x[1]))]
            }
        }
        #[inline(always)]
        fn pack(self, low: Self::V, high: Self::V) -> Self::V {
            // SAFETY: `self` exists, so the CPU has the instructions.
            unsafe { [pack(low[0], high[0]), pack(low[1], high[1])] }
        }
        avx512_short! {}
    }
}

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

//! The levels of x86-64: a vector is a pair of registers, and every operation an instruction or a few.
//!
//! In and out: as [`Simd`] has it. What a token of a level stands for is that the CPU has it; who makes one sees to that.

use std::arch::asm;
use std::arch::x86_64::*;

use super::{REACH, Simd, split_by_adding};

/// A level whose vector is a pair of registers of `$lanes` floats. What differs between levels beyond the
/// names of instructions is in `{ }`.
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

            // SAFETY: the caller says that the CPU has the level's features.
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
        }
    };
}

/// Words of two channels as whole numbers of 16 bits.
macro_rules! int16_words {
    ($to_int:ident $to_float:ident $cvt_float:ident $cvt_int:ident $packs:ident $pairs:ident) => {
        const CHANNELS: usize = 2;
        const WHOLE: bool = true;
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

/// Dots of CPUs with one instruction for products and their sum.
macro_rules! vnni {
    ($dot:ident $set1:ident $to_int:ident $to_float:ident) => {
        #[inline(always)]
        fn dot(self, weight: f32, x: Self::V, c: Self::V) -> Self::V {
            // SAFETY: `self` exists, so the CPU has the instructions.
            unsafe {
                let weight = $to_int($set1(weight));
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
        fn dot(self, weight: f32, x: Self::V, c: Self::V) -> Self::V {
            self.mul_add(self.splat(weight), x, c)
        }
        #[inline(always)]
        fn pack(self, _low: Self::V, _high: Self::V) -> Self::V {
            unreachable!("words hold one channel")
        }
    };
}

/// What is enough for words of 16 bits on AVX-512.
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

/// What both kinds of words share on AVX2.
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
                    let index: &[u32; 16] = index.first_chunk().expect("a whole vector");
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
                fn store_unzipped(self, even: &mut [f32], odd: &mut [f32], v: Self::V) {
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
                fn store_zipped(self, to: &mut [f32], a: Self::V, b: Self::V) {
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
    /// The same with products of whole numbers of 16 bits, of which a register holds twice as many.
    Avx2Int16 {
        const OUTPUTS_MAX: usize = 6;
        const OUTPUTS_WAITING: usize = 4;
        #[inline(always)]
        fn dot(self, weight: f32, x: Self::V, c: Self::V) -> Self::V {
            // SAFETY: `self` exists, so the CPU has the instructions.
            unsafe { dot8(_mm256_set1_ps(weight), x, c) }
        }
        #[inline(always)]
        fn dots<const N: usize>(self, weights: &[f32; N], x: Self::V, c: &mut [Self::V; N]) {
            // Outputs become words: they are made in twos.
            let (c, _) = c.as_chunks_mut::<2>();
            for (c, weights) in c.iter_mut().zip(weights.as_chunks::<2>().0) {
                // SAFETY: `self` exists, so the CPU has the instructions.
                unsafe { two_dots8(weights, x, c) };
            }
        }
        int16_words! {
            _mm256_castps_si256 _mm256_castsi256_ps
            _mm256_cvtepi32_ps _mm256_cvtps_epi32 _mm256_packs_epi32 pairs8
        }
    }
}

avx2! {
    /// The same with an instruction for a product and its sum.
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

/// What both kinds of words share on AVX-512.
macro_rules! avx512 {
    ($(#[$doc:meta])* $token:ident { $($rest:tt)* }) => {
        pair! {
            $(#[$doc])*
            $token, __m512, 16;
            _mm512_set1_ps _mm512_loadu_ps _mm512_storeu_ps _mm512_fmadd_ps _mm512_sqrt_ps;
            [add _mm512_add_ps] [sub _mm512_sub_ps] [mul _mm512_mul_ps] [min _mm512_min_ps]
            [max _mm512_max_ps]; {
                // A load that straddles cache lines takes two cycles on Zen 4; this takes a port that
                // multiply-adds leave free.
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
                    let index: &[u32; 32] = index.first_chunk().expect("a whole vector");
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
                fn store_unzipped(self, even: &mut [f32], odd: &mut [f32], v: Self::V) {
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
                fn store_zipped(self, to: &mut [f32], a: Self::V, b: Self::V) {
                    let to: &mut [f32; 64] = to.first_chunk_mut().expect("two vectors");
                    for i in 0..2 {
                        // SAFETY: `self` exists, so the CPU has the instructions, and the array has four registers.
                        unsafe {
                            let (low, high) = (zipped(0), zipped(8));
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
            // Newton's step makes NaN of infinity; no instruction here minds the other end.
            let x = self.min(self.splat(126.0), x);
            // SAFETY: `self` exists, so the CPU has the instruction.
            let n = unsafe { [nearest(x[0]), nearest(x[1])] };
            (n, self.sub(x, n))
        }
    }
}

avx512! {
    /// AVX-512 as above and VNNI, with products of whole numbers of 16 bits.
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
        fn dot(self, weight: f32, x: Self::V, c: Self::V) -> Self::V {
            // SAFETY: `self` exists, so the CPU has the instruction.
            unsafe {
                let weight = bf16(_mm512_set1_ps(weight));
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

// In assembly, for in Rust the compiler puts the sums of whole numbers in an order of its own and loads weights early, which
// takes more registers than there are (a Zen 3's cab2 of a row of 320: 5.9 us against 5.4).

#[inline]
#[target_feature(enable = "avx2")]
fn dot8(weight: __m256, x: [__m256; 2], mut c: [__m256; 2]) -> [__m256; 2] {
    // SAFETY: the CPU has the instructions, and they touch these registers alone.
    unsafe {
        asm!(
            "vpmaddwd {product}, {weight}, {x0}",
            "vpmaddwd {weight}, {weight}, {x1}",
            "vpaddd {c0}, {c0}, {product}",
            "vpaddd {c1}, {c1}, {weight}",
            weight = inout(ymm_reg) weight => _,
            product = out(ymm_reg) _,
            x0 = in(ymm_reg) x[0],
            x1 = in(ymm_reg) x[1],
            c0 = inout(ymm_reg) c[0],
            c1 = inout(ymm_reg) c[1],
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    c
}

/// Two of them, with weights in memory.
#[inline]
#[target_feature(enable = "avx2")]
fn two_dots8(weights: &[f32; 2], x: [__m256; 2], [c, d]: &mut [[__m256; 2]; 2]) {
    // SAFETY: the CPU has the instructions, and they touch these registers and read the weights alone.
    unsafe {
        asm!(
            "vpbroadcastd {weight}, dword ptr [{weights}]",
            "vpmaddwd {product}, {weight}, {x0}",
            "vpmaddwd {weight}, {weight}, {x1}",
            "vpaddd {c0}, {c0}, {product}",
            "vpaddd {c1}, {c1}, {weight}",
            "vpbroadcastd {weight}, dword ptr [{weights} + 4]",
            "vpmaddwd {product}, {weight}, {x0}",
            "vpmaddwd {weight}, {weight}, {x1}",
            "vpaddd {d0}, {d0}, {product}",
            "vpaddd {d1}, {d1}, {weight}",
            weights = in(reg) weights,
            weight = out(ymm_reg) _,
            product = out(ymm_reg) _,
            x0 = in(ymm_reg) x[0],
            x1 = in(ymm_reg) x[1],
            c0 = inout(ymm_reg) c[0],
            c1 = inout(ymm_reg) c[1],
            d0 = inout(ymm_reg) d[0],
            d1 = inout(ymm_reg) d[1],
            options(pure, readonly, nostack, preserves_flags)
        );
    }
}

/// Of registers packed lane by lane: pairs of one half and the other by turns.
#[inline]
#[target_feature(enable = "avx2")]
fn pairs8(packed: __m256i) -> __m256i {
    let turns = _mm_setr_epi8(0, 1, 8, 9, 2, 3, 10, 11, 4, 5, 12, 13, 6, 7, 14, 15);
    _mm256_shuffle_epi8(packed, _mm256_broadcastsi128_si256(turns))
}

/// As [`pairs8`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn pairs16(packed: __m512i) -> __m512i {
    let turns = _mm_setr_epi8(0, 1, 8, 9, 2, 3, 10, 11, 4, 5, 12, 13, 6, 7, 14, 15);
    _mm512_shuffle_epi8(packed, _mm512_broadcast_i32x4(turns))
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

/// Elements of two registers by turns, from `first` on.
#[inline]
#[target_feature(enable = "avx512f")]
fn zipped(first: i32) -> __m512i {
    let turns = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    _mm512_add_epi32(turns, _mm512_set1_epi32(first))
}

#[inline]
#[target_feature(enable = "avx512f")]
fn nearest(x: __m512) -> __m512 {
    _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(x)
}

#[inline]
#[target_feature(enable = "avx2")]
fn scale8(p: __m256, n: __m256) -> __m256 {
    let n = _mm256_slli_epi32::<23>(_mm256_castps_si256(n));
    _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p), n))
}

/// The instruction is good for 12 bits, a step of Newton's for 23.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn newton8(a: __m256) -> __m256 {
    let y = _mm256_rcp_ps(a);
    _mm256_fmadd_ps(_mm256_fnmadd_ps(a, y, _mm256_set1_ps(1.0)), y, y)
}

/// The instruction is good for 14 bits, a step of Newton's for 24.
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

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

/// All widths divide it, and the rows of maps are padded to it.
pub const PIXELS_MAX: usize = 32;
/// A register of the widest level: how far [`Simd::shifted`] may look.
pub const REACH: usize = 16;

/// One level's vectors.
pub trait Simd: Copy {
    /// Pixels in a vector.
    const PIXELS: usize;
    /// Channels in a word: 1 in f32, 2 in bf16 and int16.
    const CHANNELS: usize;
    /// Whether words hold whole numbers: what is packed is in codes, so many of which are 1.0, and so are weights.
    const WHOLE: bool = false;
    /// Outputs of a dense map that are made together: their accumulators fill the registers.
    const OUTPUTS_MAX: usize;
    /// The same where those of one row wait for those of another.
    const OUTPUTS_WAITING: usize = Self::OUTPUTS_MAX / 2;
    /// Outputs of each of three maps that are made together, at most.
    const OUTPUTS_OF_THREE: usize = Self::OUTPUTS_MAX / 3;
    /// A vector of [`Simd::PIXELS`] f32 or words.
    type V: Copy;
    /// A vector and its neighbours left and right.
    type Around<'a>: Copy;

    /// # Safety
    /// The CPU has the level's features.
    unsafe fn new() -> Self;
    /// `x` in every pixel.
    fn splat(self, x: f32) -> Self::V;
    /// The first [`Simd::PIXELS`] values of a slice.
    fn load(self, from: &[f32]) -> Self::V;
    /// Into the first [`Simd::PIXELS`] values of a slice.
    fn store(self, to: &mut [f32], v: Self::V);
    /// The vector at `from[REACH..]`; [`REACH`] values on each side of it exist.
    fn around(self, from: &[f32]) -> Self::Around<'_>;
    /// The vector `D` pixels further on, -3 to 3.
    fn shifted<const D: i32>(self, around: Self::Around<'_>) -> Self::V;
    /// a + b.
    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    /// a - b.
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    /// a · b.
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    /// The smaller one; `b` where either is NaN.
    fn min(self, a: Self::V, b: Self::V) -> Self::V;
    /// The larger one; `b` where either is NaN.
    fn max(self, a: Self::V, b: Self::V) -> Self::V;
    /// a · b + c, rounded once where the CPU can and twice elsewhere.
    fn mul_add(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// c + Σ weight · x over the channels of a word.
    fn dot(self, weight: &f32, x: Self::V, c: Self::V) -> Self::V;
    /// Where the sum of dots begins, of an output with this bias.
    #[inline(always)]
    fn begin(self, bias: f32) -> Self::V {
        self.splat(bias)
    }
    /// What the sum comes to: whole numbers become f32, and get the bias then.
    #[inline(always)]
    fn finish(self, sum: Self::V, _scale: f32, _bias: f32) -> Self::V {
        sum
    }
    /// Words of two channels, where words hold two.
    fn pack(self, low: Self::V, high: Self::V) -> Self::V;
    /// 1 / a, to 2e-7 of its value (6e-5 where words are of 16 bits), for 2^-100 < a < 2^127.
    fn recip(self, a: Self::V) -> Self::V;
    /// The square root.
    fn sqrt(self, a: Self::V) -> Self::V;
    /// The nearest whole number of `x`, as [`Simd::scale_by_power`] wants it, and what `x` is beyond it.
    fn split(self, x: Self::V) -> (Self::V, Self::V);
    /// `p` · 2^n, where n is the whole number of [`Simd::split`].
    fn scale_by_power(self, p: Self::V, n: Self::V) -> Self::V;
    /// `table[index - base]`, a few values from the start of `table`: see [`TABLE`].
    fn lookup(self, table: &[f32], index: &[u32], base: u32) -> Self::V;
    /// Pixels 0, 2, 4 ... to `even` and 1, 3, 5 ... to `odd`.
    fn store_unzipped(self, even: &mut [f32], odd: &mut [f32], v: Self::V);
    /// Pixels of `a` and `b` by turns.
    fn store_zipped(self, to: &mut [f32], a: Self::V, b: Self::V);
}

/// [`Simd::split`] without an instruction for it. The low bits of the whole number as f32 are the number; it is
/// within ±126, so that what is scaled by it stays a normal number.
#[inline(always)]
fn split_by_adding<S: Simd>(s: S, x: S::V) -> (S::V, S::V) {
    const ROUND: f32 = 12_582_912.0;
    let x = s.max(s.splat(-126.0), s.min(s.splat(126.0), x));
    let rounded = s.add(x, s.splat(ROUND));
    (rounded, s.sub(x, s.sub(rounded, s.splat(ROUND))))
}

/// Values that [`Simd::lookup`] may read of its table, on the level that reads most.
pub const TABLE: usize = 16;

/// Whatever the compiler makes of arrays for the target's baseline.
#[derive(Clone, Copy)]
pub struct Plain(());

impl Plain {
    #[inline(always)]
    fn zip(a: [f32; 8], b: [f32; 8], f: impl Fn(f32, f32) -> f32) -> [f32; 8] {
        std::array::from_fn(|i| f(a[i], b[i]))
    }
}

impl Simd for Plain {
    const PIXELS: usize = 8;
    const CHANNELS: usize = 1;
    const OUTPUTS_MAX: usize = 4;
    type V = [f32; 8];
    type Around<'a> = &'a [f32];

    // SAFETY: every CPU has the baseline.
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
    fn around(self, from: &[f32]) -> &[f32] {
        &from[..2 * REACH + 8]
    }
    #[inline(always)]
    fn shifted<const D: i32>(self, around: &[f32]) -> Self::V {
        self.load(&around[REACH.wrapping_add_signed(D as isize)..])
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
    fn dot(self, weight: &f32, x: Self::V, c: Self::V) -> Self::V {
        self.mul_add(self.splat(*weight), x, c)
    }
    #[inline(always)]
    fn pack(self, _low: Self::V, _high: Self::V) -> Self::V {
        unreachable!("words hold one channel")
    }
    #[inline(always)]
    fn recip(self, a: Self::V) -> Self::V {
        a.map(|a| 1.0 / a)
    }
    #[inline(always)]
    fn sqrt(self, a: Self::V) -> Self::V {
        a.map(f32::sqrt)
    }
    #[inline(always)]
    fn split(self, x: Self::V) -> (Self::V, Self::V) {
        split_by_adding(self, x)
    }
    #[inline(always)]
    fn scale_by_power(self, p: Self::V, n: Self::V) -> Self::V {
        Self::zip(p, n, |p, n| f32::from_bits(p.to_bits().wrapping_add(n.to_bits() << 23)))
    }
    #[inline(always)]
    fn lookup(self, table: &[f32], index: &[u32], base: u32) -> Self::V {
        std::array::from_fn(|i| table[(index[i] - base) as usize])
    }
    #[inline(always)]
    fn store_unzipped(self, even: &mut [f32], odd: &mut [f32], v: Self::V) {
        *even.first_chunk_mut().expect("half a vector") = [v[0], v[2], v[4], v[6]];
        *odd.first_chunk_mut().expect("half a vector") = [v[1], v[3], v[5], v[7]];
    }
    #[inline(always)]
    fn store_zipped(self, to: &mut [f32], a: Self::V, b: Self::V) {
        let zipped: [f32; 16] = std::array::from_fn(|i| if i % 2 == 0 { a[i / 2] } else { b[i / 2] });
        *to.first_chunk_mut().expect("two vectors") = zipped;
    }
}

#[cfg(target_arch = "x86_64")]
mod x86;
#[cfg(target_arch = "x86_64")]
pub use x86::{Avx2, Avx2Int16, Avx512, Avx512Bf16, Avx512VnniInt16, AvxVnniInt16};

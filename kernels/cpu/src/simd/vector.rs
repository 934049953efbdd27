//! The operations of a vector of pixels on every level.

/// The widest vector: all widths divide it, and rows are padded to it.
pub const PIXELS_MAX: usize = 32;
/// A register of the widest level: the reach of [`Simd::shifted`].
pub const REACH: usize = 16;

/// One level's vectors.
pub trait Simd: Copy {
    /// Pixels in a vector.
    const PIXELS: usize;
    /// Channels in a word: 1 in f32, 2 in bf16 and int16.
    const CHANNELS: usize;
    /// Whether words hold int16 pairs: values and weights are multiplied by quantization factors before they are packed.
    const INT16: bool = false;
    /// Outputs of a dense map computed together: their accumulators fill the registers.
    const OUTPUTS_MAX: usize;
    /// The same where the outputs of one row wait for those of the next.
    const OUTPUTS_WAITING: usize = Self::OUTPUTS_MAX / 2;
    /// Outputs of each of three maps computed together.
    const OUTPUTS_OF_THREE: usize = Self::OUTPUTS_MAX / 3;
    /// A vector of [`Simd::PIXELS`] f32 or words.
    type V: Copy;
    /// The same level with vectors of twice as many pixels, where it has registers for them: a broadcast weight serves all.
    type Wide: Simd;

    /// # Safety
    /// The CPU has the level's features.
    unsafe fn new() -> Self;
    /// The token of [`Simd::Wide`].
    fn wide(self) -> Self::Wide;
    /// `x` in every pixel.
    fn splat(self, x: f32) -> Self::V;
    /// The first [`Simd::PIXELS`] values of a slice.
    fn load(self, from: &[f32]) -> Self::V;
    /// Stores to the first [`Simd::PIXELS`] values of a slice.
    fn store(self, to: &mut [f32], v: Self::V);
    /// The vector at `around[REACH..]` shifted by `D` pixels, -3 to 3. `around`: it and [`REACH`] values on each side of it.
    #[inline(always)]
    fn shifted<const D: i32>(self, around: &[f32]) -> Self::V {
        self.load(&around[REACH.wrapping_add_signed(D as isize)..])
    }
    /// Prefetches the vector that begins at `at`, if the row has one there.
    #[inline(always)]
    fn prefetch(self, _row: &[f32], _at: usize) {}
    /// [`Simd::shifted`] for a vector that serves few products: shuffled where loads are the bound.
    #[inline(always)]
    fn shuffled<const D: i32>(self, around: &[f32]) -> Self::V {
        self.shifted::<D>(around)
    }
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
    /// [`Simd::dot`] of a 1x1 map.
    #[inline(always)]
    fn dot_alone(self, weight: &f32, x: Self::V, c: Self::V) -> Self::V {
        self.dot(weight, x, c)
    }
    /// The initial sum of an output with this bias.
    #[inline(always)]
    fn begin(self, bias: f32) -> Self::V {
        self.splat(bias)
    }
    /// The output of a sum: an int32 sum is converted to f32 and gets the bias.
    #[inline(always)]
    fn finish(self, sum: Self::V, _scale: f32, _bias: f32) -> Self::V {
        sum
    }
    /// Packs two channels into words, on levels of two channels per word.
    fn pack(self, low: Self::V, high: Self::V) -> Self::V;
    /// 1 / a with a relative error of 2e-7 (6e-5 with 16-bit words), for 2^-100 < a < 2^127.
    fn recip(self, a: Self::V) -> Self::V;
    /// The square root.
    fn sqrt(self, a: Self::V) -> Self::V;
    /// The nearest integer of `x`, in the form that [`Simd::scale_by_power`] takes, and the rest.
    fn split(self, x: Self::V) -> (Self::V, Self::V);
    /// `p` · 2^n, where n is the integer of [`Simd::split`].
    fn scale_by_power(self, p: Self::V, n: Self::V) -> Self::V;
    /// `table[index - base]`, among the first [`TABLE`] values of `table`.
    fn lookup(self, table: &[f32], index: &[u32], base: u32) -> Self::V;
    /// Stores pixels 0, 2, 4 ... to `even` and 1, 3, 5 ... to `odd`.
    fn store_deinterleaved(self, even: &mut [f32], odd: &mut [f32], v: Self::V);
    /// Stores the pixels of `a` and `b` alternately.
    fn store_interleaved(self, to: &mut [f32], a: Self::V, b: Self::V);
}

/// [`Simd::split`] without an instruction for it. The low bits of the integer as f32 are the integer; it is within ±126, so
/// that a scaled number stays normal.
#[inline(always)]
pub(super) fn split_by_adding<S: Simd>(s: S, x: S::V) -> (S::V, S::V) {
    const ROUND: f32 = 12_582_912.0;
    let x = s.max(s.splat(-126.0), s.min(s.splat(126.0), x));
    let rounded = s.add(x, s.splat(ROUND));
    (rounded, s.sub(x, s.sub(rounded, s.splat(ROUND))))
}

/// Length of the table of [`Simd::lookup`] on the widest level.
pub const TABLE: usize = 16;

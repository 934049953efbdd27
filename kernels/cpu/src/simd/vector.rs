//! What a vector of pixels can do, whatever the level.

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
pub(super) fn split_by_adding<S: Simd>(s: S, x: S::V) -> (S::V, S::V) {
    const ROUND: f32 = 12_582_912.0;
    let x = s.max(s.splat(-126.0), s.min(s.splat(126.0), x));
    let rounded = s.add(x, s.splat(ROUND));
    (rounded, s.sub(x, s.sub(rounded, s.splat(ROUND))))
}

/// Values that [`Simd::lookup`] may read of its table, on the level that reads most.
pub const TABLE: usize = 16;

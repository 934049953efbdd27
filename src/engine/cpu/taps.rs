//! The inner loop of every dense map: four output channels of one vector of pixels.

use super::pack::Dense;
use super::simd::Simd;

/// A dense map and where its taps lie in the slice that it reads.
#[derive(Clone, Copy)]
pub(super) struct Bound<'a> {
    /// Weights and biases.
    pub(super) map: &'a Dense,
    /// For each tap, floats from the place of the output pixel.
    pub(super) offsets: &'a [usize],
}

/// `acc[o]` + Σ over taps of weight[tap][o] · src[offset[tap]..]. The accumulators of a group are two registers
/// each, which with four outputs hides the latency of FMA and reads each pixel once for four uses.
#[inline(always)]
pub(super) fn accumulate<S: Simd>(
    s: S,
    mut acc: [S::V; 4],
    src: &[f32],
    offsets: &[usize],
    weights: &[[f32; 4]],
) -> [S::V; 4] {
    for (offset, weights) in offsets.iter().zip(weights) {
        let x = s.load(&src[*offset..]);
        for (acc, weight) in acc.iter_mut().zip(weights) {
            *acc = s.mul_add(s.splat(*weight), x, *acc);
        }
    }
    acc
}

/// One value for each of four outputs.
#[inline(always)]
pub(super) fn splat4<S: Simd>(s: S, values: [f32; 4]) -> [S::V; 4] {
    [s.splat(values[0]), s.splat(values[1]), s.splat(values[2]), s.splat(values[3])]
}

impl Bound<'_> {
    /// Outputs 4·`group` to 4·`group` + 3 at the pixels from the start of `src`.
    #[inline(always)]
    pub(super) fn group<S: Simd>(&self, s: S, src: &[f32], group: usize) -> [S::V; 4] {
        let acc = splat4(s, self.map.bias[group]);
        accumulate(s, acc, src, self.offsets, self.map.group(group))
    }
}

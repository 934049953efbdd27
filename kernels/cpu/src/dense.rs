//! Dense maps: the inner loop of all of them, and the stages that are one dense map.
//!
//! `rows` are the input rows around the output row, [words, stride] each; `out` is a row. All groups of outputs of a
//! vector of pixels are computed in turn, while its pixels are in the L1 cache and the weights in L2.

use super::layout::{MARGIN, Span};
use super::math;
use super::simd::{PIXELS_MAX, REACH, Simd};
use super::weights::{Dense, Group};

/// The kind of an input's words.
pub(crate) trait Operand {
    /// See [`Simd::dot`].
    fn dot<S: Simd>(s: S, weight: &f32, x: S::V, c: S::V) -> S::V;
    /// See [`Simd::dot_alone`].
    fn dot_alone<S: Simd>(s: S, weight: &f32, x: S::V, c: S::V) -> S::V;
    /// See [`Simd::begin`].
    fn begin<S: Simd>(s: S, bias: f32) -> S::V;
    /// See [`Simd::finish`].
    fn finish<S: Simd>(s: S, sum: S::V, scale: f32, bias: f32) -> S::V;
}

/// The level's own words.
pub(crate) struct Words;
/// f32 on every level.
pub(crate) struct Exact;

impl Operand for Words {
    #[inline(always)]
    fn dot<S: Simd>(s: S, weight: &f32, x: S::V, c: S::V) -> S::V {
        s.dot(weight, x, c)
    }
    #[inline(always)]
    fn dot_alone<S: Simd>(s: S, weight: &f32, x: S::V, c: S::V) -> S::V {
        s.dot_alone(weight, x, c)
    }
    #[inline(always)]
    fn begin<S: Simd>(s: S, bias: f32) -> S::V {
        s.begin(bias)
    }
    #[inline(always)]
    fn finish<S: Simd>(s: S, sum: S::V, scale: f32, bias: f32) -> S::V {
        s.finish(sum, scale, bias)
    }
}

impl Operand for Exact {
    #[inline(always)]
    fn dot<S: Simd>(s: S, weight: &f32, x: S::V, c: S::V) -> S::V {
        s.mul_add(s.splat(*weight), x, c)
    }
    #[inline(always)]
    fn dot_alone<S: Simd>(s: S, weight: &f32, x: S::V, c: S::V) -> S::V {
        Self::dot(s, weight, x, c)
    }
    #[inline(always)]
    fn begin<S: Simd>(s: S, bias: f32) -> S::V {
        s.splat(bias)
    }
    #[inline(always)]
    fn finish<S: Simd>(_: S, sum: S::V, _: f32, _: f32) -> S::V {
        sum
    }
}

/// Runs `$body` with `$n` the number of outputs of `$group`, or of each of three maps in it, as a constant. The guard is a
/// constant expression, so that no code is generated for counts that the level does not have.
macro_rules! with_outputs {
    ($level:ty, $group:ident, $n:ident => $body:expr) => {
        with_outputs!(@ $level, OUTPUTS_MAX, $group.bias.len(), $n => $body, 1 2 3 4 5 6 7 8 9 10 11 12 13)
    };
    ($level:ty, $group:ident / 3, $n:ident => $body:expr) => {
        with_outputs!(@ $level, OUTPUTS_OF_THREE, $group.bias.len() / 3, $n => $body, 1 2 3 4)
    };
    (@ $level:ty, $max:ident, $outputs:expr, $n:ident => $body:expr, $($count:literal)*) => {
        match $outputs {
            $($count if const { $count <= <$level>::$max && $count % <$level>::CHANNELS == 0 } => {
                const $n: usize = $count;
                $body
            })*
            more => unreachable!("{more} outputs in a group"),
        }
    };
}
pub(crate) use with_outputs;

/// Computes the outputs of a group for the vector at column `x`.
#[inline(always)]
pub(crate) fn outputs<S: Simd, O: Operand, const N: usize, const SIDE: usize>(
    s: S,
    rows: &[&[f32]; SIDE],
    x: usize,
    stride: usize,
    group: Group<'_>,
) -> [S::V; N] {
    let acc = begin::<S, O, N>(s, group);
    let mut acc = add_outputs::<S, O, N, SIDE>(s, acc, rows, x, stride, group);
    finish::<S, O, N>(s, &mut acc, group);
    acc
}

/// Initialises the sums of a group.
#[inline(always)]
pub(crate) fn begin<S: Simd, O: Operand, const N: usize>(s: S, group: Group<'_>) -> [S::V; N] {
    let bias: &[f32; N] = group.bias.first_chunk().expect("one for each output");
    let mut acc = [s.splat(0.0); N];
    for (acc, bias) in acc.iter_mut().zip(bias) {
        *acc = O::begin(s, *bias);
    }
    acc
}

/// Converts the sums of a group to its outputs.
#[inline(always)]
pub(crate) fn finish<S: Simd, O: Operand, const N: usize>(s: S, acc: &mut [S::V; N], group: Group<'_>) {
    let bias: &[f32; N] = group.bias.first_chunk().expect("one for each output");
    let scale: &[f32; N] = group.scale.first_chunk().expect("one for each output");
    for ((acc, scale), bias) in acc.iter_mut().zip(scale).zip(bias) {
        *acc = O::finish(s, *acc, *scale, *bias);
    }
}

/// Adds the dot products of a group to `acc`, without its bias. The sums are passed by value: in the caller's array, which
/// may be indexed, the compiler would keep them in memory.
#[inline(always)]
pub(crate) fn add_outputs<S: Simd, O: Operand, const N: usize, const SIDE: usize>(
    s: S,
    mut acc: [S::V; N],
    rows: &[&[f32]; SIDE],
    x: usize,
    stride: usize,
    group: Group<'_>,
) -> [S::V; N] {
    let (weights, _) = group.weight.as_chunks::<N>();
    // One bounds check for all words: with one per word, the gate of a row of 320 takes 35 us on a Zen 3 in f32 instead of
    // 25 (2026-11-28).
    let words = weights.len() / (SIDE * SIDE);
    let window = S::PIXELS + if SIDE == 1 { REACH } else { 2 * REACH };
    assert!(rows.iter().all(|row| x + words.saturating_sub(1) * stride + window <= row.len()));
    for (word, weights) in weights.chunks_exact(SIDE * SIDE).enumerate() {
        for (row, weights) in rows.iter().zip(weights.chunks_exact(SIDE)) {
            let first = word * stride + x;
            // SAFETY: the assertion covers the last word, and all others lie before it.
            let from = unsafe { row.get_unchecked(first..first + window) };
            match SIDE {
                1 => {
                    let x = s.load(&from[REACH..]);
                    for (acc, weight) in acc.iter_mut().zip(&weights[0]) {
                        *acc = O::dot_alone(s, weight, x, *acc);
                    }
                }
                3 => {
                    add::<S, O, N>(s, &mut acc, s.shifted::<-1>(from), &weights[0]);
                    add::<S, O, N>(s, &mut acc, s.shifted::<0>(from), &weights[1]);
                    add::<S, O, N>(s, &mut acc, s.shifted::<1>(from), &weights[2]);
                }
                5 => {
                    add::<S, O, N>(s, &mut acc, s.shifted::<-2>(from), &weights[0]);
                    add::<S, O, N>(s, &mut acc, s.shifted::<-1>(from), &weights[1]);
                    add::<S, O, N>(s, &mut acc, s.shifted::<0>(from), &weights[2]);
                    add::<S, O, N>(s, &mut acc, s.shifted::<1>(from), &weights[3]);
                    add::<S, O, N>(s, &mut acc, s.shifted::<2>(from), &weights[4]);
                }
                _ => unreachable!("convs are 1x1, 3x3 or 5x5"),
            }
        }
    }
    acc
}

/// Adds one tap of every output.
#[inline(always)]
pub(crate) fn add<S: Simd, O: Operand, const N: usize>(
    s: S,
    acc: &mut [S::V; N],
    x: S::V,
    weights: &[f32; N],
) {
    for (acc, weight) in acc.iter_mut().zip(weights) {
        *acc = O::dot(s, weight, x, *acc);
    }
}

/// Stores channels from `first` on as words, in a row of [words, stride] at column `x`.
#[inline(always)]
pub(crate) fn store_words<S: Simd, const N: usize>(
    s: S,
    row: &mut [f32],
    acc: &[S::V; N],
    first: usize,
    x: usize,
    stride: usize,
) {
    for (i, channels) in acc.chunks_exact(S::CHANNELS).enumerate() {
        let word = if S::CHANNELS == 2 { s.pack(channels[0], channels[1]) } else { channels[0] };
        s.store(&mut row[(first / S::CHANNELS + i) * stride + x..], word);
    }
}

/// Stores channels from `first` on in f32, in a row of [channels, stride] at column `x`.
#[inline(always)]
pub(crate) fn store_channels<S: Simd, const N: usize>(
    s: S,
    row: &mut [f32],
    acc: &[S::V; N],
    first: usize,
    x: usize,
    stride: usize,
) {
    for (o, acc) in acc.iter().enumerate() {
        s.store(&mut row[(first + o) * stride + x..], *acc);
    }
}

/// `out` in words = conv(`rows`).
#[inline(always)]
pub fn convolve<S: Simd>(s: S, out: &mut [f32], rows: &[&[f32]; 3], conv: &Dense, span: Span) {
    to_words::<S, false>(s, out, rows, conv, 1.0, span);
}

/// `out` in words = GELU(conv(`rows`)); in int16 it is multiplied by `factor`.
#[inline(always)]
pub fn convolve_gelu<S: Simd>(
    s: S,
    out: &mut [f32],
    rows: &[&[f32]; 3],
    conv: &Dense,
    factor: f32,
    span: Span,
) {
    to_words::<S, true>(s, out, rows, conv, factor, span);
}

/// `out` in f32 = conv(`rows`), and `sums`: `[outputs]`, the sum of each channel over the row.
#[inline(always)]
pub fn convolve_sum<S: Simd>(
    s: S,
    out: &mut [f32],
    rows: &[&[f32]; 3],
    conv: &Dense,
    span: Span,
    sums: &mut [f32],
) {
    for x in (0..span.width).step_by(S::PIXELS) {
        for group in conv.groups() {
            with_outputs!(S, group, N => {
                let acc = outputs::<S, Words, N, 3>(s, rows, x, span.stride, group);
                store_channels(s, out, &acc, group.first, MARGIN + x, span.stride);
            });
        }
    }
    span.clear_tail(out);
    for (channel, sum) in out.chunks_exact(span.stride).zip(sums) {
        let mut acc = s.splat(0.0);
        for x in (0..span.width).step_by(S::PIXELS) {
            acc = s.add(acc, s.load(&channel[MARGIN + x..]));
        }
        let mut lanes = [0.0; PIXELS_MAX];
        s.store(&mut lanes, acc);
        *sum = lanes.iter().sum();
    }
}

#[inline(always)]
fn to_words<S: Simd, const GELU: bool>(
    s: S,
    out: &mut [f32],
    rows: &[&[f32]; 3],
    conv: &Dense,
    factor: f32,
    span: Span,
) {
    for x in (0..span.width).step_by(S::PIXELS) {
        for group in conv.groups() {
            with_outputs!(S, group, N => {
                let mut acc = outputs::<S, Words, N, 3>(s, rows, x, span.stride, group);
                if GELU {
                    for acc in &mut acc {
                        *acc = math::gelu(s, *acc);
                        if S::INT16 {
                            *acc = s.mul(*acc, s.splat(factor));
                        }
                    }
                }
                store_words(s, out, &acc, group.first, MARGIN + x, span.stride);
            });
        }
    }
    span.clear_tail(out);
}

/// `out` in words = `scale` · `row`; `row` is f32, `scale`: `[channels]`.
#[inline(always)]
pub fn scale_row<S: Simd>(s: S, out: &mut [f32], row: &[f32], scale: &[f32], span: Span) {
    for (word, scale) in scale.chunks(S::CHANNELS).enumerate() {
        for x in (0..span.width).step_by(S::PIXELS) {
            let from = &row[word * S::CHANNELS * span.stride + MARGIN + x..];
            let low = s.mul(s.splat(scale[0]), s.load(from));
            let value = match (S::CHANNELS, scale.get(1)) {
                (1, _) => low,
                (_, Some(scale)) => s.pack(low, s.mul(s.splat(*scale), s.load(&from[span.stride..]))),
                (_, None) => s.pack(low, s.splat(0.0)),
            };
            s.store(&mut out[word * span.stride + MARGIN + x..], value);
        }
    }
    span.clear_tail(out);
}

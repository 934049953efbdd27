//! The middle of a block, all 1x1: gate, spatial attention and `g`, for the one or two rows that a word of the result
//! holds.
//!
//! A vector of pixels passes through all of it before the next, so that the M wide tensors are a few kilobytes of scratch
//! and never a map.

use super::dense::{Words, outputs, store_channels, store_words, with_outputs};
use super::esa::{Between, interpolate_columns};
use super::layout::{MARGIN, Span};
use super::math;
use super::simd::{PIXELS_MAX, Simd};
use super::weights::Gate;

/// Stride of the channels in scratch, which lie behind a margin as the dense loops require.
const STRIDE: usize = PIXELS_MAX;

/// Length of the scratch in floats, for one vector: the M wide sigmoids, the E wide tensor in words, and the M wide tensor
/// of each of `rows` in words.
pub fn scratch_len(gate: &Gate, rows: usize) -> usize {
    2 * MARGIN + (gate.conv4.bias.len() + gate.conv4.words + rows * gate.g.words) * STRIDE
}

/// Computes a row of `out`: [C, stride] in f32, or in words of a pair of rows, the second of which may not exist. `n`: its
/// rows, [words of C, stride]. `coarse`: for each of them, ESA's grid interpolated vertically.
#[inline(always)]
pub fn gate<S: Simd>(
    s: S,
    out: &mut [f32],
    n: &[&[f32]],
    maps: &Gate,
    (coarse, span3, columns): (&[f32], Span, &Between),
    scratch: &mut [f32],
    span: Span,
) {
    let (sigmoids, rest) = scratch.split_at_mut(maps.conv4.bias.len() * STRIDE);
    let (attention, gated) = rest.split_at_mut(MARGIN + maps.conv4.words * STRIDE);
    let gated_len = maps.g.words * STRIDE;
    for x in (0..span.width).step_by(S::PIXELS) {
        for (row, coarse) in coarse.chunks_exact(coarse.len() / n.len()).enumerate() {
            let gated = &mut gated[row * gated_len..];
            gate_vector(s, gated, n[row], maps, (coarse, span3, columns), (sigmoids, attention), x, span);
        }
        for group in maps.g.groups() {
            with_outputs!(S, group, N => {
                let mut acc = outputs::<S, Words, N, 1>(s, &[&*gated], 0, STRIDE, group);
                if S::CHANNELS == 2 {
                    let mut high = [s.splat(0.0); N];
                    if n.len() == 2 {
                        high = outputs::<S, Words, N, 1>(s, &[&gated[gated_len..]], 0, STRIDE, group);
                    }
                    for (low, high) in acc.iter_mut().zip(high) {
                        *low = s.pack(*low, high);
                    }
                }
                store_channels(s, out, &acc, group.first, MARGIN + x, span.stride);
            });
        }
    }
    span.clear_tail(out);
}

/// Computes the input of `g` for one vector.
#[inline(always)]
#[allow(clippy::too_many_arguments, reason = "hot loops take plain arguments")]
fn gate_vector<S: Simd>(
    s: S,
    gated: &mut [f32],
    n: &[f32],
    maps: &Gate,
    (coarse, span3, columns): (&[f32], Span, &Between),
    (sigmoids, attention): (&mut [f32], &mut [f32]),
    x: usize,
    span: Span,
) {
    for group in maps.conv_f.groups() {
        with_outputs!(S, group, N => {
            let mut acc = outputs::<S, Words, N, 1>(s, &[n], x, span.stride, group);
            for (acc, grid) in acc.iter_mut().zip(coarse.chunks_exact(span3.stride).skip(group.first)) {
                *acc = s.add(*acc, interpolate_columns(s, grid, columns, x));
            }
            store_words(s, attention, &acc, group.first, MARGIN, STRIDE);
        });
    }
    for group in maps.conv4.groups() {
        with_outputs!(S, group, N => {
            let mut acc = outputs::<S, Words, N, 1>(s, &[&*attention], 0, STRIDE, group);
            for acc in &mut acc {
                *acc = math::sigmoid_of_scaled(s, *acc);
            }
            store_channels(s, sigmoids, &acc, group.first, 0, S::PIXELS);
        });
    }
    for group in maps.f.groups() {
        with_outputs!(S, group / 3, N => {
            const OF_THREE: usize = 3 * N;
            let first = group.first / 3;
            let f = outputs::<S, Words, OF_THREE, 1>(s, &[n], x, span.stride, group);
            let mut t = [s.splat(0.0); N];
            let sigmoids = sigmoids[first * S::PIXELS..].chunks_exact(S::PIXELS);
            for (i, (t, sigmoid)) in t.iter_mut().zip(sigmoids).enumerate() {
                *t = s.mul_add(relu6(s, f[i]), f[N + i], s.mul(f[2 * N + i], s.load(sigmoid)));
            }
            store_words(s, gated, &t, first, MARGIN, STRIDE);
        });
    }
}

/// ReLU6; NaN stays NaN.
#[inline(always)]
fn relu6<S: Simd>(s: S, x: S::V) -> S::V {
    s.min(s.splat(6.0), s.max(s.splat(0.0), x))
}

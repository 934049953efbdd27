//! The middle of a block, all 1x1: gate, spatial attention and `g`, a row of the normalised tensor at a time.
//!
//! A vector of pixels passes through all of it before the next, so that the M wide tensors are a few kilobytes
//! lent by the caller and never a map.

use super::dense::{Words, outputs, store_channels, store_words, with_outputs};
use super::esa::{Between, between_columns};
use super::layout::{MARGIN, Span};
use super::math;
use super::pack::Gate;
use super::simd::{PIXELS_MAX, Simd};

/// Where a channel of the scratch lies for the loops of dense maps, which look for it behind a margin.
const STRIDE: usize = PIXELS_MAX;

/// Floats of scratch: the E wide and the M wide tensor of one vector, in words.
pub(super) fn scratch_len(gate: &Gate) -> usize {
    2 * MARGIN + (gate.conv4.words + gate.g.words) * STRIDE
}

/// `out`: [C, stride] in f32; `n`: [words of C, stride]. `coarse`: ESA's grid between the two rows round this one.
#[inline(always)]
pub(super) fn gate<S: Simd>(
    s: S,
    out: &mut [f32],
    n: &[f32],
    maps: &Gate,
    (coarse, span3, columns): (&[f32], Span, &Between),
    scratch: &mut [f32],
    span: Span,
) {
    let (attention, gated) = scratch.split_at_mut(MARGIN + maps.conv4.words * STRIDE);
    for x in (0..span.width).step_by(S::PIXELS) {
        for group in maps.conv_f.groups() {
            with_outputs!(S, group, N => {
                let mut acc = outputs::<S, Words, N, 1>(s, &[n], x, span.stride, group);
                for (acc, grid) in acc.iter_mut().zip(coarse.chunks_exact(span3.stride).skip(group.first)) {
                    *acc = s.add(*acc, between_columns(s, grid, columns, x));
                }
                store_words(s, attention, &acc, group.first, MARGIN, STRIDE);
            });
        }
        // The four maps are cut into the same groups, of half the registers: one map's outputs wait for the next's.
        let groups = maps.f1.groups().zip(maps.f2.groups()).zip(maps.f3.groups()).zip(maps.conv4.groups());
        for (((f1, f2), f3), conv4) in groups {
            let first = f1.first;
            with_outputs!(S, f1, N => {
                let mut t = outputs::<S, Words, N, 1>(s, &[&*attention], 0, STRIDE, conv4);
                for t in &mut t {
                    *t = math::sigmoid_of_scaled(s, *t);
                }
                let f3 = outputs::<S, Words, N, 1>(s, &[n], x, span.stride, f3);
                for (t, f3) in t.iter_mut().zip(f3) {
                    *t = s.mul(*t, f3);
                }
                let f1 = outputs::<S, Words, N, 1>(s, &[n], x, span.stride, f1);
                let f2 = outputs::<S, Words, N, 1>(s, &[n], x, span.stride, f2);
                for ((t, f1), f2) in t.iter_mut().zip(f1).zip(f2) {
                    *t = s.mul_add(relu6(s, f1), f2, *t);
                }
                store_words(s, gated, &t, first, MARGIN, STRIDE);
            });
        }
        for group in maps.g.groups() {
            with_outputs!(S, group, N => {
                let acc = outputs::<S, Words, N, 1>(s, &[&*gated], 0, STRIDE, group);
                store_channels(s, out, &acc, group.first, MARGIN + x, span.stride);
            });
        }
    }
    span.clear_tail(out);
}

/// NaN stays NaN.
#[inline(always)]
fn relu6<S: Simd>(s: S, x: S::V) -> S::V {
    s.min(s.splat(6.0), s.max(s.splat(0.0), x))
}

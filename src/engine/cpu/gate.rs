//! The middle of a block, all 1x1: gate, spatial attention and `g`, in place in a row of the normalised tensor.
//!
//! A vector of pixels passes through all of it before the next, so that the M wide tensors are a few kilobytes
//! of row scratch and never a map.

use super::layout::{MARGIN, Span};
use super::math;
use super::pack::{Dense, Gate};
use super::simd::{PIXELS_MAX, Simd};
use super::taps::Bound;

/// The maps and where their taps lie.
#[derive(Clone, Copy)]
pub(super) struct BoundGate<'a> {
    /// All six.
    pub(super) maps: &'a Gate,
    /// Of the C channels in a row.
    pub(super) in_row: &'a [usize],
    /// Of the channels in row scratch: [`PIXELS_MAX`] floats each, as many as the widest map reads.
    pub(super) in_scratch: &'a [usize],
}

impl Gate {
    /// Floats of row scratch: the E wide and the M wide tensor of one vector.
    pub(super) fn scratch_len(&self) -> usize {
        4 * (self.conv_f.groups() + self.f1.groups()) * PIXELS_MAX
    }
}

/// `row`: [C, stride], n in and g out. `coarse`: [E, stride], ESA's grid interpolated to this row.
#[inline(always)]
pub(super) fn gate<S: Simd>(
    s: S,
    row: &mut [f32],
    coarse: &[f32],
    gate: BoundGate<'_>,
    scratch: &mut [f32],
    span: Span,
) {
    let BoundGate { maps, in_row, in_scratch } = gate;
    let (attention, gated) = scratch.split_at_mut(4 * maps.conv_f.groups() * PIXELS_MAX);
    for x in (0..span.width).step_by(S::PIXELS) {
        let n = &row[MARGIN + x..];
        for group in 0..maps.conv_f.groups() {
            let acc = on(&maps.conv_f, in_row).group(s, n, group);
            for (e, acc) in (4 * group..maps.conv_f.outputs).zip(acc) {
                let grid = s.load(&coarse[e * span.stride + MARGIN + x..]);
                s.store(&mut attention[e * PIXELS_MAX..], s.add(acc, grid));
            }
        }
        for group in 0..maps.f1.groups() {
            let f1 = on(&maps.f1, in_row).group(s, n, group);
            let f2 = on(&maps.f2, in_row).group(s, n, group);
            let mut t = f1;
            for (t, f2) in t.iter_mut().zip(f2) {
                *t = s.mul(relu6(s, *t), f2);
            }
            let f3 = on(&maps.f3, in_row).group(s, n, group);
            let c4 = on(&maps.conv4, in_scratch).group(s, attention, group);
            for o in 0..4 {
                let t = s.mul_add(f3[o], math::sigmoid(s, c4[o]), t[o]);
                s.store(&mut gated[(4 * group + o) * PIXELS_MAX..], t);
            }
        }
        for group in 0..maps.g.groups() {
            let acc = on(&maps.g, in_scratch).group(s, gated, group);
            for (o, acc) in acc.into_iter().enumerate() {
                s.store(&mut row[(4 * group + o) * span.stride + MARGIN + x..], acc);
            }
        }
    }
    span.clear_tail(row);
}

#[inline(always)]
fn on<'a>(map: &'a Dense, offsets: &'a [usize]) -> Bound<'a> {
    Bound { map, offsets }
}

/// NaN stays NaN.
#[inline(always)]
fn relu6<S: Simd>(s: S, x: S::V) -> S::V {
    s.min(s.splat(6.0), s.max(s.splat(0.0), x))
}

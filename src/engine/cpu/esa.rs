//! ESA's grid: from the normalised tensor to a few coarse pixels, and a row of them interpolated.
//!
//! The first two functions run for every pixel and are loops of a CPU level. The others see a ninth of a quarter
//! of the pixels and are left to the compiler.

use super::layout::{MARGIN, Span};
use super::simd::{PIXELS_MAX, Simd};
use super::taps::Bound;
use crate::model::Conv;

/// Rows of `conv2` that share their rows of `conv1`: 9 are made for them, of which one is made again by the next
/// band. More would leave the nearest cache.
pub(super) const BAND_ROWS: usize = 4;

/// Sizes on the way to the grid.
#[derive(Clone, Copy)]
pub(super) struct Grid {
    /// E filled up to groups of four.
    pub(super) channels: usize,
    /// Even or odd columns of a row of `conv1`, with room for whole vectors and one more.
    half: usize,
    /// After `conv2`.
    pub(super) height2: usize,
    /// After `conv2`, filled up to whole vectors.
    pub(super) stride2: usize,
    /// After the pool and `conv3`.
    pub(super) height3: usize,
    /// After the pool and `conv3`.
    pub(super) width3: usize,
}

impl Grid {
    pub(super) fn new(channels: usize, height: usize, width: usize) -> Grid {
        let (height2, width2) = ((height - 1) / 2, (width - 1) / 2);
        Grid {
            channels: channels.next_multiple_of(4),
            half: width.next_multiple_of(2 * PIXELS_MAX) / 2 + MARGIN,
            height2,
            stride2: width2.next_multiple_of(PIXELS_MAX),
            height3: (height2 - 7) / 3 + 1,
            width3: (width2 - 7) / 3 + 1,
        }
    }

    /// Floats of a row after `conv2`: [E, stride2].
    pub(super) fn row2(&self) -> usize {
        self.channels * self.stride2
    }

    /// Floats of a row of `conv1`: [E, parity, half].
    pub(super) fn row1(&self) -> usize {
        self.channels * 2 * self.half
    }

    /// Where `conv2`'s taps lie, in the order [inputs, 3, 3]: columns 0 and 2 are even ones, 1 an odd one.
    pub(super) fn taps2(&self, inputs: usize) -> Vec<usize> {
        let column = [0, self.half, 1];
        let tap = |k: usize| k / 9 * 2 * self.half + k / 3 % 3 * self.row1() + column[k % 3];
        (0..9 * inputs).map(tap).collect()
    }
}

/// One row of `conv1`, even and odd columns apart. `n`: [C, stride]; `out`: [E, parity, half].
#[inline(always)]
pub(super) fn conv1_row<S: Simd>(s: S, out: &mut [f32], n: &[f32], conv: Bound<'_>, span: Span) {
    let channel_len = out.len() / (4 * conv.map.groups());
    let mut lanes = [0.0; PIXELS_MAX];
    for x in (0..span.width).step_by(S::PIXELS) {
        for group in 0..conv.map.groups() {
            let acc = conv.group(s, &n[MARGIN + x..], group);
            for (o, acc) in acc.into_iter().enumerate() {
                s.store(&mut lanes, acc);
                let channel = &mut out[(4 * group + o) * channel_len..][..channel_len];
                let (even, odd) = channel.split_at_mut(channel_len / 2);
                let even = even[x / 2..][..S::PIXELS / 2].iter_mut();
                let odd = odd[x / 2..][..S::PIXELS / 2].iter_mut();
                for ((even, odd), pair) in even.zip(odd).zip(lanes.as_chunks::<2>().0) {
                    (*even, *odd) = (pair[0], pair[1]);
                }
            }
        }
    }
}

/// One row of `conv2`. `conv1`: three rows as [`conv1_row`] makes them; `out`: [E, stride2].
#[inline(always)]
pub(super) fn conv2_row<S: Simd>(s: S, out: &mut [f32], conv1: &[f32], conv: Bound<'_>, stride2: usize) {
    for x in (0..stride2).step_by(S::PIXELS) {
        for group in 0..conv.map.groups() {
            for (o, acc) in conv.group(s, &conv1[x..], group).into_iter().enumerate() {
                s.store(&mut out[(4 * group + o) * stride2 + x..], acc);
            }
        }
    }
}

/// A row of the pool, 7x7 by steps of 3. `rows`: from the first of its seven rows after `conv2`; `out`:
/// [E, width3 + 2], of which the outer columns are zeros for `conv3`.
pub(super) fn pool_row(out: &mut [f32], rows: &[f32], grid: &Grid) {
    let mut highest = vec![0.0; grid.stride2];
    for (channel, out) in out.chunks_exact_mut(grid.width3 + 2).enumerate() {
        let row = |y: usize| &rows[y * grid.row2() + channel * grid.stride2..][..grid.stride2];
        highest.copy_from_slice(row(0));
        for y in 1..7 {
            for (highest, x) in highest.iter_mut().zip(row(y)) {
                *highest = larger(*highest, *x);
            }
        }
        out.fill(0.0);
        for (x, out) in out[1..=grid.width3].iter_mut().enumerate() {
            *out = highest[3 * x..3 * x + 7].iter().copied().fold(f32::NEG_INFINITY, larger);
        }
    }
}

/// `b` where either is NaN, as everywhere in this engine.
fn larger(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

/// A row of `conv3`. `rows`: three rows as [`pool_row`] makes them, from the one above; `out`: [E, width3].
pub(super) fn conv3_row(out: &mut [f32], rows: &[f32], conv: &Conv, grid: &Grid) {
    let pitch = grid.width3 + 2;
    for (o, out) in out.chunks_exact_mut(grid.width3).take(conv.outputs).enumerate() {
        out.fill(conv.bias[o]);
        for (k, weight) in conv.weight[o * conv.inputs * 9..][..conv.inputs * 9].iter().enumerate() {
            let start = (k / 3 % 3 * grid.channels + k / 9) * pitch + k % 3;
            for (out, x) in out.iter_mut().zip(&rows[start..]) {
                *out += weight * x;
            }
        }
    }
}

/// Where a position of the long axis lies between two of the short one.
#[derive(Clone, Copy)]
pub(super) struct Between {
    low: usize,
    high: usize,
    fraction: f32,
}

impl Between {
    /// Half-pixel centres, clamped at the edges, for every position of an axis of `to`.
    pub(super) fn axis(from: usize, to: usize) -> Vec<Between> {
        let step = from as f32 / to as f32;
        let place = |position: usize| {
            let exact = ((position as f32 + 0.5) * step - 0.5).max(0.0);
            let low = (exact as usize).min(from - 1);
            Between { low, high: (low + 1).min(from - 1), fraction: exact - low as f32 }
        };
        (0..to).map(place).collect()
    }

    #[inline(always)]
    fn of(self, row: &[f32]) -> f32 {
        row[self.low] + self.fraction * (row[self.high] - row[self.low])
    }
}

/// The grid interpolated to one row of the picture. `grid3`: [height3, E, width3]; `out`: [E, stride].
pub(super) fn coarse_row(out: &mut [f32], grid3: &[f32], y: Between, x: &[Between], grid: &Grid) {
    let mut between = vec![0.0; grid.width3];
    let row_len = grid.channels * grid.width3;
    let stride = out.len() / grid.channels;
    for (channel, out) in out.chunks_exact_mut(stride).enumerate() {
        let row = |y: usize| &grid3[y * row_len + channel * grid.width3..][..grid.width3];
        for (between, (low, high)) in between.iter_mut().zip(row(y.low).iter().zip(row(y.high))) {
            *between = low + y.fraction * (high - low);
        }
        for (out, x) in out[MARGIN..].iter_mut().zip(x) {
            *out = x.of(&between);
        }
    }
}

//! ESA's grid: from `conv1` of the normalised tensor to a coarse grid, and its bilinear interpolation.

use super::dense::{Words, add, begin, finish, store_channels, with_outputs};
use super::layout::{MARGIN, Span};
use super::simd::{PIXELS_MAX, Simd, TABLE};
use super::weights::Dense;

/// Length of the even or odd columns of a row of `conv1`, padded to full vectors and one more.
pub fn half_of(width: usize) -> usize {
    width.next_multiple_of(2 * PIXELS_MAX) / 2 + MARGIN
}

/// Sizes of the tensors from `conv2` to the grid.
#[derive(Clone, Copy, Debug)]
pub struct Grid {
    /// Rows after `conv2`.
    pub height2: usize,
    /// Columns after `conv2`, padded to full vectors.
    pub stride2: usize,
    /// Rows after the pool and `conv3`.
    pub height3: usize,
    /// Columns after the pool and `conv3`.
    pub span3: Span,
}

impl Grid {
    /// Returns the sizes for a frame of this size.
    pub fn new(height: usize, width: usize) -> Grid {
        let (height2, width2) = ((height - 1) / 2, (width - 1) / 2);
        Grid {
            height2,
            stride2: width2.next_multiple_of(PIXELS_MAX),
            height3: (height2 - 7) / 3 + 1,
            span3: Span::new((width2 - 7) / 3 + 1),
        }
    }
}

/// Computes one row of `conv2`, 3x3, stride 2. `rows`: three of `conv1`, [words, parity, half]; `out`: [E, stride2].
#[inline(always)]
pub fn conv2<S: Simd>(s: S, out: &mut [f32], rows: &[&[f32]; 3], conv: &Dense, stride2: usize) {
    let half = rows[0].len() / (2 * conv.words);
    for x in (0..stride2).step_by(S::PIXELS) {
        for group in conv.groups() {
            with_outputs!(S, group, N => {
                let mut acc = begin::<S, Words, N>(s, group);
                let (weights, _) = group.weight.as_chunks::<N>();
                for (word, weights) in weights.chunks_exact(9).enumerate() {
                    for (row, weights) in rows.iter().zip(weights.chunks_exact(3)) {
                        let even = &row[word * 2 * half + x..];
                        let odd = &row[(word * 2 + 1) * half + x..];
                        add::<S, Words, N>(s, &mut acc, s.load(even), &weights[0]);
                        add::<S, Words, N>(s, &mut acc, s.load(odd), &weights[1]);
                        add::<S, Words, N>(s, &mut acc, s.load(&even[1..]), &weights[2]);
                    }
                }
                finish::<S, Words, N>(s, &mut acc, group);
                store_channels(s, out, &acc, group.first, x, stride2);
            });
        }
    }
}

/// Computes one row of the max pool, 7x7, stride 3. `rows`: seven of `conv2`; `out`: [E, stride] of the grid.
#[inline(always)]
pub fn pool<S: Simd>(
    s: S,
    out: &mut [f32],
    rows: &[&[f32]; 7],
    stride2: usize,
    highest: &mut [f32],
    span3: Span,
) {
    for (channel, out) in out.chunks_exact_mut(span3.stride).enumerate() {
        for x in (0..stride2).step_by(S::PIXELS) {
            let at = channel * stride2 + x;
            let mut acc = s.load(&rows[0][at..]);
            for row in &rows[1..] {
                acc = s.max(acc, s.load(&row[at..]));
            }
            s.store(&mut highest[x..], acc);
        }
        for (x, out) in out[MARGIN..][..span3.width].iter_mut().enumerate() {
            *out = highest[3 * x..3 * x + 7].iter().copied().fold(f32::NEG_INFINITY, larger);
        }
    }
}

/// Returns the larger one; `b` where either is NaN, as [`Simd::max`].
#[inline(always)]
fn larger(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

/// Bilinear coordinates of the positions of a long axis on a short one.
#[derive(Debug)]
pub struct Between {
    /// Index of the position before.
    pub low: Vec<u32>,
    /// Fraction of the distance to the next position, 0 to 1.
    pub fraction: Vec<f32>,
}

impl Between {
    /// Half-pixel centres, clamped at the edges, for every position of an axis of `to`, which is at least six times
    /// longer, rounded up to full vectors.
    pub fn axis(from: usize, to: usize) -> Between {
        assert!(to >= 6 * from, "a vector looks up {TABLE} positions at most");
        let step = from as f32 / to as f32;
        let exact = |position: usize| ((position as f32 + 0.5) * step - 0.5).clamp(0.0, (from - 1) as f32);
        let positions = 0..to.next_multiple_of(PIXELS_MAX);
        Between {
            low: positions.clone().map(|position| exact(position) as u32).collect(),
            fraction: positions.map(|position| exact(position).fract()).collect(),
        }
    }

    /// Returns the two positions of the short axis around one of the long axis, the second clamped.
    pub fn pair(&self, position: usize, from: usize) -> [usize; 2] {
        let low = self.low[position] as usize;
        [low, (low + 1).min(from - 1)]
    }
}

/// Interpolates between two rows of the grid: `out` and `rows` are [E, stride] of the grid; the last column is repeated.
#[inline(always)]
pub fn interpolate_rows<S: Simd>(s: S, out: &mut [f32], rows: [&[f32]; 2], fraction: f32, span3: Span) {
    let fraction = s.splat(fraction);
    // The length of rows is a multiple of the widest vector: two margins are one vector.
    for x in (0..out.len()).step_by(S::PIXELS) {
        let low = s.load(&rows[0][x..]);
        s.store(&mut out[x..], s.mul_add(fraction, s.sub(s.load(&rows[1][x..]), low), low));
    }
    for channel in out.chunks_exact_mut(span3.stride) {
        channel[MARGIN + span3.width] = channel[MARGIN + span3.width - 1];
    }
}

/// Interpolates between the columns of a row of [`interpolate_rows`], for the vector at column `x` of the frame. `row`:
/// one channel.
#[inline(always)]
pub(crate) fn interpolate_columns<S: Simd>(s: S, row: &[f32], columns: &Between, x: usize) -> S::V {
    let base = columns.low[x];
    let table = &row[MARGIN + base as usize..];
    let low = s.lookup(table, &columns.low[x..], base);
    let high = s.lookup(&table[1..], &columns.low[x..], base);
    s.mul_add(s.load(&columns.fraction[x..]), s.sub(high, low), low)
}

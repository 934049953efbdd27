//! The last conv with the long skip, and the pixel shuffle: a row of the trunk to `scale` rows of the SR frame.

use std::ops::Range;

use super::dense::{Exact, Words, add_outputs, outputs, with_outputs};
use super::layout::Span;
use super::simd::{PIXELS_MAX, Simd};
use super::weights::Dense;

/// Positions of a row or column: the first, any in between, the last.
pub const PLACES: usize = 3;
/// The position of any in between.
const MIDDLE: usize = 1;

/// Computes one colour component: `out`: [scale, scale·W], dense. `main`: the five rows of words around this one, and the
/// maps by the place of a column, 5x5 or 3x3; `skip`: the same of the LR frame, in f32, 5x5.
#[inline(always)]
pub fn leave<S: Simd>(
    s: S,
    out: &mut [f32],
    main: (&[&[f32]; 5], &[Dense; PLACES]),
    skip: (&[&[f32]; 5], &[Dense; PLACES]),
    span: Span,
    scale: usize,
) {
    let (rows, maps) = main;
    match maps[MIDDLE].side {
        5 => sided(s, out, (rows, maps), skip, span, scale),
        _ => sided(s, out, (&[rows[1], rows[2], rows[3]], maps), skip, span, scale),
    }
}

#[inline(always)]
fn sided<S: Simd, const SIDE: usize>(
    s: S,
    out: &mut [f32],
    main: (&[&[f32]; SIDE], &[Dense; PLACES]),
    skip: (&[&[f32]; 5], &[Dense; PLACES]),
    span: Span,
    scale: usize,
) {
    let last = span.width - 1;
    let fits = main.1[MIDDLE].groups.iter().all(|&outputs| outputs <= <S::Wide>::OUTPUTS_MAX);
    let wide = if fits { span.wide_until::<S>() } else { 0 };
    for x in (0..wide).step_by(<S::Wide>::PIXELS) {
        vector(s.wide(), out, main, skip, MIDDLE, (x, x..span.width), span, scale);
    }
    // The first and the last column are computed as if they were inner ones, and then overwritten.
    for (place, from, to) in [(MIDDLE, wide, span.width), (0, 0, 1), (PLACES - 1, last, span.width)] {
        for x in (from - from % S::PIXELS..to).step_by(S::PIXELS) {
            vector(s, out, main, skip, place, (x, from.max(x)..to), span, scale);
        }
    }
}

/// Computes the pixels of `columns` in the vector at column `x` by the maps of a place.
#[inline(always)]
#[allow(clippy::too_many_arguments, reason = "hot loops take plain arguments")]
fn vector<S: Simd, const SIDE: usize>(
    s: S,
    out: &mut [f32],
    main: (&[&[f32]; SIDE], &[Dense; PLACES]),
    skip: (&[&[f32]; 5], &[Dense; PLACES]),
    place: usize,
    (x, columns): (usize, Range<usize>),
    span: Span,
    scale: usize,
) {
    for (main_group, skip_group) in main.1[place].groups().zip(skip.1[place].groups()) {
        with_outputs!(S, main_group, N => {
            let acc = outputs::<S, Words, N, SIDE>(s, main.0, x, span.stride, main_group);
            let acc = add_outputs::<S, Exact, N, 5>(s, acc, skip.0, x, span.stride, skip_group);
            let lanes = (columns.start - x, S::PIXELS.min(columns.end - x));
            match acc.first_chunk() {
                Some(&[a, b, c, d]) if lanes == (0, S::PIXELS) && scale == 2 => {
                    let (upper, lower) = out.split_at_mut(2 * span.width);
                    s.store_interleaved(&mut upper[2 * x..], a, b);
                    s.store_interleaved(&mut lower[2 * x..], c, d);
                }
                _ => scatter(s, out, &acc, main_group.first, lanes, x, span.width, scale),
            }
        });
    }
}

/// Scatters lanes `from`..`to` of the phases from `first` on to their pixels.
#[inline(always)]
#[allow(clippy::too_many_arguments, reason = "hot loops take plain arguments")]
fn scatter<S: Simd, const N: usize>(
    s: S,
    out: &mut [f32],
    acc: &[S::V; N],
    first: usize,
    (from, to): (usize, usize),
    x: usize,
    width: usize,
    scale: usize,
) {
    let mut lanes = [0.0; 2 * PIXELS_MAX];
    for (phase, acc) in (first..).zip(acc) {
        if phase == scale * scale {
            // The rest is padding of the last word.
            return;
        }
        s.store(&mut lanes, *acc);
        for lane in from..to {
            out[phase / scale * scale * width + (x + lane) * scale + phase % scale] = lanes[lane];
        }
    }
}

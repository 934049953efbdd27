//! The depthwise 7x7 convs: the first with the layer norm that follows it, the second with the skip round it.
//!
//! Four rows of output at a time: ten rows are read for them, so that a vector of pixels is loaded 2.5 times an
//! output instead of seven, and FMA is the bound.

use super::layout::{Layout, MARGIN, Span};
use super::pack::Depthwise;
use super::simd::Simd;

/// Rows of output that a call makes, or fewer at the end of the picture.
pub(super) const ROWS: usize = 4;

/// The value that PyTorch's LayerNorm adds to the variance by default.
const LAYER_NORM_EPS: f32 = 1e-5;

/// `out` = LN(dwconv(`src`)) without LN's affine. `out`: up to [`ROWS`] rows; `src`: the map from three rows
/// above them.
#[inline(always)]
pub(super) fn norm_rows<S: Simd>(s: S, out: &mut [f32], src: &[f32], conv: &Depthwise, layout: Layout) {
    let span = layout.span;
    for channel in 0..conv.taps.len() {
        for x in (0..span.width).step_by(S::PIXELS) {
            let at = channel * span.stride + MARGIN + x;
            let acc = window(s, &src[at - 3..], layout.row, &conv.taps[channel], conv.bias[channel]);
            for (row, acc) in out.chunks_exact_mut(layout.row).zip(acc) {
                s.store(&mut row[at..], acc);
            }
        }
    }
    for row in out.chunks_exact_mut(layout.row) {
        normalise(s, row, conv.taps.len(), span);
    }
}

/// `out` = `scale` · `out` + dwconv(`src`), where `scale` is the channel attention of the block before. `out`: up
/// to [`ROWS`] rows; `src`: the map from three rows above them.
#[inline(always)]
pub(super) fn add_rows<S: Simd>(
    s: S,
    out: &mut [f32],
    src: &[f32],
    conv: &Depthwise,
    scale: &[f32],
    layout: Layout,
) {
    let span = layout.span;
    for (channel, scale) in scale.iter().enumerate() {
        for x in (0..span.width).step_by(S::PIXELS) {
            let at = channel * span.stride + MARGIN + x;
            let acc = window(s, &src[at - 3..], layout.row, &conv.taps[channel], conv.bias[channel]);
            for (row, acc) in out.chunks_exact_mut(layout.row).zip(acc) {
                let skip = s.load(&row[at..]);
                s.store(&mut row[at..], s.mul_add(s.splat(*scale), skip, acc));
            }
        }
    }
    for row in out.chunks_exact_mut(layout.row) {
        span.clear_tail(row);
    }
}

/// One vector of each of four rows. `src`: from the upper left neighbour on, `pitch` floats from row to row.
#[inline(always)]
fn window<S: Simd>(s: S, src: &[f32], pitch: usize, taps: &[f32; 49], bias: f32) -> [S::V; ROWS] {
    let mut acc = [s.splat(bias); ROWS];
    let row = |y: usize| &src[y * pitch..][..S::PIXELS + 6];
    let (taps, _) = taps.as_chunks::<7>();
    spread::<S, 0, 1>(s, &mut acc, row(0), &taps[0..1]);
    spread::<S, 0, 2>(s, &mut acc, row(1), &taps[0..2]);
    spread::<S, 0, 3>(s, &mut acc, row(2), &taps[0..3]);
    for y in 3..7 {
        spread::<S, 0, 4>(s, &mut acc, row(y), &taps[y - 3..=y]);
    }
    spread::<S, 1, 4>(s, &mut acc, row(7), &taps[4..7]);
    spread::<S, 2, 4>(s, &mut acc, row(8), &taps[5..7]);
    spread::<S, 3, 4>(s, &mut acc, row(9), &taps[6..7]);
    acc
}

/// Adds one row of input to the rows `FROM`..`TO` of output, the first of which sees it by the last of `taps`.
#[inline(always)]
fn spread<S: Simd, const FROM: usize, const TO: usize>(
    s: S,
    acc: &mut [S::V; ROWS],
    row: &[f32],
    taps: &[[f32; 7]],
) {
    for dx in 0..7 {
        let x = s.load(&row[dx..]);
        for o in FROM..TO {
            acc[o] = s.mul_add(s.splat(taps[TO - 1 - o][dx]), x, acc[o]);
        }
    }
}

/// Over the channels of each pixel, in place, with the biased variance.
#[inline(always)]
fn normalise<S: Simd>(s: S, row: &mut [f32], channels: usize, span: Span) {
    let per_channel = s.splat(1.0 / channels as f32);
    for x in (0..span.width).step_by(S::PIXELS) {
        let places = (0..channels).map(|channel| channel * span.stride + MARGIN + x);
        let mut sum = s.splat(0.0);
        for at in places.clone() {
            sum = s.add(sum, s.load(&row[at..]));
        }
        let mean = s.mul(sum, per_channel);
        let mut squares = s.splat(0.0);
        for at in places.clone() {
            let centred = s.sub(s.load(&row[at..]), mean);
            squares = s.mul_add(centred, centred, squares);
        }
        let variance = s.mul_add(squares, per_channel, s.splat(LAYER_NORM_EPS));
        let factor = s.div(s.splat(1.0), s.sqrt(variance));
        for at in places {
            let centred = s.sub(s.load(&row[at..]), mean);
            s.store(&mut row[at..], s.mul(centred, factor));
        }
    }
}

//! The dense 3x3 convs, one row of output a call: those of the trunk's ends and the two that end a block.
//!
//! `src` is always the map from the row above the output row; `out` a row of [channels, stride]. All groups of
//! channels of a vector follow each other, for its pixels are in the nearest cache then, and the weights in the
//! next.

use super::layout::{MARGIN, Span};
use super::math;
use super::simd::{PIXELS_MAX, Simd};
use super::taps::{Bound, accumulate};

/// `out` = conv(`src`).
#[inline(always)]
pub(super) fn convolve<S: Simd>(s: S, out: &mut [f32], src: &[f32], conv: Bound<'_>, span: Span) {
    for x in (0..span.width).step_by(S::PIXELS) {
        for group in 0..conv.map.groups() {
            let acc = conv.group(s, &src[MARGIN - 1 + x..], group);
            store_group(s, out, acc, group, x, span);
        }
    }
    span.clear_tail(out);
}

/// `out` = GELU(conv(`src`)).
#[inline(always)]
pub(super) fn convolve_gelu<S: Simd>(s: S, out: &mut [f32], src: &[f32], conv: Bound<'_>, span: Span) {
    for x in (0..span.width).step_by(S::PIXELS) {
        for group in 0..conv.map.groups() {
            let mut acc = conv.group(s, &src[MARGIN - 1 + x..], group);
            for acc in &mut acc {
                *acc = math::gelu(s, *acc);
            }
            store_group(s, out, acc, group, x, span);
        }
    }
    span.clear_tail(out);
}

/// `out` = conv(`src`), and `sums`: [outputs], the sum of each channel over the row.
#[inline(always)]
pub(super) fn convolve_sum<S: Simd>(
    s: S,
    out: &mut [f32],
    src: &[f32],
    conv: Bound<'_>,
    span: Span,
    sums: &mut [f32],
) {
    convolve(s, out, src, conv, span);
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

/// `out` = conv(`src`) + skip.1(skip.0), which is the long skip from the input.
#[inline(always)]
pub(super) fn convolve_skip<S: Simd>(
    s: S,
    out: &mut [f32],
    src: &[f32],
    conv: Bound<'_>,
    skip: (&[f32], Bound<'_>),
    span: Span,
) {
    let (skip_src, skip) = skip;
    for x in (0..span.width).step_by(S::PIXELS) {
        for group in 0..conv.map.groups() {
            let mut acc = conv.group(s, &src[MARGIN - 1 + x..], group);
            for (acc, bias) in acc.iter_mut().zip(skip.map.bias[group]) {
                *acc = s.add(*acc, s.splat(bias));
            }
            let skip_src = &skip_src[MARGIN - 1 + x..];
            let acc = accumulate(s, acc, skip_src, skip.offsets, skip.map.group(group));
            store_group(s, out, acc, group, x, span);
        }
    }
    span.clear_tail(out);
}

/// Conv and pixel shuffle of one colour component: `out` is [scale, scale·W], dense.
#[inline(always)]
pub(super) fn upsample<S: Simd>(
    s: S,
    out: &mut [f32],
    src: &[f32],
    conv: Bound<'_>,
    span: Span,
    scale: usize,
) {
    let mut lanes = [0.0; PIXELS_MAX];
    for x in (0..span.width).step_by(S::PIXELS) {
        let pixels = S::PIXELS.min(span.width - x);
        for phase in 0..conv.map.groups() {
            let acc = conv.group(s, &src[MARGIN - 1 + x..], phase);
            for (phase, acc) in (4 * phase..conv.map.outputs).zip(acc) {
                s.store(&mut lanes, acc);
                let start = phase / scale * scale * span.width + x * scale + phase % scale;
                for (y, lane) in out[start..].iter_mut().step_by(scale).zip(&lanes[..pixels]) {
                    *y = *lane;
                }
            }
        }
    }
}

/// A vector of four channels of a row.
#[inline(always)]
fn store_group<S: Simd>(s: S, out: &mut [f32], acc: [S::V; 4], group: usize, x: usize, span: Span) {
    for (o, acc) in acc.into_iter().enumerate() {
        s.store(&mut out[(4 * group + o) * span.stride + MARGIN + x..], acc);
    }
}

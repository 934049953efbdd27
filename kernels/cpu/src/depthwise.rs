//! The depthwise 7x7 convs: the first with the layer norm that follows it and ESA's `conv1` of that, the second with the
//! skip around it.
//!
//! A call computes four output rows from ten input rows, so that a vector of pixels is loaded 2.5 times per output instead
//! of seven, and multiply-adds are the bound. In bf16 and int16 a word holds a pixel of an even row and of the next, six
//! of which are read: 28 products of pairs give an output instead of 49.

use super::dense::{Words, outputs, with_outputs};
use super::layout::{MARGIN, Span};
use super::simd::{PIXELS_MAX, REACH, Simd};
use super::weights::{Dense, Depthwise};

/// Output rows of a call, fewer at the end of the frame.
pub const ROWS: usize = 4;
/// Input rows of a call in f32: from the third above the outputs to the third below.
pub const ROWS_READ: usize = ROWS + 6;
/// Pairs of input rows of a call in words of two rows: from the fourth row above the outputs to the fourth below.
pub const PAIRS_READ: usize = ROWS / 2 + 4;

/// Pixels of a row that [`norm`] convolves in all channels before it normalises them: few enough for the L1 cache, and more
/// than a cache line of each channel, which the CPU prefetches.
const BLOCK: usize = 2 * PIXELS_MAX;

/// The value that PyTorch's LayerNorm adds to the variance by default.
const LAYER_NORM_EPS: f32 = 1e-5;

/// Length in floats of the `tile` that [`norm`] needs for this number of channels.
pub fn norm_tile_len(channels: usize) -> usize {
    ROWS * (1 + channels) * BLOCK
}

/// The quantization factor (int16 values per 1.0) of the normalised tensor: no value among C of mean 0 and variance 1
/// exceeds √(C - 1).
#[inline(always)]
pub fn norm_factor(channels: usize) -> f32 {
    f32::from(i16::MAX) / (channels as f32).sqrt()
}

/// `n` in words = LN(dwconv(`rows`)) without LN's affine; `c1`: [words of E, parity, half] = conv1(`n`), even and
/// odd columns separate. `n` and `c1` have up to [`ROWS`] rows; `rows`: [`ROWS_READ`] or [`PAIRS_READ`].
#[inline(always)]
pub fn norm<S: Simd>(
    s: S,
    (n, c1): (&mut [&mut [f32]], &mut [&mut [f32]]),
    rows: &[&[f32]],
    (conv, conv1): (&Depthwise, &Dense),
    tile: &mut [f32],
    span: Span,
) {
    let (sums, tile) = tile[..ROWS * (1 + conv.taps.len()) * BLOCK].split_at_mut(ROWS * BLOCK);
    for x in (0..span.width).step_by(BLOCK) {
        let pixels = BLOCK.min((span.width - x).next_multiple_of(S::PIXELS));
        match pixels {
            BLOCK => convolve_block(s.wide(), (sums, tile), rows, conv, (x, pixels), span),
            _ => convolve_block(s, (sums, tile), rows, conv, (x, pixels), span),
        }
        for at in (0..pixels).step_by(S::PIXELS) {
            normalise(s, n, (&sums[at..], &tile[at..]), x + at, span);
            for (n, c1) in n.iter().zip(c1.iter_mut()) {
                squeeze(s, c1, n, conv1, x + at, span);
            }
        }
    }
    n.iter_mut().for_each(|n| span.clear_tail(n));
}

/// `tile`: [C, ROWS, BLOCK] = dwconv(`rows`) at the columns from `x` on, and `sums` over its channels: [ROWS, BLOCK].
#[inline(always)]
fn convolve_block<S: Simd>(
    s: S,
    (sums, tile): (&mut [f32], &mut [f32]),
    rows: &[&[f32]],
    conv: &Depthwise,
    (x, pixels): (usize, usize),
    span: Span,
) {
    sums.fill(0.0);
    for (channel, tile) in tile.chunks_exact_mut(ROWS * BLOCK).enumerate() {
        for at in (0..pixels).step_by(S::PIXELS) {
            let here = channel * span.stride + x + at;
            if S::CHANNELS == 1 {
                // The other rows were read for the band above, and pairs of rows have just been written.
                for row in &rows[ROWS_READ - ROWS..] {
                    s.prefetch(row, here + span.stride + MARGIN);
                }
            }
            let acc = window(s, rows, conv, channel, here);
            for (row, acc) in acc.into_iter().enumerate() {
                let at = row * BLOCK + at;
                s.store(&mut tile[at..], acc);
                let sum = s.add(s.load(&sums[at..]), acc);
                s.store(&mut sums[at..], sum);
            }
        }
    }
}

/// `out` in words = `scale` · `skip` + dwconv(`rows`), where `scale` is the channel attention of the block before
/// times the quantization factor of `out`. `out` and `skip` have up to [`ROWS`] rows; `rows`: [`ROWS_READ`] or [`PAIRS_READ`].
#[inline(always)]
pub fn add_skip<S: Simd>(
    s: S,
    out: &mut [&mut [f32]],
    rows: &[&[f32]],
    conv: &Depthwise,
    skip: &[&[f32]],
    scale: &[f32],
    span: Span,
) {
    let channels = conv.taps.len();
    for first in (0..channels).step_by(S::CHANNELS) {
        let wide = span.wide_until::<S>();
        for x in (0..wide).step_by(<S::Wide>::PIXELS) {
            add_skip_vector(s.wide(), out, rows, conv, skip, scale, (first, x), span);
        }
        for x in (wide..span.width).step_by(S::PIXELS) {
            add_skip_vector(s, out, rows, conv, skip, scale, (first, x), span);
        }
    }
    out.iter_mut().for_each(|out| span.clear_tail(out));
}

/// [`add_skip`] of the channels of the word that begins with `first`, at column `x`.
#[inline(always)]
#[allow(clippy::too_many_arguments, reason = "hot loops take plain arguments")]
fn add_skip_vector<S: Simd>(
    s: S,
    out: &mut [&mut [f32]],
    rows: &[&[f32]],
    conv: &Depthwise,
    skip: &[&[f32]],
    scale: &[f32],
    (first, x): (usize, usize),
    span: Span,
) {
    let low = skipped(s, rows, conv, skip, scale, (first, x), span);
    let high = match S::CHANNELS {
        2 if first + 1 < conv.taps.len() => skipped(s, rows, conv, skip, scale, (first + 1, x), span),
        _ => [s.splat(0.0); ROWS],
    };
    for (row, out) in out.iter_mut().enumerate() {
        let word = if S::CHANNELS == 2 { s.pack(low[row], high[row]) } else { low[row] };
        s.store(&mut out[first / S::CHANNELS * span.stride + MARGIN + x..], word);
    }
}

#[inline(always)]
fn skipped<S: Simd>(
    s: S,
    rows: &[&[f32]],
    conv: &Depthwise,
    skip: &[&[f32]],
    scale: &[f32],
    (channel, x): (usize, usize),
    span: Span,
) -> [S::V; ROWS] {
    for skip in skip {
        s.prefetch(skip, channel * span.stride + MARGIN + x + 2 * S::PIXELS);
    }
    let mut acc = window(s, rows, conv, channel, channel * span.stride + x);
    let scale = s.splat(scale[channel]);
    for (acc, skip) in acc.iter_mut().zip(skip) {
        *acc = s.mul_add(scale, s.load(&skip[channel * span.stride + MARGIN + x..]), *acc);
    }
    acc
}

/// Computes one vector of each of four rows, its pixels from `at` + [`MARGIN`] on. `rows`: [`ROWS_READ`] from the third
/// above them on, or [`PAIRS_READ`] from the fourth above on.
///
/// It is a loop whose count the compiler does not know: from straight code the compiler schedules all products of one
/// output in sequence, where each waits for the last.
#[inline(always)]
fn window<S: Simd>(s: S, rows: &[&[f32]], conv: &Depthwise, channel: usize, at: usize) -> [S::V; ROWS] {
    let (taps, scale, bias) = (&conv.taps[channel], conv.scale[channel], conv.bias[channel]);
    let mut acc = [s.begin(bias); ROWS];
    for (y, row) in rows.iter().enumerate() {
        let row = &row[at..];
        match (S::CHANNELS, y) {
            // Output `o` applies its taps y - o to row `y`.
            (1, 0) => spread::<S, 0, 1>(s, &mut acc, row, [&taps[0]; ROWS]),
            (1, 1) => spread::<S, 0, 2>(s, &mut acc, row, [&taps[1], &taps[0], &taps[0], &taps[0]]),
            (1, 2) => spread::<S, 0, 3>(s, &mut acc, row, [&taps[2], &taps[1], &taps[0], &taps[0]]),
            (1, 3..7) => {
                spread::<S, 0, 4>(s, &mut acc, row, [&taps[y], &taps[y - 1], &taps[y - 2], &taps[y - 3]]);
            }
            (1, 7) => spread::<S, 1, 4>(s, &mut acc, row, [&taps[6], &taps[6], &taps[5], &taps[4]]),
            (1, 8) => spread::<S, 2, 4>(s, &mut acc, row, [&taps[6], &taps[6], &taps[6], &taps[5]]),
            (1, _) => spread::<S, 3, 4>(s, &mut acc, row, [&taps[6]; ROWS]),
            // Outputs begin with pairs 0, 1, 1 and 2; those of odd rows have separate taps.
            (_, 0) => spread::<S, 0, 1>(s, &mut acc, row, [&taps[0]; ROWS]),
            (_, 1) => spread::<S, 0, 3>(s, &mut acc, row, [&taps[1], &taps[4], &taps[0], &taps[0]]),
            (_, 2) => spread::<S, 0, 4>(s, &mut acc, row, [&taps[2], &taps[5], &taps[1], &taps[4]]),
            (_, 3) => spread::<S, 0, 4>(s, &mut acc, row, [&taps[3], &taps[6], &taps[2], &taps[5]]),
            (_, 4) => spread::<S, 1, 4>(s, &mut acc, row, [&taps[7], &taps[7], &taps[3], &taps[6]]),
            (_, _) => spread::<S, 3, 4>(s, &mut acc, row, [&taps[7]; ROWS]),
        }
    }
    for acc in &mut acc {
        *acc = s.finish(*acc, scale, bias);
    }
    acc
}

/// Adds one row of input to the rows `FROM`..`TO` of output. `taps`: those that each output row applies to it.
#[inline(always)]
fn spread<S: Simd, const FROM: usize, const TO: usize>(
    s: S,
    acc: &mut [S::V; ROWS],
    row: &[f32],
    taps: [&[f32; 7]; ROWS],
) {
    let around = &row[..2 * REACH + S::PIXELS];
    let serves_one = TO - FROM == 1;
    column::<S, FROM, TO>(s, acc, moved::<S, -3>(s, around, serves_one), taps, 0);
    column::<S, FROM, TO>(s, acc, moved::<S, -2>(s, around, serves_one), taps, 1);
    column::<S, FROM, TO>(s, acc, moved::<S, -1>(s, around, serves_one), taps, 2);
    column::<S, FROM, TO>(s, acc, moved::<S, 0>(s, around, serves_one), taps, 3);
    column::<S, FROM, TO>(s, acc, moved::<S, 1>(s, around, serves_one), taps, 4);
    column::<S, FROM, TO>(s, acc, moved::<S, 2>(s, around, serves_one), taps, 5);
    column::<S, FROM, TO>(s, acc, moved::<S, 3>(s, around, serves_one), taps, 6);
}

/// The vector shifted by `D` pixels. Loads are the bound of a row that serves one output.
#[inline(always)]
fn moved<S: Simd, const D: i32>(s: S, around: &[f32], serves_one: bool) -> S::V {
    if serves_one { s.shuffled::<D>(around) } else { s.shifted::<D>(around) }
}

#[inline(always)]
fn column<S: Simd, const FROM: usize, const TO: usize>(
    s: S,
    acc: &mut [S::V; ROWS],
    x: S::V,
    taps: [&[f32; 7]; ROWS],
    dx: usize,
) {
    for o in FROM..TO {
        acc[o] = s.dot(&taps[o][dx], x, acc[o]);
    }
}

/// Packs two rows into words of both, [channels, stride]; in int16 they are multiplied by `factor`.
#[inline(always)]
pub fn pair_rows<S: Simd>(s: S, out: &mut [f32], low: &[f32], high: &[f32], factor: f32) {
    // The length of rows is a multiple of the widest vector: two margins are one vector.
    for x in (0..out.len()).step_by(S::PIXELS) {
        let (mut low, mut high) = (s.load(&low[x..]), s.load(&high[x..]));
        if S::INT16 {
            (low, high) = (s.mul(low, s.splat(factor)), s.mul(high, s.splat(factor)));
        }
        s.store(&mut out[x..], s.pack(low, high));
    }
}

/// Normalises the channels of each pixel, with the biased variance: from the first vector of the rows of `sums` and `tile`
/// of [`convolve_block`] to words of the rows of `out` at `x`. The rows are interleaved, because each waits for its own sums.
#[inline(always)]
fn normalise<S: Simd>(s: S, out: &mut [&mut [f32]], (sums, tile): (&[f32], &[f32]), x: usize, span: Span) {
    let channels = tile.len().div_ceil(ROWS * BLOCK);
    let per_channel = s.splat(1.0 / channels as f32);
    let mut mean = [s.splat(0.0); ROWS];
    for row in 0..ROWS {
        mean[row] = s.mul(s.load(&sums[row * BLOCK..]), per_channel);
    }
    let mut factor = [s.splat(0.0); ROWS];
    for rows in tile.chunks(ROWS * BLOCK) {
        for row in 0..ROWS {
            let centred = s.sub(s.load(&rows[row * BLOCK..]), mean[row]);
            factor[row] = s.mul_add(centred, centred, factor[row]);
        }
    }
    for factor in &mut factor {
        let variance = s.mul_add(*factor, per_channel, s.splat(LAYER_NORM_EPS));
        *factor = s.recip(s.sqrt(variance));
        if S::INT16 {
            *factor = s.mul(*factor, s.splat(norm_factor(channels)));
        }
    }
    for (word, rows) in tile.chunks(S::CHANNELS * ROWS * BLOCK).enumerate() {
        for (row, out) in out.iter_mut().enumerate() {
            let low = s.mul(s.sub(s.load(&rows[row * BLOCK..]), mean[row]), factor[row]);
            let value = match S::CHANNELS {
                2 if rows.len() > ROWS * BLOCK => {
                    let high = s.load(&rows[(ROWS + row) * BLOCK..]);
                    s.pack(low, s.mul(s.sub(high, mean[row]), factor[row]))
                }
                2 => s.pack(low, s.splat(0.0)),
                _ => low,
            };
            s.store(&mut out[word * span.stride + MARGIN + x..], value);
        }
    }
}

/// ESA's `conv1` at column `x` of a row.
#[inline(always)]
fn squeeze<S: Simd>(s: S, c1: &mut [f32], n: &[f32], conv1: &Dense, x: usize, span: Span) {
    let half = super::esa::half_of(span.width);
    for group in conv1.groups() {
        with_outputs!(S, group, N => {
            let acc = outputs::<S, Words, N, 1>(s, &[n], x, span.stride, group);
            for (i, channels) in acc.chunks_exact(S::CHANNELS).enumerate() {
                let word = if S::CHANNELS == 2 { s.pack(channels[0], channels[1]) } else { channels[0] };
                let channel = &mut c1[(group.first / S::CHANNELS + i) * 2 * half..][..2 * half];
                let (even, odd) = channel.split_at_mut(half);
                s.store_deinterleaved(&mut even[x / 2..], &mut odd[x / 2..], word);
            }
        });
    }
}

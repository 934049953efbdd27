//! The loops of samples beside the network: codes to numbers and back, and the resampling of a row.
//!
//! In and out: a row of a component without gaps, of bytes, words or floats. Every level gives the same bits: a sum has one
//! order, and no product is fused with a sum.

use super::simd::{PIXELS_MAX, Simd};

/// Inputs of an output of every upscale.
pub const TAPS: usize = 6;

/// Numbers that become codes together: some vectors, so that none is read back before it is stored.
pub const BLOCK: usize = 64;

/// Numbers and codes: `number = (code - zero) / unit`.
#[derive(Clone, Copy, Debug)]
pub struct Coding {
    /// The code of 0.
    pub zero: f32,
    /// Number of codes from 0 to 1.
    pub unit: f32,
    /// Bit depth of a code.
    pub depth: u8,
    /// Bits below the code in its word.
    pub shift: u8,
    /// Whether words start with the high byte.
    pub big_endian: bool,
}

impl Coding {
    fn peak(&self) -> u16 {
        ((1u32 << self.depth) - 1) as u16
    }
}

/// Reads a row of bytes.
#[inline(always)]
pub fn read_bytes<S: Simd>(_: S, numbers: &mut [f32], bytes: &[[u8; 1]], coding: &Coding) {
    read(numbers, bytes, coding, |[byte]| u16::from(byte));
}

/// Reads a row of words.
#[inline(always)]
pub fn read_words<S: Simd>(_: S, numbers: &mut [f32], words: &[[u8; 2]], coding: &Coding) {
    match coding.big_endian {
        false => read(numbers, words, coding, u16::from_le_bytes),
        true => read(numbers, words, coding, u16::from_be_bytes),
    }
}

#[inline(always)]
fn read<W: Copy>(numbers: &mut [f32], words: &[W], coding: &Coding, word: impl Fn(W) -> u16) {
    let &Coding { zero, unit, shift, .. } = coding;
    let mask = coding.peak();
    let words = &words[..numbers.len()];
    for (number, &bytes) in numbers.iter_mut().zip(words) {
        *number = (f32::from((word(bytes) >> shift) & mask) - zero) / unit;
    }
}

/// Writes a row of bytes. `offsets` are added before rounding, to block after block.
#[inline(always)]
pub fn write_bytes<S: Simd>(
    _: S,
    bytes: &mut [[u8; 1]],
    numbers: &[f32],
    offsets: &[f32; BLOCK],
    coding: &Coding,
) {
    write(bytes, numbers, offsets, coding, |code| [code as u8]);
}

/// Writes a row of words, as [`write_bytes`].
#[inline(always)]
pub fn write_words<S: Simd>(
    _: S,
    words: &mut [[u8; 2]],
    numbers: &[f32],
    offsets: &[f32; BLOCK],
    coding: &Coding,
) {
    match coding.big_endian {
        false => write(words, numbers, offsets, coding, u16::to_le_bytes),
        true => write(words, numbers, offsets, coding, u16::to_be_bytes),
    }
}

#[inline(always)]
fn write<W>(
    words: &mut [W],
    numbers: &[f32],
    offsets: &[f32; BLOCK],
    coding: &Coding,
    word: impl Fn(u16) -> W,
) {
    /// 2^23: from here to 2^24 the f32 numbers are the integers, so adding it rounds to one and leaves it in the low
    /// bits. Unlike a cast it costs one addition and no check.
    const ROUND: f32 = 8_388_608.0;
    let &Coding { zero, unit, shift, .. } = coding;
    let peak = f32::from(coding.peak());
    let code = |number: f32, offset: f32| {
        let clamped = (number * unit + zero + offset).max(0.0).min(peak);
        word(((clamped + ROUND).to_bits() as u16) << shift)
    };
    let (number_blocks, last_numbers) = numbers.as_chunks::<BLOCK>();
    let (blocks, last) = words[..numbers.len()].as_chunks_mut::<BLOCK>();
    for (block, numbers) in blocks.iter_mut().zip(number_blocks) {
        for ((word, &number), &offset) in block.iter_mut().zip(numbers).zip(offsets) {
            *word = code(number, offset);
        }
    }
    for ((word, &number), &offset) in last.iter_mut().zip(last_numbers).zip(offsets) {
        *word = code(number, offset);
    }
}

/// Sums rows with a weight each. `rows`: those of one output, `stride` apart.
#[inline(always)]
pub fn sum_rows<S: Simd>(_: S, out: &mut [f32], rows: &[f32], stride: usize, weights: &[f32]) {
    let (blocks, last) = out.as_chunks_mut::<BLOCK>();
    for (i, block) in blocks.iter_mut().enumerate() {
        sum_columns(block, &rows[i * BLOCK..], stride, weights);
    }
    for (x, out) in (BLOCK * blocks.len()..).zip(last) {
        sum_columns(std::array::from_mut(out), &rows[x..], stride, weights);
    }
}

#[inline(always)]
fn sum_columns<const N: usize>(out: &mut [f32; N], rows: &[f32], stride: usize, weights: &[f32]) {
    let mut sums = [0.0; N];
    for (t, &weight) in weights.iter().enumerate() {
        let row: &[f32; N] = rows[t * stride..].first_chunk().expect("as wide as the output");
        for (sum, x) in sums.iter_mut().zip(row) {
            // The first product itself: 0 + -0 would be another number.
            *sum = if t == 0 { weight * x } else { *sum + weight * x };
        }
    }
    *out = sums;
}

/// Filters a part of a row whose weights repeat after 2 or 4 outputs, one input further on. `starts` and `weights`: the
/// first input and the weights of the first of these outputs. `out`: [n, 2 or 4], with n at least [`PIXELS_MAX`].
#[inline(always)]
pub fn filter_repeated<S: Simd>(
    s: S,
    out: &mut [f32],
    row: &[f32],
    starts: &[usize],
    weights: &[[f32; TAPS]],
) {
    let last = (out.len() / starts.len()).checked_sub(S::PIXELS).expect("a full vector");
    let (mut even, mut odd) = ([0.0; 2 * PIXELS_MAX], [0.0; 2 * PIXELS_MAX]);
    let mut x = 0;
    loop {
        let out = &mut out[starts.len() * x..];
        match (starts, weights) {
            (&[a, b], [weights_a, weights_b]) => {
                let (a, b) = (filter(s, &row[a + x..], weights_a), filter(s, &row[b + x..], weights_b));
                s.store_interleaved(out, a, b);
            }
            (&[a, b, c, d], [weights_a, weights_b, weights_c, weights_d]) => {
                let (a, c) = (filter(s, &row[a + x..], weights_a), filter(s, &row[c + x..], weights_c));
                s.store_interleaved(&mut even, a, c);
                let (b, d) = (filter(s, &row[b + x..], weights_b), filter(s, &row[d + x..], weights_d));
                s.store_interleaved(&mut odd, b, d);
                for half in [0, S::PIXELS] {
                    s.store_interleaved(&mut out[2 * half..], s.load(&even[half..]), s.load(&odd[half..]));
                }
            }
            _ => unreachable!("2 or 4 phases"),
        }
        if x == last {
            break;
        }
        // The last vector may overlap the one before.
        x = last.min(x + S::PIXELS);
    }
}

/// Filters outputs that begin one input apart.
#[inline(always)]
fn filter<S: Simd>(s: S, row: &[f32], weights: &[f32; TAPS]) -> S::V {
    let row = &row[..S::PIXELS + TAPS - 1];
    let mut sum = s.mul(s.load(row), s.splat(weights[0]));
    for (t, &weight) in weights.iter().enumerate().skip(1) {
        sum = s.add(sum, s.mul(s.load(&row[t..]), s.splat(weight)));
    }
    sum
}

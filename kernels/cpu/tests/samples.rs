//! The loops of samples give the bits of their definition on every level of this machine, at every length of a row.

use hasn_kernels::samples::{BLOCK, Coding, TAPS};
use hasn_kernels::simd::PIXELS_MAX;
use hasn_kernels::{Kernels, Level, Precision};

fn levels() -> impl Iterator<Item = (Level, &'static Kernels)> {
    Level::available().into_iter().map(|level| (level, level.kernels(Precision::F32)))
}

/// Numbers from -0.25 to 1.25, and now and then one that is none or far out.
fn numbers(len: usize) -> Vec<f32> {
    const STRANGE: [f32; 6] = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -0.0, 1e30, -1e30];
    let number = |i: usize| match i % 29 {
        28 => STRANGE[i / 29 % STRANGE.len()],
        _ => (i * 7919 % 65_521) as f32 / 65_521.0 * 1.5 - 0.25,
    };
    (0..len).map(number).collect()
}

fn bits(numbers: &[f32]) -> Vec<u32> {
    numbers.iter().map(|number| number.to_bits()).collect()
}

/// Row lengths round every boundary of vectors and blocks.
fn lengths() -> impl Iterator<Item = usize> {
    (0..2 * BLOCK + 3).chain([3 * BLOCK - 1, 1919, 1920])
}

/// Every depth and shift of a code in a word of `word_bits`, limited and full range, both byte orders.
fn codings(word_bits: u8) -> impl Iterator<Item = Coding> {
    let all = (1..=word_bits).flat_map(move |depth| (0..=word_bits - depth).map(move |shift| (depth, shift)));
    all.flat_map(|(depth, shift)| {
        let step = f32::from(1u16 << (depth - 1)) / 128.0;
        let full =
            Coding { zero: 0.0, unit: 2.0f32.powi(depth.into()) - 1.0, depth, shift, big_endian: false };
        let limited = Coding { zero: 16.0 * step, unit: 219.0 * step, ..full };
        let chroma = Coding { zero: 128.0 * step, unit: 224.0 * step, big_endian: true, ..full };
        [full, limited, chroma, Coding { big_endian: true, ..limited }]
    })
}

fn dither() -> [f32; BLOCK] {
    std::array::from_fn(|i| (i * 7 % 16) as f32 / 16.0 - 0.46875)
}

#[test]
fn codes_are_read_as_defined() {
    let bytes: Vec<u8> = (0..2 * 1920).map(|i| (i * 7919 % 251) as u8).collect();
    let expected = |code: u16, coding: &Coding| {
        let code = u32::from(code >> coding.shift) % (1 << coding.depth);
        (code as f32 - coding.zero) / coding.unit
    };
    for (level, kernels) in levels() {
        for len in lengths() {
            let mut read = vec![f32::NAN; len];
            for coding in codings(8).step_by(if len == 101 { 1 } else { 13 }) {
                let (bytes, _) = bytes.as_chunks();
                (kernels.read_bytes)(&mut read, bytes, &coding);
                let expected: Vec<f32> =
                    bytes[..len].iter().map(|[b]| expected(u16::from(*b), &coding)).collect();
                assert_eq!(bits(&read), bits(&expected), "{level:?}, {len} bytes, {coding:?}");
            }
            for coding in codings(16).step_by(if len == 101 { 1 } else { 67 }) {
                let (words, _) = bytes.as_chunks();
                (kernels.read_words)(&mut read, words, &coding);
                let code = |word: &[u8; 2]| match coding.big_endian {
                    true => u16::from(word[0]) << 8 | u16::from(word[1]),
                    false => u16::from(word[1]) << 8 | u16::from(word[0]),
                };
                let expected: Vec<f32> =
                    words[..len].iter().map(|word| expected(code(word), &coding)).collect();
                assert_eq!(bits(&read), bits(&expected), "{level:?}, {len} words, {coding:?}");
            }
        }
    }
}

#[test]
fn codes_are_rounded_and_clamped_as_defined() {
    let all = numbers(1920);
    let expected = |i: usize, coding: &Coding, offsets: &[f32; BLOCK]| {
        let exact = all[i] * coding.unit + coding.zero + offsets[i % BLOCK];
        let most = ((1u32 << coding.depth) - 1) as f32;
        // A cast of NaN is 0.
        (exact.clamp(0.0, most).round_ties_even() as u16) << coding.shift
    };
    for (level, kernels) in levels() {
        for (len, offsets) in lengths().flat_map(|len| [(len, [0.0; BLOCK]), (len, dither())]) {
            for coding in codings(8).step_by(if len == 101 { 1 } else { 13 }) {
                // What lies behind the row stays.
                let mut bytes = vec![[0xaa]; len + 1];
                (kernels.write_bytes)(&mut bytes, &all[..len], &offsets, &coding);
                let expected: Vec<_> =
                    (0..len).map(|i| [expected(i, &coding, &offsets) as u8]).chain([[0xaa]]).collect();
                assert_eq!(bytes, expected, "{level:?}, {len} bytes, {coding:?}");
            }
            for coding in codings(16).step_by(if len == 101 { 1 } else { 67 }) {
                let mut words = vec![[0xaa; 2]; len + 1];
                (kernels.write_words)(&mut words, &all[..len], &offsets, &coding);
                let word =
                    |code: u16| if coding.big_endian { code.to_be_bytes() } else { code.to_le_bytes() };
                let expected: Vec<_> =
                    (0..len).map(|i| word(expected(i, &coding, &offsets))).chain([[0xaa; 2]]).collect();
                assert_eq!(words, expected, "{level:?}, {len} words, {coding:?}");
            }
        }
    }
}

#[test]
fn sums_of_rows_have_one_order() {
    for (level, kernels) in levels() {
        for (len, count) in lengths().flat_map(|len| [(len, 1), (len, 6), (len, 11)]) {
            let stride = len + 3;
            let rows = numbers(stride * count);
            let weights: Vec<f32> = (0..count).map(|t| 0.3 - 0.11 * t as f32).collect();
            let mut sums = vec![f32::NAN; len];
            (kernels.sum_rows)(&mut sums, &rows, stride, &weights);
            let expected = |x: usize| {
                let products = |t: usize| weights[t] * rows[t * stride + x];
                (1..count).fold(products(0), |sum, t| sum + products(t))
            };
            let expected: Vec<f32> = (0..len).map(expected).collect();
            // The sign of a NaN is not defined.
            assert_eq!(bits_or_nan(&sums), bits_or_nan(&expected), "{level:?}, {count} rows of {len}");
        }
    }
}

#[test]
fn repeated_filters_give_the_bits_of_single_ones() {
    for (level, kernels) in levels() {
        for (phases, groups) in
            (PIXELS_MAX..5 * PIXELS_MAX).flat_map(|n| [(2usize, n), (4, n)]).chain([(2, 957), (4, 957)])
        {
            let starts: Vec<usize> = (0..phases).map(|phase| 3 + phase.div_ceil(2)).collect();
            let weights: Vec<[f32; TAPS]> =
                (0..phases).map(|p| std::array::from_fn(|t| 0.4 - 0.17 * ((t + 2 * p) % 5) as f32)).collect();
            // Exactly as long as the last output needs.
            let row = numbers(starts[phases - 1] + groups - 1 + TAPS);
            let mut out = vec![f32::NAN; phases * groups];
            (kernels.filter_repeated)(&mut out, &row, &starts, &weights);
            let expected = |k: usize| {
                let (phase, start) = (k % phases, starts[k % phases] + k / phases);
                let product = |t: usize| row[start + t] * weights[phase][t];
                (1..TAPS).fold(product(0), |sum, t| sum + product(t))
            };
            let expected: Vec<f32> = (0..out.len()).map(expected).collect();
            assert_eq!(bits_or_nan(&out), bits_or_nan(&expected), "{level:?}, {phases} phases of {groups}");
        }
    }
}

fn bits_or_nan(numbers: &[f32]) -> Vec<Option<u32>> {
    numbers.iter().map(|number| (!number.is_nan()).then_some(number.to_bits())).collect()
}

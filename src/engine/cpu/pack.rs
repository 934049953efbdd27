//! A conv packed for the loops: groups of outputs, words of channels, int16 and bf16 pairs.

use half::bf16;
use hasn_kernels::weights::{Dense, Depthwise, Packing};

use crate::model::Conv;

/// Quantization factors of the input and the output of a map: int16 values per 1.0, 1 for float tensors.
#[derive(Clone, Copy)]
pub(super) struct Factors {
    pub(super) input: f32,
    pub(super) output: f32,
    /// The largest magnitude of the output on the calibration frame, before the output's factor; infinite if not measured.
    pub(super) peak: f32,
}

impl Factors {
    pub(super) const ONE: Factors = Factors::new(1.0, 1.0);

    pub(super) const fn new(input: f32, output: f32) -> Factors {
        Factors { input, output, peak: f32::INFINITY }
    }
}

/// How much larger than on the calibration frame an int32 sum may be. Its inputs are clipped at four times their peaks.
const HEADROOM: f32 = 32.0;

/// Packs a dense map.
pub(super) fn pack_dense(conv: &Conv, packing: Packing, factors: Factors) -> Dense {
    let Packing { channels, outputs_max, outputs_multiple: multiple, .. } = packing;
    let (words, taps) = (packing.words(conv.inputs), conv.side * conv.side);
    let units = conv.outputs.div_ceil(multiple);
    let parts = units.div_ceil(outputs_max / multiple);
    let groups: Vec<usize> =
        (0..parts).map(|part| multiple * ((part + 1) * units / parts - part * units / parts)).collect();
    let weights = conv.weight.chunks_exact(conv.inputs * taps);
    let (factor, mut scale): (Vec<_>, Vec<_>) =
        weights.map(|weights| factor_and_scale(packing, weights, factors)).unzip();
    let of = |output: usize, input: usize, tap: usize| {
        let exists = output < conv.outputs && input < conv.inputs;
        if exists { conv.weight[(output * conv.inputs + input) * taps + tap] * factor[output] } else { 0.0 }
    };
    let word = |output: usize, word: usize, tap: usize| match channels {
        1 => of(output, word, tap),
        _ => pair(packing, of(output, 2 * word, tap), of(output, 2 * word + 1, tap)),
    };
    let mut weight = Vec::with_capacity(multiple * units * words * taps);
    let mut first = 0;
    for outputs in &groups {
        for i in 0..words * taps {
            weight.extend((first..first + outputs).map(|output| word(output, i / taps, i % taps)));
        }
        first += outputs;
    }
    let mut bias: Vec<f32> = conv.bias.iter().map(|bias| bias * factors.output).collect();
    bias.resize(first, 0.0);
    scale.resize(first, 1.0);
    Dense { words, side: conv.side, groups, weight, scale, bias }
}

/// Packs a depthwise conv of an input whose channels are multiplied by `scale`.
pub(super) fn pack_depthwise(conv: &Conv, packing: Packing, scale: &[f32], factors: Factors) -> Depthwise {
    assert!(conv.inputs == 1 && conv.side == 7);
    let (channels, _) = conv.weight.as_chunks::<49>();
    let (factor, scale): (Vec<_>, Vec<_>) = channels
        .iter()
        .zip(scale)
        .map(|(taps, scale)| {
            factor_and_scale(packing, taps, Factors { output: scale * factors.output, ..factors })
        })
        .unzip();
    let taps = channels.iter().zip(factor).map(|(taps, factor)| {
        let tap = |row: usize, dx: usize| if row < 7 { taps[7 * row + dx] * factor } else { 0.0 };
        let pair = |low: f32, high: f32| pair(packing, low, high);
        // The first input row of an even row is the second of a pair, the last of an odd row the first of a pair.
        let word = |row: usize, dx: usize| match (packing.channels, row) {
            (1, _) => tap(row, dx),
            (_, 0) => pair(0.0, tap(0, dx)),
            (_, ..4) => pair(tap(2 * row - 1, dx), tap(2 * row, dx)),
            _ => pair(tap(2 * row - 8, dx), tap(2 * row - 7, dx)),
        };
        std::array::from_fn(|row| std::array::from_fn(|dx| word(row, dx)))
    });
    let taps = taps.collect();
    Depthwise { taps, scale, bias: conv.bias.iter().map(|bias| bias * factors.output).collect() }
}

/// Packs two numbers into a word, the first in its low half.
fn pair(packing: Packing, low: f32, high: f32) -> f32 {
    let bits = |x: f32| match packing.int16 {
        true => (x.round_ties_even() as i16).cast_unsigned(),
        false => bf16::from_f32(x).to_bits(),
    };
    f32::from_bits(u32::from(bits(low)) | u32::from(bits(high)) << 16)
}

/// Returns the factor for the stored weights of an output, and the factor for its sum. Partial sums may wrap; the whole sum
/// fits into an int32, since it is below one of two bounds: the magnitudes of the output's weights, each rounded up by a
/// half, add up to 2^16 at most, and values are 2^15 at most; or the output is below [`HEADROOM`] times its peak.
fn factor_and_scale(packing: Packing, weights: &[f32], factors: Factors) -> (f32, f32) {
    let Factors { input, output, peak } = factors;
    if !packing.int16 {
        return (output / input, 1.0);
    }
    let room = (1 << 16) as f32 - weights.len() as f32;
    let sum: f32 = weights.iter().map(|w| w.abs()).sum();
    let largest = weights.iter().fold(0.0, |largest: f32, w| largest.max(w.abs()));
    let bound = (sum / room).min(HEADROOM * peak * input / (1u32 << 31) as f32);
    let step = bound.max(largest / f32::from(i16::MAX)).max(f32::MIN_POSITIVE);
    (1.0 / step, output / input * step)
}

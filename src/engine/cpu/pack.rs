//! The rewritten weights as the loops read them.

use half::bf16;
use hasn_kernels::weights::{Dense, Depthwise, Gate, Packing};

use super::codes::{BlockCodes, Codes};
use super::tail::Tail;
use crate::engine::rewrite;
use crate::model::{BlockWeights, Conv, Model};

/// One block.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) dwconv: Conv,
    /// `conv1` after `f3`: C -> E.
    pub(super) conv1: Dense,
    pub(super) conv2: Dense,
    pub(super) conv3: Dense,
    pub(super) gate: Gate,
    pub(super) dwconv2: Depthwise,
    pub(super) cab_0: Dense,
    pub(super) cab_2: Dense,
    pub(super) attention_1: Conv,
    pub(super) attention_3: Conv,
    pub(super) codes: BlockCodes,
}

impl Block {
    fn new(weights: &BlockWeights, packing: Packing, codes: BlockCodes) -> Block {
        let block = rewrite::Block::new(weights);
        let BlockCodes { n, c1, attention, gated, g, u, t, .. } = codes;
        let dense = |conv: &Conv, from: f32, to: f32| pack_dense(conv, packing, (from, to));
        let f = [(&block.f1, 1.0), (&block.f2, gated), (&block.f3, gated)];
        // A word of what `g` makes holds two rows.
        let of_rows = if packing.channels == 2 { packing.waiting() } else { packing };
        let gate = Gate {
            f: Dense::three(f.map(|(conv, to)| pack_dense(conv, packing.of_three(), (n, to)))),
            conv_f: dense(&block.conv_f, n, attention),
            conv4: dense(&block.conv4, attention, 1.0),
            g: pack_dense(&block.g, of_rows, (gated, g)),
        };
        let unscaled = vec![1.0; block.dwconv2.outputs];
        Block {
            dwconv2: pack_depthwise(&block.dwconv2, packing, &unscaled, (g, u)),
            dwconv: block.dwconv,
            conv1: dense(&block.conv1, n, c1),
            conv2: dense(&block.conv2, c1, 1.0),
            // What it makes is added to what `conv_f` makes.
            conv3: pack_dense(&block.conv3, packing.exact(), (1.0, attention)),
            gate,
            cab_0: dense(&block.cab_0, u, 1.0),
            cab_2: dense(&block.cab_2, t, 1.0),
            attention_1: block.attention_1,
            attention_3: block.attention_3,
            codes,
        }
    }
}

/// The whole network.
#[derive(Debug)]
pub(super) struct Packed {
    pub(super) conv_1: Dense,
    pub(super) blocks: Vec<Block>,
    pub(super) tail: Tail,
    /// Codes of the trunk, as the tail reads it.
    pub(super) trunk: f32,
}

impl Packed {
    pub(super) fn new(model: &Model, packing: Packing) -> Packed {
        let Codes { blocks, trunk, last } =
            if packing.whole { Codes::of(model) } else { Codes::ones(&model.sizes) };
        let blocks = model.blocks.iter().zip(blocks);
        Packed {
            conv_1: pack_dense(&model.conv_1, packing.exact(), (1.0, 1.0)),
            blocks: blocks.map(|(block, codes)| Block::new(block, packing, codes)).collect(),
            tail: Tail::new(model, packing, trunk, last),
            trunk,
        }
    }
}

/// It reads a tensor in the codes `from` and makes one in the codes `to`.
pub(super) fn pack_dense(conv: &Conv, packing: Packing, (from, to): (f32, f32)) -> Dense {
    let Packing { channels, outputs_max, outputs_multiple: multiple, .. } = packing;
    let (words, taps) = (packing.words(conv.inputs), conv.side * conv.side);
    let units = conv.outputs.div_ceil(multiple);
    let parts = units.div_ceil(outputs_max / multiple);
    let groups: Vec<usize> =
        (0..parts).map(|part| multiple * ((part + 1) * units / parts - part * units / parts)).collect();
    let weights = conv.weight.chunks_exact(conv.inputs * taps);
    let (factor, mut scale): (Vec<_>, Vec<_>) =
        weights.map(|weights| factor_and_scale(packing, weights, to / from)).unzip();
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
    let mut bias: Vec<f32> = conv.bias.iter().map(|bias| bias * to).collect();
    bias.resize(first, 0.0);
    scale.resize(first, 1.0);
    Dense { words, side: conv.side, groups, weight, scale, bias }
}

/// As if each channel were multiplied by its scale first. It reads a tensor in the codes `from` and makes one in
/// the codes `to`.
pub(super) fn pack_depthwise(
    conv: &Conv,
    packing: Packing,
    scale: &[f32],
    (from, to): (f32, f32),
) -> Depthwise {
    assert!(conv.inputs == 1 && conv.side == 7);
    let (channels, _) = conv.weight.as_chunks::<49>();
    let (factor, scale): (Vec<_>, Vec<_>) = channels
        .iter()
        .zip(scale)
        .map(|(taps, scale)| factor_and_scale(packing, taps, scale * to / from))
        .unzip();
    let taps = channels.iter().zip(factor).map(|(taps, factor)| {
        let tap = |row: usize, dx: usize| if row < 7 { taps[7 * row + dx] * factor } else { 0.0 };
        let pair = |low: f32, high: f32| pair(packing, low, high);
        // An even row sees its first row of input as the second of a pair, an odd one its last as the first.
        let word = |row: usize, dx: usize| match (packing.channels, row) {
            (1, _) => tap(row, dx),
            (_, 0) => pair(0.0, tap(0, dx)),
            (_, ..4) => pair(tap(2 * row - 1, dx), tap(2 * row, dx)),
            _ => pair(tap(2 * row - 8, dx), tap(2 * row - 7, dx)),
        };
        std::array::from_fn(|row| std::array::from_fn(|dx| word(row, dx)))
    });
    let taps = taps.collect();
    Depthwise { taps, scale, bias: conv.bias.iter().map(|bias| bias * to).collect() }
}

/// Two numbers in a word, the first in its low half.
fn pair(packing: Packing, low: f32, high: f32) -> f32 {
    let bits = |x: f32| match packing.whole {
        true => (x.round_ties_even() as i16).cast_unsigned(),
        false => bf16::from_f32(x).to_bits(),
    };
    f32::from_bits(u32::from(bits(low)) | u32::from(bits(high)) << 16)
}

/// What the weights of an output, in whose sum they are `factor` times as large, are multiplied by to be stored, and
/// what a whole sum is multiplied by then. A whole sum fits into 32 bits whatever it is of: magnitudes of weights
/// add up to 2^16 at most, each rounded up by a half, and those of values to 2^15.
fn factor_and_scale(packing: Packing, weights: &[f32], factor: f32) -> (f32, f32) {
    if !packing.whole {
        return (factor, 1.0);
    }
    let room = (1 << 16) as f32 - weights.len() as f32;
    let sum: f32 = weights.iter().map(|w| w.abs()).sum();
    let largest = weights.iter().fold(0.0, |largest: f32, w| largest.max(w.abs()));
    let step = (sum / room).max(largest / f32::from(i16::MAX)).max(f32::MIN_POSITIVE);
    (1.0 / step, factor * step)
}

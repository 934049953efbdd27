//! The rewritten weights as the loops read them.

use half::bf16;

use super::tail::Tail;
use crate::engine::rewrite;
use crate::model::{BlockWeights, Conv, Model};

/// How a level wants its dense maps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Packing {
    /// Channels of a word that is read, or rows where a depthwise conv reads it: 1 in f32, 2 in bf16.
    pub(super) channels: usize,
    /// Outputs that are made together, at most.
    pub(super) outputs_max: usize,
    /// Outputs are made in whole multiples of it, for they may become words.
    pub(super) outputs_multiple: usize,
}

impl Packing {
    /// The same level's loops over f32.
    pub(super) fn exact(self) -> Packing {
        Packing { channels: 1, ..self }
    }

    /// For maps whose outputs wait in registers for those of another.
    fn waiting(self) -> Packing {
        Packing { outputs_max: self.outputs_max / 2, ..self }
    }

    /// Words that hold so many channels.
    pub(super) fn words(self, channels: usize) -> usize {
        channels.div_ceil(self.channels)
    }

    /// Outputs that are made where so many are wanted.
    pub(super) fn outputs(self, channels: usize) -> usize {
        channels.next_multiple_of(self.outputs_multiple)
    }
}

/// A dense map, cut into groups of outputs that are made together.
#[derive(Debug)]
pub(super) struct Dense {
    /// Of the input.
    pub(super) words: usize,
    /// Of its taps, in width and height.
    pub(super) side: usize,
    /// How many outputs each has.
    groups: Vec<usize>,
    /// [groups] of [words, side, side, outputs], each a word.
    weight: Vec<f32>,
    /// Of all outputs, those that fill up the last word too.
    bias: Vec<f32>,
}

/// A few outputs of a dense map.
#[derive(Clone, Copy)]
pub(super) struct Group<'a> {
    /// Index of the first output.
    pub(super) first: usize,
    /// [words, side, side, outputs].
    pub(super) weight: &'a [f32],
    /// `[outputs]`.
    pub(super) bias: &'a [f32],
}

impl Dense {
    pub(super) fn new(conv: &Conv, packing: Packing) -> Dense {
        let Packing { channels, outputs_max, outputs_multiple: multiple } = packing;
        let (words, taps) = (packing.words(conv.inputs), conv.side * conv.side);
        let units = conv.outputs.div_ceil(multiple);
        let parts = units.div_ceil(outputs_max / multiple);
        let groups: Vec<usize> =
            (0..parts).map(|part| multiple * ((part + 1) * units / parts - part * units / parts)).collect();
        let of = |output: usize, input: usize, tap: usize| {
            let exists = output < conv.outputs && input < conv.inputs;
            if exists { conv.weight[(output * conv.inputs + input) * taps + tap] } else { 0.0 }
        };
        let word = |output: usize, word: usize, tap: usize| match channels {
            1 => of(output, word, tap),
            _ => pair(of(output, 2 * word, tap), of(output, 2 * word + 1, tap)),
        };
        let mut weight = Vec::with_capacity(multiple * units * words * taps);
        let mut first = 0;
        for outputs in &groups {
            for i in 0..words * taps {
                weight.extend((first..first + outputs).map(|output| word(output, i / taps, i % taps)));
            }
            first += outputs;
        }
        let bias = (0..first).map(|output| conv.bias.get(output).copied().unwrap_or(0.0)).collect();
        Dense { words, side: conv.side, groups, weight, bias }
    }

    /// In the order of outputs.
    #[inline(always)]
    pub(super) fn groups(&self) -> impl Iterator<Item = Group<'_>> {
        let (mut first, mut rest) = (0, &*self.weight);
        self.groups.iter().map(move |&outputs| {
            let weight;
            (weight, rest) = rest.split_at(outputs * self.words * self.side * self.side);
            let group = Group { first, weight, bias: &self.bias[first..first + outputs] };
            first += outputs;
            group
        })
    }
}

/// Two bf16 in a word, the first in its low half.
fn pair(low: f32, high: f32) -> f32 {
    let bits = |x: f32| u32::from(bf16::from_f32(x).to_bits());
    f32::from_bits(bits(low) | bits(high) << 16)
}

/// A depthwise 7x7. A word of what it reads is a pixel in f32, or in bf16 the same of an even row and of the next.
#[derive(Debug)]
pub(super) struct Depthwise {
    /// [C] of rows of taps: the seven, or four pairs for outputs of even rows and four for those of odd rows.
    pub(super) taps: Vec<[[f32; 7]; 8]>,
    /// [C].
    pub(super) bias: Vec<f32>,
}

impl Depthwise {
    /// As if each channel were multiplied by its scale first.
    pub(super) fn scaled(conv: &Conv, scale: &[f32], packing: Packing) -> Depthwise {
        assert!(conv.inputs == 1 && conv.side == 7);
        let (channels, _) = conv.weight.as_chunks::<49>();
        let taps = channels.iter().zip(scale).map(|(taps, scale)| {
            let tap = |row: usize, dx: usize| if row < 7 { taps[7 * row + dx] * scale } else { 0.0 };
            // An even row sees its first row of input as the second of a pair, an odd one its last as the first.
            let word = |row: usize, dx: usize| match (packing.channels, row) {
                (1, _) => tap(row, dx),
                (_, 0) => pair(0.0, tap(0, dx)),
                (_, ..4) => pair(tap(2 * row - 1, dx), tap(2 * row, dx)),
                _ => pair(tap(2 * row - 8, dx), tap(2 * row - 7, dx)),
            };
            std::array::from_fn(|row| std::array::from_fn(|dx| word(row, dx)))
        });
        Depthwise { taps: taps.collect(), bias: conv.bias.clone() }
    }
}

/// What makes the gated tensor out of the normalised one, all 1x1.
#[derive(Debug)]
pub(super) struct Gate {
    /// C -> M.
    pub(super) f1: Dense,
    /// C -> M.
    pub(super) f2: Dense,
    /// C -> M.
    pub(super) f3: Dense,
    /// `conv_f` after `conv1` after `f3`: C -> E.
    pub(super) conv_f: Dense,
    /// E -> M, scaled for the sigmoid that follows.
    pub(super) conv4: Dense,
    /// M -> C.
    pub(super) g: Dense,
}

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
}

impl Block {
    fn new(weights: &BlockWeights, packing: Packing) -> Block {
        let block = rewrite::Block::new(weights);
        let dense = |conv: &Conv| Dense::new(conv, packing);
        let waiting = |conv: &Conv| Dense::new(conv, packing.waiting());
        let gate = Gate {
            f1: waiting(&block.f1),
            f2: waiting(&block.f2),
            f3: waiting(&block.f3),
            conv_f: dense(&block.conv_f),
            conv4: waiting(&block.conv4),
            // Its outputs wait for those of the row below, where a word holds both.
            g: if packing.channels == 2 { waiting(&block.g) } else { dense(&block.g) },
        };
        Block {
            dwconv2: Depthwise::scaled(&block.dwconv2, &vec![1.0; block.dwconv2.outputs], packing),
            dwconv: block.dwconv,
            conv1: dense(&block.conv1),
            conv2: dense(&block.conv2),
            conv3: Dense::new(&block.conv3, packing.exact()),
            gate,
            cab_0: dense(&block.cab_0),
            cab_2: dense(&block.cab_2),
            attention_1: block.attention_1,
            attention_3: block.attention_3,
        }
    }
}

/// The whole network.
#[derive(Debug)]
pub(super) struct Packed {
    pub(super) conv_1: Dense,
    pub(super) blocks: Vec<Block>,
    pub(super) tail: Tail,
}

impl Packed {
    pub(super) fn new(model: &Model, packing: Packing) -> Packed {
        Packed {
            conv_1: Dense::new(&model.conv_1, packing.exact()),
            blocks: model.blocks.iter().map(|block| Block::new(block, packing)).collect(),
            tail: Tail::new(model, packing),
        }
    }
}

//! Weights as the loops read them, with the exact rewrites made once: LayerNorm's affine goes into the maps that
//! read it, ESA's `conv1` and `conv_f` after `f3` become maps of the normalised tensor itself, and the network's
//! last two convs become one (see `tail`).

use half::bf16;

use super::math::SIGMOID_SCALE;
use super::tail::Tail;
use crate::model::{BlockWeights, Conv, LayerNorm, Model};

/// How a level wants its dense maps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Packing {
    /// Channels of a word that is read: 1 in f32, 2 in bf16.
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

/// A depthwise 7x7.
#[derive(Debug)]
pub(super) struct Depthwise {
    /// [C] of [7, 7].
    pub(super) taps: Vec<[f32; 49]>,
    /// [C].
    pub(super) bias: Vec<f32>,
}

impl Depthwise {
    fn new(conv: &Conv) -> Depthwise {
        assert!(conv.inputs == 1 && conv.side == 7);
        Depthwise { taps: conv.weight.as_chunks().0.to_vec(), bias: conv.bias.clone() }
    }

    /// As if each channel were multiplied by its scale first.
    pub(super) fn scaled(&self, scale: &[f32]) -> Depthwise {
        let taps = self.taps.iter().zip(scale).map(|(taps, scale)| taps.map(|tap| tap * scale));
        Depthwise { taps: taps.collect(), bias: self.bias.clone() }
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
    pub(super) dwconv: Depthwise,
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
        let f3 = after_norm(&weights.f3, &weights.ln);
        let conv1 = compose(&weights.esa.conv1, &f3);
        let mut conv4 = weights.esa.conv4.clone();
        conv4.weight.iter_mut().chain(&mut conv4.bias).for_each(|w| *w *= SIGMOID_SCALE);
        let dense = |conv: &Conv| Dense::new(conv, packing);
        let gate = Gate {
            f1: dense(&after_norm(&weights.f1, &weights.ln)),
            f2: dense(&after_norm(&weights.f2, &weights.ln)),
            f3: dense(&f3),
            conv_f: dense(&compose(&weights.esa.conv_f, &conv1)),
            conv4: dense(&conv4),
            g: dense(&weights.g),
        };
        Block {
            dwconv: Depthwise::new(&weights.dwconv),
            conv1: dense(&conv1),
            conv2: dense(&weights.esa.conv2),
            conv3: Dense::new(&weights.esa.conv3, packing.exact()),
            gate,
            dwconv2: Depthwise::new(&weights.dwconv2),
            cab_0: dense(&weights.cab.conv_0),
            cab_2: dense(&weights.cab.conv_2),
            attention_1: weights.cab.attention_1.clone(),
            attention_3: weights.cab.attention_3.clone(),
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

/// The map that does on a tensor before the affine of `ln` what `conv` does after it.
fn after_norm(conv: &Conv, ln: &LayerNorm) -> Conv {
    assert_eq!(conv.side, 1);
    let affine = Conv {
        outputs: conv.inputs,
        inputs: conv.inputs,
        side: 1,
        weight: (0..conv.inputs * conv.inputs)
            .map(|i| if i / conv.inputs == i % conv.inputs { ln.weight[i % conv.inputs] } else { 0.0 })
            .collect(),
        bias: ln.bias.clone(),
    };
    compose(conv, &affine)
}

/// `outer` after `inner`, both 1x1, summed in f64 and rounded once.
fn compose(outer: &Conv, inner: &Conv) -> Conv {
    assert!(outer.side == 1 && inner.side == 1 && outer.inputs == inner.outputs);
    let row = |o: usize| &outer.weight[o * outer.inputs..][..outer.inputs];
    let dot = |o: usize, column: &dyn Fn(usize) -> f32| -> f64 {
        row(o).iter().enumerate().map(|(m, w)| f64::from(*w) * f64::from(column(m))).sum()
    };
    let weight =
        |i: usize| dot(i / inner.inputs, &|m| inner.weight[m * inner.inputs + i % inner.inputs]) as f32;
    let bias = |o: usize| (f64::from(outer.bias[o]) + dot(o, &|m| inner.bias[m])) as f32;
    Conv {
        outputs: outer.outputs,
        inputs: inner.inputs,
        side: 1,
        weight: (0..outer.outputs * inner.inputs).map(weight).collect(),
        bias: (0..outer.outputs).map(bias).collect(),
    }
}

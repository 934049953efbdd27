//! Weights as the loops read them, with the exact rewrites made once: LayerNorm's affine goes into the maps that
//! read it, and ESA's `conv1` and `conv_f` after `f3` become maps of the normalised tensor itself.

use crate::model::{BlockWeights, Conv, LayerNorm, Model};

/// A dense map in groups of four outputs, the last group filled up with zeros.
#[derive(Debug)]
pub(super) struct Dense {
    /// Before filling up.
    pub(super) outputs: usize,
    /// Of one output.
    taps: usize,
    /// [groups, taps] of four outputs.
    weight: Vec<[f32; 4]>,
    /// [groups] of four outputs.
    pub(super) bias: Vec<[f32; 4]>,
}

impl Dense {
    pub(super) fn new(conv: &Conv) -> Dense {
        let taps = conv.inputs * conv.side * conv.side;
        let groups = conv.outputs.div_ceil(4);
        let of = |values: &[f32], group: usize, per_output: usize, tap: usize| {
            std::array::from_fn(|o| values.get((4 * group + o) * per_output + tap).copied().unwrap_or(0.0))
        };
        Dense {
            outputs: conv.outputs,
            taps,
            weight: (0..groups * taps).map(|i| of(&conv.weight, i / taps, taps, i % taps)).collect(),
            bias: (0..groups).map(|group| of(&conv.bias, group, 1, 0)).collect(),
        }
    }

    pub(super) fn groups(&self) -> usize {
        self.bias.len()
    }

    /// [taps] of four outputs.
    #[inline(always)]
    pub(super) fn group(&self, group: usize) -> &[[f32; 4]] {
        &self.weight[group * self.taps..][..self.taps]
    }

    /// As if each input channel were multiplied by its scale first.
    pub(super) fn scaled(&self, scale: &[f32]) -> Dense {
        let per_input = self.taps / scale.len();
        let weight = |(i, w): (usize, &[f32; 4])| w.map(|w| w * scale[i % self.taps / per_input]);
        Dense {
            outputs: self.outputs,
            taps: self.taps,
            weight: self.weight.iter().enumerate().map(weight).collect(),
            bias: self.bias.clone(),
        }
    }
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
    /// E -> M.
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
    pub(super) conv3: Conv,
    pub(super) gate: Gate,
    pub(super) dwconv2: Depthwise,
    pub(super) cab_0: Dense,
    pub(super) cab_2: Dense,
    pub(super) attention_1: Conv,
    pub(super) attention_3: Conv,
}

impl Block {
    fn new(weights: &BlockWeights) -> Block {
        let f3 = after_norm(&weights.f3, &weights.ln);
        let conv1 = compose(&weights.esa.conv1, &f3);
        let gate = Gate {
            f1: Dense::new(&after_norm(&weights.f1, &weights.ln)),
            f2: Dense::new(&after_norm(&weights.f2, &weights.ln)),
            f3: Dense::new(&f3),
            conv_f: Dense::new(&compose(&weights.esa.conv_f, &conv1)),
            conv4: Dense::new(&weights.esa.conv4),
            g: Dense::new(&weights.g),
        };
        Block {
            dwconv: Depthwise::new(&weights.dwconv),
            conv1: Dense::new(&conv1),
            conv2: Dense::new(&weights.esa.conv2),
            conv3: weights.esa.conv3.clone(),
            gate,
            dwconv2: Depthwise::new(&weights.dwconv2),
            cab_0: Dense::new(&weights.cab.conv_0),
            cab_2: Dense::new(&weights.cab.conv_2),
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
    pub(super) conv_2: Dense,
    /// For each colour component, C -> scale².
    pub(super) upsamplers: Vec<Dense>,
}

impl Packed {
    pub(super) fn new(model: &Model) -> Packed {
        Packed {
            conv_1: Dense::new(&model.conv_1),
            blocks: model.blocks.iter().map(Block::new).collect(),
            conv_2: Dense::new(&model.conv_2),
            upsamplers: upsamplers(model),
        }
    }
}

/// Split by colour component, so that each writes one plane.
fn upsamplers(model: &Model) -> Vec<Dense> {
    let conv = &model.upsampler;
    let outputs = conv.outputs / model.sizes.in_channels;
    let weights = conv.weight.chunks_exact(conv.weight.len() / model.sizes.in_channels);
    let part = |(weight, bias): (&[f32], &[f32])| {
        Dense::new(&Conv { outputs, weight: weight.to_vec(), bias: bias.to_vec(), ..*conv })
    };
    weights.zip(conv.bias.chunks_exact(outputs)).map(part).collect()
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

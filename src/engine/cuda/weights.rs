//! Weights in the layout of the kernels, in one block of memory.
//!
//! In: a model. Out: bytes to upload, and the place of each map in them. Channels are padded with zeros to the sizes that
//! the kernels are compiled for; weights of dense maps are f16 in the order of the lanes that read them.

use half::f16;

use super::maps::{BlockWeights, Map, Part, SIZES, Size, TailWeights, aligned, dense_len};
use crate::engine::rewrite::{Block, ByPlace, MIDDLE, Tail};
use crate::error::{Error, ErrorKind, Result};
use crate::model::{Conv, Model};

/// Bytes to upload, and the address that they will have on the device.
#[derive(Default)]
pub(super) struct Blob {
    pub(super) bytes: Vec<u8>,
    /// Address of the first byte on the device.
    base: u64,
}

impl Blob {
    /// An empty blob for the address `base`.
    pub(super) fn at(base: u64) -> Blob {
        Blob { bytes: Vec::new(), base }
    }

    pub(super) fn push(&mut self, values: &[impl bytemuck::NoUninit]) -> Part {
        let bytes: &[u8] = bytemuck::cast_slice(values);
        self.bytes.resize(aligned(self.bytes.len()), 0);
        let address = self.base + self.bytes.len() as u64;
        self.bytes.extend_from_slice(bytes);
        Part { address, len: bytes.len() }
    }

    /// Adds a dense map, its outputs cut into pieces of `piece` that are multiplied separately.
    fn dense(&mut self, conv: &Conv, inputs: usize, outputs: usize, piece: usize) -> Map {
        Map {
            weight: self.push(&lanes(conv, inputs, outputs, piece)),
            bias: self.padded(&conv.bias, outputs),
        }
    }

    fn padded(&mut self, values: &[f32], len: usize) -> Part {
        let mut values = values.to_vec();
        values.resize(len, 0.0);
        self.push(&values)
    }

    /// Adds a map in f32: [inputs, taps, outputs], padded to `outputs`.
    fn plain(&mut self, conv: &Conv, outputs: usize) -> Map {
        let weight = transposed(conv, conv.inputs, outputs);
        Map { weight: self.push(&weight), bias: self.padded(&conv.bias, outputs) }
    }
}

/// The weights of a network on the device.
#[derive(Clone, Debug)]
pub(super) struct Weights {
    pub(super) size: Size,
    /// C without padding.
    pub(super) dim: usize,
    pub(super) in_channels: usize,
    pub(super) conv_1: Map,
    pub(super) blocks: Vec<BlockWeights>,
    pub(super) tail: TailWeights,
    /// [C] f32: ones, the scale of a tensor without one.
    pub(super) ones: Part,
}

impl Weights {
    pub(super) fn new(model: &Model, blob: &mut Blob) -> Result<Weights> {
        let sizes = &model.sizes;
        let fits = |size: &&Size| {
            sizes.dim <= size.c
                && sizes.mlp_channels <= size.m
                && sizes.esa_channels <= size.e
                && sizes.cab_channels <= size.r
                && sizes.ca_channels <= size.c
        };
        let size = *SIZES.iter().find(fits).ok_or_else(|| {
            let Size { c, m, e, r, .. } = SIZES[SIZES.len() - 1];
            let problem = format!(
                "the model has {} x {} x {} x {} channels; the CUDA engine takes up to {c} x {m} x {e} x {r}",
                sizes.dim, sizes.mlp_channels, sizes.esa_channels, sizes.cab_channels
            );
            Error::new("--engine cuda", problem, "use --engine cpu").with_kind(ErrorKind::Unsupported)
        })?;
        Ok(Weights {
            size,
            dim: sizes.dim,
            in_channels: sizes.in_channels,
            conv_1: blob.plain(&model.conv_1, size.c),
            blocks: model.blocks.iter().map(|weights| block(&Block::new(weights), size, blob)).collect(),
            tail: tail(model, size, blob),
            ones: blob.push(&vec![1.0f32; size.c]),
        })
    }
}

fn block(block: &Block, size: Size, blob: &mut Blob) -> BlockWeights {
    let Size { c, m, e, r, .. } = size;
    let dw_taps = depthwise(&block.dwconv, c);
    let dw2_taps = depthwise(&block.dwconv2, c);
    // A thread of the attention reads a row.
    let rows = |conv: &Conv, inputs: usize, outputs: usize| -> Vec<f32> {
        let at = |i: usize| weight_of(conv, i / inputs, i % inputs, 0);
        (0..outputs * inputs).map(at).collect()
    };
    let hidden = block.attention_1.outputs;
    BlockWeights {
        dw_taps: blob.push(&dw_taps),
        dw_bias: blob.padded(&block.dwconv.bias, c),
        conv1: blob.dense(&block.conv1, c, e, e),
        conv2: blob.dense(&block.conv2, e, e, e),
        conv3: blob.dense(&block.conv3, e, e, e),
        conv_f: blob.dense(&block.conv_f, c, e, e),
        f1: blob.dense(&block.f1, c, m, 16),
        f2: blob.dense(&block.f2, c, m, 16),
        f3: blob.dense(&block.f3, c, m, 16),
        conv4: blob.dense(&block.conv4, e, m, 16),
        g: blob.dense(&block.g, m, c, c),
        dw2_taps: blob.push(&dw2_taps),
        dw2_bias: blob.padded(&block.dwconv2.bias, c),
        cab_0: blob.dense(&block.cab_0, c, r, r),
        cab_2: blob.dense(&block.cab_2, r, c, c),
        attention_1: Map {
            weight: blob.push(&rows(&block.attention_1, c, hidden)),
            bias: blob.padded(&block.attention_1.bias, hidden),
        },
        attention_3: Map {
            weight: blob.push(&rows(&block.attention_3, hidden, c)),
            bias: blob.padded(&block.attention_3.bias, c),
        },
        hidden,
    }
}

fn tail(model: &Model, size: Size, blob: &mut Blob) -> TailWeights {
    let tail = Tail::new(model);
    let outputs = model.sizes.upsampler_channels().next_multiple_of(8);
    let of_all = |part: &dyn Fn(&crate::engine::rewrite::Output) -> &ByPlace<Conv>| -> Vec<Conv> {
        let of_component: Vec<&[Conv]> = tail.outputs.iter().map(|o| part(o).as_flattened()).collect();
        (0..9).map(|place| joined(of_component.iter().map(|convs| &convs[place]))).collect()
    };
    let main = of_all(&|output| &output.main);
    let skip = of_all(&|output| &output.skip);
    let middle = &main[3 * MIDDLE + MIDDLE];
    let by_place: Vec<f32> = main.iter().flat_map(|conv| by_tap(conv, size.c, outputs)).collect();
    let skips: Vec<f32> = skip.iter().flat_map(|conv| transposed(conv, conv.inputs, outputs)).collect();
    let bias = |conv: &Conv| {
        let mut bias = conv.bias.clone();
        bias.resize(outputs, 0.0);
        bias
    };
    TailWeights {
        first_step: tail.first_step.as_ref().map(|conv| blob.dense(conv, size.c, size.c, size.c)),
        main: blob.push(&lanes(middle, size.c, outputs, 8)),
        by_place: blob.push(&by_place),
        skip: blob.push(&skips),
        bias: blob.push(&main.iter().flat_map(bias).collect::<Vec<f32>>()),
        side: middle.side,
        in_channels: model.sizes.in_channels,
        outputs,
        scale: model.sizes.scale,
    }
}

/// Joins convs into one with the outputs of all.
fn joined<'a>(convs: impl Iterator<Item = &'a Conv>) -> Conv {
    let convs: Vec<&Conv> = convs.collect();
    Conv {
        outputs: convs.iter().map(|conv| conv.outputs).sum(),
        weight: convs.iter().flat_map(|conv| &conv.weight).copied().collect(),
        bias: convs.iter().flat_map(|conv| &conv.bias).copied().collect(),
        ..*convs[0]
    }
}

/// The weight, or zero in the padding.
fn weight_of(conv: &Conv, output: usize, input: usize, tap: usize) -> f32 {
    let exists = output < conv.outputs && input < conv.inputs;
    if exists { conv.weight[(output * conv.inputs + input) * conv.side * conv.side + tap] } else { 0.0 }
}

/// [outputs / piece, taps, inputs / 16, piece / 8, lane, 2] of pairs of f16: of eight inputs by eight outputs a lane
/// holds two inputs of one output.
fn lanes(conv: &Conv, inputs: usize, outputs: usize, piece: usize) -> Vec<u32> {
    let (taps, steps, eights) = (conv.side * conv.side, inputs.div_ceil(16), piece / 8);
    let word = |mut i: usize| {
        let mut next = |len: usize| {
            let index = i % len;
            i /= len;
            index
        };
        let (half, lane, eight, step, tap) = (next(2), next(32), next(eights), next(steps), next(taps));
        let output = i * piece + eight * 8 + lane / 4;
        let input = step * 16 + half * 8 + lane % 4 * 2;
        let bits = |input| u32::from(f16::from_f32(weight_of(conv, output, input, tap)).to_bits());
        bits(input) | bits(input + 1) << 16
    };
    let words: Vec<u32> = (0..outputs / piece * taps * steps * eights * 64).map(word).collect();
    assert_eq!(words.len() * 4, dense_len(inputs, outputs, taps));
    words
}

/// [inputs, taps, outputs].
fn transposed(conv: &Conv, inputs: usize, outputs: usize) -> Vec<f32> {
    let taps = conv.side * conv.side;
    let at = |i: usize| weight_of(conv, i % outputs, i / outputs / taps, i / outputs % taps);
    (0..inputs * taps * outputs).map(at).collect()
}

/// [taps, inputs, outputs].
fn by_tap(conv: &Conv, inputs: usize, outputs: usize) -> Vec<f32> {
    let taps = conv.side * conv.side;
    let at = |i: usize| weight_of(conv, i % outputs, i / outputs % inputs, i / outputs / inputs);
    (0..taps * inputs * outputs).map(at).collect()
}

/// [7, 7, C].
fn depthwise(conv: &Conv, channels: usize) -> Vec<f32> {
    (0..49 * channels).map(|i| weight_of(conv, i % channels, 0, i / channels)).collect()
}

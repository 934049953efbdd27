//! The rewritten weights of a network in the layout of the loops.

use hasn_kernels::weights::{Dense, Depthwise, Gate, Packing};

use super::calibration::{BlockFactors, Calibration};
use super::pack::{Factors, pack_dense, pack_depthwise};
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
    pub(super) factors: BlockFactors,
}

impl Block {
    fn new(weights: &BlockWeights, packing: Packing, factors: BlockFactors) -> Block {
        let block = rewrite::Block::new(weights);
        let BlockFactors { n, c1, attention, gated, g, u, t, cab_0, .. } = factors;
        let dense =
            |conv: &Conv, input: f32, output: f32| pack_dense(conv, packing, Factors::new(input, output));
        let f = [(&block.f1, 1.0), (&block.f2, gated), (&block.f3, gated)];
        // A word of the output of `g` holds two rows.
        let of_rows = if packing.channels == 2 { packing.waiting() } else { packing };
        let gate = Gate {
            f: Dense::three(
                f.map(|(conv, output)| pack_dense(conv, packing.of_three(), Factors::new(n, output))),
            ),
            conv_f: dense(&block.conv_f, n, attention),
            conv4: dense(&block.conv4, attention, 1.0),
            g: pack_dense(&block.g, of_rows, Factors::new(gated, g)),
        };
        let unscaled = vec![1.0; block.dwconv2.outputs];
        Block {
            dwconv2: pack_depthwise(&block.dwconv2, packing, &unscaled, Factors::new(g, u)),
            dwconv: block.dwconv,
            conv1: dense(&block.conv1, n, c1),
            conv2: dense(&block.conv2, c1, 1.0),
            // Its output is added to the output of `conv_f`.
            conv3: pack_dense(&block.conv3, packing.exact(), Factors::new(1.0, attention)),
            gate,
            cab_0: pack_dense(&block.cab_0, packing, Factors { peak: cab_0, ..Factors::new(u, 1.0) }),
            cab_2: dense(&block.cab_2, t, 1.0),
            attention_1: block.attention_1,
            attention_3: block.attention_3,
            factors,
        }
    }
}

/// The complete network.
#[derive(Debug)]
pub(super) struct Packed {
    pub(super) conv_1: Dense,
    pub(super) blocks: Vec<Block>,
    pub(super) tail: Tail,
    /// Quantization factor of the trunk, for the tail.
    pub(super) trunk: f32,
}

impl Packed {
    pub(super) fn new(model: &Model, packing: Packing) -> Packed {
        let calibration =
            if packing.int16 { Calibration::of(model) } else { Calibration::ones(&model.sizes) };
        let blocks = model.blocks.iter().zip(&calibration.blocks);
        Packed {
            conv_1: pack_dense(&model.conv_1, packing.exact(), Factors::ONE),
            blocks: blocks.map(|(block, factors)| Block::new(block, packing, *factors)).collect(),
            tail: Tail::new(model, packing, &calibration),
            trunk: calibration.trunk,
        }
    }
}

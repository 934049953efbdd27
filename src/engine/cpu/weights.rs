//! The rewritten weights of a network as the loops read them.

use hasn_kernels::weights::{Dense, Depthwise, Gate, Packing};

use super::codes::{BlockCodes, Codes};
use super::pack::{pack_dense, pack_depthwise};
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

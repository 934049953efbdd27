//! A network as data: its sizes, and its weights by layer.
//!
//! It must not know where they come from or how an engine packs them.

/// The sizes of a network. Channel counts are what matters: the ratios that a file's metadata states are
/// checked against them and dropped, for a count has one meaning and a floored ratio has several.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sizes {
    /// How many times wider and higher the frame becomes.
    pub scale: usize,
    /// 1 for luma, 3 for R'G'B'; as many come out.
    pub in_channels: usize,
    /// C, the width of the trunk.
    pub dim: usize,
    /// B, how many blocks.
    pub blocks: usize,
    /// M, the width of f1, f2 and f3.
    pub mlp_channels: usize,
    /// E, the width of the spatial attention.
    pub esa_channels: usize,
    /// R, the width between the two 3x3 convs that end a block.
    pub cab_channels: usize,
    /// Q, the width between the two maps of the channel attention.
    pub ca_channels: usize,
}

impl Sizes {
    /// Channels of the upsampler's conv: `in_channels` x `scale`².
    pub fn upsampler_channels(&self) -> usize {
        self.in_channels * self.scale * self.scale
    }

    /// Multiply-adds for one LR pixel, as the network is published: no rewrite counts as speed.
    pub fn multiply_adds(&self) -> usize {
        let Sizes { dim, mlp_channels, esa_channels, cab_channels, .. } = *self;
        let esa = mlp_channels * esa_channels * 2 + 13 * esa_channels * esa_channels / 4;
        let block = 2 * 49 * dim + 4 * dim * mlp_channels + esa + 2 * 9 * dim * cab_channels;
        9 * self.in_channels * dim + self.blocks * block + 9 * dim * dim + 9 * dim * self.upsampler_channels()
    }

    /// Weights and biases of the whole network.
    pub fn parameters(&self) -> usize {
        let Sizes { dim, mlp_channels, esa_channels, cab_channels, ca_channels, .. } = *self;
        let conv = |outputs: usize, inputs: usize, side: usize| outputs * (inputs * side * side + 1);
        let block = 2 * conv(dim, 1, 7)
            + 2 * dim
            + 3 * conv(mlp_channels, dim, 1)
            + conv(dim, mlp_channels, 1)
            + conv(esa_channels, mlp_channels, 1)
            + 2 * conv(esa_channels, esa_channels, 3)
            + conv(esa_channels, esa_channels, 1)
            + conv(mlp_channels, esa_channels, 1)
            + conv(cab_channels, dim, 3)
            + conv(dim, cab_channels, 3)
            + conv(ca_channels, dim, 1)
            + conv(dim, ca_channels, 1);
        conv(dim, self.in_channels, 3)
            + self.blocks * block
            + conv(dim, dim, 3)
            + conv(self.upsampler_channels(), dim, 3)
    }
}

/// A convolution. `weight: [outputs, inputs, side, side]`, `bias: [outputs]`. A depthwise one has
/// `inputs` 1, as its tensor has.
#[derive(Clone, Debug)]
pub struct Conv {
    /// Channels that come out.
    pub outputs: usize,
    /// Channels that each output reads.
    pub inputs: usize,
    /// Width and height of the taps.
    pub side: usize,
    /// [outputs, inputs, side, side].
    pub weight: Vec<f32>,
    /// `[outputs]`.
    pub bias: Vec<f32>,
}

/// The affine of a layer norm over channels.
#[derive(Clone, Debug)]
pub struct LayerNorm {
    /// `[C]`.
    pub weight: Vec<f32>,
    /// `[C]`.
    pub bias: Vec<f32>,
}

/// The spatial attention of a block.
#[derive(Clone, Debug)]
pub struct EsaWeights {
    /// 1x1, M -> E.
    pub conv1: Conv,
    /// 3x3 by steps of 2 without padding, E -> E.
    pub conv2: Conv,
    /// 3x3, E -> E, on the pooled grid.
    pub conv3: Conv,
    /// 1x1, E -> M.
    pub conv4: Conv,
    /// 1x1, E -> E.
    pub conv_f: Conv,
}

/// The end of a block: two 3x3 convs and the channel attention, named by their place in the checkpoint.
#[derive(Clone, Debug)]
pub struct CabWeights {
    /// `cab.0`: 3x3, C -> R.
    pub conv_0: Conv,
    /// `cab.2`: 3x3, R -> C.
    pub conv_2: Conv,
    /// `cab.3.attention.1`: 1x1, C -> Q.
    pub attention_1: Conv,
    /// `cab.3.attention.3`: 1x1, Q -> C.
    pub attention_3: Conv,
}

/// One block.
#[derive(Clone, Debug)]
pub struct BlockWeights {
    /// Depthwise 7x7.
    pub dwconv: Conv,
    /// Over C.
    pub ln: LayerNorm,
    /// 1x1, C -> M.
    pub f1: Conv,
    /// 1x1, C -> M.
    pub f2: Conv,
    /// 1x1, C -> M.
    pub f3: Conv,
    /// The spatial attention.
    pub esa: EsaWeights,
    /// 1x1, M -> C.
    pub g: Conv,
    /// Depthwise 7x7.
    pub dwconv2: Conv,
    /// The end of the block.
    pub cab: CabWeights,
}

/// A network: where it is from, its sizes and its weights.
#[derive(Clone, Debug)]
pub struct Model {
    /// From the metadata, else the file's name without its extension.
    pub name: String,
    /// When, on what and for how long it was trained, as its file says; empty if it does not.
    pub trained: String,
    /// Of the weights, as their file says; empty if it does not.
    pub license: String,
    /// All sizes.
    pub sizes: Sizes,
    /// 3x3, in -> C.
    pub conv_1: Conv,
    /// In the order they run.
    pub blocks: Vec<BlockWeights>,
    /// 3x3, C -> C.
    pub conv_2: Conv,
    /// 3x3, C -> in·scale².
    pub upsampler: Conv,
}

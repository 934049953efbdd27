//! A network as data: its sizes, and its weights by layer.
//!
//! It must not know where the weights come from or how an engine packs them.

/// The sizes of a network, as channel counts. The ratios in a file's metadata are checked against them and dropped,
/// because a rounded ratio stands for several counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sizes {
    /// Scale factor of width and height.
    pub scale: usize,
    /// Channels of input and output: 1 for luma, 3 for R'G'B'.
    pub in_channels: usize,
    /// C, the width of the trunk.
    pub dim: usize,
    /// B, the number of blocks.
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
    /// Output channels of the upsampler's conv: `in_channels` x `scale`².
    pub fn upsampler_channels(&self) -> usize {
        self.in_channels * self.scale * self.scale
    }

    /// Multiply-adds per LR pixel, of the network as published, without rewrites.
    pub fn multiply_adds(&self) -> usize {
        let Sizes { dim, mlp_channels, esa_channels, cab_channels, .. } = *self;
        let esa = mlp_channels * esa_channels * 2 + 13 * esa_channels * esa_channels / 4;
        let block = 2 * 49 * dim + 4 * dim * mlp_channels + esa + 2 * 9 * dim * cab_channels;
        9 * self.in_channels * dim + self.blocks * block + 9 * dim * dim + 9 * dim * self.upsampler_channels()
    }

    /// Number of weights and biases.
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

/// A convolution. A depthwise one has `inputs` 1, as its tensor has.
#[derive(Clone, Debug)]
pub(crate) struct Conv {
    /// Output channels.
    pub(crate) outputs: usize,
    /// Input channels of each output.
    pub(crate) inputs: usize,
    /// Width and height of the kernel.
    pub(crate) side: usize,
    /// [outputs, inputs, side, side].
    pub(crate) weight: Vec<f32>,
    /// `[outputs]`.
    pub(crate) bias: Vec<f32>,
}

/// The affine of a layer norm over channels.
#[derive(Clone, Debug)]
pub(crate) struct LayerNorm {
    /// `[C]`.
    pub(crate) weight: Vec<f32>,
    /// `[C]`.
    pub(crate) bias: Vec<f32>,
}

/// The spatial attention of a block.
#[derive(Clone, Debug)]
pub(crate) struct EsaWeights {
    /// 1x1, M -> E.
    pub(crate) conv1: Conv,
    /// 3x3, stride 2, without padding, E -> E.
    pub(crate) conv2: Conv,
    /// 3x3, E -> E, on the pooled grid.
    pub(crate) conv3: Conv,
    /// 1x1, E -> M.
    pub(crate) conv4: Conv,
    /// 1x1, E -> E.
    pub(crate) conv_f: Conv,
}

/// The end of a block: two 3x3 convs and the channel attention, named after their index in the checkpoint.
#[derive(Clone, Debug)]
pub(crate) struct CabWeights {
    /// `cab.0`: 3x3, C -> R.
    pub(crate) conv_0: Conv,
    /// `cab.2`: 3x3, R -> C.
    pub(crate) conv_2: Conv,
    /// `cab.3.attention.1`: 1x1, C -> Q.
    pub(crate) attention_1: Conv,
    /// `cab.3.attention.3`: 1x1, Q -> C.
    pub(crate) attention_3: Conv,
}

/// One block.
#[derive(Clone, Debug)]
pub(crate) struct BlockWeights {
    /// Depthwise 7x7.
    pub(crate) dwconv: Conv,
    /// Over C.
    pub(crate) ln: LayerNorm,
    /// 1x1, C -> M.
    pub(crate) f1: Conv,
    /// 1x1, C -> M.
    pub(crate) f2: Conv,
    /// 1x1, C -> M.
    pub(crate) f3: Conv,
    /// The spatial attention.
    pub(crate) esa: EsaWeights,
    /// 1x1, M -> C.
    pub(crate) g: Conv,
    /// Depthwise 7x7.
    pub(crate) dwconv2: Conv,
    /// The end of the block.
    pub(crate) cab: CabWeights,
}

/// A network: its origin, sizes and weights.
#[derive(Clone, Debug)]
pub struct Model {
    /// Name in the metadata, or the file's name without its extension.
    pub name: String,
    /// Date, data and length of the training, from the metadata; may be empty.
    pub trained: String,
    /// License of the weights, from the metadata; may be empty.
    pub license: String,
    /// Sizes of all layers.
    pub sizes: Sizes,
    /// 3x3, in -> C.
    pub(crate) conv_1: Conv,
    /// In the order of execution.
    pub(crate) blocks: Vec<BlockWeights>,
    /// 3x3, C -> C.
    pub(crate) conv_2: Conv,
    /// 3x3, C -> in·scale².
    pub(crate) upsampler: Conv,
}

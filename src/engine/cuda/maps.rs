//! Device memory: parts of it, the network's maps and weights, and the sizes they are padded to.
//!
//! In: sizes of a network and of a frame. Out: size and place of each tensor. It launches nothing.

/// Bytes of an f16.
pub(super) const F16: usize = 2;
/// Bytes of an f32.
pub(super) const F32: usize = 4;

/// A part of the device's memory. The owner of the buffer keeps it until the launches are done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Part {
    pub(super) address: u64,
    pub(super) len: usize,
}

impl Part {
    /// The part of `len` bytes from byte `offset` on.
    pub(super) fn at(self, offset: usize, len: usize) -> Part {
        assert!(offset + len <= self.len, "{len} bytes at {offset} of {}", self.len);
        Part { address: self.address + offset as u64, len }
    }

    /// Returns the address, and asserts that `count` elements of `bytes` bytes fit.
    pub(super) fn holds(self, count: usize, bytes: usize) -> u64 {
        assert!(count * bytes <= self.len, "{count} of {bytes} bytes in {}", self.len);
        self.address
    }
}

/// A size that the kernels are compiled for; see `common.cuh`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Size {
    /// Index into the names of a kernel.
    pub(super) index: usize,
    /// C of the trunk.
    pub(super) c: usize,
    /// M of the three maps.
    pub(super) m: usize,
    /// E of the spatial attention.
    pub(super) e: usize,
    /// R between the 3x3 convs.
    pub(super) r: usize,
    /// Rows of a tile.
    pub(super) rows: usize,
}

/// All sizes, smallest first.
pub(super) const SIZES: [Size; 3] = [
    Size { index: 0, c: 16, m: 32, e: 8, r: 8, rows: 16 },
    Size { index: 1, c: 56, m: 160, e: 16, r: 24, rows: 16 },
    Size { index: 2, c: 64, m: 256, e: 32, r: 64, rows: 8 },
];

/// The tensors of a frame in device memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Maps {
    pub(super) width: usize,
    pub(super) height: usize,
    /// [H, W, C].
    pub(super) trunk: Part,
    /// [H, W, C]: the normalised tensor, then the gate's output in its place.
    pub(super) n: Part,
    /// [H, W, C]: the next trunk.
    pub(super) next: Part,
    /// [H, W, E].
    pub(super) c1: Part,
    /// [H3, W3, E].
    pub(super) pooled: Part,
    /// [H3, W3, E].
    pub(super) grid: Part,
    /// [tiles, C] f32.
    pub(super) sums: Part,
    /// [tiles / 256, C] f32.
    pub(super) partial_sums: Part,
    /// [C] f32: the channel attention of the last block.
    pub(super) scale: Part,
}

/// Number of tensors of [`Maps`].
pub(super) const MAPS: usize = 9;

impl Maps {
    pub(super) fn new(width: usize, height: usize, parts: [Part; MAPS]) -> Maps {
        let [trunk, n, next, c1, pooled, grid, sums, partial_sums, scale] = parts;
        Maps { width, height, trunk, n, next, c1, pooled, grid, sums, partial_sums, scale }
    }

    /// The tensors after a block: the next trunk becomes the trunk.
    pub(super) fn swapped(self) -> Maps {
        Maps { trunk: self.next, next: self.trunk, ..self }
    }

    /// The size of each tensor in bytes.
    pub(super) fn lens(width: usize, height: usize, size: Size) -> [usize; MAPS] {
        let Size { c, e, .. } = size;
        let (pixels, tiles) = (width * height, tiles(width, height, size));
        let pixels3 = grid_len(width) * grid_len(height);
        let trunk = pixels * c * F16;
        let grid = pixels3 * e * F16;
        let partials = tiles.div_ceil(SUMMED);
        [trunk, trunk, trunk, pixels * e * F16, grid, grid, tiles * c * F32, partials * c * F32, c * F32]
    }

    /// (width, height) of ESA's grid.
    pub(super) fn grid_size(&self) -> (usize, usize) {
        (grid_len(self.width), grid_len(self.height))
    }
}

fn grid_len(len: usize) -> usize {
    ((len - 1) / 2 - 7) / 3 + 1
}

/// Rows of sums that a thread block of `reduce` adds up.
pub(super) const SUMMED: usize = 256;

/// Thread blocks of `cab`, each of which writes a row of sums.
pub(super) fn tiles(width: usize, height: usize, size: Size) -> usize {
    width.div_ceil(16) * height.div_ceil(size.rows)
}

/// Rounds up to the alignment of every address that a kernel may read in large words.
pub(super) fn aligned(offset: usize) -> usize {
    offset.next_multiple_of(256)
}

/// The weights of a dense map.
#[derive(Clone, Copy, Debug)]
pub(super) struct Map {
    pub(super) weight: Part,
    pub(super) bias: Part,
}

impl Map {
    /// The address of the weights from `inputs` to `outputs` channels, in the order of lanes.
    pub(super) fn weights(&self, inputs: usize, outputs: usize, taps: usize) -> u64 {
        self.weight.holds(dense_len(inputs, outputs, taps), 1)
    }

    pub(super) fn biases(&self, outputs: usize) -> u64 {
        self.bias.holds(outputs, F32)
    }
}

/// The weights of one block.
#[derive(Clone, Copy, Debug)]
pub(super) struct BlockWeights {
    pub(super) dw_taps: Part,
    pub(super) dw_bias: Part,
    pub(super) conv1: Map,
    pub(super) conv2: Map,
    pub(super) conv3: Map,
    pub(super) conv_f: Map,
    pub(super) f1: Map,
    pub(super) f2: Map,
    pub(super) f3: Map,
    pub(super) conv4: Map,
    pub(super) g: Map,
    pub(super) dw2_taps: Part,
    pub(super) dw2_bias: Part,
    pub(super) cab_0: Map,
    pub(super) cab_2: Map,
    pub(super) attention_1: Map,
    pub(super) attention_3: Map,
    /// Q.
    pub(super) hidden: usize,
}

/// The weights of the tail, after the last block.
#[derive(Clone, Copy, Debug)]
pub(super) struct TailWeights {
    /// `conv_2`, in a tail of two steps.
    pub(super) first_step: Option<Map>,
    /// `[outputs / 8]` of a conv to eight outputs.
    pub(super) main: Part,
    /// [places, side, side, C, outputs] f32.
    pub(super) by_place: Part,
    /// [places, in, 5, 5, outputs] f32.
    pub(super) skip: Part,
    /// [places, outputs] f32.
    pub(super) bias: Part,
    pub(super) side: usize,
    pub(super) in_channels: usize,
    /// A multiple of 8.
    pub(super) outputs: usize,
    pub(super) scale: usize,
}

/// Bytes of a dense map's weights: [taps, steps, outputs / 8, lane] of two words.
pub(super) fn dense_len(inputs: usize, outputs: usize, taps: usize) -> usize {
    taps * inputs.div_ceil(16) * (outputs / 8) * 32 * 8
}

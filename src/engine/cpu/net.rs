//! The stages of a picture through the network, what they read and write, and their order.
//!
//! The trunk `z` is the one tensor that is kept whole, in f32 and in place (and once more in pairs of rows, where the
//! depthwise convs read words of two); all others are rings of the few rows that are alive while a wave of tasks (see
//! `graph`) goes down the picture:
//!
//! | stage | makes | of |
//! |---|---|---|
//! | pairs | in bf16 and int16, rows of z in pairs for dwconv | 2 rows of z |
//! | norm | n = LN(dwconv(z)), c1 = conv1(n) | 7 rows of z |
//! | conv2, pool, conv3 | ESA's grid | some 27 rows of c1 |
//! | gate | g(gate(n)) | a row of n, two of the grid |
//! | add | u = scale · z + dwconv2(g) | 7 rows of g, a row of z |
//! | cab0 | t = gelu(cab.0(u)) | 3 rows of u |
//! | cab2 | z = cab.2(t), and the sum of every row | 3 rows of t |
//!
//! The channel attention's scale is no stage: dwconv's weights, the skip and the tail's weights are multiplied by
//! it for this picture. It is where a block must end before the next begins. Sums are made row by row and added in
//! the order of rows, so that the result does not depend on the number of threads.

use std::ops::Range;

use hasn_kernels::depthwise::{PAIRS_READ, ROWS, ROWS_READ, norm_tile_len};
use hasn_kernels::esa::Grid;
use hasn_kernels::layout::MARGIN;
use hasn_kernels::weights::{Dense, Depthwise};
use hasn_kernels::{Kernels, Level, Precision, gate};

use super::graph::Graph;
use super::layout::{Ring, Shared};
use super::pack::{Block, Packed, pack_depthwise};
use super::tail::{MIDDLE, PLACES, Tail};
use super::tensors::*;
use crate::engine::forward::{Forward, SIDE_MIN};
use crate::model::{Conv, Model, Sizes};

/// What a stage took, for measurements.
#[derive(Clone, Debug)]
pub struct StageTime {
    /// Of the stage.
    pub name: &'static str,
    /// Summed over threads.
    pub seconds: f64,
    /// Multiplications and additions of its convs, in one picture.
    pub flop: f64,
}

/// A network packed for one CPU level, one precision, one size of picture and a number of threads.
pub struct Net {
    sizes: Sizes,
    weights: Packed,
    kernels: &'static Kernels,
    shape: Shape,
    enter: Graph,
    block: Graph,
    leave: Graph,
    /// Each thread's own scratch.
    workers: Vec<Vec<f32>>,
    /// What lies above and below every tensor.
    zeros: Vec<f32>,
}

impl Net {
    /// `threads` above 0, `size`: (width, height), both at least [`SIDE_MIN`].
    pub fn new(
        model: &Model,
        level: Level,
        precision: Precision,
        size: (usize, usize),
        threads: usize,
    ) -> Net {
        let (width, height) = size;
        assert!(height >= SIDE_MIN && width >= SIDE_MIN, "{width}x{height} is too small");
        let kernels = level.kernels(precision);
        let sizes = model.sizes;
        let weights = Packed::new(model, kernels.packing);
        let shape = Shape::new(&sizes, kernels.packing, height, width);
        let zeros = vec![0.0; shape.row_len.iter().copied().max().expect("tensors") + MARGIN];
        let rows = shape.rows_of_word;
        let worker_len = norm_tile_len(sizes.dim)
            .max(shape.grid.stride2)
            .max(rows * shape.row_len[GRID] + gate::scratch_len(&weights.blocks[0].gate, rows));
        Net {
            enter: enter_graph(&shape, threads),
            block: block_graph(&shape, threads),
            leave: leave_graph(&shape, threads, weights.tail.first_step.is_some()),
            workers: vec![vec![0.0; worker_len + MARGIN]; threads],
            sizes,
            weights,
            kernels,
            shape,
            zeros,
        }
    }

    /// What the stages took since the last call.
    pub fn take_stage_times(&mut self) -> Vec<StageTime> {
        let Sizes { dim, mlp_channels, esa_channels, cab_channels, in_channels, .. } = self.sizes;
        let outputs = self.sizes.upsampler_channels();
        let blocks = self.sizes.blocks as f64;
        let trunk = match self.weights.tail.first_step {
            Some(_) => 9 * dim * (dim + outputs),
            None => 25 * dim * outputs,
        };
        let per_pixel = |name: &str| match name {
            "enter" => (9 * in_channels * dim) as f64,
            "norm" => blocks * (dim * (49 + esa_channels)) as f64,
            "conv2" => blocks * (9 * esa_channels * esa_channels) as f64 / 4.0,
            "conv3" => blocks * (9 * esa_channels * esa_channels) as f64 / 36.0,
            "gate" => blocks * (dim * (4 * mlp_channels + esa_channels) + esa_channels * mlp_channels) as f64,
            "add" => blocks * (dim * 49) as f64,
            "cab0" | "cab2" => blocks * (9 * dim * cab_channels) as f64,
            "leave" => (trunk + 25 * in_channels * outputs) as f64,
            _ => 0.0,
        };
        let pixels = (self.shape.height * self.shape.span.width) as f64;
        let Net { enter, block, leave, .. } = self;
        enter
            .take_times()
            .chain(block.take_times())
            .chain(leave.take_times())
            .map(|(name, seconds)| StageTime { name, seconds, flop: 2.0 * pixels * per_pixel(name) })
            .collect()
    }
}

impl std::fmt::Debug for Net {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Net").field("sizes", &self.sizes).field("shape", &self.shape).finish_non_exhaustive()
    }
}

impl Forward for Net {
    fn scratch_len(&self) -> usize {
        let rings = |graph: &Graph| self.shape.rings(graph).iter().map(|ring| ring.len()).sum::<usize>();
        let sums = (self.shape.height * self.sizes.dim).next_multiple_of(MARGIN);
        // Tensors begin on a cache line, wherever the scratch does.
        self.shape.kept_len() + sums + rings(&self.block).max(rings(&self.leave)) + MARGIN
    }

    fn forward(&mut self, x: &[f32], y: &mut [f32], scratch: &mut [f32]) {
        let Shape { height, span, .. } = self.shape;
        assert_eq!(x.len(), self.sizes.in_channels * height * span.width, "x is [in, H, W]");
        assert_eq!(y.len(), self.sizes.upsampler_channels() * height * span.width, "y is [in, sH, sW]");
        let scratch = aligned(scratch);
        let (kept, rest) = scratch.split_at_mut(self.shape.kept_len());
        let (sums, rings) = rest.split_at_mut((height * self.sizes.dim).next_multiple_of(MARGIN));
        let Net { sizes, weights, kernels, shape, enter, block, leave, workers, zeros } = self;
        let common = Common { kernels, shape, zeros };

        let tensors = shape.tensors(enter, kept, rings);
        enter.run(workers, |stage, band, _| common.enter(stage, band, &tensors, &weights.conv_1, x));

        let mut scale = vec![1.0; sizes.dim];
        let tensors = shape.tensors(block, kept, rings);
        for weights in &weights.blocks {
            let sums_of_rows = Shared::new(sums, Ring { rows: height, row_len: sizes.dim });
            let dwconv = pack_depthwise(&weights.dwconv, kernels.packing, &scale, (weights.codes.z, 1.0));
            let skip = &times(&scale, weights.codes.u);
            let run = BlockRun { common, tensors: &tensors, weights, dwconv: &dwconv, skip, sums_of_rows };
            block.run(workers, |stage, band, scratch| run.stage(stage, band, aligned(scratch)));
            scale = channel_attention(weights, sums, height, span.width);
        }

        let tensors = shape.tensors(leave, kept, rings);
        let row_len = sizes.scale * sizes.scale * span.width;
        let planes = y.chunks_exact_mut(height * row_len);
        let planes: Vec<_> = planes.map(|plane| Shared::new(plane, Ring { rows: height, row_len })).collect();
        let scale = &times(&scale, weights.trunk);
        let run = LeaveRun { common, tensors: &tensors, tail: &weights.tail, scale, planes: &planes };
        let leave_stage = if weights.tail.first_step.is_some() { 2 } else { 1 };
        leave.run(workers, |stage, band, _| match stage {
            0 => run.words(band),
            _ if stage < leave_stage => run.step(band),
            _ => run.leave(band, sizes.scale),
        });
    }
}

/// From the sums of rows to the scale of each channel.
fn channel_attention(block: &Block, sums: &[f32], height: usize, width: usize) -> Vec<f32> {
    let channels = block.dwconv.outputs;
    let mut all = vec![0.0_f64; channels];
    for row in sums.chunks_exact(channels).take(height) {
        for (all, row) in all.iter_mut().zip(row) {
            *all += f64::from(*row);
        }
    }
    let pixels = (height * width) as f64;
    let mean: Vec<f32> = all.iter().map(|sum| (sum / pixels) as f32).collect();
    let hidden: Vec<f32> = apply(&block.attention_1, &mean).map(|x| x.max(0.0)).collect();
    apply(&block.attention_3, &hidden).map(|x| 1.0 / (1.0 + (-x).exp())).collect()
}

fn times(values: &[f32], factor: f32) -> Vec<f32> {
    values.iter().map(|value| value * factor).collect()
}

/// A 1x1 map of one pixel.
fn apply<'a>(conv: &'a Conv, x: &'a [f32]) -> impl Iterator<Item = f32> + 'a {
    let outputs = conv.weight.chunks_exact(conv.inputs).zip(&conv.bias);
    outputs.map(move |(weights, bias)| weights.iter().zip(x).fold(*bias, |sum, (w, x)| sum + w * x))
}

/// From the next cache line on.
fn aligned(floats: &mut [f32]) -> &mut [f32] {
    let start = floats.as_ptr().align_offset(MARGIN * size_of::<f32>());
    &mut floats[start..]
}

/// What the stages of all graphs share.
#[derive(Clone, Copy)]
struct Common<'a> {
    kernels: &'static Kernels,
    shape: &'a Shape,
    zeros: &'a [f32],
}

impl<'a> Common<'a> {
    /// Rows `y` - `above` on of a tensor of `height` rows; zeros where there are none.
    ///
    /// # Safety
    /// As of [`Shared::row`], for all of them.
    unsafe fn rows<const LEN: usize>(
        &self,
        tensor: Shared,
        y: usize,
        above: usize,
        height: usize,
    ) -> [&'a [f32]; LEN] {
        std::array::from_fn(|i| match (y + i).checked_sub(above) {
            // SAFETY: the caller's.
            Some(y) if y < height => unsafe { tensor.row(y) },
            _ => self.zeros,
        })
    }

    /// What a depthwise conv reads for a band.
    ///
    /// # Safety
    /// As of [`Shared::row`], for the band and three rows on each side of it.
    unsafe fn window(&self, tensor: Shared, band: usize) -> Window<'a> {
        let height = self.shape.height_in_words();
        // SAFETY: the caller's.
        unsafe {
            match self.shape.rows_of_word {
                1 => Window::Rows(self.rows(tensor, ROWS * band, 3, height)),
                _ => Window::Pairs(self.rows(tensor, ROWS / 2 * band, 2, height)),
            }
        }
    }

    /// Takes the picture in and makes the trunk of it.
    fn enter(&self, stage: usize, band: usize, tensors: &[Shared; TENSORS], conv_1: &Dense, x: &[f32]) {
        let Shape { height, span, .. } = *self.shape;
        // SAFETY: `enter_graph` declares these rows.
        unsafe {
            for y in self.shape.band(band) {
                if stage == 0 {
                    let row = tensors[X].row_mut(y);
                    let planes = x.chunks_exact(height * span.width);
                    for (channel, plane) in row.chunks_exact_mut(span.stride).zip(planes) {
                        channel[MARGIN..][..span.width]
                            .copy_from_slice(&plane[y * span.width..][..span.width]);
                    }
                    span.clear_margins(row);
                } else {
                    let row = tensors[Z].row_mut(y);
                    (self.kernels.convolve_exact)(row, &self.rows(tensors[X], y, 1, height), conv_1, span);
                    span.clear_margins(row);
                }
            }
        }
    }
}

/// The rows that a depthwise conv reads, in f32 or in pairs.
enum Window<'a> {
    Rows([&'a [f32]; ROWS_READ]),
    Pairs([&'a [f32]; PAIRS_READ]),
}

impl<'a> std::ops::Deref for Window<'a> {
    type Target = [&'a [f32]];

    fn deref(&self) -> &Self::Target {
        match self {
            Window::Rows(rows) => rows,
            Window::Pairs(pairs) => pairs,
        }
    }
}

/// One block of one picture.
struct BlockRun<'a> {
    common: Common<'a>,
    tensors: &'a [Shared; TENSORS],
    weights: &'a Block,
    /// With the channel attention of the block before.
    dwconv: &'a Depthwise,
    /// What the skip is multiplied by: the same, in codes of the sum.
    skip: &'a [f32],
    sums_of_rows: Shared,
}

impl BlockRun<'_> {
    /// The stages in the order of `block_graph`.
    fn stage(&self, stage: usize, band: usize, scratch: &mut [f32]) {
        // The first one is left out where the depthwise conv reads the trunk itself.
        let left_out = usize::from(self.common.shape.trunk() == Z);
        match stage + left_out {
            0 => self.pairs(band),
            1 => self.norm(band, scratch),
            2 => self.conv2(band),
            3 => self.pool(band, scratch),
            4 => self.conv3(band),
            5 => self.gate(band, scratch),
            6 => self.add(band),
            7 => self.cab0(band),
            _ => self.cab2(band),
        }
    }

    fn pairs(&self, band: usize) {
        let Common { kernels, shape, .. } = self.common;
        for y in shape.in_words(shape.band(band)) {
            // SAFETY: `block_graph` declares these rows.
            unsafe {
                let [low, high] = self.common.rows(self.tensors[Z], 2 * y, 0, shape.height);
                (kernels.pair_rows)(self.tensors[P].row_mut(y), low, high, self.weights.codes.z);
            }
        }
    }

    fn norm(&self, band: usize, tile: &mut [f32]) {
        let Common { kernels, shape, .. } = self.common;
        let rows = shape.band(band);
        // SAFETY: `block_graph` declares these rows.
        unsafe {
            let z = self.common.window(self.tensors[shape.trunk()], band);
            let mut n = self.band_mut(N, rows.clone());
            let mut c1 = self.band_mut(C1, rows.clone());
            let out = (&mut n[..rows.len()], &mut c1[..rows.len()]);
            (kernels.norm)(out, &z, (self.dwconv, &self.weights.conv1), tile, shape.span);
        }
    }

    fn conv2(&self, band: usize) {
        let Common { kernels, shape, .. } = self.common;
        for y in 2 * band..(2 * band + 2).min(shape.grid.height2) {
            // SAFETY: `block_graph` declares these rows.
            unsafe {
                let c1 = self.common.rows(self.tensors[C1], 2 * y, 0, shape.height);
                (kernels.conv2)(self.tensors[C2].row_mut(y), &c1, &self.weights.conv2, shape.grid.stride2);
            }
        }
    }

    fn pool(&self, y: usize, highest: &mut [f32]) {
        let Common { kernels, shape, .. } = self.common;
        let Grid { height2, stride2, span3, .. } = shape.grid;
        // SAFETY: `block_graph` declares these rows.
        unsafe {
            let c2 = self.common.rows(self.tensors[C2], 3 * y, 0, height2);
            (kernels.pool)(self.tensors[POOLED].row_mut(y), &c2, stride2, highest, span3);
        }
    }

    fn conv3(&self, y: usize) {
        let Common { kernels, shape, .. } = self.common;
        let Grid { height3, span3, .. } = shape.grid;
        // SAFETY: `block_graph` declares these rows.
        unsafe {
            let pooled = self.common.rows(self.tensors[POOLED], y, 1, height3);
            (kernels.convolve_exact)(self.tensors[GRID].row_mut(y), &pooled, &self.weights.conv3, span3);
        }
    }

    fn gate(&self, band: usize, scratch: &mut [f32]) {
        let Common { kernels, shape, .. } = self.common;
        let Grid { height3, span3, .. } = shape.grid;
        let rows = shape.rows_of_word;
        let (coarse, scratch) = scratch.split_at_mut(rows * shape.row_len[GRID]);
        for word in shape.in_words(shape.band(band)) {
            let rows = rows * word..(rows * word + rows).min(shape.height);
            let coarse = &mut coarse[..rows.len() * shape.row_len[GRID]];
            // SAFETY: `block_graph` declares these rows.
            unsafe {
                for (y, coarse) in rows.clone().zip(coarse.chunks_exact_mut(shape.row_len[GRID])) {
                    let grid = shape.rows.pair(y, height3).map(|row| self.tensors[GRID].row(row));
                    (kernels.between_rows)(coarse, grid, shape.rows.fraction[y], span3);
                }
                let n: [_; 2] = self.common.rows(self.tensors[N], rows.start, 0, rows.end);
                let coarse = (&*coarse, span3, &shape.columns);
                let g = self.tensors[G].row_mut(word);
                (kernels.gate)(g, &n[..rows.len()], &self.weights.gate, coarse, scratch, shape.span);
            }
        }
    }

    fn add(&self, band: usize) {
        let Common { kernels, shape, .. } = self.common;
        let rows = shape.band(band);
        // SAFETY: `block_graph` declares these rows.
        unsafe {
            let g = self.common.window(self.tensors[G], band);
            let z: [_; ROWS] = self.common.rows(self.tensors[Z], rows.start, 0, shape.height);
            let mut u = self.band_mut(U, rows.clone());
            let (u, z) = (&mut u[..rows.len()], &z[..rows.len()]);
            (kernels.add_skip)(u, &g, &self.weights.dwconv2, z, self.skip, shape.span);
        }
    }

    fn cab0(&self, band: usize) {
        let Common { kernels, shape, .. } = self.common;
        for y in shape.band(band) {
            // SAFETY: `block_graph` declares these rows.
            unsafe {
                let u = self.common.rows(self.tensors[U], y, 1, shape.height);
                let (t, Block { cab_0, codes, .. }) = (self.tensors[T].row_mut(y), self.weights);
                (kernels.convolve_gelu)(t, &u, cab_0, codes.t, shape.span);
            }
        }
    }

    fn cab2(&self, band: usize) {
        let Common { kernels, shape, .. } = self.common;
        for y in shape.band(band) {
            // SAFETY: `block_graph` declares these rows, and the sums of a row belong to its task.
            unsafe {
                let t = self.common.rows(self.tensors[T], y, 1, shape.height);
                let (z, sums) = (self.tensors[Z].row_mut(y), self.sums_of_rows.row_mut(y));
                (kernels.convolve_sum)(z, &t, &self.weights.cab_2, shape.span, sums);
            }
        }
    }

    /// Up to [`ROWS`] rows to write.
    ///
    /// # Safety
    /// As of [`Shared::row_mut`].
    unsafe fn band_mut<'b>(&self, tensor: usize, rows: Range<usize>) -> [&'b mut [f32]; ROWS] {
        std::array::from_fn(|i| match rows.start + i {
            // SAFETY: the caller's.
            y if y < rows.end => unsafe { self.tensors[tensor].row_mut(y) },
            _ => Default::default(),
        })
    }
}

/// The end of one picture.
struct LeaveRun<'a> {
    common: Common<'a>,
    tensors: &'a [Shared; TENSORS],
    tail: &'a Tail,
    /// The channel attention of the last block, in codes of the trunk.
    scale: &'a [f32],
    /// Of the larger picture; a row of them is made of one row of the trunk.
    planes: &'a [Shared],
}

impl LeaveRun<'_> {
    fn words(&self, band: usize) {
        let Common { kernels, shape, .. } = self.common;
        for y in shape.band(band) {
            // SAFETY: `leave_graph` declares these rows.
            unsafe {
                let (w, z) = (self.tensors[W].row_mut(y), self.tensors[Z].row(y));
                (kernels.scale_row)(w, z, self.scale, shape.span);
            }
        }
    }

    fn step(&self, band: usize) {
        let Common { kernels, shape, .. } = self.common;
        let conv_2 = self.tail.first_step.as_ref().expect("two steps have a first");
        for y in shape.band(band) {
            // SAFETY: `leave_graph` declares these rows.
            unsafe {
                let w = self.common.rows(self.tensors[W], y, 1, shape.height);
                (kernels.convolve)(self.tensors[V].row_mut(y), &w, conv_2, shape.span);
            }
        }
    }

    fn leave(&self, band: usize, scale: usize) {
        let Common { kernels, shape, .. } = self.common;
        let Shape { height, span, .. } = *shape;
        let last = if self.tail.first_step.is_some() { V } else { W };
        for y in shape.band(band) {
            let place = match y {
                0 => 0,
                _ if y + 1 == height => PLACES - 1,
                _ => MIDDLE,
            };
            for (plane, maps) in self.planes.iter().zip(&self.tail.outputs) {
                // SAFETY: `leave_graph` declares these rows, and a row of the plane belongs to its task.
                unsafe {
                    let rows = self.common.rows(self.tensors[last], y, 2, height);
                    let x = self.common.rows(self.tensors[X], y, 2, height);
                    let (main, skip) = ((&rows, &maps.main[place]), (&x, &maps.skip[place]));
                    (kernels.leave)(plane.row_mut(y), main, skip, span, scale);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::catalogue;

    /// Bits of the larger picture, with the tasks in the order that they have.
    fn bits(net: &mut Net) -> Vec<u32> {
        let (height, width) = (net.shape.height, net.shape.span.width);
        let x: Vec<f32> = (0..height * width).map(|i| (i * 7919 % 256) as f32 / 255.0).collect();
        let mut y = vec![f32::NAN; net.sizes.upsampler_channels() * x.len()];
        let mut scratch = vec![f32::NAN; net.scratch_len()];
        net.forward(&x, &mut y, &mut scratch);
        y.into_iter().map(f32::to_bits).collect()
    }

    /// What a stage touches without saying so is not there yet, or no longer, in some legal order.
    #[test]
    fn every_legal_order_of_the_tasks_gives_the_same_bits() {
        let merged = catalogue::open("hasn-lite-x2").unwrap();
        let mut two_steps = merged.clone();
        two_steps.upsampler = Conv {
            outputs: 16,
            weight: two_steps.upsampler.weight.repeat(4),
            bias: two_steps.upsampler.bias.repeat(4),
            ..two_steps.upsampler
        };
        two_steps.sizes.scale = 4;
        let level = *Level::available().last().unwrap();
        for model in [merged, two_steps] {
            for precision in level.precisions() {
                // High enough for every ring to go round, and no whole number of bands.
                let mut net = Net::new(&model, level, precision, (37, 203), 2);
                assert!(net.block.rings[N] < 203 && net.leave.rings[W] < 203, "no ring goes round");
                net.workers.truncate(1);
                let expected = bits(&mut net);
                for seed in 0..20 {
                    for graph in [&mut net.enter, &mut net.block, &mut net.leave] {
                        graph.shuffle(seed);
                    }
                    assert!(
                        bits(&mut net) == expected,
                        "{precision:?}, x{}, order {seed}",
                        model.sizes.scale
                    );
                }
            }
        }
    }
}

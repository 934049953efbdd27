//! A network packed for one CPU, and a frame through its graphs of stages.
//!
//! The channel attention's scale is not a stage: the next dwconv's weights, the skip and the tail's input are multiplied by
//! it for this frame, so a block must end before the next begins. Sums are taken row by row and added in the order of
//! rows, so that the result does not depend on the number of threads.
//!
//! In between, the trunk of the whole frame waits in memory. Without it, the frame runs through a graph of all parts, once
//! for each block to get its mean, and once more to the end: of B blocks B(B+3)/2 run instead of B. The stages compute the
//! same rows of the same values, and memory grows with the width of the frame alone, except for the sums of rows.

use std::sync::{Arc, OnceLock};

use hasn_kernels::depthwise::norm_tile_len;
use hasn_kernels::layout::MARGIN;
use hasn_kernels::weights::Depthwise;
use hasn_kernels::{Kernels, Level, Precision, gate};

use super::graph::Graph;
use super::layout::{Ring, Shared};
use super::pack::{Factors, pack_depthwise};
use super::stages::{BlockRun, Common, LeaveRun};
use super::tensors::*;
use super::weights::{Block, Packed};
use crate::engine::forward::{Forward, OpenPass, SIDE_MIN, Trunk};
use crate::engine::rewrite;
use crate::model::{Conv, Model, Sizes};

/// The time of a stage, for measurements.
#[derive(Clone, Debug)]
pub(crate) struct StageTime {
    /// Name of the stage.
    pub(crate) name: &'static str,
    /// Time, summed over threads.
    pub(crate) seconds: f64,
    /// Multiplications and additions of its convs, in one frame.
    pub(crate) flop: f64,
}

/// A network packed for one CPU level and one precision, which all frames and threads share.
pub(crate) struct Weights {
    sizes: Sizes,
    packed: Packed,
    kernels: &'static Kernels,
    /// The loops of what is f32 in every precision.
    exact: &'static Kernels,
}

impl Weights {
    pub(crate) fn new(model: &Model, level: Level, precision: Precision) -> Arc<Weights> {
        let (kernels, exact) = (level.kernels(precision), level.kernels(Precision::F32));
        let packed = Packed::new(model, kernels.packing);
        Arc::new(Weights { sizes: model.sizes, packed, kernels, exact })
    }
}

/// The passes of a network, which share the weights that the first one packs.
pub(crate) struct Passes {
    model: Arc<Model>,
    level: Level,
    precision: Precision,
    weights: OnceLock<Arc<Weights>>,
}

impl Passes {
    pub(crate) fn new(model: Arc<Model>, level: Level, precision: Precision) -> Passes {
        Passes { model, level, precision, weights: OnceLock::new() }
    }
}

impl OpenPass for Passes {
    fn memory_len(&self, (width, height): (usize, usize), threads: usize, trunk: Trunk) -> Option<usize> {
        let sizes = &self.model.sizes;
        let shape = Shape::new(sizes, self.level.kernels(self.precision).packing, height, width);
        let two_steps = rewrite::Tail::new(&self.model).first_step.is_some();
        Some(Graphs::new(&shape, sizes.blocks, two_steps, threads, trunk).scratch_len(&shape, sizes))
    }

    fn open(&self, size: (usize, usize), threads: usize, trunk: Trunk) -> Box<dyn Forward> {
        let pack = || Weights::new(&self.model, self.level, self.precision);
        Box::new(Net::with_trunk(self.weights.get_or_init(pack).clone(), size, threads, trunk))
    }
}

/// A network for one size of frame and a number of threads.
pub(crate) struct Net {
    weights: Arc<Weights>,
    shape: Shape,
    graphs: Graphs,
    /// Scratch of each thread.
    workers: Vec<Vec<f32>>,
    /// The row above and below every tensor.
    zeros: Vec<f32>,
}

/// The graphs of a frame.
enum Graphs {
    /// In place in the trunk: enter, block, leave.
    Kept(Box<[Graph; 3]>),
    /// Of all parts, without the trunk.
    Recomputed(Graph),
}

impl Graphs {
    fn new(shape: &Shape, blocks: usize, two_steps: bool, threads: usize, trunk: Trunk) -> Graphs {
        match trunk {
            Trunk::Kept => Graphs::Kept(Box::new([
                enter_graph(shape, threads),
                block_graph(shape, threads),
                leave_graph(shape, threads, two_steps),
            ])),
            Trunk::Recomputed => Graphs::Recomputed(graph_of_all(shape, threads, blocks, two_steps)),
        }
    }

    /// The scratch of a frame, in floats.
    fn scratch_len(&self, shape: &Shape, sizes: &Sizes) -> usize {
        match self {
            Graphs::Kept(graphs) => {
                let [_, block, leave] = &**graphs;
                let rings = |graph: &Graph| shape.rings(graph).iter().map(|ring| ring.len()).sum::<usize>();
                shape.kept_len() + sums_len(shape, sizes) + rings(block).max(rings(leave)) + MARGIN
            }
            Graphs::Recomputed(graph) => {
                let sums = sizes.blocks * sums_len(shape, sizes);
                sums + shape.len_of_all(graph, sizes.blocks) + MARGIN
            }
        }
        // Tensors begin on a cache line, whatever the alignment of the scratch: that is the last margin.
    }

    fn all_mut(&mut self) -> Vec<&mut Graph> {
        match self {
            Graphs::Kept(graphs) => graphs.iter_mut().collect(),
            Graphs::Recomputed(graph) => vec![graph],
        }
    }
}

/// Length of the sums of a block's rows, in floats.
fn sums_len(shape: &Shape, sizes: &Sizes) -> usize {
    (shape.height * sizes.dim).next_multiple_of(MARGIN)
}

impl Net {
    /// `threads` above 0, `size`: (width, height), both at least [`SIDE_MIN`].
    pub(crate) fn new(weights: Arc<Weights>, size: (usize, usize), threads: usize) -> Net {
        Net::with_trunk(weights, size, threads, Trunk::Kept)
    }

    /// As [`new`](Net::new), with or without the trunk in memory.
    pub(crate) fn with_trunk(
        weights: Arc<Weights>,
        (width, height): (usize, usize),
        threads: usize,
        trunk: Trunk,
    ) -> Net {
        assert!(height >= SIDE_MIN && width >= SIDE_MIN, "{width}x{height} is too small");
        let Weights { sizes, packed, kernels, .. } = &*weights;
        let shape = Shape::new(sizes, kernels.packing, height, width);
        let zeros = vec![0.0; shape.row_len.iter().copied().max().expect("tensors") + MARGIN];
        let rows = shape.rows_of_word;
        let worker_len = norm_tile_len(sizes.dim)
            .max(shape.grid.stride2)
            .max(rows * shape.row_len[GRID] + gate::scratch_len(&packed.blocks[0].gate, rows));
        Net {
            graphs: Graphs::new(&shape, sizes.blocks, packed.tail.first_step.is_some(), threads, trunk),
            workers: vec![vec![0.0; worker_len + MARGIN]; threads],
            weights,
            shape,
            zeros,
        }
    }

    /// Returns the times of the stages since the last call.
    pub(crate) fn take_stage_times(&mut self) -> Vec<StageTime> {
        let Sizes { dim, mlp_channels, esa_channels, cab_channels, in_channels, .. } = self.weights.sizes;
        let outputs = self.weights.sizes.upsampler_channels();
        let blocks = self.weights.sizes.blocks as f64;
        let trunk = match self.weights.packed.tail.first_step {
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
        let times = self.graphs.all_mut().into_iter().flat_map(Graph::take_times);
        times
            .map(|(name, seconds)| StageTime { name, seconds, flop: 2.0 * pixels * per_pixel(name) })
            .collect()
    }
}

impl std::fmt::Debug for Net {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Net")
            .field("sizes", &self.weights.sizes)
            .field("shape", &self.shape)
            .finish_non_exhaustive()
    }
}

impl Forward for Net {
    fn scratch_len(&self) -> usize {
        self.graphs.scratch_len(&self.shape, &self.weights.sizes)
    }

    fn forward(&mut self, x: &[f32], y: &mut [f32], scratch: &mut [f32]) {
        let Shape { height, span, .. } = self.shape;
        assert_eq!(x.len(), self.weights.sizes.in_channels * height * span.width, "x is [in, H, W]");
        assert_eq!(
            y.len(),
            self.weights.sizes.upsampler_channels() * height * span.width,
            "y is [in, sH, sW]"
        );
        let scratch = aligned(scratch);
        let Net { weights, shape, graphs, workers, zeros } = self;
        let frame = FrameRun { weights, shape, zeros, x };
        match graphs {
            Graphs::Kept(graphs) => frame.run_kept(graphs.each_mut(), workers, scratch, y),
            Graphs::Recomputed(graph) => frame.run_recomputed(graph, workers, scratch, y),
        }
    }
}

/// One frame.
#[derive(Clone, Copy)]
struct FrameRun<'a> {
    weights: &'a Weights,
    shape: &'a Shape,
    zeros: &'a [f32],
    x: &'a [f32],
}

impl<'a> FrameRun<'a> {
    fn common(&self) -> Common<'a> {
        let Weights { kernels, exact, .. } = *self.weights;
        Common { kernels, exact, shape: self.shape, zeros: self.zeros }
    }

    /// Part by part, in place in the trunk.
    fn run_kept(
        &self,
        [enter, block, leave]: [&mut Graph; 3],
        workers: &mut [Vec<f32>],
        scratch: &mut [f32],
        y: &mut [f32],
    ) {
        let FrameRun { weights: Weights { sizes, packed, .. }, shape, x, .. } = *self;
        let common = self.common();
        let (kept, rest) = scratch.split_at_mut(shape.kept_len());
        let (sums, rings) = rest.split_at_mut(sums_len(shape, sizes));

        let tensors = shape.tensors(enter, kept, rings);
        enter.run(workers, |stage, band, _| common.enter(stage, band, &tensors, &packed.conv_1, x));

        let mut scale = vec![1.0; sizes.dim];
        let tensors = shape.tensors(block, kept, rings);
        for weights in &packed.blocks {
            let (dwconv, skip) = self.scaled(weights, &scale);
            let sums_of_rows = Shared::new(sums, Ring::dense(shape.height, sizes.dim));
            let (dwconv, skip, out) = (&dwconv, &skip[..], tensors[Z]);
            let run = BlockRun { common, tensors: &tensors, weights, dwconv, skip, out, sums_of_rows };
            block.run(workers, |stage, band, scratch| run.stage(stage, band, aligned(scratch)));
            scale = channel_attention(weights, sums, shape.height, shape.span.width);
        }

        let tensors = shape.tensors(leave, kept, rings);
        let planes = self.planes(y);
        let scale = &times(&scale, packed.trunk);
        let run = LeaveRun { common, tensors: &tensors, tail: &packed.tail, scale, planes: &planes };
        leave.run(workers, |stage, band, _| run.stage(stage, band, sizes.scale));
    }

    /// Through all parts as far as the means over the frame are known, which gets the next one.
    fn run_recomputed(
        &self,
        graph: &mut Graph,
        workers: &mut [Vec<f32>],
        scratch: &mut [f32],
        y: &mut [f32],
    ) {
        let FrameRun { weights: Weights { sizes, packed, .. }, shape, x, .. } = *self;
        let (common, blocks) = (self.common(), sizes.blocks);
        let (sums, rings) = scratch.split_at_mut(blocks * sums_len(shape, sizes));
        let tensors = shape.tensors_of_all(graph, blocks, rings);
        let places: Vec<_> = (0..=blocks).map(|part| Places::of_part(part, blocks)).collect();
        let parts: Vec<_> = places.iter().map(|places| places.pick(&tensors)).collect();
        let stages = shape.stages_of_block();
        let planes = self.planes(y);

        let mut scale = vec![1.0; sizes.dim];
        let mut scaled = Vec::new();
        for pass in 0..=blocks {
            if let Some(weights) = packed.blocks.get(pass) {
                scaled.push(self.scaled(weights, &scale));
            }
            let sums_of_blocks = sums.chunks_exact_mut(sums_len(shape, sizes));
            let sums_of_blocks =
                sums_of_blocks.map(|sums| Shared::new(sums, Ring::dense(shape.height, sizes.dim)));
            let runs: Vec<_> = (scaled.iter().zip(sums_of_blocks).enumerate())
                .map(|(block, ((dwconv, skip), sums_of_rows))| {
                    let (tensors, out) = (&parts[block], tensors[places[block].out]);
                    BlockRun {
                        common,
                        tensors,
                        weights: &packed.blocks[block],
                        dwconv,
                        skip,
                        out,
                        sums_of_rows,
                    }
                })
                .collect();
            let (tail, scale_of_tail) = (&packed.tail, &times(&scale, packed.trunk)[..]);
            let leave =
                LeaveRun { common, tensors: &parts[blocks], tail, scale: scale_of_tail, planes: &planes };
            graph.run(workers, |stage, band, scratch| match stage.checked_sub(ENTER_STAGES) {
                None => common.enter(stage, band, &parts[0], &packed.conv_1, x),
                Some(stage) if stage < blocks * stages => {
                    if let Some(run) = runs.get(stage / stages) {
                        run.stage(stage % stages, band, aligned(scratch));
                    }
                }
                Some(stage) if pass == blocks => leave.stage(stage - blocks * stages, band, sizes.scale),
                Some(_) => {}
            });
            if let Some(weights) = packed.blocks.get(pass) {
                let sums = &sums[pass * sums_len(shape, sizes)..][..sums_len(shape, sizes)];
                scale = channel_attention(weights, sums, shape.height, shape.span.width);
            }
        }
    }

    /// The first depthwise conv and the skip of a block whose input is multiplied by `scale`.
    fn scaled(&self, block: &Block, scale: &[f32]) -> (Depthwise, Vec<f32>) {
        let factors = Factors::new(block.factors.z, 1.0);
        let dwconv = pack_depthwise(&block.dwconv, self.weights.kernels.packing, scale, factors);
        (dwconv, times(scale, block.factors.u))
    }

    /// The planes of the SR frame, whose rows hold the SR rows of one row of the trunk.
    fn planes(&self, y: &mut [f32]) -> Vec<Shared> {
        let (scale, height) = (self.weights.sizes.scale, self.shape.height);
        let row_len = scale * scale * self.shape.span.width;
        let planes = y.chunks_exact_mut(height * row_len);
        planes.map(|plane| Shared::new(plane, Ring::dense(height, row_len))).collect()
    }
}

/// Computes the scale of each channel from the sums of rows.
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

/// Applies a 1x1 map to one pixel.
fn apply<'a>(conv: &'a Conv, x: &'a [f32]) -> impl Iterator<Item = f32> + 'a {
    let outputs = conv.weight.chunks_exact(conv.inputs).zip(&conv.bias);
    outputs.map(move |(weights, bias)| weights.iter().zip(x).fold(*bias, |sum, (w, x)| sum + w * x))
}

/// The part from the next cache line on.
fn aligned(floats: &mut [f32]) -> &mut [f32] {
    let start = floats.as_ptr().align_offset(MARGIN * size_of::<f32>());
    &mut floats[start..]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::catalogue;

    /// Bits of the SR frame, with the tasks in their current order.
    fn bits(net: &mut Net) -> Vec<u32> {
        let (height, width) = (net.shape.height, net.shape.span.width);
        let x: Vec<f32> = (0..height * width).map(|i| (i * 7919 % 256) as f32 / 255.0).collect();
        let mut y = vec![f32::NAN; net.weights.sizes.upsampler_channels() * x.len()];
        let mut scratch = vec![f32::NAN; net.scratch_len()];
        net.forward(&x, &mut y, &mut scratch);
        y.into_iter().map(f32::to_bits).collect()
    }

    /// A row that a stage uses without declaring it is missing in some legal order.
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
                let weights = Weights::new(&model, level, precision);
                for (trunk, (width, height), orders) in
                    [(Trunk::Kept, (37, 203), 20), (Trunk::Recomputed, (17, 403), 2)]
                {
                    // High enough for every ring to wrap around, and not a multiple of a band.
                    let mut net = Net::with_trunk(weights.clone(), (width, height), 2, trunk);
                    let complete = if trunk == Trunk::Kept { 2 } else { 0 };
                    for graph in net.graphs.all_mut() {
                        assert!(
                            graph.rings[complete..].iter().all(|&rows| rows < height),
                            "a ring is complete"
                        );
                    }
                    net.workers.truncate(1);
                    let expected = bits(&mut net);
                    for seed in 0..orders {
                        net.graphs.all_mut().into_iter().for_each(|graph| graph.shuffle(seed));
                        let scale = model.sizes.scale;
                        assert!(
                            bits(&mut net) == expected,
                            "{precision:?}, x{scale}, {trunk:?}, order {seed}"
                        );
                    }
                }
            }
        }
    }
}

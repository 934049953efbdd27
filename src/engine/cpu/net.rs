//! A network packed for one CPU, and a frame through its graphs of stages.
//!
//! The channel attention's scale is not a stage: the next dwconv's weights, the skip and the tail's input are multiplied by
//! it for this frame, so a block must end before the next begins. Sums are taken row by row and added in the order of
//! rows, so that the result does not depend on the number of threads.

use std::sync::{Arc, OnceLock};

use hasn_kernels::depthwise::norm_tile_len;
use hasn_kernels::layout::MARGIN;
use hasn_kernels::{Kernels, Level, Precision, gate};

use super::graph::Graph;
use super::layout::{Ring, Shared};
use super::pack::{Factors, pack_depthwise};
use super::stages::{BlockRun, Common, LeaveRun};
use super::tensors::*;
use super::weights::{Block, Packed};
use crate::engine::forward::{Forward, OpenPass, SIDE_MIN, Trunk};
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
        let shape = Shape::new(&self.model.sizes, self.level.kernels(self.precision).packing, height, width);
        let graphs = [block_graph(&shape, threads), leave_graph(&shape, threads, true)];
        (trunk == Trunk::Kept).then(|| scratch_len(&shape, &self.model.sizes, graphs.each_ref()))
    }

    fn open(&self, size: (usize, usize), threads: usize, _: Trunk) -> Box<dyn Forward> {
        let pack = || Weights::new(&self.model, self.level, self.precision);
        Box::new(Net::new(self.weights.get_or_init(pack).clone(), size, threads))
    }
}

/// A network for one size of frame and a number of threads.
pub(crate) struct Net {
    weights: Arc<Weights>,
    shape: Shape,
    enter: Graph,
    block: Graph,
    leave: Graph,
    /// Scratch of each thread.
    workers: Vec<Vec<f32>>,
    /// The row above and below every tensor.
    zeros: Vec<f32>,
}

impl Net {
    /// `threads` above 0, `size`: (width, height), both at least [`SIDE_MIN`].
    pub(crate) fn new(weights: Arc<Weights>, (width, height): (usize, usize), threads: usize) -> Net {
        assert!(height >= SIDE_MIN && width >= SIDE_MIN, "{width}x{height} is too small");
        let Weights { sizes, packed, kernels, .. } = &*weights;
        let shape = Shape::new(sizes, kernels.packing, height, width);
        let zeros = vec![0.0; shape.row_len.iter().copied().max().expect("tensors") + MARGIN];
        let rows = shape.rows_of_word;
        let worker_len = norm_tile_len(sizes.dim)
            .max(shape.grid.stride2)
            .max(rows * shape.row_len[GRID] + gate::scratch_len(&packed.blocks[0].gate, rows));
        Net {
            enter: enter_graph(&shape, threads),
            block: block_graph(&shape, threads),
            leave: leave_graph(&shape, threads, packed.tail.first_step.is_some()),
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
        f.debug_struct("Net")
            .field("sizes", &self.weights.sizes)
            .field("shape", &self.shape)
            .finish_non_exhaustive()
    }
}

impl Forward for Net {
    fn scratch_len(&self) -> usize {
        scratch_len(&self.shape, &self.weights.sizes, [&self.block, &self.leave])
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
        let (kept, rest) = scratch.split_at_mut(self.shape.kept_len());
        let (sums, rings) = rest.split_at_mut((height * self.weights.sizes.dim).next_multiple_of(MARGIN));
        let Net { weights, shape, enter, block, leave, workers, zeros } = self;
        let Weights { sizes, packed: weights, kernels, exact } = &**weights;
        let common = Common { kernels, exact, shape, zeros };

        let tensors = shape.tensors(enter, kept, rings);
        enter.run(workers, |stage, band, _| common.enter(stage, band, &tensors, &weights.conv_1, x));

        let mut scale = vec![1.0; sizes.dim];
        let tensors = shape.tensors(block, kept, rings);
        for weights in &weights.blocks {
            let sums_of_rows = Shared::new(sums, Ring::dense(height, sizes.dim));
            let factors = Factors { input: weights.factors.z, output: 1.0 };
            let dwconv = pack_depthwise(&weights.dwconv, kernels.packing, &scale, factors);
            let skip = &times(&scale, weights.factors.u);
            let run = BlockRun { common, tensors: &tensors, weights, dwconv: &dwconv, skip, sums_of_rows };
            block.run(workers, |stage, band, scratch| run.stage(stage, band, aligned(scratch)));
            scale = channel_attention(weights, sums, height, span.width);
        }

        let tensors = shape.tensors(leave, kept, rings);
        let row_len = sizes.scale * sizes.scale * span.width;
        let planes = y.chunks_exact_mut(height * row_len);
        let planes: Vec<_> = planes.map(|plane| Shared::new(plane, Ring::dense(height, row_len))).collect();
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

/// The scratch of a frame, in floats.
pub(super) fn scratch_len(shape: &Shape, sizes: &Sizes, [block, leave]: [&Graph; 2]) -> usize {
    let rings = |graph: &Graph| shape.rings(graph).iter().map(|ring| ring.len()).sum::<usize>();
    let sums = (shape.height * sizes.dim).next_multiple_of(MARGIN);
    // Tensors begin on a cache line, whatever the alignment of the scratch.
    shape.kept_len() + sums + rings(block).max(rings(leave)) + MARGIN
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
                // High enough for every ring to wrap around, and not a multiple of a band.
                let mut net = Net::new(Weights::new(&model, level, precision), (37, 203), 2);
                assert!(net.block.rings[N] < 203 && net.leave.rings[W] < 203, "no ring wraps around");
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

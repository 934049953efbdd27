//! The passes of a picture through the network, and their order.
//!
//! Two maps of the trunk's width hold everything: `a` the trunk, `b` whatever the block is at. A block is
//!
//! 1. b = LN(dwconv(a))                                reads 7 rows
//! 2. ESA's grid from b                                whole picture
//! 3. b = g(gate(b))                                   in place
//! 4. a = scale · a + dwconv2(b)                       reads 7 rows
//! 5. b = gelu(cab.0(a))                               reads 3 rows
//! 6. a = cab.2(b), and the sum of every row           reads 3 rows
//!
//! The channel attention's scale is no pass: dwconv's weights, the skip and conv_2's weights are multiplied by
//! it for this picture. Its sums are made row by row and added in the order of rows, so that the result does
//! not depend on the number of threads.

use rayon::prelude::*;

use super::depthwise::ROWS;
use super::esa::{BAND_ROWS, Between, Grid, coarse_row, conv3_row, pool_row};
use super::gate::BoundGate;
use super::layout::{Layout, MARGIN};
use super::level::{Kernels, Level};
use super::pack::{Block, Packed};
use super::simd::PIXELS_MAX;
use super::taps::Bound;
use crate::engine::forward::{Forward, SIDE_MIN};
use crate::model::{Conv, Model, Sizes};

/// A network packed for one CPU level.
pub struct Net {
    sizes: Sizes,
    weights: Packed,
    level: Level,
}

impl Net {
    /// Packs the weights.
    pub fn new(model: &Model, level: Level) -> Net {
        Net { sizes: model.sizes, weights: Packed::new(model), level }
    }
}

impl std::fmt::Debug for Net {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Net").field("sizes", &self.sizes).field("level", &self.level).finish_non_exhaustive()
    }
}

impl Forward for Net {
    fn scratch_len(&self, height: usize, width: usize) -> usize {
        // Maps begin on a cache line, wherever the scratch does.
        Plan::new(&self.sizes, height, width).lens().iter().sum::<usize>() + MARGIN
    }

    fn forward(&self, x: &[f32], y: &mut [f32], height: usize, width: usize, scratch: &mut [f32]) {
        let sizes = &self.sizes;
        assert!(height >= SIDE_MIN && width >= SIDE_MIN, "{width}x{height} is too small");
        assert_eq!(x.len(), sizes.in_channels * height * width, "x is [in, H, W]");
        assert_eq!(y.len(), sizes.upsampler_channels() * height * width, "y is [in, sH, sW]");
        let plan = Plan::new(sizes, height, width);
        let mut run = Run::new(self, &plan, scratch);
        run.enter(x);
        let mut scale = vec![1.0; sizes.dim];
        for block in &self.weights.blocks {
            scale = run.block(block, &scale);
        }
        run.leave(y, &scale);
    }
}

/// What the size of the picture decides.
struct Plan {
    layout: Layout,
    layout_x: Layout,
    grid: Grid,
    dim: usize,
    /// Taps of a 3x3 map of the input, the trunk and cab's middle.
    taps_input: Vec<usize>,
    taps_trunk: Vec<usize>,
    taps_cab: Vec<usize>,
    /// Taps of a 1x1 map in a row and in row scratch.
    taps_row: Vec<usize>,
    taps_scratch: Vec<usize>,
    taps_conv2: Vec<usize>,
    /// Where rows and columns lie on the grid.
    rows: Vec<Between>,
    columns: Vec<Between>,
}

impl Plan {
    fn new(sizes: &Sizes, height: usize, width: usize) -> Plan {
        let layout = Layout::new(sizes.dim.max(sizes.cab_channels), height, width);
        let layout_x = Layout::new(sizes.in_channels, height, width);
        let grid = Grid::new(sizes.esa_channels, height, width);
        Plan {
            layout,
            layout_x,
            grid,
            dim: sizes.dim,
            taps_input: layout_x.taps_3x3(sizes.in_channels),
            taps_trunk: layout.taps_3x3(sizes.dim),
            taps_cab: layout.taps_3x3(sizes.cab_channels),
            taps_row: layout.taps_1x1(sizes.dim),
            taps_scratch: (0..sizes.mlp_channels.max(sizes.esa_channels)).map(|i| i * PIXELS_MAX).collect(),
            taps_conv2: grid.taps2(sizes.esa_channels),
            rows: Between::axis(grid.height3, height),
            columns: Between::axis(grid.width3, width),
        }
    }

    /// Floats of: maps a, b and x, the tensor after ESA's conv2, the pooled one with a row of zeros above and
    /// below, the grid, and the sums of rows.
    fn lens(&self) -> [usize; 7] {
        let grid = &self.grid;
        let lens = [
            self.layout.len(),
            self.layout.len(),
            self.layout_x.len(),
            grid.height2 * grid.row2(),
            (grid.height3 + 2) * grid.channels * (grid.width3 + 2),
            grid.height3 * grid.channels * grid.width3,
            self.layout.height * self.dim,
        ];
        lens.map(|len| len.next_multiple_of(MARGIN))
    }
}

/// One picture on its way.
struct Run<'a> {
    net: &'a Net,
    plan: &'a Plan,
    kernels: &'static Kernels,
    a: &'a mut [f32],
    b: &'a mut [f32],
    x: &'a mut [f32],
    conv2: &'a mut [f32],
    pooled: &'a mut [f32],
    grid: &'a mut [f32],
    sums: &'a mut [f32],
}

impl<'a> Run<'a> {
    fn new(net: &'a Net, plan: &'a Plan, scratch: &'a mut [f32]) -> Run<'a> {
        let aligned = scratch.as_ptr().align_offset(MARGIN * size_of::<f32>());
        let mut rest = &mut scratch[aligned..];
        let [a, b, x, conv2, pooled, grid, sums] =
            plan.lens().map(|len| rest.split_off_mut(..len).expect("scratch of scratch_len"));
        plan.layout.clear_margins(a);
        plan.layout.clear_margins(b);
        plan.layout_x.clear_margins(x);
        let sums = &mut sums[..plan.layout.height * plan.dim];
        Run { net, plan, kernels: net.level.kernels(), a, b, x, conv2, pooled, grid, sums }
    }

    /// Takes the picture in and makes the trunk of it.
    fn enter(&mut self, x: &[f32]) {
        let Plan { layout, layout_x, .. } = *self.plan;
        let width = layout.span.width;
        layout_x.rows(self.x).par_chunks_mut(layout_x.row).enumerate().for_each(|(y, row)| {
            let planes = x.chunks_exact(layout.height * width);
            for (channel, plane) in row.chunks_exact_mut(layout_x.span.stride).zip(planes) {
                channel[MARGIN..][..width].copy_from_slice(&plane[y * width..][..width]);
            }
        });
        let conv = Bound { map: &self.net.weights.conv_1, offsets: &self.plan.taps_input };
        let x = &*self.x;
        let convolve = self.kernels.convolve;
        layout.rows(self.a).par_chunks_mut(layout.row).enumerate().for_each(|(y, row)| {
            convolve(row, layout_x.from(x, y, 1), conv, layout.span);
        });
    }

    /// `scale`: the channel attention that is still to be multiplied into `a`. Returns the next one.
    fn block(&mut self, block: &Block, scale: &[f32]) -> Vec<f32> {
        let Plan { layout, .. } = *self.plan;
        let kernels = self.kernels;
        let dwconv = block.dwconv.scaled(scale);
        let a = &*self.a;
        layout.rows(self.b).par_chunks_mut(ROWS * layout.row).enumerate().for_each(|(band, rows)| {
            (kernels.norm_rows)(rows, layout.from(a, ROWS * band, 3), &dwconv, layout);
        });
        self.esa_grid(block);
        self.gate(block);
        let b = &*self.b;
        layout.rows(self.a).par_chunks_mut(ROWS * layout.row).enumerate().for_each(|(band, rows)| {
            (kernels.add_rows)(rows, layout.from(b, ROWS * band, 3), &block.dwconv2, scale, layout);
        });
        let conv = Bound { map: &block.cab_0, offsets: &self.plan.taps_trunk };
        let a = &*self.a;
        layout.rows(self.b).par_chunks_mut(layout.row).enumerate().for_each(|(y, row)| {
            (kernels.convolve_gelu)(row, layout.from(a, y, 1), conv, layout.span);
        });
        let conv = Bound { map: &block.cab_2, offsets: &self.plan.taps_cab };
        let b = &*self.b;
        let sums = self.sums.par_chunks_mut(self.plan.dim);
        layout.rows(self.a).par_chunks_mut(layout.row).zip(sums).enumerate().for_each(|(y, (row, sums))| {
            (kernels.convolve_sum)(row, layout.from(b, y, 1), conv, layout.span, sums);
        });
        self.channel_attention(block)
    }

    /// From the normalised tensor in `b` to `conv3`'s output in `grid`.
    fn esa_grid(&mut self, block: &Block) {
        let Plan { layout, grid, .. } = *self.plan;
        let kernels = self.kernels;
        let conv1 = Bound { map: &block.conv1, offsets: &self.plan.taps_row };
        let conv2 = Bound { map: &block.conv2, offsets: &self.plan.taps_conv2 };
        let b = &*self.b;
        let rows1 = || vec![0.0; (2 * BAND_ROWS + 1) * grid.row1()];
        let bands = self.conv2[..grid.height2 * grid.row2()].par_chunks_mut(BAND_ROWS * grid.row2());
        bands.enumerate().for_each_init(rows1, |rows1, (band, rows2)| {
            let count = rows2.len() / grid.row2();
            for (y, row1) in rows1.chunks_exact_mut(grid.row1()).take(2 * count + 1).enumerate() {
                let n = layout.from(b, 2 * BAND_ROWS * band + y, 0);
                (kernels.conv1_row)(row1, n, conv1, layout.span);
            }
            for (y, row2) in rows2.chunks_exact_mut(grid.row2()).enumerate() {
                (kernels.conv2_row)(row2, &rows1[2 * y * grid.row1()..], conv2, grid.stride2);
            }
        });
        let row_pooled = grid.channels * (grid.width3 + 2);
        let (above, pooled) = self.pooled.split_at_mut(row_pooled);
        let (pooled, below) = pooled.split_at_mut(grid.height3 * row_pooled);
        above.fill(0.0);
        below.fill(0.0);
        let rows2 = &*self.conv2;
        pooled.par_chunks_mut(row_pooled).enumerate().for_each(|(y, row)| {
            pool_row(row, &rows2[3 * y * grid.row2()..], &grid);
        });
        let pooled = &*self.pooled;
        let rows = self.grid[..grid.height3 * grid.channels * grid.width3]
            .par_chunks_mut(grid.channels * grid.width3);
        rows.enumerate().for_each(|(y, row)| {
            conv3_row(row, &pooled[y * row_pooled..], &block.conv3, &grid);
        });
    }

    /// In place in `b`.
    fn gate(&mut self, block: &Block) {
        let Plan { layout, grid, .. } = *self.plan;
        let span = layout.span;
        let gate = self.kernels.gate;
        let bound =
            BoundGate { maps: &block.gate, in_row: &self.plan.taps_row, in_scratch: &self.plan.taps_scratch };
        let (rows, columns, grid3) = (&self.plan.rows, &self.plan.columns, &*self.grid);
        let scratch = || (vec![0.0; grid.channels * span.stride], vec![0.0; block.gate.scratch_len()]);
        layout.rows(self.b).par_chunks_mut(layout.row).enumerate().for_each_init(
            scratch,
            |(coarse, scratch), (y, row)| {
                coarse_row(coarse, grid3, rows[y], columns, &grid);
                gate(row, coarse, bound, scratch, span);
            },
        );
    }

    /// From the sums of rows to the scale of each channel.
    fn channel_attention(&self, block: &Block) -> Vec<f32> {
        let mut sums = vec![0.0_f64; self.plan.dim];
        for row in self.sums.chunks_exact(self.plan.dim) {
            for (sum, row) in sums.iter_mut().zip(row) {
                *sum += f64::from(*row);
            }
        }
        let pixels = (self.plan.layout.height * self.plan.layout.span.width) as f64;
        let mean: Vec<f32> = sums.iter().map(|sum| (sum / pixels) as f32).collect();
        let hidden: Vec<f32> = apply(&block.attention_1, &mean).map(|x| x.max(0.0)).collect();
        apply(&block.attention_3, &hidden).map(|x| 1.0 / (1.0 + (-x).exp())).collect()
    }

    /// From the trunk to the larger picture.
    fn leave(&mut self, y: &mut [f32], scale: &[f32]) {
        let Plan { layout, layout_x, .. } = *self.plan;
        let weights = &self.net.weights;
        let conv_2 = weights.conv_2.scaled(scale);
        let conv = Bound { map: &conv_2, offsets: &self.plan.taps_trunk };
        let conv_1 = Bound { map: &weights.conv_1, offsets: &self.plan.taps_input };
        let (a, x) = (&*self.a, &*self.x);
        let convolve_skip = self.kernels.convolve_skip;
        layout.rows(self.b).par_chunks_mut(layout.row).enumerate().for_each(|(y, row)| {
            let skip = (layout_x.from(x, y, 1), conv_1);
            convolve_skip(row, layout.from(a, y, 1), conv, skip, layout.span);
        });
        let factor = self.net.sizes.scale;
        let upsample = self.kernels.upsample;
        let b = &*self.b;
        let row_len = factor * factor * layout.span.width;
        for (plane, map) in y.chunks_exact_mut(layout.height * row_len).zip(&weights.upsamplers) {
            let conv = Bound { map, offsets: &self.plan.taps_trunk };
            plane.par_chunks_mut(row_len).enumerate().for_each(|(y, rows)| {
                upsample(rows, layout.from(b, y, 1), conv, layout.span, factor);
            });
        }
    }
}

/// A 1x1 map of one pixel.
fn apply<'a>(conv: &'a Conv, x: &'a [f32]) -> impl Iterator<Item = f32> + 'a {
    let outputs = conv.weight.chunks_exact(conv.inputs).zip(&conv.bias);
    outputs.map(move |(weights, bias)| weights.iter().zip(x).fold(*bias, |sum, (w, x)| sum + w * x))
}

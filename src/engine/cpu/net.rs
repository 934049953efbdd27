//! The stages of a picture through the network, what they read and write, and their order.
//!
//! The trunk `z` is the one tensor that is kept whole, in f32 and in place; all others are rings of the few rows
//! that are alive while a wave of tasks (see `graph`) goes down the picture:
//!
//! | stage | makes | of |
//! |---|---|---|
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

use super::depthwise::{ROWS, ROWS_READ, norm_tile_len};
use super::esa::{Between, Grid, half_of};
use super::gate;
use super::graph::{Graph, Keep, Rows, Stage};
use super::layout::{MARGIN, Ring, Shared, Span};
use super::level::{Kernels, Level, Precision};
use super::pack::{Block, Dense, Depthwise, Packed};
use super::tail::{ByPlace, PLACES};
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
        let shape = Shape::new(&sizes, kernels, height, width);
        let zeros = vec![0.0; shape.row_len.iter().copied().max().expect("tensors") + MARGIN];
        let worker_len = norm_tile_len(sizes.dim)
            .max(shape.grid.stride2)
            .max(shape.row_len[GRID] + gate::scratch_len(&weights.blocks[0].gate));
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
            let dwconv = weights.dwconv.scaled(&scale);
            let run =
                BlockRun { common, tensors: &tensors, weights, dwconv: &dwconv, scale: &scale, sums_of_rows };
            block.run(workers, |stage, band, scratch| run.stage(stage, band, aligned(scratch)));
            scale = channel_attention(weights, sums, height, span.width);
        }

        let (first_step, mains) = weights.tail.scaled(&scale);
        let tensors = shape.tensors(leave, kept, rings);
        let row_len = sizes.scale * sizes.scale * span.width;
        let planes = y.chunks_exact_mut(height * row_len);
        let planes: Vec<_> = planes.map(|plane| Shared::new(plane, Ring { rows: height, row_len })).collect();
        leave.run(workers, |stage, band, _| match stage {
            0 => common.words(band, &tensors, first_step.as_ref()),
            _ => {
                for ((plane, main), output) in planes.iter().zip(&mains).zip(&weights.tail.outputs) {
                    let side = if first_step.is_some() { 3 } else { 5 };
                    common.leave(band, &tensors, *plane, side, (main, &output.skip), sizes.scale);
                }
            }
        });
    }
}

/// From the sums of rows to the scale of each channel.
fn channel_attention(block: &Block, sums: &[f32], height: usize, width: usize) -> Vec<f32> {
    let channels = block.dwconv.taps.len();
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

// The tensors, by index. The first two are kept whole.
const X: usize = 0;
const Z: usize = 1;
const N: usize = 2;
const C1: usize = 3;
const C2: usize = 4;
const POOLED: usize = 5;
const GRID: usize = 6;
const G: usize = 7;
const U: usize = 8;
const T: usize = 9;
/// What the last conv reads: the trunk in words, or what `conv_2` makes of it.
const W: usize = 10;
const TENSORS: usize = 11;
const WHOLE: usize = 2;

/// What the size of the picture decides.
#[derive(Debug)]
struct Shape {
    height: usize,
    span: Span,
    grid: Grid,
    /// Floats of a row of each tensor.
    row_len: [usize; TENSORS],
    /// Where rows and columns lie on ESA's grid.
    rows: Between,
    columns: Between,
}

impl Shape {
    fn new(sizes: &Sizes, kernels: &Kernels, height: usize, width: usize) -> Shape {
        let (span, grid) = (Span::new(width), Grid::new(height, width));
        let packing = kernels.packing;
        let words = |channels: usize| packing.words(channels) * span.stride;
        let channels = |channels: usize| packing.outputs(channels) * span.stride;
        let esa = packing.outputs(sizes.esa_channels);
        let mut row_len = [0; TENSORS];
        row_len[X] = sizes.in_channels * span.stride;
        row_len[Z] = channels(sizes.dim);
        row_len[N] = words(sizes.dim);
        row_len[C1] = packing.words(sizes.esa_channels) * 2 * half_of(width);
        row_len[C2] = esa * grid.stride2;
        row_len[POOLED] = esa * grid.span3.stride;
        row_len[GRID] = esa * grid.span3.stride;
        row_len[G] = channels(sizes.dim);
        row_len[U] = words(sizes.dim);
        row_len[T] = words(sizes.cab_channels);
        row_len[W] = words(sizes.dim);
        Shape {
            height,
            span,
            grid,
            row_len,
            rows: Between::axis(grid.height3, height),
            columns: Between::axis(grid.span3.width, width),
        }
    }

    /// Floats of the tensors that are kept whole.
    fn kept_len(&self) -> usize {
        self.row_len[..WHOLE].iter().sum::<usize>() * self.height
    }

    /// Of the tensors that are not.
    fn rings(&self, graph: &Graph) -> Vec<Ring> {
        let lens = graph.rings.iter().zip(&self.row_len).skip(WHOLE);
        lens.map(|(&rows, &row_len)| Ring { rows, row_len }).collect()
    }

    /// The tensors in memory, rings with zeros round their rows.
    fn tensors(&self, graph: &Graph, kept: &mut [f32], rings: &mut [f32]) -> [Shared; TENSORS] {
        let (x, z) = kept.split_at_mut(self.height * self.row_len[X]);
        let whole = |memory, tensor: usize| {
            Shared::new(memory, Ring { rows: self.height, row_len: self.row_len[tensor] })
        };
        let mut tensors = [whole(x, X); TENSORS];
        tensors[Z] = whole(z, Z);
        let mut rest = rings;
        for (tensor, ring) in (WHOLE..).zip(self.rings(graph)) {
            let memory = rest.split_off_mut(..ring.len()).expect("scratch of scratch_len");
            match tensor {
                // Nothing reads beyond their pixels.
                C1 | C2 => {}
                POOLED | GRID => self.grid.span3.clear_margins(memory),
                _ => self.span.clear_margins(memory),
            }
            tensors[tensor] = Shared::new(memory, ring);
        }
        tensors
    }

    /// Rows of a band.
    fn band(&self, band: usize) -> std::ops::Range<usize> {
        ROWS * band..(ROWS * band + ROWS).min(self.height)
    }

    fn bands(&self) -> usize {
        self.height.div_ceil(ROWS)
    }

    /// Rows of a band and `reach` more on each side, as far as there are any.
    fn round(&self, band: usize, reach: usize) -> std::ops::Range<usize> {
        let rows = self.band(band);
        rows.start.saturating_sub(reach)..(rows.end + reach).min(self.height)
    }

    fn keeps(&self, first: usize) -> [Keep; TENSORS] {
        let mut keeps = [Keep::Alive(0); TENSORS];
        for (tensor, keep) in keeps.iter_mut().enumerate().skip(first) {
            *keep = Keep::Alive(match tensor {
                C2 => self.grid.height2,
                POOLED | GRID => self.grid.height3,
                _ => self.height,
            });
        }
        keeps[..WHOLE].fill(Keep::Whole(self.height));
        keeps
    }
}

fn stage<'a>(
    name: &'static str,
    bands: usize,
    reads: impl Fn(usize) -> Vec<Rows> + 'a,
    writes: impl Fn(usize) -> Vec<Rows> + 'a,
) -> Stage<'a> {
    Stage { name, bands, reads: Box::new(reads), writes: Box::new(writes) }
}

fn enter_graph(shape: &Shape, threads: usize) -> Graph {
    // What the picture holds before is of no use to anyone.
    let height = shape.height;
    let later = move |rows: std::ops::Range<usize>| rows.start + height..rows.end + height;
    let stages = [
        stage("copy", shape.bands(), |_| vec![], |band| vec![(X, later(shape.band(band)))]),
        stage(
            "enter",
            shape.bands(),
            |band| vec![(X, later(shape.round(band, 1)))],
            |band| vec![(Z, later(shape.band(band)))],
        ),
    ];
    Graph::new(&stages, &shape.keeps(TENSORS), threads)
}

fn block_graph(shape: &Shape, threads: usize) -> Graph {
    let grid = shape.grid;
    let height = shape.height;
    let grid_rows = move |band: usize| {
        let rows = shape.band(band);
        let (first, last) =
            (shape.rows.pair(rows.start, grid.height3), shape.rows.pair(rows.end - 1, grid.height3));
        first[0]..last[1] + 1
    };
    let rows2 = move |band: usize| 2 * band..(2 * band + 2).min(grid.height2);
    let stages = [
        stage(
            "norm",
            shape.bands(),
            |band| vec![(Z, shape.round(band, 3))],
            |band| vec![(N, shape.band(band)), (C1, shape.band(band))],
        ),
        stage(
            "conv2",
            grid.height2.div_ceil(2),
            move |band| vec![(C1, 2 * rows2(band).start..2 * rows2(band).end + 1)],
            move |band| vec![(C2, rows2(band))],
        ),
        stage("pool", grid.height3, |y| vec![(C2, 3 * y..3 * y + 7)], |y| vec![(POOLED, y..y + 1)]),
        stage(
            "conv3",
            grid.height3,
            move |y| vec![(POOLED, y.saturating_sub(1)..(y + 2).min(grid.height3))],
            |y| vec![(GRID, y..y + 1)],
        ),
        stage(
            "gate",
            shape.bands(),
            move |band| vec![(N, shape.band(band)), (GRID, grid_rows(band))],
            |band| vec![(G, shape.band(band))],
        ),
        stage(
            "add",
            shape.bands(),
            |band| vec![(G, shape.round(band, 3)), (Z, shape.band(band))],
            |band| vec![(U, shape.band(band))],
        ),
        stage(
            "cab0",
            shape.bands(),
            |band| vec![(U, shape.round(band, 1))],
            |band| vec![(T, shape.band(band))],
        ),
        stage(
            "cab2",
            shape.bands(),
            |band| vec![(T, shape.round(band, 1))],
            move |band| vec![(Z, shape.band(band).start + height..shape.band(band).end + height)],
        ),
    ];
    Graph::new(&stages, &shape.keeps(N), threads)
}

fn leave_graph(shape: &Shape, threads: usize, two_steps: bool) -> Graph {
    let (first, second) = if two_steps { (1, 1) } else { (0, 2) };
    let stages = [
        stage(
            "words",
            shape.bands(),
            move |band| vec![(Z, shape.round(band, first))],
            |band| vec![(W, shape.band(band))],
        ),
        stage(
            "leave",
            shape.bands(),
            move |band| vec![(W, shape.round(band, second)), (X, shape.round(band, 2))],
            |_| vec![],
        ),
    ];
    Graph::new(&stages, &shape.keeps(W), threads)
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

    /// Takes the picture in and makes the trunk of it.
    fn enter(&self, stage: usize, band: usize, tensors: &[Shared; TENSORS], conv_1: &Dense, x: &[f32]) {
        let Shape { height, span, .. } = *self.shape;
        for y in self.shape.band(band) {
            // SAFETY: these are the rows that `enter_graph` declares.
            unsafe {
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

    /// What the last conv reads.
    fn words(&self, band: usize, tensors: &[Shared; TENSORS], first_step: Option<&Dense>) {
        let Shape { height, span, .. } = *self.shape;
        for y in self.shape.band(band) {
            // SAFETY: these are the rows that `leave_graph` declares.
            unsafe {
                let row = tensors[W].row_mut(y);
                match first_step {
                    Some(conv) => {
                        (self.kernels.convolve_words)(row, &self.rows(tensors[Z], y, 1, height), conv, span)
                    }
                    None => (self.kernels.pack_row)(row, tensors[Z].row(y), span),
                }
            }
        }
    }

    fn leave(
        &self,
        band: usize,
        tensors: &[Shared; TENSORS],
        plane: Shared,
        side: usize,
        (main, skip): (&ByPlace, &ByPlace),
        scale: usize,
    ) {
        let Shape { height, span, .. } = *self.shape;
        for y in self.shape.band(band) {
            let place = if y == 0 {
                0
            } else if y + 1 == height {
                PLACES - 1
            } else {
                1
            };
            // SAFETY: these are the rows that `leave_graph` declares, and no other task has this row of the plane.
            unsafe {
                let out = plane.row_mut(y);
                let x = self.rows(tensors[X], y, 2, height);
                let skip = (&x, &skip[place]);
                if side == 5 {
                    let rows = self.rows(tensors[W], y, 2, height);
                    (self.kernels.leave_merged)(out, (&rows, &main[place]), skip, span, scale);
                } else {
                    let rows = self.rows(tensors[W], y, 1, height);
                    (self.kernels.leave_second_step)(out, (&rows, &main[place]), skip, span, scale);
                }
            }
        }
    }
}

/// One block of one picture.
struct BlockRun<'a> {
    common: Common<'a>,
    tensors: &'a [Shared; TENSORS],
    weights: &'a Block,
    /// With the channel attention of the block before, as the skip is multiplied by it.
    dwconv: &'a Depthwise,
    scale: &'a [f32],
    sums_of_rows: Shared,
}

impl BlockRun<'_> {
    /// The stages in the order of `block_graph`.
    fn stage(&self, stage: usize, band: usize, scratch: &mut [f32]) {
        match stage {
            0 => self.norm(band, scratch),
            1 => self.conv2(band),
            2 => self.pool(band, scratch),
            3 => self.conv3(band),
            4 => self.gate(band, scratch),
            5 => self.add(band),
            6 => self.cab0(band),
            _ => self.cab2(band),
        }
    }

    // SAFETY of all below: a stage touches the rows that `block_graph` declares for it and no others.

    fn norm(&self, band: usize, tile: &mut [f32]) {
        let Common { kernels, shape, .. } = self.common;
        let rows = shape.band(band);
        // SAFETY: as above.
        unsafe {
            let z: [_; ROWS_READ] = self.common.rows(self.tensors[Z], rows.start, 3, shape.height);
            let mut n = self.band_mut(N, rows.clone());
            let mut c1 = self.band_mut(C1, rows.clone());
            let out = (&mut n[..rows.len()], &mut c1[..rows.len()]);
            (kernels.norm)(out, &z, (self.dwconv, &self.weights.conv1), tile, shape.span);
        }
    }

    fn conv2(&self, band: usize) {
        let Common { kernels, shape, .. } = self.common;
        for y in 2 * band..(2 * band + 2).min(shape.grid.height2) {
            // SAFETY: as above.
            unsafe {
                let c1 = self.common.rows(self.tensors[C1], 2 * y, 0, shape.height);
                (kernels.conv2)(self.tensors[C2].row_mut(y), &c1, &self.weights.conv2, shape.grid.stride2);
            }
        }
    }

    fn pool(&self, y: usize, highest: &mut [f32]) {
        let Common { kernels, shape, .. } = self.common;
        let Grid { height2, stride2, span3, .. } = shape.grid;
        // SAFETY: as above.
        unsafe {
            let c2 = self.common.rows(self.tensors[C2], 3 * y, 0, height2);
            (kernels.pool)(self.tensors[POOLED].row_mut(y), &c2, stride2, highest, span3);
        }
    }

    fn conv3(&self, y: usize) {
        let Common { kernels, shape, .. } = self.common;
        let Grid { height3, span3, .. } = shape.grid;
        // SAFETY: as above.
        unsafe {
            let pooled = self.common.rows(self.tensors[POOLED], y, 1, height3);
            (kernels.convolve_exact)(self.tensors[GRID].row_mut(y), &pooled, &self.weights.conv3, span3);
        }
    }

    fn gate(&self, band: usize, scratch: &mut [f32]) {
        let Common { kernels, shape, .. } = self.common;
        let Grid { height3, span3, .. } = shape.grid;
        let (coarse, scratch) = scratch.split_at_mut(shape.row_len[GRID]);
        for y in shape.band(band) {
            // SAFETY: as above.
            unsafe {
                let grid = shape.rows.pair(y, height3).map(|row| self.tensors[GRID].row(row));
                (kernels.between_rows)(coarse, grid, shape.rows.fraction[y], span3);
                let (g, n) = (self.tensors[G].row_mut(y), self.tensors[N].row(y));
                let coarse = (&*coarse, span3, &shape.columns);
                (kernels.gate)(g, n, &self.weights.gate, coarse, scratch, shape.span);
            }
        }
    }

    fn add(&self, band: usize) {
        let Common { kernels, shape, .. } = self.common;
        let rows = shape.band(band);
        // SAFETY: as above.
        unsafe {
            let g: [_; ROWS_READ] = self.common.rows(self.tensors[G], rows.start, 3, shape.height);
            let z: [_; ROWS] = self.common.rows(self.tensors[Z], rows.start, 0, shape.height);
            let mut u = self.band_mut(U, rows.clone());
            let (u, z) = (&mut u[..rows.len()], &z[..rows.len()]);
            (kernels.add_skip)(u, &g, &self.weights.dwconv2, z, self.scale, shape.span);
        }
    }

    fn cab0(&self, band: usize) {
        let Common { kernels, shape, .. } = self.common;
        for y in shape.band(band) {
            // SAFETY: as above.
            unsafe {
                let u = self.common.rows(self.tensors[U], y, 1, shape.height);
                (kernels.convolve_gelu)(self.tensors[T].row_mut(y), &u, &self.weights.cab_0, shape.span);
            }
        }
    }

    fn cab2(&self, band: usize) {
        let Common { kernels, shape, .. } = self.common;
        for y in shape.band(band) {
            // SAFETY: as above; the sums of a row belong to its task.
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
    unsafe fn band_mut<'b>(&self, tensor: usize, rows: std::ops::Range<usize>) -> [&'b mut [f32]; ROWS] {
        std::array::from_fn(|i| match rows.start + i {
            // SAFETY: the caller's.
            y if y < rows.end => unsafe { self.tensors[tensor].row_mut(y) },
            _ => Default::default(),
        })
    }
}

//! The stages of a frame through the network: the work of each on the rows of a band.
//!
//! The trunk `z` is the only tensor that is kept completely, in f32 and in place (and again in pairs of rows, where the
//! depthwise convs read words of two rows); all others are rings of the few rows that are in use while a wave of tasks
//! (see `graph`) moves down the frame. Where memory is short, the trunk is a ring as well (see `net`).
//!
//! | stage | output | input |
//! |---|---|---|
//! | pairs | in bf16 and int16, rows of z in pairs for dwconv | 2 rows of z |
//! | norm | n = LN(dwconv(z)), c1 = conv1(n) | 7 rows of z |
//! | conv2, pool, conv3 | ESA's grid | some 27 rows of c1 |
//! | gate | g(gate(n)) | a row of n, two of the grid |
//! | add | u = scale · z + dwconv2(g) | 7 rows of g, a row of z |
//! | cab0 | t = gelu(cab.0(u)) | 3 rows of u |
//! | cab2 | z = cab.2(t), and the sum of every row | 3 rows of t |

use std::ops::Range;

use hasn_kernels::Kernels;
use hasn_kernels::depthwise::{PAIRS_READ, ROWS, ROWS_READ};
use hasn_kernels::esa::Grid;
use hasn_kernels::layout::MARGIN;
use hasn_kernels::weights::{Dense, Depthwise};

use super::layout::Shared;
use super::tail::{MIDDLE, PLACES, Tail};
use super::tensors::*;
use super::weights::Block;

/// The context that the stages of all graphs share.
#[derive(Clone, Copy)]
pub(super) struct Common<'a> {
    pub(super) kernels: &'static Kernels,
    /// The f32 loops of the level.
    pub(super) exact: &'static Kernels,
    pub(super) shape: &'a Shape,
    pub(super) zeros: &'a [f32],
}

impl<'a> Common<'a> {
    /// Borrows the rows from `y` - `above` on of a tensor of `height` rows; zeros outside.
    ///
    /// # Safety
    /// As [`Shared::row`], for all of them.
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

    /// Borrows the rows that a depthwise conv reads for a band.
    ///
    /// # Safety
    /// As [`Shared::row`], for the band and three rows on each side of it.
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

    /// Copies the LR frame (stage 0) and computes the trunk (stage 1).
    pub(super) fn enter(
        &self,
        stage: usize,
        band: usize,
        tensors: &[Shared; TENSORS],
        conv_1: &Dense,
        x: &[f32],
    ) {
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
                    (self.exact.convolve)(row, &self.rows(tensors[X], y, 1, height), conv_1, span);
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

/// One block of one frame.
pub(super) struct BlockRun<'a> {
    pub(super) common: Common<'a>,
    pub(super) tensors: &'a [Shared; TENSORS],
    pub(super) weights: &'a Block,
    /// Packed with the channel attention of the block before.
    pub(super) dwconv: &'a Depthwise,
    /// Factor of the skip: the same scale times the quantization factor of the sum.
    pub(super) skip: &'a [f32],
    /// The trunk after the block.
    pub(super) out: Shared,
    pub(super) sums_of_rows: Shared,
}

impl BlockRun<'_> {
    /// The stages in the order of `block_graph`.
    pub(super) fn stage(&self, stage: usize, band: usize, scratch: &mut [f32]) {
        // The first stage is missing where the depthwise conv reads the trunk itself.
        let missing = usize::from(self.common.shape.trunk() == Z);
        match stage + missing {
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
                (kernels.pair_rows)(self.tensors[P].row_mut(y), low, high, self.weights.factors.z);
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
        let Common { exact, shape, .. } = self.common;
        let Grid { height3, span3, .. } = shape.grid;
        // SAFETY: `block_graph` declares these rows.
        unsafe {
            let pooled = self.common.rows(self.tensors[POOLED], y, 1, height3);
            (exact.convolve)(self.tensors[GRID].row_mut(y), &pooled, &self.weights.conv3, span3);
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
                    (kernels.interpolate_rows)(coarse, grid, shape.rows.fraction[y], span3);
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
                let (t, Block { cab_0, factors, .. }) = (self.tensors[T].row_mut(y), self.weights);
                (kernels.convolve_gelu)(t, &u, cab_0, factors.t, shape.span);
            }
        }
    }

    fn cab2(&self, band: usize) {
        let Common { kernels, shape, .. } = self.common;
        for y in shape.band(band) {
            // SAFETY: `block_graph` declares these rows, and the sums of a row belong to its task.
            unsafe {
                let t = self.common.rows(self.tensors[T], y, 1, shape.height);
                let (z, sums) = (self.out.row_mut(y), self.sums_of_rows.row_mut(y));
                (kernels.convolve_sum)(z, &t, &self.weights.cab_2, shape.span, sums);
            }
        }
    }

    /// Borrows up to [`ROWS`] rows to write.
    ///
    /// # Safety
    /// As [`Shared::row_mut`].
    unsafe fn band_mut<'b>(&self, tensor: usize, rows: Range<usize>) -> [&'b mut [f32]; ROWS] {
        std::array::from_fn(|i| match rows.start + i {
            // SAFETY: the caller's.
            y if y < rows.end => unsafe { self.tensors[tensor].row_mut(y) },
            _ => Default::default(),
        })
    }
}

/// The tail of one frame.
pub(super) struct LeaveRun<'a> {
    pub(super) common: Common<'a>,
    pub(super) tensors: &'a [Shared; TENSORS],
    pub(super) tail: &'a Tail,
    /// The channel attention of the last block, times the quantization factor of the trunk.
    pub(super) scale: &'a [f32],
    /// Planes of the SR frame, whose rows hold the SR rows of one row of the trunk.
    pub(super) planes: &'a [Shared],
}

impl LeaveRun<'_> {
    /// The stages in the order of `leave_graph`.
    pub(super) fn stage(&self, stage: usize, band: usize, scale: usize) {
        match (stage, &self.tail.first_step) {
            (0, _) => self.words(band),
            (1, Some(conv_2)) => self.step(band, conv_2),
            _ => self.leave(band, scale),
        }
    }

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

    fn step(&self, band: usize, conv_2: &Dense) {
        let Common { kernels, shape, .. } = self.common;
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

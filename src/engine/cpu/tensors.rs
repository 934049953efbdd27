//! The tensors of a frame, and the rows of them that each stage reads and writes.
//!
//! In: the sizes of a network and of a frame. Out: lengths and places of rows, and the graphs that `net` runs. There are two
//! kinds: a graph for each part of the network with the trunk in place between them, and one graph of all parts, each with
//! a trunk of its own that is a ring. The declared
//! rows of a stage must match its function in `stages`: tests run the stages in other legal orders and compare the bits.

use std::ops::Range;

use hasn_kernels::depthwise::ROWS;
use hasn_kernels::esa::{Between, Grid, half_of};
use hasn_kernels::layout::Span;
use hasn_kernels::weights::Packing;

use super::graph::{Graph, Keep, Rows, Stage};
use super::layout::{Ring, Shared};
use crate::model::Sizes;

// The tensors of a part, by index. The first two are kept completely where each part has its graph, the others as rings.
pub(super) const X: usize = 0;
pub(super) const Z: usize = 1;
/// The trunk in pairs of rows, where depthwise convs read them.
pub(super) const P: usize = 2;
pub(super) const N: usize = 3;
pub(super) const C1: usize = 4;
pub(super) const C2: usize = 5;
pub(super) const POOLED: usize = 6;
pub(super) const GRID: usize = 7;
pub(super) const G: usize = 8;
pub(super) const U: usize = 9;
pub(super) const T: usize = 10;
/// The trunk in words, times the channel attention's scale.
pub(super) const W: usize = 11;
/// The output of `conv_2`, where the tail has two steps.
pub(super) const V: usize = 12;
pub(super) const TENSORS: usize = 13;
const COMPLETE: usize = 2;
/// Tensors of a block whose trunk is a ring as well.
const OF_BLOCK: usize = T - Z + 1;
/// Stages before the first block.
pub(super) const ENTER_STAGES: usize = 2;

/// Where a part of the network finds its tensors in a graph.
#[derive(Clone, Copy)]
pub(super) struct Places {
    /// Index of each tensor in the graph.
    of: [usize; TENSORS],
    /// Index of the trunk that the part computes.
    pub(super) out: usize,
    /// First row of the new content of the LR frame and of the trunk: the height, where it takes the place of the former.
    later: usize,
}

impl Places {
    /// In place in the trunk, as all parts have their own graphs.
    fn in_place(shape: &Shape) -> Places {
        Places { of: std::array::from_fn(|tensor| tensor), out: Z, later: shape.height }
    }

    /// In the graph of all parts. The part after the last block is the tail.
    pub(super) fn of_part(part: usize, blocks: usize) -> Places {
        let tail = 1 + blocks * OF_BLOCK;
        let of = std::array::from_fn(|tensor| match tensor {
            X => X,
            W | V => tail + 1 + tensor - W,
            // The tail has a trunk alone.
            _ => (1 + part * OF_BLOCK + tensor - Z).min(tail),
        });
        Places { of, out: (1 + (part + 1) * OF_BLOCK).min(tail), later: 0 }
    }

    /// The tensors of the part among those of the graph.
    pub(super) fn pick(&self, tensors: &[Shared]) -> [Shared; TENSORS] {
        self.of.map(|index| tensors[index])
    }

    fn later(&self, rows: Range<usize>) -> Range<usize> {
        rows.start + self.later..rows.end + self.later
    }
}

/// Which tensor each tensor of the graph of all parts is.
pub(super) fn tensors_of_all(blocks: usize) -> Vec<usize> {
    let of_blocks = std::iter::repeat_n(Z..=T, blocks).flatten();
    [X].into_iter().chain(of_blocks).chain([Z, W, V]).collect()
}

/// The shapes that follow from the size of the frame.
#[derive(Debug)]
pub(super) struct Shape {
    pub(super) height: usize,
    pub(super) span: Span,
    /// Rows per word of a depthwise conv's input.
    pub(super) rows_of_word: usize,
    pub(super) grid: Grid,
    /// Length of a row of each tensor, in floats.
    pub(super) row_len: [usize; TENSORS],
    /// Positions of the rows on ESA's grid.
    pub(super) rows: Between,
    /// Positions of the columns on ESA's grid.
    pub(super) columns: Between,
}

impl Shape {
    pub(super) fn new(sizes: &Sizes, packing: Packing, height: usize, width: usize) -> Shape {
        let (span, grid) = (Span::new(width), Grid::new(height, width));
        let words = |channels: usize| packing.words(channels) * span.stride;
        let channels = |channels: usize| packing.outputs(channels) * span.stride;
        let esa = packing.outputs(sizes.esa_channels);
        let mut row_len = [0; TENSORS];
        row_len[X] = sizes.in_channels * span.stride;
        row_len[Z] = channels(sizes.dim);
        row_len[P] = if packing.channels == 2 { sizes.dim * span.stride } else { 0 };
        row_len[N] = words(sizes.dim);
        row_len[C1] = packing.words(sizes.esa_channels) * 2 * half_of(width);
        row_len[C2] = esa * grid.stride2;
        row_len[POOLED] = esa * grid.span3.stride;
        row_len[GRID] = esa * grid.span3.stride;
        row_len[G] = channels(sizes.dim);
        row_len[U] = words(sizes.dim);
        row_len[T] = words(sizes.cab_channels);
        row_len[W] = words(sizes.dim);
        row_len[V] = words(sizes.dim);
        Shape {
            height,
            span,
            rows_of_word: packing.channels,
            grid,
            row_len,
            rows: Between::axis(grid.height3, height),
            columns: Between::axis(grid.span3.width, width),
        }
    }

    /// Length in floats of the tensors that are kept completely.
    pub(super) fn kept_len(&self) -> usize {
        self.complete(X).len() + self.complete(Z).len()
    }

    fn complete(&self, tensor: usize) -> Ring {
        Ring::new(self.height, self.row_len[tensor])
    }

    /// The rings of the other tensors.
    pub(super) fn rings(&self, graph: &Graph) -> Vec<Ring> {
        let lens = graph.rings.iter().zip(&self.row_len).skip(COMPLETE);
        lens.map(|(&rows, &row_len)| Ring::new(rows, row_len)).collect()
    }

    /// Places the tensors in memory, with zeros around the rows of rings.
    pub(super) fn tensors(&self, graph: &Graph, kept: &mut [f32], rings: &mut [f32]) -> [Shared; TENSORS] {
        let (x, z) = kept.split_at_mut(self.complete(X).len());
        let mut tensors = [Shared::new(x, self.complete(X)); TENSORS];
        tensors[Z] = Shared::new(z, self.complete(Z));
        let mut rest = rings;
        for (tensor, ring) in (COMPLETE..).zip(self.rings(graph)) {
            tensors[tensor] = self.place(tensor, ring, &mut rest);
        }
        tensors
    }

    /// Length in floats of the tensors of the graph of all parts.
    pub(super) fn len_of_all(&self, graph: &Graph, blocks: usize) -> usize {
        self.rings_of_all(graph, blocks).map(|(_, ring)| ring.len()).sum()
    }

    /// Places the tensors of the graph of all parts in memory.
    pub(super) fn tensors_of_all(&self, graph: &Graph, blocks: usize, mut memory: &mut [f32]) -> Vec<Shared> {
        self.rings_of_all(graph, blocks).map(|(tensor, ring)| self.place(tensor, ring, &mut memory)).collect()
    }

    fn rings_of_all(&self, graph: &Graph, blocks: usize) -> impl Iterator<Item = (usize, Ring)> {
        let tensors = tensors_of_all(blocks).into_iter().zip(&graph.rings);
        tensors.map(|(tensor, &rows)| (tensor, Ring::new(rows, self.row_len[tensor])))
    }

    /// Places a ring at the start of `rest`, with zeros around its rows.
    fn place(&self, tensor: usize, ring: Ring, rest: &mut &mut [f32]) -> Shared {
        let memory = rest.split_off_mut(..ring.len()).expect("scratch of scratch_len");
        let mut clear = |span: Span| ring.each_row(memory).for_each(|row| span.clear_margins(row));
        match tensor {
            // Their margins are never read.
            C1 | C2 => {}
            POOLED | GRID => clear(self.grid.span3),
            _ => clear(self.span),
        }
        Shared::new(memory, ring)
    }

    /// Rows of a band.
    pub(super) fn band(&self, band: usize) -> Range<usize> {
        ROWS * band..(ROWS * band + ROWS).min(self.height)
    }

    /// Rows of words that hold these rows, as a depthwise conv reads them.
    pub(super) fn in_words(&self, rows: Range<usize>) -> Range<usize> {
        rows.start / self.rows_of_word..rows.end.div_ceil(self.rows_of_word)
    }

    pub(super) fn height_in_words(&self) -> usize {
        self.height.div_ceil(self.rows_of_word)
    }

    /// The tensor that the first depthwise conv reads.
    pub(super) fn trunk(&self) -> usize {
        if self.rows_of_word == 1 { Z } else { P }
    }

    /// Number of stages of a block.
    pub(super) fn stages_of_block(&self) -> usize {
        block_stages(self, Places::of_part(0, 1)).len()
    }

    fn bands(&self) -> usize {
        self.height.div_ceil(ROWS)
    }

    /// Rows of a band and `reach` more on each side, within the frame.
    fn around(&self, band: usize, reach: usize) -> Range<usize> {
        let rows = self.band(band);
        rows.start.saturating_sub(reach)..(rows.end + reach).min(self.height)
    }

    pub(super) fn keeps(&self, first: usize) -> [Keep; TENSORS] {
        std::array::from_fn(|tensor| match tensor {
            ..COMPLETE => Keep::All(self.height),
            _ if tensor < first => Keep::Ring(0),
            _ => Keep::Ring(self.rows_of(tensor)),
        })
    }

    /// Rows of a tensor in a frame.
    fn rows_of(&self, tensor: usize) -> usize {
        match tensor {
            C2 => self.grid.height2,
            POOLED | GRID => self.grid.height3,
            P | G => self.height_in_words(),
            _ => self.height,
        }
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

/// The graph that copies the LR frame with margins and computes the trunk.
pub(super) fn enter_graph(shape: &Shape, threads: usize) -> Graph {
    // The former content of the tensors is not read.
    Graph::new(&enter_stages(shape, Places::in_place(shape)), &shape.keeps(TENSORS), threads)
}

/// The graph of one block, in place in the trunk.
pub(super) fn block_graph(shape: &Shape, threads: usize) -> Graph {
    Graph::new(&block_stages(shape, Places::in_place(shape)), &shape.keeps(P), threads)
}

/// The graph of the tail: the trunk in words, `conv_2` in a tail of two steps, and the last conv.
pub(super) fn leave_graph(shape: &Shape, threads: usize, two_steps: bool) -> Graph {
    Graph::new(&leave_stages(shape, Places::in_place(shape), two_steps), &shape.keeps(W), threads)
}

/// The graph of all parts one after the other, in which no tensor is kept completely.
pub(super) fn graph_of_all(shape: &Shape, threads: usize, blocks: usize, two_steps: bool) -> Graph {
    let places = |part| Places::of_part(part, blocks);
    // The trunk that `enter` computes is that of the first block.
    let mut stages = enter_stages(shape, Places { out: places(0).of[Z], ..places(0) });
    stages.extend((0..blocks).flat_map(|block| block_stages(shape, places(block))));
    stages.extend(leave_stages(shape, places(blocks), two_steps));
    let keeps: Vec<_> =
        tensors_of_all(blocks).into_iter().map(|tensor| Keep::Ring(shape.rows_of(tensor))).collect();
    Graph::new(&stages, &keeps, threads)
}

fn enter_stages(shape: &Shape, places: Places) -> Vec<Stage<'_>> {
    let x = places.of[X];
    vec![
        stage("copy", shape.bands(), |_| vec![], move |band| vec![(x, places.later(shape.band(band)))]),
        stage(
            "enter",
            shape.bands(),
            move |band| vec![(x, places.later(shape.around(band, 1)))],
            move |band| vec![(places.out, places.later(shape.band(band)))],
        ),
    ]
}

fn block_stages(shape: &Shape, places: Places) -> Vec<Stage<'_>> {
    let Places { of, out, .. } = places;
    let grid = shape.grid;
    let grid_rows = move |band: usize| {
        let rows = shape.band(band);
        let (first, last) =
            (shape.rows.pair(rows.start, grid.height3), shape.rows.pair(rows.end - 1, grid.height3));
        first[0]..last[1] + 1
    };
    let rows2 = move |band: usize| 2 * band..(2 * band + 2).min(grid.height2);
    let mut stages = vec![
        stage(
            "norm",
            shape.bands(),
            move |band| vec![(of[shape.trunk()], shape.in_words(shape.around(band, 3)))],
            move |band| vec![(of[N], shape.band(band)), (of[C1], shape.band(band))],
        ),
        stage(
            "conv2",
            grid.height2.div_ceil(2),
            move |band| vec![(of[C1], 2 * rows2(band).start..2 * rows2(band).end + 1)],
            move |band| vec![(of[C2], rows2(band))],
        ),
        stage(
            "pool",
            grid.height3,
            move |y| vec![(of[C2], 3 * y..3 * y + 7)],
            move |y| vec![(of[POOLED], y..y + 1)],
        ),
        stage(
            "conv3",
            grid.height3,
            move |y| vec![(of[POOLED], y.saturating_sub(1)..(y + 2).min(grid.height3))],
            move |y| vec![(of[GRID], y..y + 1)],
        ),
        stage(
            "gate",
            shape.bands(),
            move |band| vec![(of[N], shape.band(band)), (of[GRID], grid_rows(band))],
            move |band| vec![(of[G], shape.in_words(shape.band(band)))],
        ),
        stage(
            "add",
            shape.bands(),
            move |band| vec![(of[G], shape.in_words(shape.around(band, 3))), (of[Z], shape.band(band))],
            move |band| vec![(of[U], shape.band(band))],
        ),
        stage(
            "cab0",
            shape.bands(),
            move |band| vec![(of[U], shape.around(band, 1))],
            move |band| vec![(of[T], shape.band(band))],
        ),
        stage(
            "cab2",
            shape.bands(),
            move |band| vec![(of[T], shape.around(band, 1))],
            move |band| vec![(out, places.later(shape.band(band)))],
        ),
    ];
    if shape.trunk() == P {
        let pairs = stage(
            "pairs",
            shape.bands(),
            move |band| vec![(of[Z], shape.band(band))],
            move |band| vec![(of[P], shape.in_words(shape.band(band)))],
        );
        stages.insert(0, pairs);
    }
    stages
}

fn leave_stages(shape: &Shape, places: Places, two_steps: bool) -> Vec<Stage<'_>> {
    let of = places.of;
    let last = of[if two_steps { V } else { W }];
    let mut stages = vec![
        stage(
            "words",
            shape.bands(),
            move |band| vec![(of[Z], shape.band(band))],
            move |band| vec![(of[W], shape.band(band))],
        ),
        stage(
            "leave",
            shape.bands(),
            move |band| vec![(last, shape.around(band, 2)), (of[X], shape.around(band, 2))],
            |_| vec![],
        ),
    ];
    if two_steps {
        let step = stage(
            "step",
            shape.bands(),
            move |band| vec![(of[W], shape.around(band, 1))],
            move |band| vec![(of[V], shape.band(band))],
        );
        stages.insert(1, step);
    }
    stages
}

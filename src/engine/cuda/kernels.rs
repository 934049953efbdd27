//! One typed launcher per kernel: its arguments, grid, shared memory and demand.
//!
//! In: parts of the device's memory and sizes. A launcher asserts that each part is large enough for its kernel's accesses,
//! so that no launch of this module accesses memory outside. It knows no model, no frame and no order of stages.

use bytemuck::{NoUninit, Zeroable};

use super::args::*;
use super::demand::Demand;
use super::device::{Device, Launch};
use super::maps::{BlockWeights, F16, F32, Map, Maps, Part, SUMMED, Size, TailWeights, dense_len, tiles};
use crate::error::Result;

/// Threads per block, of every kernel.
pub(super) const THREADS: usize = 256;
const WARPS: usize = THREADS / 32;

/// The names of a kernel, indexed by [`Size::index`].
macro_rules! by_size {
    ($name:literal) => {
        [concat!($name, "_lite"), concat!($name, "_paper"), concat!($name, "_wide")]
    };
}

/// Stride of pixels in shared memory, in elements.
const fn stride(channels: usize) -> usize {
    if channels / 8 % 2 == 1 { channels } else { channels + 8 }
}

/// The memory layout of a component's samples.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Samples {
    pub(super) width: usize,
    pub(super) height: usize,
    /// Bytes from one row to the next.
    pub(super) linesize: usize,
    /// Bytes from one sample to the next.
    pub(super) step: usize,
    /// 1, 2, or 4 for floats.
    pub(super) word_bytes: usize,
    pub(super) big_endian: bool,
    pub(super) shift: u8,
    pub(super) depth: u8,
    /// `value = (code - zero) / unit`.
    pub(super) zero: f32,
    pub(super) unit: f32,
}

impl Samples {
    /// Bytes from the first sample to the end of the last one.
    fn extent(&self) -> usize {
        (self.height - 1) * self.linesize + (self.width - 1) * self.step + self.word_bytes
    }

    /// `Word` of `common.cuh`.
    fn word(&self) -> u32 {
        self.word_bytes as u32 / 2
    }

    fn mask(&self) -> u32 {
        ((1u64 << self.depth) - 1) as u32
    }
}

/// The operation of the kernel `probe`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Probe {
    /// Copies 16-byte words.
    Copy { words: usize },
    /// Tensor core operations; `rounds` per thread.
    Matrix { blocks: usize, rounds: usize },
    /// f32 operations.
    F32 { blocks: usize, rounds: usize },
    /// Special functions.
    Special { blocks: usize, rounds: usize },
}

impl Probe {
    /// Bytes written.
    pub(super) fn out_len(self) -> usize {
        match self {
            Probe::Copy { words } => 16 * words,
            Probe::Matrix { blocks, .. } | Probe::F32 { blocks, .. } | Probe::Special { blocks, .. } => {
                blocks * THREADS * F32
            }
        }
    }

    /// Bytes read.
    pub(super) fn in_len(self) -> usize {
        if let Probe::Copy { words } = self { 16 * words } else { 0 }
    }

    pub(super) fn demand(self) -> Demand {
        let bytes = self.out_len() as f64;
        let of_threads = |blocks: usize, rounds: usize, each: f64| (blocks * THREADS * rounds) as f64 * each;
        match self {
            Probe::Copy { .. } => Demand { bytes: 2.0 * bytes, ..Demand::default() },
            // Eight products of 16 x 16 by 16 x 8, by 32 threads.
            Probe::Matrix { blocks, rounds } => {
                Demand { bytes, matrix: of_threads(blocks, rounds, 1024.0), ..Demand::default() }
            }
            Probe::F32 { blocks, rounds } => {
                Demand { bytes, f32: of_threads(blocks, rounds, 128.0), ..Demand::default() }
            }
            Probe::Special { blocks, rounds } => {
                Demand { bytes, special: of_threads(blocks, rounds, 8.0), ..Demand::default() }
            }
        }
    }
}

/// The source of `egress`.
#[derive(Clone, Copy, Debug)]
pub(super) enum Source {
    /// [H, W] f32.
    Plane(Part),
    /// One value for all samples.
    Value(f32),
}

/// One pass of a resampler.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Axis {
    pub(super) vertical: bool,
    /// `[out]` u32.
    pub(super) starts: Part,
    /// `[out, count]` f32.
    pub(super) weights: Part,
    pub(super) count: usize,
    pub(super) in_len: usize,
    pub(super) out_len: usize,
}

/// Launches kernels on one stream.
pub(super) struct Launcher<'a, D: Device> {
    pub(super) device: &'a D,
    pub(super) stream: &'a D::Stream,
    /// Called after each launch, with the kernel's name.
    pub(super) after_launch: &'a dyn Fn(&'static str, Demand) -> Result<()>,
}

impl<D: Device> Launcher<'_, D> {
    fn launch(
        &self,
        kernel: &'static str,
        (x, y): (usize, usize),
        shared: usize,
        args: &impl NoUninit,
        demand: Demand,
    ) -> Result<()> {
        let grid = [x as u32, y as u32, 1];
        let args = bytemuck::bytes_of(args);
        let launch = Launch { kernel, grid, threads: THREADS as u32, shared: shared as u32, args };
        // SAFETY: every caller below fills the twin of the kernel's argument with addresses of parts that it has asserted
        // to be large enough, and the engine keeps their buffers until its streams are idle.
        unsafe { self.device.launch(self.stream, launch)? };
        (self.after_launch)(kernel, demand)
    }

    /// Reads a component. `from`: from its first sample on; `to`: [H, W] f32.
    pub(super) fn ingest(&self, from: Part, to: Part, samples: &Samples) -> Result<()> {
        let Samples { width, height, zero, unit, .. } = *samples;
        let args = IngestArgs {
            from: from.holds(samples.extent(), 1),
            to: to.holds(width * height, F32),
            width: width as u32,
            height: height as u32,
            linesize: samples.linesize as u32,
            step: samples.step as u32,
            word: samples.word(),
            big_endian: samples.big_endian.into(),
            shift: samples.shift.into(),
            mask: samples.mask(),
            zero,
            unit,
        };
        let demand = Demand::of_samples(width * height, samples.word_bytes + F32, 3);
        self.launch("ingest", (width.div_ceil(THREADS), height), 0, &args, demand)
    }

    /// Writes a component. `to`: from its first sample on.
    pub(super) fn egress(&self, from: Source, to: Part, samples: &Samples, dither: bool) -> Result<()> {
        let Samples { width, height, zero, unit, .. } = *samples;
        let (plane, value) = match from {
            Source::Plane(plane) => (plane.holds(width * height, F32), 0.0),
            Source::Value(value) => (0, value),
        };
        let args = EgressArgs {
            from: plane,
            to: to.holds(samples.extent(), 1),
            width: width as u32,
            height: height as u32,
            linesize: samples.linesize as u32,
            step: samples.step as u32,
            word: samples.word(),
            big_endian: samples.big_endian.into(),
            shift: samples.shift.into(),
            mask: samples.mask(),
            zero,
            unit,
            value,
            dither: dither.into(),
        };
        let demand =
            Demand::of_samples(width * height, samples.word_bytes + if args.from == 0 { 0 } else { F32 }, 6);
        self.launch("egress", (width.div_ceil(THREADS), height), 0, &args, demand)
    }

    /// Multiplies three planes by a matrix, in place.
    pub(super) fn matrix(&self, planes: Part, len: usize, matrix: &[[f32; 3]; 3]) -> Result<()> {
        let rows = *matrix.as_flattened().first_chunk().expect("nine coefficients");
        let args =
            MatrixArgs { planes: planes.holds(3 * len, F32), len: len as u64, rows, ..Zeroable::zeroed() };
        self.launch("matrix", (len.div_ceil(THREADS), 1), 0, &args, Demand::of_samples(3 * len, 2 * F32, 5))
    }

    /// Resamples `from`: [H, W] f32 along one axis. `other`: samples along the other axis.
    pub(super) fn resample(&self, from: Part, to: Part, axis: &Axis, other: usize) -> Result<()> {
        let Axis { vertical, count, in_len, out_len, .. } = *axis;
        let (in_width, width, height) =
            if vertical { (other, other, out_len) } else { (in_len, out_len, other) };
        let args = ResampleArgs {
            from: from.holds(in_len * other, F32),
            to: to.holds(out_len * other, F32),
            starts: axis.starts.holds(out_len, F32),
            weights: axis.weights.holds(out_len * count, F32),
            count: count as u32,
            vertical: vertical.into(),
            in_width: in_width as u32,
            width: width as u32,
            height: height as u32,
            ..Zeroable::zeroed()
        };
        let mut demand = Demand::of_samples(width * height, F32, 2 * count);
        demand.bytes += (in_len * other * F32) as f64;
        self.launch("resample", (width.div_ceil(THREADS), height), 0, &args, demand)
    }

    /// Computes the trunk from `x`: [in, H, W] f32. `conv`: [in, 3, 3, C] f32 and [C].
    pub(super) fn enter(
        &self,
        size: Size,
        x: Part,
        maps: &Maps,
        conv: Map,
        in_channels: usize,
    ) -> Result<()> {
        let Maps { width, height, .. } = *maps;
        let args = EnterArgs {
            x: x.holds(in_channels * width * height, F32),
            trunk: maps.trunk.holds(width * height * size.c, F16),
            weights: conv.weight.holds(in_channels * 9 * size.c, F32),
            bias: conv.bias.holds(size.c, F32),
            in_channels: in_channels as i32,
            width: width as i32,
            height: height as i32,
            ..Zeroable::zeroed()
        };
        let grid = ((width * size.c / 8).div_ceil(THREADS), height);
        let demand = Demand::enter(size, maps, in_channels);
        self.launch(by_size!("enter")[size.index], grid, 0, &args, demand)
    }

    /// Computes `n` and `c1` from the trunk times `scale`. `dim`: C without padding.
    pub(super) fn norm(
        &self,
        size: Size,
        maps: &Maps,
        scale: Part,
        block: &BlockWeights,
        dim: usize,
    ) -> Result<()> {
        let (pixels, Size { c, e, .. }) = (maps.width * maps.height, size);
        let args = NormArgs {
            trunk: maps.trunk.holds(pixels * c, F16),
            scale: scale.holds(c, F32),
            taps: block.dw_taps.holds(49 * c, F32),
            bias: block.dw_bias.holds(c, F32),
            conv1: block.conv1.weights(c, e, 1),
            conv1_bias: block.conv1.biases(e),
            n: maps.n.holds(pixels * c, F16),
            c1: maps.c1.holds(pixels * e, F16),
            width: maps.width as i32,
            height: maps.height as i32,
            dim: dim as i32,
            ..Zeroable::zeroed()
        };
        const PIXELS: usize = 16 * WARPS;
        let shared = dw_tile(c).max(PIXELS * (c + 1) * F32 + PIXELS * stride(c) * F16);
        self.launch(by_size!("norm")[size.index], dw_grid(maps), shared, &args, Demand::norm(size, maps))
    }

    /// Computes `pooled` from `c1`, and `grid` from `pooled`.
    pub(super) fn esa(&self, size: Size, maps: &Maps, block: &BlockWeights) -> Result<()> {
        let e = size.e;
        let (width3, height3) = maps.grid_size();
        let pooled = maps.pooled.holds(width3 * height3 * e, F16);
        let squeeze = SqueezeArgs {
            c1: maps.c1.holds(maps.width * maps.height * e, F16),
            conv2: block.conv2.weights(e, e, 9),
            bias: block.conv2.biases(e),
            pooled,
            width: maps.width as i32,
            height: maps.height as i32,
            width3: width3 as i32,
            height3: height3 as i32,
        };
        let pool_rows = if e > 16 { 1 } else { 4 };
        let conv_rows = 3 * (pool_rows - 1) + 7;
        let shared = ((2 * conv_rows + 1) * 33 + conv_rows * 16) * stride(e) * F16;
        let blocks = (width3.div_ceil(4), height3.div_ceil(pool_rows));
        let demand = Demand::squeeze(size, maps, blocks.0 * blocks.1 * conv_rows * 16);
        self.launch(by_size!("squeeze")[size.index], blocks, shared, &squeeze, demand)?;
        let grid = GridArgs {
            pooled,
            conv3: block.conv3.weights(e, e, 9),
            bias: block.conv3.biases(e),
            grid: maps.grid.holds(width3 * height3 * e, F16),
            width: width3 as i32,
            height: height3 as i32,
        };
        let shared = 18 * (WARPS + 2) * stride(e) * F16;
        let blocks = (width3.div_ceil(16), height3.div_ceil(WARPS));
        let demand = Demand::grid(size, maps, blocks.0 * blocks.1 * 16 * WARPS);
        self.launch(by_size!("grid")[size.index], blocks, shared, &grid, demand)
    }

    /// Computes the gate from `n` and `grid`, in place of `n`.
    pub(super) fn gate(&self, size: Size, maps: &Maps, block: &BlockWeights) -> Result<()> {
        const PIXELS: usize = 256;
        let (pixels, Size { c, m, e, .. }) = (maps.width * maps.height, size);
        let (width3, height3) = maps.grid_size();
        let args = GateArgs {
            n: maps.n.holds(pixels * c, F16),
            grid: maps.grid.holds(width3 * height3 * e, F16),
            conv_f: block.conv_f.weights(c, e, 1),
            f1: block.f1.weights(c, m, 1),
            f2: block.f2.weights(c, m, 1),
            f3: block.f3.weights(c, m, 1),
            conv4: block.conv4.weights(e, m, 1),
            g: block.g.weights(m, c, 1),
            conv_f_bias: block.conv_f.biases(e),
            f1_bias: block.f1.biases(m),
            f2_bias: block.f2.biases(m),
            f3_bias: block.f3.biases(m),
            conv4_bias: block.conv4.biases(m),
            g_bias: block.g.biases(c),
            width: maps.width as i32,
            height: maps.height as i32,
            width3: width3 as i32,
            height3: height3 as i32,
        };
        let shared = PIXELS * stride(c) * F16;
        let demand = Demand::gate(size, maps, pixels.next_multiple_of(PIXELS));
        self.launch(by_size!("gate")[size.index], (pixels.div_ceil(PIXELS), 1), shared, &args, demand)
    }

    /// Computes the next trunk from the gate's output and the trunk times `scale`, and its channel attention into
    /// `maps.scale`.
    pub(super) fn cab(&self, size: Size, maps: &Maps, scale: Part, block: &BlockWeights) -> Result<()> {
        let (pixels, Size { c, r, rows, .. }) = (maps.width * maps.height, size);
        let tiles = tiles(maps.width, maps.height, size);
        let sums = maps.sums.holds(tiles * c, F32);
        let args = CabArgs {
            gated: maps.n.holds(pixels * c, F16),
            trunk: maps.trunk.holds(pixels * c, F16),
            scale: scale.holds(c, F32),
            taps: block.dw2_taps.holds(49 * c, F32),
            dw_bias: block.dw2_bias.holds(c, F32),
            z: maps.next.holds(pixels * c, F16),
            conv0: block.cab_0.weights(c, r, 9),
            conv2: block.cab_2.weights(r, c, 9),
            conv0_bias: block.cab_0.biases(r),
            conv2_bias: block.cab_2.biases(c),
            sums,
            width: maps.width as i32,
            height: maps.height as i32,
        };
        let inner = (18 * (rows + 2)).next_multiple_of(16) * stride(r) * F16;
        // Eight channels, and one pixel beyond them that the last strip reads.
        let gated = (26 * (rows + 10) + 1) * 8 * F16;
        let shared = tile(c, rows) + inner.max(WARPS * c * F32).max(gated);
        let demand = Demand::cab(size, maps, tiles);
        self.launch(by_size!("cab")[size.index], tile_grid(maps, rows), shared, &args, demand)?;

        let partials = tiles.div_ceil(SUMMED);
        let partial_sums = maps.partial_sums.holds(partials * c, F32);
        let reduce = ReduceArgs { sums, out: partial_sums, rows: tiles as i32, channels: c as i32 };
        self.launch("reduce", (partials, 1), 0, &reduce, Demand::of_samples(tiles * c, F32, 1))?;
        let hidden = block.hidden;
        assert!(c <= THREADS && hidden <= THREADS, "one thread per channel");
        let attention = AttentionArgs {
            sums: partial_sums,
            scale: maps.scale.holds(c, F32),
            weights1: block.attention_1.weight.holds(hidden * c, F32),
            bias1: block.attention_1.bias.holds(hidden, F32),
            weights3: block.attention_3.weight.holds(c * hidden, F32),
            bias3: block.attention_3.bias.holds(c, F32),
            rows: partials as i32,
            channels: c as i32,
            hidden: hidden as i32,
            per_pixel: 1.0 / pixels as f32,
        };
        let demand = Demand { special: 2.0 * c as f64, ..Demand::of_samples(partials * c, F32, 1) };
        self.launch("attention", (1, 1), (c + hidden) * F32, &attention, demand)
    }

    /// Computes `out`: [in, s·H, s·W] f32 from the trunk times `scale` and `x`: [in, H, W] f32. `ones`: [C] f32.
    pub(super) fn leave(
        &self,
        size: Size,
        maps: &Maps,
        tail: &TailWeights,
        (x, out): (Part, Part),
        (scale, ones): (Part, Part),
    ) -> Result<()> {
        let (pixels, Size { c, rows, .. }) = (maps.width * maps.height, size);
        let (mut trunk, mut scale) = (maps.trunk.holds(pixels * c, F16), scale.holds(c, F32));
        if let Some(map) = &tail.first_step {
            let intermediate = maps.next.holds(pixels * c, F16);
            let args = FirstStepArgs {
                trunk,
                scale,
                weights: map.weights(c, c, 9),
                bias: map.biases(c),
                out: intermediate,
                width: maps.width as i32,
                height: maps.height as i32,
            };
            let (blocks, demand) = (tile_grid(maps, rows), Demand::first_step(size, maps));
            self.launch(by_size!("first_step")[size.index], blocks, tile(c, rows), &args, demand)?;
            (trunk, scale) = (intermediate, ones.holds(c, F32));
        }
        let TailWeights { side, in_channels, outputs, scale: upscale, .. } = *tail;
        let taps = side * side;
        let args = LeaveArgs {
            trunk,
            scale,
            x: x.holds(in_channels * pixels, F32),
            out: out.holds(in_channels * pixels * upscale * upscale, F32),
            weights: tail.main.holds(dense_len(c, outputs, taps), 1),
            by_place: tail.by_place.holds(9 * taps * c * outputs, F32),
            skip: tail.skip.holds(9 * in_channels * 25 * outputs, F32),
            bias: tail.bias.holds(9 * outputs, F32),
            side: side as i32,
            in_channels: in_channels as i32,
            outputs: outputs as i32,
            phases: (upscale * upscale) as i32,
            upscale: upscale as i32,
            width: maps.width as i32,
            height: maps.height as i32,
            ..Zeroable::zeroed()
        };
        let shared = tile(c, rows) + in_channels * 20 * (rows + 4) * F32;
        let demand = Demand::leave(size, maps, tail);
        self.launch(by_size!("leave")[size.index], tile_grid(maps, rows), shared, &args, demand)
    }

    /// Runs a probe. `from` (of a copy) and `to`: as much memory as [`Probe`] states.
    pub(super) fn probe(&self, probe: Probe, from: Part, to: Part) -> Result<()> {
        let demand = probe.demand();
        let (kind, blocks, rounds, words) = match probe {
            Probe::Copy { words } => (0, words.div_ceil(4 * THREADS), 0, words),
            Probe::Matrix { blocks, rounds } => (1, blocks, rounds, 0),
            Probe::F32 { blocks, rounds } => (2, blocks, rounds, 0),
            Probe::Special { blocks, rounds } => (3, blocks, rounds, 0),
        };
        let args = ProbeArgs {
            from: from.holds(probe.in_len(), 1),
            to: to.holds(probe.out_len(), 1),
            words: words as u64,
            kind,
            rounds: rounds as u32,
            ones: 0x3c00_3c00,
            factor: 1.0,
            addend: 1.0,
            ..Zeroable::zeroed()
        };
        self.launch("probe", (blocks, 1), 0, &args, demand)
    }
}

/// Thread blocks of the depthwise convs, 16 x 8 pixels each.
fn dw_grid(maps: &Maps) -> (usize, usize) {
    (maps.width.div_ceil(16), maps.height.div_ceil(WARPS))
}

/// Bytes of their tile with 3 pixels around it.
fn dw_tile(c: usize) -> usize {
    22 * (WARPS + 6) * stride(c) * F16
}

/// Thread blocks of 16 x `rows` pixels.
fn tile_grid(maps: &Maps, rows: usize) -> (usize, usize) {
    (maps.width.div_ceil(16), maps.height.div_ceil(rows))
}

/// Bytes of such a tile with 2 pixels around it.
fn tile(c: usize, rows: usize) -> usize {
    20 * (rows + 4) * stride(c) * F16
}

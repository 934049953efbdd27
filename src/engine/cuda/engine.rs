//! The ring: frames of the host through a network on the device, with copies that overlap the kernels.
//!
//! In: an LR frame and an SR frame to fill. Out: both, in order, the second one filled. A slot of the ring has pinned
//! memory, buffers on the device, and for every network the launches of a frame as a graph. Three streams run
//! concurrently: copy in, compute and copy out of a slot each wait for the event of the previous step. All memory is
//! allocated at open, and its size is known before the first allocation.
//!
//! A frame follows the same [`plan`] as on the host. This file knows neither the driver nor FFmpeg.

use std::cell::RefCell;

use super::demand::Demand;
use super::device::{Buffer, Device, GRID_YZ_MAX, MemoryInfo, Pinned};
use super::kernels::{Axis, Launcher, Source};
use super::layout::Layout;
use super::maps::{MAPS, Maps, Part};
use super::net;
use super::weights::{Blob, Weights};
use crate::engine::plan::{Passes, Shape, Slot, Step, plan};
use crate::engine::{Engine, EngineSpec, Network, NetworkId};
use crate::error::{Error, ErrorKind, Result};
use crate::frame::Frame;
use crate::pixel::resample::{Grid, Resampler, Taps};

/// One frame is copied in, one computed, one copied out.
const DEPTH: usize = 3;

/// Bytes of device memory reserved for the driver: modules, graphs, the display.
const RESERVE: usize = 128 << 20;

/// [`Engine`] on a device. Fields are dropped in order: the device's resources before the device.
pub(crate) struct CudaEngine<D: Device> {
    slots: Vec<RingSlot<D>>,
    /// Number of submitted frames.
    submitted: usize,
    /// Number of collected frames.
    collected: usize,
    lr: Layout,
    sr: Layout,
    streams: Streams<D>,
    networks: Vec<OpenNetwork>,
    buffers: Buffers,
    _memory: Vec<D::Buffer>,
    device: D,
}

/// A timed launch of a frame.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct TimedLaunch {
    pub(super) kernel: &'static str,
    pub(super) demand: Demand,
    /// From the end of the launch before to its own end.
    pub(super) seconds: f64,
}

struct Streams<D: Device> {
    copy_in: D::Stream,
    compute: D::Stream,
    copy_out: D::Stream,
}

struct RingSlot<D: Device> {
    /// Indexed by network.
    graphs: Vec<D::Graph>,
    lr_pinned: D::Pinned,
    sr_pinned: D::Pinned,
    lr_buffer: D::Buffer,
    sr_buffer: D::Buffer,
    copied_in: D::Event,
    computed: D::Event,
    copied_out: D::Event,
    pair: Option<(Frame, Frame)>,
}

impl<D: Device> CudaEngine<D> {
    /// Checks that the device has enough memory, without allocating it.
    pub(crate) fn check(device: &D, spec: &EngineSpec) -> Result<()> {
        MemoryNeeds::new(spec)?.depth(device).map(drop)
    }

    /// Opens an engine for the networks of `spec`; where memory does not suffice, none is allocated.
    pub(crate) fn open(device: D, spec: &EngineSpec) -> Result<CudaEngine<D>> {
        let (lr, sr) = (Layout::new(spec.lr), Layout::new(spec.sr));
        let needs = MemoryNeeds::new(spec)?;
        let depth = needs.depth(&device)?;

        let mut memory = Vec::new();
        let mut alloc = |len: usize| -> Result<Part> {
            // A device allocates at least one byte.
            memory.push(device.alloc(len.max(1))?);
            Ok(part_of(&memory[memory.len() - 1]))
        };
        let weights = alloc(needs.weights)?;
        let mut blob = Blob::at(weights.address);
        let networks = open_networks(spec, &mut blob)?;
        let mut parts = [weights; MAPS];
        for (part, len) in parts.iter_mut().zip(needs.maps) {
            *part = alloc(len)?;
        }
        let buffers = Buffers {
            maps: parts,
            lr: alloc(needs.lr)?,
            sr: alloc(needs.sr)?,
            intermediate: [alloc(needs.intermediate[0])?, alloc(needs.intermediate[1])?],
            columns: alloc(needs.columns)?,
            dither: crate::engine::host::dithers(&spec.lr, &spec.sr),
        };
        let streams =
            Streams { copy_in: device.stream()?, compute: device.stream()?, copy_out: device.stream()? };
        upload(&device, &streams.copy_in, &memory[0], &blob.bytes)?;
        let slots = (0..depth)
            .map(|_| RingSlot::new(&device, &streams, (&lr, &sr), &networks, &buffers))
            .collect::<Result<_>>()?;
        let (submitted, collected) = (0, 0);
        Ok(CudaEngine {
            slots,
            submitted,
            collected,
            lr,
            sr,
            streams,
            networks,
            buffers,
            _memory: memory,
            device,
        })
    }

    /// Runs the launches of a frame one by one, with a timer after each.
    pub(super) fn time_launches(&mut self, network: NetworkId) -> Result<Vec<TimedLaunch>> {
        assert_eq!(self.submitted, self.collected, "a frame is in flight");
        let CudaEngine { device, streams, slots, lr, sr, buffers, networks, .. } = self;
        let (stream, slot) = (&streams.compute, &slots[0]);
        let timers = RefCell::new(vec![device.timer()?]);
        device.record(stream, &timers.borrow()[0])?;
        let launched = RefCell::new(Vec::new());
        let after_launch = |kernel, demand| {
            let timer = device.timer()?;
            device.record(stream, &timer)?;
            timers.borrow_mut().push(timer);
            launched.borrow_mut().push(TimedLaunch { kernel, demand, seconds: 0.0 });
            Ok(())
        };
        let launcher = Launcher { device, stream, after_launch: &after_launch };
        let (from, to) = ((&*lr, part_of(&slot.lr_buffer)), (&*sr, part_of(&slot.sr_buffer)));
        buffers.run(&launcher, &networks[network.0], from, to)?;
        let (timers, mut launched) = (timers.into_inner(), launched.into_inner());
        device.synchronize(timers.last().expect("the first one"))?;
        for (launch, timers) in launched.iter_mut().zip(timers.windows(2)) {
            launch.seconds = device.elapsed_s(&timers[0], &timers[1])?;
        }
        Ok(launched)
    }

    fn start(&mut self, slot: usize, network: NetworkId) -> Result<()> {
        let CudaEngine { device, streams, slots, .. } = self;
        let Streams { copy_in, compute, copy_out } = streams;
        let slot = &mut slots[slot];
        // SAFETY: pinned memory and buffers are the slot's, which is not used again before `copied_out` is completed; the
        // graph's launches access memory that the engine owns.
        unsafe {
            device.copy_in(copy_in, &slot.lr_buffer, &slot.lr_pinned)?;
            device.record(copy_in, &slot.copied_in)?;
            device.wait(compute, &slot.copied_in)?;
            device.replay(compute, &slot.graphs[network.0])?;
            device.record(compute, &slot.computed)?;
            device.wait(copy_out, &slot.computed)?;
            device.copy_out(copy_out, &mut slot.sr_pinned, &slot.sr_buffer)?;
            device.record(copy_out, &slot.copied_out)
        }
    }
}

impl<D: Device> Engine for CudaEngine<D> {
    fn depth(&self) -> usize {
        self.slots.len()
    }

    fn submit(&mut self, lr: Frame, sr: Frame, network: NetworkId) -> Result<()> {
        assert!(self.submitted - self.collected < self.depth(), "a frame was submitted to a full ring");
        assert_eq!(lr.format, self.lr.format, "LR frame");
        assert_eq!(sr.format, self.sr.format, "SR frame");
        let slot = self.submitted % self.depth();
        self.lr.gather(lr.buffer.as_ref(), self.slots[slot].lr_pinned.bytes_mut());
        self.start(slot, network)?;
        self.slots[slot].pair = Some((lr, sr));
        self.submitted += 1;
        Ok(())
    }

    fn collect(&mut self) -> Result<Option<(Frame, Frame)>> {
        let slot = self.collected % self.depth();
        let slot = &mut self.slots[slot];
        let Some((lr, mut sr)) = slot.pair.take() else { return Ok(None) };
        self.collected += 1;
        self.device.synchronize(&slot.copied_out)?;
        self.sr.scatter(slot.sr_pinned.bytes(), sr.buffer.as_mut());
        Ok(Some((lr, sr)))
    }
}

impl<D: Device> Drop for CudaEngine<D> {
    /// Waits for all work, which uses the memory that is freed: also for that of a frame whose start failed half way.
    fn drop(&mut self) {
        let CudaEngine { device, streams, slots, .. } = self;
        let event = &slots[0].copied_out;
        for stream in [&streams.copy_in, &streams.compute, &streams.copy_out] {
            // An error here follows one that was reported.
            let _ = device.record(stream, event).and_then(|()| device.synchronize(event));
        }
    }
}

impl<D: Device> RingSlot<D> {
    fn new(
        device: &D,
        streams: &Streams<D>,
        (lr, sr): (&Layout, &Layout),
        networks: &[OpenNetwork],
        buffers: &Buffers,
    ) -> Result<RingSlot<D>> {
        let (lr_buffer, sr_buffer) = (device.alloc(lr.len)?, device.alloc(sr.len)?);
        let sr_pinned = device.alloc_pinned(sr.len)?;
        let copied_out = device.event()?;
        // Padding of rows is copied out as well: it is zeroed here.
        // SAFETY: both live until the event below is completed.
        unsafe { device.copy_in(&streams.copy_in, &sr_buffer, &sr_pinned)? };
        device.record(&streams.copy_in, &copied_out)?;
        device.synchronize(&copied_out)?;
        let launcher = Launcher { device, stream: &streams.compute, after_launch: &|_, _| Ok(()) };
        let (from, to) = ((lr, part_of(&lr_buffer)), (sr, part_of(&sr_buffer)));
        let graph = |network: &OpenNetwork| {
            device.capture(&streams.compute, &mut || buffers.run(&launcher, network, from, to))
        };
        Ok(RingSlot {
            graphs: networks.iter().map(graph).collect::<Result<_>>()?,
            lr_pinned: device.alloc_pinned(lr.len)?,
            sr_pinned,
            lr_buffer,
            sr_buffer,
            copied_in: device.event()?,
            computed: device.event()?,
            copied_out,
            pair: None,
        })
    }
}

pub(super) fn part_of(buffer: &impl Buffer) -> Part {
    Part { address: buffer.address(), len: buffer.len() }
}

fn upload<D: Device>(device: &D, stream: &D::Stream, to: &D::Buffer, bytes: &[u8]) -> Result<()> {
    let mut pinned = device.alloc_pinned(bytes.len())?;
    pinned.bytes_mut().copy_from_slice(bytes);
    let event = device.event()?;
    // SAFETY: both live until the event below is completed.
    unsafe { device.copy_in(stream, to, &pinned)? };
    device.record(stream, &event)?;
    device.synchronize(&event)
}

/// A network with its plan and its weights in device memory.
struct OpenNetwork {
    steps: Vec<OpenStep>,
    weights: Option<Weights>,
}

struct OpenStep {
    step: Step,
    /// The vertical and the horizontal pass of a step that resamples.
    axes: Option<[Option<Axis>; 2]>,
}

fn open_networks(spec: &EngineSpec, blob: &mut Blob) -> Result<Vec<OpenNetwork>> {
    let open = |network: &Network| {
        let (shape, weights) = match network {
            Network::Resample => (None, None),
            Network::Hasn(model) => (Some(Shape::of(&model.sizes)), Some(Weights::new(model, blob)?)),
        };
        let mut with_axes = |step: Step| {
            let by = match &step {
                Step::Resample { by, .. } => Some(by),
                Step::Network(passes) => passes.exact.as_ref(),
                _ => None,
            };
            let axes = by.map(|by| axes(by, blob));
            OpenStep { step, axes }
        };
        let steps = plan(&spec.lr, &spec.sr, shape)?.into_iter().map(&mut with_axes).collect();
        Ok(OpenNetwork { steps, weights })
    };
    spec.networks.iter().map(open).collect()
}

/// Vertical first, as on the host; an identity is omitted, unless both are.
fn axes(by: &Resampler, blob: &mut Blob) -> [Option<Axis>; 2] {
    let mut axis = |taps: &Taps, vertical| {
        let starts: Vec<u32> = taps.starts.iter().map(|&start| start as u32).collect();
        Axis {
            vertical,
            starts: blob.push(&starts),
            weights: blob.push(&taps.weights),
            count: taps.count,
            in_len: taps.in_len,
            out_len: taps.out_len,
        }
    };
    let down = (!by.y.identity).then(|| axis(&by.y, true));
    let across = (!by.x.identity || down.is_none()).then(|| axis(&by.x, false));
    [down, across]
}

/// Bytes of device memory, by purpose.
#[derive(Default)]
struct MemoryNeeds {
    weights: usize,
    maps: [usize; MAPS],
    lr: usize,
    sr: usize,
    intermediate: [usize; 2],
    columns: usize,
    /// Per slot of the ring.
    slot: usize,
}

impl MemoryNeeds {
    fn new(spec: &EngineSpec) -> Result<MemoryNeeds> {
        let (lr, sr) = (Layout::new(spec.lr), Layout::new(spec.sr));
        // Packs the weights without an address: their size does not depend on it.
        let mut blob = Blob::default();
        let networks = open_networks(spec, &mut blob)?;
        let mut needs =
            MemoryNeeds { weights: blob.bytes.len(), slot: lr.len + sr.len, ..MemoryNeeds::default() };
        let (lr_plane, sr_plane) = (lr.plane_len(), sr.plane_len());
        let mut rows_max = spec.lr.height.max(spec.sr.height);
        let grow = |len: &mut usize, to: usize| *len = (*len).max(to);
        for OpenNetwork { steps, weights } in &networks {
            for OpenStep { step, axes } in steps {
                let (lr_used, sr_used) = step.planes_used();
                grow(&mut needs.lr, lr_used * lr_plane);
                grow(&mut needs.sr, sr_used * sr_plane);
                if let Some([Some(down), Some(across)]) = axes {
                    grow(&mut needs.columns, across.in_len * down.out_len * size_of::<f32>());
                }
                let Step::Network(passes) = step else { continue };
                let size = weights.as_ref().expect("a network has weights").size;
                for (pass, &(width, height)) in passes.sizes.iter().enumerate() {
                    grow(&mut rows_max, height);
                    for (len, map) in needs.maps.iter_mut().zip(Maps::lens(width, height, size)) {
                        grow(len, map);
                    }
                    if !passes.ends_in_sr(pass) {
                        grow(&mut needs.intermediate[pass % 2], 4 * passes.out_len(pass));
                    }
                }
            }
        }
        // Some kernels have a row of blocks for each row of a plane.
        if rows_max > GRID_YZ_MAX as usize {
            let problem = format!("a GPU takes at most {GRID_YZ_MAX} rows, and a plane has {rows_max}");
            return Err(Error::new("frame", problem, "use --engine cpu").with_kind(ErrorKind::Unsupported));
        }
        Ok(needs)
    }

    /// Number of slots that fit into the free memory, at most [`DEPTH`].
    fn depth<D: Device>(&self, device: &D) -> Result<usize> {
        let MemoryInfo { free, total } = device.memory()?;
        let fixed = self.weights + self.maps.iter().sum::<usize>() + self.lr + self.sr;
        let fixed = fixed + self.intermediate.iter().sum::<usize>() + self.columns + RESERVE;
        let depth = free.saturating_sub(fixed) / self.slot;
        if depth == 0 {
            let mb = |bytes: usize| bytes.div_ceil(1_000_000);
            let needed = fixed + self.slot;
            let problem = format!(
                "{} MB of its memory are needed and {} of {} MB are free: {} MB are missing",
                mb(needed),
                mb(free),
                mb(total),
                mb(needed - free)
            );
            return Err(Error::new(device.name(), problem, "use --engine cpu, or a smaller model or frame")
                .with_kind(ErrorKind::Device));
        }
        if depth < DEPTH {
            tracing::info!(depth, "device memory is short: fewer frames in flight");
        }
        Ok(depth.min(DEPTH))
    }
}

/// The device memory that all frames share.
struct Buffers {
    maps: [Part; MAPS],
    /// [1 or 3, H, W] f32, the banks of [`Step`].
    lr: Part,
    sr: Part,
    /// Outputs of the passes that do not write the SR planes: of even and of odd passes.
    intermediate: [Part; 2],
    /// A plane that is resampled vertically only.
    columns: Part,
    dither: bool,
}

impl Buffers {
    /// Launches the steps of one frame. `from`, `to`: the LR and the SR frame in device memory.
    fn run<D: Device>(
        &self,
        launcher: &Launcher<'_, D>,
        network: &OpenNetwork,
        from: (&Layout, Part),
        to: (&Layout, Part),
    ) -> Result<()> {
        let (lr, sr) = (from.0, to.0);
        let slot = |slot: Slot, grid: &Grid| match slot {
            Slot::Lr(i) => self.lr.at(i * lr.plane_len(), grid.len() * size_of::<f32>()),
            Slot::Sr(i) => self.sr.at(i * sr.plane_len(), grid.len() * size_of::<f32>()),
        };
        for OpenStep { step, axes } in &network.steps {
            match step {
                Step::Read { component, to } => {
                    let (part, samples) = lr.component(*component, from.1);
                    launcher.ingest(part, slot(*to, &Grid::of(&lr.format, *component)), &samples)?;
                }
                Step::Resample { from, to, .. } => {
                    let axes = axes.as_ref().expect("a step that resamples has axes");
                    self.resample(launcher, slot(from.0, &from.1), slot(to.0, &to.1), axes)?;
                }
                Step::Network(passes) => {
                    let weights = network.weights.as_ref().expect("a network has weights");
                    self.run_network(launcher, weights, passes, axes.as_ref(), sr)?;
                }
                Step::MatrixLr(matrix) => {
                    launcher.matrix(self.lr, lr.format.width * lr.format.height, matrix)?;
                }
                Step::MatrixSr(matrix) => {
                    launcher.matrix(self.sr, sr.format.width * sr.format.height, matrix)?;
                }
                Step::Write { from: (from, grid), component } => {
                    let (part, samples) = sr.component(*component, to.1);
                    launcher.egress(Source::Plane(slot(*from, grid)), part, &samples, self.dither)?;
                }
                Step::Fill { component, value } => {
                    let (part, samples) = sr.component(*component, to.1);
                    launcher.egress(Source::Value(*value), part, &samples, false)?;
                }
            }
        }
        Ok(())
    }

    fn resample<D: Device>(
        &self,
        launcher: &Launcher<'_, D>,
        from: Part,
        to: Part,
        axes: &[Option<Axis>; 2],
    ) -> Result<()> {
        match axes {
            [Some(down), Some(across)] => {
                launcher.resample(from, self.columns, down, across.in_len)?;
                launcher.resample(self.columns, to, across, down.out_len)
            }
            [Some(axis), None] | [None, Some(axis)] => {
                let other = from.len / size_of::<f32>() / axis.in_len;
                launcher.resample(from, to, axis, other)
            }
            [None, None] => unreachable!("`axes` gives at least one"),
        }
    }

    fn run_network<D: Device>(
        &self,
        launcher: &Launcher<'_, D>,
        weights: &Weights,
        passes: &Passes,
        exact: Option<&[Option<Axis>; 2]>,
        sr: &Layout,
    ) -> Result<()> {
        let mut x = self.lr;
        for (pass, &(width, height)) in passes.sizes.iter().enumerate() {
            let out = if passes.ends_in_sr(pass) { self.sr } else { self.intermediate[pass % 2] };
            let maps = Maps::new(width, height, self.maps);
            net::run(launcher, weights, maps, (x, out))?;
            x = out;
        }
        if let Some(axes) = exact {
            let len = passes.output_size.0 * passes.output_size.1 * size_of::<f32>();
            for channel in 0..passes.channels {
                let to = self.sr.at(channel * sr.plane_len(), sr.plane_len());
                self.resample(launcher, x.at(channel * len, len), to, axes)?;
            }
        }
        Ok(())
    }
}

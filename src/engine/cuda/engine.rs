//! The ring: frames on the host through a network on the device, copies beside the kernels.
//!
//! In: an LR frame and an SR frame to fill. Out: both, in order, the second one filled. A slot of the ring has
//! pinned memory, its copy on the device, and for every network the launches of a frame as a graph. Three streams
//! run beside each other: a slot is copied in, worked on and copied out behind the events of the stream before. All
//! memory is taken at open, and how much that is, is known before the first byte of it.
//!
//! What happens to a frame is the same [`plan`] as on the host. It knows neither the driver nor FFmpeg.

use std::cell::RefCell;

use super::demand::Demand;
use super::device::{Buffer, Device, MemoryInfo, Pinned};
use super::kernels::{Axis, Launcher};
use super::layout::Layout;
use super::maps::{MAPS, Maps, Part};
use super::net;
use super::weights::{Blob, Weights};
use crate::engine::plan::{Passes, Shape, Slot, Step, plan};
use crate::engine::{Engine, EngineSpec, Network, NetworkId};
use crate::error::{Error, Result};
use crate::frame::Frame;
use crate::pixel::resample::{Grid, Resampler, Taps};

/// One is copied in, one is worked on, one is copied out.
const DEPTH: usize = 3;

/// Bytes of the device's memory that are left to the driver: modules, graphs, what others draw on the screen.
const RESERVE: usize = 128 << 20;

/// [`Engine`] on a device. Fields are dropped in order: what the device handed out before the device.
pub(crate) struct CudaEngine<D: Device> {
    slots: Vec<RingSlot<D>>,
    /// Frames submitted and collected.
    submitted: usize,
    collected: usize,
    lr: Layout,
    sr: Layout,
    streams: Streams<D>,
    networks: Vec<Ready>,
    work: Work,
    _memory: Vec<D::Buffer>,
    device: D,
}

/// A launch of a frame.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Launched {
    pub(super) kernel: &'static str,
    pub(super) demand: Demand,
    /// From the end of the launch before to its own.
    pub(super) seconds: f64,
}

struct Streams<D: Device> {
    copy_in: D::Stream,
    compute: D::Stream,
    copy_out: D::Stream,
}

struct RingSlot<D: Device> {
    /// By network.
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
    /// Whether the device has the memory for it; nothing is taken.
    pub(crate) fn check(device: &D, spec: &EngineSpec) -> Result<()> {
        Needs::new(spec)?.depth(device).map(drop)
    }

    /// An engine for the networks of `spec`; nothing is taken of the device where it does not suffice.
    pub(crate) fn open(device: D, spec: &EngineSpec) -> Result<CudaEngine<D>> {
        let (lr, sr) = (Layout::new(spec.lr), Layout::new(spec.sr));
        let needs = Needs::new(spec)?;
        let depth = needs.depth(&device)?;

        let mut memory = Vec::new();
        let mut take = |len: usize| -> Result<Part> {
            // No device gives nothing.
            memory.push(device.alloc(len.max(1))?);
            Ok(part_of(&memory[memory.len() - 1]))
        };
        let weights = take(needs.weights)?;
        let mut blob = Blob::at(weights.address);
        let networks = ready(spec, &mut blob)?;
        let mut parts = [weights; MAPS];
        for (part, len) in parts.iter_mut().zip(needs.maps) {
            *part = take(len)?;
        }
        let work = Work {
            maps: parts,
            lr: take(needs.lr)?,
            sr: take(needs.sr)?,
            between: [take(needs.between[0])?, take(needs.between[1])?],
            columns: take(needs.columns)?,
            dither: crate::engine::host::dithers(&spec.lr, &spec.sr),
        };
        let streams =
            Streams { copy_in: device.stream()?, compute: device.stream()?, copy_out: device.stream()? };
        upload(&device, &streams.copy_in, &memory[0], &blob.bytes)?;
        let slots = (0..depth)
            .map(|_| RingSlot::new(&device, &streams, (&lr, &sr), &networks, &work))
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
            work,
            _memory: memory,
            device,
        })
    }

    /// The launches of the frame that was copied in first, each by itself with a timer behind it.
    pub(super) fn time_launches(&mut self, network: NetworkId) -> Result<Vec<Launched>> {
        assert_eq!(self.submitted, self.collected, "a frame is under way");
        let CudaEngine { device, streams, slots, lr, sr, work, networks, .. } = self;
        let (stream, slot) = (&streams.compute, &slots[0]);
        let timers = RefCell::new(vec![device.timer()?]);
        device.record(stream, &timers.borrow()[0])?;
        let launched = RefCell::new(Vec::new());
        let behind = |kernel, demand| {
            let timer = device.timer()?;
            device.record(stream, &timer)?;
            timers.borrow_mut().push(timer);
            launched.borrow_mut().push(Launched { kernel, demand, seconds: 0.0 });
            Ok(())
        };
        let launcher = Launcher { device, stream, behind: &behind };
        let (from, to) = ((&*lr, part_of(&slot.lr_buffer)), (&*sr, part_of(&slot.sr_buffer)));
        work.run(&launcher, &networks[network.0], from, to)?;
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
        // SAFETY: pinned memory and buffers are the slot's, which is not touched again before `copied_out` is seen;
        // the graph's launches are of memory that the engine owns.
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
    /// What is under way reads and writes memory that is about to be given back.
    fn drop(&mut self) {
        let under_way = self.slots.iter().filter(|slot| slot.pair.is_some());
        for slot in under_way {
            // An error here follows one that was told.
            let _ = self.device.synchronize(&slot.copied_out);
        }
    }
}

impl<D: Device> RingSlot<D> {
    fn new(
        device: &D,
        streams: &Streams<D>,
        (lr, sr): (&Layout, &Layout),
        networks: &[Ready],
        work: &Work,
    ) -> Result<RingSlot<D>> {
        let (lr_buffer, sr_buffer) = (device.alloc(lr.len)?, device.alloc(sr.len)?);
        let sr_pinned = device.alloc_pinned(sr.len)?;
        let copied_out = device.event()?;
        // Bytes of rows that no sample owns are copied out as well: they are zeros.
        // SAFETY: both live until the event is seen, right behind.
        unsafe { device.copy_in(&streams.copy_in, &sr_buffer, &sr_pinned)? };
        device.record(&streams.copy_in, &copied_out)?;
        device.synchronize(&copied_out)?;
        let launcher = Launcher { device, stream: &streams.compute, behind: &|_, _| Ok(()) };
        let (from, to) = ((lr, part_of(&lr_buffer)), (sr, part_of(&sr_buffer)));
        let graph = |network: &Ready| {
            device.capture(&streams.compute, &mut || work.run(&launcher, network, from, to))
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
    // SAFETY: both live until the event is seen, right behind.
    unsafe { device.copy_in(stream, to, &pinned)? };
    device.record(stream, &event)?;
    device.synchronize(&event)
}

/// A network of the engine, its weights in place.
struct Ready {
    steps: Vec<ReadyStep>,
    weights: Option<Weights>,
}

struct ReadyStep {
    step: Step,
    /// Along a column and along a row, of a step that resamples.
    axes: Option<[Option<Axis>; 2]>,
}

fn ready(spec: &EngineSpec, blob: &mut Blob) -> Result<Vec<Ready>> {
    let ready = |network: &Network| {
        let (shape, weights) = match network {
            Network::Resample => (None, None),
            Network::Hasn(model) => {
                let shape = Shape { scale: model.sizes.scale, in_channels: model.sizes.in_channels };
                (Some(shape), Some(Weights::new(model, blob)?))
            }
        };
        let mut with_axes = |step: Step| {
            let by = match &step {
                Step::Resample { by, .. } => Some(by),
                Step::Network(passes) => passes.exact.as_ref(),
                _ => None,
            };
            let axes = by.map(|by| axes(by, blob));
            ReadyStep { step, axes }
        };
        let steps = plan(&spec.lr, &spec.sr, shape)?.into_iter().map(&mut with_axes).collect();
        Ok(Ready { steps, weights })
    };
    spec.networks.iter().map(ready).collect()
}

/// Columns first, as on the host; a direction that changes nothing is left out, unless neither changes anything.
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

/// Bytes of device memory, by what for.
#[derive(Default)]
struct Needs {
    weights: usize,
    maps: [usize; MAPS],
    lr: usize,
    sr: usize,
    between: [usize; 2],
    columns: usize,
    /// Of each slot.
    slot: usize,
}

impl Needs {
    fn new(spec: &EngineSpec) -> Result<Needs> {
        let (lr, sr) = (Layout::new(spec.lr), Layout::new(spec.sr));
        // The weights are made for no address: how many bytes they are does not depend on it.
        let mut blob = Blob::default();
        let networks = ready(spec, &mut blob)?;
        let mut needs = Needs { weights: blob.bytes.len(), slot: lr.len + sr.len, ..Needs::default() };
        let (lr_plane, sr_plane) = (lr.plane_len(), sr.plane_len());
        let grow = |len: &mut usize, to: usize| *len = (*len).max(to);
        for Ready { steps, weights } in &networks {
            for ReadyStep { step, axes } in steps {
                let (lr_used, sr_used) = step.planes_used();
                grow(&mut needs.lr, lr_used * lr_plane);
                grow(&mut needs.sr, sr_used * sr_plane);
                if let Some([Some(down), Some(across)]) = axes {
                    grow(&mut needs.columns, across.in_len * down.out_len * size_of::<f32>());
                }
                let Step::Network(passes) = step else { continue };
                let size = weights.as_ref().expect("a network has weights").size;
                for (pass, &(width, height)) in passes.sizes.iter().enumerate() {
                    for (len, map) in needs.maps.iter_mut().zip(Maps::lens(width, height, size)) {
                        grow(len, map);
                    }
                    if !passes.ends_in_sr(pass) {
                        grow(&mut needs.between[pass % 2], 4 * passes.out_len(pass));
                    }
                }
            }
        }
        Ok(needs)
    }

    /// How many slots there is room for.
    fn depth<D: Device>(&self, device: &D) -> Result<usize> {
        let MemoryInfo { free, total } = device.memory()?;
        let fixed = self.weights + self.maps.iter().sum::<usize>() + self.lr + self.sr;
        let fixed = fixed + self.between.iter().sum::<usize>() + self.columns + RESERVE;
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
            return Err(Error::new(device.name(), problem, "use --engine cpu, or a smaller model or frame"));
        }
        if depth < DEPTH {
            tracing::info!(depth, "little device memory: a shorter ring");
        }
        Ok(depth.min(DEPTH))
    }
}

/// The memory that frames take turns in, and what is the same for all of them.
struct Work {
    maps: [Part; MAPS],
    /// [1 or 3, H, W] f32, as [`Step`] has it.
    lr: Part,
    sr: Part,
    /// What a pass gives that is not the SR planes, by turns.
    between: [Part; 2],
    /// A plane that has been resampled along its columns only.
    columns: Part,
    dither: bool,
}

impl Work {
    /// The launches of one frame. `from`, `to`: where they lie in device memory.
    fn run<D: Device>(
        &self,
        launcher: &Launcher<'_, D>,
        network: &Ready,
        from: (&Layout, Part),
        to: (&Layout, Part),
    ) -> Result<()> {
        let (lr, sr) = (from.0, to.0);
        let slot = |slot: Slot, grid: &Grid| match slot {
            Slot::Lr(i) => self.lr.at(i * lr.plane_len(), grid.len() * size_of::<f32>()),
            Slot::Sr(i) => self.sr.at(i * sr.plane_len(), grid.len() * size_of::<f32>()),
        };
        for ReadyStep { step, axes } in &network.steps {
            match step {
                Step::Read { component, to } => {
                    let (part, samples) = lr.component(*component, from.1);
                    launcher.ingest(part, slot(*to, &Grid::of(&lr.format, *component)), &samples)?;
                }
                Step::Resample { from, to, .. } => {
                    let axes = axes.as_ref().expect("it resamples");
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
                    launcher.egress(Ok(slot(*from, grid)), part, &samples, self.dither)?;
                }
                Step::Fill { component, value } => {
                    let (part, samples) = sr.component(*component, to.1);
                    launcher.egress(Err(*value), part, &samples, false)?;
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
            [None, None] => unreachable!("one direction is always there"),
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
            let out = if passes.ends_in_sr(pass) { self.sr } else { self.between[pass % 2] };
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

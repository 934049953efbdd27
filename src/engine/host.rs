//! The engine of the CPU: frames through a network on worker threads.
//!
//! In: an LR frame and an SR frame to fill. Out: both, the second one filled. Each network has a [`plan`], made at open
//! together with the planes that it needs, which all networks share. The engine does not know which network runs.
//!
//! The threads are divided among workers, each of which upscales one frame at a time. Two frames on one thread each never
//! wait for each other; the bands of one frame do, most of all where the encoder and the decoder take a core. The number
//! of workers is therefore the largest that the frames in flight, the threads and the memory allow, and one where the
//! caller waits for each frame. Where one takes more memory than there is, its network does without the trunk.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use super::available::available;
use super::cpu::Pool;
use super::forward::{Forward, OpenPass, Trunk};
use super::memory::{REMEDY, in_units, zeroed};
use super::plan::{Passes, Shape, Slot, Step, plan};
use super::spec::{Engine, EngineSpec, NetworkId};
use crate::error::{Error, ErrorKind, Result};
use crate::frame::{Frame, FrameFormat, PixelFormat};
use crate::pixel::matrix;
use crate::pixel::read::read_component;
use crate::pixel::resample::{Grid, Resampler};
use crate::pixel::write::{Rounding, fill_component, write_component};

/// Memory for planes and tensors per thread above which there are fewer workers: small compared with a server's memory per
/// core.
const BYTES_PER_THREAD: usize = 128 << 20;

/// A way to upscale a frame on the host.
pub(crate) enum HostNetwork {
    /// The separable resampler alone.
    Resample,
    /// A network, in as many passes as the size requires.
    Net { shape: Shape, open: Box<dyn OpenPass> },
}

impl HostNetwork {
    fn shape(&self) -> Option<Shape> {
        match self {
            HostNetwork::Resample => None,
            HostNetwork::Net { shape, .. } => Some(*shape),
        }
    }
}

/// A network with its plan, ready to run.
struct OpenNetwork {
    steps: Vec<Step>,
    /// In the order of the passes.
    passes: Vec<Box<dyn Forward>>,
}

impl OpenNetwork {
    fn new(network: &HostNetwork, spec: &EngineSpec, threads: usize, trunk: Trunk) -> Result<OpenNetwork> {
        let steps = plan(&spec.lr, &spec.sr, network.shape())?;
        let passes = match network {
            HostNetwork::Resample => Vec::new(),
            HostNetwork::Net { open, .. } => {
                sizes(&steps).iter().map(|&size| open.open(size, threads, trunk)).collect()
            }
        };
        Ok(OpenNetwork { steps, passes })
    }
}

/// A pair of frames to process, and the channel for the result.
struct Job {
    lr: Frame,
    sr: Frame,
    network: NetworkId,
    result: Sender<JobResult>,
}

/// Both frames, or the panic of the worker.
type JobResult = std::thread::Result<(Frame, Frame)>;

/// Upscales one frame at a time.
struct Worker {
    networks: Vec<OpenNetwork>,
    buffers: Buffers,
    rounding: Rounding,
}

impl Worker {
    fn new(spec: &EngineSpec, networks: &[HostNetwork], threads: usize, trunk: Trunk) -> Result<Worker> {
        let EngineSpec { lr, sr, .. } = spec;
        let networks = networks
            .iter()
            .map(|network| OpenNetwork::new(network, spec, threads, trunk))
            .collect::<Result<Vec<_>>>()?;
        let rounding = if dithers(lr, sr) { Rounding::Dither } else { Rounding::Nearest };
        Ok(Worker { buffers: Buffers::new(lr, sr, &networks)?, networks, rounding })
    }

    fn run(&mut self, job: Job) {
        let Job { mut lr, mut sr, network, result } = job;
        let network = &mut self.networks[network.0];
        let run = || self.buffers.run(network, self.rounding, &mut lr, &mut sr);
        let outcome = catch_unwind(AssertUnwindSafe(run));
        // The send fails where the engine has been dropped.
        let _ = result.send(outcome.map(|()| (lr, sr)));
    }
}

/// [`Engine`] on the CPU.
pub(crate) struct HostEngine {
    lr: FrameFormat,
    sr: FrameFormat,
    depth: usize,
    /// Jobs for the next free worker; `None` only during drop.
    jobs: Option<Sender<Job>>,
    queue: Arc<Mutex<Receiver<Job>>>,
    in_flight: VecDeque<Receiver<JobResult>>,
    /// Disconnected when the last worker has ended.
    workers: Receiver<()>,
}

impl HostEngine {
    /// Opens an engine for the frame formats of `spec`; `networks` are numbered in order.
    pub(crate) fn open(spec: &EngineSpec, networks: &[HostNetwork]) -> Result<HostEngine> {
        let &EngineSpec { threads, in_flight, lr, sr, .. } = spec;
        let Division { workers: count, trunk, bytes } = Division::choose(spec, networks)?;
        tracing::info!(threads, workers = count, ?trunk, memory = in_units(bytes), "CPU workers");
        let shares = shares(threads, count);
        let workers: Vec<_> = shares
            .clone()
            .map(|threads| Worker::new(spec, networks, threads, trunk))
            .collect::<Result<_>>()?;
        let depth = in_flight.min(depth(count));
        let (jobs, queue) = channel();
        let queue = Arc::new(Mutex::new(queue));
        let (alive, workers_alive) = channel();
        for (mut worker, threads) in workers.into_iter().zip(shares) {
            let (queue, alive) = (queue.clone(), alive.clone());
            Pool::new(threads)?.spawn(move || {
                let next = || queue.lock().expect("nothing panics there").recv();
                while let Ok(job) = next() {
                    worker.run(job);
                }
                drop(worker);
                drop(alive);
            });
        }
        Ok(HostEngine {
            lr,
            sr,
            depth,
            jobs: Some(jobs),
            queue,
            in_flight: VecDeque::new(),
            workers: workers_alive,
        })
    }
}

/// Returns the number of frames in flight for this number of workers. Frames are collected in order: while one takes half as
/// long again as the others, because the encoder has taken its core, the other workers go through the frames that follow.
pub(super) fn depth(workers: usize) -> usize {
    workers + (workers / 2).max(1)
}

/// Returns the number of workers that frames, threads and memory allow, with an equal share of the threads each.
fn worker_count(threads: usize, in_flight: usize, worker_bytes: usize) -> usize {
    let most = (threads * BYTES_PER_THREAD / worker_bytes.max(1)).clamp(1, threads.min(in_flight));
    threads / threads.div_ceil(most)
}

/// The threads of each worker.
fn shares(threads: usize, workers: usize) -> impl Iterator<Item = usize> + Clone {
    (0..workers).map(move |worker| (threads + worker) / workers)
}

/// How the work is divided.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Division {
    workers: usize,
    trunk: Trunk,
    /// Memory of all workers and of the frames in flight.
    pub(super) bytes: u64,
}

impl Division {
    /// Returns `None` where a network cannot run without its trunk.
    fn new(
        spec: &EngineSpec,
        networks: &[HostNetwork],
        plans: &[Vec<Step>],
        workers: usize,
        trunk: Trunk,
    ) -> Option<Division> {
        let &EngineSpec { threads, in_flight, ref lr, ref sr, .. } = spec;
        let of_worker = |threads| Lens::new(spec, networks, plans, threads, trunk).map(|lens| lens.bytes());
        let of_workers: u64 = shares(threads, workers).map(of_worker).sum::<Option<_>>()?;
        let frames = in_flight.min(depth(workers)) * (lr.bytes() + sr.bytes());
        Some(Division { workers, trunk, bytes: of_workers + frames as u64 })
    }

    /// Returns the division that takes the least memory.
    pub(super) fn least(spec: &EngineSpec, networks: &[HostNetwork]) -> Result<Division> {
        let plans = plans(spec, networks)?;
        let of = |trunk| Division::new(spec, networks, &plans, 1, trunk);
        Ok([Trunk::Recomputed, Trunk::Kept]
            .into_iter()
            .filter_map(of)
            .min_by_key(|one| one.bytes)
            .expect("every network can keep its trunk"))
    }

    /// Returns the fastest division whose memory can be had.
    pub(super) fn choose(spec: &EngineSpec, networks: &[HostNetwork]) -> Result<Division> {
        let &EngineSpec { threads, in_flight, ref lr, ref sr, .. } = spec;
        assert!(in_flight > 0, "frames are in flight");
        let plans = plans(spec, networks)?;
        let divide = |workers, trunk| Division::new(spec, networks, &plans, workers, trunk);
        let single = Lens::new(spec, networks, &plans, threads, Trunk::Kept);
        let single = single.expect("every network can keep its trunk").bytes();
        let most = worker_count(threads, in_flight, single as usize);
        let kept = (1..=most).rev().map(|workers| (workers, Trunk::Kept));
        let divisions =
            kept.chain([(1, Trunk::Recomputed)]).filter_map(|(workers, trunk)| divide(workers, trunk));
        let (left, by) = match (spec.memory_max, available()) {
            (Some(max), _) => (max, "beside the rest of the run"),
            (None, Some(available)) => (available.bytes, available.by),
            (None, None) => (u64::MAX, ""),
        };
        let mut least = u64::MAX;
        for division in divisions {
            if division.bytes <= left {
                return Ok(division);
            }
            least = least.min(division.bytes);
        }
        let problem = format!(
            "{}x{} to {}x{} takes {} of memory, and {} can be had {by}",
            lr.width,
            lr.height,
            sr.width,
            sr.height,
            in_units(least),
            in_units(left)
        );
        Err(Error::new("the engine", problem, REMEDY).with_kind(ErrorKind::OutOfMemory))
    }
}

fn plans(spec: &EngineSpec, networks: &[HostNetwork]) -> Result<Vec<Vec<Step>>> {
    networks.iter().map(|network| plan(&spec.lr, &spec.sr, network.shape())).collect()
}

/// Sizes of the passes of a plan.
fn sizes(steps: &[Step]) -> &[(usize, usize)] {
    let passes = steps.iter().find_map(|step| match step {
        Step::Network(passes) => Some(&passes.sizes[..]),
        _ => None,
    });
    passes.unwrap_or_default()
}

/// Whether the SR frames have a smaller bit depth than the LR frames.
pub(super) fn dithers(lr: &FrameFormat, sr: &FrameFormat) -> bool {
    let bits = |format: &PixelFormat| if format.float { 32 } else { format.depth() };
    bits(&sr.pixel_format) < bits(&lr.pixel_format)
}

impl Engine for HostEngine {
    fn depth(&self) -> usize {
        self.depth
    }

    fn submit(&mut self, lr: Frame, sr: Frame, network: NetworkId) -> Result<()> {
        assert!(
            self.in_flight.len() < self.depth,
            "a frame was submitted before the oldest one was collected"
        );
        assert_eq!(lr.format, self.lr, "LR frame");
        assert_eq!(sr.format, self.sr, "SR frame");
        let (result, receiver) = channel();
        let jobs = self.jobs.as_ref().expect("open until dropped");
        jobs.send(Job { lr, sr, network, result }).expect("a worker ends after its jobs");
        self.in_flight.push_back(receiver);
        Ok(())
    }

    fn collect(&mut self) -> Result<Option<(Frame, Frame)>> {
        let Some(result) = self.in_flight.pop_front() else { return Ok(None) };
        match result.recv().expect("a worker answers every job") {
            Ok(pair) => Ok(Some(pair)),
            Err(panic) => resume_unwind(panic),
        }
    }
}

impl Drop for HostEngine {
    /// Discards queued jobs and returns after the workers have freed their memory.
    fn drop(&mut self) {
        self.jobs = None;
        self.queue.lock().expect("nothing panics there").try_iter().for_each(drop);
        let _ = self.workers.recv();
    }
}

/// Lengths of a worker's [`Buffers`], in floats.
#[derive(Default)]
struct Lens {
    lr: usize,
    sr: usize,
    intermediate: [usize; 2],
    scratch: usize,
}

impl Lens {
    /// Returns the lengths for networks and their plans, with all that the passes take as scratch.
    fn new(
        spec: &EngineSpec,
        networks: &[HostNetwork],
        plans: &[Vec<Step>],
        threads: usize,
        trunk: Trunk,
    ) -> Option<Lens> {
        let mut lens = Lens::default();
        for (network, steps) in networks.iter().zip(plans) {
            lens.add(&spec.lr, &spec.sr, steps);
            if let HostNetwork::Net { open, .. } = network {
                for &size in sizes(steps) {
                    lens.scratch = lens.scratch.max(open.memory_len(size, threads, trunk)?);
                }
            }
        }
        Some(lens)
    }

    /// Adds the planes of a plan.
    fn add(&mut self, lr: &FrameFormat, sr: &FrameFormat, steps: &[Step]) {
        for step in steps {
            let (lr_planes, sr_planes) = step.planes_used();
            self.lr = self.lr.max(lr_planes * lr.width * lr.height);
            self.sr = self.sr.max(sr_planes * sr.width * sr.height);
            let Step::Network(passes) = step else { continue };
            for pass in (0..passes.sizes.len()).filter(|&pass| !passes.ends_in_sr(pass)) {
                let len = &mut self.intermediate[pass % 2];
                *len = (*len).max(passes.out_len(pass));
            }
        }
    }

    fn bytes(&self) -> u64 {
        let [even, odd] = self.intermediate;
        (size_of::<f32>() * (self.lr + self.sr + even + odd + self.scratch)) as u64
    }
}

/// All memory that grows with the frame.
struct Buffers {
    lr_plane_len: usize,
    sr_plane_len: usize,
    /// `[1 or 3, H, W]`.
    lr: Vec<f32>,
    /// `[1 or 3, H', W']`.
    sr: Vec<f32>,
    /// Outputs of the passes that do not write the SR planes: of even and of odd passes.
    intermediate: [Vec<f32>; 2],
    /// Scratch of the networks.
    scratch: Vec<f32>,
}

impl Buffers {
    fn run(&mut self, network: &mut OpenNetwork, rounding: Rounding, lr: &mut Frame, sr: &mut Frame) {
        for step in &network.steps {
            match step {
                Step::Network(passes) => self.run_network(passes, &mut network.passes),
                Step::Read { component, to } => {
                    let plane = self.slot_mut(*to, &Grid::of(&lr.format, *component));
                    read_component(lr, *component, plane);
                }
                Step::Resample { from, to, by } => self.resample(*from, *to, by),
                Step::MatrixLr(m) => matrix::apply(m, &mut self.lr),
                Step::MatrixSr(m) => matrix::apply(m, &mut self.sr),
                Step::Write { from: (slot, grid), component } => {
                    write_component(sr, *component, self.slot(*slot, grid), rounding);
                }
                Step::Fill { component, value } => fill_component(sr, *component, *value),
            }
        }
    }

    fn new(lr: &FrameFormat, sr: &FrameFormat, networks: &[OpenNetwork]) -> Result<Buffers> {
        let mut lens = Lens::default();
        for OpenNetwork { steps, passes } in networks {
            lens.add(lr, sr, steps);
            let scratch = passes.iter().map(|pass| pass.scratch_len()).max().unwrap_or_default();
            lens.scratch = lens.scratch.max(scratch);
        }
        let [even, odd] = lens.intermediate;
        Ok(Buffers {
            lr_plane_len: lr.width * lr.height,
            sr_plane_len: sr.width * sr.height,
            lr: zeroed(lens.lr)?,
            sr: zeroed(lens.sr)?,
            intermediate: [zeroed(even)?, zeroed(odd)?],
            scratch: zeroed(lens.scratch)?,
        })
    }

    fn slot(&self, slot: Slot, grid: &Grid) -> &[f32] {
        match slot {
            Slot::Lr(i) => &self.lr[i * self.lr_plane_len..][..grid.len()],
            Slot::Sr(i) => &self.sr[i * self.sr_plane_len..][..grid.len()],
        }
    }

    fn slot_mut(&mut self, slot: Slot, grid: &Grid) -> &mut [f32] {
        match slot {
            Slot::Lr(i) => &mut self.lr[i * self.lr_plane_len..][..grid.len()],
            Slot::Sr(i) => &mut self.sr[i * self.sr_plane_len..][..grid.len()],
        }
    }

    fn resample(&mut self, from: (Slot, Grid), to: (Slot, Grid), by: &Resampler) {
        let (from_len, to_len) = (from.1.len(), to.1.len());
        let (input, output) = match (from.0, to.0) {
            (Slot::Lr(i), Slot::Lr(o)) => two_planes(&mut self.lr, self.lr_plane_len, i, o),
            (Slot::Sr(i), Slot::Sr(o)) => two_planes(&mut self.sr, self.sr_plane_len, i, o),
            (Slot::Lr(i), Slot::Sr(o)) => {
                (&self.lr[i * self.lr_plane_len..], &mut self.sr[o * self.sr_plane_len..])
            }
            (Slot::Sr(_), Slot::Lr(_)) => unreachable!("no plan returns to LR size"),
        };
        by.run(&input[..from_len], &mut output[..to_len]);
    }

    fn run_network(&mut self, passes: &Passes, forwards: &mut [Box<dyn Forward>]) {
        let channels = passes.channels;
        let sr = &mut self.sr[..channels * self.sr_plane_len];
        let [even, odd] = &mut self.intermediate;
        for (pass, (forward, &(width, height))) in forwards.iter_mut().zip(&passes.sizes).enumerate() {
            let (output, input) = if pass % 2 == 0 { (&mut *even, &*odd) } else { (&mut *odd, &*even) };
            let x_len = channels * width * height;
            let x = if pass == 0 { &self.lr[..x_len] } else { &input[..x_len] };
            let y = match passes.ends_in_sr(pass) {
                true => &mut *sr,
                false => &mut output[..x_len * passes.scale * passes.scale],
            };
            forward.forward(x, y, &mut self.scratch);
        }
        if let Some(exact) = &passes.exact {
            let (width, height) = passes.output_size;
            let output = if passes.sizes.len() % 2 == 1 { even } else { odd };
            let planes = output.chunks_exact(width * height).zip(sr.chunks_exact_mut(self.sr_plane_len));
            planes.take(channels).for_each(|(from, to)| exact.run(from, to));
        }
    }
}

/// Borrows one plane of a bank to read and another one to write.
fn two_planes(bank: &mut [f32], len: usize, from: usize, to: usize) -> (&[f32], &mut [f32]) {
    assert_ne!(from, to, "a plane cannot be resampled onto itself");
    let (low, high) = bank.split_at_mut(from.max(to) * len);
    let low = &mut low[from.min(to) * len..][..len];
    let high = &mut high[..len];
    if from < to { (low, high) } else { (high, low) }
}

#[cfg(test)]
mod tests;

//! The engine of the host: whole frames through a network on the CPU.
//!
//! In: an LR frame and an SR frame to fill. Out: both, the second one filled. What happens in between is
//! a [`plan`] a network, made at open; so is every plane it needs, shared by all networks. It does not know which
//! network runs.
//!
//! The threads are shared out among lanes, each of which makes one frame at a time. Two frames on a thread each
//! wait for each other nowhere, the bands of one frame do, most of all where encoder and decoder take a core away. So
//! there are as many lanes as frames in flight, threads and memory allow; one of them where each frame is waited for.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use super::cpu::Pool;
use super::forward::Forward;
use super::plan::{Passes, Shape, Slot, Step, plan};
use super::spec::{Engine, EngineSpec, NetworkId};
use crate::error::Result;
use crate::frame::{Frame, FrameFormat, PixelFormat};
use crate::pixel::matrix;
use crate::pixel::read::read_component;
use crate::pixel::resample::{Grid, Resampler};
use crate::pixel::write::{Rounding, fill_component, write_component};

/// What planes and tensors may take for each thread before there are fewer lanes: small beside what servers have for a
/// core.
const BYTES_OF_THREAD: usize = 128 << 20;

/// One way of making a frame larger.
pub(crate) enum HostNetwork {
    /// The separable resampler alone.
    Resample,
    /// A network, as often as the size asks for.
    Net {
        /// How much larger a pass makes a plane, and what it sees.
        shape: Shape,
        /// Makes one pass for frames of (width, height) on so many threads.
        open: Box<OpenPass>,
    },
}

/// Makes one pass for frames of (width, height) on so many threads.
type OpenPass = dyn Fn((usize, usize), usize) -> Box<dyn Forward>;

/// A network of the engine, ready to run.
struct Ready {
    steps: Vec<Step>,
    /// In the order of the passes.
    passes: Vec<Box<dyn Forward>>,
}

impl Ready {
    fn new(network: &HostNetwork, lr: &FrameFormat, sr: &FrameFormat, threads: usize) -> Result<Ready> {
        let HostNetwork::Net { shape, open } = network else {
            return Ok(Ready { steps: plan(lr, sr, None)?, passes: Vec::new() });
        };
        let steps = plan(lr, sr, Some(*shape))?;
        let sizes = steps.iter().find_map(|step| match step {
            Step::Network(passes) => Some(&passes.sizes),
            _ => None,
        });
        let passes = sizes.into_iter().flatten().map(|&size| open(size, threads)).collect();
        Ok(Ready { steps, passes })
    }
}

/// A frame to make and who waits for it.
struct Job {
    lr: Frame,
    sr: Frame,
    network: NetworkId,
    made: Sender<Made>,
}

/// Both frames, or the panic that came instead.
type Made = std::thread::Result<(Frame, Frame)>;

/// What makes one frame at a time.
struct Worker {
    networks: Vec<Ready>,
    work: Work,
    rounding: Rounding,
}

impl Worker {
    fn new(spec: &EngineSpec, networks: &[HostNetwork], threads: usize) -> Result<Worker> {
        let EngineSpec { lr, sr, .. } = spec;
        let networks = networks
            .iter()
            .map(|network| Ready::new(network, lr, sr, threads))
            .collect::<Result<Vec<_>>>()?;
        let rounding = if dithers(lr, sr) { Rounding::Dither } else { Rounding::Nearest };
        Ok(Worker { work: Work::new(lr, sr, &networks), networks, rounding })
    }

    fn make(&mut self, Job { mut lr, mut sr, network, made }: Job) {
        let Ready { steps, passes } = &mut self.networks[network.0];
        let run = || self.work.run(steps, passes, self.rounding, (&mut lr, &mut sr));
        let result = catch_unwind(AssertUnwindSafe(run));
        // Nobody waits any more where the engine has been dropped.
        let _ = made.send(result.map(|()| (lr, sr)));
    }
}

/// [`Engine`] on the CPU.
pub(crate) struct HostEngine {
    lr: FrameFormat,
    sr: FrameFormat,
    depth: usize,
    /// To whichever lane is free next, and back where none takes them any more.
    jobs: Option<Sender<Job>>,
    waiting: Arc<Mutex<Receiver<Job>>>,
    in_flight: VecDeque<Receiver<Made>>,
    /// Disconnected when no lane is left.
    workers: Receiver<()>,
}

impl HostEngine {
    /// An engine for frames as `spec` has them; `networks` are numbered in order.
    pub(crate) fn open(spec: &EngineSpec, networks: &[HostNetwork]) -> Result<HostEngine> {
        let &EngineSpec { threads, in_flight, lr, sr, .. } = spec;
        assert!(in_flight > 0, "frames are in flight");
        let whole = Worker::new(spec, networks, threads)?;
        let count = lane_count(threads, in_flight, whole.work.bytes());
        tracing::info!(threads, workers = count, "frames side by side");
        let shares = (0..count).map(|worker| (threads + worker) / count);
        let workers = match count {
            1 => vec![whole],
            _ => shares.clone().map(|threads| Worker::new(spec, networks, threads)).collect::<Result<_>>()?,
        };
        // One more waits where a lane becomes free.
        let depth = in_flight.min(count + 1);
        let (jobs, waiting) = channel();
        let waiting = Arc::new(Mutex::new(waiting));
        let (alive, lanes_alive) = channel();
        for (mut worker, threads) in workers.into_iter().zip(shares) {
            let (waiting, alive) = (waiting.clone(), alive.clone());
            Pool::new(threads)?.spawn(move || {
                let next = || waiting.lock().expect("nothing panics there").recv();
                while let Ok(job) = next() {
                    worker.make(job);
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
            waiting,
            in_flight: VecDeque::new(),
            workers: lanes_alive,
        })
    }
}

/// As many as frames, threads and memory allow, of about as many threads each.
fn lane_count(threads: usize, in_flight: usize, bytes_of_lane: usize) -> usize {
    let most = (threads * BYTES_OF_THREAD / bytes_of_lane).clamp(1, threads.min(in_flight));
    threads / threads.div_ceil(most)
}

/// Whether the depth falls on the way.
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
        let (made, wait) = channel();
        let jobs = self.jobs.as_ref().expect("open until dropped");
        jobs.send(Job { lr, sr, network, made }).expect("a lane ends after its jobs");
        self.in_flight.push_back(wait);
        Ok(())
    }

    fn collect(&mut self) -> Result<Option<(Frame, Frame)>> {
        let Some(made) = self.in_flight.pop_front() else { return Ok(None) };
        match made.recv().expect("a lane answers") {
            Ok(pair) => Ok(Some(pair)),
            Err(panic) => resume_unwind(panic),
        }
    }
}

impl Drop for HostEngine {
    /// What waits is not made any more, and all memory is given back by the end.
    fn drop(&mut self) {
        self.jobs = None;
        self.waiting.lock().expect("nothing panics there").try_iter().for_each(drop);
        let _ = self.workers.recv();
    }
}

/// All memory that grows with the frame.
struct Work {
    lr_plane_len: usize,
    sr_plane_len: usize,
    /// `[1 or 3, H, W]`.
    lr: Vec<f32>,
    /// `[1 or 3, H', W']`.
    sr: Vec<f32>,
    /// Between passes, by turns: what a pass gives that is not the SR planes.
    between: [Vec<f32>; 2],
    /// Of the networks.
    scratch: Vec<f32>,
}

impl Work {
    fn run(
        &mut self,
        steps: &[Step],
        forwards: &mut [Box<dyn Forward>],
        rounding: Rounding,
        pair: (&mut Frame, &mut Frame),
    ) {
        let (lr, sr) = pair;
        for step in steps {
            match step {
                Step::Network(passes) => self.run_network(passes, forwards),
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

    fn new(lr: &FrameFormat, sr: &FrameFormat, networks: &[Ready]) -> Work {
        let (mut lr_planes, mut sr_planes) = (0, 0);
        let (mut between, mut scratch) = ([0; 2], 0);
        for Ready { steps, passes: forwards } in networks {
            for step in steps {
                let (lr_used, sr_used) = step.planes_used();
                (lr_planes, sr_planes) = (lr_planes.max(lr_used), sr_planes.max(sr_used));
                if let Step::Network(passes) = step {
                    for pass in 0..passes.sizes.len() {
                        scratch = scratch.max(forwards[pass].scratch_len());
                        if !passes.ends_in_sr(pass) {
                            between[pass % 2] = between[pass % 2].max(passes.out_len(pass));
                        }
                    }
                }
            }
        }
        let (lr_plane_len, sr_plane_len) = (lr.width * lr.height, sr.width * sr.height);
        Work {
            lr_plane_len,
            sr_plane_len,
            lr: vec![0.0; lr_planes * lr_plane_len],
            sr: vec![0.0; sr_planes * sr_plane_len],
            between: between.map(|len| vec![0.0; len]),
            scratch: vec![0.0; scratch],
        }
    }

    fn bytes(&self) -> usize {
        let [even, odd] = &self.between;
        let planes = [&self.lr, &self.sr, even, odd, &self.scratch];
        planes.iter().map(|plane| size_of_val(plane.as_slice())).sum()
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
            (Slot::Sr(_), Slot::Lr(_)) => unreachable!("no plan goes back to LR size"),
        };
        by.run(&input[..from_len], &mut output[..to_len]);
    }

    fn run_network(&mut self, passes: &Passes, forwards: &mut [Box<dyn Forward>]) {
        let channels = passes.channels;
        let sr = &mut self.sr[..channels * self.sr_plane_len];
        let [even, odd] = &mut self.between;
        for (pass, (forward, &(width, height))) in forwards.iter_mut().zip(&passes.sizes).enumerate() {
            let (given, taken) = if pass % 2 == 0 { (&mut *even, &*odd) } else { (&mut *odd, &*even) };
            let x_len = channels * width * height;
            let x = if pass == 0 { &self.lr[..x_len] } else { &taken[..x_len] };
            let y = match passes.ends_in_sr(pass) {
                true => &mut *sr,
                false => &mut given[..x_len * passes.scale * passes.scale],
            };
            forward.forward(x, y, &mut self.scratch);
        }
        if let Some(exact) = &passes.exact {
            let (width, height) = passes.end;
            let given = if passes.sizes.len() % 2 == 1 { even } else { odd };
            let planes = given.chunks_exact(width * height).zip(sr.chunks_exact_mut(self.sr_plane_len));
            planes.take(channels).for_each(|(from, to)| exact.run(from, to));
        }
    }
}

/// One plane to read and another one to write of the same bank.
fn two_planes(bank: &mut [f32], len: usize, from: usize, to: usize) -> (&[f32], &mut [f32]) {
    assert_ne!(from, to, "a plane cannot be resampled onto itself");
    let (low, high) = bank.split_at_mut(from.max(to) * len);
    let low = &mut low[from.min(to) * len..][..len];
    let high = &mut high[..len];
    if from < to { (low, high) } else { (high, low) }
}

#[cfg(test)]
mod tests;

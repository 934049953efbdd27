//! The engine of the host: whole pictures through a network on the CPU, one at a time.
//!
//! In: an LR picture and an SR picture to fill. Out: both, the second one filled. What happens in between is
//! a [`plan`] a network, made at open; so is every plane it needs, shared by all networks. It knows neither
//! which network runs nor on how many threads: a caller that wants its own pool installs it around
//! [`Engine::submit`].

use super::cpu::egress::{Rounding, fill_component, write_component};
use super::cpu::ingest::read_component;
use super::cpu::{Pool, matrix};
use super::forward::Forward;
use super::plan::{Passes, Shape, Slot, Step, plan};
use super::resample::{Grid, Resampler};
use super::{Engine, NetworkId};
use crate::error::Result;
use crate::picture::{Format, Geometry, Picture};

/// One way of making a picture larger.
pub(crate) enum HostNetwork {
    /// The separable resampler alone.
    Resample,
    /// A network, as often as the size asks for.
    Net {
        /// How much larger a pass makes a plane, and what it sees.
        shape: Shape,
        /// Makes one pass for pictures of (width, height).
        open: Box<OpenPass>,
    },
}

/// Makes one pass for pictures of (width, height).
type OpenPass = dyn Fn((usize, usize)) -> Box<dyn Forward>;

/// A network of the engine, ready to run.
struct Ready {
    steps: Vec<Step>,
    /// In the order of the passes.
    passes: Vec<Box<dyn Forward>>,
}

impl Ready {
    fn new(network: HostNetwork, lr: &Geometry, sr: &Geometry) -> Result<Ready> {
        let HostNetwork::Net { shape, open } = network else {
            return Ok(Ready { steps: plan(lr, sr, None)?, passes: Vec::new() });
        };
        let steps = plan(lr, sr, Some(shape))?;
        let sizes = steps.iter().find_map(|step| match step {
            Step::Network(passes) => Some(&passes.sizes),
            _ => None,
        });
        let passes = sizes.into_iter().flatten().map(|&size| open(size)).collect();
        Ok(Ready { steps, passes })
    }
}

/// [`Engine`] on the CPU.
pub(crate) struct HostEngine {
    pool: Pool,
    lr: Geometry,
    sr: Geometry,
    rounding: Rounding,
    networks: Vec<Ready>,
    work: Work,
    finished: Option<(Picture, Picture)>,
}

impl HostEngine {
    /// An engine for pictures of these geometries; `networks` are numbered in order.
    pub(crate) fn open(
        pool: Pool,
        lr: Geometry,
        sr: Geometry,
        networks: Vec<HostNetwork>,
    ) -> Result<HostEngine> {
        let networks =
            networks.into_iter().map(|network| Ready::new(network, &lr, &sr)).collect::<Result<Vec<_>>>()?;
        let rounding = if dithers(&lr, &sr) { Rounding::Dither } else { Rounding::Nearest };
        let work = Work::new(&lr, &sr, &networks);
        Ok(HostEngine { pool, lr, sr, rounding, networks, work, finished: None })
    }
}

/// Whether the depth falls on the way.
pub(super) fn dithers(lr: &Geometry, sr: &Geometry) -> bool {
    let bits = |format: &Format| if format.float { 32 } else { format.depth() };
    bits(&sr.format) < bits(&lr.format)
}

impl Engine for HostEngine {
    fn depth(&self) -> usize {
        1
    }

    fn submit(&mut self, mut lr: Picture, mut sr: Picture, network: NetworkId) -> Result<()> {
        assert!(self.finished.is_none(), "a picture was submitted before the last one was collected");
        assert_eq!(lr.geometry, self.lr, "LR picture");
        assert_eq!(sr.geometry, self.sr, "SR picture");
        let HostEngine { pool, networks, work, rounding, .. } = self;
        let Ready { steps, passes } = &mut networks[network.0];
        // Exclusive borrows may go to the pool's threads, whatever a picture's owner is.
        let pair = (&mut lr, &mut sr);
        pool.install(move || work.run(steps, passes, *rounding, pair));
        self.finished = Some((lr, sr));
        Ok(())
    }

    fn collect(&mut self) -> Result<Option<(Picture, Picture)>> {
        Ok(self.finished.take())
    }
}

/// All memory that grows with the picture.
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
        pair: (&mut Picture, &mut Picture),
    ) {
        let (lr, sr) = pair;
        for step in steps {
            match step {
                Step::Network(passes) => self.run_network(passes, forwards),
                Step::Read { component, to } => {
                    let plane = self.slot_mut(*to, &Grid::of(&lr.geometry, *component));
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

    fn new(lr: &Geometry, sr: &Geometry, networks: &[Ready]) -> Work {
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

//! Light: frames whose samples are linear light, which a network sees as sRGB codes it.
//!
//! Networks have learnt from coded frames, where a step looks alike in dark and bright. In and out as of any engine,
//! which it wraps: LR frames are copied into frames of its own and coded there, SR frames are made light again in
//! place, where they are to be light. Above 1 the curve goes on, below 0 it is mirrored: nothing is clipped.

use std::collections::VecDeque;

use super::cpu::Pool;
use super::spec::{Engine, EngineSpec, Network, NetworkId};
use crate::color::{Transfer, light_of_srgb, srgb_of_light};
use crate::error::Result;
use crate::frame::{Frame, FrameFormat};
use crate::pixel::curve::map_component;

/// [`Engine`] for light.
pub(super) struct Light {
    engine: Box<dyn Engine>,
    pool: Pool,
    /// Of the LR frames that the engine takes, and of what it gives.
    lr: FrameFormat,
    sr: FrameFormat,
    /// What SR frames are tagged with when they are done.
    transfer: Transfer,
    /// To be filled.
    free: Vec<Frame>,
    /// LR frames as they came.
    in_flight: VecDeque<Frame>,
}

/// What the engine is for that such a spec's frames are coded for; `None` where nothing is to be coded: samples that
/// are no light, or light that is only resampled.
pub(super) fn coded(spec: &EngineSpec) -> Option<EngineSpec> {
    let is_light = |g: &FrameFormat| g.pixel_format.float && g.color.transfer == Transfer::LINEAR;
    let is_seen = spec.networks.iter().any(|network| !matches!(network, Network::Resample));
    if !is_light(&spec.lr) || (is_light(&spec.sr) && !is_seen) {
        return None;
    }
    let mut coded = spec.clone();
    (coded.lr.color.transfer, coded.sr.color.transfer) = (Transfer::SRGB, Transfer::SRGB);
    Some(coded)
}

impl Light {
    /// Around an engine for [`coded`] frames.
    pub(super) fn new(engine: Box<dyn Engine>, coded: &EngineSpec, spec: &EngineSpec) -> Result<Light> {
        let free = (0..engine.depth()).map(|_| Frame::new(coded.lr)).collect();
        let (pool, transfer) = (Pool::new(spec.threads)?, spec.sr.color.transfer);
        Ok(Light { engine, pool, lr: coded.lr, sr: coded.sr, transfer, free, in_flight: VecDeque::new() })
    }
}

impl Engine for Light {
    fn depth(&self) -> usize {
        self.engine.depth()
    }

    fn submit(&mut self, lr: Frame, mut sr: Frame, network: NetworkId) -> Result<()> {
        let mut coded = self.free.pop().expect("no more in flight than the engine's depth");
        for plane in 0..usize::from(self.lr.pixel_format.planes) {
            let (row_len, rows) = self.lr.plane_size(plane);
            let (from_size, to_size) = (lr.buffer.linesize(plane), coded.buffer.linesize(plane));
            let from = lr.buffer.plane(plane).chunks(from_size);
            let to = coded.buffer.plane_mut(plane).chunks_mut(to_size);
            from.zip(to).take(rows).for_each(|(from, to)| to[..row_len].copy_from_slice(&from[..row_len]));
        }
        let frame = &mut coded;
        let colors = self.lr.pixel_format.color_count();
        self.pool.install(move || (0..colors).for_each(|i| map_component(frame, i, srgb_of_light)));
        sr.format = self.sr;
        self.in_flight.push_back(lr);
        self.engine.submit(coded, sr, network)
    }

    fn collect(&mut self) -> Result<Option<(Frame, Frame)>> {
        let Some((coded, mut sr)) = self.engine.collect()? else { return Ok(None) };
        self.free.push(coded);
        if self.transfer == Transfer::LINEAR {
            let frame = &mut sr;
            let colors = self.sr.pixel_format.color_count();
            self.pool.install(move || (0..colors).for_each(|i| map_component(frame, i, light_of_srgb)));
        }
        sr.format.color.transfer = self.transfer;
        Ok(Some((self.in_flight.pop_front().expect("it was submitted"), sr)))
    }

    fn reused(&self) -> u64 {
        self.engine.reused()
    }
}

//! Frames in linear light, which the network sees encoded by sRGB's transfer function.
//!
//! Networks are trained on encoded frames, in which equal steps look alike in dark and in bright parts. [`LinearLight`]
//! wraps an engine: it copies LR frames into frames of its own and encodes them there, and converts SR frames back in place
//! where the output is linear. The curve is extended above 1 and mirrored below 0, so that nothing is clipped.

use std::collections::VecDeque;

use super::cpu::Pool;
use super::spec::{Engine, EngineSpec, Network, NetworkId};
use crate::color::{Transfer, linear_to_srgb, srgb_to_linear};
use crate::error::Result;
use crate::frame::{Frame, FrameFormat};
use crate::pixel::transfer::map_component;

/// [`Engine`] for frames in linear light.
pub(super) struct LinearLight {
    engine: Box<dyn Engine>,
    pool: Pool,
    /// Format of the coded LR frames.
    lr: FrameFormat,
    /// Format of the coded SR frames.
    sr: FrameFormat,
    /// Transfer function of the finished SR frames.
    transfer: Transfer,
    /// Frames for coded LR samples.
    free: Vec<Frame>,
    /// LR frames as submitted.
    in_flight: VecDeque<Frame>,
}

/// Returns the spec of the wrapped engine; `None` where nothing is coded: the samples are not linear light, or they are
/// only resampled.
pub(super) fn coded_as_srgb(spec: &EngineSpec) -> Option<EngineSpec> {
    let is_linear =
        |format: &FrameFormat| format.pixel_format.float && format.color.transfer == Transfer::LINEAR;
    let has_network = spec.networks.iter().any(|network| !matches!(network, Network::Resample));
    if !is_linear(&spec.lr) || (is_linear(&spec.sr) && !has_network) {
        return None;
    }
    let mut coded = spec.clone();
    (coded.lr.color.transfer, coded.sr.color.transfer) = (Transfer::SRGB, Transfer::SRGB);
    Some(coded)
}

impl LinearLight {
    /// Wraps an engine opened from the spec that [`coded_as_srgb`] returned.
    pub(super) fn new(engine: Box<dyn Engine>, coded: &EngineSpec, spec: &EngineSpec) -> Result<LinearLight> {
        let free = (0..engine.depth()).map(|_| Frame::try_new(coded.lr)).collect::<Result<_>>()?;
        let (pool, transfer) = (Pool::new(spec.threads)?, spec.sr.color.transfer);
        Ok(LinearLight {
            engine,
            pool,
            lr: coded.lr,
            sr: coded.sr,
            transfer,
            free,
            in_flight: VecDeque::new(),
        })
    }
}

impl Engine for LinearLight {
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
        self.pool.install(move || (0..colors).for_each(|i| map_component(frame, i, linear_to_srgb)));
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
            self.pool.install(move || (0..colors).for_each(|i| map_component(frame, i, srgb_to_linear)));
        }
        sr.format.color.transfer = self.transfer;
        Ok(Some((self.in_flight.pop_front().expect("it was submitted"), sr)))
    }

    fn reused(&self) -> u64 {
        self.engine.reused()
    }
}

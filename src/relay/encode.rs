//! Encode: frames, upscaled or duplicated, become packets for all sinks.
//!
//! In: upscaled frames, audio, the output's clock. Out: packets, each sent to every sink. It knows no network.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Instant;

use tracing::{info, warn};

use super::budget::LatencyBudget;
use super::control::Control;
use super::pacer::{OnLoss, OutputClock};
use super::queue::AudioQueue;
use super::ring::{Ring, SharedPacket};
use super::stats::Stats;
use super::upscale::UpscaledFrame;
use crate::error::Result;
use crate::frame::{Frame, Timestamp};
use crate::media::{Encoder, FramePool, Packet, Silence};
use crate::pixel::blacken;

/// Audio packets may overlap by the rounding of their timestamps.
const AUDIO_ROUNDING_US: i64 = 2_000;

/// Inputs and outputs of the encode stage.
pub(super) struct EncodeIo<'a> {
    pub upscaled: Receiver<UpscaledFrame>,
    pub audio: &'a AudioQueue,
    /// The rings of the sinks, which the end of this stage closes.
    pub rings: &'a [Arc<Ring>],
    pub clock: &'a OutputClock,
    pub budget: &'a LatencyBudget,
    pub control: &'a Control,
    pub stats: &'a Stats,
}

/// Encodes until no frame follows.
pub(super) fn run(encoder: Encoder, on_loss: OnLoss, silence: Option<Silence>, io: EncodeIo) -> Result<()> {
    let mut black = FramePool::new(encoder.format())?.take()?;
    blacken(&mut black);
    let mut last = black.share();
    let in_flight = BTreeMap::new();
    let mut stage = Encode { encoder, io, in_flight, index: 0, last_pts: i64::MIN, audio_end_us: 0 };
    loop {
        let received = match stage.io.clock.patience() {
            Some(patience) => stage.io.upscaled.recv_timeout(patience),
            None => stage.io.upscaled.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match received {
            Ok(frame) if stage.io.clock.accept(frame.time_us) => {
                last = frame.sr.share();
                let UpscaledFrame { sr, time_us, arrived_at, upscaled_at } = frame;
                stage.send(sr, time_us, Some(Moments { arrived_at, upscaled_at }))?;
            }
            Ok(_) => drop(stage.io.stats.dropped_superseded.fetch_add(1, Relaxed)),
            Err(RecvTimeoutError::Timeout) => {
                let time_us = stage.io.clock.duplicate();
                // With `Stop` the last frame is repeated until the source counts as lost and the relay ends.
                let frame = if on_loss == OnLoss::Black { &black } else { &last };
                stage.io.stats.duplicated.fetch_add(1, Relaxed);
                stage.send(frame.share(), time_us, None)?;
                stage.fill_silence_until(time_us, silence.as_ref());
            }
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    stage.encoder.finish()?;
    stage.drain()
}

/// The moments from which the latency of a frame is measured.
struct Moments {
    arrived_at: Instant,
    upscaled_at: Instant,
}

struct Encode<'a> {
    encoder: Encoder,
    io: EncodeIo<'a>,
    /// The source's frames that the encoder holds, by pts.
    in_flight: BTreeMap<i64, Moments>,
    index: u64,
    last_pts: i64,
    audio_end_us: i64,
}

impl Encode<'_> {
    /// Encodes a frame; `moments` are `None` for a duplicated one.
    fn send(&mut self, mut frame: Frame, time_us: i64, moments: Option<Moments>) -> Result<()> {
        let base = self.encoder.time_base();
        let ticks = i128::from(time_us) * i128::from(base.den) / (1_000_000 * i128::from(base.num));
        let pts = (ticks as i64).max(self.last_pts.saturating_add(1));
        frame.time = Timestamp { index: self.index, pts, time_base: base, ..Timestamp::default() };
        (self.index, self.last_pts) = (self.index + 1, pts);
        let is_of_source = moments.is_some();
        if let Some(moments) = moments {
            self.in_flight.insert(pts, moments);
        }
        if let Some(bit_rate) = self.io.control.take_bit_rate() {
            self.change_bit_rate(bit_rate);
        }
        let start = Instant::now();
        self.encoder.send(frame)?;
        self.io.stats.note_frame(is_of_source);
        let drained = self.drain();
        self.io.stats.encode.note(start.elapsed());
        drained
    }

    fn change_bit_rate(&mut self, bit_rate: u64) {
        match self.encoder.set_bit_rate(bit_rate) {
            true => info!("bitrate: {bit_rate}"),
            false => warn!("{}: cannot change its bitrate while it runs", self.encoder.name()),
        }
    }

    /// Sends the packets that the encoder has ready, each followed by the audio that is due.
    fn drain(&mut self) -> Result<()> {
        while let Some(packet) = self.encoder.receive()? {
            let moments = self.in_flight.remove(&packet.pts());
            if let Some(moments) = &moments {
                self.io.budget.note_encode(moments.upscaled_at.elapsed());
            }
            let arrived_at = moments.as_ref().map_or_else(Instant::now, |moments| moments.arrived_at);
            let packet = packet.shifted_by_us(0);
            let until_us = packet.dts_us();
            // Video first: a sink starts with a keyframe.
            self.send_to_sinks(packet, false, arrived_at, moments.is_some());
            while let Some(audio) = self.io.audio.pop_until(until_us) {
                if audio.pts_us() >= self.audio_end_us - AUDIO_ROUNDING_US {
                    self.audio_end_us = audio.end_us();
                    self.send_to_sinks(audio, true, arrived_at, false);
                }
            }
        }
        Ok(())
    }

    /// Sends silence along with duplicated frames.
    fn fill_silence_until(&mut self, time_us: i64, silence: Option<&Silence>) {
        let Some(silence) = silence else { return };
        while self.audio_end_us < time_us {
            self.send_to_sinks(silence.at_us(self.audio_end_us), true, Instant::now(), false);
            self.audio_end_us += silence.duration_us();
        }
    }

    fn send_to_sinks(&self, packet: Packet, is_audio: bool, arrived_at: Instant, is_of_source: bool) {
        let shared = Arc::new(SharedPacket { packet, is_audio, arrived_at, is_of_source });
        for (ring, stats) in self.io.rings.iter().zip(&self.io.stats.sinks) {
            ring.push(&shared, stats);
        }
    }
}

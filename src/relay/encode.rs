//! Encode: frames as they come, or made ones, become packets for all sinks.
//!
//! In: larger frames, audio, the output's clock. Out: packets, each given to every sink. It knows no network.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Instant;

use tracing::{info, warn};

use super::queue::AudioQueue;
use super::sinks::{Lane, Shared};
use super::upscale::Ready;
use super::{Budget, Clock, Control, OnLoss, Stats};
use crate::error::Result;
use crate::frame::{Frame, Timestamp};
use crate::media::{Encoder, FramePool, Packet, Silence};
use crate::pixel::blacken;
use crate::sync::lock;

/// What the encode stage takes and gives.
pub(super) struct EncodeIo<'a> {
    pub ready: Receiver<Ready>,
    pub audio: &'a AudioQueue,
    pub lanes: Vec<Lane>,
    pub clock: &'a Clock,
    pub budget: &'a Budget,
    pub control: &'a Control,
    pub stats: &'a Stats,
}

/// Codes until no frame follows.
pub(super) fn run(encoder: Encoder, on_loss: OnLoss, silence: Option<Silence>, io: EncodeIo) -> Result<()> {
    let mut black = FramePool::new(encoder.format()).take()?;
    blacken(&mut black);
    let mut last = black.share();
    let begun = BTreeMap::new();
    let mut stage = Encode { encoder, io, begun, index: 0, last_pts: i64::MIN, audio_end_us: 0 };
    loop {
        let now = Instant::now();
        let pacer = || lock(&stage.io.clock.0);
        let patience = pacer().patience(now);
        let received = match patience {
            Some(patience) => stage.io.ready.recv_timeout(patience),
            None => stage.io.ready.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match received {
            Ok(ready) if pacer().takes(ready.time_us, Instant::now()) => {
                last = ready.sr.share();
                stage.send(ready.sr, ready.time_us, Some((ready.arrived, ready.made)))?;
            }
            Ok(_) => drop(stage.io.stats.dropped_past.fetch_add(1, Relaxed)),
            Err(RecvTimeoutError::Timeout) => {
                let time_us = pacer().make();
                let frame = if on_loss == OnLoss::Black { &black } else { &last };
                stage.io.stats.duplicated.fetch_add(1, Relaxed);
                stage.send(frame.share(), time_us, None)?;
                stage.be_silent_until(time_us, silence.as_ref());
            }
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    stage.encoder.finish()?;
    stage.give_packets()
}

struct Encode<'a> {
    encoder: Encoder,
    io: EncodeIo<'a>,
    /// Time of a frame in the encoder -> when its packet came, and when the network had done.
    begun: BTreeMap<i64, (Instant, Instant)>,
    index: u64,
    last_pts: i64,
    audio_end_us: i64,
}

/// Packets of audio may overlap by what their times are rounded by.
const AUDIO_ROUNDING_US: i64 = 2_000;

impl Encode<'_> {
    fn send(&mut self, mut frame: Frame, time_us: i64, begun: Option<(Instant, Instant)>) -> Result<()> {
        let base = self.encoder.time_base();
        let ticks = i128::from(time_us) * i128::from(base.den) / (1_000_000 * i128::from(base.num));
        let pts = (ticks as i64).max(self.last_pts.saturating_add(1));
        frame.time = Timestamp { index: self.index, pts, duration: 0, time_base: base };
        (self.index, self.last_pts) = (self.index + 1, pts);
        if let Some(begun) = begun {
            self.begun.insert(pts, begun);
        }
        if let Some(bit_rate) = self.io.control.take_bit_rate() {
            self.change_bit_rate(bit_rate);
        }
        let coding = Instant::now();
        self.encoder.send(frame)?;
        self.io.stats.note_frame();
        let given = self.give_packets();
        self.io.stats.encode.note(coding.elapsed());
        given
    }

    fn change_bit_rate(&mut self, bit_rate: u64) {
        match self.encoder.set_bit_rate(bit_rate) {
            true => info!("the bitrate is {bit_rate}"),
            false => warn!("{} keeps its bitrate until it is opened anew", self.encoder.name()),
        }
    }

    fn give_packets(&mut self) -> Result<()> {
        while let Some(packet) = self.encoder.receive()? {
            if let Some((arrived, made)) = self.begun.remove(&packet.pts()) {
                self.io.budget.note_tail(made.elapsed());
                self.io.stats.note_latency(arrived.elapsed());
            }
            let packet = packet.shifted_by_us(0);
            let until_us = packet.dts_us();
            // The frame first: with it outputs begin.
            self.share_out(packet, false);
            while let Some(audio) = self.io.audio.pop_until(until_us) {
                if audio.pts_us() >= self.audio_end_us - AUDIO_ROUNDING_US {
                    self.audio_end_us = audio.end_us();
                    self.share_out(audio, true);
                }
            }
        }
        Ok(())
    }

    /// While frames are made no audio comes either.
    fn be_silent_until(&mut self, time_us: i64, silence: Option<&Silence>) {
        let Some(silence) = silence else { return };
        while self.audio_end_us < time_us {
            self.share_out(silence.at_us(self.audio_end_us), true);
            self.audio_end_us += silence.duration_us();
        }
    }

    fn share_out(&mut self, packet: Packet, is_audio: bool) {
        let shared = Arc::new(Shared { packet, is_audio, made: Instant::now() });
        for (lane, stats) in self.io.lanes.iter_mut().zip(&self.io.stats.sinks) {
            lane.send(&shared, stats);
        }
    }
}

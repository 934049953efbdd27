//! The five stages, each a loop from its input queue to its output queue.
//!
//! A stage whose consumer is gone stops without an error of its own: the consumer has reported one.

use std::sync::atomic::Ordering;

use crossbeam_channel::{Receiver, Sender};

use super::clock::Clock;
use super::resume::ResumeState;
use super::shared::{CopiedPackets, Shared};
use super::sink::{FrameCache, Store};
use crate::engine::{Engine, EngineSpec, NetworkId};
use crate::error::Result;
use crate::frame::{Frame, Timestamp};
use crate::media::{
    Cut, Decoder, Encoder, FramePool, Input, Muxer, Packet, SEGMENT_FRAMES, SegmentSource, Transcoders,
};

/// Sends packets of the video to the decoder and all others to the last stage, some through a transcoder. Without
/// `transcoders` the others are dropped: they are read again when segments are joined.
pub(super) fn demux(
    input: &mut Input,
    to_decode: Sender<Packet>,
    mut transcoders: Option<Transcoders>,
    shared: &Shared,
    mut clock: Clock,
) -> Result<()> {
    loop {
        let Some(packet) = read(input, shared)? else {
            // Before `to_decode` is dropped: the decoder asks for it then.
            shared.is_at_end.store(!shared.stop.now(), Ordering::Release);
            break;
        };
        if input.is_video(&packet) {
            if !clock.output(|| to_decode.send(packet).is_ok()) {
                break;
            }
        } else if let Some(transcoders) = &mut transcoders {
            push_all(transcoders.convert(packet)?, &shared.copied)?;
        }
    }
    if let Some(transcoders) = &mut transcoders {
        push_all(transcoders.finish()?, &shared.copied)?;
        input.damage().add(transcoders.damage());
    }
    Ok(())
}

/// Returns the next packet; `None` at the end of the input and after an interrupt.
fn read(input: &mut Input, shared: &Shared) -> Result<Option<Packet>> {
    if shared.stop.now() {
        return Ok(None);
    }
    match input.next_packet() {
        // The program that writes the pipe gets the same signal: its end is not damage.
        Err(_) if shared.stop.now() => Ok(None),
        result => result,
    }
}

fn push_all(packets: Vec<Packet>, copied: &CopiedPackets) -> Result<()> {
    packets.into_iter().try_for_each(|packet| copied.push(packet))
}

/// Decodes packets and sends the frames that are not finished yet.
pub(super) fn decode(
    decoder: &mut Decoder,
    packets: Receiver<Packet>,
    frames: Sender<Frame>,
    shared: &Shared,
    mut clock: Clock,
) -> Result<()> {
    let mut wanted = WantedFrames { shared, passed: None, has_differed: false };
    loop {
        // The first round takes the frame that fixed the format.
        while let Some(frame) = decoder.receive()? {
            if shared.stop.now() || !wanted.send(frame, &frames, &mut clock) {
                return Ok(());
            }
        }
        match clock.input(|| packets.recv()) {
            Ok(packet) => decoder.send(packet)?,
            Err(_) => break,
        }
    }
    // Where demux failed, what the decoder still holds is not what follows: packets are missing between.
    if !shared.is_at_end.load(Ordering::Acquire) {
        return Ok(());
    }
    decoder.finish()?;
    while let Some(frame) = decoder.receive()? {
        if shared.stop.now() || !wanted.send(frame, &frames, &mut clock) {
            return Ok(());
        }
    }
    wanted.end_segment();
    Ok(())
}

/// Chooses the frames that are not finished yet, and compares those that are with what they were made from.
struct WantedFrames<'a> {
    shared: &'a Shared<'a>,
    /// The finished segment that is passed over, as it is read now.
    passed: Option<(u64, SegmentSource)>,
    /// Whether a finished segment differs: nothing is sent any more, and the other finished segments are compared.
    has_differed: bool,
}

impl WantedFrames<'_> {
    /// Sends a frame if it is wanted. Returns whether more frames are.
    fn send(&mut self, frame: Frame, frames: &Sender<Frame>, clock: &mut Clock) -> bool {
        let ResumeState { finished_segments, end_segment, .. } = &self.shared.resume_state;
        let segment = frame.time.index / SEGMENT_FRAMES;
        if self.passed.as_ref().is_some_and(|&(passed, _)| passed != segment) {
            self.end_segment();
        }
        if finished_segments.contains(&segment) {
            let (_, source) = self.passed.get_or_insert_with(|| (segment, SegmentSource::default()));
            source.add(&frame.time);
            return true;
        }
        if self.has_differed {
            return finished_segments.last().is_some_and(|&last| segment < last);
        }
        if end_segment.is_some_and(|end| segment >= end) {
            return false;
        }
        self.shared.resume_state.has_image(&frame.time) || clock.output(|| frames.send(frame).is_ok())
    }

    /// Compares the segment that was passed over.
    fn end_segment(&mut self) {
        if let Some((segment, source)) = self.passed.take()
            && !self.shared.resume_state.agrees(segment, &source)
        {
            self.shared.differing.note(segment);
            self.has_differed = true;
        }
    }
}

/// Engine of the upscale stage.
pub(super) struct UpscaleSpec {
    /// Opened on the stage's thread.
    pub engine: EngineSpec,
    pub network: NetworkId,
    /// Whether a frame that equals the previous one gets the previous result.
    pub reuse: bool,
    /// Frames to fill.
    pub pool: FramePool,
    /// Upscaled frames of segments that are not finished.
    pub cache: Option<Box<dyn FrameCache>>,
}

/// Upscales frames. When their size or format changes, the engine is drained and opened again for the same output. Returns
/// how many frames equalled the previous one and, with `reuse`, got the previous result.
pub(super) fn upscale(
    spec: UpscaleSpec,
    frames: Receiver<Frame>,
    upscaled: Sender<Frame>,
    shared: &Shared,
    mut clock: Clock,
) -> Result<u64> {
    let UpscaleSpec { engine: mut spec, network, reuse, pool, cache } = spec;
    let open = |spec: &EngineSpec| if reuse { spec.open_with_reuse() } else { spec.open() };
    let mut engine = open(&spec)?;
    let mut upscaled = Upscaled { frames: upscaled, cache };
    let (mut in_flight, mut reused) = (0, 0);
    while let Ok(lr) = clock.input(|| frames.recv()) {
        // A frame may take seconds.
        if shared.stop.now() {
            break;
        }
        let mut sr = pool.take()?;
        if upscaled.restore(&lr.time, &mut sr) {
            while upscaled.send_collected(engine.as_mut(), &mut clock)? {}
            in_flight = 0;
            clock.count_restored();
            if !upscaled.send(lr, sr, &mut clock) {
                break;
            }
            continue;
        }
        if lr.format != spec.lr {
            while upscaled.send_collected(engine.as_mut(), &mut clock)? {}
            in_flight = 0;
            reused += engine.reused();
            spec.lr = lr.format;
            // Its memory is free for the next one.
            drop(engine);
            engine = open(&spec).map_err(|e| e.at("upscale", lr.time.index, Some(lr.time.seconds())))?;
        }
        let time = lr.time;
        engine
            .submit(lr, sr, network)
            .map_err(|error| error.at("upscale", time.index, Some(time.seconds())))?;
        in_flight += 1;
        if in_flight == engine.depth() {
            if !upscaled.send_collected(engine.as_mut(), &mut clock)? {
                return Ok(reused + engine.reused());
            }
            in_flight -= 1;
        }
    }
    while upscaled.send_collected(engine.as_mut(), &mut clock)? {}
    Ok(reused + engine.reused())
}

/// Output of the upscale stage.
struct Upscaled {
    frames: Sender<Frame>,
    cache: Option<Box<dyn FrameCache>>,
}

impl Upscaled {
    /// Reads a frame that an earlier run has upscaled. Returns whether it did.
    fn restore(&mut self, time: &Timestamp, sr: &mut Frame) -> bool {
        self.cache.as_mut().is_some_and(|cache| cache.has(time) && cache.restore(time, sr))
    }

    /// Collects a frame and sends it. Returns whether there was one and the consumer took it.
    fn send_collected(&mut self, engine: &mut dyn Engine, clock: &mut Clock) -> Result<bool> {
        let Some((lr, mut sr)) = engine.collect()? else { return Ok(false) };
        sr.time = lr.time;
        if let Some(cache) = &mut self.cache {
            cache.keep(&sr);
        }
        Ok(self.send(lr, sr, clock))
    }

    /// Sends a frame with the time and the side data of its source. Returns whether the consumer took it.
    fn send(&self, lr: Frame, mut sr: Frame, clock: &mut Clock) -> bool {
        (sr.time, sr.props) = (lr.time, lr.props);
        clock.output(|| self.frames.send(sr).is_ok())
    }
}

/// Output of the encode stage.
pub(super) enum Encoded {
    Packet(Packet),
    /// End of a segment, after its last packet.
    Cut(Cut),
}

/// Encodes frames in segments. The cut at the end is not sent: this stage does not know whether the input ended or the run
/// was interrupted.
pub(super) fn encode(
    encoder: &mut Encoder,
    frames: Receiver<Frame>,
    encoded: Sender<Encoded>,
    shared: &Shared,
    mut clock: Clock,
) -> Result<()> {
    while let Ok(frame) = clock.input(|| frames.recv()) {
        if encoder.cuts_before(&frame.time) {
            encoder.finish()?;
            let cut = encoder.cut().expect("a segment that is cut has frames");
            if !send_packets(encoder, &encoded, &mut clock)?
                || !clock.output(|| encoded.send(Encoded::Cut(cut)).is_ok())
            {
                return Ok(());
            }
            encoder.reopen()?;
        }
        if let Some(state) = shared.resume_state.encoder_states.get(&frame.time.index) {
            encoder.resume_from(state.clone());
        }
        let time = frame.time;
        encoder.send(frame)?;
        clock.count_frame(&time);
        if !send_packets(encoder, &encoded, &mut clock)? {
            return Ok(());
        }
    }
    encoder.finish()?;
    send_packets(encoder, &encoded, &mut clock)?;
    Ok(())
}

/// Sends the packets that the encoder has ready. Returns whether the consumer took them.
fn send_packets(encoder: &mut Encoder, encoded: &Sender<Encoded>, clock: &mut Clock) -> Result<bool> {
    while let Some(packet) = encoder.receive()? {
        clock.count_bytes(packet.size());
        if !clock.output(|| encoded.send(Encoded::Packet(packet)).is_ok()) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Writes packets of all streams in the order of their dts. Demux has ended before the last frame is encoded: all copied
/// packets are queued by then.
pub(super) fn mux(
    muxer: &mut Muxer,
    encoded: Receiver<Encoded>,
    shared: &Shared,
    mut clock: Clock,
) -> Result<()> {
    while let Ok(item) = clock.input(|| encoded.recv()) {
        let Encoded::Packet(packet) = item else { continue };
        while let Some(copy) = shared.copied.pop_before(Some(&packet))? {
            muxer.write(copy)?;
        }
        muxer.write(packet)?;
    }
    if shared.stop.has_stopped() {
        muxer.end_at_video();
    }
    while let Some(copy) = shared.copied.pop_before(None)? {
        muxer.write(copy)?;
    }
    Ok(())
}

/// Writes packets into segments, with those of copied streams where the input cannot be read twice.
pub(super) fn store(
    store: &mut dyn Store,
    encoded: Receiver<Encoded>,
    shared: &Shared,
    mut clock: Clock,
) -> Result<()> {
    let mut end_us = i64::MIN;
    while let Ok(item) = clock.input(|| encoded.recv()) {
        match item {
            Encoded::Packet(packet) => {
                while let Some(copy) = shared.copied.pop_before(Some(&packet))? {
                    store.write(copy)?;
                }
                end_us = end_us.max(packet.end_us());
                store.write(packet)?;
            }
            Encoded::Cut(cut) => store.close(cut)?,
        }
    }
    // A run that ends early ends all streams where its video ends.
    let is_at_end = shared.is_at_end.load(Ordering::Acquire);
    while let Some(copy) = shared.copied.pop_before(None)? {
        if is_at_end || copy.pts_us() < end_us {
            store.write(copy)?;
        }
    }
    Ok(())
}

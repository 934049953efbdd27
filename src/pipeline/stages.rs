//! The five stages, each a loop from its input queue to its output queue.
//!
//! A stage whose consumer is gone stops without an error of its own: the consumer has told one.

use crossbeam_channel::{Receiver, Sender};

use super::clock::Clock;
use super::resume::ResumeState;
use super::shared::{Copies, Stop};
use super::sink::Store;
use crate::engine::{Engine, EngineSpec, NetworkId};
use crate::error::Result;
use crate::frame::Frame;
use crate::media::{Cut, Decoder, Encoder, FramePool, Input, Muxer, Packet, SEGMENT_FRAMES, Transcoders};

/// Packets of the video go to the decoder, all others to the muxer, some by way of a transcoder; or nowhere, where they
/// are read again when segments are joined. Gives how often the input's clock jumped.
pub(super) fn demux(
    mut input: Input,
    to_decode: Sender<Packet>,
    mut copies: Option<(&Copies, Transcoders)>,
    stop: &Stop,
    mut clock: Clock,
) -> Result<u64> {
    while !stop.now() {
        let packet = match input.next_packet() {
            Ok(Some(packet)) => packet,
            Ok(None) => break,
            // An interrupt reaches the program before us in a shell's pipe as well: its end is no damage.
            Err(_) if stop.now() => break,
            Err(error) => return Err(error),
        };
        if input.is_video(&packet) {
            if !clock.output(|| to_decode.send(packet).is_ok()) {
                break;
            }
        } else if let Some((copies, transcoders)) = &mut copies {
            transcoders.convert(packet)?.into_iter().try_for_each(|packet| copies.push(packet))?;
        }
    }
    if let Some((copies, transcoders)) = &mut copies {
        transcoders.finish()?.into_iter().try_for_each(|packet| copies.push(packet))?;
    }
    Ok(input.clock_jumps())
}

/// Frames that are there already end here. Gives the decoder back for its counts.
pub(super) fn decode(
    mut decoder: Decoder,
    packets: Receiver<Packet>,
    frames: Sender<Frame>,
    (resume_state, stop): (&ResumeState, &Stop),
    mut clock: Clock,
) -> Result<Decoder> {
    let send = |frame: Frame, clock: &mut Clock| {
        resume_state.has(&frame.time) || clock.output(|| frames.send(frame).is_ok())
    };
    loop {
        // At first for the frame that fixed the geometry.
        while let Some(frame) = decoder.receive()? {
            let is_past =
                resume_state.end_segment.is_some_and(|end| frame.time.index / SEGMENT_FRAMES >= end);
            if is_past || stop.now() || !send(frame, &mut clock) {
                return Ok(decoder);
            }
        }
        match clock.input(|| packets.recv()) {
            Ok(packet) => decoder.send(packet)?,
            Err(_) => break,
        }
    }
    decoder.finish()?;
    while let Some(frame) = decoder.receive()? {
        if !send(frame, &mut clock) {
            break;
        }
    }
    Ok(decoder)
}

/// The queues of the upscale stage, and where it gets frames to fill.
pub(super) struct UpscaleIo {
    pub input: Receiver<Frame>,
    pub output: Sender<Frame>,
    pub pool: FramePool,
}

/// When the frames' size or format changes, the engine is emptied and opened again for the same output. Gives how many
/// frames were as the one before and, where `reuse` is on, got its result.
pub(super) fn upscale(
    mut spec: EngineSpec,
    network: NetworkId,
    reuse: bool,
    io: UpscaleIo,
    mut clock: Clock,
) -> Result<u64> {
    let open = |spec: &EngineSpec| if reuse { spec.open_with_reuse() } else { spec.open() };
    let mut engine = open(&spec)?;
    let (mut in_flight, mut reused) = (0, 0);
    while let Ok(lr) = clock.input(|| io.input.recv()) {
        if lr.format != spec.lr {
            while send_collected(engine.as_mut(), &io.output, &mut clock)? {}
            in_flight = 0;
            reused += engine.reused();
            spec.lr = lr.format;
            engine = open(&spec).map_err(|e| e.at("upscale", lr.time.index, Some(lr.time.seconds())))?;
        }
        let time = lr.time;
        engine
            .submit(lr, io.pool.take()?, network)
            .map_err(|error| error.at("upscale", time.index, Some(time.seconds())))?;
        in_flight += 1;
        if in_flight == engine.depth() {
            if !send_collected(engine.as_mut(), &io.output, &mut clock)? {
                return Ok(reused + engine.reused());
            }
            in_flight -= 1;
        }
    }
    while send_collected(engine.as_mut(), &io.output, &mut clock)? {}
    Ok(reused + engine.reused())
}

/// Whether there was a frame, and somebody to take it.
fn send_collected(engine: &mut dyn Engine, output: &Sender<Frame>, clock: &mut Clock) -> Result<bool> {
    let Some((lr, mut sr)) = engine.collect()? else { return Ok(false) };
    sr.time = lr.time;
    sr.props = lr.props;
    Ok(clock.output(|| output.send(sr).is_ok()))
}

/// What comes out of the encode stage.
pub(super) enum Encoded {
    Packet(Packet),
    /// All packets of a segment were sent.
    Cut(Cut),
}

/// Gives the encoder back for its counts. The cut at the end is not sent: whether the end is one is not known here.
pub(super) fn encode(
    mut encoder: Encoder,
    frames: Receiver<Frame>,
    encoded: Sender<Encoded>,
    resume_state: &ResumeState,
    mut clock: Clock,
) -> Result<Encoder> {
    while let Ok(frame) = clock.input(|| frames.recv()) {
        if encoder.cuts_before(&frame.time) {
            encoder.finish()?;
            let cut = encoder.cut().expect("a segment that is cut has begun");
            if !send_packets(&mut encoder, &encoded, &mut clock)?
                || !clock.output(|| encoded.send(Encoded::Cut(cut)).is_ok())
            {
                return Ok(encoder);
            }
            encoder.reopen()?;
        }
        if let Some(state) = resume_state.encoder_states.get(&frame.time.index) {
            encoder.go_on_from(state.clone());
        }
        encoder.send(frame)?;
        clock.count_frame();
        if !send_packets(&mut encoder, &encoded, &mut clock)? {
            return Ok(encoder);
        }
    }
    encoder.finish()?;
    send_packets(&mut encoder, &encoded, &mut clock)?;
    Ok(encoder)
}

/// Whether somebody takes them.
fn send_packets(encoder: &mut Encoder, encoded: &Sender<Encoded>, clock: &mut Clock) -> Result<bool> {
    while let Some(packet) = encoder.receive()? {
        if !clock.output(|| encoded.send(Encoded::Packet(packet)).is_ok()) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Writes packets of all streams in the order of their dts. Demux is done before the last frame is encoded: then all
/// copies are there.
pub(super) fn mux(
    muxer: &mut Muxer,
    encoded: Receiver<Encoded>,
    copies: &Copies,
    stop: &Stop,
    mut clock: Clock,
) -> Result<()> {
    while let Ok(item) = clock.input(|| encoded.recv()) {
        let Encoded::Packet(packet) = item else { continue };
        while let Some(copy) = copies.pop_before(Some(&packet))? {
            muxer.write(copy)?;
        }
        muxer.write(packet)?;
    }
    if stop.has_stopped() {
        muxer.cut_here();
    }
    while let Some(copy) = copies.pop_before(None)? {
        muxer.write(copy)?;
    }
    Ok(())
}

/// Keeps packets until their video is whole.
pub(super) fn store(store: &mut dyn Store, encoded: Receiver<Encoded>, mut clock: Clock) -> Result<()> {
    while let Ok(item) = clock.input(|| encoded.recv()) {
        match item {
            Encoded::Packet(packet) => store.write(packet)?,
            Encoded::Cut(cut) => store.close(cut)?,
        }
    }
    Ok(())
}

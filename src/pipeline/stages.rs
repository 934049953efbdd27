//! The five stages, each a loop from its input queue to its output queue.
//!
//! A stage whose consumer is gone stops without an error of its own: the consumer has told one.

use crossbeam_channel::{Receiver, Sender};

use super::clock::Clock;
use super::{Copies, Stop};
use crate::engine::{Engine, EngineSpec, NetworkId};
use crate::error::Result;
use crate::media::{Coded, Decoder, Encoder, Input, Muxer, PicturePool, Transcoders};
use crate::picture::Picture;

/// Packets of the video go to the decoder, all others to the muxer, some by way of a transcoder.
/// Gives how often the input's clock jumped.
pub(super) fn demux(
    (mut input, mut transcoders): (Input, Transcoders),
    to_decode: Sender<Coded>,
    copies: &Copies,
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
        if !input.is_video(&packet) {
            transcoders.convert(packet)?.into_iter().try_for_each(|packet| copies.push(packet))?;
        } else if !clock.output(|| to_decode.send(packet).is_ok()) {
            break;
        }
    }
    transcoders.finish()?.into_iter().try_for_each(|packet| copies.push(packet))?;
    Ok(input.clock_jumps())
}

/// Gives the decoder back for its counts.
pub(super) fn decode(
    mut decoder: Decoder,
    packets: Receiver<Coded>,
    pictures: Sender<Picture>,
    stop: &Stop,
    mut clock: Clock,
) -> Result<Decoder> {
    loop {
        // At first for the picture that fixed the geometry.
        while let Some(picture) = decoder.receive()? {
            if stop.now() || !clock.output(|| pictures.send(picture).is_ok()) {
                return Ok(decoder);
            }
        }
        match clock.input(|| packets.recv()) {
            Ok(packet) => decoder.send(packet)?,
            Err(_) => break,
        }
    }
    decoder.finish()?;
    while let Some(picture) = decoder.receive()? {
        if !clock.output(|| pictures.send(picture).is_ok()) {
            break;
        }
    }
    Ok(decoder)
}

/// The queues of the upscale stage, and where it gets pictures to fill.
pub(super) struct UpscaleIo {
    pub input: Receiver<Picture>,
    pub output: Sender<Picture>,
    pub pool: PicturePool,
}

/// When the pictures' size or format changes, the engine is emptied and opened again for the same output. Gives how many
/// pictures were as the one before and, where `reuse` is on, got its result.
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
        if lr.geometry != spec.lr {
            while send_collected(engine.as_mut(), &io.output, &mut clock)? {}
            in_flight = 0;
            reused += engine.reused();
            spec.lr = lr.geometry;
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

/// Whether there was a picture, and somebody to take it.
fn send_collected(engine: &mut dyn Engine, output: &Sender<Picture>, clock: &mut Clock) -> Result<bool> {
    let Some((lr, mut sr)) = engine.collect()? else { return Ok(false) };
    sr.time = lr.time;
    sr.props = lr.props;
    Ok(clock.output(|| output.send(sr).is_ok()))
}

/// Gives the encoder back for its counts.
pub(super) fn encode(
    mut encoder: Encoder,
    pictures: Receiver<Picture>,
    packets: Sender<Coded>,
    mut clock: Clock,
) -> Result<Encoder> {
    while let Ok(picture) = clock.input(|| pictures.recv()) {
        if encoder.cuts_before(&picture.time) {
            encoder.finish()?;
            if !send_packets(&mut encoder, &packets, &mut clock)? {
                return Ok(encoder);
            }
            encoder.reopen()?;
        }
        encoder.send(picture)?;
        clock.count_picture();
        if !send_packets(&mut encoder, &packets, &mut clock)? {
            return Ok(encoder);
        }
    }
    encoder.finish()?;
    send_packets(&mut encoder, &packets, &mut clock)?;
    Ok(encoder)
}

/// Whether somebody takes them.
fn send_packets(encoder: &mut Encoder, packets: &Sender<Coded>, clock: &mut Clock) -> Result<bool> {
    while let Some(packet) = encoder.receive()? {
        if !clock.output(|| packets.send(packet).is_ok()) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Writes packets of all streams in the order of their dts. Demux is done before the last picture is encoded: then all
/// copies are there.
pub(super) fn mux(
    muxer: &mut Muxer,
    encoded: Receiver<Coded>,
    copies: &Copies,
    stop: &Stop,
    mut clock: Clock,
) -> Result<()> {
    while let Ok(packet) = clock.input(|| encoded.recv()) {
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

//! The five stages, each a loop from its input queue to its output queue.
//!
//! A stage whose consumer is gone stops without an error of its own: the consumer has told one.

use crossbeam_channel::{Receiver, Sender};

use super::clock::Clock;
use super::{Copies, Stop, Store, Todo};
use crate::engine::{Engine, EngineSpec, NetworkId};
use crate::error::Result;
use crate::media::{Coded, Cut, Decoder, Encoder, Input, Muxer, PicturePool, SEGMENT_PICTURES, Transcoders};
use crate::picture::Picture;

/// Packets of the video go to the decoder, all others to the muxer, some by way of a transcoder; or nowhere, where they
/// are read again when segments are joined. Gives how often the input's clock jumped.
pub(super) fn demux(
    mut input: Input,
    to_decode: Sender<Coded>,
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

/// Pictures that are there already end here. Gives the decoder back for its counts.
pub(super) fn decode(
    mut decoder: Decoder,
    packets: Receiver<Coded>,
    pictures: Sender<Picture>,
    (todo, stop): (&Todo, &Stop),
    mut clock: Clock,
) -> Result<Decoder> {
    let send = |picture: Picture, clock: &mut Clock| {
        todo.has(&picture.time) || clock.output(|| pictures.send(picture).is_ok())
    };
    loop {
        // At first for the picture that fixed the geometry.
        while let Some(picture) = decoder.receive()? {
            let is_past = todo.until.is_some_and(|end| picture.time.index / SEGMENT_PICTURES >= end);
            if is_past || stop.now() || !send(picture, &mut clock) {
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
        if !send(picture, &mut clock) {
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

/// What comes out of the encode stage.
pub(super) enum Encoded {
    Packet(Coded),
    /// All packets of a segment were sent.
    Cut(Cut),
}

/// Gives the encoder back for its counts. The cut at the end is not sent: whether the end is one is not known here.
pub(super) fn encode(
    mut encoder: Encoder,
    pictures: Receiver<Picture>,
    encoded: Sender<Encoded>,
    todo: &Todo,
    mut clock: Clock,
) -> Result<Encoder> {
    while let Ok(picture) = clock.input(|| pictures.recv()) {
        if encoder.cuts_before(&picture.time) {
            encoder.finish()?;
            let cut = encoder.cut().expect("a segment that is cut has begun");
            if !send_packets(&mut encoder, &encoded, &mut clock)?
                || !clock.output(|| encoded.send(Encoded::Cut(cut)).is_ok())
            {
                return Ok(encoder);
            }
            encoder.reopen()?;
        }
        if let Some(state) = todo.starts.get(&picture.time.index) {
            encoder.go_on_from(state.clone());
        }
        encoder.send(picture)?;
        clock.count_picture();
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

/// Writes packets of all streams in the order of their dts. Demux is done before the last picture is encoded: then all
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

/// Keeps packets until their film is whole.
pub(super) fn store(store: &mut dyn Store, encoded: Receiver<Encoded>, mut clock: Clock) -> Result<()> {
    while let Ok(item) = clock.input(|| encoded.recv()) {
        match item {
            Encoded::Packet(packet) => store.write(packet)?,
            Encoded::Cut(cut) => store.close(cut)?,
        }
    }
    Ok(())
}

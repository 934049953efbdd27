//! Trial: a stream is muxed alone into memory, with its first packets, and read back, so that what its container cannot
//! hold is known before any work. FFmpeg's lists of codecs are incomplete, and do not depend on a stream's parameters.

use std::io::{self, Cursor, Read, Seek, SeekFrom, Write};
use std::sync::{Arc, Mutex, PoisonError};

use ffmpeg_next::format::context::StreamIo;
use ffmpeg_next::{self as ffmpeg, Rational, Rescale, codec, ffi, format};
use tracing::debug;

use crate::media::container::{container_name, demuxer_of};
use crate::media::decode::open::decoder_of;
use crate::media::ffmpeg::{MICROSECONDS, c_string, check};
use crate::media::ffmpeg_log;
use crate::media::packet::{Packet, write_packet};
use crate::media::stream::tag;

/// A stream to be muxed alone.
pub(crate) struct TrialStream<'a> {
    pub parameters: codec::Parameters,
    pub time_base: Rational,
    /// May be empty.
    pub language: &'a str,
    /// The first packets of the stream; there may be none.
    pub packets: &'a [Packet],
}

/// A stream that was read back.
pub(crate) struct ReadBack {
    pub parameters: codec::Parameters,
    pub language: Option<String>,
    pub packets: Vec<ffmpeg::Packet>,
}

/// What became of a stream.
pub(crate) enum Trial {
    /// Nothing is known: the container takes no such stream alone, or nothing was written that could be read back.
    Unknown,
    /// The muxer has refused it.
    Refused(ffmpeg::Error),
    ReadBack(ReadBack),
}

/// Whether a stream of the input is read back from the container in the codec in which it was written.
pub(crate) fn survives(
    container: &'static ffi::AVOutputFormat,
    stream: &ffmpeg::Stream,
    packets: &[Packet],
) -> bool {
    let (mut parameters, time_base) = (stream.parameters().clone(), stream.time_base());
    // SAFETY: the parameters are ours. The codec tag is another container's.
    unsafe { (*parameters.as_mut_ptr()).codec_tag = 0 };
    let (name, id) = (container_name(container), parameters.id());
    match try_stream(container, &TrialStream { parameters, time_base, language: "", packets }) {
        Trial::Unknown => true,
        Trial::Refused(error) => {
            debug!("{name} refuses stream {} ({}): {error}", stream.index(), id.name());
            false
        }
        Trial::ReadBack(found) => {
            let read = found.parameters.id();
            debug!("{name} reads stream {} ({}) as {}", stream.index(), id.name(), read.name());
            // Only codecs without a header of their own leave the rate and the channels to the container.
            // SAFETY: this is a table lookup.
            let is_headerless = unsafe { ffi::av_get_bits_per_sample(id.into()) } > 0;
            same_codec(read, id)
                && (!is_headerless || samples(&found.parameters) == samples(&stream.parameters()))
        }
    }
}

/// Sample rate in Hz and number of channels.
fn samples(parameters: &codec::Parameters) -> (i32, i32) {
    // SAFETY: the parameters are alive.
    let raw = unsafe { &*parameters.as_ptr() };
    (raw.sample_rate, raw.ch_layout.nb_channels)
}

/// Whether two codec ids are one codec: demuxers name some codecs differently.
pub(crate) fn same_codec(a: codec::Id, b: codec::Id) -> bool {
    use codec::Id::*;
    let aliases = [
        (SSA, ASS),
        (TEXT, SUBRIP),
        (MPEG1VIDEO, MPEG2VIDEO),
        (MP2, MP3),
        (H263, H263P),
        (LJPEG, MJPEG),
        // An animation of one frame.
        (APNG, PNG),
        (codec::Id::None, BIN_DATA),
    ];
    let raw = |id| matches!(id, RAWVIDEO | WRAPPED_AVFRAME);
    a == b || aliases.contains(&(a, b)) || aliases.contains(&(b, a)) || (raw(a) && raw(b))
}

/// Muxes the stream alone, and reads it back.
pub(crate) fn try_stream(container: &'static ffi::AVOutputFormat, stream: &TrialStream) -> Trial {
    let Some(demuxer) = demuxer_of(container_name(container)) else { return Trial::Unknown };
    let memory = Memory::default();
    let tried = match write(container, stream, &memory) {
        Err(error) => Trial::Refused(error),
        Ok(()) if stream.packets.is_empty() => Trial::Unknown,
        Ok(()) => {
            memory.lock().set_position(0);
            read(demuxer, memory).map_or(Trial::Unknown, Trial::ReadBack)
        }
    };
    // What a demuxer thinks of a file of a few packets is no complaint about the input.
    ffmpeg_log::take_demuxer_error();
    tried
}

/// What a container does to video that begins with this packet, if not what a reader expects.
pub(crate) fn problem_of_video(
    container: &'static ffi::AVOutputFormat,
    parameters: codec::Parameters,
    time_base: Rational,
    packet: &Packet,
) -> Option<String> {
    let (name, id) = (container_name(container), parameters.id());
    // SAFETY: the parameters are alive.
    let (width, height) = unsafe { ((*parameters.as_ptr()).width, (*parameters.as_ptr()).height) };
    // Some demuxers find out by a second packet.
    let packets = [0, 1].map(|time| {
        let mut packet = packet.share();
        packet.packet.set_pts(Some(time));
        packet.packet.set_dts(Some(time));
        packet.packet.set_duration(1);
        packet
    });
    let stream = TrialStream { parameters, time_base, language: "", packets: &packets };
    match try_stream(container, &stream) {
        Trial::Unknown => None,
        Trial::Refused(e) => Some(format!("{name} does not take what it encodes: {e}")),
        Trial::ReadBack(mut found) => {
            // Demuxers learn the size from frames, and decoders have a limit.
            // SAFETY: the parameters are ours.
            unsafe {
                let raw = &mut *found.parameters.as_mut_ptr();
                (raw.width, raw.height) = (width, height);
            }
            let read = found.parameters.id();
            let problem = if !same_codec(read, id) {
                format!("what it encodes is read from {name} as {}", read.name())
            } else if found.packets.len() != packets.len() {
                format!("{name} does not keep its frames apart")
            } else {
                decode(found.parameters, &found.packets[0])
                    .err()
                    .map(|e| format!("what it encodes is not decoded from {name}: {e}"))?
            };
            Some(problem)
        }
    }
}

/// Decodes one packet, if there is a decoder.
fn decode(parameters: codec::Parameters, packet: &ffmpeg::Packet) -> Result<(), ffmpeg::Error> {
    if codec::decoder::find(parameters.id()).is_none() {
        return Ok(());
    }
    let mut decoder = decoder_of(parameters, MICROSECONDS)?.video()?;
    decoder.send_packet(packet)?;
    decoder.send_eof()?;
    loop {
        match decoder.receive_frame(&mut ffmpeg::frame::Video::empty()) {
            Ok(()) => {}
            Err(ffmpeg::Error::Eof) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

fn write(
    container: &'static ffi::AVOutputFormat,
    stream: &TrialStream,
    memory: &Memory,
) -> Result<(), ffmpeg::Error> {
    let mut io = StreamIo::from_write_seek(memory.clone())?;
    let mut raw = std::ptr::null_mut();
    // SAFETY: the container is static; the wrapper takes the context and its I/O over, and all fields set are plain values.
    let mut context = unsafe {
        let null = std::ptr::null();
        check(ffi::avformat_alloc_output_context2(&mut raw, container, null, null))?;
        (*raw).pb = io.as_mut_ptr();
        (*raw).flags |= ffi::AVFMT_FLAG_CUSTOM_IO;
        (*raw).strict_std_compliance = ffi::FF_COMPLIANCE_EXPERIMENTAL;
        format::context::Output::wrap_with_custom_io(raw, io)
    };
    let mut added = context.add_stream(ffmpeg::encoder::find(codec::Id::None))?;
    added.set_parameters(stream.parameters.clone());
    added.set_time_base(stream.time_base);
    if !stream.language.is_empty() {
        added.set_metadata([("language", stream.language)].into_iter().collect());
    }
    context.write_header()?;
    let base = context.stream(0).expect("the added stream").time_base();
    let start =
        stream.packets.first().map_or(0, |first| first.packet.dts().or(first.packet.pts()).unwrap_or(0));
    let mut dts_min = i64::MIN;
    for packet in stream.packets {
        let mut packet = packet.share().packet;
        let from_start = |time: i64| (time - start).rescale(stream.time_base, base);
        let dts = packet.dts().or(packet.pts()).map_or(dts_min, from_start).max(dts_min);
        packet.set_pts(Some(packet.pts().map_or(dts, from_start).max(dts)));
        packet.set_dts(Some(dts));
        packet.set_duration(packet.duration().rescale(stream.time_base, base));
        dts_min = dts + 1;
        packet.set_stream(0);
        packet.set_position(-1);
        write_packet(&packet, &mut context)?;
    }
    context.write_trailer()
}

/// The stream of a file that has one; `None` if there is none.
fn read(demuxer: &str, memory: Memory) -> Option<ReadBack> {
    let (name, mut io) = (c_string(demuxer), StreamIo::from_read_seek(memory).ok()?);
    // SAFETY: the string lives through the call; on failure FFmpeg frees the context and leaves the I/O to us, on success
    // the wrapper takes both over.
    let mut context = unsafe {
        let mut raw = ffi::avformat_alloc_context();
        assert!(!raw.is_null(), "no memory for a context");
        (*raw).pb = io.as_mut_ptr();
        (*raw).flags |= ffi::AVFMT_FLAG_CUSTOM_IO;
        let demuxer = ffi::av_find_input_format(name.as_ptr());
        check(ffi::avformat_open_input(&mut raw, c"".as_ptr(), demuxer, std::ptr::null_mut())).ok()?;
        format::context::Input::wrap_with_custom_io(raw, io)
    };
    // Some demuxers know a stream when its first packet comes, and some add another.
    let mut packets = Vec::new();
    loop {
        let mut packet = ffmpeg::Packet::empty();
        match packet.read(&mut context) {
            Ok(()) if packet.stream() == 0 => packets.push(packet),
            Ok(()) => {}
            Err(_) => break,
        }
    }
    let stream = context.stream(0)?;
    Some(ReadBack { parameters: stream.parameters(), language: tag(&stream, c"language"), packets })
}

/// Bytes that are written, then read.
#[derive(Clone, Default)]
struct Memory(Arc<Mutex<Cursor<Vec<u8>>>>);

impl Memory {
    fn lock(&self) -> std::sync::MutexGuard<'_, Cursor<Vec<u8>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Read for Memory {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.lock().read(buffer)
    }
}

impl Write for Memory {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.lock().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for Memory {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        self.lock().seek(position)
    }
}

//! Transcode: audio and text subtitles in a codec that the output's container cannot hold are converted to one that it
//! can.

use ffmpeg_next::{self as ffmpeg, Rational, codec};

use crate::error::{Error, ErrorKind, Result};
use crate::media::damage::{Damage, DamagedPlace};
use crate::media::ffmpeg::{MICROSECONDS, error_kind, parameters_of};
use crate::media::mux::audio::{AudioTranscoder, DepthChange, LayoutChange, TranscodeSpec};
use crate::media::mux::text::{TextTranscoder, clip_text};
use crate::media::packet::Packet;
use crate::media::stream::Trim;

/// The transcoders of all streams that are converted, and what a cut makes of text.
pub struct Transcoders {
    transcoders: Vec<Transcoder>,
    /// Streams of text in the output.
    texts: Vec<usize>,
    part: Trim,
    damage: Damage,
}

/// Decoder and encoder of one stream.
pub(crate) struct Transcoder {
    stream: usize,
    name: String,
    kind: Kind,
    /// The part of the stream that is written: what cannot be decoded outside of it is not damage.
    part: Trim,
}

enum Kind {
    Audio(Box<AudioTranscoder>),
    Text(TextTranscoder),
}

impl Transcoders {
    /// Those of the input named `source`; none yet.
    pub(crate) fn new(source: &str) -> Transcoders {
        let damage = Damage::new(source, false);
        Transcoders { transcoders: Vec::new(), texts: Vec::new(), part: Trim::EVERYTHING, damage }
    }

    /// The same, of which only packets within `part` are written.
    pub(crate) fn within(mut self, part: Trim) -> Transcoders {
        self.transcoders.iter_mut().for_each(|transcoder| transcoder.part = part);
        self.part = part;
        self
    }

    pub(crate) fn add(&mut self, transcoder: Transcoder) {
        self.transcoders.push(transcoder);
    }

    /// States that a stream of the output is text.
    pub(crate) fn add_text(&mut self, stream: usize) {
        self.texts.push(stream);
    }

    /// Packets that could not be decoded, apart from the damage that reading the source finds.
    pub fn damage(&self) -> &Damage {
        &self.damage
    }

    /// Converts a packet; one of a copied stream is returned as it is, text within the part.
    pub fn convert(&mut self, packet: Packet) -> Result<Vec<Packet>> {
        let converted = self.transcoders.iter_mut().find(|transcoder| transcoder.stream == packet.stream);
        let mut packets = match converted {
            Some(transcoder) => transcoder.take(Some(packet), &self.damage)?,
            None => vec![packet],
        };
        self.clip_texts(&mut packets);
        Ok(packets)
    }

    /// Drains decoders and encoders after the last packet.
    pub fn finish(&mut self) -> Result<Vec<Packet>> {
        let mut rest = Vec::new();
        for transcoder in &mut self.transcoders {
            rest.extend(transcoder.take(None, &self.damage)?);
        }
        self.clip_texts(&mut rest);
        Ok(rest)
    }

    fn clip_texts(&self, packets: &mut [Packet]) {
        for packet in packets.iter_mut().filter(|packet| self.texts.contains(&packet.stream)) {
            clip_text(&mut packet.packet, packet.time_base, self.part);
        }
    }
}

impl Transcoder {
    /// Opens decoder and encoder for a stream of the input named `source`.
    pub(crate) fn open(stream: &ffmpeg::Stream, source: &str, spec: &TranscodeSpec) -> Result<Transcoder> {
        let name = format!("{source}: stream {}", stream.index());
        let opened = if spec.encoder.is_audio() {
            AudioTranscoder::open(stream, spec).map(|audio| Kind::Audio(Box::new(audio)))
        } else {
            TextTranscoder::open(stream, spec.encoder).map(Kind::Text)
        };
        let kind = opened.map_err(|e| {
            let problem = format!("cannot be converted to {}: {e}", spec.encoder.name());
            Error::new(&name, problem, "leave it out with --map, or choose another container")
                .with_kind(ErrorKind::Unsupported)
                .with_source(e)
        })?;
        Ok(Transcoder { stream: stream.index(), name, kind, part: Trim::EVERYTHING })
    }

    /// Parameters and time base of the converted stream.
    pub(crate) fn encoded(&self) -> (codec::Parameters, Rational) {
        let context = match &self.kind {
            Kind::Audio(audio) => &audio.encoder,
            Kind::Text(text) => &text.encoder,
        };
        // SAFETY: the context is alive.
        let time_base = unsafe { Rational::from((*context.as_ptr()).time_base) };
        (parameters_of(context), time_base)
    }

    /// The change of the channel layout, if there is one.
    pub(crate) fn layout_change(&self) -> Option<LayoutChange> {
        match &self.kind {
            Kind::Audio(audio) => audio.layout_change(),
            Kind::Text(_) => None,
        }
    }

    /// The bits of audio samples that are lost, if there are any.
    pub(crate) fn depth_change(&self) -> Option<DepthChange> {
        match &self.kind {
            Kind::Audio(audio) => audio.depth_change(),
            Kind::Text(_) => None,
        }
    }

    /// Converts a packet; without one, drains decoder and encoder. A packet that cannot be decoded is noted as damage.
    pub(crate) fn take(&mut self, packet: Option<Packet>, damage: &Damage) -> Result<Vec<Packet>> {
        let mut out = Vec::new();
        let is_written = packet.as_ref().is_none_or(|packet| self.part.contains(packet.dts_us()));
        let pts = packet.as_ref().and_then(|packet| packet.packet.pts());
        let seconds = packet.as_ref().filter(|_| pts.is_some()).map(|packet| packet.pts_us() as f64 / 1e6);
        let result = match &mut self.kind {
            Kind::Audio(audio) => audio.take(packet.map(|packet| packet.packet), &mut out),
            Kind::Text(text) => text.take(packet.map(|packet| packet.packet), &mut out),
        };
        match result {
            Ok(()) => {}
            // As in FFmpeg's command: a packet that cannot be decoded is a gap, and gaps in audio are filled.
            Err(ffmpeg::Error::InvalidData) if !is_written => {}
            Err(ffmpeg::Error::InvalidData) => {
                let problem = format!("a packet of stream {} cannot be decoded", self.stream);
                damage.note(DamagedPlace { problem, frame: None, pts, seconds });
            }
            Err(error) => {
                let problem = format!("cannot be converted further: {error}");
                return Err(Error::new(&self.name, problem, "leave it out with --map")
                    .with_kind(error_kind(error))
                    .with_source(error));
            }
        }
        let (stream, time_base) = (self.stream, self.time_base());
        Ok(out.into_iter().map(|packet| Packet { packet, stream, time_base, index: 0 }).collect())
    }

    fn time_base(&self) -> Rational {
        match &self.kind {
            Kind::Audio(audio) => audio.time_base,
            Kind::Text(_) => MICROSECONDS,
        }
    }
}

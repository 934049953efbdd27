//! What is going to happen to each stream of an input, in words, and what the streams besides the video take.

use ffmpeg_next::{self as ffmpeg, media};
use serde::Serialize;

use crate::media::demux::input::Input;
use crate::media::mux::streams::{Plan, StreamAction, StreamMapping, is_written_by_muxer};
use crate::media::output::Output;
use crate::media::stream::{is_cover, kind_name, tag};

/// A stream of the input, and what is going to happen to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PlannedStream {
    /// Index in the input.
    pub index: usize,
    /// Media type: video, audio, subtitle, data or attachment.
    pub kind: String,
    /// FFmpeg's name of the codec.
    pub codec: String,
    /// Language tag.
    pub language: Option<String>,
    /// `upscaled`, `copied`, `converted`, `kept as metadata` or `left out`.
    pub action: &'static str,
    /// The codec that a converted stream gets, or why a stream is left out.
    pub detail: Option<String>,
}

impl Plan {
    /// Every stream of the input, whether it is written or not.
    pub fn streams(&self, input: &Input, output: &Output) -> Vec<PlannedStream> {
        let planned = |stream: ffmpeg::Stream| {
            let (action, detail) = self.fate(&stream, input, output);
            PlannedStream {
                index: stream.index(),
                kind: kind_name(stream.parameters().medium()),
                codec: stream.parameters().id().name().to_owned(),
                language: tag(&stream, c"language").filter(|language| !matches!(&**language, "" | "und")),
                action,
                detail,
            }
        };
        input.context().streams().map(planned).collect()
    }

    fn fate(
        &self,
        stream: &ffmpeg::Stream,
        input: &Input,
        output: &Output,
    ) -> (&'static str, Option<String>) {
        let index = stream.index();
        let mapped = self.mappings.iter().find(|mapping| mapping.input_index == index);
        match mapped.map(|mapping| mapping.action) {
            Some(StreamAction::Upscale) => ("upscaled", None),
            Some(StreamAction::Copy | StreamAction::Cover) => ("copied", None),
            Some(StreamAction::Convert) => {
                let codec = self.encoded.get(&index).map(|(parameters, _)| parameters.id().name().to_owned());
                ("converted", codec)
            }
            None if !input.wanted().contains(&index) => ("left out", Some("by --map".to_owned())),
            None if is_written_by_muxer(stream, output) => ("kept as metadata", None),
            None if self.left_out.iter().any(|what| what.starts_with(&format!("stream {index} "))) => {
                ("left out", Some(format!("{} cannot hold it", output.container())))
            }
            None => ("left out", Some("by --audio none".to_owned())),
        }
    }

    /// Whether the packets of this stream are copied.
    pub fn copies(&self, index: usize) -> bool {
        let is_it = |mapping: &StreamMapping| mapping.input_index == index;
        self.mappings.iter().any(|mapping| is_it(mapping) && mapping.action == StreamAction::Copy)
    }

    /// Whether packets of any stream are copied.
    pub fn copies_any(&self) -> bool {
        self.mappings.iter().any(|mapping| mapping.action == StreamAction::Copy)
    }

    /// Bit rate of all converted streams, as their encoders state it.
    pub fn converted_bit_rate(&self) -> f64 {
        // SAFETY: the parameters are alive.
        let rate = |parameters: &ffmpeg::codec::Parameters| unsafe { (*parameters.as_ptr()).bit_rate };
        self.encoded.values().map(|(parameters, _)| rate(parameters).max(0) as f64).sum()
    }

    /// Bytes of covers and attached files.
    pub fn attached_bytes(&self, input: &Input) -> u64 {
        let streams = self.mappings.iter().filter_map(|mapping| input.context().stream(mapping.input_index));
        let bytes = |stream: ffmpeg::Stream| {
            // SAFETY: stream and parameters are alive.
            let (cover, header) = unsafe {
                let raw = &*stream.as_ptr();
                (raw.attached_pic.size, (*raw.codecpar).extradata_size)
            };
            match stream.parameters().medium() {
                media::Type::Attachment => header.max(0) as u64,
                _ if is_cover(&stream) => cover.max(0) as u64,
                _ => 0,
            }
        };
        streams.map(bytes).sum()
    }
}

//! Summaries of streams, as written and as read back: what verification compares.

use ffmpeg_next::ffi;
use ffmpeg_next::{self as ffmpeg, Rational, Rescale, codec, media};

use crate::media::ffmpeg::MICROSECONDS;
use crate::media::stream::{kind_name, tag};

/// A stream of the finished file.
#[derive(Clone, Debug)]
pub struct VerifiedStream {
    /// Media type: video, audio, subtitle, data or attachment.
    pub kind: String,
    /// FFmpeg's name of the codec.
    pub codec: String,
    /// Language tag.
    pub language: Option<String>,
    /// FFmpeg's names of the dispositions.
    pub dispositions: Vec<&'static str>,
    /// Number of packets.
    pub packets: u64,
}

/// Summary of a stream, as written or as read. Times are in microseconds.
#[derive(Clone, Debug)]
pub(crate) struct StreamSummary {
    pub(super) medium: media::Type,
    pub(super) id: codec::Id,
    pub(super) language: Option<String>,
    pub(super) disposition: i32,
    /// Duration of 2^20 bytes of audio whose samples are coded one by one; 0 for others.
    pub(super) mebibyte_us: i64,
    pub(super) packets: u64,
    pub(super) first: i64,
    pub(super) last: i64,
    pub(super) end: i64,
}

impl StreamSummary {
    pub(crate) fn of(stream: &ffmpeg::Stream) -> StreamSummary {
        let parameters = stream.parameters();
        // SAFETY: the stream is alive.
        let disposition = unsafe { (*stream.as_ptr()).disposition };
        let language = tag(stream, c"language");
        StreamSummary {
            medium: parameters.medium(),
            id: parameters.id(),
            language,
            disposition,
            mebibyte_us: mebibyte_us(&parameters),
            packets: 0,
            first: i64::MAX,
            last: i64::MIN,
            end: i64::MIN,
        }
    }

    /// Counts a packet, whose timestamps a demuxer reads earlier by `delay_us`.
    pub(crate) fn count(&mut self, packet: &ffmpeg::Packet, time_base: Rational, delay_us: i64) {
        self.packets += 1;
        if let Some(pts) = packet.pts() {
            let us = |ticks: i64| ticks.rescale(time_base, MICROSECONDS) - delay_us;
            self.first = self.first.min(us(pts));
            self.last = self.last.max(us(pts));
            // The demuxer of MOV shortens the last packet of a track that starts late, not its samples.
            let duration_us = match self.mebibyte_us {
                0 => packet.duration().rescale(time_base, MICROSECONDS),
                mebibyte_us => (packet.size() as i64).saturating_mul(mebibyte_us) >> 20,
            };
            self.end = self.end.max(us(pts).saturating_add(duration_us));
        }
    }

    /// Whether this is a track of audio.
    pub(super) fn is_audio(&self) -> bool {
        self.medium == media::Type::Audio
    }

    /// Whether packets hold more than one sample.
    pub(super) fn is_compressed(&self) -> bool {
        // SAFETY: this is a table lookup. Only codecs whose samples are coded one by one have a number of bits.
        unsafe { ffi::av_get_bits_per_sample(self.id.into()) == 0 }
    }

    /// Whether this is an attached file, such as a cover or a font, and no track.
    pub(super) fn is_attached(&self) -> bool {
        self.medium == media::Type::Attachment || self.disposition & ffi::AV_DISPOSITION_ATTACHED_PIC != 0
    }

    pub(super) fn verified(&self) -> VerifiedStream {
        VerifiedStream {
            kind: kind_name(self.medium),
            codec: self.id.name().to_owned(),
            language: self.language.clone(),
            dispositions: DISPOSITIONS
                .iter()
                .filter(|(bit, _)| self.disposition & bit != 0)
                .map(|(_, name)| *name)
                .collect(),
            packets: self.packets,
        }
    }
}

fn mebibyte_us(parameters: &codec::Parameters) -> i64 {
    // SAFETY: the parameters are alive, and only read.
    unsafe {
        let raw = parameters.as_ptr();
        let (bits, rate) =
            (ffi::av_get_exact_bits_per_sample((*raw).codec_id), i64::from((*raw).sample_rate));
        let samples = ffi::av_get_audio_frame_duration2(raw.cast_mut(), 1 << 20);
        if bits > 0 && rate > 0 { i64::from(samples) * 1_000_000 / rate } else { 0 }
    }
}

/// FFmpeg's names of the dispositions.
pub(super) const DISPOSITIONS: [(i32, &str); 9] = [
    (ffi::AV_DISPOSITION_DEFAULT, "default"),
    (ffi::AV_DISPOSITION_DUB, "dub"),
    (ffi::AV_DISPOSITION_ORIGINAL, "original"),
    (ffi::AV_DISPOSITION_COMMENT, "comment"),
    (ffi::AV_DISPOSITION_LYRICS, "lyrics"),
    (ffi::AV_DISPOSITION_FORCED, "forced"),
    (ffi::AV_DISPOSITION_HEARING_IMPAIRED, "hearing_impaired"),
    (ffi::AV_DISPOSITION_VISUAL_IMPAIRED, "visual_impaired"),
    (ffi::AV_DISPOSITION_ATTACHED_PIC, "attached_pic"),
];

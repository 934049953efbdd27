//! Stream info: time base and rate of the video, the wanted part of it, kind, tags and cover of a stream.

use std::ffi::{CStr, CString};

use ffmpeg_next::{self as ffmpeg, Rational, Rescale, codec, ffi, media};

use crate::media::ffmpeg::{MICROSECONDS, copy_tags};

/// The stream to upscale, as its container describes it.
#[derive(Clone, Copy, Debug)]
pub struct VideoInfo {
    /// Time base of its packets.
    pub(crate) time_base: Rational,
    /// Average fps, or the container's guess; 25 if unknown.
    pub(crate) frame_rate: Rational,
    /// Whether the rate is constant according to the container.
    pub is_constant: bool,
    /// Width of a sample over its height; 1 if unknown.
    pub(crate) sample_aspect: Rational,
    /// Estimated number of frames, for a progress bar; 0 if unknown.
    pub frames_expected: u64,
}

impl VideoInfo {
    /// Average frames per second.
    pub fn fps(&self) -> f64 {
        self.frame_rate.into()
    }
}

/// The wanted part of the source, in microseconds of its own clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trim {
    /// Frames before this are dropped.
    pub from_us: i64,
    /// Frames at or after this are dropped.
    pub to_us: i64,
}

impl Trim {
    /// Nothing is left out.
    pub(crate) const EVERYTHING: Trim = Trim { from_us: i64::MIN, to_us: i64::MAX };

    /// Whether nothing is left out.
    pub(crate) fn is_everything(&self) -> bool {
        *self == Trim::EVERYTHING
    }

    /// Whether this time lies in the wanted part.
    pub fn contains(&self, time_us: i64) -> bool {
        (self.from_us..self.to_us).contains(&time_us)
    }

    /// Offset that is subtracted from output timestamps: a clip begins at 0, a complete file where its source began.
    pub fn offset_us(&self) -> i64 {
        if self.from_us == i64::MIN { 0 } else { self.from_us }
    }
}

/// Start of the stream in microseconds; `None` if it is unknown.
pub(crate) fn start_us(stream: &ffmpeg::Stream) -> Option<i64> {
    let start = stream.start_time();
    (start != ffi::AV_NOPTS_VALUE).then(|| start.rescale(stream.time_base(), MICROSECONDS))
}

/// Whether the stream is an attached picture.
pub(crate) fn is_cover(stream: &ffmpeg::Stream) -> bool {
    // SAFETY: the stream is alive.
    unsafe { (*stream.as_ptr()).disposition & ffi::AV_DISPOSITION_ATTACHED_PIC != 0 }
}

/// FFmpeg's word for a kind of stream.
pub(crate) fn kind_name(medium: media::Type) -> String {
    format!("{medium:?}").to_lowercase()
}

/// Tags of a stream. The statistics that Matroska's muxers write do not hold once the stream is encoded again, and
/// whether there is alpha the muxer finds out itself.
pub(crate) fn metadata(stream: &ffmpeg::Stream, is_reencoded: bool) -> ffmpeg::Dictionary<'static> {
    const STALE: [&str; 7] =
        ["ALPHA_MODE", "BPS", "DURATION", "NUMBER_OF_FRAMES", "NUMBER_OF_BYTES", "_STATISTICS", "ENCODER"];
    // SAFETY: the stream is alive.
    let kept = unsafe { copy_tags((*stream.as_ptr()).metadata) };
    if !is_reencoded {
        return kept;
    }
    // SAFETY: the dictionary is ours; its entries and their keys live until it is changed, which is after the loop.
    unsafe {
        let mut stale: Vec<CString> = Vec::new();
        let mut entry = std::ptr::null();
        loop {
            entry = ffi::av_dict_get(kept.as_ptr(), c"".as_ptr(), entry, ffi::AV_DICT_IGNORE_SUFFIX);
            let Some(found) = entry.as_ref() else { break };
            let key = CStr::from_ptr(found.key);
            let upper = key.to_bytes().to_ascii_uppercase();
            if STALE.iter().any(|stale| upper.starts_with(stale.as_bytes())) {
                stale.push(key.to_owned());
            }
        }
        let mut raw = kept.disown();
        for key in stale {
            ffi::av_dict_set(&mut raw, key.as_ptr(), std::ptr::null(), 0);
        }
        ffmpeg::Dictionary::own(raw)
    }
}

/// Whether the stream has alpha apart from its frames, as VP8 and VP9 have it in Matroska.
pub(crate) fn has_alpha_apart(stream: &ffmpeg::Stream) -> bool {
    let id = stream.parameters().id();
    matches!(id, codec::Id::VP8 | codec::Id::VP9)
        && tag(stream, c"alpha_mode").is_some_and(|mode| !matches!(mode.as_str(), "" | "0"))
}

/// A tag of a stream as text; bytes that are not UTF-8 are replaced.
pub(crate) fn tag(stream: &ffmpeg::Stream, key: &CStr) -> Option<String> {
    // SAFETY: the stream is alive; an entry's value is a C string that stays as long as its dictionary.
    unsafe {
        let entry =
            ffi::av_dict_get((*stream.as_ptr()).metadata, key.as_ptr(), std::ptr::null(), 0).as_ref()?;
        Some(CStr::from_ptr(entry.value).to_string_lossy().into_owned())
    }
}

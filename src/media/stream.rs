//! What describes a stream: the video's clock and rate, the part of it that is wanted, its kind, tags and cover.

use std::ffi::{CStr, CString};

use ffmpeg_next::{self as ffmpeg, Rational, ffi, media};

/// What the container says of the stream to upscale.
#[derive(Clone, Copy, Debug)]
pub struct VideoInfo {
    /// Of its packets.
    pub time_base: Rational,
    /// Average, or the container's guess; 25 where nobody knows.
    pub frame_rate: Rational,
    /// Whether the container takes the rate for constant.
    pub is_constant: bool,
    /// Width of a sample over its height; 1 where nobody knows.
    pub sample_aspect: Rational,
    /// How many frames there will be, for a progress bar; 0 where nobody knows.
    pub frames_expected: u64,
}

/// The part of the source that is wanted, in microseconds of its own clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trim {
    /// Frames before this are dropped.
    pub from_us: i64,
    /// And those at or after this.
    pub to_us: i64,
}

impl Trim {
    /// Whether anything is left out.
    pub(crate) fn is_whole(&self) -> bool {
        *self == Trim { from_us: i64::MIN, to_us: i64::MAX }
    }

    /// Whether this time lies in the wanted part.
    pub fn holds(&self, time_us: i64) -> bool {
        (self.from_us..self.to_us).contains(&time_us)
    }

    /// What output times are moved back by: a clip begins at 0, a whole file where it began.
    pub fn offset_us(&self) -> i64 {
        if self.from_us == i64::MIN { 0 } else { self.from_us }
    }
}

pub(crate) fn is_cover(stream: &ffmpeg::Stream) -> bool {
    // SAFETY: the stream is alive.
    unsafe { (*stream.as_ptr()).disposition & ffi::AV_DISPOSITION_ATTACHED_PIC != 0 }
}

/// FFmpeg's word for a kind of stream.
pub(crate) fn kind_name(medium: media::Type) -> String {
    format!("{medium:?}").to_lowercase()
}

/// Tags of a stream. Figures that Matroska's writers keep of a coded stream do not hold for what is made of it.
pub(crate) fn metadata(stream: &ffmpeg::Stream, is_coded_anew: bool) -> ffmpeg::Dictionary<'static> {
    const OF_THE_CODED: [&str; 6] =
        ["BPS", "DURATION", "NUMBER_OF_FRAMES", "NUMBER_OF_BYTES", "_STATISTICS", "ENCODER"];
    // As bytes: many a tag is no UTF-8.
    let kept = stream.metadata().to_owned();
    if !is_coded_anew {
        return kept;
    }
    // SAFETY: the dictionary is ours; its entries and their keys live until it is changed, which is after the walk.
    unsafe {
        let mut stale: Vec<CString> = Vec::new();
        let mut entry = std::ptr::null();
        loop {
            entry = ffi::av_dict_get(kept.as_ptr(), c"".as_ptr(), entry, ffi::AV_DICT_IGNORE_SUFFIX);
            let Some(found) = entry.as_ref() else { break };
            let key = CStr::from_ptr(found.key);
            let upper = key.to_bytes().to_ascii_uppercase();
            if OF_THE_CODED.iter().any(|stale| upper.starts_with(stale.as_bytes())) {
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

/// A tag of a stream as text, whatever bytes it has.
pub(crate) fn tag(stream: &ffmpeg::Stream, key: &CStr) -> Option<String> {
    // SAFETY: the stream is alive; an entry's value is a C string that stays as long as its dictionary.
    unsafe {
        let entry =
            ffi::av_dict_get((*stream.as_ptr()).metadata, key.as_ptr(), std::ptr::null(), 0).as_ref()?;
        Some(CStr::from_ptr(entry.value).to_string_lossy().into_owned())
    }
}

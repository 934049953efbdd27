//! Options of encoders: defaults, names that encoders have for them, and values.

use ffmpeg_next as ffmpeg;

use crate::error::{Error, ErrorKind, Result};
use crate::media::side_data::has_option;

/// Default options of each encoder: a quality near x264's CRF 18, at a usable speed.
pub(super) fn default_options(encoder: &str) -> &'static [(&'static str, &'static str)] {
    match encoder {
        "libx264" | "libx264rgb" => &[("crf", "18")],
        "libx265" => &[("crf", "20"), ("x265-params", "log-level=error")],
        "libsvtav1" => &[("crf", "24"), ("preset", "6")],
        "libaom-av1" => &[("crf", "22"), ("b", "0"), ("cpu-used", "4"), ("row-mt", "1")],
        "libvpx-vp9" => &[("crf", "22"), ("b", "0"), ("row-mt", "1")],
        "libvpx" => &[("crf", "8"), ("b", "20M")],
        "h264_nvenc" | "hevc_nvenc" | "av1_nvenc" => {
            &[("rc", "vbr"), ("cq", "19"), ("b", "0"), ("preset", "p5")]
        }
        "mpeg2video" | "mpeg4" | "mpeg1video" | "mjpeg" | "libxvid" | "msmpeg4" | "msmpeg4v2" | "wmv1"
        | "wmv2" | "flv" | "h261" | "h263" | "h263p" | "rv10" | "rv20" => {
            &[("flags", "+qscale"), ("global_quality", "236")]
        }
        "libtheora" => &[("flags", "+qscale"), ("global_quality", "1062")],
        "ffv1" => &[("level", "3"), ("slicecrc", "1"), ("slices", "4")],
        _ => &[],
    }
}

/// The encoder that users mean by the name of a codec or a library.
pub(super) fn encoder_of(name: &str) -> Option<&'static str> {
    Some(match name.to_ascii_lowercase().as_str() {
        "x264" | "h264" | "h.264" | "avc" => "libx264",
        "x265" | "h265" | "h.265" | "hevc" => "libx265",
        "av1" | "svtav1" | "svt-av1" => "libsvtav1",
        "aom" | "aomenc" => "libaom-av1",
        "vp9" => "libvpx-vp9",
        "vp8" => "libvpx",
        "nvenc" => "hevc_nvenc",
        _ => return None,
    })
}

/// The encoder's option for `word`, the first of `keys` that it has.
pub(super) fn named_option(
    codec: ffmpeg::Codec,
    word: &str,
    value: &Option<String>,
    keys: &[&str],
) -> Result<Option<(String, String)>> {
    let Some(value) = value else { return Ok(None) };
    let Some(key) = keys.iter().find(|key| has_option(codec, key)) else {
        let name = codec.name();
        let problem = format!("encoder {name} has no such option");
        let remedy = format!("ffmpeg -h encoder={name} lists what --encoder-opt takes");
        return Err(Error::new(word, problem, remedy).with_kind(ErrorKind::Unsupported));
    };
    Ok(Some(((*key).to_owned(), value.clone())))
}

/// Parses a codec tag of four characters, e.g. `hev1`.
pub(super) fn parse_tag(text: &str) -> Result<u32> {
    let tag = <[u8; 4]>::try_from(text.as_bytes()).ok().filter(|tag| tag.is_ascii());
    tag.map(u32::from_le_bytes).ok_or_else(|| {
        let problem = format!("'{text}' is no codec tag");
        Error::new("--encoder-opt tag", problem, "write four characters, e.g. tag=hev1")
    })
}

/// Parses a bit rate as FFmpeg does, e.g. `8M` or `800k`; `None` for 0, a rate that follows the quality.
pub(crate) fn parse_bit_rate(text: &str) -> Option<f64> {
    let (digits, unit) = match text.strip_suffix(['k', 'K']) {
        Some(digits) => (digits, 1e3),
        None => text.strip_suffix('M').map_or((text, 1.0), |digits| (digits, 1e6)),
    };
    digits.parse::<f64>().ok().map(|rate| rate * unit).filter(|rate| *rate > 0.0)
}

//! Which encoder, which pixel format, which options: what the user asked for and what FFmpeg has.

use std::ffi::CStr;

use ffmpeg_next::ffi;
use ffmpeg_next::{self as ffmpeg, Rational, codec};
use tracing::{info, warn};

use crate::color::{ChromaLocation, ColorSpec, Matrix, Range, Transfer};
use crate::error::{Error, Result};
use crate::frame::{Family, FrameFormat, PixelFormat};
use crate::media::demux::sequence::{check_kind, is_still};
use crate::media::ffmpeg::c_string;
use crate::media::ffmpeg::check;
use crate::media::format::{Tags, closest, describe, loss, pixel_format};
use crate::media::output::Output;
use crate::media::stream::VideoInfo;

/// What the user asked of the encoder.
#[derive(Clone, Debug, Default)]
pub struct EncoderSpec {
    /// FFmpeg's name; by the container where none is given.
    pub name: Option<String>,
    /// FFmpeg's options, which replace our defaults.
    pub options: Vec<(String, String)>,
    /// FFmpeg's name of the pixel format; the source's or the closest to it where none is given.
    pub pixel_format: Option<String>,
    /// Bits that a format chosen here has at least, where the encoder takes so many.
    pub depth_min: u8,
    /// Threads it may use.
    pub threads: usize,
}

/// An encoder that is there, the format it will take, and its options: all that can be said before a size
/// is known.
pub struct Target {
    codec: ffmpeg::Codec,
    options: Vec<(String, String)>,
    threads: usize,
    /// Of the frames to fill.
    pub format: FrameFormat,
}

/// What quality means to each encoder, near CRF 18 of x264, and what makes them usable.
fn default_options(encoder: &str) -> &'static [(&'static str, &'static str)] {
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
        "mpeg2video" | "mpeg4" | "mpeg1video" | "mjpeg" => &[("flags", "+qscale"), ("global_quality", "236")],
        "ffv1" => &[("level", "3"), ("slicecrc", "1"), ("slices", "4")],
        _ => &[],
    }
}

impl Target {
    /// Chooses encoder and pixel format for frames like `source`, to be made `width` x `height`.
    pub fn choose(
        spec: &EncoderSpec,
        output: &Output,
        source: &FrameFormat,
        (width, height): (usize, usize),
    ) -> Result<Target> {
        let codec = match &spec.name {
            Some(name) => {
                ffmpeg::encoder::find_by_name(name).filter(ffmpeg::Codec::is_video).ok_or_else(|| {
                    let problem = format!("this FFmpeg has no video encoder '{name}'");
                    Error::new("--encoder", problem, "hasn info lists those it has")
                })?
            }
            None => output.default_encoder()?,
        };
        if !output.takes(codec.id()) {
            let problem = format!("{} cannot hold {}", output.container(), codec.id().name());
            return Err(Error::new(output.name(), problem, "choose another --encoder or file name"));
        }
        if output.sequence().is_some() {
            check_kind(output.name(), codec.id())?;
        }
        let format = choose_format(spec, codec, &source.pixel_format)?;
        if let Some(lost) = loss(&format, &source.pixel_format).filter(|_| spec.pixel_format.is_none()) {
            let (name, from, to) = (codec.name(), source.pixel_format.name, format.name);
            warn!(
                "encoder {name} takes {to} at best, the frames are {from}: {lost} left out; another --encoder may keep it"
            );
        }
        let color = output_color(codec.id(), source, &format, (width, height));
        let frame_format = FrameFormat { width, height, pixel_format: format, color };
        let own = |key: &str| spec.options.iter().any(|(k, _)| k == key);
        let defaults = default_options(codec.name()).iter().filter(|(key, _)| !own(key));
        let mut options: Vec<_> = defaults.map(|&(k, v)| (k.to_owned(), v.to_owned())).collect();
        options.extend(spec.options.iter().cloned());
        info!("encoder {} takes {}, options {:?}", codec.name(), format.name, options);
        Ok(Target { codec, options, threads: spec.threads, format: frame_format })
    }

    /// FFmpeg's name of the encoder.
    pub fn encoder_name(&self) -> &str {
        self.codec.name()
    }

    pub(crate) fn codec(&self) -> ffmpeg::Codec {
        self.codec
    }

    /// About how many bytes a frame will take, `rate` of them a second, from one of the source that takes
    /// `source_bytes` and has so many times fewer pixels; `None` where nothing can be said.
    ///
    /// Measured on the clip of `examples/`, enlarged twice (2026-11-24): FFV1 takes 25 % of the bare samples, Ut Video 43
    /// and Huffyuv 46 %, and film grain more than these clean drawings; ProRes 422 HQ 20 %, which it keeps to; x264 at
    /// CRF 18 88 % of what is said here, and x265 59 %.
    pub(crate) fn bytes_per_frame(&self, rate: f64, source_bytes: Option<f64>, growth: f64) -> Option<f64> {
        let FrameFormat { width, height, pixel_format: format, .. } = self.format;
        let chroma = 1.0 / f64::from(1u32 << (format.log2_chroma_w + format.log2_chroma_h));
        let samples = match format.family {
            Family::Gray => 1.0,
            _ => 1.0 + 2.0 * chroma,
        } + f64::from(u8::from(format.alpha));
        let bits = if format.float { 32.0 } else { f64::from(format.depth()) };
        let bare = (width * height) as f64 * samples * bits / 8.0;
        let is_lossy_still =
            matches!(self.codec.id(), codec::Id::MJPEG | codec::Id::DNXHD | codec::Id::JPEG2000);
        match self.encoder_name() {
            "rawvideo" => Some(bare),
            "ffv1" | "ffvhuff" | "huffyuv" | "utvideo" | "magicyuv" => Some(bare * 0.5),
            "prores" | "prores_aw" | "prores_ks" => Some(bare * 0.2),
            _ if is_lossy_still => None,
            _ => match self.options.iter().find(|(key, _)| key == "b").and_then(|(_, b)| bit_rate(b)) {
                Some(bits_a_second) => Some(bits_a_second / 8.0 / rate),
                None => Some(source_bytes? * growth),
            },
        }
    }

    /// Adds parameters of the encoder's own to those that are its option `key`; what is there wins.
    pub(crate) fn add_parameters(&mut self, key: &str, parameters: String) {
        match self.options.iter_mut().find(|(k, _)| k == key) {
            Some((_, there)) => *there = format!("{parameters}:{there}"),
            None => self.options.push((key.to_owned(), parameters)),
        }
    }
}

/// As FFmpeg reads `8M` or `800k`; 0 stands for a rate that follows the quality.
fn bit_rate(text: &str) -> Option<f64> {
    let (digits, unit) = match text.strip_suffix(['k', 'K']) {
        Some(digits) => (digits, 1e3),
        None => text.strip_suffix('M').map_or((text, 1.0), |digits| (digits, 1e6)),
    };
    digits.parse::<f64>().ok().map(|rate| rate * unit).filter(|rate| *rate > 0.0)
}

/// What FFmpeg's own encoders do side by side where the result does not depend on it; libraries have threads of their own.
fn threading_of(id: codec::Id) -> codec::threading::Type {
    use codec::Id::*;
    match id {
        FFV1 | PRORES => codec::threading::Type::Slice,
        // Encoders of stills have no slices.
        id if is_still(id) => codec::threading::Type::Frame,
        _ => codec::threading::Type::None,
    }
}

fn choose_format(spec: &EncoderSpec, codec: ffmpeg::Codec, source: &PixelFormat) -> Result<PixelFormat> {
    let offered: Vec<ffi::AVPixelFormat> = codec
        .video()
        .ok()
        .and_then(|video| video.formats())
        .map(|formats| formats.map(Into::into).collect())
        // Encoders without a list (wrapped frames, raw video) take everything that is in bytes.
        .unwrap_or_else(|| vec![pixel_format(source.name)]);
    let list = || offered.iter().filter_map(|&p| describe(p)).map(|f| f.name).collect::<Vec<_>>().join(" ");
    match &spec.pixel_format {
        None => {
            // Nothing in a TIFF says which matrix and range its Y'CbCr has.
            let is_told = |&pixel: &ffi::AVPixelFormat| {
                let is_ycbcr = describe(pixel).is_some_and(|format| format.family == Family::Ycbcr);
                !(is_ycbcr && codec.id() == codec::Id::TIFF)
            };
            let is_deep = |&pixel: &ffi::AVPixelFormat| {
                describe(pixel).is_some_and(|format| format.depth() >= spec.depth_min)
            };
            let told = || offered.iter().copied().filter(is_told);
            let deep = closest(told().filter(is_deep), source);
            deep.or_else(|| closest(told(), source)).ok_or_else(|| {
                let problem =
                    format!("encoder {} takes no format that can be written ({})", codec.name(), list());
                Error::new("--encoder", problem, "choose another one")
            })
        }
        Some(name) => {
            let format = describe(pixel_format(name)).filter(PixelFormat::writable);
            let format = format.ok_or_else(|| {
                Error::new(
                    "--pix-fmt",
                    format!("{name} is not a format that can be written"),
                    "e.g. yuv420p10le",
                )
            })?;
            let free = codec.video().is_ok_and(|video| video.formats().is_none());
            if free || offered.contains(&pixel_format(name)) {
                return Ok(format);
            }
            let problem = format!("encoder {} does not take {name}", codec.name());
            Err(Error::new("--pix-fmt", problem, format!("it takes {}", list())))
        }
    }
}

/// What the output's code values mean: what the input's did, wherever format and codec allow.
fn output_color(
    id: codec::Id,
    source: &FrameFormat,
    format: &PixelFormat,
    size: (usize, usize),
) -> ColorSpec {
    let mut color = source.color;
    let was_rgb = source.pixel_format.family == Family::Rgb;
    match format.family {
        Family::Rgb => (color.matrix, color.range) = (Matrix::IDENTITY, Range::Full),
        Family::Ycbcr if id == codec::Id::MJPEG => {
            // JFIF knows no other.
            (color.matrix, color.range) = (Matrix::BT470BG, Range::Full);
            color.chroma_location = ChromaLocation::Center;
        }
        _ if was_rgb => {
            (color.matrix, color.range) = (Matrix::guess(size.0, size.1), Range::Limited);
        }
        Family::Gray if source.pixel_format.family == Family::Ycbcr && !id_keeps_range(id) => {
            color.range = Range::Full
        }
        _ if is_always_limited(id) => color.range = Range::Limited,
        _ => {}
    }
    if source.pixel_format.float && source.color.transfer == Transfer::LINEAR && !format.float {
        // Light has no place in integers: they would be all in the bright.
        color.transfer = Transfer::SRGB;
    }
    if format.name.starts_with("yuvj") {
        color.range = Range::Full;
    }
    color
}

/// Still frame files have no tag for range: their gray is full.
fn id_keeps_range(id: codec::Id) -> bool {
    use codec::Id::*;
    !matches!(id, PNG | TIFF | BMP | PGM | PPM | PAM | WEBP | DPX | EXR | GIF)
}

/// Codecs without a word for full range, which decoders take for limited whatever the container says.
fn is_always_limited(id: codec::Id) -> bool {
    matches!(id, codec::Id::MPEG1VIDEO | codec::Id::MPEG2VIDEO | codec::Id::PRORES | codec::Id::DVVIDEO)
}

/// Opens the encoder for one segment.
pub(crate) fn open_context(
    target: &Target,
    video: &VideoInfo,
    sample_aspect: Rational,
    global_header: bool,
    time_base: Rational,
) -> Result<ffmpeg::encoder::Encoder> {
    let name = target.encoder_name();
    let mut context = codec::Context::new_with_codec(target.codec);
    context.set_time_base(time_base);
    context.set_frame_rate(Some(video.frame_rate));
    let kind = threading_of(target.codec.id());
    context
        .set_threading(codec::threading::Config { kind, ..codec::threading::Config::count(target.threads) });
    if global_header {
        context.set_flags(codec::Flags::GLOBAL_HEADER);
    }
    context.compliance(codec::Compliance::Unofficial);
    let tags = Tags::of(&target.format);
    let mut options = std::ptr::null_mut();
    // SAFETY: the context is ours and not yet open, the strings live through the calls that copy them, and
    // the dictionary is freed after it was looked through.
    let (code, left_over) = unsafe {
        let raw = &mut *context.as_mut_ptr();
        (raw.width, raw.height) = (target.format.width as i32, target.format.height as i32);
        raw.pix_fmt = pixel_format(target.format.pixel_format.name);
        raw.sample_aspect_ratio = sample_aspect.into();
        raw.colorspace = tags.space;
        raw.color_primaries = tags.primaries;
        raw.color_trc = tags.transfer;
        raw.color_range = tags.range;
        raw.chroma_sample_location = tags.chroma_location;
        for (key, value) in &target.options {
            let (key, value) = (c_string(key), c_string(value));
            ffi::av_dict_set(&mut options, key.as_ptr(), value.as_ptr(), 0);
        }
        let code = ffi::avcodec_open2(raw, target.codec.as_ptr(), &mut options);
        let unknown =
            ffi::av_dict_get(options, c"".as_ptr(), std::ptr::null(), ffi::AV_DICT_IGNORE_SUFFIX).as_ref();
        let left_over = unknown.map(|entry| CStr::from_ptr(entry.key).to_string_lossy().into_owned());
        ffi::av_dict_free(&mut options);
        (code, left_over)
    };
    check(code).map_err(|error| {
        let FrameFormat { width, height, pixel_format: format, .. } = target.format;
        let whole = |side: usize, log2_chroma: u8| side.is_multiple_of(1 << log2_chroma);
        let remedy = match whole(width, format.log2_chroma_w) && whole(height, format.log2_chroma_h) {
            true => "check --encoder-opt and the size, or choose another encoder",
            false => "its chroma is subsampled: choose an even --size, or a --pix-fmt with 444",
        };
        let problem = format!("encoder {name} does not open for {width}x{height} {}: {error}", format.name);
        Error::new("--encoder", problem, remedy)
    })?;
    match left_over {
        Some(key) if !default_options(name).iter().any(|(k, _)| *k == key) => {
            let problem = format!("encoder {name} has no option '{key}'");
            Err(Error::new("--encoder-opt", problem, format!("ffmpeg -h encoder={name} lists them")))
        }
        _ => Ok(ffmpeg::encoder::Encoder(context)),
    }
}

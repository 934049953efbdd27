//! Target: encoder, pixel format and options, from the user's choice and what FFmpeg has.

use std::ffi::CStr;

use ffmpeg_next::ffi;
use ffmpeg_next::{self as ffmpeg, Rational, codec};
use tracing::{info, warn};

use crate::color::{ChromaLocation, Matrix, Primaries, Range, Transfer};
use crate::error::{Error, ErrorKind, Result};
use crate::frame::{Family, FrameFormat, PixelFormat};
use crate::media::color_tags::{self, Fitted};
use crate::media::demux::sequence::{check_codec, is_image_codec};
use crate::media::encode::dpx;
use crate::media::encode::exr;
use crate::media::encode::field_order::FieldOrder;
use crate::media::encode::options::{default_options, encoder_of, named_option, parse_bit_rate, parse_tag};
use crate::media::encode::palette::{self, Palette};
use crate::media::ffmpeg::{c_string, check, failure};
use crate::media::format::{Tags, closest, describe, loss, pixel_format};
use crate::media::output::Output;
use crate::media::side_data::has_option;
use crate::media::stream::VideoInfo;

/// The user's choice of encoder.
#[derive(Clone, Debug, Default)]
pub struct EncoderSpec {
    /// FFmpeg's name of the encoder; by default the container's.
    pub name: Option<String>,
    /// FFmpeg's options, which replace the defaults here.
    pub options: Vec<(String, String)>,
    /// Constant quality, as the encoder counts it.
    pub crf: Option<String>,
    /// Speed, as the encoder names it.
    pub speed: Option<String>,
    /// FFmpeg's name of the pixel format; by default the source's or the closest to it.
    pub pixel_format: Option<String>,
    /// Whether a preset names the pixel format, so that what it cannot hold is logged.
    pub is_preset: bool,
    /// Least bit depth of a pixel format chosen by default, where the encoder takes it.
    pub depth_min: u8,
    /// Number of threads the encoder may use.
    pub threads: usize,
}

impl EncoderSpec {
    /// Whether the encoder for this output is that of EXR.
    pub fn is_exr(&self, output: &Output) -> bool {
        match &self.name {
            Some(name) => name == "exr",
            None => output.default_encoder().is_ok_and(|codec| codec.id() == codec::Id::EXR),
        }
    }
}

/// An encoder that exists, the frame format to feed it, and its options.
pub struct Target {
    codec: ffmpeg::Codec,
    options: Vec<(String, String)>,
    /// The container's name of the codec, as FFmpeg's option `tag` sets it.
    codec_tag: Option<u32>,
    threads: usize,
    /// Whether the frames get palettes before they are encoded.
    has_palette: bool,
    /// Whether no frame of the source has alpha.
    is_opaque: bool,
    /// Colour properties that are converted, and those that are lost, as the file cannot state them.
    pub(crate) color_converted: Vec<String>,
    pub(crate) color_lost: Vec<&'static str>,
    /// Whether lines are those of the source, so that its fields are kept, and the order of fields that are.
    pub(crate) keeps_lines: bool,
    pub(crate) field_order: FieldOrder,
    /// Format of the frames to encode.
    pub format: FrameFormat,
}

impl Target {
    /// Chooses encoder and pixel format for frames like `source`, upscaled to `width` x `height`.
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
                    let remedy = match encoder_of(name) {
                        Some(encoder) => format!("write {encoder}"),
                        None => "hasn info lists those it has".to_owned(),
                    };
                    Error::new("--encoder", problem, remedy).with_kind(ErrorKind::NotFound)
                })?
            }
            None => output.default_encoder()?,
        };
        if !output.takes(codec.id()) {
            let problem = format!("{} cannot hold {}", output.container(), codec.id().name());
            return Err(Error::new(output.name(), problem, "choose another --encoder or file name")
                .with_kind(ErrorKind::Unsupported));
        }
        if codec.name() == "libwebp_anim" && !output.is_still() {
            let problem = "libwebp_anim puts all frames into one packet";
            let error =
                Error::new("--encoder", problem, "choose libwebp, whose frames the container animates");
            return Err(error.with_kind(ErrorKind::Unsupported));
        }
        if output.sequence().is_some() {
            check_codec(output.name(), codec.id())?;
        }
        let (format, has_palette) = choose_format(spec, codec, output, &source.pixel_format)?;
        if let Some(lost) = loss(&format, &source.pixel_format) {
            let (name, from, to) = (codec.name(), source.pixel_format.name, format.name);
            match &spec.pixel_format {
                None => warn!(
                    "encoder {name} takes {to} at best, the frames are {from}: {lost} left out; another --encoder may keep it"
                ),
                Some(_) if spec.is_preset => {
                    warn!(
                        "--preset writes {to}, the frames are {from}: {lost} left out; --pix-fmt may keep it"
                    );
                }
                Some(_) => {}
            }
        }
        let Fitted { color, converted, lost } = output_color(codec, output, source, &format, (width, height));
        if color.transfer.is_hdr() && format.depth() <= 8 {
            let (name, remedy) = (output.name(), "a 10-bit --pix-fmt or --encoder, or --filter with tonemap");
            warn!("{name}: HDR in {} has visible bands; choose {remedy}", format.name);
        }
        let frame_format = FrameFormat { width, height, pixel_format: format, color };
        let mut given = spec.options.clone();
        given.extend(named_option(codec, "--crf", &spec.crf, &["crf", "cq"])?);
        given.extend(named_option(codec, "--encoder-preset", &spec.speed, &["preset", "cpu-used"])?);
        let is_given = |key: &str| given.iter().any(|(k, _)| k == key);
        let defaults = default_options(codec.name()).iter().filter(|(key, _)| !is_given(key));
        let mut options: Vec<_> = defaults.map(|&(k, v)| (k.to_owned(), v.to_owned())).collect();
        if format.alpha && codec.name() == "libvpx" && !is_given("auto-alt-ref") {
            // libvpx refuses alpha otherwise.
            options.push(("auto-alt-ref".into(), "0".into()));
        }
        if has_option(codec, "udu_sei") && !is_given("udu_sei") {
            // User data of frames (SEI) is kept.
            options.push(("udu_sei".into(), "1".into()));
        }
        options.extend(given.iter().filter(|(key, _)| key != "tag").cloned());
        let tag = given.iter().rfind(|(key, _)| key == "tag");
        let codec_tag = tag.map(|(_, tag)| parse_tag(tag)).transpose()?;
        info!("encoder {} takes {}, options {:?}", codec.name(), format.name, options);
        let is_opaque = !source.pixel_format.alpha;
        Ok(Target {
            codec,
            options,
            codec_tag,
            threads: spec.threads,
            has_palette,
            is_opaque,
            color_converted: converted,
            color_lost: lost,
            // A network mixes lines, and enlarges.
            keeps_lines: height == source.height && width <= source.width,
            field_order: FieldOrder::default(),
            format: frame_format,
        })
    }

    /// FFmpeg's name of the encoder.
    pub fn encoder_name(&self) -> &str {
        self.codec.name()
    }

    pub(crate) fn options(&self) -> impl Iterator<Item = &(String, String)> {
        self.options.iter()
    }

    pub(crate) fn codec_tag(&self) -> Option<u32> {
        self.codec_tag
    }

    pub(crate) fn codec(&self) -> ffmpeg::Codec {
        self.codec
    }

    /// Writes what the encoder leaves out into its packet.
    pub(crate) fn complete(&self, packet: &mut ffmpeg::Packet) {
        match self.codec.id() {
            codec::Id::DPX => dpx::state_color(packet, &self.format.color),
            codec::Id::EXR => exr::state_primaries(packet, self.format.color.primaries),
            _ => {}
        }
    }

    /// Whether the codec has a place for alpha in this format.
    pub(crate) fn holds_alpha(&self) -> bool {
        let is_palette_opaque =
            self.has_palette && !matches!(self.codec.id(), codec::Id::GIF | codec::Id::PNG);
        self.format.pixel_format.alpha && !is_palette_opaque
    }

    /// Whether the codec has colours premultiplied by alpha.
    pub(crate) fn has_premultiplied_alpha(&self) -> bool {
        self.codec.id() == codec::Id::EXR
    }

    /// What gives the frames palettes, if the encoder wants them.
    pub(crate) fn palette(&self, time_base: Rational) -> Result<Option<Palette>> {
        let palette = self.has_palette.then(|| Palette::new(&self.format, time_base, self.is_opaque));
        palette.transpose().map_err(|e| {
            failure(
                self.encoder_name(),
                "gets no palettes",
                e,
                "use an FFmpeg that has palettegen and paletteuse",
            )
        })
    }

    /// Estimates the bytes of an encoded frame at `fps`, which has `growth` times the pixels of a source's frame of
    /// `source_bytes`; `None` where there is no estimate.
    ///
    /// Measured on the clip of `examples/`, upscaled x2 (2026-11-24): FFV1 takes 25 % of the raw samples, Ut Video 43
    /// and Huffyuv 46 %, and film grain more than these clean drawings; ProRes 422 HQ a constant 20 %; x264 at CRF 18
    /// takes 88 % of the estimate, and x265 59 %.
    pub(crate) fn bytes_per_frame(&self, fps: f64, source_bytes: Option<f64>, growth: f64) -> Option<f64> {
        let FrameFormat { width, height, pixel_format: format, .. } = self.format;
        let chroma = 1.0 / f64::from(1u32 << (format.log2_chroma_w + format.log2_chroma_h));
        let samples = match format.family {
            Family::Gray => 1.0,
            _ => 1.0 + 2.0 * chroma,
        } + f64::from(u8::from(format.alpha));
        let bits = if format.float { 32.0 } else { f64::from(format.depth()) };
        let raw = (width * height) as f64 * samples * bits / 8.0;
        let is_lossy_still =
            matches!(self.codec.id(), codec::Id::MJPEG | codec::Id::DNXHD | codec::Id::JPEG2000);
        match self.encoder_name() {
            "rawvideo" => Some(raw),
            "ffv1" | "ffvhuff" | "huffyuv" | "utvideo" | "magicyuv" => Some(raw * 0.5),
            "prores" | "prores_aw" | "prores_ks" => Some(raw * 0.2),
            _ if is_lossy_still => None,
            _ => match self.options.iter().find(|(key, _)| key == "b").and_then(|(_, b)| parse_bit_rate(b)) {
                Some(bit_rate) => Some(bit_rate / 8.0 / fps),
                None => Some(source_bytes? * growth),
            },
        }
    }

    /// Estimates the memory of the encoder of a video of `frames` frames.
    ///
    /// Measured at 1280x720 (2026-11-30): x264 takes 140 frames with its default preset and 14 with ultrafast, x265 150,
    /// SVT-AV1 160, libvpx-vp9 105, FFV1 100, all others up to 13; a short video takes about three for each of its frames.
    pub(crate) fn memory_estimate(&self, frames: u64) -> u64 {
        let most = match self.encoder_name() {
            "libx264" | "libx265" | "libsvtav1" => 150,
            "libvpx-vp9" | "libaom-av1" | "ffv1" => 105,
            _ => 13,
        };
        self.format.bytes() as u64 * frames.saturating_mul(3).min(most)
    }

    /// Adds parameters to the encoder's option `key`; those given already win.
    pub(crate) fn add_parameters(&mut self, key: &str, parameters: String) {
        match self.options.iter_mut().find(|(k, _)| k == key) {
            Some((_, given)) => *given = format!("{parameters}:{given}"),
            None => self.options.push((key.to_owned(), parameters)),
        }
    }
}

/// Returns how FFmpeg's own encoders use threads where the result does not depend on it; libraries have their own threads.
fn threading_of(id: codec::Id) -> codec::threading::Type {
    use codec::Id::*;
    match id {
        FFV1 | PRORES => codec::threading::Type::Slice,
        // Image encoders have no slices.
        id if is_image_codec(id) => codec::threading::Type::Frame,
        _ => codec::threading::Type::None,
    }
}

/// Chooses the format of the frames to encode, and whether they get palettes.
fn choose_format(
    spec: &EncoderSpec,
    codec: ffmpeg::Codec,
    output: &Output,
    source: &PixelFormat,
) -> Result<(PixelFormat, bool)> {
    let offered: Vec<ffi::AVPixelFormat> = codec
        .video()
        .ok()
        .and_then(|video| video.formats())
        .map(|formats| formats.map(Into::into).collect())
        // Encoders without a list (wrapped frames, raw video) take every format.
        .unwrap_or_else(|| vec![pixel_format(source.name)]);
    let list = || offered.iter().filter_map(|&p| describe(p)).map(|f| f.name).collect::<Vec<_>>().join(" ");
    match &spec.pixel_format {
        None => {
            // A TIFF has no tag for matrix and range of its Y'CbCr.
            let has_tags = |&pixel: &ffi::AVPixelFormat| {
                let is_ycbcr = describe(pixel).is_some_and(|format| format.family == Family::Ycbcr);
                !(is_ycbcr && codec.id() == codec::Id::TIFF)
            };
            let is_deep = |&pixel: &ffi::AVPixelFormat| {
                describe(pixel).is_some_and(|format| format.depth() >= spec.depth_min)
            };
            let is_held = |&pixel: &ffi::AVPixelFormat| {
                let alpha = describe(pixel).is_some_and(|format| format.alpha);
                !alpha || output.holds_alpha(codec.id())
            };
            let tagged = || offered.iter().copied().filter(has_tags).filter(is_held);
            let deep = closest(tagged().filter(is_deep), source);
            let found = deep.or_else(|| closest(tagged(), source));
            let is_gray = found.is_none_or(|format| format.family == Family::Gray);
            let is_lost =
                is_gray && source.family != Family::Gray || source.alpha && codec.id() == codec::Id::GIF;
            if is_lost && offered.contains(&ffi::AVPixelFormat::AV_PIX_FMT_PAL8) {
                return Ok((with_palette(), true));
            }
            found.map(|format| (format, false)).ok_or_else(|| {
                let problem =
                    format!("encoder {} takes no format that can be written ({})", codec.name(), list());
                Error::new("--encoder", problem, "choose another one").with_kind(ErrorKind::Unsupported)
            })
        }
        // Animated PNG has one palette for all frames.
        Some(name)
            if name == "pal8" && offered.contains(&pixel_format(name)) && codec.id() != codec::Id::APNG =>
        {
            Ok((with_palette(), true))
        }
        Some(name) => {
            let format = describe(pixel_format(name)).filter(PixelFormat::writable);
            let format = format.ok_or_else(|| {
                Error::new(
                    "--pix-fmt",
                    format!("{name} is not a format that can be written"),
                    "choose another one, e.g. yuv420p10le",
                )
                .with_kind(ErrorKind::Unsupported)
            })?;
            let takes_all = codec.video().is_ok_and(|video| video.formats().is_none());
            if takes_all || offered.contains(&pixel_format(name)) {
                return Ok((format, false));
            }
            let problem = format!("encoder {} does not take {name}", codec.name());
            Err(Error::new("--pix-fmt", problem, format!("it takes {}", list()))
                .with_kind(ErrorKind::Unsupported))
        }
    }
}

/// The format of frames that get palettes.
fn with_palette() -> PixelFormat {
    describe(palette::SOURCE).expect("FFmpeg always has it")
}

/// Returns the colour in which frames are written: the source's, as far as format and file can state it.
fn output_color(
    codec: ffmpeg::Codec,
    output: &Output,
    source: &FrameFormat,
    format: &PixelFormat,
    size: (usize, usize),
) -> Fitted {
    let mut color = source.color;
    let was_rgb = source.pixel_format.family == Family::Rgb;
    match format.family {
        Family::Rgb => (color.matrix, color.range) = (Matrix::IDENTITY, Range::Full),
        _ if was_rgb => {
            (color.matrix, color.range) = (Matrix::guess(color.primaries, size.0, size.1), Range::Limited);
            color.chroma_location = ChromaLocation::Left;
        }
        _ => {}
    }
    if source.pixel_format.float && source.color.transfer == Transfer::LINEAR && !format.float {
        // Linear light wastes integer code values on the highlights.
        color.transfer = Transfer::SRGB;
    }
    if format.name.starts_with("yuvj") {
        color.range = Range::Full;
    }
    if !is_image_codec(codec.id()) && format.family != Family::Rgb {
        // Containers of the MP4 family hold all three or none.
        if color.primaries == Primaries::UNSPECIFIED {
            color.primaries = Primaries::guess(color.matrix, 0);
        }
        if color.transfer == Transfer::UNSPECIFIED {
            color.transfer = Transfer::BT709;
        }
    }
    let container = output.container_alone();
    let mut fitted = color_tags::fit(color, format, size, (codec.id(), codec.name()), container);
    if was_rgb {
        // The matrix, range and siting are new anyway.
        fitted.converted.clear();
    }
    let file = format!("{} in {}", codec.name(), container.unwrap_or("a live stream"));
    for conversion in &fitted.converted {
        info!("{conversion}: {file} states no other");
    }
    fitted
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
    // the dictionary is freed after it was read.
    let (code, left_over) = unsafe {
        let raw = &mut *context.as_mut_ptr();
        (raw.width, raw.height) = (target.format.width as i32, target.format.height as i32);
        raw.pix_fmt = match target.has_palette {
            true => ffi::AVPixelFormat::AV_PIX_FMT_PAL8,
            false => pixel_format(target.format.pixel_format.name),
        };
        raw.sample_aspect_ratio = sample_aspect.into();
        target.field_order.set(raw);
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
        let is_multiple = |side: usize, log2_chroma: u8| side.is_multiple_of(1 << log2_chroma);
        let remedy =
            match is_multiple(width, format.log2_chroma_w) && is_multiple(height, format.log2_chroma_h) {
                true => "check --encoder-opt and the size, or choose another encoder",
                false => "its chroma is subsampled: choose an even --size, or a --pix-fmt with 444",
            };
        let problem = format!("encoder {name} does not open for {width}x{height} {}: {error}", format.name);
        Error::new("--encoder", problem, remedy).with_kind(ErrorKind::Unsupported).with_source(error)
    })?;
    match left_over {
        Some(key) if !default_options(name).iter().any(|(k, _)| *k == key) => {
            let problem = format!("encoder {name} has no option '{key}'");
            Err(Error::new("--encoder-opt", problem, format!("ffmpeg -h encoder={name} lists them")))
        }
        _ => Ok(ffmpeg::encoder::Encoder(context)),
    }
}

//! Encode: pictures become packets, in segments that are cut by picture number alone.
//!
//! Encoders see a time base they accept; the times on packets are the source's own, put back from a table.

use std::collections::{BTreeMap, VecDeque};
use std::ffi::CStr;

use ffmpeg_next::ffi;
use ffmpeg_next::frame::Video as Frame;
use ffmpeg_next::{self as ffmpeg, Rational, codec};
use tracing::{debug, info};

use super::format::{Tags, closest, describe, pixel_format};
use super::frame::FrameBuffer;
use super::input::VideoInfo;
use super::mux::Output;
use super::{Coded, SEGMENT_PICTURES, c_string, check, is_again};
use crate::color::{ChromaLocation, Matrix, Range};
use crate::error::{Error, Result};
use crate::picture::{Family, Format, Geometry, Memory, Picture, PictureTime};

/// What the user asked of the encoder.
#[derive(Clone, Debug, Default)]
pub struct EncoderSpec {
    /// FFmpeg's name; by the container where none is given.
    pub name: Option<String>,
    /// FFmpeg's options, which replace our defaults.
    pub options: Vec<(String, String)>,
    /// FFmpeg's name of the pixel format; the source's or the closest to it where none is given.
    pub pixel_format: Option<String>,
    /// Threads it may use.
    pub threads: usize,
}

/// An encoder that is there, the format it will take, and its options: all that can be said before a size
/// is known.
pub struct Target {
    codec: ffmpeg::Codec,
    options: Vec<(String, String)>,
    threads: usize,
    /// Of the pictures to fill.
    pub geometry: Geometry,
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
    /// Chooses encoder and pixel format for pictures like `source`, to be made `width` x `height`.
    pub fn choose(
        spec: &EncoderSpec,
        output: &Output,
        source: &Geometry,
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
        let format = choose_format(spec, codec, &source.format)?;
        let color = output_color(codec.id(), source, &format, (width, height));
        let geometry = Geometry { width, height, format, color };
        let own = |key: &str| spec.options.iter().any(|(k, _)| k == key);
        let defaults = default_options(codec.name()).iter().filter(|(key, _)| !own(key));
        let mut options: Vec<_> = defaults.map(|&(k, v)| (k.to_owned(), v.to_owned())).collect();
        options.extend(spec.options.iter().cloned());
        info!("encoder {} takes {}, options {:?}", codec.name(), format.name, options);
        Ok(Target { codec, options, threads: spec.threads, geometry })
    }

    /// FFmpeg's name of the encoder.
    pub fn encoder_name(&self) -> &str {
        self.codec.name()
    }
}

fn choose_format(spec: &EncoderSpec, codec: ffmpeg::Codec, source: &Format) -> Result<Format> {
    let offered: Vec<ffi::AVPixelFormat> = codec
        .video()
        .ok()
        .and_then(|video| video.formats())
        .map(|formats| formats.map(Into::into).collect())
        // Encoders without a list (wrapped frames, raw video) take everything that is in bytes.
        .unwrap_or_else(|| vec![pixel_format(source.name)]);
    let list = || offered.iter().filter_map(|&p| describe(p)).map(|f| f.name).collect::<Vec<_>>().join(" ");
    match &spec.pixel_format {
        None => closest(offered.iter().copied(), source).ok_or_else(|| {
            let problem =
                format!("encoder {} takes no format that can be written ({})", codec.name(), list());
            Error::new("--encoder", problem, "choose another one")
        }),
        Some(name) => {
            let format = describe(pixel_format(name)).filter(Format::writable);
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
    source: &Geometry,
    format: &Format,
    size: (usize, usize),
) -> crate::color::ColorSpec {
    let mut color = source.color;
    let was_rgb = source.format.family == Family::Rgb;
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
        Family::Gray if source.format.family == Family::Ycbcr && !id_keeps_range(id) => {
            color.range = Range::Full
        }
        _ => {}
    }
    if format.name.starts_with("yuvj") {
        color.range = Range::Full;
    }
    color
}

/// Still picture files have no tag for range: their gray is full.
fn id_keeps_range(id: codec::Id) -> bool {
    use codec::Id::*;
    !matches!(id, PNG | TIFF | BMP | PGM | PPM | PAM | WEBP | DPX | EXR | GIF)
}

/// An opened encoder and what is between its pictures and its packets.
pub struct Encoder {
    target: Target,
    video: VideoInfo,
    sample_aspect: Rational,
    global_header: bool,
    cuts: bool,
    time_base: Rational,
    context: ffmpeg::encoder::Encoder,
    extradata: Vec<u8>,
    /// Packets come in another order than pictures by at most so many.
    delay: Option<usize>,
    /// pts given to the encoder -> the picture's own time.
    times: BTreeMap<i64, PictureTime>,
    /// pts of pictures whose dts is not used up, in order; and how many went in and came out.
    order: VecDeque<i64>,
    order_step: i64,
    /// Where the picture shown last ends.
    end: i64,
    finishing: bool,
    sent: u64,
    received: u64,
    segments: u64,
    stream: usize,
}

impl Encoder {
    /// Opens the encoder for pictures of `target`, to go where `stream` of the input was.
    pub fn open(target: Target, output: &Output, input: &super::Input, source: &Geometry) -> Result<Encoder> {
        let video = input.video();
        let sample_aspect = scaled_aspect(video.sample_aspect, source, &target.geometry);
        let global_header = output.wants_global_header();
        let attempt = |time_base| open_context(&target, &video, sample_aspect, global_header, time_base);
        let (context, time_base) = match attempt(video.time_base) {
            Ok(context) => (context, video.time_base),
            // MPEG-2, MPEG-4 and others take frame rates only: they code at that rate, and the packets get
            // the real times.
            Err(first) => match attempt(video.frame_rate.invert()) {
                Ok(context) => (context, video.frame_rate.invert()),
                Err(_) => return Err(first),
            },
        };
        let mut encoder = Encoder {
            extradata: Vec::new(),
            cuts: output.is_cut(),
            target,
            video,
            sample_aspect,
            global_header,
            time_base,
            context,
            delay: None,
            times: BTreeMap::new(),
            order: VecDeque::new(),
            order_step: 1,
            end: i64::MIN,
            finishing: false,
            sent: 0,
            received: 0,
            segments: 1,
            stream: input.video_index(),
        };
        encoder.extradata = encoder.extradata().to_vec();
        Ok(encoder)
    }

    /// Of the pictures to fill.
    pub fn geometry(&self) -> Geometry {
        self.target.geometry
    }

    /// FFmpeg's name of the encoder.
    pub fn name(&self) -> &str {
        self.target.encoder_name()
    }

    /// How many times an encoder was opened.
    pub fn segments(&self) -> u64 {
        self.segments
    }

    /// Pictures that went in.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    pub(super) fn context(&self) -> &codec::Context {
        &self.context
    }

    pub(super) fn video(&self) -> &VideoInfo {
        &self.video
    }

    pub(super) fn sample_aspect(&self) -> Rational {
        self.sample_aspect
    }

    /// Whether a segment ends before this picture: then [`Encoder::finish`], take all packets, and
    /// [`Encoder::reopen`].
    pub fn cuts_before(&self, time: &PictureTime) -> bool {
        self.cuts && self.sent > 0 && time.index.is_multiple_of(SEGMENT_PICTURES)
    }

    /// Gives the encoder a picture from its pool.
    pub fn send(&mut self, picture: Picture) -> Result<()> {
        let Picture { time, props, memory, .. } = picture;
        let Memory::Host(buffer) = memory else { panic!("the encoder's pool is in host memory") };
        let buffer = buffer.into_any().downcast::<FrameBuffer>().expect("a picture of the encoder's pool");
        let mut frame = buffer.frame;
        let pts = if self.time_base == self.video.time_base { time.pts } else { self.sent as i64 };
        let props = props.0.and_then(|props| props.downcast::<Frame>().ok());
        dress(&mut frame, &self.target.geometry, self.sample_aspect, pts, props.as_deref());
        self.times.insert(pts, time);
        if self.sent == 1 {
            self.order_step = (time.pts - self.order[0]).max(1);
        }
        self.order.push_back(time.pts);
        self.end = self.end.max(time.pts + time.duration);
        self.sent += 1;
        self.context.send_frame(&frame).map_err(|e| self.failed(&time, e))
    }

    /// Says that no picture follows in this segment.
    pub fn finish(&mut self) -> Result<()> {
        self.finishing = true;
        self.context
            .send_eof()
            .map_err(|e| Error::new(self.name(), e.to_string(), "choose another --encoder"))
    }

    /// The next packet; `None` when the encoder wants another picture or is at its end.
    pub fn receive(&mut self) -> Result<Option<Coded>> {
        let mut packet = ffmpeg::Packet::empty();
        match self.context.receive_packet(&mut packet) {
            Ok(()) => {}
            Err(error) if is_again(error) => return Ok(None),
            Err(ffmpeg::Error::Eof) => return self.check_complete().map(|()| None),
            Err(error) => {
                let problem = format!("gave no packet: {error}");
                return Err(Error::new(self.name(), problem, "choose another --encoder"));
            }
        }
        let pts = packet.pts().unwrap_or_default();
        let Some(time) = self.times.remove(&pts) else {
            let problem = format!("gave a packet with a time of its own ({pts})");
            return Err(Error::new(self.name(), problem, "choose another --encoder"));
        };
        let dts = self.next_dts(&packet);
        if dts > time.pts {
            let problem = "reorders pictures further than it says".to_owned();
            return Err(Error::new(self.name(), problem, "turn its B-frames off (--encoder-opt bf=0)"));
        }
        packet.set_pts(Some(time.pts));
        packet.set_dts(Some(dts));
        packet.set_duration(self.coded_duration(&time, dts));
        Ok(Some(Coded { packet, stream: self.stream, time_base: time.time_base.into() }))
    }

    /// The k-th packet is decoded at the time of the picture shown `delay` before the k-th: this rises
    /// strictly whatever the gaps between pictures, and goes on across cuts.
    fn next_dts(&mut self, packet: &ffmpeg::Packet) -> i64 {
        let delay = *self.delay.get_or_insert_with(|| {
            // SAFETY: the context is open.
            let said = unsafe { (*self.context.as_ptr()).has_b_frames }.max(0) as usize;
            let first = packet.pts().zip(packet.dts()).map_or(0, |(pts, dts)| pts - dts);
            let step = if self.time_base == self.video.time_base { self.order_step } else { 1 };
            // Hardware encoders do not always say; their own first dts tells then.
            if said > 0 { said } else { ((first + step - 1) / step).clamp(0, 16) as usize }
        });
        let k = self.received as usize;
        self.received += 1;
        if k < delay {
            self.order[0] - (delay - k) as i64 * self.order_step
        } else {
            if k > delay {
                self.order.pop_front();
            }
            self.order[0]
        }
    }

    /// MP4 knows lengths in the order of coding only: the packet coded last stands for the picture shown last.
    fn coded_duration(&self, time: &PictureTime, dts: i64) -> i64 {
        let is_last = self.finishing && self.received == self.sent;
        let reordering = self.delay.unwrap_or(0) as i64 * self.order_step;
        let to_end = if is_last && reordering > 0 { self.end - reordering - dts } else { 0 };
        time.duration.max(to_end)
    }

    fn check_complete(&self) -> Result<()> {
        if self.received == self.sent {
            return Ok(());
        }
        let problem = format!("gave {} packets for {} pictures", self.received, self.sent);
        Err(Error::new(self.name(), problem, "choose another --encoder"))
    }

    /// Begins the next segment with a new encoder, the same in everything.
    pub fn reopen(&mut self) -> Result<()> {
        self.context =
            open_context(&self.target, &self.video, self.sample_aspect, self.global_header, self.time_base)?;
        self.finishing = false;
        self.segments += 1;
        debug!("segment {} begins at picture {}", self.segments, self.sent);
        if self.extradata() == self.extradata {
            return Ok(());
        }
        let problem = "writes another header for the same settings, so segments cannot be joined";
        Err(Error::new(self.name(), problem, "choose another --encoder"))
    }

    fn extradata(&self) -> &[u8] {
        // SAFETY: an open context's extradata is null or has extradata_size bytes.
        unsafe {
            let raw = &*self.context.as_ptr();
            match raw.extradata.is_null() {
                true => &[],
                false => std::slice::from_raw_parts(raw.extradata, raw.extradata_size as usize),
            }
        }
    }

    fn failed(&self, time: &PictureTime, error: ffmpeg::Error) -> Error {
        let problem = format!("refused a picture: {error}");
        Error::new(self.name(), problem, "choose another --encoder or --pix-fmt").at(
            "encode",
            time.index,
            Some(time.seconds()),
        )
    }
}

/// Puts on a frame to be encoded what its code values mean and what travels along.
pub(super) fn dress(
    frame: &mut Frame,
    geometry: &Geometry,
    aspect: Rational,
    pts: i64,
    props: Option<&Frame>,
) {
    let tags = Tags::of(geometry);
    // SAFETY: both frames are owned; copying props takes references to side data. All fields set are plain
    // values.
    unsafe {
        let raw = &mut *frame.as_mut_ptr();
        if let Some(props) = props {
            check(ffi::av_frame_copy_props(raw, props.as_ptr())).expect("no memory for side data");
            ffi::av_frame_remove_side_data(raw, ffi::AVFrameSideDataType::AV_FRAME_DATA_MOTION_VECTORS);
        }
        // The source's keyframes are no keyframes of ours, and the decoder has cropped already.
        raw.pict_type = ffi::AVPictureType::AV_PICTURE_TYPE_NONE;
        (raw.crop_top, raw.crop_bottom, raw.crop_left, raw.crop_right) = (0, 0, 0, 0);
        raw.pts = pts;
        raw.sample_aspect_ratio = aspect.into();
        raw.colorspace = tags.space;
        raw.color_primaries = tags.primaries;
        raw.color_trc = tags.transfer;
        raw.color_range = tags.range;
        raw.chroma_location = tags.chroma_location;
    }
}

/// The shape of the whole picture stays: where the two directions grow differently, samples change shape.
fn scaled_aspect(aspect: Rational, lr: &Geometry, sr: &Geometry) -> Rational {
    let num = i64::from(aspect.numerator()) * lr.width as i64 * sr.height as i64;
    let den = i64::from(aspect.denominator()) * lr.height as i64 * sr.width as i64;
    let (mut reduced_num, mut reduced_den) = (0, 0);
    // SAFETY: writes the two integers only.
    unsafe { ffi::av_reduce(&mut reduced_num, &mut reduced_den, num, den, i64::from(i32::MAX)) };
    Rational(reduced_num, reduced_den)
}

pub(super) fn open_context(
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
    context.set_threading(codec::threading::Config::count(target.threads));
    if global_header {
        context.set_flags(codec::Flags::GLOBAL_HEADER);
    }
    context.compliance(codec::Compliance::Unofficial);
    let tags = Tags::of(&target.geometry);
    let mut options = std::ptr::null_mut();
    // SAFETY: the context is ours and not yet open, the strings live through the calls that copy them, and
    // the dictionary is freed after it was looked through.
    let (code, left_over) = unsafe {
        let raw = &mut *context.as_mut_ptr();
        (raw.width, raw.height) = (target.geometry.width as i32, target.geometry.height as i32);
        raw.pix_fmt = pixel_format(target.geometry.format.name);
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
        let Geometry { width, height, format, .. } = target.geometry;
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

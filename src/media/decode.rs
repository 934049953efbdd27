//! Decode: packets become pictures, each with the time its source gave it.

use std::collections::BTreeMap;

use ffmpeg_next::ffi;
use ffmpeg_next::frame::Video as Frame;
use ffmpeg_next::{self as ffmpeg, Rational, Rescale, codec};
use tracing::{info, warn};

use super::format::{color_of, describe, pixel_of};
use super::frame::borrow;
use super::input::Input;
use super::{Coded, check, is_again};
use crate::error::{Error, Result};
use crate::picture::{Family, Format, Geometry, Picture, PictureTime};

/// The part of the source that is wanted, in microseconds of its own clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trim {
    /// Pictures before this are dropped.
    pub from_us: i64,
    /// And those at or after this.
    pub to_us: i64,
}

impl Trim {
    /// Of times that count from the beginning of the file; `None` is the beginning or the end.
    pub fn new(input: &Input, from_s: Option<f64>, to_s: Option<f64>) -> Trim {
        let us = |seconds: f64| input.start_us().saturating_add((seconds * 1e6).round() as i64);
        Trim { from_us: from_s.map_or(i64::MIN, us), to_us: to_s.map_or(i64::MAX, us) }
    }

    /// Whether anything is left out.
    fn is_whole(&self) -> bool {
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

/// The video decoder, with the first picture already out of it.
pub struct Decoder {
    opened: codec::decoder::Video,
    source: String,
    time_base: Rational,
    /// Length of a picture where neither its packet nor its successor tells.
    usual_duration: i64,
    trim: Trim,
    /// pts -> duration of packets that went in: FFmpeg before 6 does not carry it on the frame.
    durations: BTreeMap<i64, i64>,
    converter: Option<Converter>,
    first: Option<Picture>,
    ended: bool,
    next_index: u64,
    last_pts: Option<i64>,
    /// Pictures outside of the wanted part.
    outside: u64,
    repaired: u64,
    patched: u64,
}

impl Decoder {
    /// Opens the decoder of `input`'s video and decodes up to the first wanted picture, which fixes the
    /// geometry. Other packets met on the way are put back.
    pub fn open(input: &mut Input, trim: Trim, threads: usize) -> Result<Decoder> {
        let parameters = input.video_parameters();
        let info = input.video();
        let fail = |problem: String, remedy: &str| Error::new(input.name(), problem, remedy);
        let mut context = codec::Context::from_parameters(parameters)
            .map_err(|e| fail(format!("bad stream parameters: {e}"), "get a whole copy"))?;
        context.set_threading(codec::threading::Config::count(threads));
        let mut context = context.decoder();
        context.set_packet_time_base(info.time_base);
        let codec_name = context.id().name();
        let opened = context.video().map_err(|e| {
            fail(format!("cannot decode {codec_name}: {e}"), "use an FFmpeg that has this decoder")
        })?;
        let mut decoder = Decoder {
            opened,
            source: input.name().to_owned(),
            time_base: info.time_base,
            usual_duration: 1.rescale(info.frame_rate.invert(), info.time_base).max(1),
            trim,
            durations: BTreeMap::new(),
            converter: None,
            first: None,
            ended: false,
            next_index: 0,
            last_pts: None,
            outside: 0,
            repaired: 0,
            patched: 0,
        };
        if !trim.is_whole() {
            input.expect_part(trim.to_us);
        }
        if trim.from_us == i64::MIN {
            decoder.first = Some(decoder.find_first(input)?);
            return Ok(decoder);
        }
        // Some containers seek to a place that cannot be decoded from: what comes out then begins too late.
        for back_us in [0, 3_000_000, 30_000_000, i64::MAX] {
            let target_us = trim.from_us.saturating_sub(back_us).max(input.start_us());
            input.seek(target_us)?;
            decoder.forget();
            let found = decoder.find_first(input);
            let us = |picture: &Picture| picture.time.pts.rescale(info.time_base, Rational(1, 1_000_000));
            let picture_us = decoder.usual_duration.rescale(info.time_base, Rational(1, 1_000_000));
            let begins_late = |picture: &Picture| us(picture) - trim.from_us >= picture_us;
            let in_time = decoder.outside > 0 || found.as_ref().is_ok_and(|picture| !begins_late(picture));
            if in_time || target_us == input.start_us() {
                decoder.first = Some(found?);
                return Ok(decoder);
            }
        }
        unreachable!("the last attempt is from the start");
    }

    /// As it was before the first packet.
    fn forget(&mut self) {
        self.opened.flush();
        self.durations.clear();
        (self.ended, self.last_pts) = (false, None);
        (self.next_index, self.outside, self.repaired, self.patched) = (0, 0, 0, 0);
    }

    fn find_first(&mut self, input: &mut Input) -> Result<Picture> {
        loop {
            match input.read()? {
                Some(packet) if input.is_video(&packet) => self.send(packet)?,
                Some(packet) => {
                    input.put_back(packet)?;
                    continue;
                }
                None => self.finish()?,
            }
            if let Some(picture) = self.receive_frame()? {
                return Ok(picture);
            }
            if self.ended {
                let (problem, remedy) = match self.outside {
                    0 => ("no picture could be decoded", "get a whole copy"),
                    _ => ("has no picture in that part", "choose other times with --from and --to"),
                };
                return Err(Error::new(&self.source, problem, remedy));
            }
        }
    }

    /// What the pictures are, by the first one. Later ones may differ.
    pub fn geometry(&self) -> Geometry {
        self.first.as_ref().expect("asked before the first picture is taken").geometry
    }

    /// Pictures decoded, those outside of the wanted part left out.
    pub fn decoded(&self) -> u64 {
        self.next_index
    }

    /// Pictures whose time was missing or went back and was made up.
    pub fn repaired(&self) -> u64 {
        self.repaired
    }

    /// Pictures that the decoder says it had to patch.
    pub fn patched(&self) -> u64 {
        self.patched
    }

    /// Gives the decoder a packet; [`Decoder::receive`] is to be called until it has no more.
    pub fn send(&mut self, packet: Coded) -> Result<()> {
        if let Some(pts) = packet.packet.pts().filter(|_| packet.packet.duration() > 0) {
            self.durations.insert(pts, packet.packet.duration());
        }
        self.opened.send_packet(&packet.packet).map_err(|e| self.damaged(e))
    }

    /// Says that no packet follows.
    pub fn finish(&mut self) -> Result<()> {
        match self.opened.send_eof() {
            Err(ffmpeg::Error::Eof) | Ok(()) => Ok(()),
            Err(error) => Err(self.damaged(error)),
        }
    }

    /// The next picture; `None` when the decoder wants another packet or is at its end.
    pub fn receive(&mut self) -> Result<Option<Picture>> {
        if let Some(picture) = self.first.take() {
            return Ok(Some(picture));
        }
        self.receive_frame()
    }

    fn receive_frame(&mut self) -> Result<Option<Picture>> {
        loop {
            let mut frame = Frame::empty();
            match self.opened.receive_frame(&mut frame) {
                Ok(()) => {
                    if let Some(picture) = self.picture(frame)? {
                        return Ok(Some(picture));
                    }
                }
                Err(error) if is_again(error) => return Ok(None),
                Err(ffmpeg::Error::Eof) => {
                    self.ended = true;
                    return Ok(None);
                }
                Err(error) => return Err(self.damaged(error)),
            }
        }
    }

    fn damaged(&self, error: ffmpeg::Error) -> Error {
        let seconds = self.last_pts.map(|pts| pts as f64 * f64::from(self.time_base));
        Error::new(
            &self.source,
            format!("cannot be decoded further: {error}"),
            "get a whole copy, or stop before with --to",
        )
        .at("decode", self.next_index, seconds)
    }

    /// The frame with its time, or `None` if it lies outside of the wanted part.
    fn picture(&mut self, mut frame: Frame) -> Result<Option<Picture>> {
        let (pts, duration) = self.time(&frame);
        self.last_pts = Some(pts);
        if !self.trim.holds(pts.rescale(self.time_base, Rational(1, 1_000_000))) {
            self.outside += 1;
            return Ok(None);
        }
        if frame.has_decode_errors() || frame.is_corrupt() {
            self.patched += 1;
            if self.patched == 1 {
                warn!("{}: the picture at {pts} is damaged and was patched by the decoder", self.source);
            }
        }
        // SAFETY: the frame was just filled by the decoder.
        let raw = unsafe { &*frame.as_ptr() };
        let (pixel, upside_down) = (pixel_of(raw), raw.linesize[0] < 0);
        let format = match describe(pixel) {
            Some(format) if !upside_down => format,
            known => {
                let fits = self.converter.take().filter(|converter| converter.from == pixel);
                let converter = match fits {
                    Some(converter) => converter,
                    None => Converter::new(pixel, known, &self.source)?,
                };
                let converter = self.converter.insert(converter);
                frame = converter.convert(&frame).map_err(|e| {
                    let index = self.next_index;
                    Error::new(
                        &self.source,
                        format!("cannot be converted: {e}"),
                        "convert it with ffmpeg first",
                    )
                    .at("decode", index, None)
                })?;
                converter.format
            }
        };
        // SAFETY: as above.
        let raw = unsafe { &*frame.as_ptr() };
        let (color, guessed) = color_of(raw, &format);
        if self.next_index == 0 && guessed && format.family == Family::Ycbcr {
            info!("{}: no matrix is tagged; {} is taken for its size", self.source, color.matrix.name());
        }
        let geometry = Geometry { width: raw.width as usize, height: raw.height as usize, format, color };
        let time = PictureTime { index: self.next_index, pts, duration, time_base: self.time_base.into() };
        self.next_index += 1;
        Ok(Some(borrow(frame, geometry, time)))
    }

    /// (pts, duration), made up from the picture before where the source has none or goes back.
    fn time(&mut self, frame: &Frame) -> (i64, i64) {
        let next = self.last_pts.map_or(0, |last| last.saturating_add(self.usual_duration));
        let told = frame.timestamp();
        // A doubled time goes a tick further, so that the pictures after it keep theirs.
        let pts = match (told, self.last_pts) {
            (Some(told), Some(last)) if told <= last && last - told < self.usual_duration => last + 1,
            (Some(told), Some(last)) if told <= last => next,
            (told, _) => told.unwrap_or(next),
        };
        if told != Some(pts) {
            self.repaired += 1;
            // One line tells, the report counts.
            if self.repaired == 1 {
                let (source, last) = (&self.source, self.last_pts);
                warn!(
                    "{source}: a picture has time {told:?}, which does not follow {last:?}; it is given {pts}"
                );
            }
        }
        let duration = self.durations.remove(&pts).unwrap_or(self.usual_duration);
        // Times that no picture came out with are of no further use.
        self.durations = self.durations.split_off(&pts);
        (pts, duration)
    }
}

/// All pictures of a source one by one, for those who need no pipeline.
pub struct PictureReader {
    input: Input,
    decoder: Decoder,
}

impl PictureReader {
    /// Opens the source and decodes its first picture.
    pub fn open(source: &str, threads: usize) -> Result<PictureReader> {
        let mut input = Input::open(source)?;
        let whole = Trim::new(&input, None, None);
        let decoder = Decoder::open(&mut input, whole, threads)?;
        Ok(PictureReader { input, decoder })
    }

    /// What the pictures are, by the first one: to be asked before that is taken.
    pub fn geometry(&self) -> Geometry {
        self.decoder.geometry()
    }

    /// The next picture; `None` after the last.
    pub fn next_picture(&mut self) -> Result<Option<Picture>> {
        loop {
            if let Some(picture) = self.decoder.receive()? {
                return Ok(Some(picture));
            }
            if self.decoder.ended {
                return Ok(None);
            }
            match self.input.next_packet()? {
                Some(packet) if self.input.is_video(&packet) => self.decoder.send(packet)?,
                Some(_) => {}
                None => self.decoder.finish()?,
            }
        }
    }
}

/// Of swscale.h, where it is a macro or a member of an enumeration by FFmpeg's version.
const SWS_ACCURATE_RND: i32 = 1 << 18;

/// swscale, for frames whose samples no engine can read: palettes, bit streams, lines from bottom to top.
struct Converter {
    context: *mut ffi::SwsContext,
    from: ffi::AVPixelFormat,
    to: ffi::AVPixelFormat,
    format: Format,
    size: (i32, i32),
}

// SAFETY: a SwsContext is used by one thread at a time, whichever holds the decoder, and is bound to none.
unsafe impl Send for Converter {}

impl Converter {
    fn new(from: ffi::AVPixelFormat, known: Option<Format>, source: &str) -> Result<Converter> {
        use ffi::AVPixelFormat::*;
        const READABLE: [ffi::AVPixelFormat; 9] = [
            AV_PIX_FMT_GRAY8,
            AV_PIX_FMT_RGB24,
            AV_PIX_FMT_RGBA,
            AV_PIX_FMT_YUV444P,
            AV_PIX_FMT_GRAY16LE,
            AV_PIX_FMT_GBRP16LE,
            AV_PIX_FMT_YUV444P16LE,
            AV_PIX_FMT_GBRPF32LE,
            AV_PIX_FMT_NONE,
        ];
        let to = match known {
            Some(_) => from,
            // SAFETY: the list ends with NONE; the loss is not asked for.
            None => unsafe {
                ffi::avcodec_find_best_pix_fmt_of_list(READABLE.as_ptr(), from, 1, std::ptr::null_mut())
            },
        };
        // SAFETY: a number that FFmpeg gave as a format; the name is static or null.
        let name = unsafe { ffi::av_get_pix_fmt_name(from).as_ref().map(|n| std::ffi::CStr::from_ptr(n)) };
        let name = name.map_or("an unknown format".into(), |name| name.to_string_lossy());
        // SAFETY: asks about the format only.
        if unsafe { ffi::sws_isSupportedInput(from) } == 0 {
            let problem = format!("its pictures are {name}, which is not supported");
            return Err(Error::new(source, problem, "convert it with ffmpeg first, e.g. to yuv420p"));
        }
        let format = describe(to).expect("the formats of the list are known");
        info!("{source}: {name} is read as {}", format.name);
        Ok(Converter { context: std::ptr::null_mut(), from, to, format, size: (0, 0) })
    }

    fn convert(&mut self, frame: &Frame) -> std::result::Result<Frame, ffmpeg::Error> {
        let mut converted = Frame::empty();
        // SAFETY: both frames are owned; the context is made anew for each size and freed by drop, and
        // sws_scale_frame allocates the destination of the size and format given.
        unsafe {
            let (source, target) = (&*frame.as_ptr(), &mut *converted.as_mut_ptr());
            let size = (source.width, source.height);
            if size != self.size {
                ffi::sws_freeContext(self.context);
                let null = std::ptr::null_mut();
                self.context = ffi::sws_getContext(
                    size.0,
                    size.1,
                    self.from,
                    size.0,
                    size.1,
                    self.to,
                    SWS_ACCURATE_RND,
                    null,
                    null,
                    null.cast(),
                );
                if self.context.is_null() {
                    return Err(ffmpeg::Error::Other { errno: ffmpeg::error::EINVAL });
                }
                self.size = size;
            }
            (target.width, target.height, target.format) = (size.0, size.1, self.to as i32);
            check(ffi::sws_scale_frame(self.context, target, source))?;
            check(ffi::av_frame_copy_props(target, source))?;
        }
        Ok(converted)
    }
}

impl Drop for Converter {
    fn drop(&mut self) {
        // SAFETY: made by sws_getContext or null, which is allowed.
        unsafe { ffi::sws_freeContext(self.context) }
    }
}

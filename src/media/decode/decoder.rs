//! Decode: packets become frames, each with the time its source gave it.

use ffmpeg_next::ffi;
use ffmpeg_next::frame::Video as AvFrame;
use ffmpeg_next::packet::Ref;
use ffmpeg_next::{self as ffmpeg, Rational, Rescale, codec};
use tracing::{debug, info, warn};

use crate::color::Transfer;
use crate::error::{Error, Result};
use crate::frame::{Family, Frame, FrameFormat, Timestamp};
use crate::media::av_frame::borrow;
use crate::media::damage::{Damage, DamagedPlace};
use crate::media::decode::convert::Converter;
use crate::media::decode::exr;
use crate::media::decode::filter::{Clock, Deinterlace, FilterSpec, Filters, Timed};
use crate::media::decode::interlace::{self, Verdict};
use crate::media::decode::timestamps::Times;
use crate::media::demux::input::Input;
use crate::media::ffmpeg::{MICROSECONDS, is_again};
use crate::media::ffmpeg_log;
use crate::media::format::{color_of, describe, pixel_of, transfer_of};
use crate::media::packet::Packet;
use crate::media::pattern::{Numbering, Pattern};
use crate::media::stream::{Trim, VideoInfo};

/// How a source is decoded.
pub struct DecodeSpec {
    /// Which part of it.
    pub trim: Trim,
    /// Threads the decoder may use.
    pub threads: usize,
    /// What is done to its frames before they are frames.
    pub filter: FilterSpec,
    /// Where to begin, if not at the first frame of that part.
    pub begin: Option<Begin>,
    /// What its samples are coded with, whatever its frames say.
    pub transfer: Option<Transfer>,
}

/// A frame that is gone to without all before it: what is decoded from there on is the same as if they had been.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Begin {
    /// Its time in the source's ticks.
    pub pts: i64,
    /// How many frames are before it.
    pub index: u64,
}

/// The video decoder, with the first frame already out of it.
pub struct Decoder {
    opened: codec::decoder::Video,
    source: String,
    video: VideoInfo,
    /// Of a sequence: their names, and the number of the one at time 0.
    files: Option<(Pattern, u64)>,
    trim: Trim,
    transfer: Option<ffi::AVColorTransferCharacteristic>,
    /// Frames before the first one.
    before: u64,
    times: Times,
    filters: Filters,
    converter: Option<Converter>,
    damage: Damage,
    first: Option<Frame>,
    last_format: Option<FrameFormat>,
    pub(crate) ended: bool,
    counts: Counts,
}

/// Of frames, as they come out of the decoder.
#[derive(Default)]
struct Counts {
    /// In the wanted part, and outside of it.
    inside: u64,
    outside: u64,
    /// Frames that were given out.
    given: u64,
    patched: u64,
    /// Size, format or colours are not those of the first.
    changed: bool,
    /// Errors of the decoder since the last frame.
    in_a_row: u32,
}

/// Each frame stands for itself, so that an error in the decoder's log is one in the file. With others it may be a
/// reference that was cut away on purpose; their decoders flag what they patch.
const COMPLAINS_RIGHTLY: [codec::Id; 12] = [
    codec::Id::FFV1,
    codec::Id::PRORES,
    codec::Id::MJPEG,
    codec::Id::DNXHD,
    codec::Id::HUFFYUV,
    codec::Id::FFVHUFF,
    codec::Id::UTVIDEO,
    codec::Id::PNG,
    codec::Id::TIFF,
    codec::Id::DPX,
    codec::Id::EXR,
    codec::Id::DVVIDEO,
];

/// What a frame in the midst of a stream may have: 4K, or so many times what the stream began with.
const PIXELS_MAX: i64 = 4096 * 2304;
const GROWTH_MAX: i64 = 4;

/// A decoder that gives nothing but errors for so long does not get any further.
const ERRORS_IN_A_ROW_MAX: u32 = 1000;

impl Decoder {
    /// Opens the decoder of `input`'s video and decodes up to the first wanted frame, which fixes the
    /// geometry. Other packets met on the way are put back.
    pub fn open(input: &mut Input, spec: DecodeSpec) -> Result<Decoder> {
        let DecodeSpec { mut trim, threads, mut filter, begin, transfer } = spec;
        let parameters = input.video_parameters();
        let video = input.video();
        if let Some(begin) = begin {
            trim.from_us = begin.pts.rescale(video.time_base, MICROSECONDS);
        }
        input.begin_sequence(trim, &|_| false);
        let is_sequence = input.numbers().is_some();
        if is_sequence && filter.deinterlace == Deinterlace::Auto {
            // Scans have no fields, whatever a frame's flags say.
            filter.deinterlace = Deinterlace::Off;
        }
        let fail = |problem: String, remedy: &str| Error::new(input.name(), problem, remedy);
        let mut context = codec::Context::from_parameters(parameters)
            .map_err(|e| fail(format!("bad stream parameters: {e}"), "get a whole copy"))?;
        // Parts of a frame are decoded side by side. Whole frames would be too early for what is said of damage, which
        // is of the packet that went in last.
        let kind = codec::threading::Type::Slice;
        context.set_threading(codec::threading::Config { kind, ..codec::threading::Config::count(threads) });
        // SAFETY: the context is ours and not yet open; plain values are set.
        unsafe {
            let raw = &mut *context.as_mut_ptr();
            // Else the left edge is cropped to whole vectors only, and the frame is too wide.
            raw.flags |= ffi::AV_CODEC_FLAG_UNALIGNED as i32;
            // A damaged header may ask for any size: no stream grows further in its midst.
            raw.max_pixels = PIXELS_MAX.max(GROWTH_MAX * i64::from(raw.width) * i64::from(raw.height));
        }
        let mut context = context.decoder();
        context.set_packet_time_base(video.time_base);
        let codec_name = context.id().name();
        let opened = context.video().map_err(|e| {
            fail(format!("cannot decode {codec_name}: {e}"), "use an FFmpeg that has this decoder")
        })?;
        if !trim.is_whole() {
            input.expect_part(trim.to_us);
        }
        let verdict = if filter.is_auto() { interlace::look(input)? } else { Verdict::AsFlagged };
        let clock = Clock { time_base: video.time_base, frame_rate: video.frame_rate };
        let times = Times::new(input.name(), &video, opened.id(), input.has_steady_clock());
        let before = begin.map_or(0, |begin| begin.index);
        let mut decoder = Decoder {
            opened,
            source: input.name().to_owned(),
            video,
            files: input.files(),
            trim,
            transfer: transfer.map(transfer_of),
            before,
            times,
            filters: Filters::new(filter, verdict, input.name(), clock),
            converter: None,
            damage: input.damage(),
            first: None,
            last_format: None,
            ended: false,
            counts: Counts { given: before, ..Counts::default() },
        };
        if trim.from_us == i64::MIN || is_sequence {
            decoder.first = Some(decoder.find_first(input)?);
            return Ok(decoder);
        }
        // Some containers seek to a place that cannot be decoded from: what comes out then begins too late.
        for back_us in [0, 3_000_000, 30_000_000, i64::MAX] {
            let target_us = trim.from_us.saturating_sub(back_us).max(input.start_us());
            input.seek(target_us)?;
            decoder.forget();
            let found = decoder.find_first(input);
            let us = |frame: &Frame| {
                let time_base = Rational::from(frame.time.time_base);
                frame.time.pts.rescale(time_base, MICROSECONDS)
            };
            let begins_late = |frame: &Frame| us(frame) - trim.from_us >= decoder.times.usual_us();
            let in_time = decoder.counts.outside > 0 || found.as_ref().is_ok_and(|frame| !begins_late(frame));
            if in_time || target_us == input.start_us() {
                decoder.first = Some(found?);
                return Ok(decoder);
            }
        }
        unreachable!("the last attempt is from the start");
    }

    /// Reads a sequence from its beginning again, without what is `ready`. What the first frame fixed stays.
    pub fn pass_over(&mut self, input: &mut Input, ready: &dyn Fn(u64) -> bool) {
        self.forget();
        self.first = None;
        input.begin_sequence(self.trim, ready);
    }

    /// How its frames are numbered, those of a video from `start` on.
    pub fn numbering(&self, start: u64) -> Numbering {
        let Clock { time_base, frame_rate } = self.filters.clock();
        match self.files {
            // A filter that makes another rate gives times that count otherwise.
            Some((_, first)) if time_base == self.video.time_base && frame_rate == self.video.frame_rate => {
                Numbering::ByTime(first)
            }
            Some((_, first)) => Numbering::InOrder(first),
            None => Numbering::InOrder(start),
        }
    }

    /// As it was before the first packet.
    fn forget(&mut self) {
        self.opened.flush();
        self.times.forget();
        self.filters.forget();
        (self.ended, self.last_format) = (false, None);
        self.counts = Counts { given: self.before, ..Counts::default() };
    }

    fn find_first(&mut self, input: &mut Input) -> Result<Frame> {
        loop {
            match input.next_video()? {
                Some(packet) => self.send(packet)?,
                None => self.finish()?,
            }
            if let Some(frame) = self.receive_frame()? {
                return Ok(frame);
            }
            if self.ended {
                let (problem, remedy) = match self.counts.outside {
                    0 => ("no frame could be decoded", "get a whole copy"),
                    _ => ("has no frame in that part", "choose other times with --from and --to"),
                };
                return Err(Error::new(&self.source, problem, remedy));
            }
        }
    }

    /// What the frames are, by the first one. Later ones may differ.
    pub fn format(&self) -> FrameFormat {
        self.first().format
    }

    /// The first frame, before it is taken.
    pub(crate) fn first(&self) -> &Frame {
        self.first.as_ref().expect("asked before the first frame is taken")
    }

    /// What ticks and how often frames come, after the filters.
    pub(crate) fn video(&self) -> VideoInfo {
        let Clock { time_base, frame_rate } = self.filters.clock();
        let growth = f64::from(frame_rate) / f64::from(self.video.frame_rate);
        let frames_expected = (self.video.frames_expected as f64 * growth).round() as u64;
        let first = self.first();
        // A filter may change the shape of samples.
        let aspect = first
            .props
            .0
            .as_ref()
            .and_then(|props| props.downcast_ref::<AvFrame>())
            .map(AvFrame::aspect_ratio);
        let aspect = aspect.filter(|aspect| self.filters.is_open() && aspect.0 > 0 && aspect.1 > 0);
        VideoInfo {
            time_base,
            frame_rate,
            frames_expected,
            sample_aspect: aspect.unwrap_or(self.video.sample_aspect),
            ..self.video
        }
    }

    /// How much wider than high a sample is.
    pub fn sample_aspect(&self) -> f64 {
        self.video().sample_aspect.into()
    }

    /// Frames decoded, those outside of the wanted part left out.
    pub fn decoded(&self) -> u64 {
        self.counts.inside
    }

    /// How many frames more, or less, the filters gave than they took.
    pub fn duplicated_and_dropped(&self) -> (u64, u64) {
        self.filters.duplicated_and_dropped()
    }

    /// Frames whose time was missing or went back and was made up.
    pub fn repaired(&self) -> u64 {
        self.times.repaired()
    }

    /// Frames that the decoder says it had to patch.
    pub fn patched(&self) -> u64 {
        self.counts.patched
    }

    /// How often no frame came for a while where they had come evenly.
    pub fn gaps(&self) -> u64 {
        self.times.gaps()
    }

    /// Whether [`Begin`] serves for what was decoded so far: every frame stands for itself, with the time that its
    /// source gave it, and looks like the first.
    pub fn can_begin_anywhere(&self) -> bool {
        !self.filters.is_open() && self.times.repaired() == 0 && !self.counts.changed
    }

    /// What of the source was found damaged so far.
    pub fn damage(&self) -> &Damage {
        &self.damage
    }

    /// Gives the decoder a packet; [`Decoder::receive`] is to be called until it has no more.
    pub fn send(&mut self, packet: Packet) -> Result<()> {
        let packet = packet.packet;
        // SAFETY: the packet is alive.
        let shown = unsafe { (*packet.as_ptr()).flags } & ffi::AV_PKT_FLAG_DISCARD == 0;
        self.times.sent(&packet, shown);
        if let Err(error) = self.opened.send_packet(&packet) {
            return self.refused(error, packet.pts());
        }
        if self.opened.id() == codec::Id::EXR
            && let Some(problem) = exr::what_is_missing(packet.data().unwrap_or_default())
        {
            self.note(format!("a frame is damaged: {problem}"), packet.pts());
        }
        Ok(())
    }

    /// Says that no packet follows.
    pub fn finish(&mut self) -> Result<()> {
        match self.opened.send_eof() {
            Err(ffmpeg::Error::Eof) | Ok(()) => Ok(()),
            Err(error) => self.refused(error, None),
        }
    }

    /// The next frame; `None` when the decoder wants another packet or is at its end.
    pub fn receive(&mut self) -> Result<Option<Frame>> {
        if let Some(frame) = self.first.take() {
            return Ok(Some(frame));
        }
        self.receive_frame()
    }

    fn receive_frame(&mut self) -> Result<Option<Frame>> {
        loop {
            if let Some(timed) = self.filters.next() {
                return self.frame(timed).map(Some);
            }
            let mut av_frame = AvFrame::empty();
            match self.opened.receive_frame(&mut av_frame) {
                Ok(()) => self.take(av_frame)?,
                Err(error) if is_again(error) => return Ok(None),
                Err(ffmpeg::Error::Eof) if self.ended => return Ok(None),
                Err(ffmpeg::Error::Eof) => {
                    self.ended = true;
                    let lost = self.times.lost_before(i64::MAX);
                    self.note_lost(&lost);
                    self.filters.finish()?;
                }
                Err(error) => self.refused(error, None)?,
            }
        }
    }

    /// A packet that the decoder can do nothing with is damage, and no reason to end.
    fn refused(&mut self, error: ffmpeg::Error, pts: Option<i64>) -> Result<()> {
        const ENOMEM: ffmpeg::Error = ffmpeg::Error::Other { errno: ffmpeg::error::ENOMEM };
        self.counts.in_a_row += 1;
        if error == ENOMEM || self.counts.in_a_row > ERRORS_IN_A_ROW_MAX {
            let seconds = self.times.last_pts().map(|pts| self.times.seconds(pts));
            let problem = format!("cannot be decoded further: {error}");
            let remedy = "get a whole copy, or stop before with --to";
            return Err(Error::new(&self.source, problem, remedy).at("decode", self.counts.inside, seconds));
        }
        // What the decoder said of it is not said of the next frame.
        let complaint = self.complaint().map_or(String::new(), |complaint| format!(" ({complaint})"));
        if self.times.refused(pts) {
            self.note(
                format!("a packet cannot be decoded: {error}{complaint}"),
                pts.or(self.times.last_pts()),
            );
        } else {
            debug!("{}: a packet before the first keyframe cannot be decoded: {error}", self.source);
        }
        Ok(())
    }

    /// What the decoder said in its log since the last frame, where that tells of damage.
    fn complaint(&self) -> Option<String> {
        ffmpeg_log::of_decoders().filter(|_| COMPLAINS_RIGHTLY.contains(&self.opened.id()))
    }

    fn note_lost(&self, times: &[i64]) {
        for &pts in times {
            self.note("a frame did not come out of the decoder".into(), Some(pts));
        }
    }

    fn note(&self, problem: String, pts: Option<i64>) {
        if pts.is_some_and(|pts| !self.trim.holds(self.times.us(pts))) {
            return;
        }
        let seconds = pts.map(|pts| self.times.seconds(pts));
        let file = self
            .files
            .as_ref()
            .zip(pts)
            .map(|((pattern, first), pts)| pattern.name(Numbering::ByTime(*first).number(0, pts)));
        let problem = file.map_or(problem.clone(), |file| format!("{file}: {problem}"));
        self.damage.note(DamagedPlace { problem, frame: Some(self.counts.inside), pts, seconds });
    }

    /// A frame with its time goes to the filters, unless it lies outside of the wanted part.
    fn take(&mut self, mut av_frame: AvFrame) -> Result<()> {
        self.counts.in_a_row = 0;
        let (pts, duration, lost) = self.times.of(&av_frame);
        self.note_lost(&lost);
        if !self.trim.holds(self.times.us(pts)) {
            self.counts.outside += 1;
            return Ok(());
        }
        let complaint = self.complaint();
        if av_frame.has_decode_errors() || av_frame.is_corrupt() || complaint.is_some() {
            self.counts.patched += 1;
            let why = complaint.map_or(String::new(), |complaint| format!(": {complaint}"));
            self.note(format!("a frame is damaged and was patched by the decoder{why}"), Some(pts));
        }
        self.counts.inside += 1;
        // SAFETY: the frame is owned; plain values are set. The container's word goes before the bitstream's.
        unsafe {
            let raw = &mut *av_frame.as_mut_ptr();
            raw.sample_aspect_ratio = self.video.sample_aspect.into();
            raw.color_trc = self.transfer.unwrap_or(raw.color_trc);
        }
        self.filters.push(Timed { av_frame, pts, duration })
    }

    /// The frame as a frame.
    fn frame(&mut self, timed: Timed) -> Result<Frame> {
        let Timed { mut av_frame, pts, duration } = timed;
        // SAFETY: the frame was filled by the decoder or a filter.
        let raw = unsafe { &*av_frame.as_ptr() };
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
                av_frame = converter.convert(&av_frame).map_err(|e| {
                    let index = self.counts.given;
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
        let raw = unsafe { &*av_frame.as_ptr() };
        let (color, guessed) = color_of(raw, &format);
        if self.counts.given == 0 && guessed && format.family == Family::Ycbcr {
            info!("{}: no matrix is tagged; {} is taken for its size", self.source, color.matrix.name());
        }
        let frame_format = FrameFormat {
            width: raw.width as usize,
            height: raw.height as usize,
            pixel_format: format,
            color,
        };
        let time_base = self.filters.clock().time_base.into();
        let time = Timestamp { index: self.counts.given, pts, duration, time_base };
        self.tell_change(&frame_format, &time);
        self.counts.given += 1;
        Ok(borrow(av_frame, frame_format, time))
    }

    fn tell_change(&mut self, new: &FrameFormat, time: &Timestamp) {
        if let Some(old) = self.last_format.replace(*new).filter(|old| old != new) {
            self.counts.changed = true;
            let said = |of: &FrameFormat| format!("{}x{} {}", of.width, of.height, of.pixel_format.name);
            let colours = if old.color == new.color { "" } else { ", with other colour tags" };
            let (source, index, seconds) = (&self.source, time.index, time.seconds());
            warn!(
                "{source}: from frame {index} at {seconds:.3} s on {} is {}{colours}; the output stays as it began",
                said(&old),
                said(new)
            );
        }
    }
}

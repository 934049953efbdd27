//! Decode: packets become frames, each with the timestamp of its source.

mod carried;
mod damage;
mod first;

use ffmpeg_next::ffi;
use ffmpeg_next::frame::Video as AvFrame;
use ffmpeg_next::packet::Ref;
use ffmpeg_next::{self as ffmpeg, Rescale, codec};
use tracing::{info, warn};

use crate::color::Transfer;
use crate::error::Result;
use crate::frame::{Family, Frame, FrameFormat, Origin, Timestamp};
use crate::media::av_frame::{fields_of, into_frame, set_fields};
use crate::media::damage::Damage;
use crate::media::decode::alpha::{Alpha, decoder_with_alpha};
use crate::media::decode::captions::Captions;
use crate::media::decode::convert::Converter;
use crate::media::decode::exr;
use crate::media::decode::filter::{Clock, Deinterlace, FilterSpec, Filters};
use crate::media::decode::interlace::{ScanSpec, is_fieldless};
use crate::media::decode::open::decoder_of;
use crate::media::decode::orientation::Orientation;
use crate::media::decode::shape::{Described, Shape};
use crate::media::decode::timed_frame::TimedFrame;
use crate::media::decode::timestamps::{FrameTiming, TimestampRepair};
use crate::media::demux::input::Input;
use crate::media::ffmpeg::{MICROSECONDS, failure, is_again, time_base_of};
use crate::media::ffmpeg_log::DecoderErrors;
use crate::media::format::{color_of, complete_tags, describe, pixel_of, transfer_of};
use crate::media::losses::Losses;
use crate::media::packet::Packet;
use crate::media::pattern::{Numbering, Pattern};
use crate::media::side_data::{cropping, display_matrix};
use crate::media::stream::{Trim, VideoInfo};

/// How a source is decoded.
pub struct DecodeSpec {
    /// The wanted part.
    pub trim: Trim,
    /// Threads that the decoder may use.
    pub threads: usize,
    /// Filters of decoded frames.
    pub filter: FilterSpec,
    /// Where to start, if not at the first frame of that part.
    pub start: Option<SeekPoint>,
    /// Transfer of the samples, whatever the frames are tagged with.
    pub transfer: Option<Transfer>,
    /// Whether the output can hold a display matrix. Frames are turned upright where it cannot, or where the matrix is not
    /// the stream's.
    pub holds_display_matrix: bool,
}

/// A frame that decoding can start at: the frames from there on are the same as if all before it had been decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeekPoint {
    /// pts in the source's ticks.
    pub pts: i64,
    /// Number of frames before it.
    pub index: u64,
}

/// The video decoder. Its first frame is already decoded.
pub struct Decoder {
    /// Dropped before the decoder that it listens to.
    errors: DecoderErrors,
    opened: codec::decoder::Video,
    source: String,
    video: VideoInfo,
    /// Names of an image sequence, and the number of the file at time 0.
    files: Option<(Pattern, u64)>,
    trim: Trim,
    transfer: Option<ffi::AVColorTransferCharacteristic>,
    /// Number of frames before the first one.
    before: u64,
    timestamps: TimestampRepair,
    orientation: Orientation,
    shape: Shape,
    filters: Filters,
    converter: Option<Converter>,
    damage: Damage,
    first: Option<Frame>,
    last: Option<Described>,
    /// Whether the first frame is flagged as interlaced.
    is_interlaced: Option<bool>,
    alpha: Alpha,
    /// Whether premultiplied colours are divided by alpha.
    divides_alpha: bool,
    /// Samples to remove at the top, bottom, left and right.
    cropping: Option<[u32; 4]>,
    /// Chromaticities of the primaries of an image.
    chromaticities: Option<[f64; 8]>,
    /// Primaries and transfer of the frame that was decoded last.
    decoded_light: [u32; 2],
    /// Whether the frame that was returned last has them as well.
    has_same_light: bool,
    captions: Captions,
    losses: Losses,
    pub(crate) ended: bool,
    counts: Counts,
    /// What was decoded since the last frame that was taken.
    origin: Origin,
}

/// Counts of decoded frames.
#[derive(Default)]
struct Counts {
    /// Frames within the wanted part.
    inside: u64,
    /// Frames outside of it.
    outside: u64,
    /// Frames that were returned.
    returned: u64,
    /// Frames that the decoder flagged as damaged.
    patched: u64,
    /// Whether size, format or colour differ from those of the first frame.
    changed: bool,
    /// Errors of the decoder since the last frame.
    errors_in_a_row: u32,
}

impl Decoder {
    /// Opens the decoder of `input`'s video and decodes up to the first wanted frame, which fixes the format. Packets of
    /// other streams met on the way are put back.
    pub fn open(input: &mut Input, spec: DecodeSpec) -> Result<Decoder> {
        let DecodeSpec { mut trim, threads, mut filter, start, transfer, holds_display_matrix } = spec;
        let video = input.video();
        if let Some(start) = start {
            trim.from_us = start.pts.rescale(video.time_base, MICROSECONDS);
        }
        input.restart_sequence(trim, &|_| false);
        let is_sequence = input.numbers().is_some();
        if is_sequence && filter.deinterlace == Deinterlace::Auto {
            // Scans have no fields, whatever a frame's flags say.
            filter.deinterlace = Deinterlace::Off;
        }
        let opened = open_codec(input, &video, threads)?;
        if !trim.is_everything() {
            input.expect_part(trim);
        }
        let divides_alpha = filter.divides_alpha && opened.id() == codec::Id::EXR;
        let clock = Clock { time_base: video.time_base, frame_rate: video.frame_rate };
        let before = start.map_or(0, |start| start.index);
        let scan = ScanSpec::of(input, before);
        let mut decoder = Decoder {
            timestamps: TimestampRepair::new(
                input.name(),
                &video,
                trim,
                opened.id(),
                input.has_steady_clock(),
            ),
            errors: DecoderErrors::of(&opened),
            opened,
            source: input.name().to_owned(),
            video,
            files: input.files(),
            trim,
            transfer: transfer.map(transfer_of),
            before,
            orientation: Orientation::new(display_matrix(&input.video_stream()), holds_display_matrix),
            filters: Filters::new(filter, scan, input.name(), clock),
            shape: match is_sequence {
                true => Shape::of_sequence(video.sample_aspect),
                false => Shape::new(input.stated_aspects(), video.sample_aspect),
            },
            converter: None,
            damage: input.damage(),
            first: None,
            last: None,
            is_interlaced: None,
            alpha: Alpha::Kept,
            divides_alpha,
            cropping: cropping(&input.video_stream()),
            chromaticities: None,
            decoded_light: [0; 2],
            has_same_light: true,
            captions: Captions::default(),
            losses: Losses::default(),
            ended: false,
            counts: Counts { returned: before, ..Counts::default() },
            origin: Origin::default(),
        };
        let first = match trim.from_us == i64::MIN || is_sequence {
            true => decoder.decode_first(input)?,
            false => decoder.seek_first(input)?,
        };
        decoder.first = Some(first);
        Ok(decoder)
    }

    /// Decodes an image sequence from its beginning again, without the frames that are `ready`. The format stays that of
    /// the first frame.
    pub fn skip_ready(&mut self, input: &mut Input, ready: &dyn Fn(u64) -> bool) {
        self.reset();
        self.first = None;
        input.restart_sequence(self.trim, ready);
    }

    /// How output frames are numbered; those of a video from `start` on.
    pub fn numbering(&self, start: u64) -> Numbering {
        let Clock { time_base, frame_rate } = self.filters.clock();
        match self.files {
            // After a filter that changes the rate, timestamps do not count files any more.
            Some((_, first)) if time_base == self.video.time_base && frame_rate == self.video.frame_rate => {
                Numbering::ByTime(first)
            }
            Some((_, first)) => Numbering::InOrder(first),
            None => Numbering::InOrder(start),
        }
    }

    /// Restores the state before the first packet.
    fn reset(&mut self) {
        self.opened.flush();
        self.timestamps.reset();
        self.filters.reset();
        self.captions = Captions::default();
        (self.ended, self.last, self.is_interlaced) = (false, None, None);
        self.counts = Counts { returned: self.before, ..Counts::default() };
        self.origin = Origin::default();
    }

    /// Format of the first frame. Later ones may differ.
    pub fn format(&self) -> FrameFormat {
        self.first().format
    }

    /// Estimates the memory that the decoder will still take: its reference frames, those that
    /// wait for their order, and those that wait to be examined with others.
    pub(crate) fn memory_estimate(&self, frames: u64) -> u64 {
        let ahead = self.filters.ahead() as u64;
        self.format().bytes() as u64 * (frames - 1).min(8 + ahead)
    }

    /// The first frame, before it is taken.
    pub(crate) fn first(&self) -> &Frame {
        self.first.as_ref().expect("called before the first frame is taken")
    }

    /// The stream after the filters.
    pub(crate) fn video(&self) -> VideoInfo {
        let Clock { time_base, frame_rate } = self.filters.clock();
        let growth = f64::from(frame_rate) / f64::from(self.video.frame_rate);
        let frames_expected = (self.video.frames_expected as f64 * growth).round() as u64;
        let first = self.first();
        let aspect = first
            .props
            .0
            .as_ref()
            .and_then(|props| props.downcast_ref::<AvFrame>())
            .map(AvFrame::aspect_ratio);
        let aspect = aspect.filter(|aspect| aspect.0 > 0 && aspect.1 > 0);
        VideoInfo {
            time_base,
            frame_rate,
            frames_expected,
            sample_aspect: aspect.unwrap_or(self.video.sample_aspect),
            ..self.video
        }
    }

    /// Width of a sample over its height.
    pub fn sample_aspect(&self) -> f64 {
        self.video().sample_aspect.into()
    }

    /// Number of decoded frames within the wanted part.
    pub fn decoded(&self) -> u64 {
        self.counts.inside
    }

    /// Number of frames that filters added, and that they dropped.
    pub fn duplicated_and_dropped(&self) -> (u64, u64) {
        self.filters.duplicated_and_dropped()
    }

    /// Number of frames that were deinterlaced, and how often that began or ended.
    pub fn deinterlaced(&self) -> (u64, u64) {
        self.filters.deinterlaced()
    }

    /// Number of frames whose timestamp was missing or went back and was repaired.
    pub fn repaired(&self) -> u64 {
        self.timestamps.repaired()
    }

    /// Number of frames that the decoder patched.
    pub fn patched(&self) -> u64 {
        self.counts.patched
    }

    /// Number of gaps in a stream of constant rate.
    pub fn gaps(&self) -> u64 {
        self.timestamps.gaps()
    }

    /// Whether every frame decoded so far can be a [`SeekPoint`]: no filter, no repaired timestamp, no change of format.
    pub fn can_start_anywhere(&self) -> bool {
        self.filters.is_memoryless() && self.timestamps.repaired() == 0 && !self.counts.changed
    }

    /// States that the output holds no alpha. A frame that is not opaque is then an error, or the report lists its alpha.
    pub fn drop_alpha(&mut self, is_error: bool) -> Result<()> {
        self.alpha = Alpha::Dropped { is_error };
        let first = self.first.as_ref().expect("called before the first frame is taken");
        self.alpha.check(first, &self.source)
    }

    /// Names of what frames carried and the output does not hold.
    pub(crate) fn left_out(&self) -> impl Iterator<Item = &'static str> {
        (self.alpha == Alpha::Lost).then_some("alpha").into_iter().chain(self.losses.names().iter().copied())
    }

    /// Whether the colours of frames are premultiplied by alpha.
    pub(crate) fn has_premultiplied_alpha(&self) -> bool {
        self.opened.id() == codec::Id::EXR && !self.divides_alpha
    }

    /// How frames are turned.
    pub(crate) fn orientation(&self) -> &Orientation {
        &self.orientation
    }

    /// The damage of the source that was found so far.
    pub fn damage(&self) -> &Damage {
        &self.damage
    }

    /// Sends a packet to the decoder. Call [`Decoder::receive`] until it returns `None`.
    pub fn send(&mut self, packet: Packet) -> Result<()> {
        let packet = packet.packet;
        // SAFETY: the packet is alive.
        let is_shown = unsafe { (*packet.as_ptr()).flags } & ffi::AV_PKT_FLAG_DISCARD == 0;
        self.timestamps.sent(&packet, is_shown);
        self.orientation.sent(self.opened.id(), packet.data().unwrap_or_default());
        self.inspect(&packet);
        if let Err(error) = self.opened.send_packet(&packet) {
            return self.refused(error, packet.pts());
        }
        if self.opened.id() == codec::Id::EXR
            && let Some(problem) = exr::missing(packet.data().unwrap_or_default())
        {
            self.note(format!("a frame is damaged: {problem}"), packet.pts());
        }
        Ok(())
    }

    /// Signals the end of the stream.
    pub fn finish(&mut self) -> Result<()> {
        match self.opened.send_eof() {
            Err(ffmpeg::Error::Eof) | Ok(()) => Ok(()),
            Err(error) => self.refused(error, None),
        }
    }

    /// The next frame; `None` when the decoder needs another packet or is at its end.
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
                Err(ffmpeg::Error::Eof) if self.ended => return self.after_last().map(|()| None),
                Err(ffmpeg::Error::Eof) => {
                    self.ended = true;
                    let lost = self.timestamps.lost_before(i64::MAX);
                    self.note_lost(&lost);
                    self.filters.finish()?;
                }
                Err(error) => self.refused(error, None)?,
            }
        }
    }

    /// Passes a decoded frame to the filters, unless it lies outside of the wanted part.
    fn take(&mut self, mut av_frame: AvFrame) -> Result<()> {
        self.counts.errors_in_a_row = 0;
        let FrameTiming { pts, duration, checksum, lost } = self.timestamps.next(&av_frame);
        self.note_lost(&lost);
        // Taken for frames outside of the wanted part as well, so that it is not assigned to the first one inside.
        let logged = self.take_logged_error();
        if !self.trim.contains(self.timestamps.us(pts)) {
            self.counts.outside += 1;
            return Ok(());
        }
        if av_frame.has_decode_errors() || av_frame.is_corrupt() || logged.is_some() {
            self.counts.patched += 1;
            let why = logged.map_or(String::new(), |logged| format!(": {logged}"));
            self.note(format!("a frame is damaged and was patched by the decoder{why}"), Some(pts));
        }
        self.counts.inside += 1;
        self.origin.add(checksum);
        self.shape.set_aspect(&mut av_frame);
        if is_fieldless(self.opened.id()) {
            set_fields(&mut av_frame, false, false);
        }
        // SAFETY: the frame is owned; plain values are set.
        unsafe {
            let raw = &mut *av_frame.as_mut_ptr();
            if let Some(matrix) = complete_tags(raw, self.opened.id())
                && self.counts.inside == 1
                && describe(pixel_of(raw)).is_none_or(|format| format.family == Family::Ycbcr)
            {
                info!("{}: no matrix is tagged; {} is guessed", self.source, matrix.name());
            }
            if let Some(transfer) = self.transfer {
                raw.color_trc = transfer;
            }
        }
        let upright = self.orientation.filter_for(&mut av_frame);
        self.before_filters(&mut av_frame)?;
        let origin = std::mem::take(&mut self.origin);
        self.filters.push(TimedFrame { av_frame, pts, duration, upright, origin })
    }

    /// Borrows the AVFrame as a [`Frame`], converted if no engine can read its format.
    fn frame(&mut self, timed: TimedFrame) -> Result<Frame> {
        let TimedFrame { mut av_frame, pts, duration, origin, .. } = timed;
        self.after_filters(&mut av_frame)?;
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
                    let index = self.counts.returned;
                    failure(&self.source, "cannot be converted", e, "convert it with ffmpeg first")
                        .at("decode", index, None)
                })?;
                converter.format
            }
        };
        let (size, aspect) = ((av_frame.width(), av_frame.height()), av_frame.aspect_ratio());
        let padded = self.shape.padded(&av_frame, &format);
        let is_padded = padded.is_some();
        let av_frame = padded.unwrap_or(av_frame);
        // SAFETY: as above.
        let raw = unsafe { &*av_frame.as_ptr() };
        let color = color_of(raw, &format);
        let frame_format = FrameFormat {
            width: raw.width as usize,
            height: raw.height as usize,
            pixel_format: format,
            color,
        };
        let time_base = time_base_of(self.filters.clock().time_base);
        let time = Timestamp { index: self.counts.returned, pts, duration, time_base, origin };
        // An encoder is opened for the field order of the first frame.
        let is_interlaced = fields_of(&av_frame).0;
        self.counts.changed |= *self.is_interlaced.get_or_insert(is_interlaced) != is_interlaced;
        self.warn_change(Described { format: frame_format, size, aspect, is_padded }, &time);
        self.counts.returned += 1;
        let frame = into_frame(av_frame, frame_format, time);
        self.alpha.check(&frame, &self.source)?;
        Ok(frame)
    }

    fn warn_change(&mut self, new: Described, time: &Timestamp) {
        if let Some(old) = self.last.replace(new).filter(|old| *old != new) {
            self.counts.changed = true;
            let (source, index, seconds, change) =
                (&self.source, time.index, time.seconds(), old.change_to(&new));
            warn!("{source}: at frame {index}, {seconds:.3} s, {change}");
        }
    }
}

/// Opens the codec of the input's video.
fn open_codec(input: &Input, video: &VideoInfo, threads: usize) -> Result<codec::decoder::Video> {
    let mut context = decoder_of(input.video_parameters(), video.time_base)
        .map_err(|e| failure(input.name(), "bad stream parameters", e, "get a complete copy"))?;
    // Slices are decoded in parallel. With frame threads an error in the log could not be assigned to the packet that was
    // sent last.
    let kind = codec::threading::Type::Slice;
    context.set_threading(codec::threading::Config { kind, ..codec::threading::Config::count(threads) });
    // SAFETY: the context is ours and not yet open; plain values are set.
    unsafe {
        let raw = &mut *context.as_mut_ptr();
        // Otherwise the left edge is cropped to whole vectors only, and the frame is too wide.
        raw.flags |= ffi::AV_CODEC_FLAG_UNALIGNED as i32;
    }
    let problem = format!("cannot decode {}", context.id().name());
    let opened = match decoder_with_alpha(&input.video_stream()) {
        Some(codec) => context.open_as(codec).and_then(codec::decoder::Opened::video),
        None => context.video(),
    };
    opened.map_err(|e| failure(input.name(), &problem, e, "use an FFmpeg that has this decoder"))
}

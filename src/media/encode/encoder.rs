//! Encode: frames become packets, in segments that are cut by frame number alone.
//!
//! An encoder gets timestamps in a time base that it accepts; its packets get the source's timestamps back from a table.

use std::collections::BTreeMap;

use ffmpeg_next::frame::Video as AvFrame;
use ffmpeg_next::{self as ffmpeg, Rational, Rescale, codec};
use tracing::debug;

use crate::error::{Error, ErrorKind, Result};
use crate::frame::{Frame, FrameFormat, TimeBase, Timestamp};
use crate::media::av_frame::{AvFrameBuffer, fields_of};
use crate::media::decode::alpha::multiply_by_alpha;
use crate::media::decode::decoder::Decoder;
use crate::media::demux::input::Input;
use crate::media::encode::field_order::FieldOrder;
use crate::media::encode::frame_properties::{scaled_aspect, set_frame_properties};
use crate::media::encode::palette::Palette;
use crate::media::encode::target::{Target, open_context};
use crate::media::ffmpeg::{
    MICROSECONDS, bytes_of, failure, is_again, parameters_of, rational_of, time_base_of,
};
use crate::media::losses::Losses;
use crate::media::output::Output;
use crate::media::packet::Packet;
use crate::media::segment::{Cut, CutState, SEGMENT_FRAMES, SegmentSource, header_checksum};
use crate::media::side_data::{self, StreamContext, StreamSide};
use crate::media::stream::VideoInfo;
use crate::media::trial::problem_of_video;

/// Largest reordering delay of the codecs in use, in frames: that of H.264 and HEVC.
const DELAY_MAX: u64 = 16;
/// Number of pts kept before the next packet's.
const ORDER_KEPT: u64 = DELAY_MAX + 1;

/// The remedy for an encoder that does not do as it should.
const CHOOSE_ANOTHER: &str = "choose another --encoder";

/// An opened encoder, and the timestamps of the frames inside of it.
pub struct Encoder {
    target: Target,
    video: VideoInfo,
    sample_aspect: Rational,
    global_header: bool,
    is_segmented: bool,
    is_mp4_family: bool,
    /// Output to try with the first packet, before there are segments to join in it.
    untried: Option<Output>,
    /// Time base of the encoder.
    time_base: Rational,
    context: ffmpeg::encoder::Encoder,
    palette: Option<Palette>,
    extradata: Vec<u8>,
    /// Reordering delay in frames, once it is known.
    delay: Option<u64>,
    /// pts of the first frame.
    start_us: i64,
    /// Timestamp of each frame inside of the encoder, by the pts that the encoder got.
    timestamps: BTreeMap<i64, Timestamp>,
    /// State to keep at the next cut.
    state: CutState,
    /// Packets received, counted like `state.frames`.
    received: u64,
    /// Number of the current segment.
    segment: u64,
    /// Number of frames before the current segment.
    segment_start: u64,
    /// Frames of the current segment.
    source: SegmentSource,
    finishing: bool,
    /// Frames sent.
    sent: u64,
    /// Number of times that an encoder was opened.
    segments: u64,
    /// Index of the video in the input.
    stream: usize,
    side: StreamSide,
    losses: Losses,
    /// Whether the codec has colours premultiplied by alpha, and the frames do not.
    multiplies_alpha: bool,
}

impl Encoder {
    /// Opens the encoder of `target` for the video of the input.
    pub fn open(mut target: Target, output: &Output, input: &Input, decoder: &Decoder) -> Result<Encoder> {
        decoder.check_base_layer(&input.video_stream())?;
        let video = decoder.video();
        let sample_aspect = scaled_aspect(video.sample_aspect, &decoder.format(), &target.format);
        let (lr, sr) = (decoder.format(), target.format);
        let context = StreamContext {
            encoder: target.encoder_name(),
            container: output.container(),
            has_matrix: decoder.orientation().is_carried(),
            has_same_light: decoder.has_same_light(),
            growth: sr.width as f64 / lr.width as f64,
            frame_rate: video.frame_rate,
        };
        let side = StreamSide::of(&input.video_stream(), decoder.first(), &context);
        if let Some(props) = side_data::frame_of(&decoder.first().props).filter(|_| target.keeps_lines) {
            target.field_order = FieldOrder::of(props);
        }
        let mut losses = Losses::default();
        side.lost().iter().for_each(|name| losses.note(name, output.container()));
        target.color_lost.iter().for_each(|name| losses.note(name, target.encoder_name()));
        if let Some((key, parameters)) = side.encoder_parameters(target.encoder_name()) {
            target.add_parameters(key, parameters);
        }
        let global_header = output.wants_global_header();
        let attempt = |time_base| open_context(&target, &video, sample_aspect, global_header, time_base);
        // At a constant rate the encoder counts in frames, and the bitstream says that rate; else in the source's time
        // base, which MPEG-2, MPEG-4 and others refuse.
        let (own, rate) = (video.time_base, video.frame_rate.invert());
        let (first, second) =
            if video.is_constant || output.counts_in_codec() { (rate, own) } else { (own, rate) };
        let (context, time_base) = match attempt(first) {
            Ok(context) => (context, first),
            Err(error) => (attempt(second).map_err(|_| error)?, second),
        };
        let multiplies_alpha =
            lr.pixel_format.alpha && target.has_premultiplied_alpha() && !decoder.has_premultiplied_alpha();
        let mut encoder = Encoder {
            extradata: Vec::new(),
            palette: target.palette(time_base)?,
            is_segmented: output.is_segmented(),
            untried: output.is_segmented().then(|| output.clone()),
            is_mp4_family: output.is_mp4_family(),
            target,
            video,
            sample_aspect,
            global_header,
            time_base,
            context,
            delay: None,
            start_us: decoder.first().time.pts.rescale(video.time_base, MICROSECONDS),
            timestamps: BTreeMap::new(),
            state: CutState { last_coded_pts: i64::MIN, order_step: 1, end: i64::MIN, ..CutState::default() },
            received: 0,
            segment: 0,
            segment_start: 0,
            source: SegmentSource::default(),
            finishing: false,
            sent: 0,
            segments: 1,
            stream: input.video_index(),
            side,
            losses,
            multiplies_alpha,
        };
        encoder.extradata = encoder.extradata().to_vec();
        Ok(encoder)
    }

    /// Format of the frames to send.
    pub fn format(&self) -> FrameFormat {
        self.target.format
    }

    /// Whether the output keeps alpha.
    pub fn keeps_alpha(&self, output: &Output) -> bool {
        self.target.holds_alpha() && output.holds_alpha(self.target.codec().id())
    }

    /// Estimates the bytes of an encoded frame, which has `growth` times the pixels of one of the input.
    pub fn bytes_per_frame(&self, input: &Input, growth: f64) -> Option<f64> {
        let rate = f64::from(self.video.frame_rate);
        self.target.bytes_per_frame(rate, input.bit_rate().map(|bits| bits / 8.0 / rate), growth)
    }

    /// Sets the bit rate from the next frame on, in bit/s. Returns whether the encoder can change it while it is open.
    pub fn set_bit_rate(&mut self, bit_rate: u64) -> bool {
        let can_change = matches!(self.name(), "libx264" | "h264_nvenc" | "hevc_nvenc" | "av1_nvenc");
        if can_change {
            // SAFETY: the context is open and ours, and these encoders read its plain numbers before each frame.
            let raw = unsafe { &mut *self.context.as_mut_ptr() };
            (raw.bit_rate, raw.rc_max_rate) = (bit_rate as i64, bit_rate as i64);
            raw.rc_buffer_size = bit_rate.min(i32::MAX as u64) as i32;
        }
        can_change
    }

    /// FFmpeg's name of the encoder.
    pub fn name(&self) -> &str {
        self.target.encoder_name()
    }

    /// Names and values of its options.
    pub fn options(&self) -> impl Iterator<Item = &(String, String)> {
        self.target.options()
    }

    /// Number of segments started: an encoder is opened for each.
    pub fn segments(&self) -> u64 {
        self.segments
    }

    /// Number of frames sent.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// pts of the first frame, in microseconds of the source's clock.
    pub(crate) fn start_us(&self) -> i64 {
        self.start_us
    }

    /// The codec tag that the user chose.
    pub(crate) fn codec_tag(&self) -> Option<u32> {
        self.target.codec_tag()
    }

    pub(crate) fn context(&self) -> &codec::Context {
        &self.context
    }

    pub(crate) fn video(&self) -> &VideoInfo {
        &self.video
    }

    pub(crate) fn sample_aspect(&self) -> Rational {
        self.sample_aspect
    }

    pub(crate) fn side(&self) -> &StreamSide {
        &self.side
    }

    /// Names of side data that frames carried and the encoder does not take.
    pub fn left_out(&self) -> &[&'static str] {
        self.losses.names()
    }

    /// Colour properties that are converted, as the file cannot state them.
    pub fn color_converted(&self) -> &[String] {
        &self.target.color_converted
    }

    /// Whether a segment ends before this frame: then [`Encoder::finish`], take all packets, and
    /// [`Encoder::reopen`].
    pub fn cuts_before(&self, time: &Timestamp) -> bool {
        self.is_segmented && self.has_started() && time.index / SEGMENT_FRAMES != self.segment
    }

    fn has_started(&self) -> bool {
        self.state.frames > self.segment_start
    }

    /// Returns the segment that ends here; `None` if it has no frame.
    pub fn cut(&self) -> Option<Cut> {
        let (segment, source, next) = (self.segment, self.source.clone(), self.state.clone());
        let (header, stream) = (self.header_checksum(), self.stream);
        self.has_started().then_some(Cut { segment, source, next, header, stream })
    }

    /// Checksum of the header that the encoder wrote.
    pub fn header_checksum(&self) -> u32 {
        header_checksum(&self.extradata)
    }

    /// State with which an encoder resumes from here.
    pub fn state(&self) -> CutState {
        self.state.clone()
    }

    /// Resumes after a cut, as if this encoder had encoded all frames before it.
    pub fn resume_from(&mut self, state: CutState) {
        assert!(self.timestamps.is_empty(), "only at a cut");
        self.received = state.frames;
        self.segment_start = state.frames;
        self.state = state;
    }

    /// Skips a frame that lies in another segment.
    pub fn skip(&mut self, time: &Timestamp) {
        self.register(time);
        self.received = self.state.frames;
    }

    /// Sends a frame from the encoder's pool.
    pub fn send(&mut self, frame: Frame) -> Result<()> {
        let Frame { time, props, buffer, .. } = frame;
        let buffer = buffer.into_any().downcast::<AvFrameBuffer>().expect("a frame of the encoder's pool");
        let mut av_frame = buffer.av_frame;
        if !self.has_started() {
            self.segment = time.index / SEGMENT_FRAMES;
            self.source = SegmentSource::default();
        }
        self.source.add(&time);
        let pts = self.register(&time);
        let props = side_data::frame_of(&props);
        if let Some(props) = props {
            self.note_side_data(props);
            let checked = self.losses.check(self.name());
            checked.map_err(|e| e.at("encode", time.index, Some(time.seconds())))?;
        }
        if self.multiplies_alpha {
            multiply_by_alpha(&mut av_frame).map_err(|e| self.failed(&time, e))?;
        }
        set_frame_properties(&mut av_frame, &self.target, self.sample_aspect, pts, props);
        self.timestamps.insert(pts, time);
        self.sent += 1;
        match &mut self.palette {
            None => self.context.send_frame(&av_frame),
            Some(palette) => palette.send(Some(&av_frame)).and_then(|()| self.send_with_palettes()),
        }
        .map_err(|e| self.failed(&time, e))
    }

    /// Sends the frames that have got their palettes.
    fn send_with_palettes(&mut self) -> std::result::Result<(), ffmpeg::Error> {
        while let Some(av_frame) = self.palette.as_mut().map_or(Ok(None), Palette::receive)? {
            self.context.send_frame(&av_frame)?;
        }
        Ok(())
    }

    fn note_side_data(&mut self, props: &AvFrame) {
        if !self.target.keeps_lines && fields_of(props).0 {
            self.losses.note("fields of interlaced frames", "an upscaled frame");
        }
        for name in self.side.lost_of(props, self.target.codec(), &self.target.format) {
            self.losses.note(name, self.target.encoder_name());
        }
    }

    /// Fails where side data is left out, at once and later.
    pub fn refuse_losses(&mut self, first: &Frame) -> Result<()> {
        self.losses.refuse();
        if let Some(props) = side_data::frame_of(&first.props) {
            self.note_side_data(props);
        }
        self.losses.check(self.name())
    }

    /// Adds a frame to the state. Returns its pts in the encoder's time base: the nearest one that is free.
    fn register(&mut self, time: &Timestamp) -> i64 {
        let state = &mut self.state;
        match state.frames {
            0 => state.first_pts = time.pts,
            1 => state.order_step = time.pts.saturating_sub(state.order[0]).max(1),
            _ => {}
        }
        state.order.push_back(time.pts);
        while state.order_begin + ORDER_KEPT < self.received {
            state.order.pop_front();
            state.order_begin += 1;
        }
        state.end = state.end.max(time.pts.saturating_add(time.duration));
        state.frames += 1;
        if self.time_base == self.video.time_base {
            return time.pts;
        }
        let nearest = time.pts.saturating_sub(state.first_pts).rescale(self.video.time_base, self.time_base);
        state.last_coded_pts = nearest.max(state.last_coded_pts.saturating_add(1));
        state.last_coded_pts
    }

    /// Ends the segment: no frame follows in it, and all packets can be received.
    pub fn finish(&mut self) -> Result<()> {
        self.finishing = true;
        let flushed = self.palette.as_mut().map_or(Ok(()), |palette| palette.send(None));
        let ended = flushed.and_then(|()| self.send_with_palettes()).and_then(|()| self.context.send_eof());
        ended.map_err(|e| failure(self.name(), "cannot be drained", e, CHOOSE_ANOTHER))
    }

    /// Receives the next packet; returns `None` when the encoder needs another frame or is at its end.
    pub fn receive(&mut self) -> Result<Option<Packet>> {
        let mut packet = ffmpeg::Packet::empty();
        match self.context.receive_packet(&mut packet) {
            Ok(()) => {}
            Err(error) if is_again(error) => return Ok(None),
            Err(ffmpeg::Error::Eof) => return self.check_complete().map(|()| None),
            Err(error) => return Err(failure(self.name(), "gave no packet", error, CHOOSE_ANOTHER)),
        }
        self.target.complete(&mut packet);
        let pts = packet.pts().unwrap_or_default();
        let Some(time) = self.timestamps.remove(&pts) else {
            let problem = format!("gave a packet with the pts of no frame ({pts})");
            return Err(Error::new(self.name(), problem, CHOOSE_ANOTHER).with_kind(ErrorKind::Unsupported));
        };
        let dts = self.next_dts(&packet);
        if dts > time.pts {
            let problem = "reorders frames further than its delay";
            let remedy = "turn its B-frames off (--encoder-opt bf=0)";
            return Err(Error::new(self.name(), problem, remedy).with_kind(ErrorKind::Unsupported));
        }
        packet.set_pts(Some(time.pts));
        packet.set_dts(Some(dts));
        packet.set_duration(self.packet_duration(&time, dts));
        let (stream, time_base) = (self.stream, rational_of(time.time_base));
        let packet = Packet { packet, stream, time_base, index: time.index };
        if let Some(output) = self.untried.take() {
            self.try_packet(&output, &packet)?;
        }
        Ok(Some(packet))
    }

    /// Fails if the container does not hold the packet for a reader.
    fn try_packet(&self, output: &Output, packet: &Packet) -> Result<()> {
        let (parameters, time_base) = (parameters_of(&self.context), self.video.frame_rate.invert());
        let Some(problem) = problem_of_video(output.container, parameters, time_base, packet) else {
            return Ok(());
        };
        let remedy = "choose another container, e.g. .mkv, or another --encoder";
        Err(Error::new(self.name(), problem, remedy).with_kind(ErrorKind::Unsupported))
    }

    /// Returns the dts of the k-th packet: the pts of the frame shown `delay` frames before the k-th. It rises strictly,
    /// whatever the gaps between frames, and across cuts.
    fn next_dts(&mut self, packet: &ffmpeg::Packet) -> i64 {
        let delay = *self.delay.get_or_insert_with(|| {
            // SAFETY: the context is open.
            let declared = unsafe { (*self.context.as_ptr()).has_b_frames }.clamp(0, DELAY_MAX as i32) as u64;
            let first = packet.pts().zip(packet.dts()).map_or(0, |(pts, dts)| pts - dts);
            let step = if self.time_base == self.video.time_base { self.state.order_step } else { 1 };
            // Hardware encoders do not always declare it: it follows from their own first dts then.
            if declared > 0 {
                declared
            } else {
                ((first + step - 1) / step).clamp(0, DELAY_MAX as i64) as u64
            }
        });
        let k = self.received;
        self.received += 1;
        let CutState { order, order_begin, order_step, .. } = &self.state;
        match k.checked_sub(delay) {
            None => order[0].saturating_sub(((delay - k) as i64).saturating_mul(*order_step)),
            Some(shown) => order[(shown - order_begin) as usize],
        }
    }

    /// Returns the duration of a packet. MP4 has durations in decoding order only: the packet decoded last lasts to the
    /// end of the frame shown last.
    fn packet_duration(&self, time: &Timestamp, dts: i64) -> i64 {
        let is_last = self.is_mp4_family && self.finishing && self.received == self.state.frames;
        let reordering = (self.delay.unwrap_or(0) as i64).saturating_mul(self.state.order_step);
        if !is_last || reordering <= 0 {
            return time.duration;
        }
        // It is not shown last, and the longest pts plus duration is the length of the file.
        let to_end = self.state.end.saturating_sub(reordering).saturating_sub(dts);
        time.duration.max(to_end.min(self.state.end.saturating_sub(time.pts)))
    }

    fn check_complete(&self) -> Result<()> {
        let sent = self.state.frames;
        if self.received == sent {
            return Ok(());
        }
        let problem = format!("gave {} packets for {sent} frames", self.received);
        Err(Error::new(self.name(), problem, CHOOSE_ANOTHER).with_kind(ErrorKind::Unsupported))
    }

    /// Starts the next segment with a new encoder of the same settings.
    pub fn reopen(&mut self) -> Result<()> {
        self.context =
            open_context(&self.target, &self.video, self.sample_aspect, self.global_header, self.time_base)?;
        self.palette = self.target.palette(self.time_base)?;
        self.finishing = false;
        self.segments += 1;
        self.segment_start = self.state.frames;
        debug!("a segment starts at frame {}", self.segment_start);
        if self.extradata() == self.extradata {
            return Ok(());
        }
        let problem = "writes another header for the same settings, so segments cannot be joined";
        Err(Error::new(self.name(), problem, CHOOSE_ANOTHER).with_kind(ErrorKind::Unsupported))
    }

    /// Time base of the frames to send.
    pub fn time_base(&self) -> TimeBase {
        time_base_of(self.video.time_base)
    }

    /// Header of the encoder.
    pub(crate) fn extradata(&self) -> &[u8] {
        // SAFETY: an open context's extradata is null or has extradata_size bytes.
        unsafe {
            let raw = &*self.context.as_ptr();
            bytes_of(raw.extradata, raw.extradata_size as usize)
        }
    }

    fn failed(&self, time: &Timestamp, error: ffmpeg::Error) -> Error {
        let failed = failure(self.name(), "refused a frame", error, "choose another --encoder or --pix-fmt");
        failed.at("encode", time.index, Some(time.seconds()))
    }
}

/// SVT-AV1 1.4 waits for ever when it is closed before its input has ended: after an error it stays open.
impl Drop for Encoder {
    fn drop(&mut self) {
        if self.name() == "libsvtav1" && !self.finishing {
            let unopened = ffmpeg::encoder::Encoder(codec::Context::new());
            std::mem::forget(std::mem::replace(&mut self.context, unopened));
        }
    }
}

//! Encode: frames become packets, in segments that are cut by frame number alone.
//!
//! Encoders see a time base they accept; the times on packets are the source's own, put back from a table.

use ffmpeg_next::ffi;
use ffmpeg_next::frame::Video as AvFrame;
use ffmpeg_next::{self as ffmpeg, Rational, Rescale, codec};
use std::collections::BTreeMap;
use tracing::{debug, warn};

use crate::error::{Error, Result};
use crate::frame::{Frame, FrameFormat, TimeBase, Timestamp};
use crate::media::av_frame::AvFrameBuffer;
use crate::media::decode::decoder::Decoder;
use crate::media::demux::input::Input;
use crate::media::encode::target::{Target, open_context};
use crate::media::ffmpeg::is_again;
use crate::media::ffmpeg::{MICROSECONDS, check};
use crate::media::format::Tags;
use crate::media::output::Output;
use crate::media::packet::Packet;
use crate::media::segment::SEGMENT_FRAMES;
use crate::media::segment::{Cut, CutState, header_checksum};
use crate::media::side_data::{self, StreamSide};
use crate::media::stream::VideoInfo;

/// The most that codecs in use reorder frames by: 16 in H.264 and HEVC.
const DELAY_MAX: u64 = 16;
/// So many frames' times before the packet that is awaited are kept.
const ORDER_KEPT: u64 = DELAY_MAX + 1;

/// An opened encoder and what is between its frames and its packets.
pub struct Encoder {
    target: Target,
    video: VideoInfo,
    sample_aspect: Rational,
    global_header: bool,
    cuts: bool,
    lengths_by_coding: bool,
    time_base: Rational,
    context: ffmpeg::encoder::Encoder,
    extradata: Vec<u8>,
    /// Packets come in another order than frames by at most so many.
    delay: Option<u64>,
    /// When the first frame is shown.
    begin_us: i64,
    /// pts given to the encoder -> the frame's own time.
    times: BTreeMap<i64, Timestamp>,
    /// What went in, as far as it matters after the next cut; and how many packets came out.
    state: CutState,
    received: u64,
    /// Number of the segment that is being coded, and how many frames were before it.
    segment: u64,
    segment_begin: u64,
    finishing: bool,
    sent: u64,
    /// How many times an encoder was opened.
    segments: u64,
    stream: usize,
    side: StreamSide,
    /// Names of what frames carry and the encoder does not take, each said when it was met.
    left_out: Vec<&'static str>,
}

impl Encoder {
    /// Opens the encoder for frames of `target`, to go where the decoder's stream of the input was.
    pub fn open(mut target: Target, output: &Output, input: &Input, decoder: &Decoder) -> Result<Encoder> {
        let video = decoder.video();
        let sample_aspect = scaled_aspect(video.sample_aspect, &decoder.format(), &target.format);
        let side = StreamSide::of(&input.video_stream(), decoder.first());
        let mut left_out = Vec::new();
        match side.encoder_parameters(target.encoder_name()) {
            Some((key, parameters)) => target.add_parameters(key, parameters),
            None if side.has_light() && !side_data::holds_light(output.container()) => {
                note_left_out(&mut left_out, "mastering display and content light", &target)
            }
            None => {}
        }
        let global_header = output.wants_global_header();
        let attempt = |time_base| open_context(&target, &video, sample_aspect, global_header, time_base);
        // At a constant rate the bitstream says that rate; else it counts in the source's own time base,
        // which MPEG-2, MPEG-4 and others refuse. Whatever the encoder counts in, its packets get the
        // source's times back.
        let (own, rate) = (video.time_base, video.frame_rate.invert());
        let (first, second) = if video.is_constant { (rate, own) } else { (own, rate) };
        let (context, time_base) = match attempt(first) {
            Ok(context) => (context, first),
            Err(error) => (attempt(second).map_err(|_| error)?, second),
        };
        let mut encoder = Encoder {
            extradata: Vec::new(),
            cuts: output.is_cut(),
            lengths_by_coding: output.has_lengths_by_coding(),
            target,
            video,
            sample_aspect,
            global_header,
            time_base,
            context,
            delay: None,
            begin_us: decoder.first().time.pts.rescale(video.time_base, MICROSECONDS),
            times: BTreeMap::new(),
            state: CutState { last_coded_pts: i64::MIN, order_step: 1, end: i64::MIN, ..CutState::default() },
            received: 0,
            segment: 0,
            segment_begin: 0,
            finishing: false,
            sent: 0,
            segments: 1,
            stream: input.video_index(),
            side,
            left_out,
        };
        encoder.extradata = encoder.extradata().to_vec();
        Ok(encoder)
    }

    /// Of the frames to fill.
    pub fn format(&self) -> FrameFormat {
        self.target.format
    }

    /// About how many bytes a frame will take, which has `growth` times the pixels of one of the input.
    pub fn bytes_per_frame(&self, input: &Input, growth: f64) -> Option<f64> {
        let rate = f64::from(self.video.frame_rate);
        self.target.bytes_per_frame(rate, input.bit_rate().map(|bits| bits / 8.0 / rate), growth)
    }

    /// From the next frame on it spends so many bits a second. Whether it can do that while it is open.
    pub fn set_bit_rate(&mut self, bit_rate: u64) -> bool {
        let can = matches!(self.name(), "libx264" | "h264_nvenc" | "hevc_nvenc" | "av1_nvenc");
        if can {
            // SAFETY: the context is open and ours, and these encoders look at its plain numbers before each frame.
            let raw = unsafe { &mut *self.context.as_mut_ptr() };
            (raw.bit_rate, raw.rc_max_rate) = (bit_rate as i64, bit_rate as i64);
            raw.rc_buffer_size = bit_rate.min(i32::MAX as u64) as i32;
        }
        can
    }

    /// FFmpeg's name of the encoder.
    pub fn name(&self) -> &str {
        self.target.encoder_name()
    }

    /// How many times an encoder was opened.
    pub fn segments(&self) -> u64 {
        self.segments
    }

    /// Frames that went in.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// When the first frame is shown, in microseconds of the source's clock.
    pub(crate) fn begin_us(&self) -> i64 {
        self.begin_us
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

    /// Names of what frames carried and the encoder did not take.
    pub fn left_out(&self) -> &[&'static str] {
        &self.left_out
    }

    /// Whether a segment ends before this frame: then [`Encoder::finish`], take all packets, and
    /// [`Encoder::reopen`].
    pub fn cuts_before(&self, time: &Timestamp) -> bool {
        self.cuts && self.has_begun() && time.index / SEGMENT_FRAMES != self.segment
    }

    fn has_begun(&self) -> bool {
        self.state.frames > self.segment_begin
    }

    /// The segment that ends here; `None` if it has no frame.
    pub fn cut(&self) -> Option<Cut> {
        let (segment, frames) = (self.segment, self.state.frames - self.segment_begin);
        let header = self.header();
        self.has_begun().then(|| Cut { segment, frames, next: self.state.clone(), header })
    }

    /// Tells what it wrote as its header from others.
    pub fn header(&self) -> u32 {
        header_checksum(&self.extradata)
    }

    /// What an encoder that goes on from here must know.
    pub fn state(&self) -> CutState {
        self.state.clone()
    }

    /// Goes on after a cut as the encoder would that had coded all before it.
    pub fn go_on_from(&mut self, state: CutState) {
        assert!(self.times.is_empty(), "only at a cut");
        self.received = state.frames;
        self.segment_begin = state.frames;
        self.state = state;
    }

    /// Passes a frame over, as one that lies in another segment.
    pub fn skip(&mut self, time: &Timestamp) {
        self.note(time);
        self.received = self.state.frames;
    }

    /// Gives the encoder a frame from its pool.
    pub fn send(&mut self, frame: Frame) -> Result<()> {
        let Frame { time, props, buffer, .. } = frame;
        let buffer = buffer.into_any().downcast::<AvFrameBuffer>().expect("a frame of the encoder's pool");
        let mut av_frame = buffer.av_frame;
        if !self.has_begun() {
            self.segment = time.index / SEGMENT_FRAMES;
        }
        let pts = self.note(&time);
        let props = side_data::frame_of(&props);
        for name in props.into_iter().flat_map(|props| side_data::not_taken(props, self.target.codec())) {
            note_left_out(&mut self.left_out, name, &self.target);
        }
        dress(&mut av_frame, &self.target.format, self.sample_aspect, pts, props);
        self.times.insert(pts, time);
        self.sent += 1;
        self.context.send_frame(&av_frame).map_err(|e| self.failed(&time, e))
    }

    /// Takes a frame into account. Gives its time in what the encoder counts in: the nearest that is not taken.
    fn note(&mut self, time: &Timestamp) -> i64 {
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

    /// Says that no frame follows in this segment.
    pub fn finish(&mut self) -> Result<()> {
        self.finishing = true;
        self.context
            .send_eof()
            .map_err(|e| Error::new(self.name(), e.to_string(), "choose another --encoder"))
    }

    /// The next packet; `None` when the encoder wants another frame or is at its end.
    pub fn receive(&mut self) -> Result<Option<Packet>> {
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
            let problem = "reorders frames further than it says".to_owned();
            return Err(Error::new(self.name(), problem, "turn its B-frames off (--encoder-opt bf=0)"));
        }
        packet.set_pts(Some(time.pts));
        packet.set_dts(Some(dts));
        packet.set_duration(self.coded_duration(&time, dts));
        let (stream, time_base) = (self.stream, time.time_base.into());
        Ok(Some(Packet { packet, stream, time_base, index: time.index }))
    }

    /// The k-th packet is decoded at the time of the frame shown `delay` before the k-th: this rises
    /// strictly whatever the gaps between frames, and goes on across cuts.
    fn next_dts(&mut self, packet: &ffmpeg::Packet) -> i64 {
        let delay = *self.delay.get_or_insert_with(|| {
            // SAFETY: the context is open.
            let said = unsafe { (*self.context.as_ptr()).has_b_frames }.clamp(0, DELAY_MAX as i32) as u64;
            let first = packet.pts().zip(packet.dts()).map_or(0, |(pts, dts)| pts - dts);
            let step = if self.time_base == self.video.time_base { self.state.order_step } else { 1 };
            // Hardware encoders do not always say; their own first dts tells then.
            if said > 0 { said } else { ((first + step - 1) / step).clamp(0, DELAY_MAX as i64) as u64 }
        });
        let k = self.received;
        self.received += 1;
        let CutState { order, order_begin, order_step, .. } = &self.state;
        match k.checked_sub(delay) {
            None => order[0].saturating_sub(((delay - k) as i64).saturating_mul(*order_step)),
            Some(shown) => order[(shown - order_begin) as usize],
        }
    }

    /// MP4 knows lengths in the order of coding only: the packet coded last stands for the frame shown last.
    fn coded_duration(&self, time: &Timestamp, dts: i64) -> i64 {
        let is_last = self.lengths_by_coding && self.finishing && self.received == self.state.frames;
        let reordering = (self.delay.unwrap_or(0) as i64).saturating_mul(self.state.order_step);
        let to_end = if is_last && reordering > 0 {
            self.state.end.saturating_sub(reordering).saturating_sub(dts)
        } else {
            0
        };
        time.duration.max(to_end)
    }

    fn check_complete(&self) -> Result<()> {
        let sent = self.state.frames;
        if self.received == sent {
            return Ok(());
        }
        let problem = format!("gave {} packets for {sent} frames", self.received);
        Err(Error::new(self.name(), problem, "choose another --encoder"))
    }

    /// Begins the next segment with a new encoder, the same in everything.
    pub fn reopen(&mut self) -> Result<()> {
        self.context =
            open_context(&self.target, &self.video, self.sample_aspect, self.global_header, self.time_base)?;
        self.finishing = false;
        self.segments += 1;
        self.segment_begin = self.state.frames;
        debug!("a segment begins at frame {}", self.segment_begin);
        if self.extradata() == self.extradata {
            return Ok(());
        }
        let problem = "writes another header for the same settings, so segments cannot be joined";
        Err(Error::new(self.name(), problem, "choose another --encoder"))
    }

    /// Of the frames it takes.
    pub fn time_base(&self) -> TimeBase {
        self.video.time_base.into()
    }

    pub(crate) fn extradata(&self) -> &[u8] {
        // SAFETY: an open context's extradata is null or has extradata_size bytes.
        unsafe {
            let raw = &*self.context.as_ptr();
            match raw.extradata.is_null() {
                true => &[],
                false => std::slice::from_raw_parts(raw.extradata, raw.extradata_size as usize),
            }
        }
    }

    fn failed(&self, time: &Timestamp, error: ffmpeg::Error) -> Error {
        let problem = format!("refused a frame: {error}");
        Error::new(self.name(), problem, "choose another --encoder or --pix-fmt").at(
            "encode",
            time.index,
            Some(time.seconds()),
        )
    }
}

/// Says once what does not come along.
fn note_left_out(left_out: &mut Vec<&'static str>, name: &'static str, target: &Target) {
    if !left_out.contains(&name) {
        warn!("{name}: encoder {} does not take it; it is left out", target.encoder_name());
        left_out.push(name);
    }
}

/// Puts on a frame to be encoded what its code values mean and what travels along.
pub(crate) fn dress(
    av_frame: &mut AvFrame,
    frame_format: &FrameFormat,
    aspect: Rational,
    pts: i64,
    props: Option<&AvFrame>,
) {
    let tags = Tags::of(frame_format);
    // SAFETY: both frames are owned; copying props takes references to side data. All fields set are plain
    // values.
    unsafe {
        let raw = &mut *av_frame.as_mut_ptr();
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

/// The shape of the whole frame stays: where the two directions grow differently, samples change shape. Sides are
/// whole numbers of samples, so that less than two of them is no shape of its own.
fn scaled_aspect(aspect: Rational, lr: &FrameFormat, sr: &FrameFormat) -> Rational {
    let num = i64::from(aspect.numerator()) * lr.width as i64 * sr.height as i64;
    let den = i64::from(aspect.denominator()) * lr.height as i64 * sr.width as i64;
    let (mut reduced_num, mut reduced_den) = (0, 0);
    // SAFETY: writes the two integers only.
    unsafe { ffi::av_reduce(&mut reduced_num, &mut reduced_den, num, den, i64::from(i32::MAX)) };
    let from_square = (num as f64 / den as f64 - 1.0).abs() * sr.width as f64;
    if from_square < 2.0 { Rational(1, 1) } else { Rational(reduced_num, reduced_den) }
}

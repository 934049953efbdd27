//! Demux: a file, a pipe or an address becomes packets, of the video to decode and of the rest to copy.

mod missing;

use std::path::{Path, PathBuf};

use ffmpeg_next::ffi;
use ffmpeg_next::{self as ffmpeg, Rational, Rescale, codec, format, media};
use tracing::warn;

use crate::error::{Error, Result};
use crate::media::damage::{Damage, DamagedPlace};
use crate::media::demux::address::redacted;
use crate::media::demux::live::{Watch, open_source};
use crate::media::demux::open::{best_video, open_by, open_remedy};
use crate::media::demux::select::select;
use crate::media::demux::sequence::{Sequence, check_kind};
use crate::media::demux::timeline::Timeline;
use crate::media::ffmpeg::MICROSECONDS;
use crate::media::ffmpeg_log;
use crate::media::packet::Packet;
use crate::media::packet_queue::PacketQueue;
use crate::media::pattern::Pattern;
use crate::media::stream::{Trim, VideoInfo};

/// 8K: no live stream is larger.
const PIXELS_MAX: i64 = 7680 * 4320;

/// Audio may lie behind the frames it belongs to by about a second: so much is read past the wanted part.
const PAST_END_US: i64 = 2_000_000;

/// An opened source.
pub struct Input {
    context: format::context::Input,
    name: String,
    /// Of a source that is many files, where `context` is that of the first.
    sequence: Option<Sequence>,
    /// Streams to be written, in this order.
    wanted: Vec<usize>,
    video: usize,
    /// Broadcasts may add streams later, when the output's are settled.
    streams_at_open: usize,
    told_late: bool,
    /// Where the format's clock may jump.
    timeline: Option<Timeline>,
    frame_us: i64,
    /// Packets that were read while the first frame was looked for.
    backlog: PacketQueue,
    /// What was read so far: the proof that the file is whole.
    video_packets: u64,
    last_byte: i64,
    last_end_us: i64,
    /// When the last packet of the frames was to be decoded, and the least and the longest time between two.
    last_dts_us: Option<i64>,
    step_us: (i64, i64),
    /// Reading stops here; `Some` also says that how much was read proves nothing.
    part_end_us: Option<i64>,
    damage: Damage,
    errors_in_a_row: u32,
    /// The end was reached, and what was missing there is noted.
    ended: bool,
    /// A break of a transport stream was told.
    is_broken: bool,
}

impl Input {
    /// Opens a file, an address, `-` for y4m on standard input, or the files of a name like `scan/%06d.dpx`.
    pub fn open(source: &str) -> Result<Input> {
        Input::open_as(source, false)
    }

    /// Opens a source that is read while it comes about, or waits for one to be published there. `watch` ends what takes
    /// too long, now and later.
    pub fn open_live(source: &str, listen: bool, watch: &Watch) -> Result<Input> {
        let name = redacted(source);
        let context = open_source(source, listen, watch).map_err(|e| {
            Error::new(&name, format!("cannot be opened: {e}"), "look whether it is on the air")
        })?;
        Input::of(context, &name, true)
    }

    /// What is wrong with it is told the first time only.
    fn open_as(source: &str, is_again: bool) -> Result<Input> {
        let name = if source == "-" { "standard input" } else { source };
        let fail = |error: ffmpeg::Error| Error::new(name, error.to_string(), open_remedy(source, error));
        ffmpeg_log::of_demuxer();
        let sequence = Pattern::parse(source)?.map(|pattern| Sequence::find(source, pattern)).transpose()?;
        let first = sequence.as_ref().map(|sequence| sequence.first_path().to_string_lossy().into_owned());
        let (demuxer, url) = match (source, &first) {
            ("-", _) => (Some(c"yuv4mpegpipe"), "pipe:0"),
            (_, Some(first)) => (Some(c"image2"), first.as_str()),
            _ => (None, source),
        };
        // A name of a frame is what it says, not a pattern for many.
        let options = [("pattern_type", "none")].into_iter().collect();
        let context = open_by(demuxer, url, options, None);
        let mut input = Input::of(context.map_err(fail)?, name, is_again)?;
        if sequence.is_some() {
            check_kind(name, input.video_parameters().id())?;
        }
        input.sequence = sequence;
        Ok(input)
    }

    fn of(context: format::context::Input, name: &str, is_again: bool) -> Result<Input> {
        let wanted: Vec<usize> = context.streams().map(|stream| stream.index()).collect();
        let video = best_video(&context, &wanted)
            .ok_or_else(|| Error::new(name, "has no video stream", "name a file with frames in it"))?;
        // SAFETY: an opened context has a demuxer.
        let jumps = unsafe { (*(*context.as_ptr()).iformat).flags } & ffi::AVFMT_TS_DISCONT != 0;
        let streams_at_open = wanted.len();
        let mut input = Input {
            context,
            name: name.to_owned(),
            sequence: None,
            wanted,
            video,
            streams_at_open,
            told_late: is_again,
            timeline: jumps.then(Timeline::new),
            frame_us: 0,
            backlog: PacketQueue::default(),
            video_packets: 0,
            last_byte: 0,
            last_end_us: 0,
            last_dts_us: None,
            step_us: (i64::MAX, 0),
            part_end_us: None,
            damage: Damage::new(name, is_again),
            errors_in_a_row: 0,
            ended: false,
            is_broken: is_again,
        };
        input.frame_us = (1e6 / f64::from(input.video().frame_rate)) as i64;
        // The first packets are read to know the streams: what was torn there is not met again.
        if let Some(complaint) = ffmpeg_log::of_demuxer() {
            input.damaged(&complaint);
        }
        if ffmpeg_log::cells_are_missing() {
            input.tell_break("near its beginning or its end");
        }
        Ok(input)
    }

    /// Takes only the streams that these options name, as FFmpeg's `-map` does; all without any.
    pub fn choose(&mut self, maps: &[String]) -> Result<()> {
        let wanted = select(&self.context, maps)?;
        let video = best_video(&self.context, &wanted).ok_or_else(|| {
            Error::new(&self.name, "none of the streams of --map is video", "add --map 0:v")
        })?;
        self.want(wanted, video);
        Ok(())
    }

    fn want(&mut self, wanted: Vec<usize>, video: usize) {
        (self.wanted, self.video) = (wanted, video);
        let wanted = &self.wanted;
        for mut stream in self.context.streams_mut().filter(|stream| !wanted.contains(&stream.index())) {
            // SAFETY: the stream is alive, and nothing was read yet.
            unsafe { (*stream.as_mut_ptr()).discard = ffi::AVDiscard::AVDISCARD_ALL };
        }
    }

    /// Opens the same file once more, to read what is copied of it: of what is wanted only `trim`.
    pub fn open_again(&self, trim: Trim) -> Result<Input> {
        let mut again = Input::open_as(&self.name, true)?;
        again.want(self.wanted.clone(), self.video);
        if let Some(sequence) = &mut again.sequence {
            // Nothing but frames is in its files.
            sequence.end();
            return Ok(again);
        }
        if !trim.is_whole() {
            again.expect_part(trim.to_us);
        }
        if trim.from_us != i64::MIN {
            again.seek(trim.from_us.saturating_sub(PAST_END_US).max(again.start_us()))?;
        }
        Ok(again)
    }

    /// Streams to be written, in this order.
    pub(crate) fn wanted(&self) -> &[usize] {
        &self.wanted
    }

    /// For error messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Of the video, or of all there is where the container does not tell.
    pub fn bit_rate(&self) -> Option<f64> {
        // SAFETY: the stream and its parameters are alive, and so is the context.
        let rates = unsafe {
            [(*(*self.stream(self.video).as_ptr()).codecpar).bit_rate, (*self.context.as_ptr()).bit_rate]
        };
        rates.into_iter().find(|&rate| rate > 0).map(|rate| rate as f64)
    }

    /// What the container says of the stream to upscale.
    pub fn video(&self) -> VideoInfo {
        let stream = self.stream(self.video);
        let time_base = stream.time_base();
        let known = |rate: &Rational| rate.numerator() > 0 && rate.denominator() > 0;
        let is_constant = known(&stream.rate()) && stream.rate() == stream.avg_frame_rate();
        let frame_rate =
            [stream.avg_frame_rate(), stream.rate()].into_iter().find(known).unwrap_or(Rational(25, 1));
        // SAFETY: stream and context are alive; without a frame the container's and the codec's word is taken.
        let aspect = unsafe {
            let context = self.context.as_ptr().cast_mut();
            Rational::from(ffi::av_guess_sample_aspect_ratio(
                context,
                stream.as_ptr().cast_mut(),
                std::ptr::null_mut(),
            ))
        };
        let sample_aspect = if known(&aspect) { aspect } else { Rational(1, 1) };
        if let Some(sequence) = &self.sequence {
            return sequence.video(sample_aspect);
        }
        // Matroska's and NUT's length count from 0, however late the first frame is.
        let counts_from_0 = ["matroska,webm", "nut"].contains(&self.context.format().name());
        let before_us = if counts_from_0 { self.start_us().max(0) } else { 0 };
        let frames_expected = match stream.frames() {
            0 if self.context.duration() > before_us => {
                let duration_s = (self.context.duration() - before_us) as f64 / 1e6;
                (duration_s * f64::from(frame_rate)).round() as u64
            }
            announced => announced.max(0) as u64,
        };
        VideoInfo { time_base, frame_rate, is_constant, sample_aspect, frames_expected }
    }

    /// Index of the stream to upscale.
    pub fn video_index(&self) -> usize {
        self.video
    }

    pub(crate) fn context(&self) -> &format::context::Input {
        &self.context
    }

    /// Parameters of the stream to upscale.
    pub(crate) fn video_parameters(&self) -> codec::Parameters {
        self.stream(self.video).parameters()
    }

    /// The stream to upscale.
    pub(crate) fn video_stream(&self) -> ffmpeg::Stream<'_> {
        self.stream(self.video)
    }

    /// The container's first time, in microseconds.
    pub(crate) fn start_us(&self) -> i64 {
        // SAFETY: the context is alive.
        let start = unsafe { (*self.context.as_ptr()).start_time };
        if start == ffi::AV_NOPTS_VALUE { 0 } else { start }
    }

    /// The part between two times that count from the beginning of the file; `None` is the beginning or the end.
    pub fn trim(&self, from_s: Option<f64>, to_s: Option<f64>) -> Trim {
        let us = |seconds: f64| self.start_us().saturating_add((seconds * 1e6).round() as i64);
        Trim { from_us: from_s.map_or(i64::MIN, us), to_us: to_s.map_or(i64::MAX, us) }
    }

    /// Goes to the last keyframe at or before `us`, or as near to it as the container can.
    pub(crate) fn seek(&mut self, us: i64) -> Result<()> {
        self.backlog = PacketQueue::default();
        if let Some(timeline) = &mut self.timeline {
            timeline.forget();
        }
        // In a transport stream the search for a time ends after the first packet: the beginning is a place in bytes.
        if self.timeline.is_some() && us <= self.start_us() {
            // SAFETY: the context is alive, and no stream is named.
            let code = unsafe { ffi::av_seek_frame(self.context.as_mut_ptr(), -1, 0, ffi::AVSEEK_FLAG_BYTE) };
            if code >= 0 {
                return Ok(());
            }
        }
        self.context
            .seek(us, ..us)
            .or_else(|_| self.context.seek(us, ..))
            .map_err(|e| Error::new(&self.name, format!("cannot seek: {e}"), "leave --from out"))
    }

    /// The numbers of its files that are to be read, rising; `None` where it is no sequence.
    pub fn numbers(&self) -> Option<&[u64]> {
        self.sequence.as_ref().map(Sequence::wanted)
    }

    /// The names of its files, and the number of the one at time 0.
    pub(crate) fn files(&self) -> Option<(Pattern, u64)> {
        self.sequence.as_ref().map(|sequence| (sequence.pattern.clone(), sequence.first()))
    }

    /// The files that it is.
    pub fn paths(&self) -> Vec<PathBuf> {
        match &self.sequence {
            None => vec![PathBuf::from(&self.name)],
            Some(sequence) => sequence.paths().collect(),
        }
    }

    /// Says how many frames of a sequence are shown a second.
    pub fn set_frame_rate(&mut self, (num, den): (i32, i32)) -> Result<()> {
        let Some(sequence) = &mut self.sequence else {
            let problem = format!("{} has times of its own", self.name);
            return Err(Error::new(
                "--frame-rate",
                problem,
                "leave it out: it is for sequences, like %06d.dpx",
            ));
        };
        sequence.frame_rate = Rational(num, den);
        Ok(())
    }

    /// Reads a sequence from its beginning, of it what lies in this part and is not `ready`.
    pub(crate) fn begin_sequence(&mut self, trim: Trim, ready: &dyn Fn(u64) -> bool) {
        if let Some(sequence) = &mut self.sequence {
            self.damage.clear();
            sequence.begin(trim, ready, &self.damage);
        }
    }

    /// Whether its frames are EXR's, of which nothing says what their numbers mean.
    pub fn is_exr(&self) -> bool {
        self.video_parameters().id() == codec::Id::EXR
    }

    /// Says that only a part of the file is wanted, up to `end_us`.
    pub(crate) fn expect_part(&mut self, end_us: i64) {
        self.part_end_us = Some(end_us.saturating_add(PAST_END_US));
    }

    /// Whether its clock is never mended, so that a time leads to a frame: whether it is no broadcast.
    pub fn has_steady_clock(&self) -> bool {
        self.timeline.is_none()
    }

    /// How often its clock jumped and was mended.
    pub fn clock_jumps(&self) -> u64 {
        self.timeline.as_ref().map_or(0, Timeline::jumps)
    }

    /// Whether packets of this stream are to be decoded.
    pub fn is_video(&self, packet: &Packet) -> bool {
        packet.stream == self.video
    }

    /// Keeps a packet that was read too early, to be given by [`Input::next_packet`] first.
    pub(crate) fn put_back(&mut self, packet: Packet) -> Result<()> {
        self.backlog.push(packet)
    }

    /// What was found damaged, here and in the decoder.
    pub fn damage(&self) -> Damage {
        self.damage.clone()
    }

    /// The next packet of the video; those of other streams that come before it are kept.
    pub(crate) fn next_video(&mut self) -> Result<Option<Packet>> {
        if let Some(packet) = self.backlog.pop_of(self.video)? {
            return Ok(Some(packet));
        }
        while let Some(packet) = self.read()? {
            if self.is_video(&packet) {
                return Ok(Some(packet));
            }
            self.backlog.push(packet)?;
        }
        Ok(None)
    }

    /// The next packet of any stream; `None` at the end of a file that is whole.
    pub fn next_packet(&mut self) -> Result<Option<Packet>> {
        match self.backlog.pop_before(None)? {
            Some(packet) => Ok(Some(packet)),
            None => self.read(),
        }
    }

    /// The next packet from the container itself. What cannot be read is noted and passed over.
    pub(crate) fn read(&mut self) -> Result<Option<Packet>> {
        /// Some demuxers go on after an error, others repeat it for ever.
        const ERRORS_IN_A_ROW_MAX: u32 = 16;
        if let Some(sequence) = &mut self.sequence {
            let time_base = sequence.frame_rate.invert();
            let packet = sequence.next_packet(&self.damage);
            return Ok(packet.map(|packet| Packet { packet, stream: self.video, time_base, index: 0 }));
        }
        loop {
            let mut packet = ffmpeg::Packet::empty();
            ffmpeg_log::of_demuxer();
            let read = packet.read(&mut self.context);
            let complaint = ffmpeg_log::of_demuxer();
            match read {
                Ok(()) => {
                    if let Some(complaint) = complaint {
                        self.damaged(&complaint);
                    }
                    self.errors_in_a_row = 0;
                    let is_cells = self.context.format().name() == "mpegts";
                    if ffmpeg_log::cells_are_missing() || (is_cells && packet.is_corrupt()) {
                        self.tell_break(&self.at_last_end());
                    } else if packet.is_corrupt() {
                        self.damaged("a packet is cut short");
                        // Of a frame the decoder may show a part; other packets are good for nothing then.
                        if packet.stream() != self.video {
                            continue;
                        }
                    }
                    let (stream, time_base) = (packet.stream(), self.stream(packet.stream()).time_base());
                    if let Some(timeline) = &mut self.timeline {
                        let medium = self.context.stream(stream).expect("a stream").parameters().medium();
                        timeline.mend(&mut packet, time_base, medium, self.frame_us);
                    }
                    if stream >= self.streams_at_open && !self.told_late {
                        self.told_late = true;
                        let at = self.last_end_us as f64 / 1e6;
                        warn!("{}: stream {stream} appears at {at:.3} s only, and is left out", self.name);
                    }
                    self.video_packets += u64::from(stream == self.video);
                    self.last_byte = packet.position() as i64 + packet.size() as i64;
                    let us = |ticks: i64| ticks.rescale(time_base, MICROSECONDS);
                    if let Some(time) = packet.pts().or(packet.dts()) {
                        self.last_end_us = self.last_end_us.max(us(time.saturating_add(packet.duration())));
                    }
                    if let Some(dts) = packet.dts().filter(|_| stream == self.video) {
                        self.note_step(us(dts));
                    }
                    let past_end =
                        |end_us| stream == self.video && packet.dts().is_some_and(|dts| us(dts) >= end_us);
                    let wanted = !self.part_end_us.is_some_and(past_end);
                    return Ok(wanted.then_some(Packet { packet, stream, time_base, index: 0 }));
                }
                Err(ffmpeg::Error::Eof) => {
                    if ffmpeg_log::cells_are_missing() {
                        self.tell_break(&self.at_last_end());
                    }
                    if !std::mem::replace(&mut self.ended, true)
                        && let Some(problem) = self.what_is_missing().or(complaint)
                    {
                        self.damaged(&problem);
                    }
                    return Ok(None);
                }
                Err(error) => {
                    self.errors_in_a_row += 1;
                    if self.errors_in_a_row == 1 {
                        self.damaged(&format!("cannot be read further: {error}"));
                    }
                    if self.errors_in_a_row > ERRORS_IN_A_ROW_MAX {
                        return Ok(None);
                    }
                }
            }
        }
    }

    /// A transport stream numbers its cells, so that missing ones are known. They are missing as well where two recordings
    /// are joined: what is missing in a frame is the decoder's to judge.
    fn tell_break(&mut self, place: &str) {
        if !std::mem::replace(&mut self.is_broken, true) {
            let name = &self.name;
            warn!(
                "{name}: the transport stream breaks off {place}: cells are missing, or recordings are joined"
            );
        }
    }

    fn at_last_end(&self) -> String {
        format!("at {:.3} s", self.last_end_us as f64 / 1e6)
    }

    fn damaged(&self, problem: &str) {
        let seconds = Some(self.last_end_us as f64 / 1e6);
        self.damage.note(DamagedPlace { problem: problem.to_owned(), frame: None, pts: None, seconds });
    }

    /// Whether packets are there before their time: files, and lists of files.
    pub fn comes_in_pieces(&self) -> bool {
        let kind = self.context().format();
        matches!(kind.name(), "hls" | "dash" | "lavfi") || Path::new(self.name()).is_file()
    }

    /// Whether its frames are so large that the header that says so is taken for damaged.
    pub fn is_too_large(&self) -> bool {
        let parameters = self.video_parameters();
        // SAFETY: the parameters are alive.
        let (width, height) = unsafe { ((*parameters.as_ptr()).width, (*parameters.as_ptr()).height) };
        i64::from(width) * i64::from(height) > PIXELS_MAX
    }

    /// The stream of audio that goes along.
    pub(crate) fn audio_stream(&self) -> Option<ffmpeg::Stream<'_>> {
        self.context().streams().best(media::Type::Audio)
    }

    fn stream(&self, index: usize) -> ffmpeg::Stream<'_> {
        self.context.stream(index).expect("the container's own stream numbers")
    }
}

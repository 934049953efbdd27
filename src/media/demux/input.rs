//! Demux: a file, pipe or address becomes packets, those of the video to decode and those of other streams to copy.

mod missing;
mod read;

use std::ffi::{CStr, OsStr, OsString};
use std::path::{Path, PathBuf};

use ffmpeg_next::ffi;
use ffmpeg_next::{self as ffmpeg, Rational, codec, format, media};

use crate::error::{Error, ErrorKind, Result};
use crate::media::damage::Damage;
use crate::media::demux::access::{self, Access, Playlists};
use crate::media::demux::live::{is_capture_device, open_source};
use crate::media::demux::open::{best_video, demuxer_name, open_by, open_pipe, open_remedy};
use crate::media::demux::quirks;
use crate::media::demux::resolve::resolve;
use crate::media::demux::select::select;
use crate::media::demux::sequence::{Sequence, check_codec};
use crate::media::demux::tally::StreamTallies;
use crate::media::demux::timeline::Timeline;
use crate::media::ffmpeg::{c_string, error_kind, failure};
use crate::media::ffmpeg_log;
use crate::media::packet::Packet;
use crate::media::packet_queue::PacketQueue;
use crate::media::path::{Place, url_of};
use crate::media::pattern::Pattern;
use crate::media::pipe::{PipeReader, is_named_pipe};
use crate::media::redact::redacted;
use crate::media::stream::{Trim, VideoInfo, start_us};
use crate::media::watch::Watch;

/// 8K: no live stream is larger.
const PIXELS_MAX: i64 = 7680 * 4320;

/// Time by which audio may be muxed after the video it belongs to: usually at most a second.
pub(crate) const AV_LAG_US_MAX: i64 = 2_000_000;

/// Time for which a text is shown at most: one that began so long before a part is not looked for.
const TEXT_US_MAX: i64 = 30_000_000;

/// An opened source.
pub struct Input {
    context: format::context::Input,
    /// What it was opened by.
    source: OsString,
    /// The source as it may be logged.
    name: String,
    playlists: Playlists,
    watch: Watch,
    /// The files of an image sequence; `context` is that of the first.
    sequence: Option<Sequence>,
    /// Streams to write, in this order.
    wanted: Vec<usize>,
    video: usize,
    /// Broadcasts may add streams later, when those of the output are fixed.
    streams_at_open: usize,
    is_late_stream_logged: bool,
    /// Whether what it lists may be unavailable for a while.
    is_live: bool,
    timeline: Timeline,
    frame_us: i64,
    /// Packets that were read while the first frame was searched for.
    backlog: PacketQueue,
    progress: ReadProgress,
    /// What was given of the streams besides the video.
    tallies: StreamTallies,
    /// The part in which they are counted.
    tallied: Trim,
    /// Time at which reading stops; `None` at the end of the file. Packets after it are not missed.
    part_end_us: Option<i64>,
    damage: Damage,
    errors_in_a_row: u32,
    /// Whether the end was reached and checked for missing packets.
    ended: bool,
    is_discontinuity_logged: bool,
}

/// What was read so far, to be compared with what the container announces.
struct ReadProgress {
    video_packets: u64,
    end_byte: i64,
    end_us: i64,
    /// dts of the last video packet.
    last_dts_us: Option<i64>,
    /// Smallest and largest distance of two successive dts of the video.
    step_us: (i64, i64),
}

impl ReadProgress {
    const START: ReadProgress =
        ReadProgress { video_packets: 0, end_byte: 0, end_us: 0, last_dts_us: None, step_us: (i64::MAX, 0) };

    fn note_dts(&mut self, dts_us: i64) {
        let step_us = self.last_dts_us.map(|last_us| dts_us - last_us).filter(|&step_us| step_us > 0);
        if let Some(step_us) = step_us {
            self.step_us = (self.step_us.0.min(step_us), self.step_us.1.max(step_us));
        }
        self.last_dts_us = Some(dts_us);
    }
}

/// The source as messages name it, without secrets.
fn name_of(source: &OsStr) -> String {
    if source == "-" { "standard input".into() } else { redacted(source) }
}

impl Input {
    /// Opens a file, an address, `-` for y4m on standard input, or an image sequence like `scan/%06d.dpx`.
    /// `watch` ends what it waits for, now and later.
    pub fn open(source: impl AsRef<OsStr>, playlists: Playlists, watch: &Watch) -> Result<Input> {
        Input::open_as(source.as_ref(), playlists, watch, false)
    }

    /// Opens a live source, or with `listen` waits for a publisher. `watch` ends what takes too long, now and later.
    pub fn open_live(source: &str, listen: bool, playlists: Playlists, watch: &Watch) -> Result<Input> {
        let name = redacted(source);
        resolve(source, watch)?;
        let context = open_source(source, listen, playlists, watch).map_err(|e| {
            if watch.is_over() {
                return watch.error(&name);
            }
            if let Some(refusal) = access::refusal(&name) {
                return refusal;
            }
            let kind = match watch.error_kind(e) {
                ErrorKind::Interrupted => ErrorKind::Interrupted,
                _ if is_capture_device(source) => ErrorKind::Device,
                kind => kind,
            };
            failure(&name, "cannot be opened", e, "check that the source is publishing").with_kind(kind)
        })?;
        let mut input = Input::of(context, source.as_ref(), playlists, watch, true)?;
        input.is_live = true;
        Ok(input)
    }

    /// Problems are logged the first time only.
    fn open_as(source: &OsStr, playlists: Playlists, watch: &Watch, is_reopened: bool) -> Result<Input> {
        ffmpeg_log::take_demuxer_error();
        let find = |pattern| Sequence::find(&name_of(source), pattern);
        let sequence = Pattern::parse(source)?.map(find).transpose()?;
        let place = Place::of(source);
        // The name of an image is literal, no pattern.
        let options = [("pattern_type", "none")].into_iter().collect();
        let open = |demuxer, url: &CStr, options, playlists| {
            let access = Access::of(&url.to_string_lossy(), playlists);
            open_by(demuxer, url, options, Some(access), watch)
        };
        let context = match (&sequence, place) {
            (Some(sequence), _) => {
                open(Some(c"image2"), &url_of(&sequence.first_path()), options, Playlists::ByName)
            }
            (None, Place::Standard) => {
                let pipe = PipeReader::of_stdin(watch);
                pipe.and_then(|pipe| open_pipe(Some(c"yuv4mpegpipe"), pipe, options, watch))
            }
            (None, Place::File(path)) if is_named_pipe(path) => {
                let pipe = PipeReader::of_one_writer(path, watch);
                pipe.and_then(|pipe| open_pipe(None, pipe, options, watch))
            }
            // FFmpeg's demuxer of images looks for the file later.
            (None, Place::File(path)) if matches!(path.try_exists(), Ok(false)) => {
                Err(ffmpeg::Error::Other { errno: ffmpeg::error::ENOENT })
            }
            (None, Place::File(path)) => open(None, &url_of(path), options, playlists),
            (None, Place::Url(url)) => open(None, &c_string(url), options, playlists),
        };
        let context = context.map_err(|e| {
            if watch.is_over() {
                return watch.error(&name_of(source));
            }
            if let Some(refusal) = access::refusal(&name_of(source)) {
                return refusal;
            }
            let error = Error::new(name_of(source), e.to_string(), open_remedy(place, e));
            error.with_kind(error_kind(e)).with_source(e)
        })?;
        let mut input = Input::of(context, source, playlists, watch, is_reopened)?;
        input.check_device()?;
        if sequence.is_some() {
            check_codec(&input.name, input.video_parameters().id())?;
        }
        input.sequence = sequence;
        Ok(input)
    }

    fn of(
        context: format::context::Input,
        source: &OsStr,
        playlists: Playlists,
        watch: &Watch,
        is_reopened: bool,
    ) -> Result<Input> {
        let name = name_of(source);
        let wanted: Vec<usize> = context.streams().map(|stream| stream.index()).collect();
        let video = best_video(&context, &wanted).ok_or_else(|| {
            Error::new(&name, "has no video stream", "choose a file that has one")
                .with_kind(ErrorKind::NotFound)
        })?;
        // SAFETY: an opened context has a demuxer.
        let may_jump = unsafe { (*(*context.as_ptr()).iformat).flags } & ffi::AVFMT_TS_DISCONT != 0;
        let streams_at_open = wanted.len();
        let mut input = Input {
            context,
            source: source.to_owned(),
            playlists,
            watch: watch.clone(),
            sequence: None,
            wanted,
            video,
            streams_at_open,
            is_late_stream_logged: is_reopened,
            is_live: false,
            timeline: Timeline::new(may_jump, is_reopened),
            frame_us: 0,
            backlog: PacketQueue::default(),
            progress: ReadProgress::START,
            tallies: StreamTallies::default(),
            tallied: Trim::EVERYTHING,
            part_end_us: None,
            damage: Damage::new(&name, is_reopened),
            name,
            errors_in_a_row: 0,
            ended: false,
            is_discontinuity_logged: is_reopened,
        };
        input.frame_us = (1e6 / input.video().fps()) as i64;
        // FFmpeg reads the first packets to probe the streams, and logs what is corrupt there only then.
        if let Some(error) = ffmpeg_log::take_demuxer_error() {
            input.note_damage(&error);
        }
        if ffmpeg_log::take_discontinuity() {
            input.warn_discontinuity("near its beginning or its end");
        }
        Ok(input)
    }

    /// Takes only the streams that these `--map` options select; all if there are none.
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

    /// Opens the same file again, to read the streams that are copied within `trim`.
    pub fn reopen(&self, trim: Trim) -> Result<Input> {
        let mut input = Input::open_as(&self.source, self.playlists, &self.watch, true)?;
        input.want(self.wanted.clone(), self.video);
        if let Some(sequence) = &mut input.sequence {
            // Its files hold nothing but frames.
            sequence.end();
            return Ok(input);
        }
        if !trim.is_everything() {
            input.expect_part(trim);
        }
        // Where the clock has jumped, no timestamp leads to a place.
        if trim.from_us != i64::MIN && self.timeline.jumps() == 0 {
            let is_subtitle =
                |&index: &usize| self.stream(index).parameters().medium() == media::Type::Subtitle;
            let before_us = if self.wanted.iter().any(is_subtitle) { TEXT_US_MAX } else { AV_LAG_US_MAX };
            input.seek(trim.from_us.saturating_sub(before_us).max(input.start_us()))?;
        }
        Ok(input)
    }

    /// Streams to write, in this order.
    pub(crate) fn wanted(&self) -> &[usize] {
        &self.wanted
    }

    /// The source as error messages name it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The source as the user named it, with its secrets.
    pub(crate) fn source(&self) -> &OsStr {
        &self.source
    }

    /// Path of the source; empty for anything but a file.
    fn path(&self) -> &Path {
        Place::of(&self.source).path().unwrap_or(Path::new(""))
    }

    /// Bit rate of the video, or of the container if that does not state it.
    pub fn bit_rate(&self) -> Option<f64> {
        // SAFETY: the stream and its parameters are alive, and so is the context.
        let rates = unsafe {
            [(*(*self.stream(self.video).as_ptr()).codecpar).bit_rate, (*self.context.as_ptr()).bit_rate]
        };
        rates.into_iter().find(|&rate| rate > 0).map(|rate| rate as f64)
    }

    /// Width over height of a sample of the video, by the container itself and by the start of the bitstream, if they state
    /// it.
    pub fn stated_aspects(&self) -> [Option<Rational>; 2] {
        // SAFETY: the stream and its parameters are alive.
        let aspects = unsafe {
            let stream = &*self.stream(self.video).as_ptr();
            [stream.sample_aspect_ratio, (*stream.codecpar).sample_aspect_ratio]
        };
        aspects.map(|aspect| Some(Rational::from(aspect)).filter(|aspect| aspect.0 > 0 && aspect.1 > 0))
    }

    /// The stream to upscale, as the container describes it.
    pub fn video(&self) -> VideoInfo {
        let stream = self.stream(self.video);
        let time_base = stream.time_base();
        let known = |rate: &Rational| rate.numerator() > 0 && rate.denominator() > 0;
        let is_constant = known(&stream.rate()) && stream.rate() == stream.avg_frame_rate();
        let frame_rate =
            [stream.avg_frame_rate(), stream.rate()].into_iter().find(known).unwrap_or(Rational(25, 1));
        // SAFETY: stream and context are alive; without a frame FFmpeg asks the container and the codec.
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
        let before_us =
            if quirks::duration_counts_from_0(self.demuxer()) { self.start_us().max(0) } else { 0 };
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

    /// FFmpeg's name of the demuxer.
    fn demuxer(&self) -> &'static str {
        demuxer_name(&self.context)
    }

    /// Parameters of the stream to upscale.
    pub(crate) fn video_parameters(&self) -> codec::Parameters {
        self.stream(self.video).parameters()
    }

    /// The stream to upscale.
    pub(crate) fn video_stream(&self) -> ffmpeg::Stream<'_> {
        self.stream(self.video)
    }

    /// The stream of audio that a live output takes.
    pub(crate) fn audio_stream(&self) -> Option<ffmpeg::Stream<'_>> {
        self.context.streams().best(media::Type::Audio)
    }

    /// The container's first timestamp, in microseconds.
    pub(crate) fn start_us(&self) -> i64 {
        // SAFETY: the context is alive.
        let start = unsafe { (*self.context.as_ptr()).start_time };
        if start == ffi::AV_NOPTS_VALUE { 0 } else { start }
    }

    /// Start of the video; that of the file where the container does not tell.
    pub(crate) fn video_start_us(&self) -> i64 {
        let video = self.context.stream(self.video).expect("a stream of the input");
        start_us(&video).unwrap_or(self.start_us())
    }

    /// The part between two times that count from the beginning of the file; `None` is the beginning or the end.
    pub fn trim(&self, from_s: Option<f64>, to_s: Option<f64>) -> Trim {
        let us = |seconds: f64| self.start_us().saturating_add((seconds * 1e6).round() as i64);
        Trim { from_us: from_s.map_or(i64::MIN, us), to_us: to_s.map_or(i64::MAX, us) }
    }

    /// Numbers of the files to read, ascending; `None` if the source is not an image sequence.
    pub fn numbers(&self) -> Option<&[u64]> {
        self.sequence.as_ref().map(Sequence::wanted)
    }

    /// The names of an image sequence, and the number of the file at time 0.
    pub(crate) fn files(&self) -> Option<(Pattern, u64)> {
        self.sequence.as_ref().map(|sequence| (sequence.pattern.clone(), sequence.first()))
    }

    /// All files of the source.
    pub fn paths(&self) -> Vec<PathBuf> {
        match &self.sequence {
            None => vec![self.path().to_owned()],
            Some(sequence) => sequence.paths().collect(),
        }
    }

    /// Sets the fps of an image sequence, a fraction.
    pub fn set_frame_rate(&mut self, (num, den): (i32, i32)) -> Result<()> {
        let Some(sequence) = &mut self.sequence else {
            let problem = format!("{} has its own timestamps", self.name);
            let remedy = "leave it out: it is for image sequences, like %06d.dpx";
            return Err(Error::new("--frame-rate", problem, remedy));
        };
        sequence.frame_rate = Rational(num, den);
        Ok(())
    }

    /// Reads an image sequence from its beginning: what lies within `trim` and is not `ready`.
    pub(crate) fn restart_sequence(&mut self, trim: Trim, ready: &dyn Fn(u64) -> bool) {
        if let Some(sequence) = &mut self.sequence {
            self.damage.clear();
            sequence.restart(trim, ready, &self.damage);
        }
    }

    /// Whether its frames are EXR, which does not state how samples are coded.
    pub fn is_exr(&self) -> bool {
        self.video_parameters().id() == codec::Id::EXR
    }

    /// Whether packets arrive before their time and have to be paced.
    pub fn needs_pacing(&self) -> bool {
        quirks::arrives_early(self.demuxer()) || self.path().is_file()
    }

    /// Whether its frames are larger than 8K: the header is taken for damaged.
    pub fn is_too_large(&self) -> bool {
        let parameters = self.video_parameters();
        // SAFETY: the parameters are alive.
        let (width, height) = unsafe { ((*parameters.as_ptr()).width, (*parameters.as_ptr()).height) };
        i64::from(width) * i64::from(height) > PIXELS_MAX
    }

    /// Limits reading to the part up to the end of `trim`.
    pub(crate) fn expect_part(&mut self, trim: Trim) {
        self.part_end_us = Some(trim.to_us.saturating_add(AV_LAG_US_MAX));
        // Where reading begins depends on how the start was sought: packets near it are not compared.
        let from_us = trim.from_us.saturating_add(if trim.from_us == i64::MIN { 0 } else { AV_LAG_US_MAX });
        self.tallied = Trim { from_us, to_us: trim.to_us };
    }

    /// What was given so far of the streams besides the video. Of a part of an input whose clock jumps there are none: where
    /// the part begins depends on how it was sought.
    pub fn tallies(&self) -> StreamTallies {
        let is_known = self.clock_jumps() == 0 || self.tallied.is_everything();
        if is_known { self.tallies.clone() } else { StreamTallies::default() }
    }

    /// Whether no timestamp was corrected, nor is to be expected to, as in a broadcast: one identifies a frame.
    pub fn has_steady_clock(&self) -> bool {
        !self.timeline.may_jump() && self.timeline.jumps() == 0
    }

    /// How often its clock jumped and was corrected.
    pub fn clock_jumps(&self) -> u64 {
        self.timeline.jumps()
    }

    /// The watch that ends what it waits for.
    pub fn watch(&self) -> &Watch {
        &self.watch
    }

    /// Whether a packet belongs to the video.
    pub fn is_video(&self, packet: &Packet) -> bool {
        packet.stream == self.video
    }

    /// The damage that demux and decode found.
    pub fn damage(&self) -> Damage {
        self.damage.clone()
    }

    fn stream(&self, index: usize) -> ffmpeg::Stream<'_> {
        self.context.stream(index).expect("the container's own stream numbers")
    }
}

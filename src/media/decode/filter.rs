//! Filters of decoded frames before the network: deinterlacing, and the chain of `--filter`.
//!
//! In: frames with pts and duration. Out: frames with theirs. A graph is opened for one size and format; when these change
//! it is drained and opened again. Frames are counted on both sides, as a filter may duplicate and drop them.

use std::collections::VecDeque;
use std::mem;

use ffmpeg_next::ffi;
use ffmpeg_next::filter::{self, Graph};
use ffmpeg_next::frame::Video as AvFrame;
use ffmpeg_next::{self as ffmpeg, Rational, Rescale};
use tracing::info;

use crate::error::{Error, Result};
use crate::frame::Origin;
use crate::media::av_frame::set_fields;
use crate::media::decode::interlace::{ScanDetector, ScanSpec};
use crate::media::decode::timed_frame::TimedFrame;
use crate::media::ffmpeg::{failure, is_again};
use crate::media::format::code_of;

/// Which frames are deinterlaced.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Deinterlace {
    /// Frames that are found to be interlaced.
    #[default]
    Auto,
    /// All frames.
    Bwdif,
    /// No frame.
    Off,
}

/// Filters before the network.
#[derive(Clone, Debug, Default)]
pub struct FilterSpec {
    /// Deinterlacing by bwdif, one frame for each frame.
    pub deinterlace: Deinterlace,
    /// A chain of filters in FFmpeg's syntax.
    pub graph: Option<String>,
    /// Whether frames are repeated and dropped so that they are equally far apart, for outputs that only count them.
    pub is_even: bool,
    /// Whether colours that are premultiplied by alpha, as EXR's, are divided by it.
    pub divides_alpha: bool,
}

/// Filters that process fields themselves, and need frames that were not deinterlaced.
const FIELD_FILTERS: [&str; 17] = [
    "bwdif",
    "yadif",
    "w3fdif",
    "nnedi",
    "estdif",
    "kerndeint",
    "mcdeint",
    "fieldmatch",
    "pullup",
    "detelecine",
    "dejudder",
    "separatefields",
    "weave",
    "doubleweave",
    "il",
    "idet",
    "phase",
];

impl FilterSpec {
    /// Whether interlaced frames are to be detected and deinterlaced.
    pub(crate) fn is_auto(&self) -> bool {
        self.deinterlace == Deinterlace::Auto && !self.words().any(|word| FIELD_FILTERS.contains(&word))
    }

    /// The words of the graph, the names of filters among them.
    fn words(&self) -> impl Iterator<Item = &str> {
        self.graph.iter().flat_map(|graph| graph.split([',', ';', ']', '=', '@', ' ']))
    }
}

/// The filters of one source, or none.
pub(crate) struct Filters {
    spec: FilterSpec,
    scan: ScanSpec,
    /// Flags frames as what they are, in auto mode.
    detector: Option<ScanDetector>,
    source: String,
    input: Clock,
    /// Clock of the output, fixed by the first frame.
    output: Option<Clock>,
    opened: Option<OpenGraph>,
    deinterlacing: bool,
    deinterlaced: u64,
    /// What the frames were decoded from that the graph took since it returned the last one.
    origin: Origin,
    /// Output of a graph that waits for the next frame, which determines its duration.
    waiting: Option<TimedFrame>,
    /// End of the last frame that was sent to the graph, in ticks of the input.
    end: i64,
    ready: VecDeque<TimedFrame>,
    frames_in: u64,
    frames_out: u64,
}

/// Time base and frame rate.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Clock {
    pub time_base: Rational,
    pub frame_rate: Rational,
}

struct OpenGraph {
    graph: Graph,
    input: GraphInput,
    clock: Clock,
}

/// What a graph is opened for.
#[derive(Clone, Copy, PartialEq)]
struct GraphInput {
    size: (i32, i32),
    format: i32,
    aspect: (i32, i32),
    /// Matrix and range.
    color: (u32, u32),
    deinterlacing: bool,
    upright: Option<&'static str>,
}

impl Filters {
    pub fn new(spec: FilterSpec, scan: ScanSpec, source: &str, input: Clock) -> Filters {
        let detector = || ScanDetector::new(source, input.time_base, scan);
        Filters {
            detector: spec.is_auto().then(detector),
            deinterlacing: spec.deinterlace == Deinterlace::Bwdif,
            spec,
            scan,
            source: source.to_owned(),
            input,
            output: None,
            opened: None,
            deinterlaced: 0,
            origin: Origin::default(),
            waiting: None,
            end: i64::MIN,
            ready: VecDeque::new(),
            frames_in: 0,
            frames_out: 0,
        }
    }

    /// Restores the state before the first frame.
    pub fn reset(&mut self) {
        *self = Filters::new(self.spec.clone(), self.scan, &self.source, self.input);
    }

    /// Clock of the output; before the first frame that of the input.
    pub fn clock(&self) -> Clock {
        self.output.unwrap_or(self.input)
    }

    /// Whether the graph of the user has this filter.
    pub fn has(&self, name: &str) -> bool {
        self.spec.words().any(|word| word == name)
    }

    /// Number of frames by which the output exceeds the input, and the reverse.
    pub fn duplicated_and_dropped(&self) -> (u64, u64) {
        (self.frames_out.saturating_sub(self.frames_in), self.frames_in.saturating_sub(self.frames_out))
    }

    /// Number of frames that were deinterlaced, and how often that began or ended.
    pub fn deinterlaced(&self) -> (u64, u64) {
        (self.deinterlaced, self.detector.as_ref().map_or(0, ScanDetector::changes))
    }

    /// Whether any frame, decoded as the first one, would come out the same.
    pub fn is_memoryless(&self) -> bool {
        !self.changes_time() && self.detector.as_ref().is_none_or(|detector| !detector.may_differ())
    }

    /// Number of frames that wait for those after them.
    pub fn ahead(&self) -> usize {
        self.detector.as_ref().map_or(0, |_| self.scan.ahead())
    }

    /// Takes a frame. Call [`Filters::next`] until it returns `None`.
    pub fn push(&mut self, timed: TimedFrame) -> Result<()> {
        let Some(detector) = &mut self.detector else { return self.filter(timed) };
        detector.push(timed);
        while let Some(timed) = self.detector.as_mut().and_then(ScanDetector::next) {
            self.filter(timed)?;
        }
        Ok(())
    }

    /// Takes the frames that wait for those after them, and drains the graph: the stream is at its end.
    pub fn finish(&mut self) -> Result<()> {
        while let Some(timed) = self.detector.as_mut().and_then(ScanDetector::finish) {
            self.filter(timed)?;
        }
        self.close()
    }

    fn filter(&mut self, timed: TimedFrame) -> Result<()> {
        self.frames_in += 1;
        self.count_interlaced(&timed.av_frame);
        if !self.changes_time() && timed.upright.is_none() {
            self.close()?;
            self.ready.push_back(timed);
            return Ok(());
        }
        let input = GraphInput::of(&timed, self.deinterlacing);
        if self.opened.as_ref().is_none_or(|opened| opened.input != input) {
            self.close()?;
            let opened = self.open(input, timed.pts)?;
            self.output.get_or_insert(opened.clock);
            self.opened = Some(opened);
        }
        let TimedFrame { mut av_frame, pts, duration, origin, .. } = timed;
        self.origin.add_origin(origin);
        if self.deinterlacing {
            // bwdif leaves an interlaced frame beside a repeated field as it is.
            // SAFETY: the frame is owned; a plain value is set.
            unsafe { (*av_frame.as_mut_ptr()).repeat_pict = 0 };
            if self.detector.is_none()
                && !av_frame.is_interlaced()
                && let Some(top_first) = self.scan.container_top_first
            {
                // bwdif takes the top field of frames without flags for the first one.
                set_fields(&mut av_frame, true, top_first);
            }
        }
        self.end = pts.saturating_add(duration);
        av_frame.set_pts(Some(pts));
        let graph = &mut self.opened.as_mut().expect("just opened").graph;
        let sent = graph.get("in").expect("a graph has its source").source().add(&av_frame);
        sent.map_err(|e| self.failed("refused a frame", e))?;
        self.drain()?;
        // A graph that only turns frames returns each at once.
        if !self.changes_time()
            && let Some(turned) = self.waiting.take()
        {
            let origin = mem::take(&mut self.origin);
            self.ready.push_back(TimedFrame { duration, origin, ..turned });
        }
        Ok(())
    }

    /// Whether a filter may move, duplicate, drop or mix frames.
    pub fn changes_time(&self) -> bool {
        self.spec.graph.is_some() || self.spec.is_even || self.deinterlacing
    }

    /// The next frame, once its duration is known.
    pub fn next(&mut self) -> Option<TimedFrame> {
        let next = self.ready.pop_front();
        self.frames_out += u64::from(next.is_some());
        next
    }

    /// Counts frames that are deinterlaced, and turns deinterlacing on at the first one in auto mode.
    fn count_interlaced(&mut self, av_frame: &AvFrame) {
        let is_all = self.spec.deinterlace == Deinterlace::Bwdif;
        if !is_all && (self.detector.is_none() || !av_frame.is_interlaced()) {
            return;
        }
        self.deinterlaced += 1;
        if !mem::replace(&mut self.deinterlacing, true) {
            let source = &self.source;
            info!(
                "{source}: interlaced frames are deinterlaced by bwdif, one for each; --deinterlace off leaves them"
            );
        }
    }

    /// Opens the graph for a frame of this pts and the following ones.
    fn open(&self, input: GraphInput, pts: i64) -> Result<OpenGraph> {
        let Rational(num, den) = self.input.time_base;
        let mut chain = Vec::new();
        if input.deinterlacing {
            let which = if self.detector.is_some() { "interlaced" } else { "all" };
            // bwdif counts in half ticks, which one frame for each frame does not need.
            chain.push(format!("bwdif=mode=send_frame:parity=auto:deint={which},settb={num}/{den}"));
        }
        chain.extend(input.upright.map(str::to_owned));
        chain.extend(self.spec.graph.clone());
        if self.spec.is_even {
            // On the grid of the frames before, if there are any.
            let (start, time_base) = match self.output {
                Some(Clock { time_base, .. }) => {
                    (self.end.rescale(self.input.time_base, time_base), time_base)
                }
                None => (pts, self.input.time_base),
            };
            let start_s = start as f64 * f64::from(time_base);
            chain.push(format!("fps=source_fps:start_time={start_s}"));
        }
        let chain = chain.join(",");
        let graph = self.build(input, &chain).map_err(|e| {
            let problem = format!("'{chain}' does not open: {e}");
            Error::new("--filter", problem, "try it with ffmpeg -vf, whose syntax it has").with_source(e)
        })?;
        info!("{}: filters {chain}", self.source);
        Ok(graph)
    }

    fn build(&self, input: GraphInput, chain: &str) -> std::result::Result<OpenGraph, ffmpeg::Error> {
        let GraphInput { size: (width, height), format, aspect, color: (matrix, range), .. } = input;
        let Clock { time_base, frame_rate } = self.input;
        // Earlier filters ask each frame.
        let color =
            if cfg!(ffmpeg_7_0) { format!(":colorspace={matrix}:range={range}") } else { String::new() };
        let arguments = format!(
            "video_size={width}x{height}:pix_fmt={format}:time_base={}/{}:frame_rate={}/{}:pixel_aspect={}/{}{color}",
            time_base.0,
            time_base.1,
            frame_rate.0,
            frame_rate.1,
            aspect.0,
            aspect.1.max(1)
        );
        let named = |name: &str| filter::find(name).ok_or(ffmpeg::Error::FilterNotFound);
        let mut graph = Graph::new();
        graph.add(&named("buffer")?, "in", &arguments)?;
        let mut sink = graph.add(&named("buffersink")?, "out", "")?;
        graph.output("in", 0)?.input("out", 0)?.parse(chain)?;
        graph.validate()?;
        // SAFETY: the sink belongs to the graph, which is alive and configured; asks for two numbers.
        let (time_base, frame_rate) = unsafe {
            let sink = sink.as_mut_ptr();
            (
                Rational::from(ffi::av_buffersink_get_time_base(sink)),
                Rational::from(ffi::av_buffersink_get_frame_rate(sink)),
            )
        };
        let frame_rate =
            if frame_rate.0 > 0 && frame_rate.1 > 0 { frame_rate } else { self.input.frame_rate };
        Ok(OpenGraph { graph, input, clock: Clock { time_base, frame_rate } })
    }

    /// Takes the frames that the graph has ready.
    fn drain(&mut self) -> Result<()> {
        let Some(opened) = &mut self.opened else { return Ok(()) };
        let output = self.output.expect("fixed when the first graph was opened").time_base;
        loop {
            let mut av_frame = AvFrame::empty();
            match opened.graph.get("out").expect("a graph has its sink").sink().frame(&mut av_frame) {
                Ok(()) => {}
                Err(error) if is_again(error) || error == ffmpeg::Error::Eof => break,
                Err(error) => return Err(self.failed("failed", error)),
            }
            let last = self.waiting.as_ref().map(|timed| timed.pts);
            let pts = match av_frame.pts() {
                Some(pts) => pts.rescale(opened.clock.time_base, output),
                None => last.map_or(0, |last| last + 1),
            };
            // A frame that is not later than the previous one cannot be shown, and counts as dropped.
            if last.is_some_and(|last| pts <= last) {
                continue;
            }
            // A frame lasts until the next one.
            let origin = mem::take(&mut self.origin);
            let timed = TimedFrame { av_frame, pts, duration: 0, upright: None, origin };
            if let Some(mut before) = self.waiting.replace(timed) {
                before.duration = pts - before.pts;
                self.ready.push_back(before);
            }
        }
        Ok(())
    }

    /// Drains the graph and closes it, if one is open. The last frame lasts until the end of the last frame of the input.
    fn close(&mut self) -> Result<()> {
        let Some(opened) = &mut self.opened else { return Ok(()) };
        let sent = opened.graph.get("in").expect("a graph has its source").source().close(self.end);
        sent.map_err(|e| self.failed("cannot be ended", e))?;
        self.drain()?;
        self.opened = None;
        let clock = self.clock();
        let end = self.end.rescale(self.input.time_base, clock.time_base);
        let frame_ticks = 1.rescale(clock.frame_rate.invert(), clock.time_base).max(1);
        if let Some(mut last) = self.waiting.take() {
            last.duration = if end > last.pts { end - last.pts } else { frame_ticks };
            self.ready.push_back(last);
        }
        Ok(())
    }

    fn failed(&self, problem: &str, error: ffmpeg::Error) -> Error {
        let subject = if self.spec.graph.is_some() { "--filter" } else { "--deinterlace" };
        failure(subject, problem, error, "try the same with ffmpeg -vf, or leave it out")
    }
}

impl GraphInput {
    fn of(timed: &TimedFrame, deinterlacing: bool) -> GraphInput {
        // SAFETY: the frame was filled by the decoder.
        let raw = unsafe { &*timed.av_frame.as_ptr() };
        let aspect = (raw.sample_aspect_ratio.num, raw.sample_aspect_ratio.den);
        let size = (raw.width, raw.height);
        let color = (code_of(&raw const raw.colorspace), code_of(&raw const raw.color_range));
        GraphInput { size, format: raw.format, aspect, color, deinterlacing, upright: timed.upright }
    }
}

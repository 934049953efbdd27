//! What is done to decoded frames before the network, by FFmpeg's filters: interlaced ones made whole, and whatever
//! chain a user names.
//!
//! In: frames with pts and duration. Out: frames with theirs. A graph is opened for one kind of frame; another kind
//! empties it and opens it again. What goes in and comes out is counted, for a filter may make and drop frames.

use std::collections::VecDeque;

use ffmpeg_next::ffi;
use ffmpeg_next::filter::{self, Graph};
use ffmpeg_next::frame::Video as AvFrame;
use ffmpeg_next::{self as ffmpeg, Rational, Rescale};
use tracing::info;

use crate::error::{Error, Result};
use crate::media::decode::interlace::Verdict;
use crate::media::ffmpeg::is_again;

/// Whether interlaced frames are made whole.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Deinterlace {
    /// Where frames are found to be interlaced.
    #[default]
    Auto,
    /// All of them.
    Bwdif,
    /// None.
    Off,
}

/// What a user asks to be done before the network.
#[derive(Clone, Debug, Default)]
pub struct FilterSpec {
    /// By bwdif, one frame a frame.
    pub deinterlace: Deinterlace,
    /// FFmpeg's words for a chain of filters.
    pub graph: Option<String>,
}

/// Filters that look at fields themselves: frames they are to see must have both.
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
    /// Whether interlaced frames are to be found and made whole.
    pub(crate) fn is_auto(&self) -> bool {
        let words = self.graph.iter().flat_map(|graph| graph.split([',', ';', ']', '=', '@', ' ']));
        self.deinterlace == Deinterlace::Auto && !words.into_iter().any(|word| FIELD_FILTERS.contains(&word))
    }
}

/// A frame and when it is shown.
pub(crate) struct Timed {
    pub av_frame: AvFrame,
    pub pts: i64,
    pub duration: i64,
}

/// The filters of one source, or none.
pub(crate) struct Filters {
    spec: FilterSpec,
    verdict: Verdict,
    source: String,
    input: Clock,
    /// Of what comes out, fixed by the first frame.
    output: Option<Clock>,
    opened: Option<Opened>,
    deinterlacing: bool,
    /// Came out of a graph and waits for its successor, which tells how long it stays.
    waiting: Option<Timed>,
    /// Where the last frame that went into the graph ends, in ticks of the input.
    end: i64,
    ready: VecDeque<Timed>,
    taken: u64,
    given: u64,
}

/// What ticks and how often frames come.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Clock {
    pub time_base: Rational,
    pub frame_rate: Rational,
}

struct Opened {
    graph: Graph,
    kind: Kind,
    clock: Clock,
}

/// What a graph is opened for.
#[derive(Clone, Copy, PartialEq)]
struct Kind {
    size: (i32, i32),
    format: i32,
    aspect: (i32, i32),
    deinterlacing: bool,
}

impl Filters {
    pub fn new(spec: FilterSpec, verdict: Verdict, source: &str, input: Clock) -> Filters {
        Filters {
            deinterlacing: spec.deinterlace == Deinterlace::Bwdif,
            spec,
            verdict,
            source: source.to_owned(),
            input,
            output: None,
            opened: None,
            waiting: None,
            end: i64::MIN,
            ready: VecDeque::new(),
            taken: 0,
            given: 0,
        }
    }

    /// As before the first frame.
    pub fn forget(&mut self) {
        *self = Filters::new(self.spec.clone(), self.verdict, &self.source, self.input);
    }

    /// Of what comes out, once something did.
    pub fn clock(&self) -> Clock {
        self.output.unwrap_or(self.input)
    }

    /// Whether frames go through a graph.
    pub fn is_open(&self) -> bool {
        self.output.is_some()
    }

    /// How many frames more, or less, came out than went in.
    pub fn duplicated_and_dropped(&self) -> (u64, u64) {
        (self.given.saturating_sub(self.taken), self.taken.saturating_sub(self.given))
    }

    /// Takes a frame; [`Filters::next`] is to be called until it has no more.
    pub fn push(&mut self, timed: Timed) -> Result<()> {
        self.taken += 1;
        self.find_interlaced(&timed.av_frame);
        if self.spec.graph.is_none() && !self.deinterlacing {
            self.ready.push_back(timed);
            return Ok(());
        }
        let kind = Kind::of(&timed.av_frame, self.deinterlacing);
        if self.opened.as_ref().is_none_or(|opened| opened.kind != kind) {
            self.empty()?;
            let opened = self.open(kind)?;
            self.output.get_or_insert(opened.clock);
            self.opened = Some(opened);
        }
        let Timed { mut av_frame, pts, duration } = timed;
        self.end = pts.saturating_add(duration);
        av_frame.set_pts(Some(pts));
        let graph = &mut self.opened.as_mut().expect("just opened").graph;
        let sent = graph.get("in").expect("a graph has its source").source().add(&av_frame);
        sent.map_err(|e| self.failed(&format!("refused a frame: {e}")))?;
        self.drain()
    }

    /// Says that no frame follows.
    pub fn finish(&mut self) -> Result<()> {
        self.empty()
    }

    /// The next frame that is whole and whose length is known.
    pub fn next(&mut self) -> Option<Timed> {
        let next = self.ready.pop_front();
        self.given += u64::from(next.is_some());
        next
    }

    /// In auto, from the first frame on whose decoder says so, or from the beginning where the frames themselves do.
    fn find_interlaced(&mut self, av_frame: &AvFrame) {
        let told = match self.verdict {
            Verdict::AsFlagged => av_frame.is_interlaced(),
            Verdict::Interlaced { .. } => true,
            Verdict::Progressive => false,
        };
        if self.spec.is_auto() && !self.deinterlacing && told {
            self.deinterlacing = true;
            let source = &self.source;
            info!(
                "{source}: interlaced frames are made whole by bwdif, one a frame; --deinterlace off leaves them"
            );
        }
    }

    fn open(&self, kind: Kind) -> Result<Opened> {
        let Rational(num, den) = self.input.time_base;
        let mut chain = Vec::new();
        if kind.deinterlacing {
            let (parity, which) = match self.verdict {
                Verdict::Interlaced { top_first } => (if top_first { "tff" } else { "bff" }, "all"),
                _ if self.spec.deinterlace == Deinterlace::Bwdif => ("auto", "all"),
                _ => ("auto", "interlaced"),
            };
            // bwdif counts in half ticks, of which one frame a frame has no need.
            chain.push(format!("bwdif=mode=send_frame:parity={parity}:deint={which},settb={num}/{den}"));
        }
        chain.extend(self.spec.graph.clone());
        let chain = chain.join(",");
        let graph = self.build(kind, &chain).map_err(|e| {
            let problem = format!("'{chain}' does not open: {e}");
            Error::new("--filter", problem, "try it with ffmpeg -vf, whose words it takes")
        })?;
        info!("{}: filters {chain}", self.source);
        Ok(graph)
    }

    fn build(&self, kind: Kind, chain: &str) -> std::result::Result<Opened, ffmpeg::Error> {
        let Kind { size: (width, height), format, aspect, .. } = kind;
        let Clock { time_base, frame_rate } = self.input;
        let arguments = format!(
            "video_size={width}x{height}:pix_fmt={format}:time_base={}/{}:frame_rate={}/{}:pixel_aspect={}/{}",
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
        Ok(Opened { graph, kind, clock: Clock { time_base, frame_rate } })
    }

    /// Takes what the graph has ready.
    fn drain(&mut self) -> Result<()> {
        let Some(opened) = &mut self.opened else { return Ok(()) };
        let output = self.output.expect("fixed when the first graph was opened").time_base;
        loop {
            let mut av_frame = AvFrame::empty();
            match opened.graph.get("out").expect("a graph has its sink").sink().frame(&mut av_frame) {
                Ok(()) => {}
                Err(error) if is_again(error) || error == ffmpeg::Error::Eof => break,
                Err(error) => return Err(self.failed(&format!("failed: {error}"))),
            }
            let last = self.waiting.as_ref().map(|timed| timed.pts);
            let pts = match av_frame.pts() {
                Some(pts) => pts.rescale(opened.clock.time_base, output),
                None => last.map_or(0, |last| last + 1),
            };
            // One that does not come after the one before cannot be shown, and counts as dropped.
            if last.is_some_and(|last| pts <= last) {
                continue;
            }
            // A frame stays until the next one.
            if let Some(mut before) = self.waiting.replace(Timed { av_frame, pts, duration: 0 }) {
                before.duration = pts - before.pts;
                self.ready.push_back(before);
            }
        }
        Ok(())
    }

    /// Takes all that is left in the graph, and closes it. The last frame stays until the end of the input's last.
    fn empty(&mut self) -> Result<()> {
        let Some(opened) = &mut self.opened else { return Ok(()) };
        let sent = opened.graph.get("in").expect("a graph has its source").source().close(self.end);
        sent.map_err(|e| self.failed(&format!("cannot be ended: {e}")))?;
        self.drain()?;
        self.opened = None;
        let clock = self.clock();
        let end = self.end.rescale(self.input.time_base, clock.time_base);
        let usual = 1.rescale(clock.frame_rate.invert(), clock.time_base).max(1);
        if let Some(mut last) = self.waiting.take() {
            last.duration = if end > last.pts { end - last.pts } else { usual };
            self.ready.push_back(last);
        }
        Ok(())
    }

    fn failed(&self, problem: &str) -> Error {
        let subject = if self.spec.graph.is_some() { "--filter" } else { "--deinterlace" };
        Error::new(subject, problem, "try the same with ffmpeg -vf, or leave it out")
    }
}

impl Kind {
    fn of(av_frame: &AvFrame, deinterlacing: bool) -> Kind {
        // SAFETY: the frame was filled by the decoder.
        let raw = unsafe { &*av_frame.as_ptr() };
        let aspect = (raw.sample_aspect_ratio.num, raw.sample_aspect_ratio.den);
        Kind { size: (raw.width, raw.height), format: raw.format, aspect, deinterlacing }
    }
}

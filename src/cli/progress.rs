//! Progress display: a bar for people, a JSON line per second for programs.

use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::console;
use super::output::json;
use crate::error::Error;
use crate::job::{End, Event, Options, Progress, Report, SCHEMA, Summary, now, rfc3339};

#[derive(Clone, Copy, clap::ValueEnum, PartialEq, Eq, Debug)]
pub(super) enum Show {
    /// A bar on a terminal, else a line every 30 seconds
    Auto,
    /// A bar
    Bar,
    /// A JSON line per second
    Json,
    /// Nothing
    None,
}

/// Returns a progress that is displayed while the stages of its job run. JSON lines go to standard output unless the frames
/// do (`piped`).
pub(super) fn shown(show: Show, piped: bool) -> Progress {
    let display = Mutex::new(None);
    Progress::with_observer(move |progress, event| {
        let mut display = display.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Resumed { from, frames, reached_s } => {
                let at = reached_s.map_or(String::new(), |reached_s| format!(", at {reached_s:.3} s"));
                console::log_line(format_args!("{}: resuming after {frames} frames{at}", from.display()));
            }
            Event::Started { summary } => *display = Shown::start(show, progress.clone(), *summary, piped),
            Event::Stopped => *display = None,
        }
    })
}

/// A display, until it is dropped.
struct Shown {
    stop: Option<Sender<()>>,
    /// Disconnected once the display has ended.
    ended: Receiver<()>,
}

/// Time for the last line. A terminal may be stopped, and the run continues.
const LAST_LINE_MAX: Duration = Duration::from_millis(500);

impl Shown {
    fn start(show: Show, progress: Progress, job: Summary, piped: bool) -> Option<Shown> {
        let is_smart = console::is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        let (every, mut display): (_, Display) = match show {
            Show::None => return None,
            Show::Json => (Duration::from_secs(1), write_json(job, piped)),
            Show::Auto if !is_smart => (LINE_EVERY, write_lines(job)),
            Show::Auto | Show::Bar => (Duration::from_millis(100), draw_bar(job)),
        };
        let is_for_people = show != Show::Json && every == LINE_EVERY;
        let (stop, stopped) = mpsc::channel();
        let (end, ended) = mpsc::channel();
        std::thread::spawn(move || {
            let _end = end;
            let mut rate = Rate { started: Instant::now(), first: None };
            while stopped.recv_timeout(every) == Err(RecvTimeoutError::Timeout) {
                display(&progress, rate.measure(&progress));
            }
            // The summary of the run follows lines for people.
            if !is_for_people {
                display(&progress, rate.measure(&progress));
            }
        });
        Some(Shown { stop: Some(stop), ended })
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        drop(self.stop.take());
        let _: Result<(), RecvTimeoutError> = self.ended.recv_timeout(LAST_LINE_MAX);
    }
}

/// Displays a progress and its speed.
type Display = Box<dyn FnMut(&Progress, Speed) + Send>;

/// Frames per second, and the number of frames that this run has encoded.
#[derive(Clone, Copy)]
struct Speed {
    fps: f64,
    frames: u64,
}

/// Throughput of this run since its first frame, so that neither the time to open files nor the frames of an earlier run
/// count.
struct Rate {
    started: Instant,
    first: Option<(Instant, u64)>,
}

impl Rate {
    fn measure(&mut self, progress: &Progress) -> Speed {
        let frames = progress.frames().saturating_sub(progress.earlier_frames());
        if frames > 0 && self.first.is_none() {
            self.first = Some((Instant::now(), frames));
        }
        match self.first {
            Some((at, count)) if frames > count => {
                let frames = frames - count;
                Speed { fps: frames as f64 / at.elapsed().as_secs_f64(), frames }
            }
            _ => Speed { fps: frames as f64 / self.started.elapsed().as_secs_f64(), frames },
        }
    }
}

/// The job in one line.
pub(super) fn headline(job: &Summary) -> String {
    let Summary { input, input_width, input_height, input_pixel_format, input_fps, .. } = job;
    let Summary { output, width, height, model, engine, precision, encoder, .. } = job;
    let fps = (input_fps * 1e3).round() / 1e3;
    // What passes user data on is no choice.
    let is_choice = |option: &&String| !option.starts_with("udu_sei=");
    let options: String =
        job.encoder_options.iter().filter(is_choice).map(|option| format!(" {option}")).collect();
    format!(
        "{input} {input_width}x{input_height} {input_pixel_format} {fps} fps → {output} {width}x{height}, \
         {model} on {engine} ({precision}), {encoder}{options}"
    )
}

/// How far a job is, in at most `width` columns: what matters most comes first.
fn state(job: &Summary, frames: u64, bytes: u64, speed: Speed, limited_by: &str, width: usize) -> String {
    let expected = job.frames_expected;
    let is_known = expected > 0;
    let left = expected.saturating_sub(frames) as f64;
    let per_frame = bytes as f64 / speed.frames.max(1) as f64;
    let parts = [
        is_known.then(|| format!("{} %", (100 * frames / expected.max(1)).min(100))),
        (is_known && speed.fps > 0.0).then(|| format!("ETA {}", clock(left / speed.fps))),
        Some(format!("{:.1} fps", speed.fps)),
        Some(if is_known { format!("{frames}/{expected} frames") } else { format!("{frames} frames") }),
        (job.fps > 0.0).then(|| format!("at {}", clock(frames as f64 / job.fps))),
        (bytes > 0).then(|| match is_known {
            true => format!("{} of {}", size(per_frame * frames as f64), size(per_frame * expected as f64)),
            false => size(per_frame * frames as f64),
        }),
        Some(format!("limited by {limited_by}")),
    ];
    let mut text = String::new();
    for part in parts.into_iter().flatten() {
        let separator = if text.is_empty() { "" } else { ", " };
        if text.len() + separator.len() + part.len() > width {
            break;
        }
        text += separator;
        text += &part;
    }
    text
}

/// Columns of the bar, where there is room for it.
const BAR: usize = 24;

fn draw_bar(job: Summary) -> Display {
    console::log_line(headline(&job));
    let bar = match job.frames_expected {
        0 => ProgressBar::no_length(),
        expected => ProgressBar::new(expected),
    };
    let style = |template: &str| ProgressStyle::with_template(template).expect("a template of ours");
    let (with_bar, alone) = (style(&format!("{{bar:{BAR}}} {{msg}}")), style("{msg}"));
    let started = Instant::now();
    Box::new(move |progress, speed| {
        let columns = console::columns();
        let room = if columns > 2 * BAR { columns - BAR - 2 } else { columns - 1 };
        bar.set_style(if columns > 2 * BAR { with_bar.clone() } else { alone.clone() });
        let (frames, limited_by) = (progress.frames(), progress.bottleneck().name());
        bar.set_position(frames);
        let elapsed = format!(", {} so far", clock(started.elapsed().as_secs_f64()));
        let mut text = state(&job, frames, progress.bytes(), speed, limited_by, room);
        if text.len() + elapsed.len() <= room {
            text += &elapsed;
        }
        bar.set_message(text);
    })
}

/// Time between two lines where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(30);

fn write_lines(job: Summary) -> Display {
    console::log_line(headline(&job));
    Box::new(move |progress, speed| {
        let (frames, limited_by) = (progress.frames(), progress.bottleneck().name());
        let state = state(&job, frames, progress.bytes(), speed, limited_by, usize::MAX);
        console::log_line(format_args!("{}: {state}", job.output));
    })
}

/// A number of bytes for people.
pub(super) fn size(bytes: f64) -> String {
    match bytes {
        ..1e6 => format!("{:.0} kB", bytes / 1e3),
        ..1e9 => format!("{:.1} MB", bytes / 1e6),
        _ => format!("{:.2} GB", bytes / 1e9),
    }
}

pub(super) fn clock(seconds: f64) -> String {
    let seconds = seconds.round() as u64;
    format!("{}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

/// A line of progress for programs.
#[derive(serde::Serialize)]
struct Line<'a> {
    schema: u32,
    event: &'static str,
    time: String,
    input: &'a str,
    output: &'a str,
    frames: u64,
    frames_expected: u64,
    fps: f64,
    eta_s: Option<f64>,
    media_s: Option<f64>,
    bytes: u64,
    limited_by: &'static str,
}

/// The last one.
#[derive(serde::Serialize)]
struct LastLine {
    event: &'static str,
    #[serde(flatten)]
    end: End,
    frames: u64,
    frames_expected: Option<u64>,
    fps: f64,
    media_s: Option<f64>,
    limited_by: Option<&'static str>,
}

fn write_json(job: Summary, piped: bool) -> Display {
    Box::new(move |progress, Speed { fps, .. }| {
        let (frames, frames_expected) = (progress.frames(), job.frames_expected);
        let left = (frames_expected > 0 && fps > 0.0).then(|| frames_expected.saturating_sub(frames));
        let line = Line {
            schema: SCHEMA,
            event: "progress",
            time: rfc3339(now()),
            input: &job.input,
            output: &job.output,
            frames,
            frames_expected,
            fps: thousandths(fps),
            eta_s: left.map(|left| thousandths(left as f64 / fps)),
            media_s: progress.reached_s().map(thousandths),
            bytes: progress.bytes(),
            limited_by: progress.bottleneck().name(),
        };
        write_line(json(&line), piped);
    })
}

/// Writes the last line of a run that was displayed as JSON.
pub(super) fn write_last_line(
    progress: &Progress,
    options: &Options,
    started: Duration,
    result: &Result<Report, Error>,
    piped: bool,
) {
    let (end, run) = match result {
        Ok(report) => (report.end.clone().expect("the run has ended"), Some(&report.run)),
        Err(error) => (End::failed(options, started, error), None),
    };
    let has_started = progress.frames() > 0;
    let line = LastLine {
        event: "end",
        end,
        frames: run.map_or(progress.frames(), |run| run.frames.encoded),
        frames_expected: result.as_ref().ok().map(|report| report.summary.frames_expected),
        fps: run.map_or(0.0, |run| run.fps),
        media_s: progress.reached_s().map(thousandths),
        limited_by: has_started.then(|| progress.bottleneck().name()),
    };
    write_line(json(&line), piped);
}

fn write_line(line: String, piped: bool) {
    match piped {
        true => console::stderr_line(line),
        false => console::progress_line(line),
    }
}

fn thousandths(number: f64) -> f64 {
    (number * 1e3).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job() -> Summary {
        let mut job = Summary::default();
        (job.input, job.output) = ("in.mkv".into(), "out.mkv".into());
        (job.model, job.engine, job.precision) = ("hasn-lite-x2-video".into(), "cpu", "bf16");
        (job.input_width, job.input_height, job.input_pixel_format) = (640, 360, "yuv420p");
        (job.width, job.height, job.input_fps, job.fps) = (1280, 720, 24000.0 / 1001.0, 24000.0 / 1001.0);
        (job.encoder, job.encoder_options) = ("libx264".into(), vec!["crf=18".into(), "udu_sei=1".into()]);
        job.frames_expected = 2000;
        job
    }

    #[test]
    fn the_headline_names_what_goes_in_and_comes_out() {
        let expected = "in.mkv 640x360 yuv420p 23.976 fps → out.mkv 1280x720, hasn-lite-x2-video on cpu (bf16), \
                        libx264 crf=18";
        assert_eq!(headline(&job()), expected);
    }

    #[test]
    fn the_state_has_room_in_every_terminal() {
        let speed = Speed { fps: 20.0, frames: 100 };
        let state = |width| state(&job(), 500, 1_000_000, speed, "upscale", width);
        let whole =
            "25 %, ETA 0:01:15, 20.0 fps, 500/2000 frames, at 0:00:21, 5.0 MB of 20.0 MB, limited by upscale";
        assert_eq!(state(200), whole);
        for width in 8..120 {
            let text = state(width);
            assert!(
                text.len() <= width && whole.starts_with(&text) && text.starts_with("25 %"),
                "{width}: {text}"
            );
        }
        assert_eq!(state(39), "25 %, ETA 0:01:15, 20.0 fps");
        let unknown = Summary { frames_expected: 0, ..job() };
        let text = super::state(&unknown, 500, 0, speed, "upscale", 200);
        assert_eq!(text, "20.0 fps, 500 frames, at 0:00:21, limited by upscale");
    }
}

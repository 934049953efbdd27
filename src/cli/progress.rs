//! Progress display: a bar for people, a JSON line per second for programs.

use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::console;
use super::output::json;
use crate::job::{Event, Progress};

#[derive(Clone, Copy, clap::ValueEnum, PartialEq, Eq, Debug)]
pub(super) enum Show {
    /// A bar on a terminal, else nothing
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
            Event::Started { frames_expected } => {
                *display = Shown::start(show, progress.clone(), frames_expected, piped);
            }
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
    fn start(show: Show, progress: Progress, expected: u64, piped: bool) -> Option<Shown> {
        let bar = show == Show::Bar || (show == Show::Auto && console::is_terminal());
        if !bar && show != Show::Json {
            return None;
        }
        let (stop, stopped) = mpsc::channel();
        let every = Duration::from_millis(if bar { 100 } else { 1000 });
        let (end, ended) = mpsc::channel();
        std::thread::spawn(move || {
            let _end = end;
            let mut rate = Rate { started: Instant::now(), first: None };
            let mut display = if bar { draw_bar(expected) } else { write_json(expected, piped) };
            while stopped.recv_timeout(every) == Err(RecvTimeoutError::Timeout) {
                display(&progress, rate.measure(progress.frames()));
            }
            display(&progress, rate.measure(progress.frames()));
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

/// Displays a progress and its fps.
type Display = Box<dyn FnMut(&Progress, f64)>;

/// Throughput since the first frame, so that the time to open files does not count.
struct Rate {
    started: Instant,
    first: Option<(Instant, u64)>,
}

impl Rate {
    fn measure(&mut self, frames: u64) -> f64 {
        if frames > 0 && self.first.is_none() {
            self.first = Some((Instant::now(), frames));
        }
        match self.first {
            Some((at, count)) if frames > count => (frames - count) as f64 / at.elapsed().as_secs_f64(),
            _ => frames as f64 / self.started.elapsed().as_secs_f64(),
        }
    }
}

fn draw_bar(expected: u64) -> Display {
    let bar = if expected > 0 { ProgressBar::new(expected) } else { ProgressBar::no_length() };
    let template = "{wide_bar} {pos}/{len} frames, {msg}";
    bar.set_style(ProgressStyle::with_template(template).expect("a template of ours"));
    Box::new(move |progress, rate| {
        let frames = progress.frames();
        let left = expected.saturating_sub(frames);
        let eta = match rate > 0.0 && expected > 0 {
            true => format!(", ETA {}", clock(left as f64 / rate)),
            false => String::new(),
        };
        bar.set_position(frames);
        bar.set_message(format!("{rate:.1} fps{eta}, limited by {}", progress.bottleneck().name()));
    })
}

fn clock(seconds: f64) -> String {
    let seconds = seconds.round() as u64;
    format!("{}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

#[derive(serde::Serialize)]
struct Line {
    frames: u64,
    frames_expected: u64,
    fps: f64,
    limited_by: &'static str,
}

fn write_json(frames_expected: u64, piped: bool) -> Display {
    Box::new(move |progress, rate| {
        let line = json(&Line {
            frames: progress.frames(),
            frames_expected,
            fps: (rate * 1e3).round() / 1e3,
            limited_by: progress.bottleneck().name(),
        });
        match piped {
            true => console::log_line(line),
            false => console::progress_line(line),
        }
    })
}

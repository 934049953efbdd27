//! `hasn bench --price-per-hour`: what an hour of video costs on this machine, from file to file.
//!
//! In: a video, or nothing, and videos are generated. Out: fps, hours of the machine and price, by model. Each run is
//! `hasn upscale` with its defaults, into a temporary folder, on a part of the video that takes some seconds.

use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use serde::Serialize;

use super::super::console::{print, print_json};
use super::super::signals;
use crate::engine::EngineChoice;
use crate::engine::cpu::Precision;
use crate::error::{Error, ErrorKind, Result};
use crate::job::{self, Interrupt, Options, Progress, Report, Size};
use crate::media::{Input, Playlists, Watch};
use crate::model::catalogue;

/// Sizes of the generated videos: 540p and 1080p.
const SIZES: [(usize, usize); 2] = [(960, 540), (1920, 1080)];
/// Frame rate of the generated videos.
const FPS: u64 = 25;
/// Length of a generated video at most.
const FRAMES_MAX: u64 = 20 * FPS;
/// Time that the longest run of a case takes, unless a frame on each thread takes longer.
const RUN_S: f64 = 5.0;
/// Growth of a part from one run to the next: the first runs are too short to foretell more.
const GROWTH_MAX: f64 = 16.0;

/// What is asked for.
pub(super) struct Request<'a> {
    pub price_per_hour: f64,
    /// A video; `None` for generated ones.
    pub input: Option<&'a str>,
    /// A model; `None` for each built-in one.
    pub model: Option<&'a str>,
    pub engine: EngineChoice,
    pub precision: Option<Precision>,
    pub threads: usize,
    pub json: bool,
}

#[derive(Serialize)]
struct Prices<'a> {
    price_per_hour: f64,
    /// Null where videos are generated.
    input: Option<&'a str>,
    threads: usize,
    cases: Vec<Case>,
}

#[derive(Serialize)]
struct Case {
    /// Models of one size, which take the same time.
    models: Vec<String>,
    engine: &'static str,
    precision: &'static str,
    encoder: String,
    width: usize,
    height: usize,
    to_width: usize,
    to_height: usize,
    /// Frames of the longest run.
    frames: u64,
    fps: f64,
    /// Frame rate of the video.
    video_fps: f64,
    /// Hours of the machine for an hour of video.
    machine_hours: f64,
    /// Price of an hour of video.
    price: f64,
}

pub(super) fn run(request: &Request) -> Result<ExitCode> {
    let &Request { price_per_hour, input, threads, .. } = request;
    let interrupt = signals::catch()?;
    let folder = tempfile::tempdir()
        .map_err(|e| Error::io("the temporary folder", e, "point TMPDIR to a folder that can be written"))?;
    let models = models(request.model)?;
    let mut videos = match input {
        Some(input) => vec![Video::open(input, &interrupt)?],
        None => SIZES.map(|size| Video::to_generate(folder.path(), size)).into(),
    };
    let mut prices = Prices { price_per_hour, input, threads, cases: Vec::new() };
    if !request.json {
        print(&prices.head())?;
    }
    for video in &mut videos {
        for models in &models {
            let output = folder.path().join("output.mkv").to_string_lossy().into_owned();
            let mut options = Options::new(&video.path, output);
            options.model = models.first().cloned();
            (options.engine, options.precision) = (request.engine, request.precision);
            options.threads = Some(threads);
            // How many frames equal the previous one is another number in each part.
            options.reuse = false;
            options.overwrite = true;
            let case = Case::new(models, price_per_hour, &measure(video, &mut options, &interrupt)?);
            if !request.json {
                print(&case.line())?;
            }
            prices.cases.push(case);
        }
    }
    if request.json {
        print_json(&prices)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Parses a price, in whatever currency.
pub(super) fn parse_price(text: &str) -> std::result::Result<f64, String> {
    let price = text.parse().ok().filter(|price: &f64| *price > 0.0 && price.is_finite());
    price.ok_or_else(|| "write it like 0.34".to_owned())
}

/// The models to measure, those of one size together.
fn models(asked: Option<&str>) -> Result<Vec<Vec<String>>> {
    if let Some(name) = asked {
        return Ok(vec![vec![name.to_owned()]]);
    }
    let mut groups = Vec::<(_, Vec<String>)>::new();
    for built_in in catalogue::ALL {
        let sizes = catalogue::open(built_in.name)?.sizes;
        match groups.iter_mut().find(|(known, _)| *known == sizes) {
            Some((_, names)) => names.push(built_in.name.to_owned()),
            None => groups.push((sizes, vec![built_in.name.to_owned()])),
        }
    }
    Ok(groups.into_iter().map(|(_, names)| names).collect())
}

/// A video, and the part of it that runs can take.
struct Video {
    path: String,
    fps: f64,
    /// Number of frames; `None` where the container does not state it.
    frames: Option<u64>,
    /// Size in which longer ones can be generated.
    generated: Option<(usize, usize)>,
}

impl Video {
    fn open(path: &str, interrupt: &Interrupt) -> Result<Video> {
        if path == "-" || fs::metadata(path).is_ok_and(|data| data.file_type().is_fifo()) {
            return Err(Error::new(path, "can be read only once", "give a file"));
        }
        let info = Input::open(path, Playlists::ByName, &Watch::new(interrupt.flag().clone()))?.video();
        let frames = Some(info.frames_expected).filter(|&frames| frames > 0);
        Ok(Video { path: path.to_owned(), fps: info.fps(), frames, generated: None })
    }

    fn to_generate(folder: &Path, size: (usize, usize)) -> Video {
        let path = folder.join(format!("{}p.mkv", size.1)).to_string_lossy().into_owned();
        Video { path, fps: FPS as f64, frames: Some(0), generated: Some(size) }
    }

    /// Generates a video of this length, unless the last one was longer.
    fn generate(&mut self, frames: u64, interrupt: &Interrupt) -> Result<()> {
        let frames = frames.min(FRAMES_MAX);
        let Some((width, height)) = self.generated.filter(|_| self.frames < Some(frames)) else {
            return Ok(());
        };
        // FFmpeg's filters draw over small frames, which set the length.
        let (y4m, frame) =
            (format!("{}.y4m", self.path), [b"FRAME\n".as_slice(), &[128; 16 * 16 * 3 / 2]].concat());
        let header = format!("YUV4MPEG2 W16 H16 F{FPS}:1 C420mpeg2\n").into_bytes();
        fs::write(&y4m, [header, frame.repeat(frames as usize)].concat())
            .map_err(|e| Error::io(&y4m, e, "point TMPDIR to a folder with space"))?;
        let mut options = Options::new(y4m, &self.path);
        options.model = Some("none".to_owned());
        options.engine = EngineChoice::Cpu;
        options.size = Size::Exact { width, height };
        options.reuse = false;
        options.overwrite = true;
        options.filter = Some(format!(
            "mandelbrot=size={width}x{height}:rate={FPS},format=yuv420p,noise=alls=2:allf=t[drawn];\
             [in]scale={width}:{height}[frame];[frame][drawn]overlay=shortest=1"
        ));
        run_job(&options, interrupt)?;
        self.frames = Some(frames);
        Ok(())
    }

    /// A part in the middle, from and to in seconds: the first frames and the last are often titles.
    fn part(&self, frames: u64) -> (f64, f64) {
        let before = self.frames.map_or(0, |all| all.saturating_sub(frames) / 2);
        // Between the frames, whatever the container rounds.
        let time = |frame: u64| ((frame as f64 - 0.5) / self.fps).max(0.0);
        (time(before), time(before + frames))
    }
}

/// What a case takes in the long run.
struct Measured {
    report: Report,
    seconds_per_frame: f64,
    video_fps: f64,
}

/// Runs longer and longer parts, until one takes long enough or the video has no more frames.
fn measure(video: &mut Video, options: &mut Options, interrupt: &Interrupt) -> Result<Measured> {
    let threads = options.threads.map_or(1, |threads| threads as u64);
    let mut run = |frames: u64| -> Result<(Report, f64)> {
        video.generate(frames, interrupt)?;
        let (from_s, to_s) = video.part(frames);
        (options.from_s, options.to_s) = (Some(from_s), Some(to_s));
        let start = Instant::now();
        let report = run_job(options, interrupt)?;
        Ok((report, start.elapsed().as_secs_f64()))
    };
    let encoded = |report: &Report| report.run.frames.encoded;
    let (mut report, mut seconds) = run(threads.max(2))?;
    let (first_frames, first_s) = (encoded(&report), seconds);
    while seconds < RUN_S / 2.0 {
        let growth = (RUN_S / seconds).clamp(2.0, GROWTH_MAX);
        let frames = (encoded(&report) as f64 * growth) as u64;
        let (longer, longer_s) = run(frames.next_multiple_of(threads))?;
        if encoded(&longer) <= encoded(&report) {
            break;
        }
        (report, seconds) = (longer, longer_s);
    }
    let frames = encoded(&report);
    // Opening and ending take the same time in both runs, and next to none in an hour.
    let (more, more_s) = if seconds >= RUN_S / 2.0 && frames >= 2 * first_frames {
        (frames - first_frames, seconds - first_s)
    } else {
        (frames, seconds)
    };
    let duration_s = report.run.verification.as_ref().map_or(0.0, |verification| verification.duration_s);
    let video_fps = if duration_s > 0.0 { frames as f64 / duration_s } else { video.fps };
    Ok(Measured { report, seconds_per_frame: more_s / more as f64, video_fps })
}

fn run_job(options: &Options, interrupt: &Interrupt) -> Result<Report> {
    let report = job::open(options, interrupt)?.run(&Progress::default())?;
    if report.is_interrupted() {
        let error = Error::new("hasn bench", "was interrupted", "run it again");
        return Err(error.with_kind(ErrorKind::Interrupted));
    }
    Ok(report)
}

impl Case {
    fn new(models: &[String], price_per_hour: f64, measured: &Measured) -> Case {
        let Measured { report, seconds_per_frame, video_fps } = measured;
        let summary = &report.summary;
        let machine_hours = seconds_per_frame * video_fps;
        Case {
            models: models.to_vec(),
            engine: summary.engine,
            precision: summary.precision,
            encoder: summary.encoder.clone(),
            width: summary.input_width,
            height: summary.input_height,
            to_width: summary.width,
            to_height: summary.height,
            frames: report.run.frames.encoded,
            fps: seconds_per_frame.recip(),
            video_fps: *video_fps,
            machine_hours,
            price: machine_hours * price_per_hour,
        }
    }

    fn line(&self) -> String {
        let Case { engine, precision, width, height, to_width, to_height, .. } = self;
        format!(
            "{:11} {:11} {:14} {:>8} {:>9} {:>9} {:>9}  {}\n",
            format!("{width}x{height}"),
            format!("{to_width}x{to_height}"),
            format!("{engine} {precision}"),
            rounded(self.fps),
            rounded(self.video_fps),
            rounded(self.machine_hours),
            rounded(self.price),
            self.models.join(", ")
        )
    }
}

impl Prices<'_> {
    fn head(&self) -> String {
        let input = self.input.map_or("a generated video", |input| input);
        format!(
            "{input}, decoded, upscaled and encoded as by hasn upscale; threads: {}\n\
             price of an hour of this machine: {}; in the table: hours of it and price for an hour of video\n\n\
             input       output      engine              fps video fps     hours     price  models\n",
            self.threads, self.price_per_hour
        )
    }
}

/// Three significant digits, or all digits before the point.
fn rounded(value: f64) -> String {
    let digits = (2.0 - value.log10().floor()).clamp(0.0, 12.0) as usize;
    format!("{value:.digits$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prices_are_parsed_or_refused_and_rounded() {
        for (text, price, shown) in [
            ("0.34", 0.34, "0.340"),
            ("1234.5", 1234.5, "1234"),
            ("2e-6", 2e-6, "0.00000200"),
            ("12", 12.0, "12.0"),
        ] {
            assert_eq!(parse_price(text), Ok(price));
            assert_eq!(rounded(price), shown);
        }
        for text in ["", "0", "-1", "nan", "inf", "1,5", "1 EUR"] {
            assert!(parse_price(text).is_err(), "{text}");
        }
    }
}

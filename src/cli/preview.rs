//! `hasn preview`: some frames through models and FFmpeg's bicubic filter, on one web page that needs nothing else.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

use super::output::{counted, json};
use super::progress::size;
use super::upscale::{parse_time, parse_words};
use super::words::Words;
use super::{console, frames, signals};
use crate::error::{Error, ErrorKind, Result};
use crate::frame::Frame;
use crate::job::preview::{self, Sample};
use crate::job::{self, Interrupt, Options, Summary, check_report, check_report_writable, write_report};
use crate::media::{Pattern, Place, StillWriter, redacted};
use crate::model::catalogue;
use crate::quality::Quality;

/// Samples of all images together, which keep the page at a few MB. Larger frames are cut out.
const AREA_MAX: usize = 20_000_000;
/// Frames where --at names none.
const FRAMES: usize = 3;

#[derive(clap::Args)]
pub(super) struct Args {
    /// File or URL to read, or an image sequence such as scan/%06d.dpx.
    #[arg(value_name = "INPUT")]
    source: OsString,
    /// Time of a frame, in seconds or [HH:]MM:SS; can be repeated [default: three, evenly spread]
    #[arg(long, value_name = "T", value_parser = parse_time)]
    at: Vec<f64>,
    /// Page to write.
    #[arg(short = 'o', long = "output", value_name = "FILE.html", default_value = "preview.html")]
    page: PathBuf,
    /// Video or image of the output's size that the input was scaled from: PSNR-Y and SSIM-Y are printed.
    #[arg(long, value_name = "FILE")]
    reference: Option<OsString>,
    #[command(
        flatten,
        next_help_heading = "Options of hasn upscale; --model takes several, separated by commas"
    )]
    words: Words,
}

/// What the page shows.
#[derive(Serialize)]
struct Page {
    input: String,
    summary: String,
    /// Names of the images of each frame.
    versions: Vec<String>,
    has_reference: bool,
    /// Width and height of the images.
    shown: (usize, usize),
    frames: Vec<Shown>,
    whole: Vec<Whole>,
    note: String,
}

#[derive(Serialize)]
struct Shown {
    at_s: f64,
    /// Addresses that hold the images themselves.
    images: Vec<String>,
    figures: Vec<Figures>,
}

#[derive(Default, Serialize)]
struct Figures {
    seconds: Option<f64>,
    psnr_y_db: Option<f64>,
    ssim_y: Option<f64>,
}

/// The estimate for the whole input.
#[derive(Serialize)]
struct Whole {
    name: String,
    fps: f64,
    frames: Option<u64>,
    seconds: Option<f64>,
    output_bytes: Option<u64>,
}

pub(super) fn run(args: Args) -> Result<ExitCode> {
    let interrupt = signals::catch()?;
    let page = &args.page;
    if matches!(Place::of(&args.source), Place::Standard) {
        let problem = "can be read only once, and a preview reads it several times";
        let error = Error::new("standard input", problem, "save it to a file");
        return Err(error.with_kind(ErrorKind::Unsupported));
    }
    if page.exists() && !args.words.overwrites() {
        let error =
            Error::new(page.to_string_lossy(), "already exists", "-y overwrites it, or name another -o");
        return Err(error.with_kind(ErrorKind::Exists));
    }
    let used = [Some(&args.source), args.reference.as_ref()].into_iter().flatten();
    check_report(page, used.filter_map(|name| Place::of(name).path().map(Path::to_owned)))?;
    check_report_writable(page, &interrupt)?;
    // A run needs a name for its output, which a preview does not write.
    let folder = tempfile::tempdir().map_err(|e| {
        Error::io("the folder for temporary files", e, "set TMPDIR to one that can be written")
    })?;
    let output = folder.path().join(if is_image(&args.source)? { "out.png" } else { "out.mkv" });
    let jobs = jobs(&args, &output)?;
    let html = html(&args, &jobs, &interrupt)?;
    write_report(page, html.trim_end(), &interrupt)?;
    let (frames, bytes) = (counted(html.matches("\"at_s\"").count() as u64, "frame"), html.len());
    console::log_line(format_args!("{}: {frames}, {}", page.display(), size(bytes as f64)));
    Ok(ExitCode::SUCCESS)
}

/// Whether the input is one image, by its name.
fn is_image(source: &OsString) -> Result<bool> {
    const IMAGES: [&str; 12] =
        ["png", "jpg", "jpeg", "webp", "tif", "tiff", "bmp", "dpx", "exr", "ppm", "pgm", "jxl"];
    let extension = Path::new(source).extension().unwrap_or_default().to_string_lossy().to_lowercase();
    Ok(IMAGES.contains(&&*extension) && Pattern::parse(source)?.is_none())
}

/// The options of a run by each model, with the names of the models.
fn jobs(args: &Args, output: &Path) -> Result<Vec<(String, Options)>> {
    let from_images = is_image(&args.source)? || Pattern::parse(&args.source)?.is_some();
    let default = if from_images { catalogue::DEFAULT_IMAGE } else { catalogue::DEFAULT_VIDEO };
    let models = args.words.model().unwrap_or(default);
    let job = |model: &str| {
        let mut words = args.words.clone();
        words.set("model", Some(vec![model.to_owned()]));
        words.check("hasn preview")?;
        let parsed = parse_words(words.command(&args.source, output.as_os_str()));
        let mut options = parsed.expect("words that were checked").options();
        options.overwrite = true;
        Ok((model.to_owned(), options))
    };
    models.split(',').map(job).collect()
}

fn html(args: &Args, jobs: &[(String, Options)], interrupt: &Interrupt) -> Result<String> {
    let (mut whole, mut summary) = (Vec::new(), None);
    for (name, options) in jobs {
        let job = job::open(options, interrupt)?;
        summary.get_or_insert_with(|| job.summary().clone());
        let Summary { engine, precision, .. } = job.summary();
        let engine = format!("{name} on {engine} ({precision})");
        console::log_line(format_args!("{}: measuring {name}", redacted(&args.source)));
        let found = preview::estimate(job)?;
        whole.push(Whole {
            name: engine,
            fps: found.fps,
            frames: found.frames,
            seconds: found.seconds,
            output_bytes: found.output_bytes,
        });
    }
    let summary = summary.expect("there is a model");
    let size = (summary.width, summary.height);
    let has_reference = args.reference.is_some();
    let versions: Vec<String> = std::iter::once("bicubic".to_owned())
        .chain(jobs.iter().map(|(name, _)| name.clone()))
        .chain(has_reference.then(|| "reference".to_owned()))
        .collect();
    let times = times(args, &jobs[0].1, summary.frames_expected as f64 / summary.input_fps);
    let shown = shown_size(size, versions.len() * times.len());
    let mut frames = Vec::new();
    for (number, &at_s) in (1..).zip(&times) {
        let count = times.len();
        console::log_line(format_args!("{}: frame {number} of {count}", redacted(&args.source)));
        frames.push(show(args, jobs, at_s, size, shown, interrupt)?);
    }
    let part = match shown == size {
        true => String::new(),
        false => format!(" The page shows the middle {}x{} of each frame.", shown.0, shown.1),
    };
    let page = Page {
        input: redacted(&args.source),
        summary: format!(
            "{}x{} {} to {}x{}, hasn {}.{part}",
            summary.input_width,
            summary.input_height,
            summary.input_pixel_format,
            size.0,
            size.1,
            env!("CARGO_PKG_VERSION")
        ),
        versions,
        has_reference,
        shown,
        frames,
        whole,
        note: format!(
            "Estimates from short spans of the input, encoded by {} {}. The images are not encoded as video; bicubic is \
             FFmpeg's filter.",
            summary.encoder,
            summary.encoder_options.join(" ")
        ),
    };
    // Inside of a script element, `</script>` must not stand.
    Ok(include_str!("preview.html").replace("DATA", &json(&page).replace('<', "\\u003c")))
}

/// Times of the frames, in seconds from the beginning of the input.
fn times(args: &Args, options: &Options, duration_s: f64) -> Vec<f64> {
    let from_s = options.from_s.unwrap_or(0.0);
    match args.at.is_empty() {
        false => args.at.clone(),
        true if duration_s.is_finite() && duration_s * 25.0 > FRAMES as f64 => {
            (0..FRAMES).map(|i| from_s + duration_s * (2 * i + 1) as f64 / (2 * FRAMES) as f64).collect()
        }
        true => vec![from_s],
    }
}

/// Size of `count` images of frames of `size`: that of the frames, or a part of even sides.
fn shown_size((width, height): (usize, usize), count: usize) -> (usize, usize) {
    let share = (AREA_MAX as f64 / (width * height * count) as f64).sqrt();
    match share < 1.0 {
        true => ((width as f64 * share) as usize & !1, (height as f64 * share) as usize & !1),
        false => (width, height),
    }
}

fn show(
    args: &Args,
    jobs: &[(String, Options)],
    at_s: f64,
    size: (usize, usize),
    shown: (usize, usize),
    interrupt: &Interrupt,
) -> Result<Shown> {
    let reference = args.reference.as_ref();
    let reference =
        reference.map(|name| preview::reference(name, &jobs[0].1, at_s, interrupt)).transpose()?;
    let mut samples = vec![preview::bicubic(&jobs[0].1, at_s, size, interrupt)?];
    let at_s = samples[0].at_s;
    for (_, options) in jobs {
        samples.push(preview::upscaled(options, at_s, interrupt)?);
    }
    let (mut images, mut figures) = (Vec::new(), Vec::new());
    for Sample { frame, seconds, .. } in samples {
        let seconds = Some(seconds).filter(|&seconds| seconds > 0.0);
        let mut found = Figures { seconds, ..Figures::default() };
        if let (Some(reference), Some(name)) = (&reference, &args.reference) {
            let quality = Quality::default().add(&frame, &reference.frame).map_err(|e| {
                Error::new(name.to_string_lossy(), e.to_string(), "name a --reference of the output's size")
            })?;
            found.psnr_y_db = Some(quality.psnr).filter(|psnr| psnr.is_finite());
            found.ssim_y = Some(quality.ssim);
        }
        figures.push(found);
        images.push(image(frame, shown)?);
    }
    if let Some(reference) = reference {
        figures.push(Figures::default());
        images.push(image(reference.frame, shown)?);
    }
    Ok(Shown { at_s, images, figures })
}

/// The middle of a frame as an address that holds the image itself.
fn image(frame: Frame, (width, height): (usize, usize)) -> Result<String> {
    let (writer, media_type) = StillWriter::for_page(&frame.format, (width, height))?;
    let mut part = writer.frame()?;
    let frame = frames::convert(frame, part.format.pixel_format.name)?;
    let start = ((frame.format.width - width) / 2, (frame.format.height - height) / 2);
    frames::paste(&frame, start, &mut part, (0, 0), (width, height));
    Ok(format!("data:{media_type};base64,{}", STANDARD.encode(writer.encode(part)?)))
}

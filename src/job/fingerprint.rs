//! What the packets of a job depend on, under the names that a user knows it by. An option that changes packets is added
//! here, so that a resumed run notices its change.

use std::path::Path;

use tracing::info;

use super::options::Options;
use super::parts::Parts;
use crate::engine::cpu::level;
use crate::engine::{EngineChoice, EngineKind, cuda, thread_count};
use crate::error::{Error, ErrorKind, Result};
use crate::journal::{FFMPEG, JobFingerprint, Journal, checksum};
use crate::media::{self, Input};
use crate::model::catalogue;

/// The entry of the engine.
const ENGINE: &str = "engine";

/// The identity of an input's files, which begins the fingerprint of its job. One that cannot be read twice has none but its
/// name.
pub(super) fn of_source(options: &Options, input: &Input) -> Result<JobFingerprint> {
    if !options.is_read_twice()? {
        return Ok(JobFingerprint::of_pipe(input.name()));
    }
    match input.numbers() {
        Some(_) => JobFingerprint::of_files(input.source(), &input.paths()),
        None => JobFingerprint::of_input(input.source()),
    }
}

/// The fingerprint of an opened job. A run resumes an earlier one only if both have the same fingerprint.
pub(super) fn of_job(options: &Options, parts: &Parts) -> Result<JobFingerprint> {
    let mut job = of_source(options, &parts.input)?;
    let summary = &parts.summary;
    // The name in a weights file may be any, even that of a built-in model.
    let weights = of_weights(options.model.as_deref().unwrap_or(&summary.model))?;
    let engine = match parts.engine.kind {
        EngineKind::Cpu(level, precision) => format!("cpu {} {}", level.name(), precision.name()),
        EngineKind::Reference => "reference".into(),
        EngineKind::Cuda => format!("cuda {}", cuda::probe()?),
    };
    let encoder_options: Vec<_> =
        options.encoder_options.iter().map(|(key, value)| format!("{key}={value}")).collect();
    for (name, value) in [
        ("hasn", env!("CARGO_PKG_VERSION").to_owned()),
        (FFMPEG, media::info().version),
        ("model", format!("{} {weights}", summary.model).trim_end().to_owned()),
        (ENGINE, engine),
        ("--size", format!("{}x{}", summary.width, summary.height)),
        ("--preset", options.preset.map_or("none".into(), |preset| format!("{preset:?}"))),
        ("--encoder", summary.encoder.clone()),
        ("--encoder-opt", encoder_options.join(" ")),
        ("--crf", options.crf.clone().unwrap_or("none".into())),
        ("--encoder-preset", options.encoder_preset.clone().unwrap_or("none".into())),
        ("--pix-fmt", summary.pixel_format.to_owned()),
        ("--threads", thread_count(options.threads).to_string()),
        ("--from", options.from_s.map_or("the beginning".into(), |from_s| format!("{from_s} s"))),
        ("--to", options.to_s.map_or("the end".into(), |to_s| format!("{to_s} s"))),
        ("--frame-rate", options.frame_rate.map_or("none".into(), |(num, den)| format!("{num}/{den}"))),
        ("--start-number", options.start_number.map_or("none".into(), |number| number.to_string())),
        ("--exr-transfer", options.exr_transfer.clone().unwrap_or("none".into())),
        ("--deinterlace", format!("{:?}", options.deinterlace)),
        ("--filter", options.filter.clone().unwrap_or_default()),
        ("video stream", parts.input.video_index().to_string()),
        ("container", parts.output.container().to_owned()),
    ] {
        job.add(name, value);
    }
    Ok(job)
}

/// The engine that an earlier run has recorded in the journal in `folder`, if `options` do not ask for another: all frames
/// of a job are upscaled in the same way, whatever this machine would choose today.
pub(super) fn recorded_engine(options: &Options, folder: &Path) -> Result<Option<EngineKind>> {
    if !matches!(options.engine, EngineChoice::Auto | EngineChoice::Cpu) {
        return Ok(None);
    }
    let Some(engine) = Journal::recorded(folder, ENGINE)? else { return Ok(None) };
    let refused = |has: String| {
        let problem = format!("was started with engine {engine}, and this machine has {has}");
        let remedy = "resume on a machine that has the first, or --restart to start over";
        Error::new(folder.to_string_lossy(), problem, remedy).with_kind(ErrorKind::Unsupported)
    };
    if let (Some(gpu), EngineChoice::Auto, None) =
        (engine.strip_prefix("cuda "), options.engine, options.precision)
    {
        return match cuda::probe() {
            Ok(here) if here == gpu => Ok(Some(EngineKind::Cuda)),
            Ok(here) => Err(refused(format!("the GPU {here}"))),
            Err(why) => Err(refused("no GPU that hasn can use".to_owned()).with_source(why)),
        };
    }
    let Some((level, precision)) = engine.strip_prefix("cpu ").and_then(|names| names.split_once(' ')) else {
        return Ok(None);
    };
    // Another one is a change of the settings.
    if options.precision.is_some_and(|chosen| chosen.name() != precision) {
        return Ok(None);
    }
    let here = level::detect()?;
    let found = level::usable(level)?.and_then(|level| {
        let precision = level.precisions().find(|one| one.name() == precision)?;
        Some(EngineKind::Cpu(level, precision))
    });
    let kind = found.ok_or_else(|| refused(format!("the CPU level {}", here.name())))?;
    info!("{}: continues with engine {engine}", folder.display());
    Ok(Some(kind))
}

/// The fingerprint of a model's weights; empty for the resampler.
pub(super) fn of_weights(model: &str) -> Result<String> {
    Ok(match catalogue::find(model) {
        Some(built_in) => checksum(built_in.bytes),
        None if model == "none" => String::new(),
        None => {
            checksum(&std::fs::read(model).map_err(|e| Error::io(model, e, "check that it can be read"))?)
        }
    })
}

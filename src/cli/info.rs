//! `hasn info`: engines, models, and the FFmpeg build.

use std::collections::BTreeMap;
use std::process::ExitCode;

use serde::Serialize;

use super::console::{print, print_json};
use crate::engine::cpu::level;
use crate::engine::cpu::precision::Speeds;
use crate::engine::{cuda, thread_count};
use crate::error::Result;
use crate::media::{self, has_filter, video_encoders};
use crate::model::catalogue;

#[derive(clap::Args)]
pub(super) struct Args {
    /// Print one JSON object instead of lines.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Info {
    hasn: &'static str,
    /// The GPU; `None` where there is none.
    cuda: Option<String>,
    /// Why there is no GPU.
    cuda_missing: Option<String>,
    cpu_level: &'static str,
    threads: usize,
    /// The engine that auto takes.
    auto: &'static str,
    /// The precision that auto takes for up to 10 bits.
    precision: &'static str,
    models: Vec<&'static str>,
    ffmpeg: String,
    ffmpeg_license: &'static str,
    libvmaf: bool,
    /// Names of video encoders by codec.
    encoders: BTreeMap<String, Vec<String>>,
}

pub(super) fn run(args: &Args) -> Result<ExitCode> {
    let speeds = Speeds::of_this_machine()?;
    let ffmpeg = media::info();
    let (cuda, cuda_missing) = match cuda::probe() {
        Ok(gpu) => (Some(gpu.to_string()), None),
        Err(why) => (None, Some(why.to_string())),
    };
    let info = Info {
        hasn: env!("CARGO_PKG_VERSION"),
        auto: if cuda.is_some() { "cuda" } else { "cpu" },
        cuda,
        cuda_missing,
        cpu_level: level::detect()?.name(),
        threads: thread_count(None),
        precision: speeds.best().name(),
        models: catalogue::ALL.iter().map(|built_in| built_in.name).collect(),
        ffmpeg: ffmpeg.version,
        ffmpeg_license: ffmpeg.license,
        libvmaf: has_filter("libvmaf"),
        encoders: video_encoders(),
    };
    match args.json {
        true => print_json(&info)?,
        false => print(&as_lines(&info, &speeds))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn as_lines(info: &Info, speeds: &Speeds) -> String {
    let auto = |engine: &str| if info.auto == engine { "; the engine that auto takes" } else { "" };
    let cuda = match (&info.cuda, &info.cuda_missing) {
        (Some(gpu), _) => format!("yes: {gpu}"),
        (None, why) => format!("no: {}", why.as_deref().unwrap_or_default()),
    };
    let mut text = format!(
        "hasn       {version}\n\
         cuda       {cuda}{cuda_auto}\n\
         cpu        yes: {level}, {threads} threads{cpu_auto}\n\
         precision  auto takes {precision} for up to 10 bits: {speeds}\n\
         reference  yes: slow, the network as published, for checks\n\
         models     {models}\n\
         FFmpeg     {ffmpeg}, {license}\n\
         VMAF       {vmaf}\n\
         encoders   by codec; those of hardware that open here\n",
        version = info.hasn,
        cuda_auto = auto("cuda"),
        level = info.cpu_level,
        threads = info.threads,
        cpu_auto = auto("cpu"),
        precision = info.precision,
        models = info.models.join(" "),
        ffmpeg = info.ffmpeg,
        license = info.ffmpeg_license,
        vmaf = if info.libvmaf { "yes" } else { "no: this FFmpeg is built without libvmaf" },
    );
    let is_alone = |codec: &str, encoders: &[String]| encoders == [codec];
    let (alone, grouped): (Vec<_>, Vec<_>) =
        info.encoders.iter().partition(|(codec, encoders)| is_alone(codec, encoders));
    for (codec, encoders) in grouped {
        text += &format!("  {codec:15} {}\n", encoders.join(" "));
    }
    let alone: Vec<_> = alone.into_iter().map(|(codec, _)| codec.as_str()).collect();
    text += &format!("  of one name     {}\n", alone.join(" "));
    text
}

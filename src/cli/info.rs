//! `hasn info`: engines, models, and the FFmpeg build.

use std::process::ExitCode;

use super::console::print;
use crate::engine::cpu::level;
use crate::engine::cpu::precision::Speeds;
use crate::engine::{cuda, thread_count};
use crate::error::Result;
use crate::media;
use crate::model::catalogue;

pub(super) fn run() -> Result<ExitCode> {
    let ffmpeg = media::info();
    let level = level::detect()?.name();
    let speeds = Speeds::of_this_machine()?;
    let auto = "; the engine that auto takes";
    let (cuda, cuda_auto, cpu_auto) = match cuda::probe() {
        Ok(gpu) => (format!("yes: {gpu}"), auto, ""),
        Err(why) => (format!("no: {why}"), "", auto),
    };
    let models: Vec<_> = catalogue::ALL.iter().map(|built_in| built_in.name).collect();
    print(&format!(
        "hasn       {version}\n\
         cuda       {cuda}{cuda_auto}\n\
         cpu        yes: {level}, {threads} threads{cpu_auto}\n\
         precision  auto takes {precision} for up to 10 bits: {speeds}\n\
         reference  yes: slow, the network as published, for checks\n\
         models     {models}\n\
         FFmpeg     {ffmpeg_version}, {license}\n\
         encoders   {encoders}\n",
        version = env!("CARGO_PKG_VERSION"),
        threads = thread_count(None),
        precision = speeds.best().name(),
        models = models.join(" "),
        ffmpeg_version = ffmpeg.version,
        license = ffmpeg.license,
        encoders = ffmpeg.video_encoders.join(" "),
    ))?;
    Ok(ExitCode::SUCCESS)
}

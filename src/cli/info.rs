//! `hasn info`: what this program can use on this machine.

use std::process::ExitCode;

use super::{NO_CUDA, print, thread_count};
use crate::engine::cpu::Level;
use crate::error::Result;
use crate::media;
use crate::model::catalogue;

pub(super) fn run() -> Result<ExitCode> {
    let ffmpeg = media::info();
    let level = Level::detect()?.name();
    let models: Vec<_> = catalogue::ALL.iter().map(|built_in| built_in.name).collect();
    print(&format!(
        "hasn       {version}\n\
         cuda       no: {NO_CUDA}\n\
         cpu        yes: {level}, {threads} threads; the engine that auto takes\n\
         reference  yes: slow, the network as published, for checks\n\
         models     {models}\n\
         FFmpeg     {ffmpeg_version}, {license}\n\
         encoders   {encoders}\n",
        version = env!("CARGO_PKG_VERSION"),
        threads = thread_count(None),
        models = models.join(" "),
        ffmpeg_version = ffmpeg.version,
        license = ffmpeg.license,
        encoders = ffmpeg.video_encoders.join(" "),
    ))?;
    Ok(ExitCode::SUCCESS)
}

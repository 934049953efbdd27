//! `hasn upscale --dry-run`: prints what a run would do and take.

use std::path::Path;
use std::process::ExitCode;

use super::console::{print, print_json};
use super::output::{counted, json};
use super::progress::{Show, clock, headline, size};
use crate::error::Result;
use crate::job::dry_run::DryRun;
use crate::job::{Interrupt, Job, write_report};

/// Prints it, and writes it to `report`.
pub(super) fn run(job: Job, show: Show, report: Option<&Path>, interrupt: &Interrupt) -> Result<ExitCode> {
    let found = DryRun::of(job)?;
    match show {
        Show::Json => print_json(&found)?,
        _ => print(&as_lines(&found))?,
    }
    if let Some(path) = report {
        write_report(path, &json(&found), interrupt)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn as_lines(found: &DryRun) -> String {
    let mut lines = vec![headline(&found.summary)];
    for stream in &found.streams {
        let detail = match (&stream.detail, stream.action) {
            (Some(codec), "converted") => format!(" to {codec}"),
            (Some(reason), _) => format!(": {reason}"),
            (None, _) => String::new(),
        };
        let language = stream.language.as_ref().map_or(String::new(), |language| format!(", {language}"));
        let what = format!("{} ({}{language})", stream.kind, stream.codec);
        lines.push(format!("stream {:<3} {what:28} {}{detail}", stream.index, stream.action));
    }
    if found.already_complete {
        lines.push("is already complete: nothing is left to do".to_owned());
    }
    if found.finished_frames > 0 {
        lines.push(format!("finished   {} by an earlier run", counted(found.finished_frames, "frame")));
    }
    if let Some(estimate) = &found.estimate {
        let measured = counted(estimate.measured_frames, "frame");
        lines.push(match (estimate.frames, estimate.seconds) {
            (Some(frames), Some(seconds)) => format!(
                "time       about {} for {}, {:.1} fps, measured on {measured}",
                clock(seconds),
                counted(frames, "frame"),
                estimate.fps
            ),
            _ => format!(
                "time       {:.1} fps, measured on {measured}; the container states no length",
                estimate.fps
            ),
        });
        if let (Some(output), Some(video)) = (estimate.output_bytes, estimate.video_bytes) {
            lines.push(format!(
                "output     about {}, {} of them video",
                size(output as f64),
                size(video as f64)
            ));
        }
    }
    if let Some(disk) = found.disk_bytes {
        let free = found.disk_free_bytes.map_or(String::new(), |free| {
            let is_enough = if free > disk { "" } else { ": too little" };
            format!(", {} are free{is_enough}", size(free as f64))
        });
        lines.push(format!("disk       about {} until the output is complete{free}", size(disk as f64)));
    }
    lines.push(format!("memory     up to {}", size(found.summary.memory_expected_bytes as f64)));
    lines.join("\n") + "\n"
}

//! `hasn plan`, `hasn segment`, `hasn join`: one video upscaled by many processes, which a scheduler starts.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::console::print;
use super::output::exit_code;
use super::upscale::{self, Args, parse_plan};
use super::{progress, signals};
use crate::engine::thread_count;
use crate::error::{Error, Result};
use crate::job::farm::{self, PlannedCommand};
use crate::media::Place;

#[derive(clap::Args)]
pub(super) struct SegmentArgs {
    /// Folder that hasn plan has created.
    plan: PathBuf,
    /// Number of the segment, from 0.
    segment: u64,
}

#[derive(clap::Args)]
pub(super) struct JoinArgs {
    /// Folder that hasn plan has created.
    plan: PathBuf,
    /// Output instead of that of hasn plan; its container may be another one.
    output: Option<PathBuf>,
}

/// Plans by the words of the command line.
pub(super) fn plan(args: Args, line: Vec<OsString>) -> Result<ExitCode> {
    if args.dry_run {
        return Err(Error::new(
            "--dry-run",
            "a plan encodes nothing",
            "leave it out, or give it to hasn upscale",
        ));
    }
    let interrupt = signals::catch()?;
    let folder = std::env::current_dir()
        .map_err(|e| Error::io("the current folder", e, "change to one that exists"))?;
    let text = |word: OsString| {
        word.into_string().map_err(|word| {
            let problem = "is not UTF-8, which a plan stores";
            Error::new(word.to_string_lossy(), problem, "give it another name")
        })
    };
    let words = line.into_iter().skip_while(|word| word != "plan").skip(1);
    let mut words = words.map(text).collect::<Result<Vec<String>>>()?;
    if args.threads.is_none() {
        // The number of threads changes what some encoders write, so it has to be the same on all machines.
        words.extend(["--threads".to_owned(), thread_count(None).to_string()]);
    }
    let planned = farm::plan(&args.options(), PlannedCommand { folder, words }, &interrupt)?;
    let (frames, last) = (planned.frames, planned.segments - 1);
    print(&format!("{}: {frames} frames in segments 0 to {last}\n", planned.folder.display()))?;
    Ok(ExitCode::SUCCESS)
}

/// Encodes one segment. One that exists is left as it is.
pub(super) fn segment(args: SegmentArgs) -> Result<ExitCode> {
    let interrupt = signals::catch()?;
    let (folder, upscale) = read(&args.plan)?;
    let progress = progress::shown(upscale.progress, false);
    let report = farm::segment(&upscale.options(), &folder, args.segment, &progress, &interrupt)?;
    let (place, number) = (args.plan.display(), args.segment);
    let Some(report) = report else {
        print(&format!("{place}: segment {number} exists already\n"))?;
        return Ok(ExitCode::SUCCESS);
    };
    if !report.is_interrupted() {
        let (frames, seconds, fps) = (report.run.frames.encoded, report.run.seconds, report.run.fps);
        print(&format!("{place}: segment {number}, {frames} frames, {seconds:.1} s, {fps:.1} fps\n"))?;
    }
    Ok(exit_code(report.is_interrupted()))
}

pub(super) fn join(args: JoinArgs) -> Result<ExitCode> {
    let interrupt = signals::catch()?;
    let path_of = |output| absolute(Place::of_output(output).path().unwrap_or(output));
    let output = args.output.as_deref().map(path_of).transpose()?;
    if is_joined(&args.plan, output.as_deref()) || farm::remove_left_over(&args.plan) {
        print(&format!("{}: its video is already complete\n", args.plan.display()))?;
        return Ok(ExitCode::SUCCESS);
    }
    let (folder, upscale) = read(&args.plan)?;
    let frames = farm::join(&upscale.options(), &folder, &args.plan, output.as_deref(), &interrupt)?;
    print(&format!("{}: {frames} frames\n", output.unwrap_or(upscale.files.output.into()).display()))?;
    Ok(ExitCode::SUCCESS)
}

/// Whether the folder of a plan is gone because its video is complete.
fn is_joined(plan: &Path, output: Option<&Path>) -> bool {
    let planned = plan.with_extension("");
    let is_plan = plan.extension().is_some_and(|extension| extension == "hasn");
    is_plan && !plan.exists() && output.unwrap_or(&planned).is_file()
}

fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).map_err(|e| Error::io(path.to_string_lossy(), e, "name it otherwise"))
}

/// Returns the folder of a plan and the arguments of `hasn plan`. Their paths are relative to the folder in which it ran,
/// which becomes the current folder.
fn read(folder: &Path) -> Result<(PathBuf, upscale::Args)> {
    let folder = absolute(folder)?;
    let command = farm::command(&folder)?;
    std::env::set_current_dir(&command.folder).map_err(|e| {
        let remedy = "plans are for machines that share their files";
        Error::io(command.folder.to_string_lossy(), e, remedy)
    })?;
    let args = parse_plan(&folder, &command.words)?;
    Ok((folder, args))
}

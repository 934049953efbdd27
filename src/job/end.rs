//! How a run ended: the keys that every report has, whatever else is known of the run.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use humantime::format_rfc3339_millis;
use serde::Serialize;

use super::options::Options;
use crate::error::{Error, ErrorKind};
use crate::journal::Journal;
use crate::media::{self, Output, redacted};

/// Version of the reports and of the lines of progress; `docs/report.schema.json` describes them. It rises when a key goes
/// or changes its meaning.
pub(crate) const SCHEMA: u32 = 1;

/// The exit code of an interrupted run, which is the one that shells report for SIGINT.
pub(crate) const INTERRUPTED: u8 = 130;

/// The time since the Unix epoch.
pub(crate) fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// A time since the Unix epoch in RFC 3339.
pub(crate) fn rfc3339(time: Duration) -> String {
    format_rfc3339_millis(UNIX_EPOCH + time).to_string()
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Status {
    /// The output is complete.
    Ok,
    /// It failed.
    Failed,
    /// The user ended it.
    Interrupted,
    /// The input is damaged, and more so than the options tolerate.
    Damaged,
}

impl Status {
    fn of(error: &Error) -> Status {
        match error.kind() {
            ErrorKind::Interrupted => Status::Interrupted,
            ErrorKind::Damaged => Status::Damaged,
            _ => Status::Failed,
        }
    }

    /// Exit code of the program.
    pub fn exit_code(self) -> u8 {
        match self {
            Status::Ok => 0,
            Status::Failed | Status::Damaged => 1,
            Status::Interrupted => INTERRUPTED,
        }
    }
}

/// The keys of every report.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct End {
    /// Version of this crate.
    hasn: &'static str,
    /// Version of the report.
    schema: u32,
    /// Version of FFmpeg.
    ffmpeg: String,
    /// Input as in the options, without secrets.
    input: String,
    /// Output as in the options.
    output: String,
    status: Status,
    exit_code: u8,
    error: Option<ErrorReport>,
    /// The file that holds the frames, which may be the partial one.
    output_path: Option<String>,
    output_bytes: Option<u64>,
    /// The folder from which the same command resumes.
    journal: Option<String>,
    started: String,
    ended: String,
}

/// An error for programs.
#[derive(Clone, Debug, Serialize)]
struct ErrorReport {
    kind: &'static str,
    message: String,
}

impl End {
    /// The end of a run whose output is complete; `path` is that of the file, whose name may still be a partial one.
    pub fn complete(options: &Options, started: Duration, path: Option<&Path>) -> End {
        let output = Output::new(&options.output, &options.input).ok();
        let is_file = output.as_ref().is_some_and(|output| output.sequence().is_none());
        let name = output.as_ref().and_then(Output::path);
        let output_bytes = path.or(name).filter(|_| is_file).and_then(size_of);
        let output_path = name.map(text_of);
        End { output_path, output_bytes, journal: None, ..End::new(options, started, Status::Ok, None) }
    }

    /// The end of a run that was interrupted, in order.
    pub fn interrupted(options: &Options, started: Duration) -> End {
        End::new(options, started, Status::Interrupted, None)
    }

    /// The end of a run that failed.
    pub fn failed(options: &Options, started: Duration, error: &Error) -> End {
        End::new(options, started, Status::of(error), Some(error))
    }

    fn new(options: &Options, started: Duration, status: Status, error: Option<&Error>) -> End {
        let error = error.map(|error| ErrorReport { kind: error.kind().name(), message: error.to_string() });
        let output = Output::new(&options.output, &options.input).ok();
        let journal = output.as_ref().and_then(Output::path).map(Journal::folder_of);
        let journal = journal.filter(|folder| Journal::is_journal(folder));
        let partial = output.as_ref().and_then(Output::partial);
        let is_ours = |path: &&Path| {
            let written = fs::metadata(path).and_then(|data| data.modified());
            // File systems count time in ticks.
            let has_written =
                written.is_ok_and(|written| written + Duration::from_millis(10) >= UNIX_EPOCH + started);
            has_written || (path.exists() && journal.as_deref().is_some_and(Journal::owns_partial))
        };
        let partial = partial.filter(is_ours);
        End {
            schema: SCHEMA,
            hasn: env!("CARGO_PKG_VERSION"),
            ffmpeg: media::info().version,
            input: redacted(&options.input),
            output: options.output.to_string_lossy().into_owned(),
            status,
            exit_code: status.exit_code(),
            error,
            output_path: partial.map(text_of),
            output_bytes: partial.and_then(size_of),
            journal: journal.as_deref().map(text_of),
            started: rfc3339(started),
            ended: rfc3339(now()),
        }
    }
}

fn size_of(path: &Path) -> Option<u64> {
    fs::metadata(path).ok().filter(|data| data.is_file()).map(|data| data.len())
}

fn text_of(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// Paths of the files that the run of a video reads and writes.
pub(crate) fn files_of(input: &OsStr, output: &OsStr, model: Option<&str>) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> =
        [Some(input), Some(output), model.map(OsStr::new)].into_iter().flatten().map(PathBuf::from).collect();
    files.extend(Output::new(output, input).ok().and_then(|output| output.partial().map(Path::to_path_buf)));
    files
}

/// Whether a file may be an earlier report, which a report replaces, rather than one of the files of an input that is not
/// known yet.
pub(super) fn may_be_report(path: &Path) -> bool {
    let mut first = [b'{'];
    let is_file = fs::metadata(path).is_ok_and(|data| data.is_file());
    !is_file || File::open(path).and_then(|mut file| file.read(&mut first)).is_ok_and(|_| first == *b"{")
}

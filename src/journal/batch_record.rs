//! The record of a batch: what each output was encoded from, in a hidden file beside it, so that a second start skips what
//! is up to date.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::fingerprint::JobFingerprint;
use super::folder::{failed, identity, write_atomically};
use crate::error::{Error, ErrorKind, Result};

/// The record of `video.mkv` is `.video.mkv.hasn-batch`.
const EXTENSION: &str = ".hasn-batch";

/// Content of the file. It is written before the output, so that after a crash no output lacks its record.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Record {
    fingerprint: JobFingerprint,
    /// Identity of the file that the output replaces: any other file of that name is the complete output.
    replaced: Option<String>,
    /// `None` until the run has ended.
    output: Option<Output>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Output {
    /// Size and checksum of the file.
    content: String,
    /// Report of the run.
    report: Value,
}

/// State of an output of a batch.
#[derive(Debug)]
pub enum OutputState {
    /// The output exists with the same fingerprint. The value is the report of its run.
    UpToDate(Value),
    /// No file has the output's name.
    Missing,
    /// Another file has the output's name.
    Conflict(Error),
}

impl OutputState {
    /// Returns the state of an output that is to have this fingerprint.
    pub fn of(output: &Path, fingerprint: &JobFingerprint) -> Result<OutputState> {
        let existing = match identity(output) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(OutputState::Missing),
            existing => existing.map_err(|e| failed(output, e))?,
        };
        let conflict = |problem: String, remedy: &str| {
            let error = Error::new(output.to_string_lossy(), problem, remedy);
            Ok(OutputState::Conflict(error.with_kind(ErrorKind::Exists)))
        };
        let no_record = || {
            let problem = "already exists, and no record says what it was encoded from";
            conflict(problem.into(), "-y overwrites it, or move it away")
        };
        let path = path_of(output);
        let record: Record = match fs::read(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return no_record(),
            bytes => match serde_json::from_slice(&bytes.map_err(|e| failed(&path, e))?) {
                Ok(record) => record,
                Err(e) => {
                    let problem = format!("already exists, and {} is truncated: {e}", path.display());
                    return conflict(problem, "-y overwrites it");
                }
            },
        };
        match &record.output {
            Some(written) if written.content != content_of(output)? => {
                let problem = "was modified after the batch wrote it";
                return conflict(problem.into(), "-y overwrites it, or move it away");
            }
            None if record.replaced.as_ref() == Some(&existing) => return no_record(),
            _ => {}
        }
        match record.fingerprint.difference(fingerprint) {
            Some(difference) => conflict(format!("was encoded {difference}"), "-y encodes it again"),
            None => Ok(OutputState::UpToDate(record.output.map_or(Value::Null, |written| written.report))),
        }
    }
}

/// Record of an output that is being encoded.
pub struct BatchRecord {
    output: PathBuf,
    record: Record,
    /// Record of the existing output, to be restored if that stays.
    previous: Option<Vec<u8>>,
}

impl BatchRecord {
    /// Writes the record of an output that is about to be encoded.
    pub fn start(output: &Path, fingerprint: JobFingerprint) -> Result<BatchRecord> {
        let record = Record { fingerprint, replaced: identity(output).ok(), output: None };
        let previous = fs::read(path_of(output)).ok();
        let record = BatchRecord { output: output.to_owned(), record, previous };
        record.write().map(|()| record)
    }

    /// Adds the finished output and the report of its run.
    pub fn finish(mut self, report: Value) -> Result<()> {
        self.record.output = Some(Output { content: content_of(&self.output)?, report });
        self.write()
    }

    /// Restores the previous record, when the output was not encoded.
    pub fn restore(self) -> Result<()> {
        let path = path_of(&self.output);
        let restored = match &self.previous {
            Some(bytes) => write_atomically(&path, bytes),
            None => fs::remove_file(&path),
        };
        restored.map_err(|e| failed(&path, e))
    }

    fn write(&self) -> Result<()> {
        let path = path_of(&self.output);
        let json = serde_json::to_vec_pretty(&self.record).expect("plain data is always JSON");
        write_atomically(&path, &json).map_err(|e| failed(&path, e))
    }
}

fn path_of(output: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(output.file_name().unwrap_or_default());
    name.push(EXTENSION);
    output.with_file_name(name)
}

fn content_of(output: &Path) -> Result<String> {
    JobFingerprint::of_input(&output.to_string_lossy()).map(|fingerprint| fingerprint.content())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fingerprint(crf: &str) -> JobFingerprint {
        let mut fingerprint = JobFingerprint::of_input(env!("CARGO_MANIFEST_PATH")).unwrap();
        fingerprint.add("--encoder-opt", crf);
        fingerprint
    }

    fn state(output: &Path, crf: &str) -> String {
        match OutputState::of(output, &fingerprint(crf)).unwrap() {
            OutputState::UpToDate(report) => format!("up to date {report}"),
            OutputState::Missing => "missing".into(),
            OutputState::Conflict(error) => error.to_string(),
        }
    }

    /// Wherever a batch is cut off, the state of the file under the output's name is known.
    #[test]
    fn the_state_of_an_output_is_known_at_every_moment() {
        let folder = tempfile::tempdir().unwrap();
        let output = folder.path().join("video.mkv");
        assert_eq!(state(&output, "18"), "missing");
        fs::write(&output, "another file").unwrap();
        assert!(state(&output, "18").contains("already exists, and no record"));
        let record = BatchRecord::start(&output, fingerprint("18")).unwrap();
        assert!(state(&output, "18").contains("already exists"), "the run that is to replace it was cut off");
        record.restore().unwrap();
        assert!(!path_of(&output).exists());
        let record = BatchRecord::start(&output, fingerprint("18")).unwrap();
        fs::write(folder.path().join("new"), "encoded").unwrap();
        fs::rename(folder.path().join("new"), &output).unwrap();
        assert_eq!(state(&output, "18"), "up to date null", "cut off between the video and its record");
        record.finish(Value::from(7)).unwrap();
        assert_eq!(state(&output, "18"), "up to date 7");
        assert!(state(&output, "20").contains("was encoded with --encoder-opt 18, now 20; -y"));
        BatchRecord::start(&output, fingerprint("20")).unwrap().restore().unwrap();
        assert_eq!(state(&output, "18"), "up to date 7", "a run that failed changes nothing");
        fs::write(&output, "modified").unwrap();
        assert!(state(&output, "18").contains("was modified after"));
        fs::write(path_of(&output), "{\"fingerprint\"").unwrap();
        assert!(state(&output, "18").contains("is truncated"));
        fs::remove_file(&output).unwrap();
        assert_eq!(state(&output, "18"), "missing");
    }
}

//! Made: what a batch has made from what, in a hidden file beside each output, so that a second start knows what is done.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::fingerprint::JobFingerprint;
use super::folder::{failed, identity, write_whole};
use crate::error::{Error, Result};

/// Beside `video.mkv` lies `.video.mkv.hasn-batch`.
const EXTENSION: &str = ".hasn-batch";

/// What the file holds. It is there before the output is, so that no crash comes between the two.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Record {
    facts: JobFingerprint,
    /// What lay under the output's name before: anything else that lies there is whole.
    before: Option<String>,
    /// `None` until the run has told its end.
    output: Option<Output>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Output {
    content: String,
    /// The run's own.
    report: Value,
}

/// How an output stands that is asked for.
#[derive(Debug)]
pub enum OutputState {
    /// It is there, from the same, with its run's report.
    UpToDate(Value),
    /// Nothing lies under its name.
    Missing,
    /// Something else lies there.
    Conflict(Error),
}

impl OutputState {
    /// Of an output that is to depend on these facts.
    pub fn of(output: &Path, facts: &JobFingerprint) -> Result<OutputState> {
        let there = match identity(output) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(OutputState::Missing),
            there => there.map_err(|e| failed(output, e))?,
        };
        let in_the_way = |problem: String, remedy: &str| {
            Ok(OutputState::Conflict(Error::new(output.to_string_lossy(), problem, remedy)))
        };
        let path = path_of(output);
        let unknown = "no record says what it was made from: -y makes it again, or move it away";
        let record: Record = match fs::read(&path) {
            Err(e) if e.kind() == ErrorKind::NotFound => {
                return in_the_way("is there already".into(), unknown);
            }
            bytes => match serde_json::from_slice(&bytes.map_err(|e| failed(&path, e))?) {
                Ok(record) => record,
                Err(e) => {
                    let problem = format!("is there already, and {} is torn: {e}", path.display());
                    return in_the_way(problem, "-y makes it again");
                }
            },
        };
        match &record.output {
            Some(made) if made.content != content_of(output)? => {
                return in_the_way(
                    "is not what was made: it was changed since".into(),
                    "-y makes it again, or move it away",
                );
            }
            None if record.before.as_ref() == Some(&there) => {
                return in_the_way("is there already".into(), unknown);
            }
            _ => {}
        }
        match record.facts.change(facts) {
            Some(change) => in_the_way(format!("was made {change}"), "-y makes it again"),
            None => Ok(OutputState::UpToDate(record.output.map_or(Value::Null, |made| made.report))),
        }
    }
}

/// An output that is being made.
pub struct BatchRecord {
    output: PathBuf,
    record: Record,
    /// The record of what lies there, should it stay.
    former: Option<Vec<u8>>,
}

impl BatchRecord {
    /// Writes down what it is made from.
    pub fn start(output: &Path, facts: JobFingerprint) -> Result<BatchRecord> {
        let record = Record { facts, before: identity(output).ok(), output: None };
        let making =
            BatchRecord { output: output.to_owned(), record, former: fs::read(path_of(output)).ok() };
        making.write().map(|()| making)
    }

    /// It is there.
    pub fn finish(mut self, report: Value) -> Result<()> {
        self.record.output = Some(Output { content: content_of(&self.output)?, report });
        self.write()
    }

    /// It was not made: all is as it was.
    pub fn restore(self) -> Result<()> {
        let path = path_of(&self.output);
        let back = match &self.former {
            Some(bytes) => write_whole(&path, bytes),
            None => fs::remove_file(&path),
        };
        back.map_err(|e| failed(&path, e))
    }

    fn write(&self) -> Result<()> {
        let path = path_of(&self.output);
        let json = serde_json::to_vec_pretty(&self.record).expect("plain data is always JSON");
        write_whole(&path, &json).map_err(|e| failed(&path, e))
    }
}

fn path_of(output: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(output.file_name().unwrap_or_default());
    name.push(EXTENSION);
    output.with_file_name(name)
}

fn content_of(output: &Path) -> Result<String> {
    JobFingerprint::of_input(&output.to_string_lossy()).map(|facts| facts.content())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(crf: &str) -> JobFingerprint {
        let mut facts = JobFingerprint::of_input(env!("CARGO_MANIFEST_PATH")).unwrap();
        facts.add("--encoder-opt", crf);
        facts
    }

    fn told(output: &Path, crf: &str) -> String {
        match OutputState::of(output, &facts(crf)).unwrap() {
            OutputState::UpToDate(report) => format!("made {report}"),
            OutputState::Missing => "missing".into(),
            OutputState::Conflict(error) => error.to_string(),
        }
    }

    /// Whatever is cut off where, what lies under the name is known for what it is.
    #[test]
    fn an_output_is_known_at_every_moment() {
        let folder = tempfile::tempdir().unwrap();
        let output = folder.path().join("video.mkv");
        assert_eq!(told(&output, "18"), "missing");
        fs::write(&output, "of somebody").unwrap();
        assert!(told(&output, "18").contains("is there already; no record"));
        let making = BatchRecord::start(&output, facts("18")).unwrap();
        assert!(
            told(&output, "18").contains("is there already"),
            "the run that is to replace it was cut off"
        );
        making.restore().unwrap();
        assert!(!path_of(&output).exists());
        let making = BatchRecord::start(&output, facts("18")).unwrap();
        fs::write(folder.path().join("new"), "made").unwrap();
        fs::rename(folder.path().join("new"), &output).unwrap();
        assert_eq!(told(&output, "18"), "made null", "cut off between the video and its record");
        making.finish(Value::from(7)).unwrap();
        assert_eq!(told(&output, "18"), "made 7");
        assert!(told(&output, "20").contains("was made with --encoder-opt 18, and now it is 20; -y"));
        BatchRecord::start(&output, facts("20")).unwrap().restore().unwrap();
        assert_eq!(told(&output, "18"), "made 7", "a run that failed changes nothing");
        fs::write(&output, "else").unwrap();
        assert!(told(&output, "18").contains("it was changed since"));
        fs::write(path_of(&output), "{\"facts\"").unwrap();
        assert!(told(&output, "18").contains("is torn"));
        fs::remove_file(&output).unwrap();
        assert_eq!(told(&output, "18"), "missing");
    }
}

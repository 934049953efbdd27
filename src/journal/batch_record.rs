//! The record of a batch: what each output was encoded from, in a hidden file beside it, so that a second start skips what
//! is up to date.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::disk::{Disk, failed};
use super::fingerprint::{JobFingerprint, content_of};
use super::folder::{self, write_atomically};
use super::segments::Journal;
use crate::error::{Error, ErrorKind, Result};
use crate::media::folder_of;

/// The record of `video.mkv` is `.video.mkv.hasn-batch`.
const EXTENSION: &str = ".hasn-batch";

/// Content of the file. It is written before the output, so that after a crash no output lacks its record.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Record {
    fingerprint: JobFingerprint,
    /// Content and modification time of the file that the output replaces: any other file of that name is the complete
    /// output.
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
        let existing = match JobFingerprint::of_input(output) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(OutputState::Missing),
            existing => existing?,
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
            Some(written) if written.content != existing.content() => {
                let problem = "was modified after the batch wrote it";
                return conflict(problem.into(), "-y overwrites it, or move it away");
            }
            // The journal of a run that was cut off, which writes its output last.
            None if Journal::is_unfinished(output) => return no_record(),
            None if record.replaced.as_ref() == Some(&existing.content_and_time()) => return no_record(),
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
    disk: Disk,
    record: Record,
    /// Record of the existing output, to be restored if that stays.
    previous: Option<Vec<u8>>,
}

impl BatchRecord {
    /// Writes the record of an output that is about to be encoded, and creates its folder. Setting `interrupt` ends a wait
    /// for space.
    pub fn start(
        output: &Path,
        fingerprint: JobFingerprint,
        interrupt: &Arc<AtomicBool>,
    ) -> Result<BatchRecord> {
        let folder = folder_of(output);
        let disk = Disk::new(folder, interrupt.clone());
        disk.retry_call(0, || folder::create_all(folder))?;
        let existing = JobFingerprint::of_input(output).ok();
        let replaced = existing.map(|existing| existing.content_and_time());
        let record = Record { fingerprint, replaced, output: None };
        let previous = fs::read(path_of(output)).ok();
        let record = BatchRecord { output: output.to_owned(), disk, record, previous };
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
        match &self.previous {
            Some(bytes) => self.disk.retry_call(bytes.len() as u64, || write_atomically(&path, bytes)),
            None => fs::remove_file(&path).map_err(|e| failed(&path, e)),
        }
    }

    fn write(&self) -> Result<()> {
        let path = path_of(&self.output);
        let json = serde_json::to_vec_pretty(&self.record).expect("plain data is always JSON");
        self.disk.retry_call(json.len() as u64, || write_atomically(&path, &json))
    }
}

fn path_of(output: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(output.file_name().unwrap_or_default());
    name.push(EXTENSION);
    output.with_file_name(name)
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
        let start = |crf: &str| BatchRecord::start(&output, fingerprint(crf), &Arc::default()).unwrap();
        assert_eq!(state(&output, "18"), "missing");
        fs::write(&output, "another file").unwrap();
        assert!(state(&output, "18").contains("already exists, and no record"));
        let record = start("18");
        assert!(state(&output, "18").contains("already exists"), "the run that is to replace it was cut off");
        record.restore().unwrap();
        assert!(!path_of(&output).exists());
        let record = start("18");
        fs::write(folder.path().join("new"), "encoded").unwrap();
        fs::rename(folder.path().join("new"), &output).unwrap();
        assert_eq!(state(&output, "18"), "up to date null", "cut off between the video and its record");
        record.finish(Value::from(7)).unwrap();
        assert_eq!(state(&output, "18"), "up to date 7");
        assert!(state(&output, "20").contains("was encoded with --encoder-opt 18, now 20; -y"));
        start("20").restore().unwrap();
        assert_eq!(state(&output, "18"), "up to date 7", "a run that failed changes nothing");
        fs::write(&output, "modified").unwrap();
        assert!(state(&output, "18").contains("was modified after"));
        fs::write(path_of(&output), "{\"fingerprint\"").unwrap();
        assert!(state(&output, "18").contains("is truncated"));
        fs::remove_file(&output).unwrap();
        assert_eq!(state(&output, "18"), "missing");
    }

    /// A file system that is mounted again may number its files differently, and a copy has a number of its own.
    #[test]
    fn the_file_to_replace_is_known_under_another_number() {
        let folder = tempfile::tempdir().unwrap();
        let (output, copy) = (folder.path().join("video.mkv"), folder.path().join("copy.mkv"));
        fs::write(&output, "before").unwrap();
        BatchRecord::start(&output, fingerprint("18"), &Arc::default()).unwrap();
        fs::copy(&output, &copy).unwrap();
        let modified = fs::metadata(&output).unwrap().modified().unwrap();
        fs::File::options().append(true).open(&copy).unwrap().set_modified(modified).unwrap();
        fs::rename(&copy, &output).unwrap();
        assert!(state(&output, "18").contains("already exists, and no record"));
    }

    #[test]
    fn an_output_beside_its_unfinished_journal_is_another_file() {
        let folder = tempfile::tempdir().unwrap();
        let output = folder.path().join("video.mkv");
        let journal = || Journal::open(&Journal::folder_of(&output), &fingerprint("18"), &Arc::default());
        BatchRecord::start(&output, fingerprint("18"), &Arc::default()).unwrap();
        let journal = journal().unwrap();
        fs::write(&output, "another").unwrap();
        assert!(state(&output, "18").contains("already exists, and no record"));
        journal.mark_joined(&output, "{}").unwrap();
        assert_eq!(state(&output, "18"), "up to date null", "cut off before it removed its journal");
    }
}

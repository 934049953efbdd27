//! The fingerprint of a job: everything that the packets of a segment depend on. A run resumes only with the same one.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::error::{Error, ErrorKind, Result};
use crate::media::{Place, redacted};

/// Names and values, in the order in which a difference is reported.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobFingerprint {
    version: u32,
    entries: Vec<Entry>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    name: String,
    value: String,
}

/// The entry of FFmpeg's version, which a package manager may change during a run.
pub const FFMPEG: &str = "FFmpeg";

/// Version of the layout of the folder and of segments.
const VERSION: u32 = 2;

/// Size of the parts at the start, middle and end of an input that are read for its checksum.
const PART_BYTES: usize = 1 << 20;

impl JobFingerprint {
    /// Fingerprint of an input of many files: their names, sizes and modification times.
    pub fn of_files(name: &OsStr, paths: &[PathBuf]) -> Result<JobFingerprint> {
        let (mut sizes, mut times) = (Vec::new(), Vec::new());
        for path in paths {
            let stat = || -> io::Result<(u64, SystemTime)> {
                let metadata = path.metadata()?;
                Ok((metadata.len(), metadata.modified()?))
            };
            let (size, modified) = stat().map_err(|e| cannot_be_read(&path.to_string_lossy(), e))?;
            sizes.extend(size.to_le_bytes());
            times.extend(modified.duration_since(UNIX_EPOCH).map_or(0, |t| t.as_nanos()).to_le_bytes());
        }
        let names: Vec<_> = paths.iter().map(|path| path.to_string_lossy()).collect();
        let checksum_of_names = checksum(names.join("\n").as_bytes());
        let files = format!("{} files of {} ({checksum_of_names})", paths.len(), name.to_string_lossy());
        let mut fingerprint = JobFingerprint { version: VERSION, entries: Vec::new() };
        fingerprint.add("input files", files);
        fingerprint.add("input file sizes", checksum(&sizes));
        fingerprint.add("input modification times", checksum(&times));
        Ok(fingerprint)
    }

    /// Fingerprint of an input that cannot be read twice.
    pub fn of_pipe(name: &str) -> JobFingerprint {
        let mut fingerprint = JobFingerprint { version: VERSION, entries: Vec::new() };
        fingerprint.add("input", name);
        fingerprint
    }

    /// Fingerprint of an input file: its size, modification time and the content of parts of it.
    pub fn of_input(name: impl AsRef<OsStr>) -> Result<JobFingerprint> {
        let read = || -> io::Result<JobFingerprint> {
            let mut file = File::open(Place::of(&name).path().unwrap_or(Path::new("")))?;
            let metadata = file.metadata()?;
            // A device has neither a size nor a time of its own.
            let is_device = metadata.file_type().is_block_device();
            let modified = if is_device { UNIX_EPOCH } else { metadata.modified()? };
            let modified = modified.duration_since(UNIX_EPOCH).map_or(0.0, |t| t.as_secs_f64());
            let size = file.seek(SeekFrom::End(0))?;
            let mut parts = Vec::new();
            for start in [0, size / 2, size.saturating_sub(PART_BYTES as u64)] {
                let mut part = vec![0; PART_BYTES.min((size - start) as usize)];
                file.read_exact_at(&mut part, start)?;
                parts.extend(part);
            }
            let mut fingerprint = JobFingerprint { version: VERSION, entries: Vec::new() };
            fingerprint.add("input size", format!("{size} bytes"));
            fingerprint.add("input modification time", format!("{modified:.3}"));
            fingerprint.add("input content", checksum(&parts));
            Ok(fingerprint)
        };
        read().map_err(|e| cannot_be_read(&redacted(&name), e))
    }

    /// Adds an entry under the name that a user knows it by.
    pub fn add(&mut self, name: &str, value: impl Into<String>) {
        self.entries.push(Entry { name: name.into(), value: value.into() });
    }

    /// Returns the value of an entry.
    pub(super) fn take(self, name: &str) -> Option<String> {
        self.entries.into_iter().find(|entry| entry.name == name).map(|entry| entry.value)
    }

    pub(super) fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec_pretty(self).expect("plain data is always JSON")
    }

    pub(super) fn parse(bytes: &[u8], path: &Path) -> Result<JobFingerprint> {
        let failed = |problem: String, kind: ErrorKind| {
            let remedy = "--restart discards it and starts over";
            Error::new(path.to_string_lossy(), problem, remedy).with_kind(kind)
        };
        let fingerprint: JobFingerprint = serde_json::from_slice(bytes)
            .map_err(|e| failed(format!("is truncated or not a journal of hasn: {e}"), ErrorKind::Damaged))?;
        if fingerprint.version != VERSION {
            let problem = format!("has layout version {}, this hasn writes {VERSION}", fingerprint.version);
            return Err(failed(problem, ErrorKind::Unsupported));
        }
        Ok(fingerprint)
    }

    /// Size and content of an input file, without its modification time.
    pub(super) fn content(&self) -> String {
        format!("{} {}", self.entries[0].value, self.entries[2].value)
    }

    /// The same, with the modification time.
    pub(super) fn content_and_time(&self) -> String {
        format!("{} {}", self.content(), self.entries[1].value)
    }

    /// Describes the first entry that differs.
    pub(super) fn difference(&self, now: &JobFingerprint) -> Option<String> {
        let mut pairs = self.entries.iter().zip(&now.entries);
        match pairs.find(|(old, new)| old != new) {
            Some((old, new)) if old.name == new.name => {
                Some(format!("with {} {}, now {}", old.name, old.value, new.value))
            }
            None if self.entries.len() == now.entries.len() => None,
            _ => Some("by another version of hasn".to_owned()),
        }
    }

    /// Returns an error if the input is not the one with which this job began.
    pub fn check_input(&self, now: &JobFingerprint, name: &str) -> Result<()> {
        match self.entries.iter().zip(&now.entries).find(|(before, now)| before != now) {
            None => Ok(()),
            Some((before, now)) => {
                let problem = format!(
                    "was replaced or modified while it was upscaled: its {} was {}, now {}",
                    before.name.trim_start_matches("input "),
                    before.value,
                    now.value
                );
                let remedy = "put the first input back and run the same command again, or --restart";
                Err(Error::new(name, problem, remedy))
            }
        }
    }

    /// Lets a run continue with another FFmpeg than that with which the journal in `folder` was started.
    pub(super) fn pass_ffmpeg_on(&self, now: &mut JobFingerprint, folder: &Path) {
        let is_ffmpeg = |entry: &Entry| entry.name == FFMPEG;
        let started = self.entries.iter().find(|entry| is_ffmpeg(entry));
        let now = now.entries.iter_mut().find(|entry| is_ffmpeg(entry));
        if let (Some(started), Some(now)) = (started, now)
            && started != now
        {
            let (folder, before) = (folder.display(), &started.value);
            warn!("{folder}: was started with FFmpeg {before}, and continues with {}", now.value);
            now.value.clone_from(before);
        }
    }

    /// Returns an error that names the first entry that differs.
    pub(super) fn check_same(&self, now: &JobFingerprint, folder: &Path) -> Result<()> {
        let Some(difference) = self.difference(now) else { return Ok(()) };
        let is_ffmpeg = difference.starts_with(&format!("with {FFMPEG} "));
        let remedy = match is_ffmpeg {
            true => "--resume continues with this one, --restart starts over",
            false => "use the same settings to resume, or --restart to start over",
        };
        Err(Error::new(folder.to_string_lossy(), format!("was started {difference}"), remedy))
    }
}

/// Returns size and content of a file: what it is, whatever its name and place.
pub(super) fn content_of(path: &Path) -> Result<String> {
    JobFingerprint::of_input(path).map(|fingerprint| fingerprint.content())
}

fn cannot_be_read(name: &str, error: io::Error) -> Error {
    Error::io(name, error, "check that it can be read")
}

/// Returns the CRC-32 of bytes in hexadecimal.
pub fn checksum(bytes: &[u8]) -> String {
    format!("{:08x}", crc32fast::hash(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_entry_that_differs_is_named() {
        let fingerprint = |crf: &str| {
            let mut fingerprint = JobFingerprint { version: VERSION, entries: Vec::new() };
            fingerprint.add("model", "a");
            fingerprint.add("--encoder-opt", crf);
            fingerprint
        };
        let (old, folder) = (fingerprint("crf=18"), Path::new("video.mkv.hasn"));
        assert!(old.check_same(&fingerprint("crf=18"), folder).is_ok());
        assert_eq!(
            old.check_same(&fingerprint("crf=20"), folder).unwrap_err().to_string(),
            "video.mkv.hasn: was started with --encoder-opt crf=18, now crf=20; \
             use the same settings to resume, or --restart to start over"
        );
        let mut more = fingerprint("crf=18");
        more.add("--filter", "hflip");
        assert!(old.check_same(&more, folder).unwrap_err().to_string().contains("another version of hasn"));
    }

    #[test]
    fn a_video_is_identified_by_its_content() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("video");
        let mut bytes: Vec<u8> = (0..5_000_000u32).map(|i| (i % 251) as u8).collect();
        let of = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            JobFingerprint::of_input(&path).unwrap().entries[2].clone()
        };
        let first = of(&bytes);
        for at in [0, 2_500_000, 4_999_999] {
            bytes[at] ^= 1;
            assert_ne!(of(&bytes), first, "byte {at}");
            bytes[at] ^= 1;
        }
        assert_eq!(of(&bytes), first);
        of(b"");
        let problem = |json: &str| JobFingerprint::parse(json.as_bytes(), &path).unwrap_err();
        let truncated = problem("{\"version\": 1, \"ent");
        assert!(truncated.to_string().contains("truncated") && truncated.kind() == ErrorKind::Damaged);
        assert!(problem("{\"version\": 9, \"entries\": []}").to_string().contains("layout version 9"));
    }
}

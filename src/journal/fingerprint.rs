//! Facts: all that packets of a segment depend on. A run goes on only with the same.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Names and values, in the order in which they are to be told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobFingerprint {
    journal: u32,
    facts: Vec<(String, String)>,
}

/// Of the folder's layout and the segments'.
const VERSION: u32 = 1;

/// So much of a video's beginning, middle and end tells it from others.
const PART_BYTES: usize = 1 << 20;

impl JobFingerprint {
    /// Of an input of many files: their names, sizes, and when they were changed.
    pub fn of_files(name: &str, paths: &[PathBuf]) -> Result<JobFingerprint> {
        let (mut sizes, mut times) = (Vec::new(), Vec::new());
        for path in paths {
            let look = || -> io::Result<(u64, SystemTime)> {
                let metadata = path.metadata()?;
                Ok((metadata.len(), metadata.modified()?))
            };
            let (size, changed) = look().map_err(|e| {
                Error::new(path.to_string_lossy(), e.to_string(), "check that it can be read")
            })?;
            sizes.extend(size.to_le_bytes());
            times.extend(changed.duration_since(UNIX_EPOCH).map_or(0, |t| t.as_nanos()).to_le_bytes());
        }
        let names: Vec<_> = paths.iter().map(|path| path.to_string_lossy()).collect();
        let files = format!("{} files of {name} ({})", paths.len(), checksum(names.join("\n").as_bytes()));
        let facts = vec![
            ("the input's files".into(), files),
            ("the input's sizes".into(), checksum(&sizes)),
            ("the input's times of change".into(), checksum(&times)),
        ];
        Ok(JobFingerprint { journal: VERSION, facts })
    }

    /// Of an input: its size, when it was changed, and what is in parts of it.
    pub fn of_input(name: &str) -> Result<JobFingerprint> {
        let look = || -> io::Result<Vec<(String, String)>> {
            let file = File::open(name)?;
            let metadata = file.metadata()?;
            let changed = metadata.modified()?.duration_since(UNIX_EPOCH).map_or(0.0, |t| t.as_secs_f64());
            let size = metadata.len();
            let mut parts = Vec::new();
            for begin in [0, size / 2, size.saturating_sub(PART_BYTES as u64)] {
                let mut part = vec![0; PART_BYTES.min((size - begin) as usize)];
                file.read_exact_at(&mut part, begin)?;
                parts.extend(part);
            }
            Ok(vec![
                ("the input's size".into(), format!("{size} bytes")),
                ("the input's time of change".into(), format!("{changed:.3}")),
                ("the input's content".into(), checksum(&parts)),
            ])
        };
        let facts = look().map_err(|e| Error::new(name, e.to_string(), "check that it can be read"))?;
        Ok(JobFingerprint { journal: VERSION, facts })
    }

    /// Adds one; `name` is what a user knows it by.
    pub fn add(&mut self, name: &str, value: impl Into<String>) {
        self.facts.push((name.into(), value.into()));
    }

    pub(super) fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec_pretty(self).expect("plain data is always JSON")
    }

    pub(super) fn parse(bytes: &[u8], path: &Path) -> Result<JobFingerprint> {
        let facts: JobFingerprint = serde_json::from_slice(bytes).map_err(|e| {
            let problem = format!("is torn or no journal of hasn: {e}");
            Error::new(path.to_string_lossy(), problem, "--restart begins anew")
        })?;
        if facts.journal != VERSION {
            let problem = format!("is of layout {}, this hasn writes {VERSION}", facts.journal);
            return Err(Error::new(path.to_string_lossy(), problem, "--restart begins anew"));
        }
        Ok(facts)
    }

    /// Size and content of the input, without its time.
    pub(super) fn content(&self) -> String {
        format!("{} {}", self.facts[0].1, self.facts[2].1)
    }

    /// The first fact that is not as it was, in words.
    pub(super) fn change(&self, now: &JobFingerprint) -> Option<String> {
        let mut pairs = self.facts.iter().zip(&now.facts);
        match pairs.find(|(old, new)| old != new) {
            Some(((old, was), (new, is))) if old == new => {
                Some(format!("with {old} {was}, and now it is {is}"))
            }
            None if self.facts.len() == now.facts.len() => None,
            _ => Some("by another hasn".to_owned()),
        }
    }

    /// Names the first fact that is not as it was.
    pub(super) fn check_same(&self, now: &JobFingerprint, folder: &Path) -> Result<()> {
        let Some(change) = self.change(now) else { return Ok(()) };
        Err(Error::new(
            folder.to_string_lossy(),
            format!("was begun {change}"),
            "give the same again to go on, or --restart to begin anew",
        ))
    }
}

/// Tells bytes from others.
pub fn checksum(bytes: &[u8]) -> String {
    format!("{:08x}", crc32fast::hash(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_as_it_was_is_named() {
        let facts = |crf: &str| {
            let facts = vec![("model".into(), "a".into()), ("--encoder-opt".into(), crf.into())];
            JobFingerprint { journal: VERSION, facts }
        };
        let (old, folder) = (facts("crf=18"), Path::new("video.mkv.hasn"));
        assert!(old.check_same(&facts("crf=18"), folder).is_ok());
        assert_eq!(
            old.check_same(&facts("crf=20"), folder).unwrap_err().to_string(),
            "video.mkv.hasn: was begun with --encoder-opt crf=18, and now it is crf=20; \
             give the same again to go on, or --restart to begin anew"
        );
        let mut more = facts("crf=18");
        more.add("--filter", "hflip");
        assert!(old.check_same(&more, folder).unwrap_err().to_string().contains("another hasn"));
    }

    #[test]
    fn a_video_is_known_by_its_content() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("video");
        let mut bytes: Vec<u8> = (0..5_000_000u32).map(|i| (i % 251) as u8).collect();
        let of = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            JobFingerprint::of_input(path.to_str().unwrap()).unwrap().facts[2].clone()
        };
        let first = of(&bytes);
        for at in [0, 2_500_000, 4_999_999] {
            bytes[at] ^= 1;
            assert_ne!(of(&bytes), first, "byte {at}");
            bytes[at] ^= 1;
        }
        assert_eq!(of(&bytes), first);
        of(b"");
        assert!(
            JobFingerprint::parse(b"{\"journal\": 1, \"fac", &path).unwrap_err().to_string().contains("torn")
        );
        assert!(
            JobFingerprint::parse(b"{\"journal\": 9, \"facts\": []}", &path)
                .unwrap_err()
                .to_string()
                .contains("layout 9")
        );
    }
}

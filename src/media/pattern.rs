//! Names of image sequences: one file for each frame, under names that differ by a number.
//!
//! In: a name like `scan/%06d.dpx`. Out: the numbers that exist, the path of each, and how frames are numbered.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::media::path::{Place, folder_of, partial_path, publish, same_file, sync_folder, through_links};

/// A file name with one number in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    folder: PathBuf,
    before: String,
    /// Least number of digits; shorter numbers are padded with zeros.
    digits: usize,
    after: String,
}

/// Numbers stay below 10^18, so that they fit every integer type they are converted to.
const DIGITS_MAX: usize = 18;

impl Pattern {
    /// The pattern of a name with `%d` or `%06d` in its last part; `None` for any other name, for an address, and if a
    /// file has exactly this name.
    pub fn parse(name: impl AsRef<OsStr>) -> Result<Option<Pattern>> {
        let name = name.as_ref();
        let Some(path) = Place::of(name).path() else { return Ok(None) };
        let last = path.file_name().and_then(|last| last.to_str()).unwrap_or_default();
        let places = conversions(last);
        if places.is_empty() || path.exists() {
            return Ok(None);
        }
        let digits = match places[..] {
            [(begin, end)] => match &last[begin + 1..end] {
                "d" => Some(1),
                word => word.strip_prefix('0').and_then(|word| word.strip_suffix('d')?.parse().ok()),
            },
            _ => None,
        };
        let Some(digits) = digits.filter(|digits| (1..=DIGITS_MAX).contains(digits)) else {
            let found: Vec<_> = places.iter().map(|&(begin, end)| &last[begin..end]).collect();
            let problem = format!("{} is not a single frame number", found.join(" and "));
            return Err(Error::new(name.to_string_lossy(), problem, "write the number once, as %d or %06d"));
        };
        let (begin, end) = places[0];
        let folder = path.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."));
        let (before, after) = (last[..begin].to_owned(), last[end..].to_owned());
        Ok(Some(Pattern { folder: folder.to_owned(), before, digits, after }))
    }

    /// The folder of its files.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Name of a file, without its folder.
    pub fn name(&self, number: u64) -> String {
        format!("{}{number:0digits$}{}", self.before, self.after, digits = self.digits)
    }

    /// Path of a file.
    pub fn path(&self, number: u64) -> PathBuf {
        self.folder.join(self.name(number))
    }

    /// Number of a file; `None` if its name does not match.
    fn number_of(&self, name: &str) -> Option<u64> {
        let digits = name.strip_prefix(&self.before)?.strip_suffix(&self.after)?;
        let number = digits.parse().ok().filter(|_| digits.len() <= DIGITS_MAX)?;
        (self.name(number) == name).then_some(number)
    }

    /// Numbers of the files that exist, ascending; none if the folder does not exist.
    pub fn numbers(&self) -> Result<Vec<u64>> {
        let failed = |e: io::Error| {
            Error::io(self.folder.to_string_lossy(), e, "check the folder and its permissions")
        };
        let entries = match fs::read_dir(&self.folder) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(failed)?,
        };
        let mut numbers = Vec::new();
        for entry in entries {
            let name = entry.map_err(failed)?.file_name();
            numbers.extend(name.to_str().and_then(|name| self.number_of(name)));
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// Whether a file that is read as `input` may have one of these names.
    pub(crate) fn may_overwrite(&self, input: &OsStr) -> Result<bool> {
        let matches = |name: &str| self.number_of(name).is_some();
        Ok(match Pattern::parse(input)? {
            None => {
                let Some(input) = Place::of(input).path() else { return Ok(false) };
                let name = input.file_name().and_then(|name| name.to_str()).unwrap_or_default();
                matches(name) && same_file(input, &self.folder.join(name))
            }
            Some(input) if same_file(&input.folder, &self.folder) => {
                input.numbers()?.into_iter().any(|number| matches(&input.name(number)))
            }
            Some(_) => false,
        })
    }

    /// Writes the file of a frame: synced to disk under a partial name, then renamed. Without `overwrite`, an existing file
    /// stays: one with the same bytes is the run's own, from before a crash, and any other is an error.
    pub fn write(&self, number: u64, data: &[u8], overwrite: bool) -> io::Result<()> {
        let path = self.path(number);
        let path = if overwrite { through_links(&path) } else { path };
        let partial = partial_path(&path);
        let write = || {
            let mut file = File::create(&partial)?;
            file.write_all(data)?;
            file.sync_all()
        };
        let written = write().and_then(|()| publish(&partial, &path, overwrite));
        if written.is_err() {
            // A failure here is ignored: the error that led here is the one to report.
            let _ = fs::remove_file(&partial);
        }
        match written {
            Err(e) if e.kind() == ErrorKind::AlreadyExists && fs::read(&path)? == data => {}
            written => written?,
        }
        sync_folder(folder_of(&path))
    }
}

/// Places of `%d` and similar conversions in a name.
fn conversions(name: &str) -> Vec<(usize, usize)> {
    let places = name.match_indices('%').filter_map(|(begin, _)| {
        let rest = &name[begin + 1..];
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let is_one = rest[digits..].starts_with(['d', 'i', 'u', 's', 'x']);
        is_one.then_some((begin, begin + 1 + digits + 1))
    });
    places.collect()
}

/// How frames are numbered in the output sequence.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Numbering {
    /// From this number on, by timestamps that count frames: a missing frame does not shift those after it.
    ByTime(u64),
    /// From this number on, consecutively.
    InOrder(u64),
}

impl Numbering {
    /// Number of the frame with this index and pts.
    pub fn number(self, index: u64, pts: i64) -> u64 {
        match self {
            Numbering::ByTime(first) => first.saturating_add_signed(pts),
            Numbering::InOrder(first) => first + index,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(name: &str) -> Pattern {
        Pattern::parse(name).unwrap().unwrap()
    }

    #[test]
    fn the_number_is_in_the_last_part_of_a_name_and_once() {
        let scan = pattern("a%d/scan%04d.x.dpx");
        assert_eq!(scan.path(7), Path::new("a%d/scan0007.x.dpx"));
        assert_eq!(scan.path(123_456), Path::new("a%d/scan123456.x.dpx"));
        assert_eq!(pattern("%d.png").path(7), Path::new("./7.png"));
        for name in
            ["video.mkv", "100%.png", "a%d/b.png", "a%%b.png", "50% off.png", "http://host/%06d.png", "-"]
        {
            assert_eq!(Pattern::parse(name).unwrap(), None, "{name}");
        }
        for name in ["%d-%d.png", "%s.png", "%6d.png", "%d%s.png", "%00d.png", "%099d.png"] {
            let error = Pattern::parse(name).unwrap_err().to_string();
            assert!(error.contains("write the number once"), "{name}: {error}");
        }
    }

    #[test]
    fn only_names_that_it_would_write_match() {
        let scan = pattern("s%03d.dpx");
        for (name, number) in [("s007.dpx", Some(7)), ("s1234.dpx", Some(1234)), ("s000.dpx", Some(0))] {
            assert_eq!(scan.number_of(name), number, "{name}");
        }
        for name in ["s07.dpx", "s0007.dpx", "s+07.dpx", "s007.partial.dpx", "s.dpx", "s007.dpx2", "007.dpx"]
        {
            assert_eq!(scan.number_of(name), None, "{name}");
        }
        assert_eq!(pattern("%d.png").number_of("07.png"), None);
    }
}

//! Time patterns: file names with codes of strftime, such as `archive-%Y%m%d-%H.ts`, and which file a name stands for.
//!
//! In: a pattern and a time. Out: a file that no other has the name of, reserved by its partial name.

use std::fs::{self, File};
use std::io;
use std::mem::MaybeUninit;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use tracing::warn;

use crate::error::{Error, ErrorKind, Result};
use crate::media::output::Output;
use crate::media::path::is_taken;

/// The codes of strftime that a file name may have: those that write no slash, no space and no line break.
const CODES: &[u8] = b"aAbBCdeFgGhHIjklmMpRsSTuUVwWyYzZ";

/// A file name with codes of strftime in its last part.
pub(super) struct TimePattern {
    folder: PathBuf,
    parts: Vec<Part>,
}

#[derive(Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Code(u8),
}

impl TimePattern {
    /// The pattern of a file's path; `None` if its last part has no `%`.
    pub fn parse(path: &Path) -> Result<Option<TimePattern>> {
        let Some(name) = path.file_name().and_then(|name| name.to_str()).filter(|name| name.contains('%'))
        else {
            return Ok(None);
        };
        let mut pieces = name.split('%');
        let mut parts = vec![Part::Text(pieces.next().unwrap_or_default().to_owned())];
        while let Some(piece) = pieces.next() {
            let code = piece.bytes().next();
            match code.filter(|code| CODES.contains(code)) {
                Some(code) => parts.extend([Part::Code(code), Part::Text(piece[1..].to_owned())]),
                // `%%`: the piece between them is empty.
                None if piece.is_empty()
                    && let Some(text) = pieces.next() =>
                {
                    parts.push(Part::Text(format!("%{text}")));
                }
                None => {
                    let code: String = piece.chars().take(1).collect();
                    let problem = format!("%{code} is no code of strftime that a file name can have");
                    let remedy = "use e.g. %Y%m%d-%H%M%S, and %% for a percent sign";
                    return Err(Error::new(path.to_string_lossy(), problem, remedy));
                }
            }
        }
        Ok(Some(TimePattern { folder: path.parent().unwrap_or(Path::new("")).to_owned(), parts }))
    }

    /// The path at this time.
    pub fn path_at(&self, time: SystemTime) -> PathBuf {
        self.path(&LocalTime::of(time).expect("a clock's year fits"))
    }

    fn path(&self, time: &LocalTime) -> PathBuf {
        let name = self.parts.iter().map(|part| match part {
            Part::Text(text) => text.clone(),
            Part::Code(code) => time.format(*code),
        });
        self.folder.join(name.collect::<String>())
    }

    /// Creates the partial file of this time. Where a file has its name, it gets the first number that is free:
    /// `archive-1.ts`. With `overwrite`, the file of an earlier time is to be replaced; the result says whether.
    pub fn reserve(&self, time: SystemTime, overwrite: bool) -> Result<(Output, bool)> {
        let path = self.path_at(time);
        for number in 0.. {
            let output = Output::new(numbered(&path, number), "")?;
            let (taken, partial) = (output.path().expect("a file"), output.partial().expect("a file"));
            let replaces = overwrite && self.is_earlier(taken, &path, time);
            if is_taken(taken) && !replaces {
                continue;
            }
            match File::create_new(partial) {
                Ok(_) if number > 0 => {
                    let name = path.to_string_lossy();
                    warn!("{name}: exists, or its partial file does; the recording is {}", output.name());
                    return Ok((output, replaces));
                }
                Ok(_) => return Ok((output, replaces)),
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => {
                    return Err(Error::io(partial.to_string_lossy(), e, "check the folder and the disk"));
                }
            }
        }
        unreachable!("some number is free")
    }

    /// Whether an existing file was complete before the time for which `path` is the name: it had another name then, and the
    /// clock has not gone back since.
    fn is_earlier(&self, existing: &Path, path: &Path, now: SystemTime) -> bool {
        let modified = fs::metadata(existing).and_then(|data| data.modified()).ok().and_then(LocalTime::of);
        let Some((modified, now)) = modified.zip(LocalTime::of(now)) else { return false };
        modified.shown() <= now.shown() && self.path(&modified) != path
    }
}

/// Gives the complete file its name, or the first numbered one that is free.
pub(super) fn publish_numbered(output: &Output, replaces: bool) -> Result<()> {
    let mut output = output.clone();
    let path = output.path().expect("a file").to_owned();
    let mut published = output.publish(replaces);
    for number in 1.. {
        if !published.as_ref().is_err_and(|error| error.kind() == ErrorKind::Exists) {
            break;
        }
        let free = numbered(&path, number);
        warn!("{}: has appeared meanwhile and is kept; the recording is {}", path.display(), free.display());
        output.paths.as_mut().expect("a file").path = free;
        published = output.publish(false);
    }
    published
}

/// `archive.ts` -> `archive-1.ts`; without a number 0.
fn numbered(path: &Path, number: u64) -> PathBuf {
    if number == 0 {
        return path.to_owned();
    }
    let mut name = path.file_stem().unwrap_or_default().to_owned();
    name.push(format!("-{number}"));
    if let Some(extension) = path.extension() {
        name.push(".");
        name.push(extension);
    }
    path.with_file_name(name)
}

/// A time of the local time zone.
struct LocalTime(libc::tm);

impl LocalTime {
    /// `None` if the year does not fit.
    fn of(time: SystemTime) -> Option<LocalTime> {
        let seconds = match time.duration_since(UNIX_EPOCH) {
            Ok(after) => i64::try_from(after.as_secs()).ok()?,
            Err(before) => -i64::try_from(before.duration().as_secs()).ok()?,
        };
        let mut local = MaybeUninit::uninit();
        // SAFETY: both addresses are those of variables; `local` is written unless the result is null.
        unsafe {
            (!libc::localtime_r(&seconds, local.as_mut_ptr()).is_null())
                .then(|| LocalTime(local.assume_init()))
        }
    }

    /// The text of a code.
    fn format(&self, code: u8) -> String {
        let (format, mut text) = ([b'%', code, 0], [0_u8; 64]);
        // SAFETY: the format ends in a NUL, the buffer has the length given, and the zone's name is one of libc's own.
        let len =
            unsafe { libc::strftime(text.as_mut_ptr().cast(), text.len(), format.as_ptr().cast(), &self.0) };
        String::from_utf8_lossy(&text[..len]).into_owned()
    }

    /// What a clock on the wall shows: it decreases where the clock goes back.
    fn shown(&self) -> [i32; 6] {
        let LocalTime(time) = self;
        [time.tm_year, time.tm_mon, time.tm_mday, time.tm_hour, time.tm_min, time.tm_sec]
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::time::Duration;

    use super::*;

    fn pattern(path: impl AsRef<Path>) -> TimePattern {
        TimePattern::parse(path.as_ref()).unwrap().expect("a pattern")
    }

    #[test]
    fn names_are_those_of_the_local_time() {
        // Leap day, a year with week 53, the first second, and both sides of a change of clocks.
        for seconds in [1_709_164_800, 1_609_459_199, 0, 1_792_889_999, 1_792_893_600] {
            let format = "a%d/%Y%m%d-%H.%M.%S %j %a-%b %s 100%% x.%Z";
            let shown = date(seconds, &format[4..]);
            let name = pattern(format).path_at(UNIX_EPOCH + Duration::from_secs(seconds));
            assert_eq!(name, Path::new("a%d").join(shown), "{seconds}");
        }
    }

    /// What the command `date` prints.
    fn date(seconds: u64, format: &str) -> String {
        let mut date = Command::new("date");
        date.env("LC_ALL", "C").args(["-d", &format!("@{seconds}"), &format!("+{format}")]);
        let output = date.output().expect("date is installed");
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    }

    #[test]
    fn a_percent_sign_without_a_code_is_refused() {
        for plain in ["a.ts", "%Y/a.ts", "a/"] {
            assert!(TimePattern::parse(Path::new(plain)).unwrap().is_none(), "{plain}");
        }
        assert_eq!(pattern("100%%.ts").parts, [Part::Text("100".into()), Part::Text("%.ts".into())]);
        let parts =
            [Part::Text("%Y".into()), Part::Text("%".into()), Part::Code(b'Y'), Part::Text("".into())];
        assert_eq!(pattern("%%Y%%%Y").parts[1..], parts);
        for (name, code) in
            [("100%.ts", "%."), ("%Q.ts", "%Q"), ("a%", "%"), ("%x.ts", "%x"), ("%é", "%é"), ("%%%", "%")]
        {
            let error = TimePattern::parse(Path::new(name)).err().expect(name).to_string();
            assert!(error.starts_with(&format!("{name}: {code} is no code of strftime")), "{error}");
        }
    }

    /// Names in the folder, sorted.
    fn names(folder: &Path) -> Vec<String> {
        let name = |entry: io::Result<fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
        let mut names: Vec<String> = fs::read_dir(folder).unwrap().map(name).collect();
        names.sort();
        names
    }

    #[test]
    fn no_recording_takes_the_name_of_another() {
        let folder = tempfile::tempdir().unwrap();
        let hours = pattern(folder.path().join("a-%Y.ts"));
        let now = UNIX_EPOCH + Duration::from_secs(86_400);
        for number in 0..3 {
            let (output, replaces) = hours.reserve(now, false).unwrap();
            fs::write(output.partial().unwrap(), [number]).unwrap();
            assert!(!replaces);
            // One stays partial, as after a crash.
            if number != 1 {
                publish_numbered(&output, false).unwrap();
            }
        }
        assert_eq!(names(folder.path()), ["a-1970-1.partial.ts", "a-1970-2.ts", "a-1970.ts"]);
        // Names that appear while the file is written.
        let (output, _) = hours.reserve(now, false).unwrap();
        fs::write(output.partial().unwrap(), "ours").unwrap();
        for taken in ["a-1970-3.ts", "a-1970-3-1.ts"] {
            fs::write(folder.path().join(taken), "another's").unwrap();
        }
        publish_numbered(&output, false).unwrap();
        assert_eq!(fs::read(folder.path().join("a-1970-3-2.ts")).unwrap(), b"ours");
        assert_eq!(fs::read(folder.path().join("a-1970-3.ts")).unwrap(), b"another's");
    }

    #[test]
    fn only_files_of_an_earlier_time_are_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let seconds = pattern(folder.path().join("%S.ts"));
        let now = SystemTime::now();
        let existing = seconds.path_at(now);
        fs::write(&existing, "earlier").unwrap();
        let modified_before = |before_s: u64| {
            let file = File::options().write(true).open(&existing).unwrap();
            file.set_modified(now - Duration::from_secs(before_s)).unwrap();
        };
        let reserved = |now, overwrite| {
            let (output, replaces) = seconds.reserve(now, overwrite).unwrap();
            fs::remove_file(output.partial().unwrap()).unwrap();
            (replaces, output.path() == Some(&existing))
        };
        modified_before(50);
        assert_eq!(reserved(now, true), (true, true), "a file of the last minute");
        assert_eq!(reserved(now, false), (false, false), "without -y");
        // A program that was started again within the second.
        modified_before(0);
        assert_eq!(reserved(now, true), (false, false), "a file of this time");
        // The clock goes back an hour, as at the end of summer time.
        modified_before(3_599 - 3_600 / 2);
        assert_eq!(
            reserved(now - Duration::from_secs(3_600), true),
            (false, false),
            "a clock that has gone back"
        );
    }
}

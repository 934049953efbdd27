//! The error type of the crate, for everything that can fail outside of this program. Mistakes of the program itself are
//! failed `assert!`s.
//!
//! An error is one line, `subject: problem; remedy`, with a [kind](ErrorKind) for programs. The stage that meets it adds
//! the frame it was working on.

use std::borrow::Cow;
use std::fmt::{self, Write};
use std::io;
use std::sync::Arc;

/// Shorthand for results of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Kind of an error, for programs. The line of an error is for people and may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Options, arguments or file contents are invalid; a usage error in most cases.
    InvalidInput,
    /// This program, this build of FFmpeg or the chosen container does not support it.
    Unsupported,
    /// The source is damaged or truncated.
    Damaged,
    /// A file, stream, encoder or model does not exist.
    NotFound,
    /// A file exists already.
    Exists,
    /// The disk or a quota is full.
    DiskFull,
    /// The user interrupted the run.
    Interrupted,
    /// A GPU, capture device or driver failed or is missing.
    Device,
    /// A read, write or connection failed.
    Io,
    /// Another process holds the output.
    Busy,
    /// Memory ran out.
    OutOfMemory,
    /// This program made a mistake.
    Internal,
}

impl ErrorKind {
    /// Name in reports.
    pub(crate) fn name(self) -> &'static str {
        match self {
            ErrorKind::InvalidInput => "invalid_input",
            ErrorKind::Unsupported => "unsupported",
            ErrorKind::Damaged => "damaged",
            ErrorKind::NotFound => "not_found",
            ErrorKind::Exists => "exists",
            ErrorKind::DiskFull => "disk_full",
            ErrorKind::Interrupted => "interrupted",
            ErrorKind::Device => "device",
            ErrorKind::Io => "io",
            ErrorKind::Busy => "busy",
            ErrorKind::OutOfMemory => "out_of_memory",
            ErrorKind::Internal => "internal",
        }
    }
}

/// A failure in one line: `subject: problem; remedy`.
#[derive(Clone)]
pub struct Error(Box<Inner>);

/// Boxed, so that a `Result` stays small.
#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    subject: String,
    problem: String,
    remedy: String,
    place: Option<Place>,
    source: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

/// Stage and frame of a run at which an error occurred.
#[derive(Debug, Clone)]
struct Place {
    stage: &'static str,
    frame: u64,
    seconds: Option<f64>,
}

impl Error {
    /// Returns an error of kind [`InvalidInput`](ErrorKind::InvalidInput). `subject` is the file, stream, option or
    /// device, `remedy` an imperative clause.
    pub fn new(subject: impl Into<String>, problem: impl Into<String>, remedy: impl Into<String>) -> Self {
        Error(Box::new(Inner {
            kind: ErrorKind::InvalidInput,
            subject: subject.into(),
            problem: problem.into(),
            remedy: remedy.into(),
            place: None,
            source: None,
        }))
    }

    /// Returns the error of a failed system call on `subject`, with the kind that its code stands for.
    pub fn io(subject: impl Into<String>, error: io::Error, remedy: impl Into<String>) -> Self {
        Error::new(subject, error.to_string(), remedy).caused_by(error)
    }

    /// Adds a failed system call as the source, and takes its kind.
    #[must_use]
    pub(crate) fn caused_by(self, error: io::Error) -> Self {
        self.with_kind(ErrorKind::from(error.kind())).with_source(error)
    }

    /// Sets the kind.
    #[must_use]
    pub fn with_kind(mut self, kind: ErrorKind) -> Self {
        self.0.kind = kind;
        self
    }

    /// Sets the error that caused this one.
    #[must_use]
    pub fn with_source(mut self, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        self.0.source = Some(Arc::new(source));
        self
    }

    /// Adds the stage and the frame it was working on, unless an inner stage has already done so.
    #[must_use]
    pub fn at(mut self, stage: &'static str, frame: u64, seconds: Option<f64>) -> Self {
        self.0.place.get_or_insert(Place { stage, frame, seconds });
        self
    }

    /// Adds to the remedy what was kept in spite of the error.
    #[must_use]
    pub fn keeping(mut self, kept: &str) -> Self {
        let joint = if self.0.remedy.is_empty() { "" } else { "; " };
        self.0.remedy = format!("{}{joint}{kept}", self.0.remedy);
        self
    }

    /// Kind of the error.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }
}

impl From<io::ErrorKind> for ErrorKind {
    fn from(kind: io::ErrorKind) -> ErrorKind {
        match kind {
            io::ErrorKind::NotFound => ErrorKind::NotFound,
            io::ErrorKind::AlreadyExists => ErrorKind::Exists,
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::DiskFull,
            io::ErrorKind::Interrupted => ErrorKind::Interrupted,
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => ErrorKind::Damaged,
            io::ErrorKind::InvalidInput => ErrorKind::InvalidInput,
            io::ErrorKind::Unsupported => ErrorKind::Unsupported,
            io::ErrorKind::OutOfMemory => ErrorKind::OutOfMemory,
            io::ErrorKind::WouldBlock | io::ErrorKind::ResourceBusy => ErrorKind::Busy,
            _ => ErrorKind::Io,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { subject, problem, remedy, place, .. } = &*self.0;
        let mut line = format!("{subject}: {problem}");
        if let Some(Place { stage, frame, seconds }) = place {
            write!(line, " ({stage}, frame {frame}")?;
            if let Some(seconds) = seconds {
                write!(line, " at {seconds:.3} s")?;
            }
            line.push(')');
        }
        if !remedy.is_empty() {
            write!(line, "; {remedy}")?;
        }
        f.write_str(&printable(&line))
    }
}

/// A line as it is printed for people: control characters, which names and tags may have, are escaped, and so are those
/// that break lines or turn the direction of text.
pub(crate) fn printable(line: &str) -> Cow<'_, str> {
    let is_escaped =
        |c: char| c.is_control() || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    if !line.contains(is_escaped) {
        return Cow::Borrowed(line);
    }
    let escape = |mut text: String, c: char| {
        match is_escaped(c) {
            true => text.extend(c.escape_default()),
            false => text.push(c),
        }
        text
    };
    Cow::Owned(line.chars().fold(String::new(), escape))
}

/// Writes the line of [`Display`](fmt::Display), which a `main` that returns a [`Result`] prints.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    #[test]
    fn one_line_names_subject_problem_and_remedy() {
        let error = Error::new("clip.mkv", "stream 0 is damaged", "copy the file again");
        assert_eq!(error.to_string(), "clip.mkv: stream 0 is damaged; copy the file again");
        let error = error.at("decode", 57, Some(2.28)).at("upscale", 58, None);
        assert_eq!(
            error.to_string(),
            "clip.mkv: stream 0 is damaged (decode, frame 57 at 2.280 s); copy the file again"
        );
    }

    #[test]
    fn names_give_no_commands_to_a_terminal() {
        let error = Error::new("\u{1b}]0;owned\u{7}.mkv\nok", "is \u{9b}31m \u{202e}gpj", "try\r\tagain");
        let line = r"\u{1b}]0;owned\u{7}.mkv\nok: is \u{9b}31m \u{202e}gpj; try\r\tagain";
        assert_eq!((error.to_string(), format!("{error:?}")), (line.to_owned(), line.to_owned()));
        let plain = r"e\u{301}té \ 映画 👩‍👩‍👧 עברית";
        assert_eq!(printable(plain), plain);
        assert_eq!(printable(line), line);
    }

    #[test]
    fn errors_have_the_kind_and_source_of_their_cause() {
        let full = io::Error::from(io::ErrorKind::StorageFull);
        let error = Error::io("out.mkv", full, "free some space");
        assert_eq!(error.kind(), ErrorKind::DiskFull);
        let source = error.source().and_then(|source| source.downcast_ref::<io::Error>());
        assert_eq!(source.map(io::Error::kind), Some(io::ErrorKind::StorageFull));
        let plain = Error::new("--to", "is not after --from", "choose a later time");
        assert!(plain.kind() == ErrorKind::InvalidInput && plain.source().is_none());
        assert_eq!(plain.with_kind(ErrorKind::Exists).kind(), ErrorKind::Exists);
    }
}

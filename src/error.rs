//! The one error of the crate: what went wrong for the user, never our own mistakes (those are `assert!`).
//!
//! An error is one line that says where, what, and what to do. The stage that meets it adds the frame
//! it was working on.

use std::fmt;

/// Shorthand for results of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// What the world did to us, in one line: `subject: problem; remedy`.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
pub struct Error {
    subject: String,
    problem: String,
    remedy: String,
    at: Option<At>,
}

/// Where in a run an error happened.
#[derive(Debug, Clone, PartialEq, Eq)]
struct At {
    stage: &'static str,
    frame: u64,
    seconds: Option<String>,
}

impl Error {
    /// `subject` is the file, stream, option or device; `remedy` an imperative clause.
    pub fn new(subject: impl Into<String>, problem: impl Into<String>, remedy: impl Into<String>) -> Self {
        Error { subject: subject.into(), problem: problem.into(), remedy: remedy.into(), at: None }
    }

    /// Adds the stage and the frame it was working on, unless an inner stage has already done so.
    #[must_use]
    pub fn at(mut self, stage: &'static str, frame: u64, seconds: Option<f64>) -> Self {
        self.at.get_or_insert(At { stage, frame, seconds: seconds.map(|s| format!("{s:.3}")) });
        self
    }

    /// Adds what is left of the work in spite of the error.
    #[must_use]
    pub fn keeping(mut self, left: &str) -> Self {
        let joint = if self.remedy.is_empty() { "" } else { "; " };
        self.remedy = format!("{}{joint}{left}", self.remedy);
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.subject, self.problem)?;
        if let Some(At { stage, frame, seconds }) = &self.at {
            write!(f, " ({stage}, frame {frame}")?;
            if let Some(seconds) = seconds {
                write!(f, " at {seconds} s")?;
            }
            write!(f, ")")?;
        }
        if !self.remedy.is_empty() {
            write!(f, "; {}", self.remedy)?;
        }
        Ok(())
    }
}

/// The same line: it is what a `main` that returns a [`Result`] prints.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_says_where_what_and_what_to_do() {
        let error = Error::new("clip.mkv", "stream 0 is damaged", "copy the file again");
        assert_eq!(error.to_string(), "clip.mkv: stream 0 is damaged; copy the file again");
        let error = error.at("decode", 57, Some(2.28)).at("upscale", 58, None);
        assert_eq!(
            error.to_string(),
            "clip.mkv: stream 0 is damaged (decode, frame 57 at 2.280 s); copy the file again"
        );
    }
}

//! Losses: names of what the output does not hold, each logged once and listed in the report; errors of a strict run.

use tracing::warn;

use crate::error::{Error, ErrorKind, Result};

/// What one part of a run leaves out.
#[derive(Default)]
pub(crate) struct Losses {
    names: Vec<&'static str>,
    is_strict: bool,
}

impl Losses {
    /// Notes what is named, which `by` does not take.
    pub fn note(&mut self, name: &'static str, by: &str) {
        if !self.names.contains(&name) {
            warn!("{name}: {by} does not take it; it is left out");
            self.names.push(name);
        }
    }

    /// Makes every loss an error, found by [`Losses::check`].
    pub fn refuse(&mut self) {
        self.is_strict = true;
    }

    /// Fails if something is left out that must not be. `by` is the subject of the error.
    pub fn check(&self, by: &str) -> Result<()> {
        let Some(name) = self.names.first().filter(|_| self.is_strict) else { return Ok(()) };
        let problem = format!("does not take the input's {name}");
        let remedy = "choose another --encoder or container, or do without --strict";
        Err(Error::new(by, problem, remedy).with_kind(ErrorKind::Unsupported))
    }

    pub fn names(&self) -> &[&'static str] {
        &self.names
    }
}

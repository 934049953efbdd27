//! Settings of a relay that can change while it runs: a file that is read again at SIGHUP.

use std::path::Path;

use serde::Deserialize;
use signal_hook::consts::SIGHUP;
use signal_hook::iterator::{Handle, Signals};
use tracing::{info, warn};

use crate::error::{Error, Result};
use crate::media;
use crate::relay::Control;

/// The settings that can change.
pub(super) struct Settings {
    /// Names of networks, best first; empty for the default.
    pub ladder: Vec<String>,
    /// Bits per second; `None` for the default, which depends on the size of the frames.
    pub bit_rate: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    ladder: Option<String>,
    bitrate: Option<String>,
}

impl Settings {
    /// Reads a file of settings.
    pub fn read(path: &Path) -> Result<Settings> {
        let name = path.to_string_lossy();
        let remedy = "write lines like ladder = \"auto\" and bitrate = \"6M\"";
        let fail = |problem: String| Error::new(&*name, problem, remedy);
        let text = std::fs::read_to_string(path)
            .map_err(|e| fail(format!("cannot be read: {e}")).with_kind(e.kind().into()).with_source(e))?;
        let file: File = toml::from_str(&text).map_err(|e| fail(e.message().replace('\n', " ")))?;
        let bit_rate = file.bitrate.map(|text| parse_bit_rate(&text)).transpose();
        let bit_rate = bit_rate.map_err(|problem| fail(format!("bitrate: {problem}")))?;
        Ok(Settings { ladder: ladder_names(file.ladder.as_deref().unwrap_or("auto")), bit_rate })
    }

    /// Reads the file again and passes changes to the relay; an invalid file changes nothing.
    pub fn reload(self, path: Option<&Path>, control: &Control) -> Settings {
        let Some(path) = path else {
            warn!("SIGHUP: ignored without --settings");
            return self;
        };
        let read = Settings::read(path).and_then(|new| {
            if new.ladder != self.ladder {
                control.set_ladder(&new.ladder)?;
            }
            if let Some(bit_rate) = new.bit_rate.filter(|_| new.bit_rate != self.bit_rate) {
                control.set_bit_rate(bit_rate);
            }
            info!("{}: reloaded", path.display());
            Ok(new)
        });
        read.unwrap_or_else(|error| {
            warn!("{error}; settings unchanged");
            self
        })
    }
}

/// Names of a comma-separated ladder; `auto` is empty.
pub(super) fn ladder_names(text: &str) -> Vec<String> {
    match text {
        "auto" => Vec::new(),
        list => list.split(',').map(str::to_owned).collect(),
    }
}

/// Parses a bitrate like `6M`, `800k` or plain bits per second.
pub(super) fn parse_bit_rate(text: &str) -> std::result::Result<u64, String> {
    media::parse_bit_rate(text)
        .filter(|bits| (1e3..1e10).contains(bits))
        .map(|bits| bits as u64)
        .ok_or_else(|| "write it like 6M or 800k".to_owned())
}

/// Receives SIGHUP, which would end the program otherwise.
pub(super) struct Hangups(Signals);

/// Ends the iteration over signals when it is dropped.
pub(super) struct HangupsGuard(Handle);

impl Hangups {
    pub fn catch() -> Result<Hangups> {
        Signals::new([SIGHUP]).map(Hangups).map_err(|e| {
            Error::new("SIGHUP", format!("cannot be caught: {e}"), "check the system's limits")
                .with_kind(e.kind().into())
                .with_source(e)
        })
    }

    pub fn guard(&self) -> HangupsGuard {
        HangupsGuard(self.0.handle())
    }

    /// Returns an item for each signal, until the guard is dropped.
    pub fn iter(mut self) -> impl Iterator<Item = ()> {
        std::iter::from_fn(move || self.0.forever().next().map(drop))
    }
}

impl Drop for HangupsGuard {
    fn drop(&mut self) {
        self.0.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bitrates_are_parsed_or_refused() {
        for (text, bits) in [("6M", 6_000_000), ("800k", 800_000), ("1.5M", 1_500_000), ("64000", 64_000)] {
            assert_eq!(parse_bit_rate(text), Ok(bits), "{text}");
        }
        for text in ["", "M", "-1M", "nan", "6 M", "6G", "5", "1e99"] {
            assert!(parse_bit_rate(text).is_err(), "{text}");
        }
    }
}

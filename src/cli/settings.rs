//! Settings of a relay that are changed while it runs: a file that is read again at SIGHUP.

use std::path::Path;

use serde::Deserialize;
use signal_hook::consts::SIGHUP;
use signal_hook::iterator::{Handle, Signals};
use tracing::{info, warn};

use super::relay::{Args, ladder, parse_bit_rate};
use crate::error::{Error, Result};
use crate::relay::Control;

/// What can be changed.
pub(super) struct Settings {
    pub ladder: String,
    /// `None` is by the size of the frames.
    pub bit_rate: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    ladder: Option<String>,
    bitrate: Option<String>,
}

impl Settings {
    /// Of the file where there is one, else of the command line.
    pub fn of(args: &Args) -> Result<Settings> {
        match &args.settings {
            Some(path) => Settings::read(path),
            None => Ok(Settings { ladder: args.ladder.clone(), bit_rate: args.bitrate }),
        }
    }

    fn read(path: &Path) -> Result<Settings> {
        let name = path.to_string_lossy();
        let remedy = "write lines like ladder = \"auto\" and bitrate = \"6M\"";
        let fail = |problem: String| Error::new(&*name, problem, remedy);
        let text = std::fs::read_to_string(path).map_err(|e| fail(format!("cannot be read: {e}")))?;
        let file: File = toml::from_str(&text).map_err(|e| fail(e.message().replace('\n', " ")))?;
        let bit_rate = file.bitrate.map(|text| parse_bit_rate(&text)).transpose();
        let bit_rate = bit_rate.map_err(|problem| fail(format!("bitrate: {problem}")))?;
        Ok(Settings { ladder: file.ladder.unwrap_or_else(|| "auto".into()), bit_rate })
    }

    /// Takes what has changed over into the relay; what is wrong changes nothing.
    pub fn read_again(self, args: &Args, control: &Control) -> Settings {
        let Some(path) = &args.settings else {
            warn!("SIGHUP: there are no --settings to read again");
            return self;
        };
        let read = Settings::read(path).and_then(|new| {
            if new.ladder != self.ladder {
                control.set_networks(ladder(&new.ladder)?);
            }
            if let Some(bit_rate) = new.bit_rate.filter(|_| new.bit_rate != self.bit_rate) {
                control.set_bit_rate(bit_rate);
            }
            info!("{}: was read again", path.display());
            Ok(new)
        });
        read.unwrap_or_else(|error| {
            warn!("{error}; all stays as it was");
            self
        })
    }
}

/// SIGHUP, which otherwise would end the program.
pub(super) struct Hangups(Signals);

/// Its drop ends what iterates over signals.
pub(super) struct HangupsEnd(Handle);

impl Hangups {
    pub fn caught() -> Result<Hangups> {
        Signals::new([SIGHUP]).map(Hangups).map_err(|e| {
            Error::new("SIGHUP", format!("cannot be caught: {e}"), "look at the system's limits")
        })
    }

    pub fn end(&self) -> HangupsEnd {
        HangupsEnd(self.0.handle())
    }

    /// One for each, until the end.
    pub fn iter(mut self) -> impl Iterator<Item = ()> {
        std::iter::from_fn(move || self.0.forever().next().map(drop))
    }
}

impl Drop for HangupsEnd {
    fn drop(&mut self) {
        self.0.close();
    }
}

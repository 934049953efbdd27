//! Job files of `hasn batch`: videos and options in TOML. Errors name the line of the mistake.

use std::ffi::OsString;
use std::path::Path;

use serde::Deserialize;

use super::option_file::{OptionFile, Table};
use super::presets;
use super::words::Words;
use crate::error::{Error, Result};
use crate::media::Place;

/// A video of a batch, and the options of `hasn upscale` for it.
pub(super) struct BatchItem {
    pub input: OsString,
    pub output: OsString,
    pub words: Words,
}

/// `[defaults]` and each `[[job]]`, with the places of keys and values.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct JobFile {
    #[serde(default)]
    defaults: Table,
    #[serde(default)]
    job: Vec<Table>,
}

/// The videos of a job file. The options of a job override those of the command line, which override the defaults.
pub(super) fn read(path: &Path, typed: &Words) -> Result<Vec<BatchItem>> {
    let file = OptionFile::read(path)?;
    let JobFile { defaults, job: mut jobs } = file.parse("see the example in docs/transcoding.md")?;
    let mut words = Words::default();
    file.settings(&defaults)?.into_iter().for_each(|(name, values)| words.set(&name, values));
    let defaults = words.under(typed);
    let mut videos = Vec::new();
    for (number, table) in (1..).zip(&mut jobs) {
        let job = format!("{}, job {number}", path.display());
        let mut take = |key: &str| {
            let name = file.take_text(table, key)?.ok_or_else(|| {
                Error::new(&*job, format!("has no {key}"), format!("write {key} = \"video.mkv\""))
            })?;
            Ok::<OsString, Error>(match Place::of(&name) {
                Place::File(path) => file.folder().join(path).into(),
                Place::Standard | Place::Url(_) => name.into(),
            })
        };
        let (input, output) = (take("input")?, take("output")?);
        let mut all = defaults.clone();
        for (name, values) in file.settings(table)? {
            all.set(&name, values);
        }
        let all = presets::expand(&all)?;
        all.check(&job)?;
        videos.push(BatchItem { input, output, words: all });
    }
    Ok(videos)
}

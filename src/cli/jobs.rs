//! Job files of `hasn batch`: videos and options in TOML. Errors name the line of the mistake.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::Path;

use serde::Deserialize;
use toml::{Spanned, Value};

use super::words::Words;
use crate::error::{Error, Result};
use crate::media::Place;
use crate::model::catalogue;

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

type Table = BTreeMap<Spanned<String>, Spanned<Value>>;

/// The videos of a job file. The options of a job override those of the command line, which override the defaults.
pub(super) fn read(path: &Path, typed: &Words) -> Result<Vec<BatchItem>> {
    let text = fs::read_to_string(path).map_err(|e| cannot_read(path, e))?;
    let folder = path.parent().unwrap_or(Path::new(""));
    let place = |at: usize| format!("{}:{}", path.display(), text[..at].matches('\n').count() + 1);
    let mut file: JobFile = toml::from_str(&text).map_err(|e| {
        let at = e.span().map_or(0, |span| span.start);
        Error::new(place(at), e.message().replace('\n', " "), "see the example in docs/transcoding.md")
    })?;
    let defaults = words(&file.defaults, folder, &place)?.under(typed);
    let mut videos = Vec::new();
    for (number, table) in (1..).zip(&mut file.job) {
        let mut take = |key: &str| {
            let name = format!("{}, job {number}", path.display());
            let found = table.keys().find(|name| name.get_ref() == key).cloned();
            let value = found.and_then(|key| table.remove(&key)).ok_or_else(|| {
                Error::new(name, format!("has no {key}"), format!("write {key} = \"video.mkv\""))
            })?;
            match value.get_ref() {
                Value::String(name) => Ok(match Place::of(name) {
                    Place::File(path) => folder.join(path).into(),
                    Place::Standard | Place::Url(_) => name.into(),
                }),
                _ => Err(Error::new(place(value.span().start), format!("{key} is not text"), "quote it")),
            }
        };
        let (input, output) = (take("input")?, take("output")?);
        let mut all = defaults.clone();
        for (name, values) in settings(table, folder, &place)? {
            all.set(&name, values);
        }
        all.check(&format!("{}, job {number}", path.display()))?;
        videos.push(BatchItem { input, output, words: all });
    }
    Ok(videos)
}

fn words(table: &Table, folder: &Path, place: &dyn Fn(usize) -> String) -> Result<Words> {
    let mut words = Words::default();
    settings(table, folder, place)?.into_iter().for_each(|(name, values)| words.set(&name, values));
    Ok(words)
}

/// Options by name; `false` removes one.
fn settings(
    table: &Table,
    folder: &Path,
    place: &dyn Fn(usize) -> String,
) -> Result<Vec<(String, Option<Vec<String>>)>> {
    let known = Words::names();
    let mut settings = Vec::new();
    for (key, value) in table {
        let name = key.get_ref();
        if !known.contains(name) {
            let problem = format!("there is no option '{name}' here");
            return Err(Error::new(place(key.span().start), problem, "hasn upscale --help lists them"));
        }
        let values = match value.get_ref() {
            Value::Boolean(is_set) => Some(is_set.then(Vec::new)),
            Value::Array(values) => values
                .iter()
                .map(word)
                .collect::<Option<Vec<_>>>()
                .map(|all| (!all.is_empty()).then_some(all)),
            value => word(value).map(|value| Some(vec![value])),
        };
        let mut values = values.ok_or_else(|| {
            let problem = format!("'{name}' is neither text, number, true nor false, nor a list of those");
            Error::new(place(value.span().start), problem, "write its value as on the command line")
        })?;
        if let ("model", Some([model])) = (name.as_str(), values.as_deref_mut())
            && model != "none"
            && catalogue::find(model).is_none()
        {
            *model = folder.join(&*model).to_string_lossy().into_owned();
        }
        settings.push((name.clone(), values));
    }
    Ok(settings)
}

fn word(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Integer(number) => Some(number.to_string()),
        Value::Float(number) => Some(number.to_string()),
        _ => None,
    }
}

fn cannot_read(path: &Path, error: io::Error) -> Error {
    let problem = format!("cannot be read: {error}");
    let told = Error::new(path.to_string_lossy(), problem, "check the name");
    told.with_kind(error.kind().into()).with_source(error)
}

//! Options of `hasn upscale` in TOML files, as job files and presets have them. Errors name the line of the mistake.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use toml::{Spanned, Value};

use super::words::Words;
use crate::error::{Error, Result};
use crate::model::catalogue;

/// Keys and values, with their places.
pub(super) type Table = BTreeMap<Spanned<String>, Spanned<Value>>;

/// The text of a file that is read, for the places of mistakes in it.
pub(super) struct OptionFile {
    path: PathBuf,
    text: String,
}

impl OptionFile {
    pub fn read(path: &Path) -> Result<OptionFile> {
        let text = fs::read_to_string(path).map_err(|e| {
            let error = Error::new(path.to_string_lossy(), format!("cannot be read: {e}"), "check the name");
            error.with_kind(e.kind().into()).with_source(e)
        })?;
        Ok(OptionFile { path: path.to_owned(), text })
    }

    /// Parses the file. `remedy`: where an example is.
    pub fn parse<T: DeserializeOwned>(&self, remedy: &str) -> Result<T> {
        toml::from_str(&self.text).map_err(|e| {
            let at = e.span().map_or(0, |span| span.start);
            Error::new(self.place(at), e.message().replace('\n', " "), remedy)
        })
    }

    /// Name of the file, and the line of a byte in it.
    pub fn place(&self, at: usize) -> String {
        format!("{}:{}", self.path.display(), self.text[..at].matches('\n').count() + 1)
    }

    /// The folder that the paths in the file are relative to.
    pub fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new(""))
    }

    /// Takes the text of `key` out of a table; `None` if there is no such key.
    pub fn take_text(&self, table: &mut Table, key: &str) -> Result<Option<String>> {
        let found = table.keys().find(|name| name.get_ref() == key).cloned();
        let Some(value) = found.and_then(|key| table.remove(&key)) else { return Ok(None) };
        match value.get_ref() {
            Value::String(text) => Ok(Some(text.clone())),
            _ => Err(Error::new(self.place(value.span().start), format!("{key} is not text"), "quote it")),
        }
    }

    /// Options by name; `false` removes one.
    pub fn settings(&self, table: &Table) -> Result<Vec<(String, Option<Vec<String>>)>> {
        let known = Words::names();
        let mut settings = Vec::new();
        for (key, value) in table {
            let name = key.get_ref();
            if !known.contains(name) {
                let problem = format!("there is no option '{name}' here");
                let place = self.place(key.span().start);
                return Err(Error::new(place, problem, "hasn upscale --help lists them"));
            }
            let place = || self.place(value.span().start);
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
                let problem =
                    format!("'{name}' is neither text, number, true nor false, nor a list of those");
                Error::new(place(), problem, "write its value as on the command line")
            })?;
            if let ("model", Some([model])) = (name.as_str(), values.as_deref_mut())
                && model != "none"
                && catalogue::find(model).is_none()
            {
                *model = self.folder().join(&*model).to_string_lossy().into_owned();
            }
            settings.push((name.clone(), values));
        }
        Ok(settings)
    }
}

fn word(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Integer(number) => Some(number.to_string()),
        Value::Float(number) => Some(number.to_string()),
        _ => None,
    }
}

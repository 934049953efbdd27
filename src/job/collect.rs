//! Jobs: inputs and folders, and a job file, become the videos of a batch. Nothing is written here.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::{Spanned, Value};

use super::batch::Args;
use super::words::Words;
use crate::error::{Error, Result};
use crate::media::{has_video_extension, is_video_file};
use crate::model::catalogue;

/// What `hasn upscale` is to do.
pub(super) struct BatchItem {
    pub input: String,
    pub output: String,
    pub words: Words,
}

#[derive(Default)]
pub(super) struct Jobs {
    pub videos: Vec<BatchItem>,
    /// Files of folders in which FFmpeg finds no video.
    pub left_out: Vec<String>,
}

/// All there is to do, before anything is begun.
pub(super) fn collect(args: &Args) -> Result<Jobs> {
    let mut jobs = Jobs::default();
    match (&args.into, args.inputs.is_empty()) {
        (Some(into), false) => walk_inputs(args, into, &mut jobs)?,
        (None, false) => return Err(Error::new("--into", "is missing", "name the folder for what is made")),
        (Some(_), true) if args.jobs.is_none() => {
            return Err(Error::new("hasn batch", "has no input", "name files or folders, or --jobs"));
        }
        _ => {}
    }
    if let Some(path) = &args.jobs {
        jobs.videos.extend(read(path, &args.words)?);
    }
    if jobs.videos.is_empty() {
        return Err(Error::new("hasn batch", "there is no video in what was named", "look at what is there"));
    }
    let mut outputs = BTreeMap::new();
    for video in &jobs.videos {
        let path = std::path::absolute(&video.output)
            .map_err(|e| Error::new(&video.output, e.to_string(), "name it otherwise"))?;
        if let Some(other) = outputs.insert(path, &video.input) {
            let problem = format!("would be made of {other} and of {}", video.input);
            return Err(Error::new(
                &video.output,
                problem,
                "make them one after the other, into two folders",
            ));
        }
    }
    Ok(jobs)
}

fn walk_inputs(args: &Args, into: &Path, jobs: &mut Jobs) -> Result<()> {
    args.words.check("hasn batch")?;
    let skipped = fs::canonicalize(into).ok();
    for input in &args.inputs {
        let mut walk = Walk { skipped: skipped.as_deref(), found: Vec::new(), left_out: &mut jobs.left_out };
        let root = match fs::metadata(input) {
            Ok(metadata) if metadata.is_dir() => {
                if fs::canonicalize(input).ok() == skipped {
                    let problem = "is --into as well";
                    return Err(Error::new(input.to_string_lossy(), problem, "name another folder"));
                }
                walk.folder(input).map_err(|(path, e)| cannot_read(&path, &e))?;
                input.as_path()
            }
            Ok(_) => {
                walk.found.push(input.clone());
                input.parent().unwrap_or(Path::new(""))
            }
            Err(e) => return Err(cannot_read(input, &e)),
        };
        for path in walk.found {
            let beside = into.join(path.strip_prefix(root).expect("it was found there"));
            let output = match &args.ending {
                Some(ending) => beside.with_extension(ending),
                None if is_written(&beside) => beside,
                None => beside.with_extension("mkv"),
            };
            let video = BatchItem { input: text(&path)?, output: text(&output)?, words: args.words.clone() };
            jobs.videos.push(video);
        }
    }
    Ok(())
}

/// Stills are, where they were named themselves.
fn is_written(path: &Path) -> bool {
    let ending = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
    has_video_extension(&format!("video.{ending}")) || ["png", "jpg", "jpeg", "webp"].contains(&&*ending)
}

/// Files of a folder and those in it, by name.
struct Walk<'a> {
    skipped: Option<&'a Path>,
    found: Vec<PathBuf>,
    left_out: &'a mut Vec<String>,
}

impl Walk<'_> {
    fn folder(&mut self, folder: &Path) -> std::result::Result<(), (PathBuf, io::Error)> {
        let list = || fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>();
        let mut paths = list().map_err(|e| (folder.to_owned(), e))?;
        paths.sort();
        for path in paths {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            // Hidden, or of a run of ours that is not at its end.
            if name.starts_with('.') || name.ends_with(".hasn") || name.contains(".partial.") {
                continue;
            }
            if path.is_dir() {
                // Links of folders may lead in circles.
                if path.is_symlink() {
                    self.left_out.push(path.display().to_string());
                } else if self.skipped != fs::canonicalize(&path).ok().as_deref() {
                    self.folder(&path)?;
                }
            } else if path.to_str().is_none_or(is_video_file) {
                self.found.push(path);
            } else {
                self.left_out.push(path.display().to_string());
            }
        }
        Ok(())
    }
}

/// As `[defaults]` and `[[job]]` write it, with the places of all that is in it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct JobFile {
    #[serde(default)]
    defaults: Table,
    #[serde(default)]
    job: Vec<Table>,
}

type Table = BTreeMap<Spanned<String>, Spanned<Value>>;

/// The videos of a job file. A job's options win over the command line's, and these over the defaults.
fn read(path: &Path, typed: &Words) -> Result<Vec<BatchItem>> {
    let text = fs::read_to_string(path).map_err(|e| cannot_read(path, &e))?;
    let folder = path.parent().unwrap_or(Path::new(""));
    let place = |at: usize| format!("{}:{}", path.display(), text[..at].matches('\n').count() + 1);
    let mut file: JobFile = toml::from_str(&text).map_err(|e| {
        let at = e.span().map_or(0, |span| span.start);
        Error::new(place(at), e.message().replace('\n', " "), "see the example in the README")
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
                Value::String(name) => Ok(folder.join(name).to_string_lossy().into_owned()),
                _ => Err(Error::new(place(value.span().start), format!("{key} is no name"), "quote it")),
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

/// Options by name; `false` takes one out.
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
            Error::new(place(value.span().start), problem, "write it as after hasn upscale")
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

fn text(path: &Path) -> Result<String> {
    let text = path.to_str().map(str::to_owned);
    text.ok_or_else(|| Error::new(path.to_string_lossy(), "its name is no UTF-8", "give it another name"))
}

fn cannot_read(path: &Path, error: &io::Error) -> Error {
    Error::new(path.to_string_lossy(), format!("cannot be read: {error}"), "check the name")
}

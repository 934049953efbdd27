//! Collect: finds the inputs of a batch in files and folders, and names their outputs. It writes nothing.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::media::{Place, has_video_extension, is_video_file, redacted};

/// An input and its output.
pub(crate) struct Pair {
    /// Path of the input.
    pub input: OsString,
    /// Path of the output.
    pub output: OsString,
}

/// The inputs that were found in files and folders.
#[derive(Default)]
pub(crate) struct Found {
    /// In the order of the arguments, then by name.
    pub videos: Vec<Pair>,
    /// What is not an input, except for what hasn itself writes beside an output.
    pub left_out: Vec<LeftOut>,
}

/// A file or folder that is not an input.
pub(crate) struct LeftOut {
    pub name: String,
    pub reason: &'static str,
}

/// Finds the videos among `inputs` and in their folders, which the outputs mirror below `into`. `extension`: that of the
/// outputs; `None` for the input's.
pub(crate) fn collect(inputs: &[PathBuf], into: &Path, extension: Option<&str>) -> Result<Found> {
    let mut found = Found::default();
    let skipped = fs::canonicalize(into).ok();
    for input in inputs {
        let input = Place::of(input).path().unwrap_or(input);
        let mut walk = Walk { skipped: skipped.as_deref(), found: Vec::new(), left_out: &mut found.left_out };
        let root = match fs::metadata(input) {
            Ok(metadata) if metadata.is_dir() => {
                if fs::canonicalize(input).ok() == skipped {
                    let problem = "is --into as well";
                    return Err(Error::new(input.to_string_lossy(), problem, "name another folder"));
                }
                walk.folder(input).map_err(|(path, e)| cannot_read(&path, e))?;
                input
            }
            Ok(_) => {
                walk.found.push(input.to_owned());
                input.parent().unwrap_or(Path::new(""))
            }
            Err(e) => return Err(cannot_read(input, e)),
        };
        for path in walk.found {
            let mirrored = into.join(path.strip_prefix(root).expect("it was found there"));
            let output = match extension {
                Some(extension) => mirrored.with_extension(extension),
                None if is_written(&mirrored) => mirrored,
                None => mirrored.with_extension("mkv"),
            };
            found.videos.push(Pair { input: path.into(), output: output.into() });
        }
    }
    Ok(found)
}

/// Refuses two inputs with one output.
pub(crate) fn check_distinct<'a>(videos: impl IntoIterator<Item = (&'a OsStr, &'a OsStr)>) -> Result<()> {
    let mut outputs = BTreeMap::new();
    for (input, output) in videos {
        let path = std::path::absolute(output)
            .map_err(|e| Error::io(output.to_string_lossy(), e, "name it otherwise"))?;
        if let Some(other) = outputs.insert(path, input) {
            let problem = format!("would be written from {} and from {}", redacted(other), redacted(input));
            return Err(Error::new(
                output.to_string_lossy(),
                problem,
                "run them one after the other, into two folders",
            ));
        }
    }
    Ok(())
}

/// Whether FFmpeg writes files with the extension of this one. An image is an input only where the user named it.
fn is_written(path: &Path) -> bool {
    let extension = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
    has_video_extension(&format!("video.{extension}"))
        || ["png", "jpg", "jpeg", "webp"].contains(&&*extension)
}

/// A search of a folder and its subfolders, in the order of names.
struct Walk<'a> {
    skipped: Option<&'a Path>,
    found: Vec<PathBuf>,
    left_out: &'a mut Vec<LeftOut>,
}

impl Walk<'_> {
    fn folder(&mut self, folder: &Path) -> std::result::Result<(), (PathBuf, io::Error)> {
        let list = || fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>();
        let mut paths = list().map_err(|e| (folder.to_owned(), e))?;
        paths.sort();
        for path in paths {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            // Hidden files, and the journal of an unfinished run of hasn.
            if name.starts_with('.') || name.ends_with(".hasn") {
                continue;
            }
            let mut leave_out =
                |reason| self.left_out.push(LeftOut { name: path.display().to_string(), reason });
            if path.is_dir() {
                // Links to folders may lead in circles.
                if path.is_symlink() {
                    leave_out("links to folders are not followed");
                } else if self.skipped != fs::canonicalize(&path).ok().as_deref() {
                    self.folder(&path)?;
                }
            } else if name.contains(".partial.") {
                leave_out("it has the name of an unfinished output; name it as an input to upscale it");
            } else if fs::metadata(&path).is_ok_and(|data| !data.is_file()) {
                leave_out("it is not a regular file");
            } else if is_video_file(&path) {
                self.found.push(path);
            } else {
                leave_out("there is no video in it");
            }
        }
        Ok(())
    }
}

fn cannot_read(path: &Path, error: io::Error) -> Error {
    let problem = format!("cannot be read: {error}");
    let told = Error::new(redacted(path), problem, "check the name");
    told.with_kind(error.kind().into()).with_source(error)
}

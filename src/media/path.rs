//! Paths: the partial name of an unfinished file, and whether two names are one file.

use std::fs;
use std::path::{Path, PathBuf};

/// `video.mkv` -> `video.partial.mkv`. The extension stays, so that players open it.
pub(crate) fn partial_path(path: &Path) -> PathBuf {
    let mut name = path.file_stem().unwrap_or_default().to_owned();
    name.push(".partial");
    if let Some(extension) = path.extension() {
        name.push(".");
        name.push(extension);
    }
    path.with_file_name(name)
}

/// Whether both names are one existing file.
pub(crate) fn same_file(a: &Path, b: &Path) -> bool {
    matches!((fs::canonicalize(a), fs::canonicalize(b)), (Ok(a), Ok(b)) if a == b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partial_file_keeps_its_extension() {
        assert_eq!(partial_path(Path::new("a/video.4k.mkv")), Path::new("a/video.4k.partial.mkv"));
        assert_eq!(partial_path(Path::new("video")), Path::new("video.partial"));
    }
}

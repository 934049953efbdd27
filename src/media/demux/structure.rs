//! Structure: a second look at an input file, past FFmpeg, for what its demuxers do not report.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::Path;

/// Opens the file of this name; `None` if there is no such regular file: the input is an address or a pipe.
pub(crate) fn open_regular(path: &Path) -> io::Result<Option<File>> {
    // Opening a named pipe would wait for a writer.
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => File::open(path).map(Some),
        Ok(_) => Ok(None),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// What was read; `None` where the file ends before it or holds something else. Other errors are those of the device.
pub(crate) fn if_present<T>(read: io::Result<T>) -> io::Result<Option<T>> {
    match read {
        Err(e) if matches!(e.kind(), ErrorKind::UnexpectedEof | ErrorKind::InvalidData) => Ok(None),
        read => read.map(Some),
    }
}

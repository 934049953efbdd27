//! AVI: chunks without content, each of which says that the frame before it stays. The container's count includes them, and
//! FFmpeg's demuxer skips them.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::media::demux::structure::{if_present, open_regular};

/// Number of empty chunks of the video of this stream, as far as the file goes; 0 if the path is not a file.
pub(crate) fn empty_chunks(path: &Path, stream: usize) -> io::Result<u64> {
    let Some(file) = open_regular(path)? else { return Ok(0) };
    let number = format!("{stream:02}");
    let (mut position, mut count) = (0, 0);
    while let Some((id, size, kind)) = if_present(chunk_at(&file, position))? {
        let is_entered = id == *b"RIFF" || (id == *b"LIST" && matches!(&kind, b"movi" | b"rec "));
        let is_video = id[..2] == *number.as_bytes() && matches!(&id[2..], b"dc" | b"db");
        count += u64::from(is_video && size == 0);
        // Chunks begin at even bytes.
        position += if is_entered { 12 } else { 8 + u64::from(size) + u64::from(size % 2) };
    }
    Ok(count)
}

/// Name and size of a chunk, and the four bytes after them, which name the kind of a list.
fn chunk_at(file: &File, position: u64) -> io::Result<([u8; 4], u32, [u8; 4])> {
    let mut header = [0; 12];
    file.read_exact_at(&mut header[..8], position)?;
    let [id, size] = [0, 4].map(|at| <[u8; 4]>::try_from(&header[at..at + 4]).expect("four bytes"));
    // An empty chunk may be the last of a file.
    let _ = file.read_at(&mut header[8..], position + 8)?;
    let kind = header[8..].try_into().expect("four bytes");
    Ok((id, u32::from_le_bytes(size), kind))
}

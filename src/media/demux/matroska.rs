//! Matroska: whether a file is as long as it states. FFmpeg's demuxer reports no error for one that is truncated between
//! two blocks.

use std::io::{self, BufReader, Read};
use std::path::Path;

use crate::media::demux::structure::{if_present, open_regular};

/// IDs of the two elements that a file consists of (RFC 9559, 5.1).
const EBML: u64 = 0x1a45_dfa3;
const SEGMENT: u64 = 0x1853_8067;

/// What a file lacks; `None` for a complete file, for one that states no size (a stream), and if the path is not a file.
pub(crate) fn missing(path: &Path) -> io::Result<Option<String>> {
    let Some(file) = open_regular(path)? else { return Ok(None) };
    let found = file.metadata()?.len();
    let announced = if_present(length(&mut BufReader::new(file)))?.flatten();
    let is_short = |&announced: &u64| found < announced;
    Ok(announced.filter(is_short).map(|announced| format!("ends after {found} of {announced} bytes")))
}

/// Size in bytes that the file states; `None` if it does not.
fn length(file: &mut impl Read) -> io::Result<Option<u64>> {
    let mut at = 0;
    for wanted in [EBML, SEGMENT] {
        let (id, id_len) = number(file, false)?;
        let (size, size_len) = number(file, true)?;
        let unknown = (1 << (7 * size_len)) - 1;
        if id != wanted || size == unknown {
            return Ok(None);
        }
        at += id_len + size_len + size;
        if wanted == EBML {
            io::copy(&mut file.take(size), &mut io::sink())?;
        }
    }
    Ok(Some(at))
}

/// A variable-size integer and its length in bytes. The bits that mark the length are part of an ID, but not of a size.
fn number(file: &mut impl Read, is_size: bool) -> io::Result<(u64, u64)> {
    let mut bytes = [0; 8];
    file.read_exact(&mut bytes[..1])?;
    let len = bytes[0].leading_zeros() as usize + 1;
    if len > 8 {
        return Err(io::ErrorKind::InvalidData.into());
    }
    file.read_exact(&mut bytes[1..len])?;
    if is_size {
        bytes[0] ^= 0x80 >> (len - 1);
    }
    Ok((bytes[..len].iter().fold(0, |number, &byte| number << 8 | u64::from(byte)), len as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stated_size_is_read() {
        let header = [0x1a, 0x45, 0xdf, 0xa3, 0x82, 7, 7];
        let segment = |size: &[u8]| [&header[..], &[0x18, 0x53, 0x80, 0x67], size].concat();
        assert_eq!(length(&mut &segment(&[0x8a])[..]).unwrap(), Some(7 + 5 + 10));
        assert_eq!(length(&mut &segment(&[0x41, 0x00])[..]).unwrap(), Some(7 + 6 + 256));
        let long = segment(&[0x01, 0, 0, 0, 0, 0, 1, 2]);
        assert_eq!(length(&mut &long[..]).unwrap(), Some(7 + 12 + 258));
        for unknown in [&[0xff][..], &[0x01, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]] {
            assert_eq!(length(&mut &segment(unknown)[..]).unwrap(), None);
        }
        assert_eq!(length(&mut &b"RIFF and more bytes"[..]).ok().flatten(), None);
        assert!(length(&mut &header[..]).is_err());
    }
}

//! QuickTime and MP4: whether the tables of a track are consistent. FFmpeg leaves out frames that an edit list hides, without
//! an error even where a damaged table puts them outside of it.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use crate::media::demux::structure::{if_present, open_regular};

/// Larger than the index of a video of days; a damaged size may ask for more.
const INDEX_BYTES_MAX: u64 = 1 << 28;

/// Whether the tables of this track contradict each other; `false` if one is missing, or the path is not a file.
pub(crate) fn is_inconsistent(path: &Path, track: i32) -> io::Result<bool> {
    let (Some(file), Ok(track)) = (open_regular(path)?, u32::try_from(track)) else { return Ok(false) };
    let index = if_present(read_index(file))?.flatten();
    Ok(index.and_then(|index| is_track_inconsistent(&index, track)).unwrap_or(false))
}

/// The content of the box `moov`; `None` where a box before it is invalid.
fn read_index(mut file: File) -> io::Result<Option<Vec<u8>>> {
    loop {
        let mut header = [0; 16];
        file.read_exact(&mut header[..8])?;
        let (mut size, mut header_len) = (u64::from(u32_at(&header, 0).expect("eight bytes")), 8);
        if size == 1 {
            file.read_exact(&mut header[8..])?;
            (size, header_len) = (u64_at(&header, 8).expect("sixteen bytes"), 16);
        }
        let Some(content) = size.checked_sub(header_len) else { return Ok(None) };
        if &header[4..8] == b"moov" {
            let mut bytes = Vec::new();
            file.take(content.min(INDEX_BYTES_MAX)).read_to_end(&mut bytes)?;
            return Ok(Some(bytes));
        }
        let Ok(content) = i64::try_from(content) else { return Ok(None) };
        file.seek(SeekFrom::Current(content))?;
    }
}

/// `None` if a table is missing (ISO/IEC 14496-12, 8.2 to 8.7).
fn is_track_inconsistent(index: &[u8], track: u32) -> Option<bool> {
    let is_track = |content: &&[u8]| {
        let header = find(content, &[b"tkhd"]);
        header.and_then(|header| u32_at(header, 12 + version_shift(header))) == Some(track)
    };
    let content =
        boxes(index).filter(|(name, _)| name == b"trak").map(|(_, content)| content).find(is_track)?;
    let table = |name| find(content, &[b"mdia", b"minf", b"stbl", name]);

    let sizes = u64::from(u32_at(table(b"stsz").or_else(|| table(b"stz2"))?, 8)?);
    let (mut frames, mut ticks) = (0, 0);
    for [count, length] in rows(table(b"stts")?) {
        frames += u64::from(count);
        ticks = u64::saturating_add(ticks, u64::from(count) * u64::from(length));
    }
    let chunks = u64::from(u32_at(table(b"stco").or_else(|| table(b"co64"))?, 4)?);
    let runs: Vec<[u32; 3]> = rows(table(b"stsc")?).collect();
    let ends = runs.iter().skip(1).map(|run| u64::from(run[0])).chain([chunks + 1]);
    let in_run = |(run, end): (&[u32; 3], u64)| end.saturating_sub(run[0].into()) * u64::from(run[1]);
    let in_chunks = runs.iter().zip(ends).map(in_run).fold(0, u64::saturating_add);

    // Some muxers leave the last frame out of the duration.
    let media = find(content, &[b"mdia", b"mdhd"]).and_then(|header| duration_at(header, 16));
    let differs_in_duration = media.is_some_and(|media| ticks.abs_diff(media).saturating_mul(frames) > ticks);
    Some(frames != sizes || in_chunks != sizes || differs_in_duration || differs_in_edits(content))
}

/// Whether the edits of a track are longer or shorter than its header states.
fn differs_in_edits(track: &[u8]) -> bool {
    let length = find(track, &[b"tkhd"]).and_then(|header| duration_at(header, 20));
    let (Some(length), Some(edits)) = (length, find(track, &[b"edts", b"elst"]).map(edits)) else {
        return false;
    };
    let sum =
        |edits: &mut dyn Iterator<Item = &Edit>| edits.fold(0, |sum: u64, e| sum.saturating_add(e.length));
    // Some muxers leave out the empty edit before the first frame, and all round.
    let sums = [sum(&mut edits.iter()), sum(&mut edits.iter().filter(|edit| !edit.is_empty))];
    !edits.is_empty() && sums.iter().all(|sum| sum.abs_diff(length) > edits.len() as u64)
}

/// Bytes by which fields lie later in a header of version 1, which begins with two 64-bit times instead of 32-bit ones.
fn version_shift(header: &[u8]) -> usize {
    if header.first() == Some(&1) { 8 } else { 0 }
}

/// A duration; all bits set means unknown.
fn duration_at(header: &[u8], at: usize) -> Option<u64> {
    match version_shift(header) {
        0 => u32_at(header, at).filter(|&length| length != u32::MAX).map(u64::from),
        shift => u64_at(header, at + shift).filter(|&length| length != u64::MAX),
    }
}

/// A part of the media that is shown, or an empty edit before it; in the file's ticks.
struct Edit {
    length: u64,
    is_empty: bool,
}

fn edits(table: &[u8]) -> Vec<Edit> {
    if table.first() == Some(&1) {
        let wide = |high, low| u64::from(high) << 32 | u64::from(low);
        let edit = |[a, b, c, d, _]: [u32; 5]| Edit { length: wide(a, b), is_empty: wide(c, d) == u64::MAX };
        rows(table).map(edit).collect()
    } else {
        let edit = |[length, from, _]: [u32; 3]| Edit { length: length.into(), is_empty: from == u32::MAX };
        rows(table).map(edit).collect()
    }
}

/// The content of a nested box.
fn find<'a>(content: &'a [u8], path: &[&[u8; 4]]) -> Option<&'a [u8]> {
    path.iter().try_fold(content, |content, wanted| {
        boxes(content).find(|(name, _)| name == *wanted).map(|(_, content)| content)
    })
}

/// Names and contents of boxes, up to the first that is invalid.
fn boxes(mut bytes: &[u8]) -> impl Iterator<Item = ([u8; 4], &[u8])> {
    std::iter::from_fn(move || {
        let (size, name) = (u32_at(bytes, 0)? as usize, *bytes.get(4..)?.first_chunk()?);
        let content = bytes.get(8..size)?;
        bytes = &bytes[size..];
        Some((name, content))
    })
}

/// Rows of a table that begins with their number.
fn rows<const N: usize>(table: &[u8]) -> impl Iterator<Item = [u32; N]> {
    let count = u32_at(table, 4).unwrap_or(0) as usize;
    let rows = table.get(8..).unwrap_or_default().chunks_exact(4 * N).take(count);
    rows.map(|row| std::array::from_fn(|i| u32_at(row, 4 * i).expect("a row has N words")))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn boxed(name: &[u8; 4], content: impl AsRef<[u8]>) -> Vec<u8> {
        let content = content.as_ref();
        [&(content.len() as u32 + 8).to_be_bytes(), &name[..], content].concat()
    }

    fn words(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_be_bytes()).collect()
    }

    /// An index of five frames of 512 ticks in two chunks, with headers of version 0 or 1.
    fn index(is_wide: bool, lengths: &[u32], media: u32, shown: u32) -> Vec<u8> {
        let form = |narrow: &[u32], wide: &[u32]| words(if is_wide { wide } else { narrow });
        let wide = 1 << 24;
        let header = form(&[0, 9, 9, 7, 0, shown], &[wide, 0, 9, 0, 9, 7, 0, 0, shown]);
        let media = form(&[0, 9, 9, 12800, media], &[wide, 0, 9, 0, 9, 12800, 0, media]);
        let edits = form(
            &[0, 2, 40, u32::MAX, 0, 200, 0, 0],
            &[wide, 2, 0, 40, u32::MAX, u32::MAX, 0, 0, 200, 0, 0, 0],
        );
        let chunks = if is_wide {
            boxed(b"co64", words(&[0, 2, 0, 1, 0, 2]))
        } else {
            boxed(b"stco", words(&[0, 2, 1, 2]))
        };
        let tables = [
            boxed(b"stts", words(lengths)),
            boxed(b"stsc", words(&[0, 2, 1, 3, 1, 2, 2, 1])),
            boxed(b"stsz", words(&[0, 0, 5, 1, 1, 1, 1, 1])),
            chunks,
        ];
        let content = boxed(b"minf", boxed(b"stbl", tables.concat()));
        let track = [
            boxed(b"tkhd", header),
            boxed(b"edts", boxed(b"elst", edits)),
            boxed(b"mdia", [boxed(b"mdhd", media), content].concat()),
        ];
        [boxed(b"mvhd", [0; 100]), boxed(b"trak", track.concat())].concat()
    }

    #[test]
    fn tables_that_contradict_each_other_are_found() {
        for is_wide in [false, true] {
            let found = |lengths: &[u32], media, shown| {
                is_track_inconsistent(&index(is_wide, lengths, media, shown), 7)
            };
            let good = [0, 1, 5, 512];
            for shown in [200, 202, 240] {
                assert_eq!(found(&good, 2560, shown), Some(false), "the empty edit counts or does not");
            }
            assert_eq!(found(&good, 2560 - 512, 200), Some(false), "without the last frame");
            assert_eq!(found(&good, u32::MAX, 200), Some(is_wide), "32 bits set are an unknown duration");
            assert_eq!(found(&good, 2560 - 513, 200), Some(true));
            assert_eq!(found(&good, 2560, 220), Some(true));
            assert_eq!(found(&[0, 1, 6, 512], 3072, 200), Some(true));
            assert_eq!(found(&[0, 2, 4, 512, 1, 5120], 2560, 200), Some(true));
            assert_eq!(is_track_inconsistent(&index(is_wide, &good, 2560, 200), 8), None, "another track");
        }
        let mut many = index(false, &[0, 1, 5, 512], 2560, 200);
        let runs = many.windows(4).position(|name| name == b"stsc").unwrap() + 12;
        many[runs..runs + 24].copy_from_slice(&words(&[0, u32::MAX, 1, u32::MAX, u32::MAX, 1]));
        assert_eq!(is_track_inconsistent(&many, 7), Some(true), "more than 64 bits count");
    }
}

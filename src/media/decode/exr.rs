//! EXR: whether a file has all its blocks, and its chromaticities. FFmpeg's decoder skips missing blocks without an error,
//! and does not read chromaticities.
//!
//! In: the bytes of a file. Out: what it lacks, and has. A file begins with attributes, then the offsets of all blocks as u64, then
//! the blocks. Writers fill in the offsets at the end, so an unfinished file has zeros there.

const MAGIC: [u8; 4] = [0x76, 0x2f, 0x31, 0x01];
/// Bytes before the attributes: the magic number and the version word.
pub(crate) const HEAD: usize = 8;
/// Flags of the version word: tiles, deep samples, several parts.
const IS_TILED: u32 = 0x200;
const IS_DEEP_OR_MULTIPART: u32 = 0x800 | 0x1000;

/// What a file of one part lacks; `None` for a complete file, and for one that is not EXR.
pub(crate) fn missing(file: &[u8]) -> Option<&'static str> {
    let version = u32::from_le_bytes(array(file, 4)?);
    if !file.starts_with(&MAGIC) || version & IS_DEEP_OR_MULTIPART != 0 {
        return None;
    }
    // The decoder reports a truncated header.
    let table = end_of_header(file)?;
    let mut first = file.len();
    let mut at = table;
    while at < first {
        let place = array(file, at).map(u64::from_le_bytes).and_then(|place| usize::try_from(place).ok());
        match place {
            None => return Some("it is truncated"),
            Some(place) if place < table => return Some("it is incomplete"),
            Some(place) => first = first.min(place),
        }
        at += 8;
    }
    let places =
        file[table..first].as_chunks::<8>().0.iter().map(|place| u64::from_le_bytes(*place) as usize);
    // The first line of the block, or the coordinates of the tile; then the size.
    let head = if version & IS_TILED == 0 { 4 } else { 16 };
    let content = |place: usize| {
        let size = array(file, place.checked_add(head)?).map(u32::from_le_bytes)?;
        file.get(place..)?.get(head + 4..)?.get(..size as usize)
    };
    let is_truncated = places.into_iter().any(|place| content(place).is_none());
    is_truncated.then_some("it is truncated")
}

/// Chromaticities of R, G, B and white, x and y of each, of a file that has them.
pub(crate) fn chromaticities(file: &[u8]) -> Option<[f64; 8]> {
    if !file.starts_with(&MAGIC) {
        return None;
    }
    let mut attributes = Attributes { file, at: HEAD };
    let (_, value) = attributes.find(|(name, _)| *name == b"chromaticities")?;
    let words = value.as_chunks::<4>().0.first_chunk::<8>()?;
    Some(words.map(|word| f64::from(f32::from_le_bytes(word))))
}

/// Offset past the empty name that ends the attributes.
pub(crate) fn end_of_header(file: &[u8]) -> Option<usize> {
    let mut attributes = Attributes { file, at: HEAD };
    attributes.by_ref().for_each(drop);
    (file.get(attributes.at) == Some(&0)).then_some(attributes.at + 1)
}

/// Names and values of the attributes: name, 0, type, 0, size, value. `at` ends at the empty name, in a complete file.
struct Attributes<'a> {
    file: &'a [u8],
    at: usize,
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let file = self.file;
        let text = |at: usize| {
            let rest = file.get(at..)?;
            Some(&rest[..rest.iter().position(|&byte| byte == 0)?])
        };
        let name = text(self.at).filter(|name| !name.is_empty())?;
        let kind_at = self.at + name.len() + 1;
        let size_at = kind_at + text(kind_at)?.len() + 1;
        let size = u32::from_le_bytes(array(file, size_at)?) as usize;
        let value_at = size_at + 4;
        let value = file.get(value_at..value_at.checked_add(size)?)?;
        self.at = value_at + size;
        Some((name, value))
    }
}

fn array<const N: usize>(file: &[u8], at: usize) -> Option<[u8; N]> {
    file.get(at..)?.first_chunk().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file of two blocks, 5 and 3 bytes long.
    fn file(flags: u32, head: usize) -> Vec<u8> {
        let mut file = [&MAGIC[..], &(2 | flags).to_le_bytes()].concat();
        file.extend(b"compression\0compression\0\x01\0\0\0\0\0");
        let first = file.len() + 16;
        for place in [first, first + head + 4 + 5] {
            file.extend((place as u64).to_le_bytes());
        }
        for size in [5u32, 3] {
            file.extend(vec![0; head]);
            file.extend(size.to_le_bytes());
            file.extend(vec![7; size as usize]);
        }
        file
    }

    #[test]
    fn truncated_and_incomplete_files_are_found() {
        for (flags, head) in [(0, 4), (IS_TILED, 16)] {
            let complete = file(flags, head);
            assert_eq!(missing(&complete), None);
            let table = complete.len() - 2 * (head + 4) - 8 - 16;
            for size in table + 1..complete.len() {
                assert_eq!(
                    missing(&complete[..size]),
                    Some("it is truncated"),
                    "{size} of {}",
                    complete.len()
                );
            }
            let mut unfinished = complete.clone();
            unfinished[table + 8..table + 16].fill(0);
            assert_eq!(missing(&unfinished), Some("it is incomplete"));
        }
        assert_eq!(missing(b"no EXR at all"), None);
        assert_eq!(chromaticities(b"no EXR at all"), None);
        assert_eq!(missing(&file(0x1000, 4)[..40]), None);
    }
    #[test]
    fn chromaticities_are_read() {
        let aces = [0.7347f32, 0.2653, 0.0, 1.0, 0.0001, -0.077, 0.32168, 0.33767];
        let mut with = [&MAGIC[..], &2u32.to_le_bytes()].concat();
        with.extend(b"chromaticities\0chromaticities\0\x20\0\0\0");
        with.extend(aces.iter().flat_map(|value| value.to_le_bytes()));
        with.extend(&file(0, 4)[HEAD..]);
        assert_eq!(chromaticities(&with), Some(aces.map(f64::from)));
        assert_eq!(chromaticities(&file(0, 4)), None);
        for size in 0..HEAD + 66 {
            assert_eq!(chromaticities(&with[..size]), None, "{size}");
        }
    }
}

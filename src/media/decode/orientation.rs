//! Orientation: how frames are turned for display, by a display matrix of the stream or the frame, or by EXIF.
//!
//! In: the display matrix of the stream, packets of images, decoded frames. Out: for each frame the filter that turns it
//! upright, unless the output carries the stream's matrix. FFmpeg 5.1 reads EXIF in JPEG only; in PNG, TIFF and WebP it is
//! read here.

use ffmpeg_next::codec;
use ffmpeg_next::frame::Video as AvFrame;

use crate::media::side_data::{DisplayMatrix, take_display_matrix};

/// EXIF's orientations from 1 on, as FFmpeg's filters that turn them upright.
const FILTERS: [&str; 8] = [
    "",
    "hflip",
    "hflip,vflip",
    "vflip",
    "transpose=cclock_flip",
    "transpose=clock",
    "transpose=clock_flip",
    "transpose=cclock",
];

/// Orientation of the frames of one source.
pub(crate) struct Orientation {
    stream: Option<DisplayMatrix>,
    /// Whether the output carries the stream's matrix; fixed by the first frame.
    is_carried: bool,
    has_started: bool,
    /// Filter for the image that was sent last.
    of_packet: Option<&'static str>,
}

impl Orientation {
    /// `is_held`: whether the output can hold a display matrix.
    pub fn new(stream: Option<DisplayMatrix>, is_held: bool) -> Orientation {
        Orientation { stream, is_carried: is_held && stream.is_some(), has_started: false, of_packet: None }
    }

    /// Whether frames are not turned, because the output carries the stream's matrix.
    pub fn is_carried(&self) -> bool {
        self.is_carried
    }

    /// Reads the EXIF of an image that is sent to the decoder.
    pub fn sent(&mut self, id: codec::Id, image: &[u8]) {
        self.of_packet = exif_orientation(id, image).and_then(|number| filter_of_exif(number.into()));
    }

    /// Returns the filter that turns the frame upright, if it is not, and removes the frame's own matrix.
    pub fn filter_for(&mut self, av_frame: &mut AvFrame) -> Option<&'static str> {
        let of_frame = take_display_matrix(av_frame);
        if !std::mem::replace(&mut self.has_started, true) {
            // A frame's own matrix overrides the stream's, as in ffmpeg.
            self.is_carried &= of_frame.is_none() || of_frame == self.stream;
        }
        if self.is_carried {
            return None;
        }
        let filter = match of_frame {
            Some(matrix) => upright_filter(&matrix),
            None => self.of_packet.or_else(|| upright_filter(&self.stream?)),
        };
        filter.filter(|filter| !filter.is_empty())
    }
}

/// The filter that turns frames with this matrix upright; empty where they are. `None` for other angles than those of
/// a quarter turn.
pub(crate) fn upright_filter(matrix: &DisplayMatrix) -> Option<&'static str> {
    // A sample at (x, y) is shown at (ax + cy, bx + dy).
    let [a, b, _, c, d, ..] = *matrix;
    let exif = match (a.signum(), b.signum(), c.signum(), d.signum()) {
        (1, 0, 0, 1) => 1,
        (-1, 0, 0, 1) => 2,
        (-1, 0, 0, -1) => 3,
        (1, 0, 0, -1) => 4,
        (0, 1, 1, 0) => 5,
        (0, 1, -1, 0) => 6,
        (0, -1, -1, 0) => 7,
        (0, -1, 1, 0) => 8,
        _ => return None,
    };
    filter_of_exif(exif)
}

fn filter_of_exif(orientation: usize) -> Option<&'static str> {
    FILTERS.get(orientation.checked_sub(1)?).copied()
}

/// The EXIF orientation in a file of a format whose decoder does not read it.
fn exif_orientation(id: codec::Id, image: &[u8]) -> Option<u16> {
    const PNG_SIGNATURE: usize = 8;
    const RIFF_HEADER: usize = 12;
    match id {
        codec::Id::TIFF => tiff_orientation(image),
        codec::Id::PNG => {
            let mut rest = image.get(PNG_SIGNATURE..)?;
            loop {
                let size = u32::from_be_bytes(rest.get(..4)?.try_into().ok()?) as usize;
                match rest.get(4..8)? {
                    b"eXIf" => return tiff_orientation(rest.get(8..8 + size)?),
                    _ => rest = rest.get(size.checked_add(12)?..)?,
                }
            }
        }
        codec::Id::WEBP => {
            let mut rest = image.get(RIFF_HEADER..)?;
            loop {
                let size = u32::from_le_bytes(rest.get(4..8)?.try_into().ok()?) as usize;
                if rest.get(..4)? == b"EXIF" {
                    let exif = rest.get(8..8 + size)?;
                    return tiff_orientation(exif.strip_prefix(b"Exif\0\0").unwrap_or(exif));
                }
                rest = rest.get(size.next_multiple_of(2).checked_add(8)?..)?;
            }
        }
        _ => None,
    }
}

/// The orientation in the first directory of a TIFF structure, which EXIF is as well.
fn tiff_orientation(tiff: &[u8]) -> Option<u16> {
    const ORIENTATION: u16 = 274;
    let is_little = match tiff.get(..4)? {
        b"II*\0" => true,
        b"MM\0*" => false,
        _ => return None,
    };
    let u16_at = |at: usize| {
        let bytes = tiff.get(at..at.checked_add(2)?)?.try_into().ok()?;
        Some(if is_little { u16::from_le_bytes(bytes) } else { u16::from_be_bytes(bytes) })
    };
    let word = tiff.get(4..8)?.try_into().ok()?;
    let directory = (if is_little { u32::from_le_bytes(word) } else { u32::from_be_bytes(word) }) as usize;
    let mut entries = (0..usize::from(u16_at(directory)?)).map(|i| directory + 2 + 12 * i);
    u16_at(entries.find(|&entry| u16_at(entry) == Some(ORIENTATION))? + 8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_file_has_no_orientation() {
        let exif = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0";
        assert_eq!(tiff_orientation(exif), Some(6));
        for size in 0..exif.len() - 2 {
            assert_eq!(tiff_orientation(&exif[..size]), None, "{size} bytes");
        }
        let png = |size: u32| [&[0; 8][..], &size.to_be_bytes(), b"eXIf", exif].concat();
        assert_eq!(exif_orientation(codec::Id::PNG, &png(exif.len() as u32)), Some(6));
        assert_eq!(exif_orientation(codec::Id::PNG, &png(u32::MAX)), None);
        let webp = [&[0; 12][..], b"ALPH\x01\0\0\0a\0EXIF", &32u32.to_le_bytes(), b"Exif\0\0", exif].concat();
        assert_eq!(exif_orientation(codec::Id::WEBP, &webp), None);
        assert_eq!(exif_orientation(codec::Id::WEBP, &[&webp[..], &[0; 4]].concat()), Some(6));
        assert_eq!(filter_of_exif(0).or(filter_of_exif(9)), None);
    }
}

//! What a file says about the colour of its video, by codec and container, and what readers assume where it says nothing.
//!
//! In: the colour that the frames should have. Out: the colour in which they are written, so that readers take it for what
//! it is, and what was converted or lost on the way. `tests/video/color_table.rs` holds this table against what FFmpeg
//! reads back.

use ffmpeg_next::codec;

use crate::color::{ChromaLocation, ColorSpec, Matrix, Primaries, Range, Transfer};
use crate::frame::{Family, PixelFormat};

/// Where a file states a property.
#[derive(Clone, Copy)]
enum Stated<T> {
    /// In the bitstream.
    InBitstream,
    /// In the container, where that has a place for it.
    InContainer,
    /// Nowhere: decoders of this codec take it for granted.
    Always(T),
}
use Stated::{Always, InBitstream, InContainer};

/// What the bitstream of a codec states.
struct Bitstream {
    matrix: Stated<Matrix>,
    range: Stated<Range>,
    siting: Stated<ChromaLocation>,
    primaries: bool,
    transfer: bool,
}

impl Bitstream {
    fn of(id: codec::Id, encoder: &str) -> Bitstream {
        use codec::Id::*;
        const BT601: Stated<Matrix> = Always(Matrix::BT470BG);
        const LIMITED: Stated<Range> = Always(Range::Limited);
        const CENTER: Stated<ChromaLocation> = Always(ChromaLocation::Center);
        const LEFT: Stated<ChromaLocation> = Always(ChromaLocation::Left);
        let silent = Bitstream {
            matrix: InContainer,
            range: InContainer,
            siting: InContainer,
            primaries: false,
            transfer: false,
        };
        let full = Bitstream {
            matrix: InBitstream,
            range: InBitstream,
            siting: InBitstream,
            primaries: true,
            transfer: true,
        };
        match id {
            H264 | HEVC => full,
            // libaom does not write the siting.
            AV1 if encoder == "libaom-av1" => Bitstream { siting: InContainer, ..full },
            AV1 => full,
            VP9 => Bitstream { matrix: InBitstream, range: InBitstream, ..silent },
            VP8 => Bitstream { matrix: BT601, range: LIMITED, ..silent },
            MPEG2VIDEO => Bitstream { range: LIMITED, siting: LEFT, ..full },
            MPEG1VIDEO => Bitstream { range: LIMITED, siting: CENTER, ..silent },
            MPEG4 => Bitstream { siting: LEFT, ..silent },
            H263 | H263P | THEORA => Bitstream { siting: CENTER, ..silent },
            PRORES => Bitstream { range: LIMITED, siting: InContainer, ..full },
            DNXHD => Bitstream { matrix: Always(Matrix::BT709), range: LIMITED, ..silent },
            DIRAC => Bitstream { matrix: Always(Matrix::BT709), range: InBitstream, ..silent },
            DVVIDEO => Bitstream { range: LIMITED, siting: Always(ChromaLocation::TopLeft), ..silent },
            SPEEDHQ => Bitstream { matrix: BT601, range: LIMITED, siting: CENTER, ..silent },
            MAGICYUV => Bitstream { range: LIMITED, ..silent },
            // In its tag, of which there is one for BT.601 and one for BT.709.
            UTVIDEO => Bitstream { matrix: InBitstream, ..silent },
            MJPEG | LJPEG | AMV => {
                Bitstream { matrix: BT601, range: Always(Range::Full), siting: CENTER, ..silent }
            }
            WEBP => Bitstream { matrix: BT601, range: LIMITED, siting: CENTER, ..silent },
            // Chunks of PNG, and DPX's header, whose bytes `dpx.rs` writes.
            PNG | APNG | JPEGXL | DPX => Bitstream { primaries: true, transfer: true, ..silent },
            // Linear light, unless --exr-transfer says otherwise; `exr.rs` writes chromaticities.
            EXR => Bitstream { primaries: true, transfer: true, ..silent },
            _ => silent,
        }
    }
}

/// What a container states.
#[derive(Default)]
struct Header {
    matrix: bool,
    range: bool,
    siting: bool,
    primaries: bool,
    transfer: bool,
}

impl Header {
    fn of(container: &str, format: &PixelFormat) -> Header {
        let colr = Header { matrix: true, primaries: true, transfer: true, ..Header::default() };
        match container {
            "matroska" | "webm" => Header { range: true, siting: true, ..colr },
            "mp4" | "ipod" | "3gp" | "3g2" | "psp" | "ismv" | "f4v" | "avif" | "mxf" | "mxf_opatom" => {
                Header { range: true, ..colr }
            }
            "mov" => colr,
            "yuv4mpegpipe" => {
                let is_420 = (format.log2_chroma_w, format.log2_chroma_h) == (1, 1);
                Header { range: true, siting: is_420 && format.depth() == 8, ..Header::default() }
            }
            _ => Header::default(),
        }
    }
}

/// The colour in which frames are written.
#[derive(Debug, PartialEq)]
pub(crate) struct Fitted {
    pub color: ColorSpec,
    /// What is converted, since the file cannot state it.
    pub converted: Vec<String>,
    /// What the file cannot state and conversion cannot keep.
    pub lost: Vec<&'static str>,
}

/// Fits the colour of frames of this format and size to a file. `container` is `None` where nothing but the bitstream is
/// sure to reach a reader.
pub(crate) fn fit(
    wanted: ColorSpec,
    format: &PixelFormat,
    (width, height): (usize, usize),
    (id, encoder): (codec::Id, &str),
    container: Option<&str>,
) -> Fitted {
    let (mut coded, mut header) =
        (Bitstream::of(id, encoder), container.map_or(Header::default(), |name| Header::of(name, format)));
    if id == codec::Id::DIRAC {
        // Its decoder tags every frame as BT.709, whatever the container states.
        (header.primaries, header.transfer) = (false, false);
    }
    if id == codec::Id::THEORA && matches!(wanted.primaries.0, 4 | 5) {
        // Its header has one code for these primaries and the matrix of BT.601, and none for a matrix alone.
        coded.matrix = Always(Matrix::BT470BG);
    }
    if encoder == "libaom-av1" && format.family == Family::Rgb {
        // The encoder writes R'G'B' as sRGB, which a reader takes before what the container states.
        (coded.primaries, coded.transfer) = (false, false);
        (header.primaries, header.transfer) = (false, false);
    }
    let mut color = wanted;
    let mut converted = Vec::new();
    if format.family == Family::Ycbcr {
        let stated = match coded.matrix {
            Always(matrix) => matrix,
            InBitstream if codes_matrix(id, wanted.matrix) => wanted.matrix,
            InContainer if header.matrix => wanted.matrix,
            InBitstream | InContainer => Matrix::guess(Primaries::UNSPECIFIED, width, height),
        };
        if stated.luma_coefficients() != wanted.matrix.luma_coefficients() {
            converted.push(format!("the matrix {} to {}", wanted.matrix.name(), stated.name()));
        }
        color.matrix = stated;
    }
    if format.family != Family::Rgb {
        color.range = match coded.range {
            Always(range) => range,
            InBitstream => wanted.range,
            InContainer if header.range => wanted.range,
            InContainer if format.family == Family::Gray => Range::Full,
            InContainer => Range::Limited,
        };
        if color.range != wanted.range {
            converted.push(format!("{} range to {}", range_name(wanted.range), range_name(color.range)));
        }
    }
    if format.log2_chroma_w + format.log2_chroma_h > 0 {
        color.chroma_location = match coded.siting {
            Always(location) => location,
            InBitstream if codes_siting(id, wanted.chroma_location) => wanted.chroma_location,
            InBitstream | InContainer if header.siting => wanted.chroma_location,
            InBitstream | InContainer => ChromaLocation::Left,
        };
        let offset = |location: ChromaLocation| location.offset(format.log2_chroma_w, format.log2_chroma_h);
        if offset(color.chroma_location) != offset(wanted.chroma_location) {
            let (from, to) = (wanted.chroma_location, color.chroma_location);
            converted.push(format!("chroma siting {from:?} to {to:?}").to_lowercase());
        }
    }
    if id == codec::Id::PRORES && has_curve_of_bt709(wanted.transfer) {
        color.transfer = Transfer::BT709;
    }
    if matches!(id, codec::Id::PNG | codec::Id::APNG) && has_curve_of_bt709(wanted.transfer) {
        // FFmpeg writes the gamma of the camera's curve, by which viewers show what no display of video shows.
        color.transfer = Transfer::UNSPECIFIED;
    }
    let mut lost = Vec::new();
    if !(coded.primaries && codes_primaries(id, wanted.primaries) || header.primaries) {
        lost.extend(lost_primaries(wanted.primaries));
    }
    if !(coded.transfer && codes_transfer(id, wanted.transfer) || header.transfer) {
        lost.extend(lost_transfer(wanted.transfer));
    }
    Fitted { color, converted, lost }
}

/// Whether the bitstream has a code for this matrix.
fn codes_matrix(id: codec::Id, matrix: Matrix) -> bool {
    match id {
        codec::Id::PRORES => matches!(matrix.0, 1 | 6 | 9),
        codec::Id::UTVIDEO => matches!(matrix.0, 1 | 5 | 6),
        codec::Id::VP9 => matches!(matrix.0, 1 | 5 | 6 | 7 | 9),
        _ => true,
    }
}

fn codes_siting(id: codec::Id, location: ChromaLocation) -> bool {
    id != codec::Id::AV1 || matches!(location, ChromaLocation::Left | ChromaLocation::TopLeft)
}

fn codes_primaries(id: codec::Id, primaries: Primaries) -> bool {
    match id {
        codec::Id::DPX => matches!(primaries.0, 1 | 5 | 6),
        codec::Id::EXR => primaries.chromaticities().is_some(),
        _ => true,
    }
}

fn codes_transfer(id: codec::Id, transfer: Transfer) -> bool {
    match id {
        codec::Id::DPX => matches!(transfer.0, 1 | 6),
        // FFmpeg writes no code for HDR into a PNG.
        codec::Id::PNG | codec::Id::APNG => !matches!(transfer.0, 16 | 18),
        _ => true,
    }
}

/// Whether the transfer is BT.709's under whatever name.
fn has_curve_of_bt709(transfer: Transfer) -> bool {
    matches!(transfer.0, 1 | 6 | 14 | 15)
}

/// The name of a transfer that readers do not assume; none for those of SDR, which differ little.
fn lost_transfer(transfer: Transfer) -> Option<&'static str> {
    match transfer.0 {
        16 => Some("PQ transfer"),
        18 => Some("HLG transfer"),
        8 => Some("linear transfer"),
        9 | 10 => Some("logarithmic transfer"),
        _ => None,
    }
}

/// The name of primaries that readers do not assume; none for those of BT.709 and BT.601, which differ little.
fn lost_primaries(primaries: Primaries) -> Option<&'static str> {
    match primaries.0 {
        1 | 2 | 5..=7 => None,
        9 => Some("BT.2020 primaries"),
        11 | 12 => Some("P3 primaries"),
        _ => Some("primaries"),
    }
}

fn range_name(range: Range) -> &'static str {
    match range {
        Range::Limited => "limited",
        Range::Full => "full",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::format::format_by_name;

    fn fitted(wanted: ColorSpec, format: &str, codec: (codec::Id, &str), container: Option<&str>) -> Fitted {
        fit(wanted, &format_by_name(format).unwrap(), (1440, 1152), codec, container)
    }

    #[test]
    fn what_nothing_states_is_what_readers_assume() {
        let wanted = ColorSpec {
            matrix: Matrix::SMPTE170M,
            primaries: Primaries::BT470BG,
            transfer: Transfer::BT709,
            range: Range::Full,
            chroma_location: ChromaLocation::Center,
        };
        let ffv1 = (codec::Id::FFV1, "ffv1");
        let kept = Fitted { color: wanted, converted: Vec::new(), lost: Vec::new() };
        assert_eq!(fitted(wanted, "yuv420p", ffv1, Some("matroska")), kept);
        let found = fitted(wanted, "yuv420p", ffv1, Some("avi"));
        let (range, chroma_location) = (Range::Limited, ChromaLocation::Left);
        assert_eq!(found.color, ColorSpec { matrix: Matrix::BT709, range, chroma_location, ..wanted });
        let converted =
            ["the matrix BT.601 to BT.709", "full range to limited", "chroma siting center to left"];
        assert_eq!((found.converted, found.lost), (converted.map(String::from).to_vec(), Vec::new()));
        // MOV has a place for the matrix alone.
        let found = fitted(wanted, "yuv422p", ffv1, Some("mov"));
        assert_eq!((found.color.matrix, found.color.range), (wanted.matrix, Range::Limited));
        // No reader asks gray for its range.
        assert_eq!(fitted(wanted, "gray", ffv1, Some("avi")), kept);
        // A live stream has its bitstream alone.
        assert_eq!(fitted(wanted, "yuv420p", (codec::Id::H264, "libx264"), None), kept);
        let pq = ColorSpec { primaries: Primaries::BT2020, transfer: Transfer(16), ..wanted };
        let found = fitted(pq, "yuv420p", ffv1, Some("avi"));
        assert_eq!(found.lost, ["BT.2020 primaries", "PQ transfer"]);
    }
}

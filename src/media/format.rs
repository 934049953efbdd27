//! FFmpeg's pixel formats and colour tags as ours and back, and the choice of a format that an encoder takes.

use std::ffi::CStr;

use ffmpeg_next::codec;
use ffmpeg_next::ffi::{self, AVPixelFormat};

use crate::color::{ChromaLocation, ColorSpec, Matrix, Primaries, Range, Transfer};
use crate::frame::{Component, Family, FrameFormat, PixelFormat};
use crate::media::demux::sequence::is_image_codec;
use crate::media::ffmpeg::c_string;

/// A format by FFmpeg's name; `None` if there is no such format, or its samples are not bytes or words of their own
/// (palettes, bit streams, Bayer patterns).
pub fn format_by_name(name: &str) -> Option<PixelFormat> {
    describe(pixel_format(name))
}

/// A transfer by FFmpeg's name, as `bt709`.
pub fn transfer_by_name(name: &str) -> Option<Transfer> {
    let name = c_string(name);
    // SAFETY: `name` is a C string that lives through the call.
    let code = unsafe { ffi::av_color_transfer_from_name(name.as_ptr()) };
    let transfer = Transfer(u8::try_from(code).ok()?);
    // 0 and 3 are reserved.
    (!matches!(transfer.0, 0 | 3) && transfer != Transfer::UNSPECIFIED).then_some(transfer)
}

/// FFmpeg's value of a format.
pub(crate) fn pixel_format(name: &str) -> AVPixelFormat {
    let name = c_string(name);
    // SAFETY: `name` is a C string that lives through the call.
    unsafe { ffi::av_get_pix_fmt(name.as_ptr()) }
}

/// FFmpeg's value of a frame's format.
pub(crate) fn pixel_of(av_frame: &ffi::AVFrame) -> AVPixelFormat {
    let none = AVPixelFormat::AV_PIX_FMT_NONE;
    // A library newer than its headers may have more formats.
    if !(none as i32..AVPixelFormat::AV_PIX_FMT_NB as i32).contains(&av_frame.format) {
        return none;
    }
    // SAFETY: the enumeration has successive members from NONE to NB.
    unsafe { std::mem::transmute::<i32, AVPixelFormat>(av_frame.format) }
}

/// The layout of a format in memory; see [`format_by_name`].
pub(crate) fn describe(pixel: AVPixelFormat) -> Option<PixelFormat> {
    // SAFETY: the descriptor of a known format is static; of an unknown one, null.
    let descriptor = unsafe { ffi::av_pix_fmt_desc_get(pixel).as_ref() }?;
    // SAFETY: names of formats are static C strings.
    let name: &'static str =
        unsafe { CStr::from_ptr(descriptor.name) }.to_str().expect("format names are ASCII");
    let has = |flag: i32| descriptor.flags & flag as u64 != 0;
    let count = usize::from(descriptor.nb_components);
    let mut components = [Component::default(); 4];
    for (ours, theirs) in components.iter_mut().zip(&descriptor.comp[..count]) {
        let byte = |value: i32| u8::try_from(value).ok();
        *ours = Component {
            plane: byte(theirs.plane)?,
            step: byte(theirs.step)?,
            offset: byte(theirs.offset)?,
            shift: byte(theirs.shift)?,
            depth: byte(theirs.depth)?,
        };
    }
    let float = has(ffi::AV_PIX_FMT_FLAG_FLOAT);
    let foreign = has(ffi::AV_PIX_FMT_FLAG_PAL)
        || has(ffi::AV_PIX_FMT_FLAG_BITSTREAM)
        || has(ffi::AV_PIX_FMT_FLAG_HWACCEL)
        || has(ffi::AV_PIX_FMT_FLAG_BAYER)
        || name.starts_with("xyz")
        // FFmpeg's descriptor says 2, 3 and 2 bits, the samples have 3, 3 and 2.
        || name == "rgb8";
    let deep = components[..count].iter().any(|c| if float { c.depth != 32 } else { c.depth > 16 });
    if foreign || deep || count == 0 {
        return None;
    }
    // In uyyvyy411 the distance between luma samples is uneven: no step describes it.
    let longest = |plane: u8| components[..count].iter().filter(|c| c.plane == plane).map(|c| c.step).max();
    if components[..count]
        .iter()
        .any(|c| longest(c.plane).is_some_and(|step| c.step == 0 || step % c.step != 0))
    {
        return None;
    }
    let alpha = has(ffi::AV_PIX_FMT_FLAG_ALPHA);
    let family = match count - usize::from(alpha) {
        1 => Family::Gray,
        3 if has(ffi::AV_PIX_FMT_FLAG_RGB) => Family::Rgb,
        3 => Family::Ycbcr,
        _ => return None,
    };
    let planes = 1 + components[..count].iter().map(|c| c.plane).max().expect("a format has components");
    let big_endian = has(ffi::AV_PIX_FMT_FLAG_BE);
    let (log2_chroma_w, log2_chroma_h) = (descriptor.log2_chroma_w, descriptor.log2_chroma_h);
    Some(PixelFormat {
        name,
        family,
        float,
        big_endian,
        alpha,
        log2_chroma_w,
        log2_chroma_h,
        planes,
        components,
    })
}

/// Whether the name of the format implies full range, which is a tag for all others.
fn is_full_range_name(name: &str) -> bool {
    name.starts_with("yuvj")
}

/// The format of `offered` that loses least of `source`, among those that an engine can write.
pub(crate) fn closest(
    offered: impl Iterator<Item = AVPixelFormat>,
    source: &PixelFormat,
) -> Option<PixelFormat> {
    offered.filter_map(describe).filter(PixelFormat::writable).min_by_key(|format| distance(format, source))
}

/// Losses count most (colour, depth, chroma, alpha), then changes, then excess. A name that only implies full range comes
/// last: the tag says it as well.
fn distance(format: &PixelFormat, source: &PixelFormat) -> u32 {
    let over = |a: u8, b: u8| u32::from(a.saturating_sub(b));
    let chroma = |f: &PixelFormat, other: &PixelFormat| {
        over(f.log2_chroma_w, other.log2_chroma_w) + over(f.log2_chroma_h, other.log2_chroma_h)
    };
    let no_color = format.family == Family::Gray && source.family != Family::Gray;
    let colorless = source.family == Family::Gray;
    let lost = 10_000 * u32::from(no_color)
        + 160 * over(source.depth(), format.depth())
        + if colorless { 0 } else { 200 * chroma(format, source) }
        + 500 * u32::from(source.alpha && !format.alpha);
    let changed =
        100 * u32::from(format.family != source.family) + 50 * u32::from(format.float != source.float);
    let excess = 10 * over(format.depth(), source.depth())
        + 20 * chroma(source, format)
        + 30 * u32::from(format.alpha && !source.alpha);
    lost + changed
        + excess
        + u32::from(format.name != source.name)
        + 2 * u32::from(is_full_range_name(format.name))
}

/// What `format` cannot hold of `source`, in words; `None` if it holds all.
pub(crate) fn loss(format: &PixelFormat, source: &PixelFormat) -> Option<String> {
    let mut lost = Vec::new();
    if source.alpha && !format.alpha {
        lost.push("alpha".to_owned());
    }
    if format.depth() < source.depth() && !source.float {
        lost.push(format!("{} of {} bits", source.depth() - format.depth(), source.depth()));
    }
    if format.family == Family::Gray && source.family != Family::Gray {
        lost.push("colour".to_owned());
    } else if source.family != Family::Gray
        && (format.log2_chroma_w > source.log2_chroma_w || format.log2_chroma_h > source.log2_chroma_h)
    {
        lost.push("chroma resolution".to_owned());
    }
    (!lost.is_empty()).then(|| lost.join(", "))
}

/// Tags a decoded frame with what its own tags leave open, before a filter converts it. Returns the matrix that was guessed.
pub(crate) fn complete_tags(av_frame: &mut ffi::AVFrame, id: codec::Id) -> Option<Matrix> {
    let untagged = |code: u32| code == u32::from(Matrix::UNSPECIFIED.0);
    let family = family_of(pixel_of(av_frame))?;
    let location = code_of(&raw const av_frame.chroma_location);
    if id == codec::Id::WEBP && location == ffi::AVChromaLocation::AVCHROMA_LOC_UNSPECIFIED as u32 {
        // libwebp's, which FFmpeg's decoder does not tag.
        av_frame.chroma_location = ffi::AVChromaLocation::AVCHROMA_LOC_CENTER;
    }
    if id == codec::Id::DPX && code_of(&raw const av_frame.color_trc) == u32::from(Transfer::LINEAR.0) {
        // FFmpeg writes this into every DPX, and its integers are not linear.
        av_frame.color_trc = transfer_of(Transfer::UNSPECIFIED);
    }
    if family == Family::Rgb {
        return None;
    }
    let (width, height) = (av_frame.width as usize, av_frame.height as usize);
    let primaries = code_of(&raw const av_frame.color_primaries);
    let guessed = no_matrix(code_of(&raw const av_frame.colorspace)).then(|| {
        let matrix = Matrix::guess(Primaries(primaries.min(255) as u8), width, height);
        av_frame.colorspace = space_of(matrix);
        matrix
    });
    // Images are sRGB unless they say otherwise, and most of them have no place for it.
    if family == Family::Ycbcr && !is_image_codec(id) {
        if untagged(primaries) {
            let matrix = Matrix(code_of(&raw const av_frame.colorspace).min(255) as u8);
            av_frame.color_primaries = primaries_of(Primaries::guess(matrix, height));
        }
        if untagged(code_of(&raw const av_frame.color_trc)) {
            av_frame.color_trc = transfer_of(Transfer::BT709);
        }
    }
    guessed
}

/// Whether the code point of a matrix says nothing of Y'CbCr.
fn no_matrix(code: u32) -> bool {
    [Matrix::UNSPECIFIED, Matrix::IDENTITY].iter().any(|matrix| u32::from(matrix.0) == code)
}

/// The colour model of a format, also of one whose samples are not bytes or words.
fn family_of(pixel: AVPixelFormat) -> Option<Family> {
    // SAFETY: the descriptor of a known format is static; of an unknown one, null.
    let descriptor = unsafe { ffi::av_pix_fmt_desc_get(pixel).as_ref() }?;
    let has = |flag: i32| descriptor.flags & flag as u64 != 0;
    // SAFETY: names of formats are static C strings.
    let is_xyz = unsafe { CStr::from_ptr(descriptor.name) }.to_bytes().starts_with(b"xyz");
    Some(match descriptor.nb_components {
        _ if is_xyz || has(ffi::AV_PIX_FMT_FLAG_RGB) || has(ffi::AV_PIX_FMT_FLAG_PAL) => Family::Rgb,
        0..3 => Family::Gray,
        _ => Family::Ycbcr,
    })
}

/// The colour of a frame that is decoded, tagged by [`complete_tags`] and filtered.
pub(crate) fn color_of(av_frame: &ffi::AVFrame, format: &PixelFormat) -> ColorSpec {
    let tagged_range = code_of(&raw const av_frame.color_range);
    let untagged = tagged_range == ffi::AVColorRange::AVCOL_RANGE_UNSPECIFIED as u32;
    let range = if is_full_range_name(format.name)
        || tagged_range == ffi::AVColorRange::AVCOL_RANGE_JPEG as u32
        || (untagged && format.family != Family::Ycbcr)
    {
        Range::Full
    } else {
        Range::Limited
    };
    // The end of an enumeration is that of the headers; a code point of a newer library is not passed on.
    let known = |code: u32, end: u32| if code < end { code as u8 } else { Matrix::UNSPECIFIED.0 };
    let space = known(code_of(&raw const av_frame.colorspace), ffi::AVColorSpace::AVCOL_SPC_NB as u32);
    let primaries =
        known(code_of(&raw const av_frame.color_primaries), ffi::AVColorPrimaries::AVCOL_PRI_NB as u32);
    let transfer = known(
        code_of(&raw const av_frame.color_trc),
        ffi::AVColorTransferCharacteristic::AVCOL_TRC_NB as u32,
    );
    let matrix = match format.family {
        Family::Rgb => Matrix::IDENTITY,
        // A filter has converted R'G'B' by swscale, whose default this is.
        _ if no_matrix(space.into()) => Matrix::SMPTE170M,
        _ => Matrix(space),
    };
    let location = code_of(&raw const av_frame.chroma_location);
    let known_location = CHROMA_LOCATIONS.iter().find(|(_, theirs)| *theirs as u32 == location);
    let chroma_location = known_location.map_or(ChromaLocation::Left, |(ours, _)| *ours);
    ColorSpec {
        matrix,
        primaries: Primaries(primaries),
        transfer: Transfer(transfer),
        range,
        chroma_location,
    }
}

/// Reads an enumeration of C as a number: containers and decoders pass on any, also one that the enumeration does not have.
pub(crate) fn code_of<E>(tag: *const E) -> u32 {
    const { assert!(size_of::<E>() == size_of::<u32>()) };
    // SAFETY: C's enumerations here have 32 bits, and callers point into a structure that they borrow.
    unsafe { tag.cast::<u32>().read() }
}

/// Locations of chroma samples; any other is the default, left.
const CHROMA_LOCATIONS: [(ChromaLocation, ffi::AVChromaLocation); 6] = {
    use ffi::AVChromaLocation::*;
    [
        (ChromaLocation::Left, AVCHROMA_LOC_LEFT),
        (ChromaLocation::Center, AVCHROMA_LOC_CENTER),
        (ChromaLocation::TopLeft, AVCHROMA_LOC_TOPLEFT),
        (ChromaLocation::Top, AVCHROMA_LOC_TOP),
        (ChromaLocation::BottomLeft, AVCHROMA_LOC_BOTTOMLEFT),
        (ChromaLocation::Bottom, AVCHROMA_LOC_BOTTOM),
    ]
};

/// FFmpeg's value of a transfer.
pub(crate) fn transfer_of(transfer: Transfer) -> ffi::AVColorTransferCharacteristic {
    // SAFETY: such code points are members of the enumeration: `color_of` and `transfer_by_name` let no other through,
    // and the constants of `color` are H.273's, which FFmpeg has.
    unsafe { std::mem::transmute::<u32, ffi::AVColorTransferCharacteristic>(u32::from(transfer.0)) }
}

fn space_of(matrix: Matrix) -> ffi::AVColorSpace {
    // SAFETY: as for transfers.
    unsafe { std::mem::transmute::<u32, ffi::AVColorSpace>(u32::from(matrix.0)) }
}

/// FFmpeg's value of primaries.
pub(crate) fn primaries_of(primaries: Primaries) -> ffi::AVColorPrimaries {
    // SAFETY: as for transfers.
    unsafe { std::mem::transmute::<u32, ffi::AVColorPrimaries>(u32::from(primaries.0)) }
}

/// Colour tags in FFmpeg's types.
pub(crate) struct Tags {
    pub space: ffi::AVColorSpace,
    pub primaries: ffi::AVColorPrimaries,
    pub transfer: ffi::AVColorTransferCharacteristic,
    pub range: ffi::AVColorRange,
    pub chroma_location: ffi::AVChromaLocation,
}

impl Tags {
    pub fn of(frame_format: &FrameFormat) -> Tags {
        let color = &frame_format.color;
        let subsampled =
            frame_format.pixel_format.log2_chroma_w + frame_format.pixel_format.log2_chroma_h > 0;
        let mut locations = CHROMA_LOCATIONS.iter().filter(|_| subsampled);
        let location = locations.find(|(ours, _)| *ours == color.chroma_location);
        let chroma_location =
            location.map_or(ffi::AVChromaLocation::AVCHROMA_LOC_UNSPECIFIED, |(_, theirs)| *theirs);
        let range = match color.range {
            Range::Limited => ffi::AVColorRange::AVCOL_RANGE_MPEG,
            Range::Full => ffi::AVColorRange::AVCOL_RANGE_JPEG,
        };
        Tags {
            space: space_of(color.matrix),
            primaries: primaries_of(color.primaries),
            transfer: transfer_of(color.transfer),
            range,
            chroma_location,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn closest_name(offered: &[&str], source: &str) -> &'static str {
        let source = format_by_name(source).unwrap();
        closest(offered.iter().map(|name| pixel_format(name)), &source).unwrap().name
    }

    #[test]
    fn the_closest_format_loses_least() {
        let x264 = [
            "yuv420p",
            "yuvj420p",
            "yuv422p",
            "yuvj422p",
            "yuv444p",
            "yuvj444p",
            "nv12",
            "nv16",
            "nv21",
            "yuv420p10le",
            "yuv422p10le",
            "yuv444p10le",
            "nv20le",
            "gray",
            "gray10le",
        ];
        let prores = ["yuv422p10le", "yuv444p10le", "yuva444p10le"];
        let png =
            ["rgb24", "rgba", "rgb48be", "rgba64be", "pal8", "gray", "ya8", "gray16be", "ya16be", "monob"];
        let table = [
            (&x264[..], "yuv420p", "yuv420p"),
            (&x264, "yuvj422p", "yuv422p"),
            (&x264, "nv12", "nv12"),
            (&x264, "p010le", "yuv420p10le"),
            (&x264, "yuyv422", "yuv422p"),
            (&x264, "rgb24", "yuv444p"),
            (&x264, "gbrp12le", "yuv444p10le"),
            (&x264, "gray16le", "gray10le"),
            (&x264, "yuv422p12le", "yuv422p10le"),
            (&prores, "yuv420p", "yuv422p10le"),
            (&prores, "gbrp", "yuv444p10le"),
            (&png, "rgb24", "rgb24"),
            (&png, "gbrap16le", "rgba64be"),
            (&png, "yuv420p", "rgb24"),
            (&png, "yuv420p10le", "rgb48be"),
            (&png, "gray", "gray"),
        ];
        for (offered, source, expected) in table {
            assert_eq!(closest_name(offered, source), expected, "for {source}");
        }
    }

    #[test]
    fn formats_are_described_as_ffmpeg_lays_them_out() {
        let p010 = format_by_name("p010le").unwrap();
        assert_eq!((p010.planes, p010.depth(), p010.components[2].offset), (2, 10, 2));
        assert_eq!((p010.components[0].shift, p010.log2_chroma_h), (6, 1));
        let gbrp = format_by_name("gbrp").unwrap();
        assert_eq!((gbrp.family, gbrp.components[0].plane, gbrp.components[1].plane), (Family::Rgb, 2, 0));
        let ya8 = format_by_name("ya8").unwrap();
        assert_eq!((ya8.family, ya8.alpha, ya8.component_count()), (Family::Gray, true, 2));
        for unknown in ["pal8", "monow", "bayer_rggb8", "cuda", "xyz12le", "uyyvyy411", "no_such_format"] {
            assert_eq!(format_by_name(unknown), None, "{unknown}");
        }
    }

    #[test]
    fn numbers_that_an_enumeration_does_not_have_are_no_tags() {
        let mut av_frame = ffmpeg_next::frame::Video::empty();
        // SAFETY: the frame is owned; its tags are written as the numbers that C has for them.
        let raw = unsafe {
            let raw = av_frame.as_mut_ptr();
            (&raw mut (*raw).chroma_location).cast::<u32>().write(9);
            (&raw mut (*raw).color_trc).cast::<u32>().write(200);
            (&raw mut (*raw).color_primaries).cast::<u32>().write(70_000);
            (&raw mut (*raw).colorspace).cast::<u32>().write(255);
            (&raw mut (*raw).color_range).cast::<u32>().write(77);
            (*raw).format = 9999;
            &*raw
        };
        assert_eq!(pixel_of(raw), AVPixelFormat::AV_PIX_FMT_NONE);
        let color = color_of(raw, &format_by_name("yuv420p").unwrap());
        let unspecified = (Primaries::UNSPECIFIED, Transfer::UNSPECIFIED);
        assert_eq!((color.primaries, color.transfer), unspecified);
        assert_eq!((color.range, color.chroma_location), (Range::Limited, ChromaLocation::Left));
    }
}

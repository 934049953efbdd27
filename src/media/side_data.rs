//! Side data: what streams and frames carry besides samples, and where the output can hold it.
//!
//! In: streams and decoded frames. Out: entries of the output's stream, parameters of encoders, and names of what an
//! encoder does not take. What holds for the complete video (mastering display, rotation) is written to the stream and,
//! where the codec has a place for it, to the bitstream; what belongs to one frame stays on that frame.

use std::ffi::CStr;

use ffmpeg_next as ffmpeg;
use ffmpeg_next::ffi::{self, AVFrameSideDataType as OfFrame, AVPacketSideDataType as OfStream};
use ffmpeg_next::frame::Video as AvFrame;

use crate::color::Transfer;
use crate::frame::{Family, Frame, PixelFormat, Props};
use crate::media::ffmpeg::{bytes_of, c_string};
use crate::media::format::code_of;

/// Side data of frames that holds for the stream. Both types hold the same C structure.
const OF_STREAMS: [(OfFrame, OfStream); 5] = [
    (OfFrame::AV_FRAME_DATA_MASTERING_DISPLAY_METADATA, OfStream::AV_PKT_DATA_MASTERING_DISPLAY_METADATA),
    (OfFrame::AV_FRAME_DATA_CONTENT_LIGHT_LEVEL, OfStream::AV_PKT_DATA_CONTENT_LIGHT_LEVEL),
    (OfFrame::AV_FRAME_DATA_DISPLAYMATRIX, OfStream::AV_PKT_DATA_DISPLAYMATRIX),
    (OfFrame::AV_FRAME_DATA_STEREO3D, OfStream::AV_PKT_DATA_STEREO3D),
    (OfFrame::AV_FRAME_DATA_SPHERICAL, OfStream::AV_PKT_DATA_SPHERICAL),
];

/// Side data of single frames: its name, the option that encoders have which take it, and encoders that take it without an
/// option.
const FRAME_DATA: [(OfFrame, &str, Option<&str>, &[&str]); 8] = [
    (OfFrame::AV_FRAME_DATA_A53_CC, "closed captions (A53)", Some("a53cc"), &[]),
    (OfFrame::AV_FRAME_DATA_S12M_TIMECODE, "timecode of frames (SMPTE 12M)", Some("s12m_tc"), &[]),
    (OfFrame::AV_FRAME_DATA_AFD, "active format description (AFD)", None, &[]),
    (OfFrame::AV_FRAME_DATA_DYNAMIC_HDR_PLUS, "HDR10+", None, &["libvpx-vp9"]),
    (OfFrame::AV_FRAME_DATA_DYNAMIC_HDR_VIVID, "HDR Vivid", None, &[]),
    (OfFrame::AV_FRAME_DATA_DOVI_RPU_BUFFER, "Dolby Vision", None, &[]),
    (OfFrame::AV_FRAME_DATA_SEI_UNREGISTERED, "user data (SEI)", Some("udu_sei"), &[]),
    (OfFrame::AV_FRAME_DATA_ICC_PROFILE, "ICC profile", None, &["png", "apng", "mjpeg", "libjxl"]),
];

/// Side data of frames that says how they were encoded, or repeats other side data: the same does not hold for the output.
/// FFmpeg's MPEG-2 decoder gives every frame a pan and scan area, and every GOP a timecode.
const OF_SOURCE: [OfFrame; 7] = [
    OfFrame::AV_FRAME_DATA_MOTION_VECTORS,
    OfFrame::AV_FRAME_DATA_VIDEO_ENC_PARAMS,
    OfFrame::AV_FRAME_DATA_REGIONS_OF_INTEREST,
    OfFrame::AV_FRAME_DATA_GOP_TIMECODE,
    OfFrame::AV_FRAME_DATA_PANSCAN,
    OfFrame::AV_FRAME_DATA_SKIP_SAMPLES,
    OfFrame::AV_FRAME_DATA_DOVI_METADATA,
];

/// The first bytes (UUID) of the settings that x264 and x265 write as user data.
const SETTINGS_OF_ENCODERS: [[u8; 16]; 2] = [
    [0xdc, 0x45, 0xe9, 0xbd, 0xe6, 0xd9, 0x48, 0xb7, 0x96, 0x2c, 0xd8, 0x20, 0xd9, 0x23, 0xee, 0xef],
    [0x2c, 0xa2, 0xde, 0x09, 0xb5, 0x17, 0x47, 0xdb, 0xbb, 0x55, 0xa4, 0xfe, 0x7f, 0xc2, 0xfc, 0x4e],
];

/// A display matrix: three rows of a transformation in fixed point, as in QuickTime.
pub(crate) type DisplayMatrix = [i32; 9];

/// The display matrix of a stream.
pub(crate) fn display_matrix(stream: &ffmpeg::Stream) -> Option<DisplayMatrix> {
    let mut entries = stream_entries(stream).into_iter();
    let (_, bytes) = entries.find(|(kind, _)| *kind == OfStream::AV_PKT_DATA_DISPLAYMATRIX)?;
    matrix_of(&bytes)
}

/// Removes the display matrix of a frame and returns it.
pub(crate) fn take_display_matrix(av_frame: &mut AvFrame) -> Option<DisplayMatrix> {
    let matrix = frame_bytes(av_frame, OfFrame::AV_FRAME_DATA_DISPLAYMATRIX).and_then(matrix_of);
    // SAFETY: the frame is owned.
    unsafe { ffi::av_frame_remove_side_data(av_frame.as_mut_ptr(), OfFrame::AV_FRAME_DATA_DISPLAYMATRIX) };
    matrix
}

fn matrix_of(bytes: &[u8]) -> Option<DisplayMatrix> {
    (bytes.len() >= size_of::<DisplayMatrix>()).then(|| std::array::from_fn(|i| integer(bytes, i)))
}

/// Side data of the output's stream.
#[derive(Default)]
pub(crate) struct StreamSide(Vec<(OfStream, Vec<u8>)>);

impl StreamSide {
    /// Side data of the first frame, else of its stream. `has_matrix`: whether the stream's display matrix holds for the
    /// frames.
    pub fn of(stream: &ffmpeg::Stream, first: &Frame, has_matrix: bool) -> StreamSide {
        let av_frame = frame_of(&first.props);
        // SAFETY: the stream and its parameters are alive.
        let stream_transfer = code_of(unsafe { &raw const (*(*stream.as_ptr()).codecpar).color_trc });
        // Where a filter converted HDR to SDR, the stream's mastering display is not that of the frames any more.
        let unspecified = u32::from(Transfer::UNSPECIFIED.0);
        let same_transfer =
            [unspecified, u32::from(first.format.color.transfer.0)].contains(&stream_transfer);
        let held = OF_STREAMS
            .iter()
            .filter(|(_, of_stream)| has_matrix || *of_stream != OfStream::AV_PKT_DATA_DISPLAYMATRIX);
        let entries = held.filter_map(|&(of_frame, of_stream)| {
            let is_hdr = matches!(
                of_stream,
                OfStream::AV_PKT_DATA_MASTERING_DISPLAY_METADATA | OfStream::AV_PKT_DATA_CONTENT_LIGHT_LEVEL
            );
            let frame_data = av_frame.and_then(|av_frame| frame_bytes(av_frame, of_frame));
            let of_stream_data = || {
                let mut list = stream_entries(stream).into_iter();
                list.find(|(kind, _)| *kind == of_stream && (same_transfer || !is_hdr))
                    .map(|(_, bytes)| bytes)
            };
            Some((of_stream, frame_data.map(<[u8]>::to_vec).or_else(of_stream_data)?))
        });
        StreamSide(entries.collect())
    }

    /// Writes the entries, and those of the input's stream that do not depend on its encoding.
    pub fn write(&self, input: &ffmpeg::Stream, output: &mut ffmpeg::StreamMut) {
        let known = |kind| OF_STREAMS.iter().any(|&(_, of_stream)| of_stream == kind);
        for (kind, bytes) in stream_entries(input) {
            if !known(kind) {
                add_entry(output, kind, &bytes);
            }
        }
        for (kind, bytes) in &self.0 {
            add_entry(output, *kind, bytes);
        }
    }

    fn get(&self, wanted: OfStream) -> Option<&[u8]> {
        self.0.iter().find(|(kind, _)| *kind == wanted).map(|(_, bytes)| bytes.as_slice())
    }

    /// The encoder's own parameters for the HDR metadata, as (option, value): FFmpeg's wrappers of these encoders pass it on
    /// from version 7.1 at the earliest.
    pub fn encoder_parameters(&self, encoder: &str) -> Option<(&'static str, String)> {
        let (option, display_key, light_key) = match encoder {
            "libx265" => ("x265-params", "master-display", "max-cll"),
            "libx264" | "libx264rgb" => ("x264-params", "mastering-display", "cll"),
            "libsvtav1" => ("svtav1-params", "mastering-display", "content-light"),
            _ => return None,
        };
        // H.264 and HEVC count in 1/50000 of a coordinate and 1/10000 cd/m2, SVT-AV1 reads plain numbers.
        let (chroma, luminance) = if encoder == "libsvtav1" { (1.0, 1.0) } else { (50_000.0, 10_000.0) };
        let display = self.get(OfStream::AV_PKT_DATA_MASTERING_DISPLAY_METADATA).map(|bytes| {
            let scaled = |i: usize, unit: f64| {
                let value = rational(bytes, i) * unit;
                if unit == 1.0 { format!("{value:.6}") } else { format!("{value:.0}") }
            };
            // In memory: x and y of R, G, B, white; minimum and maximum luminance.
            let point = |i: usize| format!("({},{})", scaled(2 * i, chroma), scaled(2 * i + 1, chroma));
            let (red, green, blue, white) = (point(0), point(1), point(2), point(3));
            let (min, max) = (scaled(8, luminance), scaled(9, luminance));
            format!("{display_key}=G{green}B{blue}R{red}WP{white}L({max},{min})")
        });
        let light = self.get(OfStream::AV_PKT_DATA_CONTENT_LIGHT_LEVEL).map(|bytes| {
            let (content, average) = (integer(bytes, 0), integer(bytes, 1));
            format!("{light_key}={content},{average}")
        });
        let values: Vec<String> = display.into_iter().chain(light).collect();
        (!values.is_empty()).then(|| (option, values.join(":")))
    }

    /// Whether there is HDR metadata: mastering display or content light level.
    pub fn has_hdr_metadata(&self) -> bool {
        self.get(OfStream::AV_PKT_DATA_MASTERING_DISPLAY_METADATA).is_some()
            || self.get(OfStream::AV_PKT_DATA_CONTENT_LIGHT_LEVEL).is_some()
    }

    /// Names of the projections that FFmpeg does not write into this container.
    pub fn projection_not_held(
        &self,
        container: &str,
        encoder: &str,
        first: &Frame,
    ) -> impl Iterator<Item = &'static str> {
        // libx264 writes that of a frame into the bitstream.
        let is_stereo_coded = encoder == "libx264"
            && frame_of(&first.props)
                .is_some_and(|props| frame_bytes(props, OfFrame::AV_FRAME_DATA_STEREO3D).is_some());
        let names = [
            (OfStream::AV_PKT_DATA_STEREO3D, "stereoscopic 3D"),
            (OfStream::AV_PKT_DATA_SPHERICAL, "spherical mapping"),
        ];
        let is_held = matches!(container, "matroska" | "webm" | "mp4");
        let is_lost = move |kind: OfStream| {
            let is_coded = is_stereo_coded && kind == OfStream::AV_PKT_DATA_STEREO3D;
            !is_held && !is_coded && self.get(kind).is_some()
        };
        names.into_iter().filter(move |&(kind, _)| is_lost(kind)).map(|(_, name)| name)
    }
}

/// Names of the side data of a frame that the encoder does not take in this format.
pub(crate) fn not_taken(
    props: &AvFrame,
    codec: ffmpeg::Codec,
    format: &PixelFormat,
) -> impl Iterator<Item = &'static str> {
    frame_entries(props).filter_map(move |(kind, bytes)| {
        let is_of_stream = OF_STREAMS.iter().any(|&(of_frame, _)| of_frame == kind);
        if is_of_stream || OF_SOURCE.contains(&kind) || is_settings(kind, bytes) {
            return None;
        }
        let Some((_, name, option, encoders)) = FRAME_DATA.iter().find(|(known, ..)| *known == kind) else {
            return Some(name_of(kind));
        };
        let is_taken = option.is_some_and(|name| has_option(codec, name)) || encoders.contains(&codec.name());
        (!is_taken || !fits(kind, bytes, format)).then_some(*name)
    })
}

/// Removes what does not hold for a frame in this format, which has got the side data of its source.
pub(crate) fn remove_stale(av_frame: &mut AvFrame, format: &PixelFormat) {
    use OfFrame::{AV_FRAME_DATA_ICC_PROFILE, AV_FRAME_DATA_MOTION_VECTORS, AV_FRAME_DATA_SEI_UNREGISTERED};
    let stale = |(kind, bytes): (OfFrame, &[u8])| is_settings(kind, bytes) || !fits(kind, bytes, format);
    let mut removed = vec![AV_FRAME_DATA_MOTION_VECTORS];
    removed.extend(frame_entries(av_frame).filter(|&entry| stale(entry)).map(|(kind, _)| kind));
    // Several entries may be of this kind, and are removed together.
    let user_data: Vec<_> = frame_entries(av_frame)
        .filter(|&(kind, bytes)| kind == AV_FRAME_DATA_SEI_UNREGISTERED && !is_settings(kind, bytes))
        .map(|(_, bytes)| bytes.to_vec())
        .collect();
    debug_assert!(
        removed[1..]
            .iter()
            .all(|kind| [AV_FRAME_DATA_ICC_PROFILE, AV_FRAME_DATA_SEI_UNREGISTERED].contains(kind))
    );
    // SAFETY: the frame is owned, and a new entry has room for the bytes that are copied.
    unsafe {
        let raw = av_frame.as_mut_ptr();
        for &kind in &removed {
            ffi::av_frame_remove_side_data(raw, kind);
        }
        if removed.contains(&AV_FRAME_DATA_SEI_UNREGISTERED) {
            for bytes in user_data {
                let entry = ffi::av_frame_new_side_data(raw, AV_FRAME_DATA_SEI_UNREGISTERED, bytes.len());
                assert!(!entry.is_null(), "no memory for side data");
                (*entry).data.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
            }
        }
    }
}

/// Whether user data is the settings of the source's encoder.
fn is_settings(kind: OfFrame, bytes: &[u8]) -> bool {
    kind == OfFrame::AV_FRAME_DATA_SEI_UNREGISTERED
        && SETTINGS_OF_ENCODERS.iter().any(|uuid| bytes.starts_with(uuid))
}

/// Whether an ICC profile is one for the colours of this format; all else fits.
fn fits(kind: OfFrame, bytes: &[u8], format: &PixelFormat) -> bool {
    // ICC.1, 7.2.6: the colour space of the data. Profiles for R'G'B' hold for Y'CbCr made of it.
    const SPACE: std::ops::Range<usize> = 16..20;
    kind != OfFrame::AV_FRAME_DATA_ICC_PROFILE
        || match bytes.get(SPACE) {
            Some(b"GRAY") => format.family == Family::Gray,
            Some(b"RGB ") => format.family != Family::Gray,
            _ => false,
        }
}

/// FFmpeg's name of a kind of side data.
fn name_of(kind: OfFrame) -> &'static str {
    // SAFETY: the names are static C strings, or null for a kind without one.
    let name = unsafe { ffi::av_frame_side_data_name(kind).as_ref().map(|name| CStr::from_ptr(name)) };
    name.and_then(|name| name.to_str().ok()).unwrap_or("unknown side data")
}

/// The side data of a frame.
fn frame_entries(av_frame: &AvFrame) -> impl Iterator<Item = (OfFrame, &[u8])> {
    // SAFETY: the frame is alive; its list has `nb_side_data` entries of `size` bytes each, which stay as long as it does.
    unsafe {
        let raw = &*av_frame.as_ptr();
        (0..usize::try_from(raw.nb_side_data).unwrap_or(0))
            .map(move |i| &**raw.side_data.add(i))
            .map(|entry| (entry.type_, bytes_of(entry.data, entry.size)))
    }
}

/// The AVFrame that a frame's props are.
pub(crate) fn frame_of(props: &Props) -> Option<&AvFrame> {
    props.0.as_ref().and_then(|props| props.downcast_ref())
}

/// Whether the encoder has an option of its own of this name.
pub(crate) fn has_option(codec: ffmpeg::Codec, name: &str) -> bool {
    let name = c_string(name);
    // SAFETY: a codec's class is static or null; searching a fake object asks its class only.
    unsafe {
        let mut class = (*codec.as_ptr()).priv_class;
        let object = (&raw mut class).cast();
        !class.is_null()
            && !ffi::av_opt_find(object, name.as_ptr(), std::ptr::null(), 0, ffi::AV_OPT_SEARCH_FAKE_OBJ)
                .is_null()
    }
}

fn frame_bytes(av_frame: &AvFrame, kind: OfFrame) -> Option<&[u8]> {
    // SAFETY: the frame is alive, and an entry of its list has `size` bytes, which stay as long as it does.
    unsafe {
        let entry = ffi::av_frame_get_side_data(av_frame.as_ptr(), kind).as_ref()?;
        Some(bytes_of(entry.data, entry.size))
    }
}

/// The stream's entries, except those that describe its encoding (buffer sizes, Dolby Vision's layers).
fn stream_entries(stream: &ffmpeg::Stream) -> Vec<(OfStream, Vec<u8>)> {
    use OfStream::{AV_PKT_DATA_CPB_PROPERTIES, AV_PKT_DATA_DOVI_CONF};
    // SAFETY: the stream is alive, and its list has `count` entries of `size` bytes each.
    unsafe {
        let raw = stream.as_ptr();
        #[cfg(ffmpeg_6_1)]
        let (list, count) = ((*(*raw).codecpar).coded_side_data, (*(*raw).codecpar).nb_coded_side_data);
        #[cfg(not(ffmpeg_6_1))]
        let (list, count) = ((*raw).side_data, (*raw).nb_side_data);
        (0..usize::try_from(count).unwrap_or(0))
            .map(|i| &*list.add(i))
            .filter(|entry| !matches!(entry.type_, AV_PKT_DATA_CPB_PROPERTIES | AV_PKT_DATA_DOVI_CONF))
            .map(|entry| (entry.type_, bytes_of(entry.data, entry.size).to_vec()))
            .collect()
    }
}

/// Copies the side data of a stream that is copied.
pub(crate) fn copy_entries(input: &ffmpeg::Stream, output: &mut ffmpeg::StreamMut) {
    for (kind, bytes) in stream_entries(input) {
        add_entry(output, kind, &bytes);
    }
}

fn add_entry(stream: &mut ffmpeg::StreamMut, kind: OfStream, bytes: &[u8]) {
    // SAFETY: the stream is alive, and the new entry is allocated with the number of bytes that are copied.
    unsafe {
        let raw = stream.as_mut_ptr();
        #[cfg(ffmpeg_6_1)]
        let copy = {
            let (list, count) =
                (&raw mut (*(*raw).codecpar).coded_side_data, &raw mut (*(*raw).codecpar).nb_coded_side_data);
            let new = ffi::av_packet_side_data_new(list, count, kind, bytes.len(), 0);
            if new.is_null() { std::ptr::null_mut() } else { (*new).data }
        };
        #[cfg(not(ffmpeg_6_1))]
        let copy = ffi::av_stream_new_side_data(raw, kind, bytes.len());
        assert!(!copy.is_null(), "no memory for a stream's side data");
        copy.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
    }
}

/// Whether a container can hold HDR metadata.
pub(crate) fn holds_hdr_metadata(container: &str) -> bool {
    matches!(container, "matroska" | "webm" | "mp4" | "mov")
}

fn integer(bytes: &[u8], index: usize) -> i32 {
    let word = bytes.get(4 * index..4 * index + 4).and_then(|word| word.try_into().ok());
    word.map_or(0, i32::from_ne_bytes)
}

/// The `index`-th AVRational of a C structure that begins with an array of them.
fn rational(bytes: &[u8], index: usize) -> f64 {
    match integer(bytes, 2 * index + 1) {
        0 => 0.0,
        den => f64::from(integer(bytes, 2 * index)) / f64::from(den),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hdr_metadata_is_in_each_encoders_own_syntax() {
        let rationals =
            [(34000, 50000), (16000, 50000), (13250, 50000), (34500, 50000), (7500, 50000), (3000, 50000)];
        let rest = [(15635, 50000), (16450, 50000), (50, 10000), (1000, 1)];
        let words = rationals.iter().chain(&rest).flat_map(|&(num, den)| [num, den]).chain([1, 1]);
        let display = words.flat_map(i32::to_ne_bytes).collect();
        let light = [1000i32, 400].into_iter().flat_map(i32::to_ne_bytes).collect();
        let side = StreamSide(vec![
            (OfStream::AV_PKT_DATA_MASTERING_DISPLAY_METADATA, display),
            (OfStream::AV_PKT_DATA_CONTENT_LIGHT_LEVEL, light),
        ]);
        let points = "G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50)";
        let parameters = |encoder: &str| side.encoder_parameters(encoder);
        assert_eq!(
            parameters("libx265"),
            Some(("x265-params", format!("master-display={points}:max-cll=1000,400")))
        );
        assert_eq!(
            parameters("libx264"),
            Some(("x264-params", format!("mastering-display={points}:cll=1000,400")))
        );
        let (_, plain) = parameters("libsvtav1").unwrap();
        assert!(
            plain.contains("G(0.265000,0.690000)") && plain.contains("L(1000.000000,0.005000)"),
            "{plain}"
        );
        assert_eq!(parameters("ffv1"), None);
        assert_eq!(StreamSide::default().encoder_parameters("libx265"), None);
    }
}

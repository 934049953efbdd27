//! Side data: what streams and frames carry besides samples, and where the output can hold it.
//!
//! In: streams and decoded frames. Out: entries of the output's stream, parameters of encoders, and names of what an
//! encoder does not take. What holds for the complete video (mastering display, rotation) is written to the stream and,
//! where the codec has a place for it, to the bitstream; what belongs to one frame stays on that frame.

mod access;
mod hdr;
mod kinds;
mod timecode;

use ffmpeg_next::ffi::{self, AVFrameSideDataType as OfFrame, AVPacketSideDataType as OfStream};
use ffmpeg_next::frame::Video as AvFrame;
use ffmpeg_next::{self as ffmpeg, Rational};

use self::access::{add_entry, frame_bytes, frame_entries, integer, remove, stream_entries};
pub(crate) use self::access::{add_to_frame, take};
use self::kinds::{FrameFate, StreamFate, fate_of_frames, fate_of_streams};
use crate::color::Transfer;
use crate::frame::{Family, Frame, FrameFormat, PixelFormat, Props};
use crate::media::ffmpeg::{c_string, check};
use crate::media::stream::tag;

/// Side data of frames that holds for the stream. Both types hold the same C structure.
const OF_STREAMS: [(OfFrame, OfStream); 5] = [
    (OfFrame::AV_FRAME_DATA_MASTERING_DISPLAY_METADATA, OfStream::AV_PKT_DATA_MASTERING_DISPLAY_METADATA),
    (OfFrame::AV_FRAME_DATA_CONTENT_LIGHT_LEVEL, OfStream::AV_PKT_DATA_CONTENT_LIGHT_LEVEL),
    (OfFrame::AV_FRAME_DATA_DISPLAYMATRIX, OfStream::AV_PKT_DATA_DISPLAYMATRIX),
    (OfFrame::AV_FRAME_DATA_STEREO3D, OfStream::AV_PKT_DATA_STEREO3D),
    (OfFrame::AV_FRAME_DATA_SPHERICAL, OfStream::AV_PKT_DATA_SPHERICAL),
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
    matrix_of(&take(av_frame, OfFrame::AV_FRAME_DATA_DISPLAYMATRIX)?)
}

fn matrix_of(bytes: &[u8]) -> Option<DisplayMatrix> {
    (bytes.len() >= size_of::<DisplayMatrix>()).then(|| std::array::from_fn(|i| integer(bytes, i)))
}

/// Side data of the output's stream.
#[derive(Default)]
pub(crate) struct StreamSide {
    entries: Vec<(OfStream, Vec<u8>)>,
    /// Names of the input's that no stream of the output can have.
    lost: Vec<&'static str>,
    /// Whether the encoder writes that of the first frame about stereoscopic 3D into the bitstream.
    codes_stereo: bool,
    /// Timecode of the first frame, for the stream.
    timecode: Option<String>,
    /// Whether the stream has a timecode, or that of GOPs counts from 0, as encoders write it that got none.
    has_timecode: bool,
    /// Whether the container is Matroska or WebM, which have a place for HDR10+ beside packets.
    is_matroska: bool,
}

/// What the side data of the output's stream depends on, beside that of the input.
pub(crate) struct StreamContext<'a> {
    /// FFmpeg's names of the encoder and the container.
    pub encoder: &'a str,
    pub container: &'a str,
    /// Whether the stream's display matrix holds for the frames.
    pub has_matrix: bool,
    /// Whether the frames have the primaries and the transfer with which they were decoded.
    pub has_same_light: bool,
    /// Width of the output over that of the input.
    pub growth: f64,
    pub frame_rate: Rational,
}

impl StreamSide {
    /// Side data of the first frame, else of its stream.
    pub fn of(stream: &ffmpeg::Stream, first: &Frame, context: &StreamContext) -> StreamSide {
        let av_frame = frame_of(&first.props);
        let of_stream = stream_entries(stream);
        let is_held = |of_frame: OfFrame| match of_frame {
            OfFrame::AV_FRAME_DATA_DISPLAYMATRIX => context.has_matrix,
            _ => context.has_same_light || !kinds::is_light(of_frame),
        };
        let held = OF_STREAMS.iter().filter(|(of_frame, _)| is_held(*of_frame));
        let mut entries: Vec<(OfStream, Vec<u8>)> = held
            .filter_map(|&(of_frame, kind)| {
                let of_frames = av_frame.and_then(|av_frame| frame_bytes(av_frame, of_frame));
                let of_stream = || of_stream.iter().find(|(known, _)| *known == kind).map(|(_, b)| b.clone());
                Some((kind, of_frames.map(<[u8]>::to_vec).or_else(of_stream)?))
            })
            .collect();
        for (kind, bytes) in &mut entries {
            if *kind == OfStream::AV_PKT_DATA_SPHERICAL {
                scale_padding(bytes, context.growth);
            }
        }
        let lost = of_stream.iter().filter_map(|&(kind, _)| match fate_of_streams(kind) {
            StreamFate::Lost(name) => Some(name),
            _ if kind == OfStream::AV_PKT_DATA_ICC_PROFILE => {
                let is_of_frame = av_frame
                    .is_some_and(|props| frame_bytes(props, OfFrame::AV_FRAME_DATA_ICC_PROFILE).is_some());
                (!is_of_frame).then_some(kinds::ICC)
            }
            _ => None,
        });
        let has_stereo =
            av_frame.is_some_and(|props| frame_bytes(props, OfFrame::AV_FRAME_DATA_STEREO3D).is_some());
        let codes_stereo = has_stereo && context.encoder == "libx264";
        let gop = av_frame.and_then(|props| frame_bytes(props, OfFrame::AV_FRAME_DATA_GOP_TIMECODE));
        let counts_from_zero = gop.is_some_and(is_zero_timecode);
        let has_own = tag(stream, c"timecode").is_some();
        let holds_timecode = matches!(context.container, "mov" | "mp4" | "matroska");
        let timecode = av_frame
            .filter(|_| holds_timecode && !has_own && !counts_from_zero)
            .and_then(|props| timecode_of(props, context.frame_rate));
        let has_timecode = holds_timecode && (has_own || timecode.is_some()) || counts_from_zero;
        let is_matroska = matches!(context.container, "matroska" | "webm");
        let lost = lost.collect();
        let mut side = StreamSide { entries, lost, codes_stereo, timecode, has_timecode, is_matroska };
        side.lost.extend(side.not_held(context));
        side
    }

    /// Writes the entries.
    pub fn write(&self, output: &mut ffmpeg::StreamMut) {
        for (kind, bytes) in &self.entries {
            add_entry(output, *kind, bytes);
        }
    }

    /// Writes the timecode of the first frame as a tag.
    pub fn write_timecode(&self, output: &mut ffmpeg::StreamMut) {
        if let Some(timecode) = self.timecode.as_deref().map(c_string) {
            // SAFETY: the stream is alive, and the strings live through the call, which copies them.
            let code = unsafe {
                let tags = &raw mut (*output.as_mut_ptr()).metadata;
                ffi::av_dict_set(tags, c"timecode".as_ptr(), timecode.as_ptr(), 0)
            };
            check(code).expect("no memory for a timecode");
        }
    }

    fn get(&self, wanted: OfStream) -> Option<&[u8]> {
        self.entries.iter().find(|(kind, _)| *kind == wanted).map(|(_, bytes)| bytes.as_slice())
    }

    /// The encoder's own parameters for the HDR metadata, as (option, value).
    pub fn encoder_parameters(&self, encoder: &str) -> Option<(&'static str, String)> {
        hdr::encoder_parameters(self.display(), self.light(), encoder)
    }

    fn display(&self) -> Option<&[u8]> {
        self.get(OfStream::AV_PKT_DATA_MASTERING_DISPLAY_METADATA)
    }

    fn light(&self) -> Option<&[u8]> {
        self.get(OfStream::AV_PKT_DATA_CONTENT_LIGHT_LEVEL)
    }

    /// Names of what neither the bitstream nor the container says.
    pub fn lost(&self) -> &[&'static str] {
        &self.lost
    }

    /// Names of the entries that FFmpeg writes into neither the bitstream nor the container.
    fn not_held(&self, context: &StreamContext) -> impl Iterator<Item = &'static str> + use<> {
        let StreamContext { encoder, container, .. } = *context;
        let is_mp4 = matches!(container, "mp4" | "mov");
        let is_matroska = self.is_matroska;
        let is_coded = hdr::encoder_parameters(self.display(), None, encoder).is_some();
        // MP4 has all numbers of it or none.
        let holds_display = is_matroska || is_coded || is_mp4 && self.display().is_some_and(hdr::is_complete);
        let holds_light =
            is_matroska || is_mp4 || hdr::encoder_parameters(None, self.light(), encoder).is_some();
        let holds_projection = is_matroska || container == "mp4";
        let has = |kind| self.get(kind).is_some();
        let hdr = (self.display().is_some() && !holds_display || self.light().is_some() && !holds_light)
            .then_some(kinds::HDR);
        let stereo = (has(OfStream::AV_PKT_DATA_STEREO3D) && !holds_projection && !self.codes_stereo)
            .then_some(kinds::STEREO);
        let spherical =
            (has(OfStream::AV_PKT_DATA_SPHERICAL) && !holds_projection).then_some(kinds::SPHERICAL);
        [hdr, stereo, spherical].into_iter().flatten()
    }

    /// Names of the side data of a frame that is in neither the output's frames nor its stream.
    pub fn lost_of<'a>(
        &'a self,
        props: &'a AvFrame,
        codec: ffmpeg::Codec,
        format: &'a FrameFormat,
    ) -> impl Iterator<Item = &'static str> {
        frame_entries(props).filter_map(move |(kind, bytes)| match fate_of_frames(kind) {
            FrameFate::Source | FrameFate::Audio => None,
            FrameFate::Stream(name) => {
                let of_stream = OF_STREAMS.iter().find(|(of_frame, _)| *of_frame == kind);
                of_stream.is_none_or(|(_, of_stream)| self.get(*of_stream).is_none()).then_some(name)
            }
            FrameFate::Lost(_) | FrameFate::Kept { .. } if self.has_timecode && is_timecode(kind) => None,
            FrameFate::Lost(name) => (!is_whole_area(kind, bytes, props)).then_some(name),
            FrameFate::Kept { name, .. } => {
                // libvpx keeps it where it is of use.
                let is_pq = format.color.transfer == Transfer::PQ && format.pixel_format.depth() > 8;
                let has_place = kind != OfFrame::AV_FRAME_DATA_DYNAMIC_HDR_PLUS || self.is_matroska && is_pq;
                let is_lost = !is_kept(kind, codec) || !has_place || !fits(kind, bytes, &format.pixel_format);
                (is_lost && !is_settings(kind, bytes)).then_some(name)
            }
        })
    }
}

/// Whether the encoder takes this kind of side data with its frames.
fn is_kept(kind: OfFrame, codec: ffmpeg::Codec) -> bool {
    match fate_of_frames(kind) {
        FrameFate::Stream(_) => true,
        FrameFate::Kept { option, encoders, .. } => {
            option.is_some_and(|name| has_option(codec, name)) || encoders.contains(&codec.name())
        }
        _ => false,
    }
}

/// Removes all side data but that which the encoder takes and which holds for a frame in this format.
pub(crate) fn remove_stale(av_frame: &mut AvFrame, codec: ffmpeg::Codec, format: &PixelFormat) {
    use OfFrame::AV_FRAME_DATA_SEI_UNREGISTERED as USER_DATA;
    let is_stale = |(kind, bytes): (OfFrame, &[u8])| {
        !is_kept(kind, codec) || is_settings(kind, bytes) || !fits(kind, bytes, format)
    };
    let stale: Vec<OfFrame> =
        frame_entries(av_frame).filter(|&entry| is_stale(entry)).map(|(kind, _)| kind).collect();
    // Several entries may be of this kind, and are removed together.
    let user_data: Vec<_> = frame_entries(av_frame)
        .filter(|&entry| entry.0 == USER_DATA && !is_stale(entry))
        .map(|(_, bytes)| bytes.to_vec())
        .collect();
    stale.iter().for_each(|&kind| remove(av_frame, kind));
    if stale.contains(&USER_DATA) {
        user_data.iter().for_each(|bytes| add_to_frame(av_frame, USER_DATA, bytes));
    }
}

/// Removes what holds for the primaries and the transfer of a frame alone.
pub(crate) fn remove_light(av_frame: &mut AvFrame) {
    let light = |kind: &OfFrame| kinds::is_light(*kind);
    let kinds: Vec<OfFrame> = frame_entries(av_frame).map(|(kind, _)| kind).filter(light).collect();
    kinds.into_iter().for_each(|kind| remove(av_frame, kind));
}

/// Removes the chromaticities of an image, x and y of R, G, B, white, which FFmpeg gives as a mastering display without
/// luminance, and returns them.
pub(crate) fn take_chromaticities(av_frame: &mut AvFrame) -> Option<[f64; 8]> {
    const KIND: OfFrame = OfFrame::AV_FRAME_DATA_MASTERING_DISPLAY_METADATA;
    let chromaticities = frame_bytes(av_frame, KIND).and_then(hdr::chromaticities_alone)?;
    remove(av_frame, KIND);
    Some(chromaticities)
}

/// Whether a pan and scan area, which FFmpeg's decoder gives to every MPEG-2 frame, is the whole frame.
fn is_whole_area(kind: OfFrame, bytes: &[u8], props: &AvFrame) -> bool {
    // Width and height in 1/16 of a sample, after a number; then offsets.
    const OFFSETS: usize = 12;
    let is_whole = |index: usize, side: u32| {
        let area = integer(bytes, index);
        area == 0 || i64::from(area) >= 16 * i64::from(side)
    };
    kind == OfFrame::AV_FRAME_DATA_PANSCAN
        && is_whole(1, props.width())
        && is_whole(2, props.height())
        && bytes[OFFSETS.min(bytes.len())..].iter().all(|byte| *byte == 0)
}

fn is_timecode(kind: OfFrame) -> bool {
    matches!(kind, OfFrame::AV_FRAME_DATA_GOP_TIMECODE | OfFrame::AV_FRAME_DATA_S12M_TIMECODE)
}

/// The timecode of a frame, or of its GOP.
fn timecode_of(av_frame: &AvFrame, rate: Rational) -> Option<String> {
    // SMPTE 12M: a count of timecodes, then the first.
    let of_frame = frame_bytes(av_frame, OfFrame::AV_FRAME_DATA_S12M_TIMECODE)
        .filter(|bytes| integer(bytes, 0) > 0)
        .and_then(|bytes| timecode::of_frame(integer(bytes, 1) as u32, rate));
    let of_gop = || {
        let bytes = frame_bytes(av_frame, OfFrame::AV_FRAME_DATA_GOP_TIMECODE)?;
        timecode::of_gop(integer(bytes, 0) as u32, rate)
    };
    of_frame.or_else(of_gop)
}

/// Whether the timecode of a GOP, in the 25 bits of its header, is 00:00:00:00.
fn is_zero_timecode(bytes: &[u8]) -> bool {
    const DROP_FRAME: i32 = 1 << 24;
    const MARKER: i32 = 1 << 12;
    integer(bytes, 0) & !(DROP_FRAME | MARKER) == 0
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

/// Dolby Vision's profile, if the stream has a base layer that other decoders show in wrong colours.
pub(crate) fn incompatible_dolby_vision(stream: &ffmpeg::Stream) -> Option<u8> {
    // AVDOVIDecoderConfigurationRecord: bytes.
    const PROFILE: usize = 2;
    const COMPATIBILITY: usize = 7;
    // Records of these were written before there was a compatibility: SDR and the HDR10 of Blu-rays.
    const COMPATIBLE: [u8; 2] = [4, 7];
    let mut entries = stream_entries(stream).into_iter();
    let (_, record) = entries.find(|(kind, _)| *kind == OfStream::AV_PKT_DATA_DOVI_CONF)?;
    let (profile, compatibility) = (*record.get(PROFILE)?, *record.get(COMPATIBILITY)?);
    (compatibility == 0 && !COMPATIBLE.contains(&profile)).then_some(profile)
}

/// Whether the metadata of Dolby Vision in a frame is that of profile 5.
pub(crate) fn is_dolby_vision_5(av_frame: &AvFrame) -> bool {
    // AVDOVIMetadata begins with the offset of its header, AVDOVIRpuDataHeader.
    const RPU_PROFILE: usize = 4;
    const IS_FULL_RANGE: usize = 10;
    let Some(bytes) = frame_bytes(av_frame, OfFrame::AV_FRAME_DATA_DOVI_METADATA) else { return false };
    let header = bytes.first_chunk().and_then(|offset| bytes.get(usize::from_ne_bytes(*offset)..));
    let byte = |at: usize| header.and_then(|header| header.get(at));
    byte(RPU_PROFILE) == Some(&0) && byte(IS_FULL_RANGE) == Some(&1)
}

/// Samples to remove from each frame of the stream: top, bottom, left, right.
pub(crate) fn cropping(stream: &ffmpeg::Stream) -> Option<[u32; 4]> {
    let mut entries = stream_entries(stream).into_iter();
    let (_, bytes) = entries.find(|(kind, _)| kinds::name_of_streams(*kind) == kinds::CROPPING)?;
    cropping_of(&bytes)
}

fn cropping_of(bytes: &[u8]) -> Option<[u32; 4]> {
    let sides = bytes.as_chunks::<4>().0.first_chunk::<4>()?.map(u32::from_le_bytes);
    sides.iter().any(|side| *side > 0).then_some(sides)
}

/// Name of what a packet carries beside its frame and the decoder leaves out.
pub(crate) fn lost_of_packet(kind: OfStream, bytes: &[u8]) -> Option<&'static str> {
    // An identifier of 64 bits, and ITU-T T.35's codes of SMPTE 2094-40.
    const ALPHA: u64 = 1;
    const T35: u64 = 4;
    const HDR10_PLUS: [u8; 6] = [0xb5, 0, 0x3c, 0, 1, 4];
    match fate_of_streams(kind) {
        StreamFate::Lost(name) => Some(name),
        _ if kind == OfStream::AV_PKT_DATA_MATROSKA_BLOCKADDITIONAL => {
            let (id, payload) = bytes.split_first_chunk()?;
            match u64::from_be_bytes(*id) {
                ALPHA => None,
                T35 if payload.starts_with(&HDR10_PLUS) => Some(kinds::HDR10_PLUS),
                _ => Some("additional blocks of Matroska"),
            }
        }
        _ => None,
    }
}

/// Copies the side data of a stream that is copied. Buffer sizes of the encoder are those of its packets' rate as well, and
/// are left to the muxer.
pub(crate) fn copy_entries(input: &ffmpeg::Stream, output: &mut ffmpeg::StreamMut) {
    for (kind, bytes) in stream_entries(input) {
        if kind != OfStream::AV_PKT_DATA_CPB_PROPERTIES {
            add_entry(output, kind, &bytes);
        }
    }
}

/// Scales the padding of a cube map, which is in samples: the last of nine words.
fn scale_padding(bytes: &mut [u8], growth: f64) {
    const PADDING: std::ops::Range<usize> = 32..36;
    if let Some(Ok(word)) = bytes.get(PADDING).map(<[u8; 4]>::try_from) {
        let padding = (f64::from(u32::from_ne_bytes(word)) * growth).round() as u32;
        bytes[PADDING].copy_from_slice(&padding.to_ne_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cropping_is_four_sides() {
        let bytes = |sides: [u32; 4]| sides.map(u32::to_le_bytes).concat();
        assert_eq!(cropping_of(&bytes([0, 4, 0, 8])), Some([0, 4, 0, 8]));
        assert_eq!(cropping_of(&bytes([0; 4])), None);
        assert_eq!(cropping_of(&[1; 15]), None);
    }

    #[test]
    fn padding_grows_with_the_frame() {
        let mut bytes: Vec<u8> = (1..=9u32).flat_map(u32::to_ne_bytes).collect();
        scale_padding(&mut bytes, 2.0);
        let words: Vec<u32> = bytes.as_chunks::<4>().0.iter().map(|word| u32::from_ne_bytes(*word)).collect();
        assert_eq!(words, [1, 2, 3, 4, 5, 6, 7, 8, 18]);
        scale_padding(&mut [0; 8], 2.0);
    }

    #[test]
    fn blocks_of_matroska_are_told_apart() {
        let kind = OfStream::AV_PKT_DATA_MATROSKA_BLOCKADDITIONAL;
        let block =
            |id: u64, payload: &[u8]| lost_of_packet(kind, &[&id.to_be_bytes()[..], payload].concat());
        assert_eq!(block(1, b"alpha"), None);
        assert_eq!(block(4, &[0xb5, 0, 0x3c, 0, 1, 4, 1]), Some("HDR10+"));
        assert_eq!(block(7, b"depth"), Some("additional blocks of Matroska"));
        assert_eq!(lost_of_packet(OfStream::AV_PKT_DATA_PALETTE, &[]), None);
        assert_eq!(lost_of_packet(OfStream::AV_PKT_DATA_PRFT, &[]), Some("producer reference time"));
    }
}

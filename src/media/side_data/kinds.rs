//! Every kind of side data that FFmpeg has for frames and for streams and packets, and what becomes of it.
//!
//! Kinds are listed by FFmpeg's names, so that those of newer versions are listed as well. A test walks FFmpeg's
//! enumerations: a kind that is not here fails it. At run time such a kind is reported by FFmpeg's name.

use std::ffi::{CStr, c_char};

use ffmpeg_next::ffi::{self, AVFrameSideDataType as OfFrame, AVPacketSideDataType as OfStream};

/// What becomes of side data of a decoded frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum FrameFate {
    /// It holds for the stream. The name is reported where a frame has it and the output's stream does not.
    Stream(&'static str),
    /// It stays on its frame where the encoder has the option, or is one of those listed; else the name is reported.
    Kept { name: &'static str, option: Option<&'static str>, encoders: &'static [&'static str] },
    /// No encoder takes it; the name is reported.
    Lost(&'static str),
    /// It describes how the source was encoded, or repeats other side data.
    Source,
    /// Frames of video have none.
    Audio,
}

/// What becomes of side data of the upscaled stream, or of one of its packets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum StreamFate {
    /// It is written to the output's stream.
    Stream,
    /// The decoder needs it, or passes it on with its frames.
    Decoded,
    /// It is left out, and the name is reported.
    Lost(&'static str),
    /// It describes how the source was encoded or transported.
    Source,
    /// Streams of video have none.
    Other,
}

use FrameFate::{Audio, Kept, Lost, Source, Stream};

/// The name of mastering display and content light level in reports.
pub(super) const HDR: &str = "mastering display and content light";
pub(super) const STEREO: &str = "stereoscopic 3D";
pub(super) const SPHERICAL: &str = "spherical mapping";
pub(super) const DOLBY_VISION: &str = "Dolby Vision";
pub(super) const HDR10_PLUS: &str = "HDR10+";
pub(super) const ICC: &str = "ICC profile";
const AMBIENT: &str = "ambient viewing environment";
const LCEVC: &str = "LCEVC enhancement";
const DISPLAYS_3D: &str = "3D reference displays";

/// libvpx-vp9 puts HDR10+ beside its packets, from where FFmpeg's Matroska muxer takes it from version 6.1 on.
const HDR10_PLUS_OF_FRAMES: FrameFate = match cfg!(ffmpeg_6_1) {
    true => Kept { name: HDR10_PLUS, option: None, encoders: &["libvpx-vp9"] },
    false => Lost(HDR10_PLUS),
};

/// Kinds of side data of frames.
const OF_FRAMES: &[(&str, FrameFate)] = &[
    ("AVPanScan", Lost("pan and scan")),
    ("ATSC A53 Part 4 Closed Captions", kept("closed captions (A53)", "a53cc")),
    ("Stereo 3D", Stream(STEREO)),
    ("AVMatrixEncoding", Audio),
    ("Metadata relevant to a downmix procedure", Audio),
    ("AVReplayGain", Audio),
    // Orientation has applied it, or the output's stream has it.
    ("3x3 displaymatrix", Source),
    ("Active format description", Lost("active format description (AFD)")),
    ("Motion vectors", Source),
    ("Skip samples", Audio),
    ("Audio service type", Audio),
    ("Mastering display metadata", Stream(HDR)),
    ("GOP timecode", Lost("GOP timecode")),
    ("Spherical Mapping", Stream(SPHERICAL)),
    ("Content light level metadata", Stream(HDR)),
    ("ICC profile", Kept { name: ICC, option: None, encoders: &["png", "apng", "mjpeg", "libjxl"] }),
    ("SMPTE 12-1 timecode", kept("timecode of frames (SMPTE 12M)", "s12m_tc")),
    ("HDR Dynamic Metadata SMPTE2094-40 (HDR10+)", HDR10_PLUS_OF_FRAMES),
    ("HDR Dynamic Metadata CUVA 005.1 2021 (Vivid)", Lost("HDR Vivid")),
    ("HDR Dynamic Metadata SMPTE2094-50", Lost("HDR of SMPTE 2094-50")),
    ("Regions Of Interest", Source),
    ("Video encoding parameters", Source),
    ("H.26[45] User Data Unregistered SEI message", kept("user data (SEI)", "udu_sei")),
    // Decoders remove it where they apply it.
    ("Film grain parameters", Lost("film grain")),
    ("Bounding boxes for object detection and classification", Lost("detected objects")),
    ("Dolby Vision RPU Data", Lost(DOLBY_VISION)),
    ("Dolby Vision Metadata", Source),
    ("Ambient viewing environment", Lost(AMBIENT)),
    ("Encoding video hint", Source),
    ("LCEVC NAL data", Lost(LCEVC)),
    ("View ID", Lost("views of multiview video")),
    ("3D Reference Displays Information", Lost(DISPLAYS_3D)),
    ("3D Reference Displays Info", Lost(DISPLAYS_3D)),
    ("EXIF metadata", Kept { name: "EXIF", option: None, encoders: &["png", "apng", "mjpeg"] }),
    ("IAMF Mix Gain Parameter Data", Audio),
    ("IAMF Demixing Info Parameter Data", Audio),
    ("IAMF Recon Gain Info Parameter Data", Audio),
    ("RAW camera color parameters", Lost("raw camera parameters")),
];

/// Kinds of side data of frames that hold for their primaries and transfer alone.
const LIGHT: [&str; 9] = [
    "ICC profile",
    "Mastering display metadata",
    "Content light level metadata",
    "HDR Dynamic Metadata SMPTE2094-40 (HDR10+)",
    "HDR Dynamic Metadata CUVA 005.1 2021 (Vivid)",
    "HDR Dynamic Metadata SMPTE2094-50",
    "Dolby Vision RPU Data",
    "Dolby Vision Metadata",
    "Ambient viewing environment",
];

/// Kinds of side data of streams and packets.
const OF_STREAMS: &[(&str, StreamFate)] = &[
    ("Palette", StreamFate::Decoded),
    ("New Extradata", StreamFate::Decoded),
    ("Param Change", StreamFate::Decoded),
    ("H263 MB Info", StreamFate::Source),
    ("Replay Gain", StreamFate::Other),
    ("Display Matrix", StreamFate::Stream),
    ("Stereo 3D", StreamFate::Stream),
    ("Audio Service Type", StreamFate::Other),
    ("Quality stats", StreamFate::Source),
    ("Fallback track", StreamFate::Other),
    ("CPB properties", StreamFate::Source),
    ("Skip Samples", StreamFate::Other),
    ("JP Dual Mono", StreamFate::Other),
    ("Strings Metadata", StreamFate::Decoded),
    ("Subtitle Position", StreamFate::Other),
    // Alpha of VP8 and VP9; the decoder looks for others.
    ("Matroska BlockAdditional", StreamFate::Decoded),
    ("WebVTT ID", StreamFate::Other),
    ("WebVTT Settings", StreamFate::Other),
    ("Metadata Update", StreamFate::Source),
    ("MPEGTS Stream ID", StreamFate::Source),
    ("Mastering display metadata", StreamFate::Stream),
    ("Content light level metadata", StreamFate::Stream),
    ("Spherical Mapping", StreamFate::Stream),
    ("A53 Closed Captions", StreamFate::Decoded),
    ("Encryption initialization data", StreamFate::Source),
    ("Encryption info", StreamFate::Source),
    ("Active Format Description data", StreamFate::Decoded),
    ("Producer Reference Time", StreamFate::Lost("producer reference time")),
    ("ICC Profile", StreamFate::Decoded),
    ("DOVI configuration record", StreamFate::Lost(DOLBY_VISION)),
    ("SMPTE ST 12-1:2014 timecode", StreamFate::Decoded),
    ("HDR10+ Dynamic Metadata (SMPTE 2094-40)", StreamFate::Decoded),
    ("HDR Dynamic Metadata (SMPTE 2094-50)", StreamFate::Decoded),
    ("HEVC enhancement-layer decoder configuration", StreamFate::Lost(DOLBY_VISION)),
    ("IAMF Mix Gain Parameter Data", StreamFate::Other),
    ("IAMF Demixing Info Parameter Data", StreamFate::Other),
    ("IAMF Recon Gain Info Parameter Data", StreamFate::Other),
    ("Ambient viewing environment", StreamFate::Lost(AMBIENT)),
    // The decoder's frames are cropped.
    (CROPPING, StreamFate::Decoded),
    ("LCEVC NAL data", StreamFate::Decoded),
    ("3D Reference Displays Info", StreamFate::Lost(DISPLAYS_3D)),
    ("RTCP Sender Report", StreamFate::Lost("RTCP sender report")),
    ("EXIF metadata", StreamFate::Decoded),
];

/// FFmpeg's name of the area of a stream's frames that is shown, from version 7.1 on.
pub(super) const CROPPING: &str = "Frame Cropping";

const fn kept(name: &'static str, option: &'static str) -> FrameFate {
    Kept { name, option: Some(option), encoders: &[] }
}

/// What becomes of this kind of side data of frames.
pub(super) fn fate_of_frames(kind: OfFrame) -> FrameFate {
    let name = name_of_frames(kind);
    OF_FRAMES.iter().find(|(known, _)| *known == name).map_or(Lost(name), |(_, fate)| *fate)
}

/// What becomes of this kind of side data of the upscaled stream and its packets.
pub(super) fn fate_of_streams(kind: OfStream) -> StreamFate {
    let name = name_of_streams(kind);
    OF_STREAMS.iter().find(|(known, _)| *known == name).map_or(StreamFate::Lost(name), |(_, fate)| *fate)
}

/// Whether this kind of side data of frames holds for their primaries and transfer alone.
pub(super) fn is_light(kind: OfFrame) -> bool {
    LIGHT.contains(&name_of_frames(kind))
}

/// FFmpeg's name of a kind of side data of frames.
fn name_of_frames(kind: OfFrame) -> &'static str {
    // SAFETY: computes with its argument only; names are static.
    unsafe { static_name(ffi::av_frame_side_data_name(kind)) }
}

/// FFmpeg's name of a kind of side data of streams and packets.
pub(super) fn name_of_streams(kind: OfStream) -> &'static str {
    // SAFETY: computes with its argument only; names are static.
    unsafe { static_name(ffi::av_packet_side_data_name(kind)) }
}

/// # Safety
/// `name` is null, for a kind without one, or a static C string.
unsafe fn static_name(name: *const c_char) -> &'static str {
    const UNKNOWN: &str = "unknown side data";
    if name.is_null() {
        return UNKNOWN;
    }
    // SAFETY: the caller's.
    unsafe { CStr::from_ptr(name) }.to_str().unwrap_or(UNKNOWN)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The names of an enumeration whose members count from 0.
    fn names(name_of: impl Fn(u32) -> *const c_char) -> Vec<&'static str> {
        // SAFETY: FFmpeg's names are static.
        let named = (0..).map(|code| unsafe { static_name(name_of(code)) });
        named.take_while(|name| *name != "unknown side data").collect()
    }

    #[test]
    fn every_kind_of_ffmpeg_has_its_fate() {
        type OfCode = extern "C" fn(u32) -> *const c_char;
        // SAFETY: C's enumerations are passed as u32; these two functions look any number up, and return null for one that
        // is no member.
        let (of_frames, of_streams) = unsafe {
            let of_frames: unsafe extern "C" fn(OfFrame) -> *const c_char = ffi::av_frame_side_data_name;
            let of_streams: unsafe extern "C" fn(OfStream) -> *const c_char = ffi::av_packet_side_data_name;
            (
                std::mem::transmute::<*const (), OfCode>(of_frames as *const ()),
                std::mem::transmute::<*const (), OfCode>(of_streams as *const ()),
            )
        };
        let (frames, streams) = (names(|code| of_frames(code)), names(|code| of_streams(code)));
        assert!(frames.len() >= 26 && streams.len() >= 32, "{frames:?} {streams:?}");
        assert_eq!(streams.len(), OfStream::AV_PKT_DATA_NB as usize, "FFmpeg names all of them");
        for name in frames {
            assert!(OF_FRAMES.iter().any(|(known, _)| *known == name), "frames: nothing decided of '{name}'");
        }
        for name in streams {
            assert!(
                OF_STREAMS.iter().any(|(known, _)| *known == name),
                "streams: nothing decided of '{name}'"
            );
        }
    }

    #[test]
    fn a_name_is_listed_once() {
        for (i, (name, _)) in OF_FRAMES.iter().enumerate() {
            assert!(OF_FRAMES[..i].iter().all(|(other, _)| other != name), "{name}");
        }
        for (i, (name, _)) in OF_STREAMS.iter().enumerate() {
            assert!(OF_STREAMS[..i].iter().all(|(other, _)| other != name), "{name}");
        }
        assert!(LIGHT.iter().all(|light| OF_FRAMES.iter().any(|(name, _)| name == light)));
    }
}

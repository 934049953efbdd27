//! Containers as FFmpeg knows them: by name and by extension, and the codecs that each holds so that they are read back.
//! What depends on a stream and not on its codec, `trial.rs` tries.

use std::ffi::CStr;

use ffmpeg_next::{codec, ffi, media};

use crate::media::ffmpeg::c_string;

/// FFmpeg's short name.
pub(crate) fn container_name(container: &'static ffi::AVOutputFormat) -> &'static str {
    // SAFETY: names of containers are static C strings.
    unsafe { CStr::from_ptr(container.name) }.to_str().expect("container names are ASCII")
}

/// The container of FFmpeg's short name, else of the file name's extension.
pub(crate) fn guess_container(
    short_name: Option<&CStr>,
    file_name: &str,
) -> Option<&'static ffi::AVOutputFormat> {
    let file_name = c_string(file_name);
    let short_name = short_name.map_or(std::ptr::null(), CStr::as_ptr);
    // SAFETY: the strings live through the call; containers are static.
    unsafe { ffi::av_guess_format(short_name, file_name.as_ptr(), std::ptr::null()).as_ref() }
}

/// FFmpeg's demuxer of the container; `None` where it takes no stream alone, or finds one by its content only.
pub(crate) fn demuxer_of(container: &str) -> Option<&'static str> {
    Some(match container {
        "matroska" | "webm" => "matroska",
        "mp4" | "mov" | "ipod" | "3gp" | "3g2" | "psp" | "f4v" => "mov",
        "mpegts" | "hls" => "mpegts",
        "avi" => "avi",
        "flv" => "flv",
        "nut" => "nut",
        "ogg" | "ogv" | "oga" => "ogg",
        "asf" => "asf",
        _ => return None,
    })
}

/// Whether the container is for video: not one of audio, the covers of which are PNG, of subtitles or of metadata.
pub(crate) fn holds_video(container: &'static ffi::AVOutputFormat) -> bool {
    let is_cover = matches!(container_name(container), "mp3" | "flac" | "aiff");
    codec::Id::from(container.video_codec) != codec::Id::None && !is_cover
}

/// Asks FFmpeg whether the container holds a codec: 1 yes, 0 no, negative unknown.
pub(crate) fn query(container: &'static ffi::AVOutputFormat, id: codec::Id) -> i32 {
    // SAFETY: the container is static.
    unsafe { ffi::avformat_query_codec(container, id.into(), ffi::FF_COMPLIANCE_NORMAL) }
}

/// Whether the container holds streams of this kind and codec.
pub(crate) fn holds(container: &'static ffi::AVOutputFormat, medium: media::Type, id: codec::Id) -> bool {
    use codec::Id::*;
    let name = container_name(container);
    if medium == media::Type::Attachment {
        return name == "matroska";
    }
    match name {
        // The muxer takes any codec, and writes those that it does not know as private data.
        "mpegts" | "hls" => match medium {
            media::Type::Video => matches!(id, MPEG1VIDEO | MPEG2VIDEO | MPEG4 | H264 | HEVC | CAVS | DIRAC),
            media::Type::Audio => {
                matches!(id, MP2 | MP3 | AAC | AAC_LATM | AC3 | EAC3 | DTS | TRUEHD | OPUS | S302M)
            }
            media::Type::Subtitle => matches!(id, DVB_SUBTITLE | DVB_TELETEXT),
            media::Type::Data => matches!(id, SMPTE_KLV | TIMED_ID3),
            _ => false,
        },
        "matroska" => query(container, id) == 1 || has_riff_tag(medium, id),
        // FFmpeg answers alike for MOV and MP4, but writes these codecs into MP4 only.
        "mov" if matches!(id, FLAC | OPUS | TRUEHD) => false,
        // Each of Vorbis's packets lasts another time, which AVI cannot tell.
        "avi" if id == VORBIS => false,
        // NUT has no place for a block's or a sample's size, without which these cannot be decoded.
        "nut" if matches!(id, WMAV1 | WMAV2 | ADPCM_G726) => false,
        _ => match query(container, id) {
            0 => false,
            1.. => true,
            // Containers without a list of codecs hold their default one, and those known from their standards.
            _ => match medium {
                media::Type::Audio if id == codec::Id::from(container.audio_codec) => true,
                media::Type::Audio => match name {
                    "ogg" | "ogv" | "oga" => matches!(id, VORBIS | OPUS | FLAC | SPEEX),
                    "mpeg" | "vob" | "svcd" | "dvd" | "vcd" => matches!(id, MP2 | MP3 | AC3 | DTS | PCM_DVD),
                    "mxf" => matches!(id, PCM_S16LE | PCM_S24LE),
                    _ => false,
                },
                media::Type::Video => match name {
                    "gif" | "apng" | "webp" => false,
                    "mpeg" | "vob" | "svcd" | "dvd" | "vcd" => {
                        matches!(id, MPEG1VIDEO | MPEG2VIDEO | MPEG4 | H264)
                    }
                    "mxf" | "mxf_opatom" | "gxf" | "yuv4mpegpipe" => true,
                    // A stream without a container is of one codec.
                    _ => container.flags & ffi::AVFMT_NOTIMESTAMPS == 0,
                },
                _ => false,
            },
        },
    }
}

/// Whether RIFF or QuickTime has a tag for the codec, by which Matroska holds what it has no name for.
fn has_riff_tag(medium: media::Type, id: codec::Id) -> bool {
    // SAFETY: the lists are static, and each array of them ends with null.
    unsafe {
        let has_tag = |list: *const ffi::AVCodecTag| {
            ffi::av_codec_get_tag([list, std::ptr::null()].as_ptr(), id.into()) != 0
        };
        match medium {
            media::Type::Audio => has_tag(ffi::avformat_get_riff_audio_tags()),
            media::Type::Video => {
                has_tag(ffi::avformat_get_riff_video_tags()) || has_tag(ffi::avformat_get_mov_video_tags())
            }
            _ => false,
        }
    }
}

/// Codecs to convert audio to that the container does not hold, the best first.
pub(crate) fn audio_codecs(container: &'static ffi::AVOutputFormat, source: codec::Id) -> Vec<codec::Id> {
    use codec::Id::*;
    // SAFETY: descriptors are static, and so is the table of bits.
    let (is_lossless, bits) = unsafe {
        let descriptor = ffi::avcodec_descriptor_get(source.into()).as_ref();
        let is_lossless = descriptor.is_some_and(|it| {
            it.props & (ffi::AV_CODEC_PROP_LOSSLESS | ffi::AV_CODEC_PROP_LOSSY) == ffi::AV_CODEC_PROP_LOSSLESS
        });
        (is_lossless, ffi::av_get_bits_per_sample(source.into()))
    };
    let pcm = match bits {
        _ if matches!(source, PCM_F32BE | PCM_F32LE) => PCM_F32LE,
        _ if matches!(source, PCM_F64BE | PCM_F64LE) => PCM_F64LE,
        1..=16 => PCM_S16LE,
        25.. => PCM_S32LE,
        _ => PCM_S24LE,
    };
    let by_default = codec::Id::from(container.audio_codec);
    let wanted: &[codec::Id] = match container_name(container) {
        "webm" => &[OPUS, VORBIS],
        "matroska" | "nut" if is_lossless => &[FLAC, pcm],
        "mov" | "avi" if is_lossless => &[pcm, PCM_S24LE, by_default],
        "mp4" | "mov" | "ipod" | "mpegts" | "hls" | "matroska" | "nut" | "3gp" | "3g2" | "psp" | "ismv" => {
            &[AAC]
        }
        "mxf" | "gxf" => &[pcm, PCM_S24LE, PCM_S16LE],
        "ogg" | "ogv" | "oga" if is_lossless => &[FLAC, by_default, OPUS],
        "ogg" | "ogv" | "oga" => &[by_default, OPUS],
        "avi" => &[by_default, AC3],
        _ => &[by_default, AAC],
    };
    wanted.iter().copied().filter(|&id| holds(container, media::Type::Audio, id)).collect()
}

/// The sample rates in Hz that the container holds; none if it holds any.
pub(crate) fn sample_rates(container: &'static ffi::AVOutputFormat) -> &'static [i32] {
    match container_name(container) {
        "mxf" | "mxf_opatom" | "gxf" => &[48_000],
        _ => &[],
    }
}

/// The largest number of audio streams in the container.
pub(crate) fn audio_streams_max(container: &'static ffi::AVOutputFormat) -> usize {
    if container_name(container) == "flv" { 1 } else { usize::MAX }
}

/// Whether a track may start after the others and is read back so: where it cannot, all of them start together.
pub(crate) fn holds_starts(container: &'static ffi::AVOutputFormat) -> bool {
    !matches!(container_name(container), "avi" | "mxf" | "mxf_opatom" | "gxf" | "ogg" | "ogv" | "oga")
}

//! Output: the name and the container of what is written, and what FFmpeg says that the container holds.

use std::path::{Path, PathBuf};

use ffmpeg_next::ffi;
use ffmpeg_next::{self as ffmpeg, codec, format, media};

use crate::error::{Error, Result};
use crate::media::container::{container_name, guess_container};
use crate::media::ffmpeg::{c_string, check};
use crate::media::path::{partial_path, same_file};
use crate::media::pattern::Pattern;

/// Where the output goes and in what container, before anything is written.
#[derive(Clone)]
pub struct Output {
    pub(crate) name: String,
    /// The name it gets at the end, and the one it has until then; `None` for standard output.
    pub(crate) paths: Option<(PathBuf, PathBuf)>,
    pub(crate) container: &'static ffi::AVOutputFormat,
    sequence: Option<Pattern>,
    /// Whether what a player asks for first is to be at the beginning, where the container has it at the end.
    pub begins_fast: bool,
}

impl Output {
    /// A file, `-` for y4m on standard output, or a file a frame under a name like `out/%06d.tif`.
    pub fn new(name: &str, input: &str) -> Result<Output> {
        if name == "-" {
            let container = guess_container(Some(c"yuv4mpegpipe"), "").expect("FFmpeg always has y4m");
            let name = "standard output".into();
            return Ok(Output { name, paths: None, container, sequence: None, begins_fast: false });
        }
        let path = PathBuf::from(name);
        let container = guess_container(None, name).ok_or_else(|| {
            Error::new(
                name,
                "its ending names no container that FFmpeg writes",
                "use e.g. .mkv, .mp4, .mov, .png",
            )
        })?;
        let is_still = container_name(container) == "image2";
        let sequence = if is_still { Pattern::parse(name)? } else { None };
        if let Some(sequence) = &sequence
            && sequence.may_overwrite(input)?
        {
            let problem = "would overwrite the input";
            return Err(Error::new(name, problem, "give the output another name or folder"));
        }
        let partial = partial_path(&path);
        for written in [&path, &partial] {
            if same_file(Path::new(input), written) {
                let problem = format!("{} is the input itself", written.display());
                return Err(Error::new(name, problem, "give the output another name"));
            }
        }
        if path.is_dir() {
            return Err(Error::new(name, "is a folder", "name a file in it"));
        }
        let paths = Some((path, partial));
        Ok(Output { name: name.to_owned(), paths, container, sequence, begins_fast: false })
    }

    /// What the encoder of a live stream is opened for: each of its outputs has a container of its own, and this one takes
    /// whatever they do.
    pub fn live() -> Output {
        let container = guess_container(Some(c"matroska"), "").expect("FFmpeg always has Matroska");
        Output { name: "live".into(), paths: None, container, sequence: None, begins_fast: false }
    }

    /// Whether nothing is there that it would overwrite; a partial file may be `ours`, of an earlier attempt.
    pub fn check_free(&self, ours: bool) -> Result<()> {
        let Some((path, partial)) = &self.paths else { return Ok(()) };
        for (existing, remedy) in [
            (path, "-y overwrites it, or give another name"),
            (partial, "it is left of an earlier run: move it away, or -y overwrites it"),
        ] {
            if existing.exists() && !(ours && existing == partial) {
                return Err(Error::new(existing.to_string_lossy(), "is there already", remedy));
            }
        }
        Ok(())
    }

    /// As the user wrote it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The name it gets at the end; `None` for standard output.
    pub fn path(&self) -> Option<&Path> {
        self.paths.as_ref().map(|(path, _)| path.as_path())
    }

    /// The name the file has until it is whole.
    pub fn partial(&self) -> Option<&Path> {
        self.paths.as_ref().map(|(_, partial)| partial.as_path())
    }

    /// FFmpeg's name of the container.
    pub fn container(&self) -> &'static str {
        container_name(self.container)
    }

    /// The names of its files, where each frame is to have one.
    pub fn sequence(&self) -> Option<&Pattern> {
        self.sequence.as_ref()
    }

    pub(crate) fn is_y4m(&self) -> bool {
        self.container() == "yuv4mpegpipe"
    }

    /// A frame file.
    pub fn is_still(&self) -> bool {
        self.container() == "image2"
    }

    /// Whether encoders are cut into segments: in every file of video that can be joined from them.
    pub fn is_cut(&self) -> bool {
        self.paths.is_some()
            && !matches!(self.container(), "image2" | "yuv4mpegpipe" | "gif" | "apng" | "webp")
    }

    pub(crate) fn wants_global_header(&self) -> bool {
        self.container.flags & ffi::AVFMT_GLOBALHEADER != 0
    }

    /// The MP4 family: a length there is from one decoding time to the next.
    pub(crate) fn has_lengths_by_coding(&self) -> bool {
        matches!(self.container(), "mp4" | "mov" | "ipod" | "3gp" | "3g2" | "psp" | "ismv" | "f4v")
    }

    /// AVI, MXF and y4m count frames instead of telling times.
    pub(crate) fn has_times(&self) -> bool {
        !matches!(self.container(), "avi" | "mxf" | "mxf_opatom" | "gxf" | "yuv4mpegpipe")
    }

    /// Whether FFmpeg reads what it writes there: WebP it does not, once it moves.
    pub(crate) fn is_readable(&self) -> bool {
        !matches!(self.container(), "webp")
    }

    /// FFmpeg's answer whether the container holds a codec: 1 yes, 0 no, below 0 not known.
    pub(crate) fn query(&self, id: codec::Id) -> i32 {
        // SAFETY: the container is static.
        unsafe { ffi::avformat_query_codec(self.container, id.into(), ffi::FF_COMPLIANCE_EXPERIMENTAL) }
    }

    /// Whether streams of this kind and codec can be copied into it so that FFmpeg finds them again.
    pub(crate) fn holds(&self, medium: media::Type, id: codec::Id) -> bool {
        use codec::Id::*;
        if self.is_still() || self.is_y4m() {
            return false;
        }
        if medium == media::Type::Attachment {
            return self.container() == "matroska";
        }
        if self.container() == "mpegts" {
            // The muxer takes anything, and marks what it does not know as private data.
            return match medium {
                media::Type::Video => {
                    matches!(id, MPEG1VIDEO | MPEG2VIDEO | MPEG4 | H264 | HEVC | CAVS | DIRAC)
                }
                media::Type::Audio => {
                    matches!(id, MP2 | MP3 | AAC | AAC_LATM | AC3 | EAC3 | DTS | TRUEHD | OPUS | S302M)
                }
                media::Type::Subtitle => matches!(id, DVB_SUBTITLE | DVB_TELETEXT),
                media::Type::Data => matches!(id, SMPTE_KLV | TIMED_ID3),
                _ => false,
            };
        }
        match self.query(id) {
            0 => false,
            // The muxer says so of both, and takes these into MP4 only.
            1.. => self.container() != "mov" || !matches!(id, FLAC | OPUS | TRUEHD),
            // Containers without a list of codecs: their usual one is sure, and what is known.
            _ => match medium {
                media::Type::Audio if id == codec::Id::from(self.container.audio_codec) => true,
                media::Type::Audio => match self.container() {
                    "ogg" | "ogv" | "oga" => matches!(id, VORBIS | OPUS | FLAC | SPEEX),
                    "mpeg" | "vob" | "svcd" | "dvd" | "vcd" => matches!(id, MP2 | MP3 | AC3 | DTS),
                    "mxf" => id == PCM_S24LE,
                    _ => false,
                },
                media::Type::Video => !matches!(self.container(), "gif" | "apng" | "webp"),
                _ => false,
            },
        }
    }

    /// Whether FFmpeg 5.1 to 6 write down there how the frames are to be turned.
    pub(crate) fn holds_rotation(&self) -> bool {
        self.has_lengths_by_coding()
    }

    /// Whether it has a place for a frame beside the video. FFmpeg writes none into QuickTime's files.
    pub(crate) fn holds_cover(&self, id: codec::Id) -> bool {
        let is_known = matches!(id, codec::Id::MJPEG | codec::Id::PNG | codec::Id::BMP);
        is_known && matches!(self.container(), "mp4" | "ipod" | "matroska")
    }

    pub(crate) fn takes(&self, id: codec::Id) -> bool {
        self.query(id) != 0
    }

    pub(crate) fn default_encoder(&self) -> Result<ffmpeg::Codec> {
        // The muxer of still frames holds any codec.
        let h264 = !self.is_still() && (self.query(codec::Id::H264) == 1 || self.container() == "mpegts");
        if let Some(x264) = ffmpeg::encoder::find_by_name("libx264").filter(|_| h264) {
            return Ok(x264);
        }
        let file_name = c_string(&self.name);
        // SAFETY: the container is static and the string lives through the call.
        let id = codec::Id::from(unsafe {
            let video = ffi::AVMediaType::AVMEDIA_TYPE_VIDEO;
            ffi::av_guess_codec(self.container, std::ptr::null(), file_name.as_ptr(), std::ptr::null(), video)
        });
        ffmpeg::encoder::find(id).filter(|codec| codec.is_video()).ok_or_else(|| {
            let problem = format!("this FFmpeg cannot encode {} for it", id.name());
            Error::new(&self.name, problem, "choose another file name or --encoder")
        })
    }
}

/// Makes the file, or opens the pipe.
pub(crate) fn open_output(
    output: &Output,
    path: &str,
) -> std::result::Result<format::context::Output, ffmpeg::Error> {
    let url = c_string(path);
    let mut context = std::ptr::null_mut();
    // SAFETY: the container is static, the string lives through the calls that copy it, and `wrap` takes
    // the context over.
    unsafe {
        let null = std::ptr::null();
        check(ffi::avformat_alloc_output_context2(&mut context, output.container, null, url.as_ptr()))?;
        let mut wrapped = format::context::Output::wrap(context);
        let raw = &mut *wrapped.as_mut_ptr();
        // y4m above 8 bits, FLAC in MP4 and other widely read extensions.
        raw.strict_std_compliance = ffi::FF_COMPLIANCE_EXPERIMENTAL;
        // No numbers by chance (Matroska's UIDs): the same input gives the same file.
        raw.flags |= ffi::AVFMT_FLAG_BITEXACT;
        if output.container.flags & ffi::AVFMT_NOFILE == 0 {
            check(ffi::avio_open(&mut raw.pb, url.as_ptr(), ffi::AVIO_FLAG_WRITE))?;
        }
        Ok(wrapped)
    }
}

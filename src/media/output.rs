//! Output: name and container of the file to write, what the container holds according to FFmpeg, and its quirks when
//! it is written. Quirks of containers when they are read are in `demux/quirks.rs`.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::{fs, io};

use ffmpeg_next::ffi;
use ffmpeg_next::{self as ffmpeg, codec, format, media};
use tracing::warn;

use crate::error::{Error, ErrorKind, Result};
use crate::media::container::{container_name, guess_container, holds, holds_video, query};
use crate::media::ffmpeg::{c_string, check, protocol_of};
use crate::media::path::{
    Place, folder_of, is_taken, partial_path, publish, same_file, sync_folder, through_links, url_of,
};
use crate::media::pattern::Pattern;

/// Names of an output file.
#[derive(Clone)]
pub(crate) struct OutputPaths {
    /// Name as the user wrote it, which may be a link to `path`.
    pub named: PathBuf,
    /// Name of the complete file.
    pub path: PathBuf,
    /// Name of the file until it is complete.
    pub partial: PathBuf,
}

/// Name and container of an output, before anything is written.
#[derive(Clone)]
pub struct Output {
    pub(crate) name: String,
    /// `None` for standard output.
    pub(crate) paths: Option<OutputPaths>,
    pub(crate) container: &'static ffi::AVOutputFormat,
    sequence: Option<Pattern>,
    /// Whether it stands for the outputs of a live stream.
    is_live: bool,
    /// Whether the index goes to the start of the file, where the container has it at the end (FFmpeg's `+faststart`).
    pub faststart: bool,
}

// SAFETY: the container is a static of FFmpeg's, which nothing writes.
unsafe impl Send for Output {}

impl Output {
    /// Takes the name of a file, `-` for y4m on standard output, or an image sequence like `out/%06d.tif`. `input` must
    /// not be overwritten.
    pub fn new(name: impl AsRef<OsStr>, input: impl AsRef<OsStr>) -> Result<Output> {
        let (name, input) = (name.as_ref(), input.as_ref());
        let path = match Place::of_output(name) {
            Place::Standard => return Ok(Output::standard()),
            Place::File(path) => path,
            Place::Url(url) => match protocol_of(url) {
                None => Path::new(url),
                Some(protocol) => {
                    let problem = format!("is an address ({protocol})");
                    let error =
                        Error::new("the output", problem, "name a file; hasn relay sends to addresses");
                    return Err(error.with_kind(ErrorKind::Unsupported));
                }
            },
        };
        let name = path.to_string_lossy();
        if path.is_dir() {
            return Err(Error::new(name, "is a folder", "name a file in it"));
        }
        let unsupported = |problem| {
            let error = Error::new(&*name, problem, "use e.g. .mkv, .mp4, .mov, .png");
            error.with_kind(ErrorKind::Unsupported)
        };
        let container = guess_container(None, &name)
            .ok_or_else(|| unsupported("its extension names no container that FFmpeg writes"))?;
        if !holds_video(container) {
            return Err(unsupported("its extension is that of files without video"));
        }
        let is_still = container_name(container) == "image2";
        if container.flags & ffi::AVFMT_NOFILE != 0 && !is_still {
            let problem = format!("{} is more than one file", container_name(container));
            let remedy = "write e.g. .mp4, and divide it with ffmpeg -c copy; hasn relay writes playlists";
            return Err(Error::new(name, problem, remedy).with_kind(ErrorKind::Unsupported));
        }
        let sequence = if is_still { Pattern::parse(path)? } else { None };
        if let Some(sequence) = &sequence
            && sequence.may_overwrite(input)?
        {
            let problem = "would overwrite the input";
            return Err(Error::new(name, problem, "give the output another name or folder"));
        }
        let (named, path) = (path, &through_links(path));
        let partial = partial_path(path);
        let input = Place::of(input).path().unwrap_or(Path::new(""));
        for written in [path, &partial] {
            if same_file(input, written) {
                let problem = format!("{} is the input itself", written.display());
                return Err(Error::new(name, problem, "give the output another name"));
            }
        }
        match fs::metadata(path) {
            Ok(existing) if !existing.is_file() => {
                return Err(Error::new(name, "is not a regular file", "choose another name"));
            }
            _ => {}
        }
        let (name, paths) = (
            name.into_owned(),
            Some(OutputPaths { named: named.to_owned(), path: path.to_owned(), partial }),
        );
        Ok(Output { name, paths, container, sequence, is_live: false, faststart: false })
    }

    fn standard() -> Output {
        let container = guess_container(Some(c"yuv4mpegpipe"), "").expect("FFmpeg always has y4m");
        let name = "standard output".into();
        Output { name, paths: None, container, sequence: None, is_live: false, faststart: false }
    }

    /// Stands for all outputs of a live stream when its encoder is opened: each has a container of its own, and this one
    /// takes every codec that they take.
    pub fn live() -> Output {
        let container = guess_container(Some(c"matroska"), "").expect("FFmpeg always has Matroska");
        Output {
            name: "live".into(),
            paths: None,
            container,
            sequence: None,
            is_live: true,
            faststart: false,
        }
    }

    /// Fails if the folder of the file is missing; those of image sequences are created.
    pub fn check_folder(&self) -> Result<()> {
        let folder = self.path().map_or(Path::new("."), folder_of);
        if folder.is_dir() || self.sequence.is_some() {
            return Ok(());
        }
        let remedy = "create it, or check the name";
        let error = Error::new(folder.to_string_lossy(), "there is no such folder", remedy);
        Err(error.with_kind(ErrorKind::NotFound))
    }

    /// Fails if a file would be overwritten; a partial file may be the journal's own, from an earlier attempt.
    pub fn check_free(&self, owns_partial: bool) -> Result<()> {
        let Some(OutputPaths { named, path, partial }) = &self.paths else { return Ok(()) };
        for (existing, remedy) in [
            (named, "-y overwrites it, or give another name"),
            (path, "-y overwrites it, or give another name"),
            (partial, "an earlier run left it: move it away, or -y overwrites it"),
        ] {
            if is_taken(existing) && !(owns_partial && existing == partial) {
                return Err(Error::new(existing.to_string_lossy(), "already exists", remedy)
                    .with_kind(ErrorKind::Exists));
            }
        }
        Ok(())
    }

    /// The same output with its partial file in `folder`, to try whether the container takes the streams.
    #[must_use]
    pub fn trial(&self, folder: &Path) -> Output {
        let paths = self.paths.as_ref().map(|paths| {
            let mut name = OsString::from(".writing-");
            name.push(paths.path.file_name().unwrap_or_default());
            OutputPaths { partial: folder.join(name), ..paths.clone() }
        });
        Output { paths, ..self.clone() }
    }

    /// Renames the complete partial file to the output's name. Without `overwrite`, a file that has appeared there stays.
    pub fn publish(&self, overwrite: bool) -> Result<()> {
        let Some(OutputPaths { path, partial, .. }) = &self.paths else { return Ok(()) };
        publish(partial, path, overwrite).map_err(|e| {
            let complete = format!("the complete output is in {}", partial.display());
            let (problem, remedy) = match e.kind() {
                io::ErrorKind::AlreadyExists => (
                    "appeared while it was being encoded and is left as it is".to_owned(),
                    format!("{complete}: rename it, or run again with -y"),
                ),
                _ => (format!("cannot be renamed: {e}"), complete),
            };
            Error::new(&self.name, problem, remedy).caused_by(e)
        })?;
        if let Err(e) = sync_folder(folder_of(path)) {
            warn!("{}: its name cannot be synced to the disk: {e}", self.name);
        }
        Ok(())
    }

    /// Name of the output, as the user wrote it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Path of the complete file; `None` for standard output.
    pub fn path(&self) -> Option<&Path> {
        self.paths.as_ref().map(|paths| paths.path.as_path())
    }

    /// Path of the file until it is complete; `None` for standard output.
    pub fn partial(&self) -> Option<&Path> {
        self.paths.as_ref().map(|paths| paths.partial.as_path())
    }

    /// FFmpeg's name of the container.
    pub fn container(&self) -> &'static str {
        container_name(self.container)
    }

    /// Names of the files of an image sequence.
    pub fn sequence(&self) -> Option<&Pattern> {
        self.sequence.as_ref()
    }

    /// FFmpeg's name of the container; `None` where it is one of several.
    pub(crate) fn container_alone(&self) -> Option<&'static str> {
        (!self.is_live).then(|| self.container())
    }

    pub(crate) fn is_y4m(&self) -> bool {
        self.container() == "yuv4mpegpipe"
    }

    /// Whether the output is an image, or a sequence of images.
    pub fn is_still(&self) -> bool {
        self.container() == "image2"
    }

    /// Whether the output is one image.
    pub fn is_one_image(&self) -> bool {
        self.is_still() && self.sequence.is_none()
    }

    /// Whether the video is encoded in segments: in every video file that can be joined from them.
    pub fn is_segmented(&self) -> bool {
        self.paths.is_some()
            && !matches!(self.container(), "image2" | "yuv4mpegpipe" | "gif" | "apng" | "webp")
    }

    /// Whether the codec header is apart from the packets.
    pub(crate) fn wants_global_header(&self) -> bool {
        self.container.flags & ffi::AVFMT_GLOBALHEADER != 0
    }

    /// Whether the container is of the MP4 family: it has edit lists, and a packet's duration there is the distance to
    /// the next dts.
    pub(crate) fn is_mp4_family(&self) -> bool {
        matches!(self.container(), "mp4" | "mov" | "ipod" | "3gp" | "3g2" | "psp" | "ismv" | "f4v")
    }

    /// Whether the container has timestamps: AVI, MXF, GXF, Ogg's Theora and y4m only count frames.
    pub(crate) fn has_timestamps(&self) -> bool {
        !matches!(self.container(), "avi" | "mxf" | "mxf_opatom" | "gxf" | "yuv4mpegpipe" | "ogg" | "ogv")
    }

    /// Whether the container shows frames at equal distances only. AVI marks frames that are missing, but not where frames
    /// are reordered; Theora repeats frames.
    pub fn only_counts_frames(&self) -> bool {
        !self.has_timestamps() && !self.counts_in_codec()
    }

    /// Whether the container's timestamps count the frames of the codec's header, as Ogg's of Theora do.
    pub(crate) fn counts_in_codec(&self) -> bool {
        matches!(self.container(), "ogg" | "ogv")
    }

    /// Whether FFmpeg can read back what it writes: it cannot read animated WebP, nor samples without a header.
    pub(crate) fn is_readable(&self) -> bool {
        !matches!(self.container(), "webp" | "rawvideo")
    }

    /// Whether streams of this kind and codec can be copied into the container and read back.
    pub(crate) fn holds(&self, medium: media::Type, id: codec::Id) -> bool {
        !self.is_still() && !self.is_y4m() && holds(self.container, medium, id)
    }

    /// The codec tag of encoded video, where it is not the one that FFmpeg chooses: Apple's players take `hvc1` alone.
    pub(crate) fn codec_tag(&self, id: codec::Id) -> Option<u32> {
        let is_hevc = id == codec::Id::HEVC && matches!(self.container(), "mp4" | "mov" | "ipod");
        is_hevc.then_some(u32::from_le_bytes(*b"hvc1"))
    }

    /// Whether FFmpeg 5.1 to 6 write a display matrix into the container.
    pub fn holds_display_matrix(&self) -> bool {
        self.is_mp4_family()
    }

    /// Whether alpha of the codec gets into the file: that of VP8 and VP9 is apart from the frames, and only Matroska has a
    /// place for it.
    pub(crate) fn holds_alpha(&self, id: codec::Id) -> bool {
        !matches!(id, codec::Id::VP8 | codec::Id::VP9) || matches!(self.container(), "matroska" | "webm")
    }

    /// Whether the muxer takes a packet without payload for the side data that it carries: NUT's writes it as a packet.
    pub(crate) fn takes_side_data_alone(&self) -> bool {
        self.container() != "nut"
    }

    /// Whether FFmpeg's muxer writes another codec header in the middle of a stream.
    pub(crate) fn holds_header_changes(&self) -> bool {
        matches!(self.container(), "flv" | "mpegts" | "nut")
    }

    /// Whether the container holds a cover image. FFmpeg writes none into MOV.
    pub(crate) fn holds_cover(&self, id: codec::Id) -> bool {
        let is_known = matches!(id, codec::Id::MJPEG | codec::Id::PNG | codec::Id::BMP);
        is_known && matches!(self.container(), "mp4" | "ipod" | "matroska")
    }

    /// Whether the container holds video of this codec. The muxer of images takes any.
    pub(crate) fn takes(&self, id: codec::Id) -> bool {
        self.is_still() || holds(self.container, media::Type::Video, id)
    }

    /// Chooses the video encoder: libx264 where the container holds H.264, else the container's default.
    pub(crate) fn default_encoder(&self) -> Result<ffmpeg::Codec> {
        let h264 =
            !self.is_still() && (query(self.container, codec::Id::H264) == 1 || self.container() == "mpegts");
        let named = match self.container() {
            _ if h264 => Some("libx264"),
            // FFmpeg's default puts all frames into one packet.
            "webp" => Some("libwebp"),
            _ => None,
        };
        if let Some(encoder) = named.and_then(ffmpeg::encoder::find_by_name) {
            return Ok(encoder);
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
                .with_kind(ErrorKind::Unsupported)
        })
    }
}

/// Creates the file, or opens the pipe.
pub(crate) fn open_output(output: &Output) -> std::result::Result<format::context::Output, ffmpeg::Error> {
    let url = output.partial().map_or(c"pipe:1".into(), url_of);
    let mut context = std::ptr::null_mut();
    // SAFETY: the container is static, the string lives through the calls that copy it, and `wrap` takes
    // the context over.
    unsafe {
        let null = std::ptr::null();
        check(ffi::avformat_alloc_output_context2(&mut context, output.container, null, url.as_ptr()))?;
        let mut wrapped = format::context::Output::wrap(context);
        let raw = &mut *wrapped.as_mut_ptr();
        // Allows y4m above 8-bit, FLAC in MP4 and other extensions that are widely read.
        raw.strict_std_compliance = ffi::FF_COMPLIANCE_EXPERIMENTAL;
        // No random numbers (Matroska's UIDs): the same input gives the same file.
        raw.flags |= ffi::AVFMT_FLAG_BITEXACT;
        if output.container.flags & ffi::AVFMT_NOFILE == 0 {
            check(ffi::avio_open(&mut raw.pb, url.as_ptr(), ffi::AVIO_FLAG_WRITE))?;
        }
        Ok(wrapped)
    }
}

//! Mux: encoded pictures and copied packets become a file, which gets its name only when it is whole.

use std::ffi::CStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use ffmpeg_next::ffi;
use ffmpeg_next::{self as ffmpeg, Rational, Rescale, codec, format, media};
use tracing::{debug, warn};

use super::encode::Encoder;
use super::input::Input;
use super::side::copy_entries;
use super::{Coded, Trim, c_string, check};
use crate::error::{Error, Result};

/// Where the output goes and in what container, before anything is written.
pub struct Output {
    name: String,
    /// The name it gets at the end, and the one it has until then; `None` for standard output.
    paths: Option<(PathBuf, PathBuf)>,
    container: &'static ffi::AVOutputFormat,
}

impl Output {
    /// A file, or `-` for y4m on standard output. What is there already is replaced only if `overwrite`.
    pub fn new(name: &str, input: &str, overwrite: bool) -> Result<Output> {
        if name == "-" {
            let container = guess_container(Some(c"yuv4mpegpipe"), "").expect("FFmpeg always has y4m");
            return Ok(Output { name: "standard output".into(), paths: None, container });
        }
        let path = PathBuf::from(name);
        let container = guess_container(None, name).ok_or_else(|| {
            Error::new(
                name,
                "its ending names no container that FFmpeg writes",
                "use e.g. .mkv, .mp4, .mov, .png",
            )
        })?;
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
        for (existing, remedy) in [
            (&path, "-y overwrites it, or give another name"),
            (&partial, "it is left of an earlier run: move it away, or -y overwrites it"),
        ] {
            if existing.exists() && !overwrite {
                return Err(Error::new(existing.to_string_lossy(), "is there already", remedy));
            }
        }
        Ok(Output { name: name.to_owned(), paths: Some((path, partial)), container })
    }

    /// As the user wrote it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The name the file has until it is whole.
    pub fn partial(&self) -> Option<&Path> {
        self.paths.as_ref().map(|(_, partial)| partial.as_path())
    }

    /// FFmpeg's name of the container.
    pub fn container(&self) -> &'static str {
        // SAFETY: names of containers are static C strings.
        unsafe { CStr::from_ptr(self.container.name) }.to_str().expect("container names are ASCII")
    }

    fn is_y4m(&self) -> bool {
        self.container() == "yuv4mpegpipe"
    }

    fn is_still(&self) -> bool {
        self.container() == "image2"
    }

    /// Whether encoders are cut into segments: in every file of video that can be joined from them.
    pub(super) fn is_cut(&self) -> bool {
        self.paths.is_some()
            && !matches!(self.container(), "image2" | "yuv4mpegpipe" | "gif" | "apng" | "webp")
    }

    pub(super) fn wants_global_header(&self) -> bool {
        self.container.flags & ffi::AVFMT_GLOBALHEADER != 0
    }

    /// The MP4 family: a length there is from one decoding time to the next.
    pub(super) fn has_lengths_by_coding(&self) -> bool {
        matches!(self.container(), "mp4" | "mov" | "ipod" | "3gp" | "3g2" | "psp" | "ismv" | "f4v")
    }

    /// AVI, MXF and y4m count pictures instead of telling times.
    fn has_times(&self) -> bool {
        !matches!(self.container(), "avi" | "mxf" | "mxf_opatom" | "gxf" | "yuv4mpegpipe")
    }

    /// FFmpeg's answer whether the container holds a codec: 1 yes, 0 no, below 0 not known.
    fn query(&self, id: codec::Id) -> i32 {
        // SAFETY: the container is static.
        unsafe { ffi::avformat_query_codec(self.container, id.into(), ffi::FF_COMPLIANCE_EXPERIMENTAL) }
    }

    pub(super) fn takes(&self, id: codec::Id) -> bool {
        self.query(id) != 0
    }

    pub(super) fn default_encoder(&self) -> Result<ffmpeg::Codec> {
        // The muxer of still pictures holds any codec.
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

fn guess_container(short_name: Option<&CStr>, file_name: &str) -> Option<&'static ffi::AVOutputFormat> {
    let file_name = c_string(file_name);
    let short_name = short_name.map_or(std::ptr::null(), CStr::as_ptr);
    // SAFETY: the strings live through the call; containers are static.
    unsafe { ffi::av_guess_format(short_name, file_name.as_ptr(), std::ptr::null()).as_ref() }
}

/// `film.mkv` -> `film.partial.mkv`: the ending stays, so that players open it.
fn partial_path(path: &Path) -> PathBuf {
    let mut name = path.file_stem().unwrap_or_default().to_owned();
    name.push(".partial");
    if let Some(extension) = path.extension() {
        name.push(".");
        name.push(extension);
    }
    path.with_file_name(name)
}

fn same_file(a: &Path, b: &Path) -> bool {
    matches!((fs::canonicalize(a), fs::canonicalize(b)), (Ok(a), Ok(b)) if a == b)
}

/// An output whose header is written.
pub struct Muxer {
    context: format::context::Output,
    output: Output,
    /// Input stream -> output stream, for those that are written.
    streams: Vec<Option<usize>>,
    last_dts: Vec<Option<i64>>,
    trim: Trim,
    video: usize,
    /// What y4m asks of every picture's time.
    constant_rate: Option<Rational>,
    first_pts: Option<i64>,
    pictures: u64,
    /// Where the last written picture ends, and where the input began.
    end_us: i64,
    start_us: i64,
    left_out: Vec<String>,
    finished: bool,
}

impl Muxer {
    /// Writes the header: the encoder's stream in its place among the copied ones.
    pub fn create(output: Output, input: &Input, encoder: &Encoder, trim: Trim) -> Result<Muxer> {
        let path = output.partial().map_or("pipe:1".into(), |path| path.to_string_lossy().into_owned());
        let context = open_output(&output, &path).map_err(|e| {
            Error::new(
                &path,
                format!("cannot be written: {e}"),
                "check the folder, its permissions and free space",
            )
        })?;
        let mut muxer = Muxer {
            context,
            streams: Vec::new(),
            last_dts: Vec::new(),
            trim,
            video: input.video_index(),
            constant_rate: output.is_y4m().then_some(encoder.video().frame_rate),
            first_pts: None,
            pictures: 0,
            end_us: trim.from_us.max(input.start_us()),
            start_us: input.start_us(),
            left_out: Vec::new(),
            finished: false,
            output,
        };
        for stream in input.context().streams() {
            let index = if stream.index() == muxer.video {
                Some(muxer.add_encoded(&stream, encoder)?)
            } else {
                muxer.add_copied(&stream)?
            };
            muxer.streams.push(index);
        }
        if !muxer.output.is_still() && !muxer.output.is_y4m() {
            muxer.copy_chapters(input)?;
        }
        let mut options = ffmpeg::Dictionary::new();
        if muxer.output.is_still() {
            // The name is taken as it is, whatever digits and % it has.
            options.set("update", "1");
        }
        muxer.context.write_header_with(options).map_err(|e| {
            let problem = format!("{} takes no header for these streams: {e}", muxer.output.container());
            Error::new(
                &muxer.output.name,
                problem,
                "choose another container, e.g. .mkv, or another --encoder",
            )
        })?;
        muxer.last_dts = vec![None; muxer.context.nb_streams() as usize];
        Ok(muxer)
    }

    fn add_encoded(&mut self, stream: &ffmpeg::Stream, encoder: &Encoder) -> Result<usize> {
        let failed =
            |e: ffmpeg::Error| Error::new(&self.output.name, e.to_string(), "choose another container");
        let rate = encoder.video().frame_rate;
        let time_base = if self.output.has_times() { encoder.video().time_base } else { rate.invert() };
        let mut added = self.context.add_stream_with(encoder.context()).map_err(failed)?;
        added.set_time_base(time_base);
        added.set_avg_frame_rate(rate);
        added.set_metadata(stream.metadata().to_owned());
        // SAFETY: both streams are alive.
        unsafe {
            let raw = added.as_mut_ptr();
            (*raw).disposition = (*stream.as_ptr()).disposition;
            (*raw).sample_aspect_ratio = encoder.sample_aspect().into();
        }
        encoder.side().write(stream, &mut added);
        Ok(added.index())
    }

    /// Adds a stream to be copied, or notes that the container cannot hold it.
    fn add_copied(&mut self, stream: &ffmpeg::Stream) -> Result<Option<usize>> {
        let parameters = stream.parameters();
        let (medium, id) = (parameters.medium(), parameters.id());
        let holds = match self.output.query(id) {
            _ if self.output.is_still() || self.output.is_y4m() => false,
            1 => true,
            0 => false,
            // A container without a list of codecs holds at least the kinds it has a usual codec for.
            _ => match medium {
                media::Type::Audio => self.output.container.audio_codec != ffi::AVCodecID::AV_CODEC_ID_NONE,
                media::Type::Video => !matches!(self.output.container(), "gif" | "apng" | "webp"),
                _ => false,
            },
        };
        let attachment = medium == media::Type::Attachment && self.output.container().starts_with("matroska");
        if !holds && !attachment {
            let kind = format!("{medium:?}").to_lowercase();
            let left_out = format!("stream {} ({kind}, {})", stream.index(), id.name());
            warn!("{}: {} cannot hold {left_out}; it is left out", self.output.name, self.output.container());
            self.left_out.push(left_out);
            return Ok(None);
        }
        let failed =
            |e: ffmpeg::Error| Error::new(&self.output.name, e.to_string(), "choose another container");
        let mut added = self.context.add_stream(ffmpeg::encoder::find(codec::Id::None)).map_err(failed)?;
        added.set_parameters(parameters);
        added.set_time_base(stream.time_base());
        added.set_metadata(stream.metadata().to_owned());
        // SAFETY: both streams are alive. The tag is another container's word for the codec.
        unsafe {
            let raw = added.as_mut_ptr();
            (*(*raw).codecpar).codec_tag = 0;
            (*raw).disposition = (*stream.as_ptr()).disposition;
        }
        copy_entries(stream, &mut added);
        Ok(Some(added.index()))
    }

    fn copy_chapters(&mut self, input: &Input) -> Result<()> {
        self.context.set_metadata(input.context().metadata().to_owned());
        let offset_us = self.trim.offset_us();
        // Numbered anew: FFmpeg's wrapper would join chapters of one number.
        for (id, chapter) in (0..).zip(input.context().chapters()) {
            let time_base = chapter.time_base();
            let us = |time: i64| time.rescale(time_base, Rational(1, 1_000_000));
            let (start, end) =
                (us(chapter.start()).max(self.trim.from_us), us(chapter.end()).min(self.trim.to_us));
            if start > end {
                continue;
            }
            let (start, end) = (start - offset_us, end - offset_us);
            let title = chapter.metadata().get("title").unwrap_or_default().to_owned();
            let mut added = self
                .context
                .add_chapter(id, Rational(1, 1_000_000), start, end, title)
                .map_err(|e| Error::new(&self.output.name, format!("takes no chapters: {e}"), "use .mkv"))?;
            for (key, value) in chapter.metadata().iter() {
                added.set_metadata(key, value);
            }
        }
        Ok(())
    }

    /// Ends the copied streams where the pictures end: what follows belongs to whoever goes on from there.
    pub fn cut_here(&mut self) {
        self.trim.to_us = self.end_us;
    }

    /// Written pictures.
    pub fn pictures(&self) -> u64 {
        self.pictures
    }

    /// Seconds of the input up to the end of the last written picture: what `--from` takes to go on.
    pub fn reached_s(&self) -> f64 {
        (self.end_us - self.start_us) as f64 / 1e6
    }

    /// Streams that the container cannot hold, for the report.
    pub fn left_out(&self) -> &[String] {
        &self.left_out
    }

    /// Writes a packet, unless its stream is left out or it lies outside of the wanted part.
    pub fn write(&mut self, coded: Coded) -> Result<()> {
        let Coded { mut packet, stream, time_base } = coded;
        let Some(index) = self.streams.get(stream).copied().flatten() else { return Ok(()) };
        let is_video = stream == self.video;
        let time = packet.pts().or(packet.dts());
        if is_video {
            let pts = packet.pts().expect("encoded pictures have times");
            self.check_picture(pts, time_base)?;
            self.end_us =
                self.end_us.max((pts + packet.duration()).rescale(time_base, Rational(1, 1_000_000)));
        } else if (packet.size() == 0 && packet.side_data().next().is_none())
            || time.is_some_and(|t| !self.trim.holds(t.rescale(time_base, Rational(1, 1_000_000))))
        {
            return Ok(());
        }
        let offset = self.trim.offset_us().rescale(Rational(1, 1_000_000), time_base);
        packet.set_pts(packet.pts().map(|pts| pts - offset));
        packet.set_dts(packet.dts().or(packet.pts().map(|pts| pts + offset)).map(|dts| dts - offset));
        packet.rescale_ts(time_base, self.context.stream(index).expect("an added stream").time_base());
        self.keep_rising(&mut packet, index);
        packet.set_stream(index);
        packet.set_position(-1);
        packet.write(&mut self.context).map(drop).map_err(|e| self.failed(e))
    }

    /// What some containers ask of pictures.
    fn check_picture(&mut self, pts: i64, time_base: Rational) -> Result<()> {
        let first = *self.first_pts.get_or_insert(pts);
        self.pictures += 1;
        if self.output.is_still() && self.pictures > 1 {
            let problem = "holds one picture, and the input has more";
            return Err(Error::new(
                &self.output.name,
                problem,
                "name a video file, or choose one with --from and --to",
            ));
        }
        if let Some(rate) = self.constant_rate {
            let pictures = (pts - first) as f64 * f64::from(time_base) * f64::from(rate);
            if (pictures - (self.pictures - 1) as f64).abs() > 0.5 {
                let problem = format!(
                    "y4m has one frame rate, and picture {} is not where {rate} puts it",
                    self.pictures - 1
                );
                return Err(Error::new(&self.output.name, problem, "write to a file, e.g. .mkv"));
            }
        }
        Ok(())
    }

    /// Containers refuse a dts that goes back, most of them also one that stays; sources have both. Where it
    /// may stay (TrueHD's packets are shorter than Matroska's ticks, signs of subtitles begin together) it
    /// does, or the stream would drift.
    fn keep_rising(&mut self, packet: &mut ffmpeg::Packet, index: usize) {
        let stream = self.context.stream(index).expect("an added stream");
        let may_stay = self.output.container.flags & ffi::AVFMT_TS_NONSTRICT != 0
            || matches!(stream.parameters().medium(), media::Type::Subtitle | media::Type::Data);
        let last = &mut self.last_dts[index];
        if let (Some(dts), Some(before)) = (packet.dts(), *last)
            && (dts < before || (dts == before && !may_stay))
        {
            let least = before + i64::from(!may_stay);
            debug!("stream {index}: dts {dts} does not follow {before} and is moved");
            packet.set_dts(Some(least));
            packet.set_pts(packet.pts().map(|pts| pts.max(least)));
        }
        *last = packet.dts().or(*last);
    }

    fn failed(&self, error: ffmpeg::Error) -> Error {
        let name = self
            .output
            .partial()
            .map_or(self.output.name.clone(), |path| path.to_string_lossy().into_owned());
        let remedy = match error {
            ffmpeg::Error::Other { errno: ffmpeg::error::ENOSPC } => {
                "free some space there, or write elsewhere"
            }
            ffmpeg::Error::Other { errno: ffmpeg::error::EPIPE } => {
                "the reader has gone: look at its own errors"
            }
            _ => "check the disk, or choose another container",
        };
        Error::new(name, format!("cannot be written: {error}"), remedy)
    }

    /// Ends the file as one that players open, still under its partial name.
    pub fn finish(&mut self) -> Result<()> {
        self.context.write_trailer().map_err(|e| self.failed(e))?;
        // SAFETY: the context is alive; pb is null for containers that open files themselves.
        let code = unsafe {
            let pb = (*self.context.as_mut_ptr()).pb;
            if !pb.is_null() {
                ffi::avio_flush(pb);
            }
            pb.as_ref().map_or(0, |pb| pb.error)
        };
        check(code).map_err(|e| self.failed(e))?;
        if let Some(partial) = self.output.partial() {
            let synced = File::open(partial).and_then(|file| file.sync_all());
            synced.map_err(|e| Error::new(partial.to_string_lossy(), e.to_string(), "check the disk"))?;
        }
        self.finished = true;
        Ok(())
    }

    /// Gives a finished file its name.
    pub fn publish(self) -> Result<()> {
        assert!(self.finished, "only whole files get their name");
        let Some((path, partial)) = &self.output.paths else { return Ok(()) };
        fs::rename(partial, path).map_err(|e| {
            let remedy = format!("the whole result is in {}", partial.display());
            Error::new(&self.output.name, format!("cannot be named so: {e}"), remedy)
        })
    }

    /// The finished file under its partial name, for a run that did not come to its end.
    pub fn keep_partial(&self) -> Option<PathBuf> {
        assert!(self.finished, "an interrupted file is ended as well");
        self.output.paths.clone().map(|(_, partial)| partial)
    }
}

impl Drop for Muxer {
    fn drop(&mut self) {
        if let (false, Some(partial)) = (self.finished, self.output.partial()) {
            // Nothing to be done if this fails: the error that led here is the one to tell.
            let _ = fs::remove_file(partial);
        }
    }
}

fn open_output(output: &Output, path: &str) -> std::result::Result<format::context::Output, ffmpeg::Error> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partial_file_keeps_the_ending_that_players_know() {
        assert_eq!(partial_path(Path::new("a/film.4k.mkv")), Path::new("a/film.4k.partial.mkv"));
        assert_eq!(partial_path(Path::new("film")), Path::new("film.partial"));
    }
}

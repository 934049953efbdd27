//! Mux: encoded frames and copied packets become a file, which gets its name only when it is whole.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use ffmpeg_next::ffi;
use ffmpeg_next::packet::Ref;
use ffmpeg_next::{self as ffmpeg, Rational, Rescale, codec, format, media};
use tracing::debug;

use crate::error::{Error, Result};
use crate::media::demux::input::Input;
use crate::media::encode::encoder::Encoder;
use crate::media::ffmpeg::{MICROSECONDS, check, failure};
use crate::media::mux::streams::{Plan, Way, attach_cover, copy_chapters, copy_programs, cover_packet};
use crate::media::mux::verify::{self, StreamSummary, Verification};
use crate::media::output::{Output, open_output};
use crate::media::packet::Packet;
use crate::media::side_data::copy_entries;
use crate::media::stream::{Trim, metadata, tag};

/// An output whose header is written.
pub struct Muxer {
    context: format::context::Output,
    output: Output,
    /// Input stream -> output stream, for those that are written.
    streams: Vec<Option<usize>>,
    last_dts: Vec<Option<i64>>,
    /// By output stream, for the proof at the end.
    written: Vec<StreamSummary>,
    /// By output stream.
    unsaid_delay_us: Vec<i64>,
    /// What all times are moved back by.
    offset_us: i64,
    trim: Trim,
    video: usize,
    /// What y4m asks of every frame's time.
    constant_rate: Option<Rational>,
    first_pts: Option<i64>,
    frames: u64,
    /// Where the last written frame ends, and where the input began.
    end_us: i64,
    start_us: i64,
    /// Frames beside the video, and where they go.
    covers: Vec<(usize, ffmpeg::Packet)>,
    left_out: Vec<String>,
    converted: Vec<String>,
    finished: bool,
}

impl Muxer {
    /// Writes the header: the encoder's stream in its place among the copied ones.
    pub fn create(
        output: Output,
        input: &Input,
        encoder: &Encoder,
        trim: Trim,
        plan: &Plan,
    ) -> Result<Muxer> {
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
            written: Vec::new(),
            unsaid_delay_us: Vec::new(),
            offset_us: offset_us(&output, input, encoder, trim),
            trim,
            video: input.video_index(),
            constant_rate: output.is_y4m().then_some(encoder.video().frame_rate),
            first_pts: None,
            frames: 0,
            end_us: trim.from_us.max(input.start_us()),
            start_us: input.start_us(),
            covers: Vec::new(),
            left_out: plan.left_out.clone(),
            converted: plan.converted.clone(),
            finished: false,
            output,
        };
        muxer.streams = vec![None; input.context().nb_streams() as usize];
        for &(index, way) in &plan.lanes {
            let stream = input.context().stream(index).expect("planned by the input");
            let added = match way {
                Way::Upscale => muxer.add_encoded(&stream, encoder),
                Way::Copy => muxer.add_copied(&stream),
                Way::Convert => muxer.add_converted(&stream, plan.transcoders.context(index)),
                Way::Cover => muxer.add_cover(&stream),
            };
            let added = added
                .map_err(|e| Error::new(&muxer.output.name, e.to_string(), "choose another container"))?;
            // Covers are written with the header, once.
            muxer.streams[index] = (way != Way::Cover).then_some(added);
        }
        if !muxer.output.is_still() && !muxer.output.is_y4m() {
            copy_chapters(&mut muxer.context, input, &muxer.output, (trim, muxer.offset_us))?;
        }
        if muxer.output.container() == "mpegts" {
            copy_programs(&mut muxer.context, input, &muxer.streams);
        }
        let mut options = ffmpeg::Dictionary::new();
        if muxer.output.is_still() {
            // The name is taken as it is, whatever digits and % it has.
            options.set("update", "1");
        }
        if muxer.output.begins_fast && muxer.output.has_lengths_by_coding() {
            options.set("movflags", "+faststart");
        }
        muxer.context.write_header_with(options).map_err(|e| {
            let problem = format!("{} takes no header for these streams: {e}", muxer.output.container());
            Error::new(
                &muxer.output.name,
                problem,
                "choose another container, e.g. .mkv, or another --encoder",
            )
        })?;
        muxer.written = muxer.context.streams().map(|stream| StreamSummary::of(&stream)).collect();
        muxer.last_dts = vec![None; muxer.written.len()];
        muxer.unsaid_delay_us =
            muxer.context.streams().map(|stream| unsaid_delay_us(&stream, &muxer.output)).collect();
        for (index, mut cover) in std::mem::take(&mut muxer.covers) {
            cover.set_stream(index);
            cover.set_pts(Some(0));
            cover.set_dts(Some(0));
            cover.write(&mut muxer.context).map_err(|e| muxer.failed(e))?;
        }
        Ok(muxer)
    }

    fn add_encoded(
        &mut self,
        stream: &ffmpeg::Stream,
        encoder: &Encoder,
    ) -> std::result::Result<usize, ffmpeg::Error> {
        let rate = encoder.video().frame_rate;
        let time_base = if self.output.has_times() { encoder.video().time_base } else { rate.invert() };
        let mut added = self.context.add_stream_with(encoder.context())?;
        take_over(&mut added, stream, true);
        added.set_time_base(time_base);
        added.set_avg_frame_rate(rate);
        // SAFETY: the stream is alive.
        unsafe { (*added.as_mut_ptr()).sample_aspect_ratio = encoder.sample_aspect().into() };
        encoder.side().write(stream, &mut added);
        Ok(added.index())
    }

    fn add_copied(&mut self, stream: &ffmpeg::Stream) -> std::result::Result<usize, ffmpeg::Error> {
        let mut added = self.context.add_stream(ffmpeg::encoder::find(codec::Id::None))?;
        added.set_parameters(stream.parameters());
        // SAFETY: the stream is alive. The tag is another container's word for the codec.
        unsafe { (*(*added.as_mut_ptr()).codecpar).codec_tag = 0 };
        take_over(&mut added, stream, false);
        copy_entries(stream, &mut added);
        Ok(added.index())
    }

    fn add_converted(
        &mut self,
        stream: &ffmpeg::Stream,
        context: &codec::Context,
    ) -> std::result::Result<usize, ffmpeg::Error> {
        let mut added = self.context.add_stream_with(context)?;
        take_over(&mut added, stream, true);
        copy_entries(stream, &mut added);
        // SAFETY: the context is alive.
        added.set_time_base(unsafe { Rational::from((*context.as_ptr()).time_base) });
        Ok(added.index())
    }

    fn add_cover(&mut self, stream: &ffmpeg::Stream) -> std::result::Result<usize, ffmpeg::Error> {
        let cover = cover_packet(stream);
        let id = stream.parameters().id();
        let index = self.add_copied(stream)?;
        if self.output.container() != "matroska" {
            self.covers.push((index, cover));
            return Ok(index);
        }
        let mut added = self.context.stream_mut(index).expect("just added");
        attach_cover(&mut added, id, cover.data().unwrap_or_default());
        let (name, mime) = match id {
            codec::Id::PNG => ("cover.png", "image/png"),
            codec::Id::BMP => ("cover.bmp", "image/bmp"),
            _ => ("cover.jpg", "image/jpeg"),
        };
        let mut tags = metadata(stream, false);
        for (tag_key, key, value) in [(c"filename", "filename", name), (c"mimetype", "mimetype", mime)] {
            if tag(stream, tag_key).is_none() {
                tags.set(key, value);
            }
        }
        added.set_metadata(tags);
        Ok(index)
    }

    /// Ends the copied streams where the frames end: what follows belongs to whoever goes on from there.
    pub fn cut_here(&mut self) {
        self.trim.to_us = self.end_us;
    }

    /// Written frames.
    pub fn frames(&self) -> u64 {
        self.frames
    }

    /// Seconds of the input up to the end of the last written frame: what `--from` takes to go on.
    pub fn reached_s(&self) -> f64 {
        (self.end_us - self.start_us) as f64 / 1e6
    }

    /// Streams that the container cannot hold, for the report.
    pub fn left_out(&self) -> &[String] {
        &self.left_out
    }

    /// Streams whose codec it cannot hold, and what they became.
    pub fn converted(&self) -> &[String] {
        &self.converted
    }

    /// Writes a packet, unless its stream is left out or it lies outside of the wanted part.
    pub fn write(&mut self, coded: Packet) -> Result<()> {
        let Packet { mut packet, stream, time_base, .. } = coded;
        let Some(index) = self.streams.get(stream).copied().flatten() else { return Ok(()) };
        let is_video = stream == self.video;
        let time = packet.pts().or(packet.dts());
        if is_video {
            let pts = packet.pts().expect("encoded frames have times");
            self.check_frame(pts, time_base)?;
            self.end_us = self.end_us.max((pts + packet.duration()).rescale(time_base, MICROSECONDS));
        } else if self.is_hidden(&packet, time_base)
            || (packet.size() == 0 && packet.side_data().next().is_none())
            || time.is_some_and(|t| !self.trim.holds(t.rescale(time_base, MICROSECONDS)))
        {
            return Ok(());
        }
        let ahead_us = self.offset_us - self.unsaid_delay_us[index];
        let offset = ahead_us.rescale(MICROSECONDS, time_base);
        packet.set_pts(packet.pts().map(|pts| pts - offset));
        packet.set_dts(packet.dts().or(packet.pts().map(|pts| pts + offset)).map(|dts| dts - offset));
        let written_base = self.context.stream(index).expect("an added stream").time_base();
        packet.rescale_ts(time_base, written_base);
        self.keep_rising(&mut packet, index);
        // A packet without payload tells the muxer something and is not in the file.
        if packet.size() > 0 {
            self.written[index].count(&packet, written_base, self.unsaid_delay_us[index]);
        }
        packet.set_stream(index);
        packet.set_position(-1);
        packet.write(&mut self.context).map(drop).map_err(|e| self.failed(e))
    }

    /// Whether an edit list hides this packet and the output has none to hide it again. What audio needs to begin (AAC's
    /// first packet) lies just before the beginning, and stays.
    fn is_hidden(&self, packet: &ffmpeg::Packet, time_base: Rational) -> bool {
        const RUN_UP_US: i64 = 50_000;
        // SAFETY: the packet is alive.
        let is_marked = unsafe { (*packet.as_ptr()).flags & ffi::AV_PKT_FLAG_DISCARD != 0 };
        let us = packet.pts().map_or(0, |pts| pts.rescale(time_base, MICROSECONDS));
        is_marked && !self.output.has_lengths_by_coding() && !(-RUN_UP_US..0).contains(&us)
    }

    /// What some containers ask of frames.
    fn check_frame(&mut self, pts: i64, time_base: Rational) -> Result<()> {
        let first = *self.first_pts.get_or_insert(pts);
        self.frames += 1;
        if self.output.is_still() && self.frames > 1 {
            let problem = "holds one frame, and the input has more";
            return Err(Error::new(
                &self.output.name,
                problem,
                "name a video file, or choose one with --from and --to",
            ));
        }
        if let Some(rate) = self.constant_rate {
            let frames = (pts - first) as f64 * f64::from(time_base) * f64::from(rate);
            if (frames - (self.frames - 1) as f64).abs() > 0.5 {
                let problem = format!(
                    "y4m has one frame rate, and frame {} is not where {rate} puts it",
                    self.frames - 1
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
        failure(name, "cannot be written", error, remedy)
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

    /// Reads the finished file again; `None` for a pipe, which cannot be.
    pub fn verify(&self) -> Result<Option<Verification>> {
        let Some(partial) = self.output.partial().filter(|_| self.output.is_readable()) else {
            return Ok(None);
        };
        let video = self.streams[self.video].expect("the video is written");
        verify::verify(partial, &self.output, &self.written, video)
            .map(Some)
            .map_err(|problem| Error::new(partial.to_string_lossy(), problem, "choose another container"))
    }

    /// Gives a finished file its name.
    pub fn publish(self) -> Result<()> {
        assert!(self.finished, "only whole files get their name");
        let Some((path, partial)) = &self.output.paths else { return Ok(()) };
        fs::rename(partial, path).map_err(|e| {
            let remedy = format!("the whole result is in {}", partial.display());
            Error::new(&self.output.name, format!("cannot be named so: {e}"), remedy)
        })?;
        // The name is on the disk only after this; a file system that has no such thing is as good as it can be.
        let folder = path.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."));
        let _ = File::open(folder).and_then(|folder| folder.sync_all());
        Ok(())
    }

    /// The finished file under its partial name, for a run that did not come to its end.
    pub fn keep_partial(&self) -> Option<PathBuf> {
        assert!(self.finished, "an interrupted file is ended as well");
        self.output.paths.clone().map(|(_, partial)| partial)
    }
}

/// What lies before 0 the MP4 family does not show. Audio that an edit list hides before the first frame stays there.
fn offset_us(output: &Output, input: &Input, encoder: &Encoder, trim: Trim) -> i64 {
    let offset_us = trim.offset_us();
    let is_hidden = output.has_lengths_by_coding() && encoder.begin_us() < offset_us;
    if is_hidden { encoder.begin_us().min(input.start_us()) } else { offset_us }
}

/// Matroska's times are later by the codec's delay, which readers take off again. FFmpeg before 6.1 writes the delay of
/// Opus down and does not add it, so that its audio would come 6.5 ms too early.
fn unsaid_delay_us(stream: &ffmpeg::Stream, output: &Output) -> i64 {
    let is_matroska = matches!(output.container(), "matroska" | "webm");
    if cfg!(ffmpeg_6_1) || !is_matroska || stream.parameters().id() != codec::Id::OPUS {
        return 0;
    }
    // SAFETY: the stream is alive. Opus counts at 48 kHz, whatever it was made from (RFC 7845).
    let samples = unsafe { (*(*stream.as_ptr()).codecpar).initial_padding };
    i64::from(samples).rescale(Rational(1, 48_000), MICROSECONDS)
}

/// What is said of a stream, whoever coded it.
fn take_over(added: &mut format::stream::StreamMut, stream: &ffmpeg::Stream, is_coded_anew: bool) {
    added.set_time_base(stream.time_base());
    added.set_metadata(metadata(stream, is_coded_anew));
    // SAFETY: both streams are alive.
    unsafe {
        let raw = added.as_mut_ptr();
        (*raw).disposition = (*stream.as_ptr()).disposition;
        (*raw).id = (*stream.as_ptr()).id;
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

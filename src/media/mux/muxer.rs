//! Mux: encoded frames and copied packets become a file, which keeps a partial name until it is complete.

mod add;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::slice;

use ffmpeg_next::ffi;
use ffmpeg_next::packet::side_data::Type;
use ffmpeg_next::packet::{Mut, Ref};
use ffmpeg_next::{self as ffmpeg, Rational, Rescale, codec, format, media};
use tracing::{debug, warn};

use crate::error::{Error, ErrorKind, Result};
use crate::media::demux::input::Input;
use crate::media::encode::encoder::Encoder;
use crate::media::ffmpeg::{MICROSECONDS, check, failure};
use crate::media::mux::grid::Grid;
use crate::media::mux::metadata::{advance_timecodes, copy_programs, copy_tags_and_chapters};
use crate::media::mux::streams::{Plan, StreamAction};
use crate::media::mux::summary::StreamSummary;
use crate::media::mux::verify::{self, Verification};
use crate::media::output::{Output, open_output};
use crate::media::packet::{Packet, write_packet};
use crate::media::stream::Trim;
use crate::media::watch::Watch;

/// An output whose header is written.
pub struct Muxer {
    context: format::context::Output,
    output: Output,
    /// The file, opened before anything was written, so that its sync reports every write that failed; `None` for pipes,
    /// and for containers that open files themselves.
    file: Option<File>,
    /// Index in the output by index in the input, for the streams whose packets are written.
    output_index: Vec<Option<usize>>,
    written: Vec<WrittenStream>,
    /// Subtracted from all timestamps.
    offset_us: i64,
    trim: Trim,
    /// Index of the video in the input.
    video: usize,
    grid: Option<Grid>,
    frames: u64,
    /// End of the last written frame.
    end_us: i64,
    /// Start of the input.
    start_us: i64,
    /// Cover images, by index in the output.
    covers: Vec<(usize, ffmpeg::Packet)>,
    left_out: Vec<String>,
    converted: Vec<String>,
    finished: bool,
    /// Of the input: it ends the verification as well.
    watch: Watch,
}

/// A stream of the output.
struct WrittenStream {
    summary: StreamSummary,
    last_dts: Option<i64>,
    missing_delay_us: i64,
    /// Codec header of a copied stream, as the container has it.
    extradata: Option<Vec<u8>>,
    is_header_change_logged: bool,
}

impl Muxer {
    /// Creates the file and writes its header, with the streams of the plan in their order.
    pub fn create(
        output: Output,
        input: &Input,
        encoder: &Encoder,
        trim: Trim,
        plan: &Plan,
    ) -> Result<Muxer> {
        let path = output.partial().map_or("pipe:1".into(), |path| path.to_string_lossy().into_owned());
        let context = open_output(&output).map_err(|e| {
            failure(&path, "cannot be written", e, "check the folder, its permissions and free space")
        })?;
        // SAFETY: the context is alive.
        let has_file = unsafe { !(*context.as_ptr()).pb.is_null() };
        let file = output
            .partial()
            .filter(|_| has_file)
            .map(File::open)
            .transpose()
            .map_err(|e| Error::io(&path, e, "check the folder and its permissions"))?;
        let mut muxer = Muxer {
            context,
            file,
            output_index: vec![None; input.context().nb_streams() as usize],
            written: Vec::new(),
            offset_us: offset_us(&output, input, encoder, trim),
            trim,
            video: input.video_index(),
            grid: Grid::of(encoder.video()).filter(|_| output.has_timestamps()),
            frames: 0,
            end_us: trim.from_us.max(input.start_us()),
            start_us: input.start_us(),
            covers: Vec::new(),
            left_out: plan.left_out.clone(),
            converted: plan.converted.clone(),
            finished: false,
            watch: input.watch().clone(),
            output,
        };
        muxer.add_streams(input, encoder, plan)?;
        if !muxer.output.is_still() && !muxer.output.is_y4m() {
            copy_tags_and_chapters(&mut muxer.context, input, &muxer.output, trim, muxer.offset_us)?;
        }
        let (rate, before_us) = (encoder.video().frame_rate, encoder.start_us() - input.video_start_us());
        let frames_before = before_us.rescale(MICROSECONDS, rate.invert());
        advance_timecodes(&mut muxer.context, rate, i32::try_from(frames_before).unwrap_or(0));
        if let Some(added) = muxer.output_index[muxer.video] {
            encoder.side().write_timecode(&mut muxer.context.stream_mut(added).expect("an added stream"));
        }
        if muxer.output.container() == "mpegts" {
            copy_programs(&mut muxer.context, input, &muxer.output_index);
        }
        muxer.write_header(plan)?;
        Ok(muxer)
    }

    fn write_header(&mut self, plan: &Plan) -> Result<()> {
        let mut options = ffmpeg::Dictionary::new();
        if self.output.is_still() {
            // The name is not the pattern of a sequence, whatever digits and % it has.
            options.set("update", "1");
        }
        if self.output.faststart && self.output.is_mp4_family() {
            options.set("movflags", "+faststart");
        }
        self.context.write_header_with(options).map_err(|e| {
            let problem = format!("{} takes no header for these streams: {e}", self.output.container());
            let remedy = "choose another container, e.g. .mkv, or another --encoder";
            Error::new(&self.output.name, problem, remedy).with_kind(ErrorKind::Unsupported).with_source(e)
        })?;
        let written = |stream: ffmpeg::Stream| WrittenStream {
            summary: StreamSummary::of(&stream),
            last_dts: None,
            missing_delay_us: missing_delay_us(&stream, &self.output),
            extradata: None,
            is_header_change_logged: false,
        };
        self.written = self.context.streams().map(written).collect();
        for copied in plan.mappings.iter().filter(|mapping| mapping.action == StreamAction::Copy) {
            let index = self.output_index[copied.input_index].expect("it is written");
            let stream = self.context.stream(index).expect("an added stream");
            self.written[index].extradata = extradata(&stream);
        }
        for (index, mut cover) in std::mem::take(&mut self.covers) {
            cover.set_stream(index);
            cover.set_pts(Some(0));
            cover.set_dts(Some(0));
            write_packet(&cover, &mut self.context).map_err(|e| self.failed(e))?;
        }
        Ok(())
    }

    /// Ends the copied streams where the video ends: a run that resumes there writes what follows.
    pub fn end_at_video(&mut self) {
        self.trim.to_us = self.end_us;
    }

    /// Number of written frames.
    pub fn frames(&self) -> u64 {
        self.frames
    }

    /// Seconds of the input up to the end of the last written frame: the `--from` with which to resume.
    pub fn reached_s(&self) -> f64 {
        (self.end_us - self.start_us) as f64 / 1e6
    }

    /// Streams that the container cannot hold.
    pub fn left_out(&self) -> &[String] {
        &self.left_out
    }

    /// Conversions of streams whose codec the container cannot hold.
    pub fn converted(&self) -> &[String] {
        &self.converted
    }

    /// Writes a packet, unless its stream is left out or it lies outside of the wanted part.
    pub fn write(&mut self, packet: Packet) -> Result<()> {
        let Packet { mut packet, stream, mut time_base, .. } = packet;
        let Some(index) = self.output_index.get(stream).copied().flatten() else { return Ok(()) };
        self.drop_codec_header(&mut packet, index);
        let is_video = stream == self.video;
        let time = packet.pts().or(packet.dts());
        if is_video {
            let pts = packet.pts().expect("encoded frames have timestamps");
            self.check_frame()?;
            self.end_us = self.end_us.max((pts + packet.duration()).rescale(time_base, MICROSECONDS));
            if let Some(grid) = &mut self.grid {
                grid.place(&mut packet);
                time_base = grid.time_base();
            }
        } else if self.is_hidden(&packet, time_base)
            || self.cannot_start(&packet, index)
            || (packet.size() == 0
                && !(self.output.takes_side_data_alone() && packet.side_data().next().is_some()))
            || time.is_some_and(|t| !self.trim.contains(t.rescale(time_base, MICROSECONDS)))
        {
            return Ok(());
        }
        let delay_us = self.written[index].missing_delay_us;
        let offset = (self.offset_us - delay_us).rescale(MICROSECONDS, time_base);
        packet.set_pts(packet.pts().map(|pts| pts - offset));
        packet.set_dts(packet.dts().or(packet.pts().map(|pts| pts + offset)).map(|dts| dts - offset));
        let output_base = self.context.stream(index).expect("an added stream").time_base();
        packet.rescale_ts(time_base, output_base);
        self.add_duration(&mut packet, index);
        self.make_dts_rise(&mut packet, index);
        // A packet without payload repeats the frame before it, as Theora's, or carries side data to the muxer: few
        // demuxers give it.
        if packet.size() > 0 {
            self.written[index].summary.count(&packet, output_base, delay_us);
        }
        packet.set_stream(index);
        packet.set_position(-1);
        write_packet(&packet, &mut self.context).map_err(|e| self.failed(e))
    }

    /// Gives a packet of audio without a duration the distance from the one before: the last of a stream in MP4 lasts as long
    /// as it says.
    fn add_duration(&self, packet: &mut ffmpeg::Packet, index: usize) {
        let is_audio =
            self.context.stream(index).expect("an added stream").parameters().medium() == media::Type::Audio;
        if let (0, true, Some(dts), Some(before)) =
            (packet.duration(), is_audio, packet.dts(), self.written[index].last_dts)
        {
            packet.set_duration((dts - before).max(0));
        }
    }

    /// Removes the codec header that some servers repeat before packets of audio: muxers write it over the first, which
    /// breaks Matroska. One that differs is lost where the container has one header per stream.
    fn drop_codec_header(&mut self, packet: &mut ffmpeg::Packet, index: usize) {
        let Some(known) = &mut self.written[index].extradata else { return };
        let Some(new) = new_extradata(packet) else { return };
        if new != *known {
            let is_first = !std::mem::replace(&mut self.written[index].is_header_change_logged, true);
            if self.output.holds_header_changes() {
                self.written[index].extradata = Some(new);
                return;
            }
            if is_first {
                let (name, container) = (&self.output.name, self.output.container());
                warn!(
                    "{name}: the codec header of stream {index} changes, and {container} holds the first only"
                );
            }
        }
        remove_new_extradata(packet);
    }

    /// Whether a part would begin with a packet of audio that cannot be decoded without those before it, as in TrueHD.
    fn cannot_start(&self, packet: &ffmpeg::Packet, index: usize) -> bool {
        let summary = &self.written[index].summary;
        !self.trim.is_everything() && summary.is_audio() && summary.packets == 0 && !packet.is_key()
    }

    /// Whether an edit list hides this packet and the output has no edit list to hide it again. Audio preroll (AAC's
    /// first packet) lies just before 0 and is kept.
    fn is_hidden(&self, packet: &ffmpeg::Packet, time_base: Rational) -> bool {
        const PREROLL_US: i64 = 50_000;
        // SAFETY: the packet is alive.
        let is_marked = unsafe { (*packet.as_ptr()).flags & ffi::AV_PKT_FLAG_DISCARD != 0 };
        let us = packet.pts().map_or(0, |pts| pts.rescale(time_base, MICROSECONDS));
        is_marked && !self.output.is_mp4_family() && !(-PREROLL_US..0).contains(&us)
    }

    /// Counts a frame, and fails at the second one of an image.
    fn check_frame(&mut self) -> Result<()> {
        self.frames += 1;
        if self.output.is_still() && self.frames > 1 {
            let problem = "holds one frame, and the input has more";
            let remedy = "name a video file, or choose one with --from and --to";
            return Err(Error::new(&self.output.name, problem, remedy));
        }
        Ok(())
    }

    /// Moves a dts that falls, or stays where the container does not allow that: containers refuse such packets, and
    /// sources have them. A dts that may stay does (TrueHD's packets are shorter than Matroska's ticks, subtitles
    /// start together), or the stream would drift.
    fn make_dts_rise(&mut self, packet: &mut ffmpeg::Packet, index: usize) {
        let stream = self.context.stream(index).expect("an added stream");
        let may_stay = self.output.container.flags & ffi::AVFMT_TS_NONSTRICT != 0
            || matches!(stream.parameters().medium(), media::Type::Subtitle | media::Type::Data);
        let last = &mut self.written[index].last_dts;
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

    /// Ends a file whose run has failed, and leaves it under its partial name, without its end if that cannot be written.
    /// Returns whether it has any frame.
    pub fn keep_failed(&mut self) -> bool {
        let has_frames = self.frames > 0 && self.output.partial().is_some() && !self.output.is_still();
        if has_frames {
            self.end_at_video();
            // The error that led here is the one to report.
            let _ = self.finish();
            self.finished = true;
        }
        has_frames
    }

    /// The name under which the file lies until it is complete, as messages tell it.
    pub fn partial_name(&self) -> String {
        self.output.partial().map_or(self.output.name.clone(), |path| path.display().to_string())
    }

    fn failed(&self, error: ffmpeg::Error) -> Error {
        let remedy = match error {
            ffmpeg::Error::Other { errno: ffmpeg::error::ENOSPC } => {
                "free some space there, or write elsewhere"
            }
            ffmpeg::Error::Other { errno: ffmpeg::error::EPIPE } => {
                "the reader has closed the pipe: see its own errors"
            }
            _ => "check the disk, or choose another container",
        };
        let failed = failure(self.partial_name(), "cannot be written", error, remedy);
        // What a muxer takes for invalid is not the source's bytes.
        if error == ffmpeg::Error::InvalidData { failed.with_kind(ErrorKind::Unsupported) } else { failed }
    }

    /// Writes the trailer, syncs the file to disk and closes it; it keeps its partial name.
    pub fn finish(&mut self) -> Result<()> {
        self.context.write_trailer().map_err(|e| self.failed(e))?;
        // SAFETY: the context is alive; pb is null for containers that open files themselves.
        let code = unsafe {
            let pb = (*self.context.as_mut_ptr()).pb;
            if !pb.is_null() {
                if self.output.container() == "mpegts" {
                    pad_transport_stream(pb);
                }
                ffi::avio_flush(pb);
            }
            pb.as_ref().map_or(0, |pb| pb.error)
        };
        check(code).map_err(|e| self.failed(e))?;
        if let Some(partial) = self.output.partial() {
            let file = self.file.take().map_or_else(|| File::open(partial), Ok);
            let synced = file.and_then(|file| file.sync_all());
            synced.map_err(|e| Error::io(partial.to_string_lossy(), e, "check the disk"))?;
        }
        // Some file systems write when a file is closed.
        // SAFETY: the context is alive, and writes nothing more.
        let code = unsafe { ffi::avio_closep(&mut (*self.context.as_mut_ptr()).pb) };
        check(code).map_err(|e| self.failed(e))?;
        self.finished = true;
        Ok(())
    }

    /// Reads the finished file back; returns `None` for a pipe.
    pub fn verify(&self) -> Result<Option<Verification>> {
        let Some(partial) = self.output.partial().filter(|_| self.output.is_readable()) else {
            return Ok(None);
        };
        let video = self.output_index[self.video].expect("the video is written");
        let written: Vec<_> = self.written.iter().map(|stream| stream.summary.clone()).collect();
        verify::verify(partial, &self.output, &written, video, &self.watch).map(Some)
    }

    /// The output, whose file is finished and can get its name.
    pub fn output(&self) -> &Output {
        assert!(self.finished, "only a complete file gets its name");
        &self.output
    }

    /// Leaves the finished file under its partial name, and returns that.
    pub fn keep_partial(&self) -> Option<PathBuf> {
        assert!(self.finished, "an interrupted file is finished as well");
        self.output.partial().map(Path::to_path_buf)
    }
}

/// Returns what is subtracted from all timestamps. The MP4 family does not show what lies before 0: audio that an edit
/// list hides before the first frame stays there. In Ogg, FFmpeg's demuxer takes the first packets of audio for the start of
/// the file, and that is the first frame.
fn offset_us(output: &Output, input: &Input, encoder: &Encoder, trim: Trim) -> i64 {
    let offset_us = trim.offset_us();
    let is_hidden = output.is_mp4_family() && encoder.start_us() < offset_us;
    match is_hidden {
        true => encoder.start_us().min(input.start_us()),
        false if output.counts_in_codec() && trim.is_everything() => encoder.start_us(),
        false => offset_us,
    }
}

/// Returns the codec delay that FFmpeg's muxer fails to add: Matroska's timestamps are later by it, and demuxers subtract
/// it. FFmpeg before 6.1 writes the delay of Opus and does not add it, so that its audio would come 6.5 ms too early.
fn missing_delay_us(stream: &ffmpeg::Stream, output: &Output) -> i64 {
    let is_matroska = matches!(output.container(), "matroska" | "webm");
    if cfg!(ffmpeg_6_1) || !is_matroska || stream.parameters().id() != codec::Id::OPUS {
        return 0;
    }
    // SAFETY: the stream is alive. Opus counts samples at 48 kHz, whatever the source (RFC 7845).
    let samples = unsafe { (*(*stream.as_ptr()).codecpar).initial_padding };
    i64::from(samples).rescale(Rational(1, 48_000), MICROSECONDS)
}

/// Codec header of a stream; `None` if it has none.
fn extradata(stream: &ffmpeg::Stream) -> Option<Vec<u8>> {
    let parameters = stream.parameters();
    // SAFETY: the parameters are alive, and their header has this size.
    let bytes = unsafe {
        let raw = &*parameters.as_ptr();
        (!raw.extradata.is_null()).then(|| slice::from_raw_parts(raw.extradata, raw.extradata_size as usize))
    };
    bytes.filter(|bytes| !bytes.is_empty()).map(<[u8]>::to_vec)
}

/// Codec header that comes with a packet.
fn new_extradata(packet: &ffmpeg::Packet) -> Option<Vec<u8>> {
    let entry = packet.side_data().find(|entry| entry.kind() == Type::NewExtraData);
    entry.map(|entry| entry.data().to_vec())
}

fn remove_new_extradata(packet: &mut ffmpeg::Packet) {
    // SAFETY: the packet is alive and owns its entries, of which the list has this number. The last one takes the place
    // of the one that is freed, and a list is freed with the packet, however many entries it has left.
    unsafe {
        let raw = &mut *packet.as_mut_ptr();
        let entries = slice::from_raw_parts_mut(raw.side_data, raw.side_data_elems as usize);
        let is_header = |entry: &ffi::AVPacketSideData| {
            entry.type_ == ffi::AVPacketSideDataType::AV_PKT_DATA_NEW_EXTRADATA
        };
        let Some(position) = entries.iter().position(is_header) else { return };
        ffi::av_freep((&raw mut entries[position].data).cast());
        entries.swap(position, entries.len() - 1);
        raw.side_data_elems -= 1;
    }
}

impl Drop for Muxer {
    fn drop(&mut self) {
        if let (false, Some(partial)) = (self.finished, self.output.partial()) {
            // A failure here is ignored: the error that led here is the one to report.
            let _ = fs::remove_file(partial);
        }
    }
}

/// Ends a short transport stream with null packets: FFmpeg takes ten packets or fewer for a program stream.
///
/// # Safety
///
/// `pb` is an open output of whole packets.
unsafe fn pad_transport_stream(pb: *mut ffi::AVIOContext) {
    const LENGTH_MIN: i64 = 11 * 188;
    let mut packet = [0xff; 188];
    packet[..4].copy_from_slice(&[0x47, 0x1f, 0xff, 0x10]);
    // SAFETY: pb is open; the packet lives through the call.
    unsafe {
        while (0..LENGTH_MIN).contains(&ffi::avio_seek(pb, 0, ffi::SEEK_CUR)) {
            ffi::avio_write(pb, packet.as_ptr(), packet.len() as i32);
        }
    }
}

//! Reading: seek, the next packet of any stream or of the video, and what is damaged on the way.

use ffmpeg_next::ffi;
use ffmpeg_next::{self as ffmpeg, Rescale, format, media};
use tracing::warn;

use crate::error::{Error, Result};
use crate::media::damage::DamagedPlace;
use crate::media::demux::input::{AV_LAG_US_MAX, Input};
use crate::media::demux::{access, nested, quirks};
use crate::media::ffmpeg::{CHECK_DEVICE, MICROSECONDS, check, failure, is_of_device};
use crate::media::ffmpeg_log;
use crate::media::packet::Packet;
use crate::media::packet_queue::PacketQueue;

/// Some demuxers continue after an error, others return it forever.
const ERRORS_IN_A_ROW_MAX: u32 = 16;

impl Input {
    /// Seeks to the last keyframe at or before `us`, or as near to it as the container can.
    pub(crate) fn seek(&mut self, us: i64) -> Result<()> {
        self.backlog = PacketQueue::default();
        self.timeline.reset();
        self.watch.restart_silence();
        // In a transport stream the search for a timestamp ends after the first packet: the beginning is sought by byte.
        if self.timeline.may_jump() && us <= self.start_us() {
            // SAFETY: the context is alive, and no stream is named.
            let code = unsafe { ffi::av_seek_frame(self.context.as_mut_ptr(), -1, 0, ffi::AVSEEK_FLAG_BYTE) };
            if code >= 0 {
                return Ok(());
            }
        }
        self.context
            .seek(us, ..us)
            .or_else(|_| self.context.seek(us, ..))
            .map_err(|e| failure(&self.name, "cannot seek", e, "leave --from out"))?;
        self.check_device()
    }

    /// Returns a packet that was read too early, for [`Input::next_packet`] to give first.
    pub(crate) fn put_back(&mut self, packet: Packet) -> Result<()> {
        self.backlog.push(packet)
    }

    /// Reads on until a packet of each of these streams is queued, up to the time by which audio may follow its video.
    pub(crate) fn read_ahead(&mut self, streams: &[usize]) -> Result<()> {
        let is_queued = |input: &Input, stream: &usize| !input.queued(*stream).is_empty();
        let mut start_us = None;
        while !streams.iter().all(|stream| is_queued(self, stream)) {
            let Some(packet) = self.read()? else { break };
            let dts_us = packet.dts_us();
            self.backlog.push(packet)?;
            if dts_us.saturating_sub(*start_us.get_or_insert(dts_us)) > AV_LAG_US_MAX {
                break;
            }
        }
        Ok(())
    }

    /// The first packets of a stream among those that were read too early. They stay there.
    pub(crate) fn queued(&self, stream: usize) -> Vec<Packet> {
        const COUNT_MAX: usize = 8;
        self.backlog.oldest_of(stream, COUNT_MAX)
    }

    /// The next packet of the video; packets of other streams before it are queued.
    pub(crate) fn next_video(&mut self) -> Result<Option<Packet>> {
        if let Some(packet) = self.backlog.pop_of(self.video)? {
            return Ok(Some(packet));
        }
        while let Some(packet) = self.read()? {
            if self.is_video(&packet) {
                return Ok(Some(packet));
            }
            self.backlog.push(packet)?;
        }
        Ok(None)
    }

    /// The next packet of any stream; `None` at the end.
    pub fn next_packet(&mut self) -> Result<Option<Packet>> {
        let packet = match self.backlog.pop_before(None)? {
            Some(packet) => Some(packet),
            None => self.read()?,
        };
        if let Some(packet) = packet.as_ref().filter(|packet| !self.is_video(packet)) {
            self.tallies.count(packet, &self.tallied);
        }
        Ok(packet)
    }

    /// The next packet from the container itself. What its bytes do not allow to read is noted as damage and skipped; a
    /// device that fails is an error, since the same bytes may be read another time.
    pub(crate) fn read(&mut self) -> Result<Option<Packet>> {
        if self.watch.is_stopped() {
            return Err(self.watch.error(&self.name));
        }
        if let Some(sequence) = &mut self.sequence {
            let time_base = sequence.frame_rate.invert();
            let packet = sequence.next_packet(&self.damage)?;
            return Ok(packet.map(|packet| Packet { packet, stream: self.video, time_base, index: 0 }));
        }
        self.watch.restart_silence();
        loop {
            let mut packet = ffmpeg::Packet::empty();
            ffmpeg_log::take_demuxer_error();
            let read = packet.read(&mut self.context);
            let logged = ffmpeg_log::take_demuxer_error();
            // What a demuxer makes of an interrupted read is neither the end of the source nor damage of it.
            if self.watch.is_stopped() || (read.is_err() && self.watch.is_over()) {
                return Err(self.watch.error(&self.name));
            }
            // A demuxer may take a failed read for the end of the file, or skip what it could not read.
            self.check_device()?;
            match read {
                Ok(()) => {
                    if let Some(error) = logged {
                        self.note_damage(&error);
                    }
                    self.errors_in_a_row = 0;
                    if self.is_usable(&packet) {
                        return Ok(self.accept(packet));
                    }
                }
                Err(ffmpeg::Error::Eof) => {
                    if ffmpeg_log::take_discontinuity() {
                        self.warn_discontinuity(&self.at_end_of_read());
                    }
                    if !std::mem::replace(&mut self.ended, true)
                        && let Some(problem) = self.missing()?.or(logged)
                    {
                        self.note_damage(&problem);
                    }
                    return Ok(None);
                }
                // Demuxers that open files themselves pass the error on.
                Err(error) if self.opens_files() && is_of_device(error) => {
                    return Err(self.device_failure(error));
                }
                Err(error) => {
                    self.errors_in_a_row += 1;
                    if self.errors_in_a_row == 1 {
                        self.note_damage(&format!("cannot be read further: {error}"));
                    }
                    if self.errors_in_a_row > ERRORS_IN_A_ROW_MAX {
                        return Ok(None);
                    }
                }
            }
        }
    }

    /// An error if the device or the connection failed. FFmpeg keeps the first such error of a file.
    pub(super) fn check_device(&self) -> Result<()> {
        if let Some(refusal) = access::refusal(&self.name).filter(|_| !self.is_live) {
            return Err(refusal);
        }
        // SAFETY: the context is alive; pb is null for demuxers that open files themselves.
        let code = unsafe { (*self.context.as_ptr()).pb.as_ref().map_or(0, |pb| pb.error) };
        // A live source goes on with the next segment.
        let nested = nested::take_error().filter(|_| !self.is_live);
        nested.map_or(check(code).map(drop), Err).map_err(|e| self.device_failure(e))
    }

    fn opens_files(&self) -> bool {
        // SAFETY: the context is alive.
        let is_own = unsafe { (*self.context.as_ptr()).pb.is_null() };
        is_own || quirks::is_list(self.demuxer())
    }

    fn device_failure(&self, error: ffmpeg::Error) -> Error {
        if self.watch.is_over() {
            return self.watch.error(&self.name);
        }
        failure(&self.name, &format!("cannot be read {}", self.at_end_of_read()), error, CHECK_DEVICE)
    }

    /// Whether the packet is complete, or of the video, whose decoder may show a part of a frame.
    fn is_usable(&mut self, packet: &ffmpeg::Packet) -> bool {
        let is_mpegts = quirks::is_mpegts(self.demuxer());
        if ffmpeg_log::take_discontinuity() || (is_mpegts && packet.is_corrupt()) {
            self.warn_discontinuity(&self.at_end_of_read());
        } else if packet.is_corrupt() {
            self.note_damage("a packet is truncated");
            return packet.stream() == self.video;
        }
        true
    }

    /// The packet on a continuous clock, counted; `None` past the wanted part.
    fn accept(&mut self, mut packet: ffmpeg::Packet) -> Option<Packet> {
        let stream = packet.stream();
        let (time_base, is_timed) = (self.stream(stream).time_base(), is_timed(&self.stream(stream)));
        if quirks::is_negative_duration(packet.duration()) {
            packet.set_duration(0);
        }
        self.timeline.correct(&mut packet, time_base, is_timed, self.frame_us);
        if stream >= self.streams_at_open && !self.is_late_stream_logged {
            self.is_late_stream_logged = true;
            let at = self.progress.end_us as f64 / 1e6;
            warn!("{}: stream {stream} first appears at {at:.3} s and is left out", self.name);
        }
        let is_video = stream == self.video;
        self.progress.video_packets += u64::from(is_video);
        self.progress.end_byte = packet.position() as i64 + packet.size() as i64;
        let us = |ticks: i64| ticks.rescale(time_base, MICROSECONDS);
        if let Some(time) = packet.pts().or(packet.dts()) {
            let end_us = us(time.saturating_add(packet.duration()));
            self.progress.end_us = self.progress.end_us.max(end_us);
        }
        let dts_us = packet.dts().map(us).filter(|_| is_video);
        if let Some(dts_us) = dts_us {
            self.progress.note_dts(dts_us);
        }
        let is_past_end =
            self.part_end_us.is_some_and(|end_us| dts_us.is_some_and(|dts_us| dts_us >= end_us));
        (!is_past_end).then_some(Packet { packet, stream, time_base, index: 0 })
    }

    /// Packets of a transport stream are numbered, so gaps are known. A gap is also where two recordings are joined: what
    /// a frame lacks is for the decoder to judge.
    pub(super) fn warn_discontinuity(&mut self, place: &str) {
        if !std::mem::replace(&mut self.is_discontinuity_logged, true) {
            let name = &self.name;
            warn!(
                "{name}: the transport stream is discontinuous {place}: packets are missing, or recordings were joined"
            );
        }
    }

    fn at_end_of_read(&self) -> String {
        format!("at {:.3} s", self.progress.end_us as f64 / 1e6)
    }

    pub(super) fn note_damage(&self, problem: &str) {
        let seconds = Some(self.progress.end_us as f64 / 1e6);
        self.damage.note(DamagedPlace { problem: problem.to_owned(), frame: None, pts: None, seconds });
    }
}

/// Whether it is a stream of video or audio, and no attached picture.
fn is_timed(stream: &ffmpeg::Stream) -> bool {
    matches!(stream.parameters().medium(), media::Type::Video | media::Type::Audio)
        && !stream.disposition().contains(format::stream::Disposition::ATTACHED_PIC)
}

//! Live outputs: a sink's connection, or its recording: one file, or one after another, named by a time pattern.
//!
//! In: packets with timestamps on the relay's clock. Out: the same at the sink; a file has a partial name until it is
//! complete. It does not reconnect and has no queue.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::mem;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use ffmpeg_next::media;
use tracing::{info, warn};

use crate::error::{Error, ErrorKind, Result};
use crate::media::container::holds;
use crate::media::demux::input::AV_LAG_US_MAX;
use crate::media::mux::live::{LiveFormat, LiveMuxer, LiveStreams};
use crate::media::mux::time_pattern::{TimePattern, publish_numbered};
use crate::media::output::Output;
use crate::media::packet::Packet;
use crate::media::path::{Place, folder_of};
use crate::media::redact::redacted;
use crate::media::watch::Watch;

/// A sink that is open.
pub struct LiveOutput {
    current: Written,
    recording: Option<Recording>,
    /// The file before the current one, until the audio that belongs to it has come.
    previous: Option<Written>,
    /// Why a file that was written before is incomplete.
    lost: Option<Error>,
}

/// What the next file of a time pattern needs.
struct Recording {
    pattern: TimePattern,
    /// Path of the current file's time.
    path: PathBuf,
    sink: String,
    streams: LiveStreams,
    overwrite: bool,
    watch: Watch,
}

/// A connection, or a file and its name.
struct Written {
    muxer: LiveMuxer,
    /// A single file, and whether it replaces one; `None` for connections, playlists and pipes.
    file: Option<(Output, bool)>,
    is_numbered: bool,
}

impl LiveOutput {
    /// Whether the sink is a single file: no connection, no playlist, no pipe.
    pub fn is_one_file(sink: &str) -> bool {
        let is_special = |path: &Path| {
            fs::metadata(path).is_ok_and(|data| {
                let kind = data.file_type();
                kind.is_fifo() || kind.is_char_device() || kind.is_socket()
            })
        };
        let path = Place::of_output(sink).path();
        path.is_some_and(|path| !sink.ends_with(".m3u8") && !is_special(path))
    }

    /// Checks a sink without opening it: its container and codecs, its folder, and whether a file is in the way.
    pub fn check(sink: &str, streams: &LiveStreams, overwrite: bool) -> Result<()> {
        let name = redacted(sink);
        let container = LiveFormat::of(sink, &name)?.container;
        let id = streams.video.id();
        if !holds(container, media::Type::Video, id) {
            let problem = format!("does not take {}", id.name());
            let remedy = "choose another --encoder, e.g. libx264";
            return Err(Error::new(name, problem, remedy).with_kind(ErrorKind::Unsupported));
        }
        if let Some(audio) =
            streams.audio.as_ref().filter(|audio| !holds(container, media::Type::Audio, audio.id()))
        {
            let problem = format!("does not take {} as audio", audio.id().name());
            let remedy = "choose another --audio, e.g. aac, or none";
            return Err(Error::new(name, problem, remedy).with_kind(ErrorKind::Unsupported));
        }
        let folder = Place::of_output(sink).path().map(folder_of);
        if let Some(folder) = folder.filter(|folder| !folder.is_dir()) {
            return Err(Error::new(
                folder.to_string_lossy(),
                "is not a folder",
                format!("create it, for {name}"),
            )
            .with_kind(ErrorKind::NotFound));
        }
        match Place::of_output(sink).path() {
            _ if overwrite => Ok(()),
            _ if pattern_of(sink)?.is_some() => Ok(()),
            _ if LiveOutput::is_one_file(sink) => Output::new(sink, "")?.check_free(false),
            Some(list) if sink.ends_with(".m3u8") => check_playlist_free(list),
            _ => Ok(()),
        }
    }

    /// Fails if the sink is a file whose name has a `%` without a code of strftime.
    pub fn check_name(sink: &str) -> Result<()> {
        pattern_of(sink).map(drop)
    }

    /// Path that the sink's time pattern gives now; `None` for other sinks.
    pub fn path_now(sink: &str) -> Option<PathBuf> {
        let pattern = pattern_of(sink).ok().flatten();
        pattern.map(|pattern| pattern.path_at(SystemTime::now()))
    }

    /// Opens the sink and writes the header. With `overwrite`, a file may get the name of another.
    pub fn open(sink: &str, streams: &LiveStreams, overwrite: bool, watch: &Watch) -> Result<LiveOutput> {
        let (recording, current) = match pattern_of(sink)? {
            Some(pattern) => {
                let (sink, streams, watch) = (sink.to_owned(), streams.clone(), watch.clone());
                let mut recording =
                    Recording { pattern, path: PathBuf::new(), sink, streams, overwrite, watch };
                let first = recording.open(SystemTime::now())?;
                (Some(recording), first)
            }
            None => {
                let name = redacted(sink);
                let format = LiveFormat::of(sink, &name)?;
                let file = LiveOutput::is_one_file(sink).then(|| Output::new(sink, "")).transpose()?;
                let place = match file.as_ref().and_then(Output::partial) {
                    Some(partial) => Place::File(partial),
                    None => Place::of_output(sink),
                };
                let muxer = LiveMuxer::open(name, &format, place, streams, watch)?;
                (None, Written { muxer, file: file.map(|file| (file, overwrite)), is_numbered: false })
            }
        };
        Ok(LiveOutput { current, recording, previous: None, lost: None })
    }

    /// Writes a packet of the video, or of the audio. A keyframe starts the next file of a time pattern; audio from before it
    /// comes after it, and still goes to the file before.
    pub fn write(&mut self, packet: Packet, is_audio: bool) -> Result<()> {
        let now = SystemTime::now();
        let is_first = !is_audio
            && packet.is_key()
            && self.recording.as_ref().is_some_and(|recording| recording.is_over(now));
        let is_complete = is_first || self.is_previous_complete(&packet, is_audio);
        let ended = self.previous.take_if(|_| is_complete);
        let started = if is_first { self.start_file(now) } else { Ok(()) };
        let result = started.and_then(|()| {
            let is_of_previous = is_audio && packet.dts_us() < self.current.muxer.start_us();
            let written = self.previous.as_mut().filter(|_| is_of_previous).unwrap_or(&mut self.current);
            written.muxer.write(packet, is_audio)
        });
        // Last, as to sync a file may take longer than a write may. After an error this output is not used any more.
        let is_last = result.is_err();
        for ended in [ended, self.previous.take_if(|_| is_last)].into_iter().flatten() {
            self.finish_file(ended);
        }
        result
    }

    /// Whether no audio of the file before the current one follows.
    fn is_previous_complete(&self, packet: &Packet, is_audio: bool) -> bool {
        let muxer = &self.current.muxer;
        let lag_us_max = if muxer.has_audio && !is_audio { AV_LAG_US_MAX } else { 0 };
        packet.dts_us() >= muxer.start_us().saturating_add(lag_us_max)
    }

    /// Opens the file of this time. If that fails, the current one is finished.
    fn start_file(&mut self, now: SystemTime) -> Result<()> {
        let recording = self.recording.as_mut().expect("a time pattern has further files");
        match recording.open(now) {
            Ok(next) => self.previous = Some(mem::replace(&mut self.current, next)),
            Err(error) => {
                self.current.finish().unwrap_or_else(|error| warn!("{error}"));
                return Err(error);
            }
        }
        Ok(())
    }

    /// Finishes a file of the past; its error is that of the output at its end.
    fn finish_file(&mut self, mut ended: Written) {
        if let Err(error) = ended.finish() {
            warn!("{error}");
            self.lost.get_or_insert(error);
        }
    }

    /// Writes the trailer; a file gets its own name. Without `overwrite`, a file that has appeared there stays.
    pub fn finish(mut self) -> Result<()> {
        if let Some(ended) = self.previous.take() {
            self.finish_file(ended);
        }
        let finished = self.current.finish();
        self.lost.map_or(finished, Err)
    }
}

impl Recording {
    /// Whether the local time has another name than that of the current file.
    fn is_over(&self, now: SystemTime) -> bool {
        self.pattern.path_at(now) != self.path
    }

    /// Opens the file of this time.
    fn open(&mut self, now: SystemTime) -> Result<Written> {
        self.path = self.pattern.path_at(now);
        let (file, replaces) = self.pattern.reserve(now, self.overwrite)?;
        let partial = file.partial().expect("a file");
        let name = file.name().to_owned();
        let opened = LiveFormat::of(&self.sink, &name).and_then(|format| {
            LiveMuxer::open(name, &format, Place::File(partial), &self.streams, &self.watch)
        });
        // Nothing is in it.
        let muxer = opened.inspect_err(|_| drop(fs::remove_file(partial)))?;
        info!("{}: is recorded", file.name());
        Ok(Written { muxer, file: Some((file, replaces)), is_numbered: true })
    }
}

impl Written {
    fn finish(&mut self) -> Result<()> {
        self.muxer.finish()?;
        let Some((file, overwrite)) = &self.file else { return Ok(()) };
        let synced = file.partial().map_or(Ok(()), |partial| File::open(partial)?.sync_all());
        // Some file systems do not sync; the rename follows all the same.
        synced.unwrap_or_else(|e| warn!("{}: cannot be synced to the disk: {e}", file.name()));
        match self.is_numbered {
            true => publish_numbered(file, *overwrite),
            false => file.publish(*overwrite),
        }
    }
}

/// The time pattern of a sink; `None` for connections, playlists and plain names.
fn pattern_of(sink: &str) -> Result<Option<TimePattern>> {
    let path = Place::of_output(sink).path().filter(|_| LiveOutput::is_one_file(sink));
    path.map_or(Ok(None), TimePattern::parse)
}

/// Fails if a playlist, or a segment that it would list, exists. FFmpeg's segments are NAME0.ts, NAME1.ts and so on.
fn check_playlist_free(list: &Path) -> Result<()> {
    let stem = list.file_stem().unwrap_or_default().as_bytes();
    let is_segment = |name: &OsStr| {
        let number = name.as_bytes().strip_prefix(stem).and_then(|rest| rest.strip_suffix(b".ts"));
        number.is_some_and(|number| !number.is_empty() && number.iter().all(u8::is_ascii_digit))
    };
    let entries = fs::read_dir(folder_of(list)).into_iter().flatten().flatten();
    let segment = entries.map(|entry| entry.file_name()).find(|name| is_segment(name));
    let taken =
        if list.exists() { Some(list.to_owned()) } else { segment.map(|name| list.with_file_name(name)) };
    taken.map_or(Ok(()), |path| {
        let error =
            Error::new(path.to_string_lossy(), "already exists", "-y overwrites it, or give another name");
        Err(error.with_kind(ErrorKind::Exists))
    })
}

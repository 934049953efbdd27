//! What is read of a relay while it runs: counters, files that grow, a playlist, frames by UDP, the machine's load.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::net::UdpSocket;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use serde::Deserialize;

use super::pieces::{Growing, Piece, VIDEO, stamps};

/// A line of counters.
#[derive(Deserialize, Clone, Default)]
pub struct Counters {
    pub decoded: u64,
    pub duplicated: u64,
    dropped_late: u64,
    dropped_superseded: u64,
    dropped_overflow: u64,
    pub source_connected: bool,
    pub source_connections: u64,
    pub latency_ms_max: u64,
    pub sinks: Vec<Sink>,
}

#[derive(Deserialize, Clone)]
pub struct Sink {
    pub connected: bool,
    pub connections: u64,
    pub packets: u64,
    pub dropped: u64,
    pub latency_ms_p99: u64,
    pub queue: Queue,
}

#[derive(Deserialize, Clone)]
pub struct Queue {
    pub age_ms: u64,
}

impl Counters {
    pub fn lost(&self) -> u64 {
        self.dropped_late + self.dropped_superseded + self.dropped_overflow
    }
}

/// A file that grows, from its start or from where it was read last.
pub struct Tail {
    path: PathBuf,
    file: Option<File>,
    /// What is no complete unit yet.
    rest: Vec<u8>,
}

impl Tail {
    pub fn new(path: PathBuf) -> Tail {
        Tail { path, file: None, rest: Vec::new() }
    }

    /// What is new, up to the end that `complete` finds in it.
    pub fn read(&mut self, complete: impl Fn(&[u8]) -> usize) -> Vec<u8> {
        if self.file.is_none() {
            self.file = File::open(&self.path).ok();
        }
        if let Some(file) = &mut self.file {
            file.read_to_end(&mut self.rest).expect("the file can be read");
        }
        let rest = self.rest.split_off(complete(&self.rest));
        std::mem::replace(&mut self.rest, rest)
    }

    pub fn read_cells(&mut self) -> Vec<u8> {
        self.read(|bytes| bytes.len() / 188 * 188)
    }

    pub fn read_lines(&mut self) -> String {
        let bytes = self.read(|bytes| bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1));
        String::from_utf8(bytes).expect("text is UTF-8")
    }
}

/// A playlist and its segments, each read when it is listed.
pub struct Playlist {
    folder: PathBuf,
    pub stream: Growing,
    /// Number of the last segment, its length and its first timestamp, in seconds.
    last: Option<(u64, f64, f64)>,
    listed_at: f64,
    /// The longest time from one segment to the next, in seconds.
    pub wait_max_s: f64,
    pub segments: u64,
}

/// Between the duration of a segment in the playlist and that of its frames.
const EXTINF_OFF_MAX_S: f64 = 0.05;

impl Playlist {
    pub fn new(folder: PathBuf) -> Playlist {
        let stream = Growing::new("hls".into());
        Playlist { folder, stream, last: None, listed_at: 0.0, wait_max_s: 0.0, segments: 0 }
    }

    /// Reads segments that are new; returns what is wrong with them.
    pub fn read(&mut self, now: f64) -> Vec<String> {
        let (mut wrong, mut length_s, mut number) = (Vec::new(), 0.0, 0);
        let list = std::fs::read_to_string(self.folder.join("live.m3u8")).unwrap_or_default();
        for line in list.lines() {
            if let Some(text) = line.strip_prefix("#EXT-X-MEDIA-SEQUENCE:") {
                number = text.parse().expect("a number");
            } else if let Some(text) = line.strip_prefix("#EXTINF:") {
                length_s = text.trim_end_matches(',').parse().expect("a number of seconds");
            } else if ["#EXT-X-DISCONTINUITY", "#EXT-X-ENDLIST"].contains(&line) {
                wrong.push(line.to_owned());
            } else if !line.starts_with('#') {
                if self.last.is_none_or(|last| number > last.0) {
                    wrong.extend(self.add(line, number, length_s, now));
                }
                number += 1;
            }
        }
        if self.last.is_some_and(|last| number < last.0 + 1) {
            wrong.push(format!("the playlist goes back to segment {number}"));
        }
        wrong
    }

    fn add(&mut self, name: &str, number: u64, length_s: f64, now: f64) -> Vec<String> {
        let mut wrong = Vec::new();
        if name != format!("live{number}.ts") {
            wrong.push(format!("segment {number} is {name}"));
        }
        let Ok(cells) = std::fs::read(self.folder.join(name)) else {
            return vec![format!("{name} is listed and cannot be read")];
        };
        let Some(start_s) = stamps(&cells).find(|stamp| stamp.pid == VIDEO).map(|stamp| stamp.pts_s) else {
            return vec![format!("{name} has no video")];
        };
        if let Some((last, last_length_s, last_start_s)) = self.last {
            if number != last + 1 {
                wrong.push(format!("segment {number} follows {last}"));
            }
            let off_s = start_s - last_start_s - last_length_s;
            if off_s.abs() > EXTINF_OFF_MAX_S {
                wrong.push(format!("segment {last}: #EXTINF is {last_length_s} s, {off_s:.3} s off"));
            }
            self.wait_max_s = self.wait_max_s.max(now - self.listed_at);
        }
        (self.last, self.listed_at) = (Some((number, length_s, start_s)), now);
        self.segments += 1;
        self.stream.extend(&cells, now);
        wrong
    }

    pub fn cut(&mut self, now: f64) -> Piece {
        self.stream.cut(now)
    }
}

/// Time of arrival and presentation of each frame by UDP, in seconds.
pub fn receive_frames(socket: UdpSocket, start: Instant) -> Arc<Mutex<Vec<[f64; 2]>>> {
    let frames = Arc::<Mutex<Vec<[f64; 2]>>>::default();
    let noted = frames.clone();
    // Ends with the test's process.
    std::thread::spawn(move || {
        let mut datagram = [0; 65536];
        while let Ok(size) = socket.recv(&mut datagram) {
            let at = start.elapsed().as_secs_f64();
            let video = stamps(&datagram[..size]).filter(|stamp| stamp.pid == VIDEO);
            noted.lock().unwrap().extend(video.map(|stamp| [at, stamp.pts_s]));
        }
    });
    frames
}

/// The machine's load in the time from one line to the next.
#[derive(Clone, Copy, Default)]
pub struct Load {
    /// Time in which a task waited for a processor.
    pub pressure_ms: f64,
    /// Time that the hypervisor gave to others, of all processors.
    pub steal_ms: f64,
    /// The longest time that one thread of the relay or the publisher waited for a processor.
    pub waited_ms: f64,
    /// The longest time by which this test slept longer than it asked for.
    pub overslept_ms: f64,
}

/// Load by which frames may be late: half a second without one is a loss.
const STOLEN_MS: f64 = 400.0;
const WAITED_MS: f64 = 150.0;
const OVERSLEPT_MS: f64 = 150.0;

impl Load {
    pub fn explains(&self) -> bool {
        self.steal_ms > STOLEN_MS || self.waited_ms > WAITED_MS || self.overslept_ms > OVERSLEPT_MS
    }
}

/// What the system has counted so far, in milliseconds.
#[derive(Default)]
pub struct LoadMeter {
    pressure_ms: f64,
    steal_ms: f64,
    /// By thread.
    waited_ms: BTreeMap<OsString, f64>,
}

impl LoadMeter {
    fn now(pids: &[u32]) -> LoadMeter {
        let text = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let pressure = text("/proc/pressure/cpu");
        let total =
            pressure.lines().next().and_then(|line| line.rsplit_once("total=")?.1.parse::<f64>().ok());
        // In hundredths of a second.
        let steal = text("/proc/stat").split_whitespace().nth(8).and_then(|text| text.parse::<f64>().ok());
        let waited = |thread: std::io::Result<std::fs::DirEntry>| {
            let thread = thread.ok()?;
            let text = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
            Some((thread.file_name(), text.split_whitespace().nth(1)?.parse::<f64>().ok()? / 1e6))
        };
        let threads =
            pids.iter().filter_map(|pid| std::fs::read_dir(format!("/proc/{pid}/task")).ok()).flatten();
        LoadMeter {
            pressure_ms: total.unwrap_or_default() / 1e3,
            steal_ms: steal.unwrap_or_default() * 10.0,
            waited_ms: threads.filter_map(waited).collect(),
        }
    }

    /// The load of the machine and the threads of these processes since it was last asked.
    pub fn read(&mut self, pids: &[u32], overslept_ms: f64) -> Load {
        let before = std::mem::replace(self, LoadMeter::now(pids));
        let since = |(id, &now): (&OsString, &f64)| now - before.waited_ms.get(id).unwrap_or(&0.0);
        Load {
            pressure_ms: self.pressure_ms - before.pressure_ms,
            steal_ms: self.steal_ms - before.steal_ms,
            waited_ms: self.waited_ms.iter().map(since).fold(0.0, f64::max),
            overslept_ms,
        }
    }
}

impl std::fmt::Display for Load {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Load { pressure_ms, steal_ms, waited_ms, overslept_ms } = self;
        write!(
            f,
            "CPU pressure {pressure_ms:.0} ms, stolen {steal_ms:.0} ms, a thread waited {waited_ms:.0} ms, the test \
             overslept {overslept_ms:.0} ms"
        )
    }
}

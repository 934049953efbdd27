//! A transport stream that grows, cut into pieces: timestamps of every packet, and the distance of each flash to its beep.
//!
//! In: bytes as they are written, and when. Out: what each piece shows, by the time of the run. It knows no faults.

use std::collections::{BTreeMap, VecDeque};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, Sender};

use crate::common::program::Folder;

/// Bytes of a packet of a transport stream.
const CELL: usize = 188;
/// PIDs that FFmpeg's muxer gives the first two streams.
pub const VIDEO: u16 = 0x100;
pub const AUDIO: u16 = 0x101;
/// A piece starts with so much of the one before it: a flash and its beep, and a keyframe before them.
const OVERLAP_S: f64 = 6.0;
/// At the end of a piece a beep may still be missing.
const UNHEARD_S: f64 = 1.0;

/// Timestamps of a packet in seconds.
#[derive(Clone, Copy)]
pub struct Stamp {
    pub pid: u16,
    pub pts_s: f64,
    pub dts_s: f64,
}

/// Timestamps of the packets that start in these cells.
pub fn stamps(cells: &[u8]) -> impl Iterator<Item = Stamp> {
    cells.chunks_exact(CELL).filter_map(stamp)
}

fn stamp(cell: &[u8]) -> Option<Stamp> {
    let pid = u16::from_be_bytes([cell[1] & 0x1f, cell[2]]);
    let is_start = cell[1] & 0x40 != 0;
    let adaptation = if cell[3] & 0x20 != 0 { 1 + usize::from(cell[4]) } else { 0 };
    let pes = cell.get(4 + adaptation..).filter(|_| is_start && [VIDEO, AUDIO].contains(&pid))?;
    let seconds = |at: usize| {
        let bytes = pes.get(at..at + 5)?;
        let bits = |i: usize| u64::from(bytes[i]);
        let ticks =
            (bits(0) >> 1 & 7) << 30 | bits(1) << 22 | (bits(2) >> 1) << 15 | bits(3) << 7 | bits(4) >> 1;
        Some(ticks as f64 / 90_000.0)
    };
    let pts_s = seconds(9)?;
    let has_dts = pes[7] & 0x40 != 0;
    Some(Stamp { pid, pts_s, dts_s: if has_dts { seconds(14)? } else { pts_s } })
}

/// A stream while it is written.
pub struct Growing {
    name: String,
    cells: Vec<u8>,
    /// Where what no piece had before starts.
    fresh_from: usize,
    /// When the stream was how long.
    marks: VecDeque<(f64, usize)>,
}

/// A part of a stream.
pub struct Piece {
    stream: String,
    cells: Vec<u8>,
    fresh_from: usize,
    /// When the stream was how long.
    marks: VecDeque<(f64, usize)>,
}

impl Growing {
    pub fn new(name: String) -> Growing {
        Growing { name, cells: Vec::new(), fresh_from: 0, marks: VecDeque::new() }
    }

    pub fn extend(&mut self, cells: &[u8], now: f64) {
        if !cells.is_empty() {
            self.marks.push_back((now, self.cells.len()));
            self.cells.extend(cells);
        }
    }

    /// What was written since the last piece.
    pub fn cut(&mut self, now: f64) -> Piece {
        let marks = self.marks.clone();
        while self.marks.len() > 1 && self.marks[1].0 < now - OVERLAP_S {
            self.marks.pop_front();
        }
        let kept_from = self.marks.front().map_or(0, |mark| mark.1);
        self.marks.iter_mut().for_each(|mark| mark.1 -= kept_from);
        let kept = self.cells[kept_from..].to_vec();
        let fresh_from = std::mem::replace(&mut self.fresh_from, kept.len());
        let cells = std::mem::replace(&mut self.cells, kept);
        Piece { stream: self.name.clone(), cells, fresh_from, marks }
    }
}

/// A flash.
#[derive(Clone, Copy)]
pub struct Flash {
    /// When it was written, in seconds of the run.
    pub at: f64,
    /// Seconds since the flash before it.
    pub since_s: f64,
    /// Seconds until its beep; of none in the same second, infinite.
    pub apart_s: f64,
}

/// What is wrong with the timestamps of a stream.
pub struct Misfit {
    pub at: f64,
    /// From one packet to the next, in seconds.
    pub step_s: f64,
    pub what: String,
}

/// What a stream has shown so far.
#[derive(Default)]
pub struct Shown {
    pub flashes: Vec<Flash>,
    pub misfits: Vec<Misfit>,
    last: BTreeMap<u16, Stamp>,
    /// Presentation time of the last flash.
    last_flash_s: f64,
}

impl Piece {
    /// The last presentation time of what was written at once, and when that was: between two of them the stream's time
    /// advances as the machine's does.
    fn anchors(&self) -> Vec<[f64; 2]> {
        let ends = self.marks.iter().skip(1).map(|mark| mark.1).chain([self.cells.len()]);
        let anchor = |(&(at, from), end): (&(f64, usize), usize)| {
            let frames = stamps(&self.cells[from..end]).filter(|stamp| stamp.pid == VIDEO);
            Some([frames.map(|stamp| stamp.pts_s).reduce(f64::max)?, at])
        };
        self.marks.iter().zip(ends).filter_map(anchor).collect()
    }
}

/// Examines pieces until none follows; `gaps_max_s`: the longest step of video and of audio that is no misfit.
pub fn examine(pieces: &Receiver<Piece>, shown: &Sender<(String, Shown)>, gaps_max_s: [f64; 2]) {
    let (mut by_stream, folder) = (BTreeMap::<String, Shown>::new(), Folder::new());
    for piece in pieces {
        let anchors = piece.anchors();
        let Some(&last @ [end_s, _]) = anchors.last() else { continue };
        let stream = by_stream.entry(piece.stream.clone()).or_default();
        let wall = |media_s: f64| {
            let &[pts_s, at] = anchors.iter().find(|anchor| anchor[0] >= media_s).unwrap_or(&last);
            at - (pts_s - media_s)
        };
        for stamp in stamps(&piece.cells[piece.fresh_from..]) {
            let last = stream.last.insert(stamp.pid, stamp);
            let Some(step_s) = last.map(|last| stamp.dts_s - last.dts_s) else { continue };
            let gap_max_s = gaps_max_s[usize::from(stamp.pid == AUDIO)];
            if step_s <= 0.0 || step_s > gap_max_s {
                let what = format!("a step of {step_s:.3} s to {:.3} s in PID {:#x}", stamp.dts_s, stamp.pid);
                stream.misfits.push(Misfit { at: wall(stamp.dts_s), step_s, what });
            }
        }
        folder.write("piece.ts", &piece.cells);
        let [flashes, beeps] = flashes_and_beeps(&folder);
        for flash in flashes {
            if flash <= stream.last_flash_s + 0.1 || flash > end_s - UNHEARD_S {
                continue;
            }
            let apart = beeps.iter().map(|beep| beep - flash).min_by(|a, b| a.abs().total_cmp(&b.abs()));
            let apart_s = apart.filter(|apart| apart.abs() < 0.5).unwrap_or(f64::INFINITY);
            stream.flashes.push(Flash { at: wall(flash), since_s: flash - stream.last_flash_s, apart_s });
            stream.last_flash_s = flash;
        }
    }
    by_stream.into_iter().for_each(|stream| shown.send(stream).expect("the test waits for it"));
}

/// Presentation times of the flashes and of the beeps in `piece.ts`, which may start between keyframes.
fn flashes_and_beeps(folder: &Folder) -> [Vec<f64>; 2] {
    let line = "-n 15 ffmpeg -v error -nostdin -threads 1 -copyts -i piece.ts \
        -map 0:v -vf scale=24:16:flags=fast_bilinear,signalstats,metadata=print:key=lavfi.signalstats.YAVG:file=luma.txt \
        -fps_mode passthrough -f null - \
        -map 0:a -af silencedetect=n=0.1:d=0.25,ametadata=print:key=lavfi.silence_end:file=ends.txt -f null -";
    let mut command = Command::new("nice");
    command.args(line.split_whitespace()).current_dir(folder.path("")).stderr(Stdio::null());
    command.status().expect("ffmpeg is installed");
    let text = |name: &str| std::fs::read_to_string(folder.path(name)).unwrap_or_default();
    let (mut flashes, mut time_s, mut was_white) = (Vec::new(), 0.0, true);
    for line in text("luma.txt").lines() {
        if let Some((_, seconds)) = line.split_once("pts_time:") {
            time_s = seconds.trim().parse().unwrap();
        } else if let Some((_, luma)) = line.split_once("YAVG=") {
            let is_white = luma.parse::<f64>().unwrap() > 128.0;
            if is_white && !was_white {
                flashes.push(time_s);
            }
            was_white = is_white;
        }
    }
    let end = |line: &str| line.split_once("silence_end=")?.1.parse().ok();
    [flashes, text("ends.txt").lines().filter_map(end).collect()]
}

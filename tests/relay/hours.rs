//! Hours of a relay in real time, from SRT to RTMP, HLS, a file and UDP, with faults by schedule: publisher and receiver are
//! killed and stopped, and so is the relay itself.
//!
//! Frames are dropped and duplicated only from a fault until a few seconds after its end, latencies stay under the ceiling,
//! timestamps rise, a beep comes with each flash, and memory, handles and threads are flat.
//!
//! `HASN_RELAY_HOURS_S` is its duration, 40 s by default with one fault of each kind; `make soak-relay-hours` runs it for
//! two hours. `HASN_RELAY_HOURS_SEED` chooses the faults, `HASN_RELAY_BIN` names another program in place of `hasn`.

mod pieces;
mod table;
mod watch;

use std::net::UdpSocket;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use self::pieces::{Growing, Piece, examine};
use self::table::Outcome;
use self::watch::{Counters, Load, LoadMeter, Playlist, Tail, receive_frames};
use crate::common::Random;
use crate::common::flat::sample;
use crate::common::program::{Folder, signal};
use crate::harness::{Beside, CODECS, FLASHES, free_port, whole_machine};

/// Duration of the run without a variable, and the one from which on faults are as long as their kind allows.
const SECONDS: f64 = 40.0;
const LONG_S: f64 = 300.0;
const TICK: Duration = Duration::from_millis(50);
/// Streams are examined in pieces of this length.
const PART_S: f64 = 60.0;
const FPS: f64 = 25.0;
pub const CEILING_MS: u64 = 2000;
/// From a fault's end until the source's frames reach all sinks: a loss that SRT reports after five seconds, the relay's
/// wait of up to 1.2 s, and the connection. An RTMP handshake in progress and the wait after it take as long.
const RECOVERY_MAX_S: f64 = 15.0;
/// After the recovery frames may still be dropped or duplicated.
const SETTLE_S: f64 = 2.0;
/// Frames duplicated at once.
const BURST_MAX: f64 = FPS;
/// Steps of video and audio from packet to packet: half a second without a frame, then duplicates; audio comes in
/// packets of up to 0.4 s.
const GAPS_MAX_S: [f64; 2] = [0.7, 0.9];
/// Index of the RTMP sink.
const RTMP: usize = 0;
pub const SINKS: [&str; 4] = ["rtmp", "hls", "file", "udp"];

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    PublisherKilled,
    PublisherStopped,
    ReceiverKilled,
    ReceiverStopped,
    RelayStopped,
}

pub const KINDS: [Kind; 5] = [
    Kind::PublisherKilled,
    Kind::ReceiverStopped,
    Kind::PublisherStopped,
    Kind::ReceiverKilled,
    Kind::RelayStopped,
];

impl Kind {
    /// Shortest and longest duration in seconds.
    fn range(self) -> [f64; 2] {
        match self {
            Kind::PublisherKilled => [1.0, 30.0],
            Kind::RelayStopped => [3.0, 20.0],
            Kind::PublisherStopped | Kind::ReceiverKilled | Kind::ReceiverStopped => [1.0, 20.0],
        }
    }

    /// Whether it concerns the RTMP sink alone.
    pub fn is_receiver(self) -> bool {
        matches!(self, Kind::ReceiverKilled | Kind::ReceiverStopped)
    }
}

/// A fault and what the counters said from its start until the relay had settled. Times in seconds of the run.
pub struct Fault {
    pub kind: Kind,
    pub start: f64,
    pub end: Option<f64>,
    /// When frames of the source had come again.
    pub fresh_at: Option<f64>,
    pub recovered: Option<f64>,
    pub duplicated: u64,
    pub lost: u64,
    pub sinks_dropped: u64,
    /// Frames duplicated at once, at most.
    pub burst: f64,
}

impl Fault {
    fn new(kind: Kind, start: f64) -> Fault {
        Fault {
            kind,
            start,
            end: None,
            fresh_at: None,
            recovered: None,
            duplicated: 0,
            lost: 0,
            sinks_dropped: 0,
            burst: 0.0,
        }
    }

    /// Whether it may show from one time to the other.
    pub fn covers(&self, from: f64, at: f64) -> bool {
        at >= self.start && self.recovered.is_none_or(|recovered| from <= recovered + SETTLE_S)
    }
}

/// Something that may not be.
pub struct Violation {
    pub at: f64,
    pub what: String,
    /// The load that explains it.
    pub load: Option<Load>,
}

/// Latency of a sink at each line, in ms, and whether a fault that concerns it was on.
pub struct Latency {
    pub p99: u64,
    pub age: u64,
    pub in_fault: bool,
}

/// A program that is started again whenever it ends, as encoders and receivers are.
struct Kept {
    line: Box<dyn Fn(u32) -> String>,
    child: Option<Beside>,
    is_wanted: bool,
    starts: u32,
}

impl Kept {
    fn new(line: impl Fn(u32) -> String + 'static) -> Kept {
        Kept { line: Box::new(line), child: None, is_wanted: true, starts: 0 }
    }

    /// Returns whether it was started.
    fn keep(&mut self, folder: &Folder) -> bool {
        let has_ended = self.child.as_mut().is_none_or(|child| child.0.try_wait().unwrap().is_some());
        let starts = has_ended && self.is_wanted;
        if starts {
            self.starts += 1;
            self.child = Some(Beside::ffmpeg(folder, &(self.line)(self.starts)));
        }
        starts
    }

    fn kill(&mut self) {
        (self.child, self.is_wanted) = (None, false);
    }

    fn signal(&self, name: &str) {
        // It may have ended in this moment, and is started again.
        self.child.iter().for_each(|child| signal(&child.0, name));
    }
}

struct Run<'a> {
    folder: &'a Folder,
    start: Instant,
    relay: Beside,
    publisher: Kept,
    receiver: Kept,
    counters: Tail,
    last: (f64, Counters),
    archive: (Tail, Growing),
    /// What the receiver records, a file for each of its starts.
    received: (Tail, Growing),
    playlist: Playlist,
    pieces: Sender<Piece>,
    cut_at: f64,
    woke_at: Instant,
    overslept_ms: f64,
    load: LoadMeter,
    outcome: Outcome,
}

impl Run<'_> {
    fn now(&self) -> f64 {
        self.start.elapsed().as_secs_f64()
    }

    fn tick(&mut self) {
        thread::sleep(TICK);
        let overslept = self.woke_at.elapsed().saturating_sub(TICK).as_secs_f64() * 1e3;
        (self.woke_at, self.overslept_ms) = (Instant::now(), self.overslept_ms.max(overslept));
        self.publisher.keep(self.folder);
        self.read_files();
        if self.receiver.keep(self.folder) {
            self.next_recording();
        }
        assert!(self.relay.0.try_wait().unwrap().is_none(), "the relay has ended");
        for line in self.counters.read_lines().lines() {
            self.note(serde_json::from_str(line).expect("a line of counters"));
        }
        let now = self.now();
        if self.outcome.faults.last().is_none_or(|fault| !fault.covers(now, now)) {
            self.outcome.samples.push(sample(self.relay.0.id()).expect("the relay runs"));
        }
        if now - self.cut_at > PART_S {
            self.cut();
        }
    }

    fn read_files(&mut self) {
        let now = self.now();
        for (tail, stream) in [&mut self.archive, &mut self.received] {
            stream.extend(&tail.read_cells(), now);
        }
        for what in self.playlist.read(now) {
            self.outcome.blame(now, what);
        }
    }

    fn cut(&mut self) {
        let now = self.now();
        self.cut_at = now;
        for piece in [self.archive.1.cut(now), self.received.1.cut(now), self.playlist.cut(now)] {
            self.pieces.send(piece).expect("pieces are examined");
        }
    }

    fn next_recording(&mut self) {
        let piece = self.received.1.cut(self.now());
        self.pieces.send(piece).expect("pieces are examined");
        let name = format!("rtmp{}", self.receiver.starts);
        self.received = (Tail::new(self.folder.path(&format!("{name}.ts"))), Growing::new(name));
    }

    fn rest(&mut self, seconds: f64) {
        let until = self.now() + seconds;
        while self.now() < until {
            self.tick();
        }
    }

    /// Checks a line of counters against the one before it.
    fn note(&mut self, now: Counters) {
        let at = self.now();
        let (from, before) = std::mem::replace(&mut self.last, (at, now.clone()));
        if before.sinks.is_empty() {
            return;
        }
        let pids: Vec<u32> = [Some(&self.relay), self.publisher.child.as_ref()]
            .into_iter()
            .flatten()
            .map(|c| c.0.id())
            .collect();
        let load = self.load.read(&pids, std::mem::take(&mut self.overslept_ms));
        self.outcome.loads.push((at, load));

        let (duplicated, lost) = (now.duplicated - before.duplicated, now.lost() - before.lost());
        let fault = self.outcome.faults.last_mut().filter(|fault| fault.covers(from, at));
        let kind = fault.as_ref().map(|fault| fault.kind);
        let mut wrong = Vec::new();
        if let Some(fault) = fault {
            fault.note(from, at, &before, &now);
            if fault.burst > BURST_MAX {
                wrong.push(format!("{:.0} frames are duplicated at once", fault.burst));
                fault.burst = 0.0;
            }
        }
        if kind.is_none_or(Kind::is_receiver) {
            for (count, how) in [(duplicated, "duplicated"), (lost, "dropped")] {
                if count > 0 {
                    wrong.push(format!("{count} frames are {how}"));
                }
            }
        }
        for (i, (sink, before)) in now.sinks.iter().zip(&before.sinks).enumerate() {
            let in_fault =
                kind == Some(Kind::RelayStopped) || kind.is_some_and(Kind::is_receiver) && i == RTMP;
            let latency = Latency { p99: sink.latency_ms_p99, age: sink.queue.age_ms, in_fault };
            let (slow_ms, dropped) = (latency.p99.max(latency.age), sink.dropped - before.dropped);
            self.outcome.latencies[i].push(latency);
            if in_fault {
                continue;
            }
            if slow_ms >= CEILING_MS || dropped > 0 || !sink.connected {
                let is_connected = if sink.connected { "" } else { ", not connected" };
                wrong.push(format!("{}: {slow_ms} ms, {dropped} packets dropped{is_connected}", SINKS[i]));
            }
        }
        if kind.is_none() {
            self.outcome.quiet_s += at - from;
        }
        for what in wrong {
            let when = kind.map_or("in a quiet stretch".into(), |kind| format!("after {kind:?}"));
            self.outcome.blame(at, format!("{what}, {when}"));
        }
    }

    /// Lasts from the fault until the relay has settled.
    fn fault(&mut self, kind: Kind, seconds: f64) {
        let start = self.now();
        self.outcome.faults.push(Fault::new(kind, start));
        match kind {
            Kind::PublisherKilled => self.publisher.kill(),
            Kind::PublisherStopped => self.publisher.signal("-STOP"),
            Kind::ReceiverKilled => self.receiver.kill(),
            Kind::ReceiverStopped => self.receiver.signal("-STOP"),
            Kind::RelayStopped => signal(&self.relay.0, "-STOP"),
        }
        self.rest(seconds);
        match kind {
            Kind::PublisherKilled => self.publisher.is_wanted = true,
            Kind::PublisherStopped => self.publisher.signal("-CONT"),
            Kind::ReceiverKilled => self.receiver.is_wanted = true,
            Kind::ReceiverStopped => self.receiver.signal("-CONT"),
            Kind::RelayStopped => signal(&self.relay.0, "-CONT"),
        }
        let end = self.now();
        self.outcome.faults.last_mut().unwrap().end = Some(end);
        while self.outcome.faults.last().unwrap().recovered.is_none() {
            if self.now() - end > RECOVERY_MAX_S {
                self.outcome.blame(
                    end,
                    format!("no recovery within {RECOVERY_MAX_S} s after {kind:?} for {seconds:.1} s"),
                );
                self.outcome.faults.last_mut().unwrap().recovered = Some(self.now());
            }
            self.tick();
        }
        self.rest(SETTLE_S);
        self.outcome.faults.last().unwrap().print(seconds);
    }
}

impl Fault {
    fn note(&mut self, from: f64, at: f64, before: &Counters, now: &Counters) {
        let duplicated = now.duplicated - before.duplicated;
        self.duplicated += duplicated;
        self.lost += now.lost() - before.lost();
        let dropped = |counters: &Counters| counters.sinks.iter().map(|sink| sink.dropped).sum::<u64>();
        self.sinks_dropped += dropped(now) - dropped(before);
        // The relay itself ran from here on.
        let from_running =
            if self.kind == Kind::RelayStopped { self.end.unwrap_or(at).max(from) } else { from };
        self.burst = self.burst.max(duplicated as f64 - FPS * (at - from_running));
        let Some(end) = self.end.filter(|&end| at > end) else { return };
        let decoded = now.decoded - before.decoded;
        if decoded > 0 && now.source_connected {
            self.fresh_at.get_or_insert(at);
        }
        let takes =
            |(now, before): (&watch::Sink, &watch::Sink)| now.connected && now.packets > before.packets;
        let all_take = now.sinks.iter().zip(&before.sinks).all(takes);
        let is_live = now.source_connected && duplicated == 0 && decoded as f64 >= 0.8 * FPS;
        if from >= end && is_live && all_take {
            self.recovered.get_or_insert(from);
        }
    }
}

fn seconds() -> f64 {
    std::env::var("HASN_RELAY_HOURS_S").map_or(SECONDS, |text| text.parse().expect("a number of seconds"))
}

/// The program of `HASN_RELAY_BIN` with the same words.
fn chosen(hasn: Command, folder: &Folder) -> Command {
    let Some(program) = std::env::var_os("HASN_RELAY_BIN") else { return hasn };
    let mut command = Command::new(program);
    command.args(hasn.get_args()).current_dir(folder.path("")).stdin(Stdio::null());
    command
}

/// One fault after the other until the time is over: each kind in turn, by chance how long and how long after the last one.
fn inject(run: &mut Run, run_s: f64) {
    let mut random =
        Random(std::env::var("HASN_RELAY_HOURS_SEED").map_or(7, |text| text.parse().expect("a number")));
    let mut part = || random.below(1001) as f64 / 1e3;
    let is_long = run_s >= LONG_S;
    for number in 0.. {
        let kind = KINDS[number % KINDS.len()];
        let [min_s, max_s] = kind.range();
        let (quiet_s, fault_s) = match is_long {
            // Faults are short more often than long; each tenth quiet stretch is.
            true if number % 10 == 9 => (240.0, min_s + (max_s - min_s) * part().powi(2)),
            true => (10.0 + 30.0 * part(), min_s + (max_s - min_s) * part().powi(2)),
            false => (1.0, min_s),
        };
        if number >= KINDS.len() && run.now() + quiet_s > run_s {
            break;
        }
        run.rest(quiet_s);
        run.fault(kind, fault_s);
    }
    run.rest((run_s - run.now()).max(3.0));
}

#[test]
fn a_relay_lasts_through_faults() {
    let (_machine, folder, run_s) = (whole_machine(), Folder::new(), seconds());
    std::fs::create_dir(folder.path("hls")).unwrap();
    let [srt, rtmp, udp] = [(); 3].map(|()| free_port());
    let rtmp = format!("rtmp://127.0.0.1:{rtmp}/live/key");
    let source = format!("srt://127.0.0.1:{srt}?mode=listener");
    let socket = UdpSocket::bind(("127.0.0.1", udp)).unwrap();
    let line = format!(
        "{source} {rtmp} hls/live.m3u8 archive.ts udp://127.0.0.1:{udp}?pkt_size=1316 --ladder none \
         --latency-max {CEILING_MS}ms"
    );
    let receive = move |number| {
        format!("-listen 1 -f flv -i {rtmp} -c copy -flush_packets 1 -f mpegts rtmp{number}.ts")
    };
    let mut receiver = Kept::new(receive);
    receiver.keep(&folder);
    let relay = Beside::relay_through(&folder, &line, |hasn| chosen(hasn, &folder));
    relay.wait_until_it_listens(&source);
    let start = Instant::now();
    let frames = receive_frames(socket, start);
    let (pieces, to_examine) = channel();
    let (to_show, shown) = channel();
    let examiner = thread::spawn(move || examine(&to_examine, &to_show, GAPS_MAX_S));
    let mut run = Run {
        folder: &folder,
        start,
        relay,
        publisher: Kept::new(move |_| format!("{FLASHES} {CODECS} -f mpegts srt://127.0.0.1:{srt}")),
        receiver,
        counters: Tail::new(folder.path("stats.json")),
        last: Default::default(),
        archive: (Tail::new(folder.path("archive.partial.ts")), Growing::new("file".into())),
        received: (Tail::new(folder.path("rtmp1.ts")), Growing::new("rtmp1".into())),
        playlist: Playlist::new(folder.path("hls")),
        pieces,
        cut_at: 0.0,
        woke_at: Instant::now(),
        overslept_ms: 0.0,
        load: LoadMeter::default(),
        outcome: Outcome::new(run_s),
    };
    let settled = |run: &Run| run.last.1.decoded > 75 && run.last.1.sinks.iter().all(|sink| sink.connected);
    while !settled(&run) {
        run.outcome.clear();
        run.tick();
        assert!(run.now() < 30.0, "the streams do not start: {}", run.folder.path("stderr").display());
    }
    run.outcome.clear();
    inject(&mut run, run_s);

    run.cut();
    let Run { relay, publisher, receiver, pieces, mut outcome, last, playlist, .. } = run;
    drop(pieces);
    relay.end_accounted(&folder);
    drop((publisher, receiver));
    examiner.join().expect("all pieces are examined");
    outcome.playlist = (playlist.segments, playlist.wait_max_s);
    outcome.connections = (last.1.source_connections, last.1.sinks[RTMP].connections);
    outcome.latency_ms_max = last.1.latency_ms_max;
    outcome.streams = shown.iter().collect();
    outcome.frames = std::mem::take(&mut *frames.lock().unwrap());
    outcome.assert_good();
}

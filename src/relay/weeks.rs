//! Weeks of a relay, simulated: mapping, pacer and rings by a clock that does not wait.
//!
//! `HASN_RELAY_DAYS` is the duration of each stream: faults come as often as in two weeks (a stall an hour of 1 to 60 s, a new
//! clock of the source and a minute of a sink a day). By default it is a day with three of each.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::mapping::Mapping;
use super::pace::Hold;
use super::pacer::Pacer;
use super::ring::{SharedPacket, Waiting};
use crate::media::Packet;

const SECOND: i64 = 1_000_000;
const HOUR: i64 = 3600 * SECOND;
const FRAME: i64 = 40_000;
const AUDIO: i64 = 24_000;
const SEGMENT: i64 = 2 * SECOND;
/// A player of segments begins some of them behind the newest.
const BEGINS_AFTER: i64 = 3 * SEGMENT;
const CEILING: i64 = 2 * SECOND;
/// Frames from one keyframe to the next.
const KEY_EVERY: i64 = 50;
/// From a frame's packet to its upscaled frame.
const UPSCALED_IN: i64 = 30_000;
/// Silence after which a connection is lost.
const LOST_AFTER: i64 = 3 * SECOND;
/// Packets that come at once at the beginning of a connection.
const PROBED: i64 = SECOND;
/// Packets that the kernel keeps while the process is stopped.
const KEPT_MAX: usize = 64;
/// After the end of a fault: frames are back, with the lead of the source used up, and with what segments have waited skipped;
/// and A/V sync.
const RECOVERED_IN: i64 = 5 * SECOND;
const SKIPPED_IN: i64 = 5 * SECOND;
const IN_SYNC_IN: i64 = SECOND;
const APART_MAX: i64 = 40_000;

#[derive(Clone, Copy, PartialEq, Debug)]
enum Kind {
    /// The source stands still, and continues where it was.
    Standstill,
    /// The network holds packets back; a connection that is not lost delivers them later.
    Network,
    /// The relay's process is stopped.
    Stopped,
    /// The source returns with another clock after two seconds, or a list of segments continues with one.
    NewClock,
}

#[derive(Clone, Copy, Debug)]
struct Fault {
    at: i64,
    lasts: i64,
    kind: Kind,
}

/// A packet of the source, and when it can be read.
#[derive(Clone, Copy)]
struct Sent {
    there_at: i64,
    /// Time of its content, and as it is stated.
    media: i64,
    stated: i64,
    is_video: bool,
    connection: u32,
}

/// A source whose clock is off, with faults.
struct Source {
    faults: VecDeque<Fault>,
    is_paced: bool,
    ppm: i64,
    /// Time of the next packet of video and of audio.
    next: [i64; 2],
    /// By which all packets are later than the source's clock says.
    delay: i64,
    /// Until when packets are held back, lost, or kept by the kernel.
    held_until: i64,
    lost_until: i64,
    stopped_until: i64,
    kept: usize,
    clock: i64,
    connection: u32,
}

impl Source {
    fn next(&mut self) -> Sent {
        loop {
            let is_video = self.next[0] <= self.next[1];
            let media = std::mem::replace(&mut self.next[usize::from(!is_video)], 0);
            self.next[usize::from(!is_video)] = media + if is_video { FRAME } else { AUDIO };
            // A segment is there at its end.
            let sent = if self.is_paced { (media / SEGMENT + 1) * SEGMENT } else { media };
            let jitter = if self.is_paced {
                media / SEGMENT * 7919 % 41 * 10_000
            } else {
                media / FRAME * 7919 % 11 * 1_000
            };
            let mut at = sent - sent / SECOND * self.ppm + self.delay + jitter;
            while let Some(fault) = self.faults.front().filter(|fault| fault.at <= at).copied() {
                self.faults.pop_front();
                at += self.begin(fault);
            }
            if at < self.lost_until {
                continue;
            }
            if at < self.stopped_until {
                self.kept += 1;
                if self.kept > KEPT_MAX && !self.is_paced {
                    continue;
                }
            }
            let there_at = at.max(self.held_until).max(self.stopped_until);
            return Sent {
                there_at,
                media,
                stated: media + self.clock,
                is_video,
                connection: self.connection,
            };
        }
    }

    /// Returns by how much the source is later from now on.
    fn begin(&mut self, Fault { at, lasts, kind }: Fault) -> i64 {
        let end = at + lasts;
        // Segments wait on the server.
        let is_lost = lasts >= LOST_AFTER && !self.is_paced;
        match kind {
            Kind::Standstill => self.delay += lasts,
            Kind::Network if is_lost => self.lost_until = end,
            Kind::Network => self.held_until = end,
            Kind::Stopped => (self.stopped_until, self.kept) = (end, 0),
            Kind::NewClock => self.clock = self.clock * 31 % (100_000 * HOUR) + 7 * HOUR,
        }
        // Segments of another clock are in the same list.
        let is_new = kind == Kind::NewClock && !self.is_paced;
        if is_new {
            self.lost_until = end;
        }
        if (is_lost && kind != Kind::Stopped) || is_new {
            self.connection += 1;
            self.held_until = end + PROBED;
        }
        if kind == Kind::Standstill { lasts } else { 0 }
    }
}

/// A sink that takes a frame in this time, and stops for a minute a day.
struct Sink {
    takes: i64,
    stops: bool,
    waiting: Waiting,
    free_at: i64,
    oldest: i64,
    taken: u64,
    dropped: u64,
}

/// What is measured.
#[derive(Default, Debug)]
struct Measured {
    frames: u64,
    duplicated: u64,
    superseded: u64,
    /// The same outside of faults, by the time of each.
    stray: Vec<i64>,
    /// The largest distance of audio and video outside of faults.
    apart: i64,
    apart_at: i64,
    beside_apart: u64,
    last: i64,
    /// The most packets that waited for a slow sink, of the first and the last third.
    waiting: [usize; 3],
}

struct Relay {
    start: Instant,
    faults: Vec<Fault>,
    /// The first fault that is not over.
    fault: usize,
    recovered_in: i64,
    pacer: Pacer,
    now: i64,
    /// How far the newest packet is behind the source.
    behind: i64,
    /// When packets were skipped last.
    skipped_at: i64,
    /// When, time in the output, arrival, what the mapping added.
    upscaled: VecDeque<[i64; 4]>,
    /// Time in the output, what the mapping added.
    audio: VecDeque<[i64; 2]>,
    audio_end: i64,
    video_offset: i64,
    sinks: [Sink; 3],
    frame: i64,
    lasts: i64,
    measured: Measured,
}

impl Relay {
    fn at(&self, us: i64) -> Instant {
        self.start + Duration::from_micros(us as u64)
    }

    /// The moment at which something that is due then is done: a process that is stopped does nothing.
    fn awake(&self, at: i64) -> i64 {
        let mut near = self.faults[self.fault.saturating_sub(1)..].iter().take(3);
        let stop = near.rfind(|f| f.kind == Kind::Stopped && (f.at..f.at + f.lasts).contains(&at));
        stop.map_or(at, |f| f.at + f.lasts)
    }

    /// Whether a fault explains what happens now; `after` its end.
    fn is_in_fault(&mut self, after: i64) -> bool {
        // A connection that was lost begins with what was probed.
        let over_at = |f: &Fault| f.at + f.lasts + PROBED;
        while self.faults.get(self.fault).is_some_and(|f| over_at(f) + self.recovered_in < self.now) {
            self.fault += 1;
        }
        let near = self.faults[self.fault..].iter().take(2);
        near.clone().any(|f| (f.at..over_at(f) + after).contains(&self.now))
    }

    fn encode_until(&mut self, until: i64) {
        loop {
            let frame_at = self.upscaled.front().map(|frame| frame[0].max(self.now));
            let patience = self.pacer.patience(self.at(self.now));
            let timeout_at = patience.map(|patience| self.now + patience.as_micros() as i64);
            let Some(next) = [frame_at, timeout_at].into_iter().flatten().min() else { return };
            let next = self.awake(next);
            if next > until {
                return;
            }
            self.now = next;
            let now = self.at(next);
            if frame_at.is_some_and(|at| at <= next) {
                let [_, time, arrived_at, offset] = self.upscaled.pop_front().expect("it is there");
                if self.pacer.accept(time, now) {
                    self.video_offset = offset;
                    self.measured.frames += 1;
                    self.send(time, arrived_at, true);
                } else {
                    self.measured.superseded += 1;
                    self.note_fault();
                }
            } else {
                let time = self.pacer.duplicate(now);
                self.measured.duplicated += 1;
                self.note_fault();
                self.send(time, next, false);
                // Silence, in steps of a packet.
                while self.audio_end < time {
                    self.audio_end += AUDIO;
                }
            }
        }
    }

    fn note_fault(&mut self) {
        if !self.is_in_fault(self.recovered_in) {
            self.measured.stray.push(self.now);
        }
    }

    fn send(&mut self, time: i64, arrived_at: i64, is_of_source: bool) {
        assert!(time > self.measured.last, "{time} after {}", self.measured.last);
        self.measured.last = time;
        while let Some([audio, offset]) = self.audio.pop_front_if(|audio| audio[0] <= time) {
            if audio >= self.audio_end - 2_000 {
                self.audio_end = audio + AUDIO;
                let is_cut = self.now - self.skipped_at < IN_SYNC_IN;
                if is_of_source && !is_cut && !self.is_in_fault(IN_SYNC_IN) {
                    let apart = (offset - self.video_offset).abs();
                    if apart > self.measured.apart {
                        self.measured.apart = apart;
                        self.measured.apart_at = self.now;
                    }
                    self.measured.beside_apart += 1;
                }
            }
        }
        let packet = Packet::of_test(time, 16, self.frame % KEY_EVERY == 0);
        self.frame += 1;
        let arrived_at = self.at(arrived_at);
        let shared = Arc::new(SharedPacket { packet, is_audio: false, arrived_at, is_of_source });
        let (start, now, part) = (self.start, self.now, (3 * self.now / (self.lasts + 1)).clamp(0, 2));
        let (day, ceiling) = (now % (24 * HOUR), Duration::from_micros(CEILING as u64));
        for sink in &mut self.sinks {
            sink.dropped += sink.waiting.push(&shared);
            sink.dropped += sink.waiting.trim(start + Duration::from_micros(now as u64), Some(ceiling));
            if sink.stops && (12 * HOUR..12 * HOUR + 60 * SECOND).contains(&day) {
                sink.free_at = now;
            } else {
                // What it took since the last frame.
                while sink.free_at <= now {
                    let free_at = start + Duration::from_micros(sink.free_at.max(now - FRAME).max(0) as u64);
                    sink.dropped += sink.waiting.trim(free_at, Some(ceiling));
                    let Some(taken) = sink.waiting.pop() else {
                        sink.free_at = now + 1;
                        break;
                    };
                    let age = free_at.saturating_duration_since(taken.arrived_at).as_micros() as i64;
                    sink.oldest = sink.oldest.max(age);
                    sink.taken += 1;
                    sink.free_at = sink.free_at.max(now - FRAME) + sink.takes;
                }
            }
            let waiting = &mut self.measured.waiting[part as usize];
            *waiting = (*waiting).max(sink.waiting.count());
        }
    }
}

/// Faults, as often as their number a day says.
fn faults(lasts: i64, stalls_a_day: i64, clocks_a_day: i64) -> Vec<Fault> {
    let every = 24 * HOUR / stalls_a_day;
    let kinds = [Kind::Standstill, Kind::Network, Kind::Stopped];
    let stalls = (1..lasts / every).map(|number| {
        let seconds = 1 + number * 37 % 60;
        let kind = kinds[number as usize % 3];
        Fault { at: number * every, lasts: seconds * SECOND + number * 7919 % 997 * 1000, kind }
    });
    let every_clock = 24 * HOUR / clocks_a_day;
    let clocks = (1..=lasts / every_clock).map(|number| {
        let at = number * every_clock - every / 2;
        Fault { at, lasts: 2 * SECOND, kind: Kind::NewClock }
    });
    let mut all: Vec<Fault> = stalls.chain(clocks).collect();
    all.sort_by_key(|fault| fault.at);
    all
}

fn simulate(is_paced: bool, ppm: i64, lasts: i64, faults: Vec<Fault>) -> Relay {
    let sink = |takes, stops| Sink {
        takes,
        stops,
        waiting: Waiting::default(),
        free_at: 0,
        oldest: 0,
        taken: 0,
        dropped: 0,
    };
    let start = Instant::now();
    let mut relay = Relay {
        start,
        faults: faults.clone(),
        fault: 0,
        recovered_in: RECOVERED_IN + if is_paced { SKIPPED_IN } else { 0 },
        pacer: Pacer::new(Duration::from_micros(FRAME as u64)),
        now: 0,
        behind: 0,
        skipped_at: i64::MIN / 2,
        upscaled: VecDeque::new(),
        audio: VecDeque::new(),
        audio_end: 0,
        video_offset: 0,
        sinks: [sink(0, false), sink(FRAME * 1001 / 1000, false), sink(FRAME / 2, true)],
        frame: 0,
        lasts,
        measured: Measured { last: -1, ..Measured::default() },
    };
    let mut source = Source {
        faults: faults.into(),
        is_paced,
        ppm,
        next: [0; 2],
        delay: 0,
        held_until: 0,
        lost_until: 0,
        stopped_until: 0,
        kept: 0,
        clock: HOUR,
        connection: 0,
    };
    let (mut ahead, mut in_ahead) = (VecDeque::from([source.next()]), 0);
    let mut connection: Option<(u32, i64, Mapping)> = None;
    let mut now = if is_paced { BEGINS_AFTER } else { 0 };
    while now < lasts {
        let sent: Sent = ahead.pop_front().expect("one is there");
        now = relay.awake(now.max(sent.there_at));
        // What can be read meanwhile, and a packet that cannot.
        in_ahead -= i64::from(sent.is_video && in_ahead > 0);
        while ahead.back().is_none_or(|last| last.there_at <= now && in_ahead < 30 * SECOND / FRAME) {
            in_ahead += i64::from(ahead.back().is_some_and(|last| last.is_video));
            ahead.push_back(source.next());
        }
        relay.encode_until(now);
        let connected = connection.as_ref().is_some_and(|(number, ..)| *number == sent.connection);
        if !connected {
            let is_later = relay.pacer.time(relay.at(now)).last_us.is_some();
            let mapping = Mapping::new(FRAME, is_paced, is_later, CEILING);
            connection = Some((sent.connection, now, mapping));
        }
        relay.behind = now - sent.there_at;
        let (_, opened_at, mapping) = connection.as_mut().expect("it was just made");
        let placed = mapping.place(sent.stated, 0, relay.pacer.time(relay.at(now)));
        let hold = mapping.hold(now - *opened_at, placed.time_us, in_ahead * FRAME);
        if matches!(hold, Hold::Skip(_)) {
            relay.skipped_at = now;
        }
        now = relay.awake(now + hold.wait_us());
        relay.encode_until(now);
        let output = relay.pacer.time(relay.at(now));
        mapping.follow(now - *opened_at, &placed, sent.is_video, &hold, output);
        if sent.is_video {
            let time = mapping.frame_time_us(sent.stated, placed.offset_us);
            let arrived_at = if is_paced { now } else { sent.there_at };
            relay.upscaled.push_back([now + UPSCALED_IN, time, arrived_at, time - sent.media]);
        } else if let Some(offset) = mapping.audio_offset_us(&placed) {
            relay.audio.push_back([sent.stated + offset, sent.stated + offset - sent.media]);
        }
    }
    relay
}

#[test]
fn a_relay_keeps_time_for_weeks() {
    let days = std::env::var("HASN_RELAY_DAYS").map(|text| text.parse::<i64>().expect("a number of days"));
    let (lasts, stalls_a_day, clocks_a_day) = match days {
        Ok(days) => (days * 24 * HOUR, 24, 1),
        Err(_) => (2 * HOUR, 144, 24),
    };
    for (is_paced, ppm) in [(false, 100), (false, -100), (true, 100), (true, -100)] {
        let faults = faults(lasts, stalls_a_day, clocks_a_day);
        let stops = faults.iter().filter(|f| f.kind == Kind::Stopped).map(|f| f.lasts);
        let stopped: i64 = stops.clone().sum();
        // What is not sent during a stop may be a gap, if it is short.
        let gaps: i64 = stops.map(|stop| stop.min(CEILING + 2 * SECOND)).sum();
        let relay = simulate(is_paced, ppm, lasts, faults);
        let Measured {
            frames,
            duplicated,
            superseded,
            ref stray,
            apart,
            apart_at,
            beside_apart,
            last,
            waiting,
        } = relay.measured;
        let name = format!("{} at {ppm:+} ppm", if is_paced { "segments" } else { "packets" });
        let off = last - (relay.now - stopped - if is_paced { BEGINS_AFTER } else { 0 });
        println!(
            "{name}: {frames} frames, {duplicated} duplicated, {superseded} superseded, {} of them outside of faults; \
             audio {:.1} ms from video at most in {beside_apart} packets; output {:+.3} s off",
            stray.len(),
            apart as f64 / 1e3,
            off as f64 / 1e6
        );
        for sink in &relay.sinks {
            println!(
                "  a sink: {} taken, {} dropped, at most {} ms old",
                sink.taken,
                sink.dropped,
                sink.oldest / 1000
            );
            assert!(sink.oldest <= CEILING, "{name}: {} us", sink.oldest);
        }
        println!("  {:.1} s behind the source at the end", relay.behind as f64 / 1e6);
        println!("  at most {waiting:?} packets waited, by thirds");
        assert!(stray.is_empty(), "{name}: at {:?}", &stray[..stray.len().min(20)]);
        assert!(relay.behind <= 30 * SECOND, "{name}: {} us behind", relay.behind);
        assert!(off.abs() <= lasts / 10_000 + gaps + SECOND, "{name}: {off} us, gaps {gaps}");
        assert!(beside_apart > 0 && apart <= APART_MAX, "{name}: {apart} us at {apart_at}");
        assert!(waiting[2] <= waiting[0].max(waiting[1]) + 1, "{name}: {waiting:?}");
    }
}

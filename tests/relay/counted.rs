//! Frames that carry their number through any codec, and when each was seen: what a publisher sends and a player shows,
//! as two `ffmpeg` commands without buffers.

use std::io::{Read, Write};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::harness::Beside;

pub const WIDTH: usize = 160;
pub const HEIGHT: usize = 96;
/// Blocks of a frame, each a bit of 20x24 samples: the number in the upper rows, its check in the lower ones.
const COLUMNS: usize = 8;
pub const ROWS: usize = 4;

/// A checksum of the number: damaged frames mix the bits of two.
fn check_of(number: u16) -> u16 {
    (u32::from(number ^ 0x5a5a).wrapping_mul(0x9e37_79b1) >> 16) as u16
}

/// Luma of frame `number`: [HEIGHT, WIDTH] u8.
pub fn drawn(number: u16) -> Vec<u8> {
    let bits = u32::from(number) << 16 | u32::from(check_of(number));
    let sample = |at: usize| {
        let (x, y) = (at % WIDTH, at / WIDTH);
        let bit = y * ROWS / HEIGHT * COLUMNS + x * COLUMNS / WIDTH;
        if bits >> (31 - bit) & 1 == 1 { 235 } else { 16 }
    };
    (0..WIDTH * HEIGHT).map(sample).collect()
}

/// The number of a frame of this width; `None` of one that is damaged.
pub fn number_of(luma: &[u8], width: usize) -> Option<u16> {
    let height = luma.len() / width;
    let bits = (0..ROWS * COLUMNS).fold(0u32, |bits, bit| {
        let (x, y) = (bit % COLUMNS * width / COLUMNS, bit / COLUMNS * height / ROWS);
        // The middle of the block: its borders are not as they were.
        let (right, down) = (width / COLUMNS / 4, height / ROWS / 4);
        let samples = (y + down..y + 3 * down).flat_map(|y| &luma[y * width + x + right..][..2 * right]);
        let sum: u32 = samples.map(|&sample| u32::from(sample)).sum();
        bits << 1 | u32::from(sum > 128 * (4 * right * down) as u32)
    });
    let number = (bits >> 16) as u16;
    (check_of(number) == bits as u16).then_some(number)
}

/// A program at a higher priority, where this user may set it: load is for the relay, not for its observers.
pub fn favoured(program: &str) -> Command {
    let mut command = Command::new("nice");
    command.args(["-n", "-10", program]);
    if may_favour() { command } else { Command::new(program) }
}

pub fn may_favour() -> bool {
    let tried = Command::new("nice").args(["-n", "-10", "true"]).output();
    tried.is_ok_and(|tried| tried.status.success() && tried.stderr.is_empty())
}

/// The same for the thread that calls.
fn favour_this_thread() {
    if let Ok(path) = std::fs::read_link("/proc/thread-self") {
        let thread = path.file_name().expect("a number");
        // Without the permission latencies are only longer.
        let _ = Command::new("renice").args(["-n", "-10", "-p"]).arg(thread).stdout(Stdio::null()).status();
    }
}

/// What sends frames: one after the other, each at its time.
pub struct Publisher {
    sent: Arc<Mutex<Vec<Instant>>>,
    /// Milliseconds for which nothing is sent; what was due then follows.
    pause_ms: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Publisher {
    /// `rate` fps to `address`. `through` is the command that runs `ffmpeg`: itself, or one that does so
    /// somewhere else. A connection that breaks is opened again, as encoders do.
    pub fn start(through: impl Fn() -> Command + Send + 'static, rate: u32, address: &str) -> Publisher {
        let line = format!(
            "-v error -fflags nobuffer -probesize 32 -f rawvideo -pix_fmt gray -video_size {WIDTH}x{HEIGHT} \
             -framerate {rate} -i - -pix_fmt yuv420p -c:v libx264 -preset ultrafast -tune zerolatency -g {rate} \
             -flush_packets 1 -muxdelay 0 -muxpreload 0 {address}"
        );
        let (sent, stop) = (Arc::<Mutex<Vec<Instant>>>::default(), Arc::<AtomicBool>::default());
        let pause_ms = Arc::<AtomicU64>::default();
        let (noted, stopped, paused_ms) = (sent.clone(), stop.clone(), pause_ms.clone());
        let thread = thread::spawn(move || {
            favour_this_thread();
            let (period, mut start) = (Duration::from_secs(1) / rate, Instant::now());
            let mut encoder = None;
            for number in 0..=u16::MAX {
                start += Duration::from_millis(paused_ms.swap(0, Relaxed));
                let due = start + period * u32::from(number);
                thread::sleep(due.saturating_duration_since(Instant::now()));
                if stopped.load(Relaxed) {
                    return;
                }
                noted.lock().unwrap().push(Instant::now());
                let (_, pipe) = encoder.get_or_insert_with(|| Publisher::encoder(through(), &line));
                if pipe.write_all(&drawn(number)).is_err() {
                    encoder = None;
                }
            }
        });
        Publisher { sent, pause_ms, stop, thread: Some(thread) }
    }

    fn encoder(mut command: Command, line: &str) -> (Beside, ChildStdin) {
        command.args(line.split_whitespace()).stdin(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("ffmpeg is installed");
        let pipe = child.stdin.take().expect("it is piped");
        (Beside(child), pipe)
    }

    /// Stalls for this time, and continues where it was.
    pub fn pause(&self, time: Duration) {
        self.pause_ms.store(time.as_millis() as u64, Relaxed);
        thread::sleep(time);
    }

    /// When each frame so far went into the encoder, by number.
    pub fn sent(&self) -> Vec<Instant> {
        self.sent.lock().unwrap().clone()
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        let _ = self.thread.take().expect("it was started").join();
    }
}

/// A frame at the far end: its number where it can be read, and when it was there.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    pub number: Option<u16>,
    pub at: Instant,
}

/// What decodes a stream at the far end.
pub struct Player {
    seen: Arc<Mutex<Vec<Seen>>>,
    _player: Beside,
}

impl Player {
    /// Of frames `width` samples wide. `ffmpeg` is the command that runs it.
    pub fn start(mut ffmpeg: Command, address: &str, width: usize) -> Player {
        let line = format!(
            "-v error -nostdin -fflags nobuffer -flags low_delay -probesize 32768 -analyzeduration 0 -threads 1 \
             -i {address} -map 0:v -fps_mode passthrough -f rawvideo -pix_fmt gray -"
        );
        ffmpeg.args(line.split_whitespace()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = ffmpeg.spawn().expect("ffmpeg is installed");
        let mut frames = child.stdout.take().expect("it is piped");
        let seen = Arc::<Mutex<Vec<Seen>>>::default();
        let noted = seen.clone();
        // Ends with the player.
        thread::spawn(move || {
            favour_this_thread();
            let mut luma = vec![0; width * (width * HEIGHT / WIDTH)];
            while frames.read_exact(&mut luma).is_ok() {
                let number = number_of(&luma, width);
                noted.lock().unwrap().push(Seen { number, at: Instant::now() });
            }
        });
        Player { seen, _player: Beside(child) }
    }

    /// All frames so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

/// Number and milliseconds from each frame's way into the publisher to its first appearance, in the order of arrival.
pub fn latencies_ms(sent: &[Instant], seen: &[Seen]) -> Vec<(u16, f64)> {
    let mut newest = None;
    let mut of = |frame: &Seen| {
        let number = frame.number.filter(|&number| newest.is_none_or(|newest| number > newest))?;
        newest = Some(number);
        let latency = frame.at - *sent.get(usize::from(number))?;
        Some((number, 1e3 * latency.as_secs_f64()))
    };
    seen.iter().filter_map(&mut of).collect()
}

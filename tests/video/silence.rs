//! Senders that fall silent, at any point and over any transport: a run ends within `--timeout`, obeys the first signal
//! meanwhile, and keeps what it has encoded.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::common::program::{Folder, Ran, say_skipped, wait_for};
use crate::common::sweep::sample;
use crate::stalls::{assert_obeys, mkfifo};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Point {
    Connect,
    Header,
    Probe,
    FirstFrame,
    Middle,
    BetweenSegments,
    End,
    LastByte,
}
const POINTS: [Point; 8] = [
    Point::Connect,
    Point::Header,
    Point::Probe,
    Point::FirstFrame,
    Point::Middle,
    Point::BetweenSegments,
    Point::End,
    Point::LastByte,
];
const TRANSPORTS: [&str; 4] = ["http", "tcp", "srt", "fifo"];

/// Time that a loaded machine takes beyond the limit: to start, to upscale what has arrived, and to write it.
const SLACK: Duration = Duration::from_secs(20);
/// Two segments of hasn's journal and a bit.
const FRAMES: usize = 500;
const VIDEO: &str = "-f lavfi -i testsrc2=s=64x48:r=25 -c:v libx264 -preset ultrafast -pix_fmt yuv420p -g 25";

fn video(folder: &Folder) -> Vec<u8> {
    folder.ffmpeg(&format!("{VIDEO} -frames:v {FRAMES} in.ts"));
    folder.read("in.ts")
}

impl Point {
    /// Bytes that arrive before the silence.
    fn bytes(self, all: usize) -> usize {
        match self {
            Point::Connect | Point::Header => 0,
            Point::Probe => 200,
            Point::FirstFrame => 3000,
            Point::Middle => all / 3,
            // The 240th of 500 frames.
            Point::BetweenSegments => all * 240 / FRAMES,
            Point::End => all * 9 / 10,
            Point::LastByte => all - 1,
        }
    }
}

/// A sender that falls silent, with all that keeps its connection.
struct Sender {
    address: String,
    _thread: Option<JoinHandle<()>>,
    _clients: Vec<TcpStream>,
    _socket: Option<UdpSocket>,
    child: Option<Child>,
}

impl Drop for Sender {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}

/// Answers every client with the bytes, and then with nothing.
fn answer(listener: TcpListener, bytes: Vec<u8>, with_header: bool, total: usize) {
    thread::spawn(move || {
        let mut open = Vec::new();
        for mut client in listener.incoming().flatten() {
            if with_header {
                let _ = client.read(&mut [0; 4096]);
                let _ = write!(client, "HTTP/1.1 200 OK\r\nContent-Length: {total}\r\n\r\n");
            }
            let _ = client.write_all(&bytes);
            open.push(client);
        }
    });
}

impl Sender {
    fn start(folder: &Folder, transport: &str, point: Point, video: &[u8]) -> Sender {
        let bytes = video[..point.bytes(video.len())].to_vec();
        let mut sender = Sender {
            address: String::new(),
            _thread: None,
            _clients: Vec::new(),
            _socket: None,
            child: None,
        };
        match transport {
            "fifo" => {
                let name = format!("{point:?}.ts");
                mkfifo(folder, &name);
                if point != Point::Connect {
                    let path = folder.path(&name);
                    sender._thread = Some(thread::spawn(move || {
                        let mut pipe = File::options().write(true).open(path).unwrap();
                        let _ = pipe.write_all(&bytes);
                        thread::sleep(Duration::from_secs(600));
                    }));
                }
                sender.address = name;
            }
            "srt" => {
                let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
                let port = socket.local_addr().unwrap().port();
                sender.address = format!("srt://127.0.0.1:{port}");
                if point == Point::Connect {
                    sender._socket = Some(socket);
                    return sender;
                }
                drop(socket);
                let mut command = srt_sender(bytes.len(), port);
                let mut child = command.stdin(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
                let mut stdin = child.stdin.take().unwrap();
                sender.child = Some(child);
                sender._thread = Some(thread::spawn(move || {
                    let _ = stdin.write_all(&bytes);
                    thread::sleep(Duration::from_secs(600));
                }));
                let hex = format!(":{port:04X} ");
                wait_for("the srt sender", || {
                    std::fs::read_to_string("/proc/net/udp").unwrap().contains(&hex).then_some(())
                });
            }
            _ => {
                let listener = TcpListener::bind("127.0.0.1:0").unwrap();
                let place = listener.local_addr().unwrap();
                sender.address = format!("{transport}://{place}/in.ts");
                match (point, transport) {
                    (Point::Connect, _) => {
                        // Connections beyond the queue of the listener are not answered.
                        let timeout = Duration::from_millis(200);
                        while let Ok(client) = TcpStream::connect_timeout(&place, timeout) {
                            sender._clients.push(client);
                        }
                        sender._thread = Some(thread::spawn(move || {
                            let _listener = listener;
                            thread::sleep(Duration::from_secs(600));
                        }));
                    }
                    (Point::Header, "http") => answer(listener, Vec::new(), false, 0),
                    _ => answer(listener, bytes, transport == "http", video.len()),
                }
            }
        }
        sender
    }
}

fn command(folder: &Folder, address: &str, output: &str, timeout: &str) -> Child {
    let line =
        format!("upscale {address} {output} --model none --threads 1 --progress none --timeout {timeout}");
    let mut command = folder.hasn_command(&line);
    command.stderr(Stdio::piped()).spawn().unwrap()
}

/// FFmpeg listens once it has read more than this from its standard input.
const FFMPEG_BYTES_MIN: usize = 1 << 15;
/// Of libsrt's tools, which `make test-relay` installs.
const SRT_TOOL: &str = "srt-live-transmit";

/// A program that sends its standard input to whoever calls this port.
fn srt_sender(bytes: usize, port: u16) -> Command {
    let address = format!("srt://127.0.0.1:{port}?mode=listener");
    let (program, line) = match bytes < FFMPEG_BYTES_MIN {
        true => (SRT_TOOL, "-q -chunk:1316 file://con"),
        false => {
            ("ffmpeg", "-nostdin -v error -f data -raw_packet_size 1316 -i pipe:0 -map 0 -c copy -f data")
        }
    };
    let mut command = Command::new(program);
    command.args(line.split(' ')).arg(address).stdout(Stdio::null());
    command
}

/// Whether the thread that waits for signals is there.
fn catches_signals(child: &Child) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{}/task", child.id())).unwrap();
    let is_theirs = |path: std::path::PathBuf| {
        std::fs::read_to_string(path.join("comm")).is_ok_and(|name| name.trim() == "signals")
    };
    threads.flatten().any(|thread| is_theirs(thread.path()))
}

/// Whether the message names what is kept of the frames that were encoded.
fn keeps(stderr: &str) -> bool {
    stderr.contains("partial.mkv") || stderr.contains("keeps the first")
}

#[test]
fn sweep_of_points_at_which_senders_fall_silent() {
    let folder = Folder::new();
    let video = video(&folder);
    let has_tool =
        Command::new(SRT_TOOL).arg("-version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    let all = TRANSPORTS.iter().flat_map(|transport| POINTS.map(|point| (*transport, point))).collect();
    for (transport, point) in sample("points of silence", all, 5) {
        let what = format!("{transport} {point:?}");
        let needs_tool = transport == "srt" && point != Point::Connect;
        if needs_tool && point.bytes(video.len()) < FFMPEG_BYTES_MIN && !has_tool {
            say_skipped(&format!("{what}: {SRT_TOOL} is not installed"));
            continue;
        }
        let has_segment = matches!(point, Point::End | Point::LastByte);
        let has_frames = point.bytes(video.len()) >= video.len() / 3;
        let sender = Sender::start(&folder, transport, point, &video);
        let (start, child) = (Instant::now(), command(&folder, &sender.address, "timed-out.mkv", "1s"));
        let ran = Ran::of(child.wait_with_output().unwrap());
        let took = start.elapsed();
        assert!(took < Duration::from_secs(1) + SLACK, "{what}: {took:?}");
        assert_eq!(ran.code, Some(1), "{what}\n{}", ran.stderr);
        assert!(ran.stderr.contains("nothing arrived for 1 s"), "{what}\n{}", ran.stderr);
        assert!(!has_frames || keeps(&ran.stderr), "{what}\n{}", ran.stderr);
        drop(sender);
        for signal in ["-INT", "-TERM"] {
            let _ = std::fs::remove_file(folder.path(&format!("{point:?}.ts")));
            let sender = Sender::start(&folder, transport, point, &video);
            let output = format!("out{signal}.mkv");
            let segment = format!("{output}.hasn/000000.segment");
            let child = command(&folder, &sender.address, &output, "60s");
            if has_segment {
                wait_for("a segment", || folder.path(&segment).exists().then_some(()));
            }
            wait_for("the signal handler", || catches_signals(&child).then_some(()));
            thread::sleep(Duration::from_millis(500));
            let ran = assert_obeys(child, &[signal]);
            assert!(!has_segment || keeps(&ran.stderr), "{what}\n{}", ran.stderr);
        }
        println!("{what}: ended after {took:?}");
        for name in folder.names().iter().filter(|name| *name != "in.ts") {
            let path = folder.path(name);
            let _ = if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
        }
    }
}

/// The limit is on silence, not on the time of the run or of a call: a byte in time restarts it.
#[test]
fn a_slow_sender_is_waited_for() {
    let folder = Folder::new();
    folder.ffmpeg(&format!("{VIDEO} -frames:v 50 in.ts"));
    let bytes = folder.read("in.ts");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}/in.ts", listener.local_addr().unwrap());
    thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            let _ = client.read(&mut [0; 4096]);
            let _ = write!(client, "HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n", bytes.len());
            for part in bytes.chunks(bytes.len().div_ceil(8)) {
                thread::sleep(Duration::from_millis(400));
                let _ = client.write_all(part);
            }
        }
    });
    let start = Instant::now();
    folder.upscale(&format!("{address} out.mkv --model none --timeout 1.5s"));
    assert!(start.elapsed() > Duration::from_secs(3));
    assert_eq!(folder.probe("out.mkv").video_pts().len(), 50);
}

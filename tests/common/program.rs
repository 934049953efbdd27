//! The program as a user runs it, in a folder of its own, beside the commands `ffmpeg` and `ffprobe`, which encode its
//! inputs and read its outputs.

use std::ffi::OsStr;
use std::io::{PipeReader, PipeWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rustix::fs::{OFlags, fcntl_setfl};
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// A temporary folder. Commands run in it and name files without a path.
pub struct Folder(tempfile::TempDir);

/// How a command ended.
pub struct Ran {
    /// `None` if a signal ended it.
    pub code: Option<i32>,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

impl Ran {
    pub fn of(output: Output) -> Ran {
        let stderr = String::from_utf8(output.stderr).expect("messages are UTF-8");
        Ran { code: output.status.code(), stdout: output.stdout, stderr }
    }

    /// Standard output as text.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).expect("text is UTF-8")
    }

    /// Asserts success.
    pub fn assert_done(&self) {
        assert_eq!(self.code, Some(0), "{}", self.stderr);
    }

    /// Asserts the code of a failure, and one line `subject: problem; remedy` after the program's name that contains
    /// `said`. `line` is what was run.
    pub fn assert_told(&self, said: &str, line: &str) {
        assert_eq!(self.code, Some(1), "{line}\n{}", self.stderr);
        let told: Vec<_> = self.stderr.lines().filter(|line| line.starts_with("hasn: ")).collect();
        assert_eq!(told.len(), 1, "{line}\n{}", self.stderr);
        let problem = told[0].strip_prefix("hasn: ").unwrap();
        assert!(problem.contains(": ") && problem.contains("; "), "{line}\n{problem}");
        assert!(problem.contains(said), "{line}\n{problem}\nsays nothing of '{said}'");
        assert!(!self.stderr.contains("panicked"), "{line}\n{}", self.stderr);
    }
}

/// A small file system in the folder `disk`, gone with the value.
pub struct SmallDisk<'a>(&'a Folder);

impl SmallDisk<'_> {
    /// `None` where this user may not mount one.
    pub fn mount<'a>(folder: &'a Folder, size: &str) -> Option<SmallDisk<'a>> {
        std::fs::create_dir(folder.path("disk")).expect("the folder is ours");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(folder.path("disk"));
        let mounted = mount.stderr(Stdio::null()).status().is_ok_and(|status| status.success());
        mounted.then_some(SmallDisk(folder))
    }

    /// Gives the file system another size.
    pub fn resize(&self, size: &str) {
        let options = format!("remount,size={size}");
        let status = Command::new("mount").args(["-o", &options]).arg(self.0.path("disk")).status();
        assert!(status.expect("mount runs").success());
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path("disk")).status();
    }
}

/// Sends a signal, `-INT` or `-STOP`. The shell's own kill: there is not always a program of that name.
pub fn signal(child: &Child, name: &str) {
    let status = Command::new("sh").args(["-c", &format!("kill {name} {}", child.id())]).status();
    assert!(status.expect("a shell").success());
}

/// A pipe that is full, so that a write waits until its reader reads.
pub fn full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, mut writer) = std::io::pipe().unwrap();
    fcntl_setfl(&writer, OFlags::NONBLOCK).unwrap();
    for size in [4096, 1] {
        while writer.write(&vec![b'\n'; size]).is_ok() {}
    }
    fcntl_setfl(&writer, OFlags::empty()).unwrap();
    (reader, writer)
}

impl Folder {
    pub fn new() -> Folder {
        Folder(tempfile::tempdir().expect("a temporary folder can be created"))
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Names of what is in it, sorted.
    pub fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.0.path()).expect("the folder is ours");
        let name =
            |entry: std::io::Result<std::fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
        let mut names: Vec<_> = entries.map(name).collect();
        names.sort();
        names
    }

    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        std::fs::write(self.path(name), bytes).expect("the folder is ours");
    }

    pub fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    /// A command with `line`'s words as its arguments.
    fn command(&self, program: impl AsRef<OsStr>, line: &str) -> Command {
        let mut command = Command::new(program);
        command.args(line.split_whitespace()).current_dir(self.0.path()).stdin(Stdio::null());
        command
    }

    /// The command `hasn` with these words.
    pub fn hasn_command(&self, line: &str) -> Command {
        self.command(env!("CARGO_BIN_EXE_hasn"), line)
    }

    /// Runs `hasn` to its end.
    pub fn hasn(&self, line: &str) -> Ran {
        Ran::of(self.hasn_command(line).output().expect("hasn starts"))
    }

    /// Runs `hasn upscale`, which has to succeed.
    pub fn upscale(&self, line: &str) -> Ran {
        let ran = self.hasn(&format!("upscale {line}"));
        assert_eq!(ran.code, Some(0), "hasn upscale {line}\n{}", ran.stderr);
        ran
    }

    /// Runs `ffmpeg`, which has to succeed without a message; `-` in the line writes to what is returned.
    pub fn ffmpeg(&self, line: &str) -> Vec<u8> {
        self.ffmpeg_fed(line, Stdio::null())
    }

    /// The same, with something on standard input.
    pub fn ffmpeg_fed(&self, line: &str, stdin: impl Into<Stdio>) -> Vec<u8> {
        let line = format!("-v error -xerror -y {line}");
        let mut command = self.command("ffmpeg", &line);
        let output = command.stdin(stdin).output().expect("the ffmpeg command is installed");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.is_empty(), "ffmpeg {line}\n{said}");
        output.stdout
    }

    /// What `ffprobe` says with these arguments.
    pub fn ffprobe<T: DeserializeOwned>(&self, line: &str, name: &str) -> T {
        let mut command = self.command("ffprobe", &format!("-v error -of json {line} {name}"));
        let output = command.output().expect("the ffprobe command is installed");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "ffprobe {line} {name}\n{said}");
        serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("ffprobe {line} {name}: {e}"))
    }

    /// Streams, packets and chapters of a file.
    pub fn probe(&self, name: &str) -> Probe {
        let shown = "-show_streams -show_chapters -show_packets -show_data_hash sha256 -show_format";
        self.ffprobe(shown, name)
    }

    /// Programs of a transport stream.
    pub fn programs(&self, name: &str) -> Vec<serde_json::Value> {
        #[derive(Deserialize)]
        struct Programs {
            programs: Vec<serde_json::Value>,
        }
        self.ffprobe::<Programs>("-show_programs", name).programs
    }

    /// Every decoded frame of the file's video.
    pub fn frames(&self, name: &str) -> Vec<FrameSeen> {
        #[derive(Deserialize)]
        struct Frames {
            frames: Vec<FrameSeen>,
        }
        self.ffprobe::<Frames>("-select_streams v:0 -show_frames", name).frames
    }

    /// MD5 of every decoded frame in this pixel format: two lists are equal when all samples are.
    pub fn frame_hashes(&self, name: &str, pix_fmt: &str) -> Vec<String> {
        self.hashes_of_all([(name.to_owned(), pix_fmt)]).remove(0)
    }

    /// The same of several files, each with its pixel format, by one start of `ffmpeg`.
    pub fn hashes_of_all<'a>(&self, files: impl IntoIterator<Item = (String, &'a str)>) -> Vec<Vec<String>> {
        let (mut inputs, mut outputs, mut count) = (String::new(), String::new(), 0);
        for (name, pix_fmt) in files {
            inputs += &format!("-i {name} ");
            outputs += &format!(
                "-map {count}:v:0 -fps_mode passthrough -pix_fmt {pix_fmt} -f framemd5 {count}.framemd5 "
            );
            count += 1;
        }
        self.ffmpeg(&(inputs + &outputs));
        let hash = |line: &str| line.rsplit(',').next().unwrap().trim().to_owned();
        let of = |i: usize| {
            let path = self.path(&format!("{i}.framemd5"));
            let text = std::fs::read_to_string(&path).expect("ffmpeg has written it");
            std::fs::remove_file(path).expect("the folder is ours");
            text.lines().filter(|line| !line.starts_with('#')).map(hash).collect()
        };
        (0..count).map(of).collect()
    }

    /// Decodes every stream, with timestamps passed through; any message is a failure.
    pub fn assert_decodes(&self, name: &str) {
        let line = "-map 0:v -map 0:a? -fps_mode passthrough -f null -enc_time_base:v";
        self.ffmpeg(&format!("-i {name} {line} {} -", input_time_base()));
    }
}

/// The value of `-enc_time_base` for the input's time base. FFmpeg before 6.1 has no word for it, from 8 on only that.
pub fn input_time_base() -> &'static str {
    if ffmpeg_major() < 7 { "-1" } else { "demux" }
}

/// The major version of the command `ffmpeg`.
pub fn ffmpeg_major() -> u32 {
    static MAJOR: OnceLock<u32> = OnceLock::new();
    *MAJOR.get_or_init(|| {
        let output =
            Command::new("ffmpeg").arg("-version").output().expect("the ffmpeg command is installed");
        let text = String::from_utf8(output.stdout).expect("a version is ASCII");
        let version = text.split_whitespace().nth(2).expect("ffmpeg version N");
        // A build from git has no number.
        version.split('.').next().and_then(|major| major.parse().ok()).unwrap_or(u32::MAX)
    })
}

/// Absolute paths of files that are part of the project.
pub fn project_file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// Waits until `condition` returns a value, for a minute at most.
pub fn wait_for<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(started.elapsed() < Duration::from_secs(60), "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// What `ffprobe` reports of a file.
#[derive(Deserialize, Debug)]
pub struct Probe {
    pub streams: Vec<Stream>,
    /// Of all streams, in the order of the file.
    #[serde(default)]
    pub packets: Vec<Packet>,
    #[serde(default)]
    pub chapters: Vec<Chapter>,
    pub format: Container,
}

impl Probe {
    /// Of one stream, in the order of the file.
    pub fn packets_of(&self, stream: usize) -> Vec<&Packet> {
        self.packets.iter().filter(|packet| packet.stream_index == stream).collect()
    }

    /// The first video stream that is no attached picture.
    pub fn video(&self) -> &Stream {
        self.streams.iter().find(|stream| stream.codec_type == "video").expect("a video stream")
    }

    /// pts of the video's packets in the order they are shown.
    pub fn video_pts(&self) -> Vec<i64> {
        let packets = self.packets_of(self.video().index);
        let mut times: Vec<_> = packets.iter().map(|packet| packet.pts.expect("a pts")).collect();
        times.sort_unstable();
        times
    }

    /// When its frames are decoded, in ticks and in the order of the file.
    pub fn video_dts(&self) -> Vec<i64> {
        let packets = self.packets_of(self.video().index);
        packets.iter().map(|packet| packet.dts.expect("a dts")).collect()
    }

    /// [`Probe::video_pts`] in seconds.
    pub fn video_seconds(&self) -> Vec<f64> {
        let tick = self.video().tick();
        self.video_pts().iter().map(|&pts| pts as f64 * tick).collect()
    }
}

#[derive(Deserialize, Debug, Clone, PartialEq, Default)]
#[serde(default)]
pub struct Stream {
    pub index: usize,
    /// Of the container, e.g. a PID.
    pub id: String,
    pub codec_type: String,
    pub codec_name: String,
    /// The container's name of the codec.
    pub codec_tag_string: String,
    pub pix_fmt: String,
    pub width: usize,
    pub height: usize,
    pub sample_aspect_ratio: String,
    pub channels: usize,
    pub channel_layout: String,
    /// Hz, as text.
    pub sample_rate: String,
    pub color_range: String,
    pub color_space: String,
    pub color_transfer: String,
    pub color_primaries: String,
    pub time_base: String,
    pub start_pts: i64,
    /// 0 where the container does not know it of a stream.
    pub duration_ts: i64,
    pub disposition: std::collections::BTreeMap<String, u8>,
    pub tags: std::collections::BTreeMap<String, String>,
    pub extradata_hash: String,
    pub side_data_list: Vec<serde_json::Value>,
}

impl Stream {
    /// Seconds of a tick of its time base.
    pub fn tick(&self) -> f64 {
        let (num, den) = self.time_base.split_once('/').expect("a fraction");
        num.parse::<f64>().unwrap() / den.parse::<f64>().unwrap()
    }

    /// Tags that people write.
    pub fn title_and_language(&self) -> [Option<&str>; 2] {
        ["title", "language"].map(|key| self.tags.get(key).map(String::as_str))
    }
}

#[derive(Deserialize, Debug, Clone, PartialEq)]
pub struct Packet {
    pub stream_index: usize,
    pub pts: Option<i64>,
    pub dts: Option<i64>,
    pub duration: Option<i64>,
    pub flags: String,
    /// Bytes, as text.
    #[serde(default)]
    pub size: String,
    #[serde(default)]
    pub data_hash: String,
}

impl Packet {
    pub fn is_key(&self) -> bool {
        self.flags.starts_with('K')
    }
}

#[derive(Deserialize, Debug, Clone, PartialEq)]
pub struct Chapter {
    pub start_time: String,
    pub end_time: String,
    #[serde(default)]
    pub tags: std::collections::BTreeMap<String, String>,
}

#[derive(Deserialize, Debug, Clone, PartialEq)]
pub struct Container {
    /// Seconds, as text; empty where the container has none.
    #[serde(default)]
    pub start_time: String,
    /// Seconds, as text; empty where the container has none.
    #[serde(default)]
    pub duration: String,
    pub format_name: String,
    #[serde(default)]
    pub tags: std::collections::BTreeMap<String, String>,
}

/// A decoded frame.
#[derive(Deserialize, Debug, Clone, PartialEq)]
pub struct FrameSeen {
    pub pts: Option<i64>,
    pub pkt_duration: Option<i64>,
    pub key_frame: u8,
    pub pix_fmt: String,
    pub width: usize,
    pub height: usize,
}

/// Prints what a test has skipped, past the harness, which hides the output of tests that pass.
pub fn say_skipped(what: &str) {
    use std::io::Write;
    std::io::stderr().write_all(format!("\nskipped: {what}\n").as_bytes()).unwrap();
}

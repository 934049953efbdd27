//! The first signal is obeyed within a second, whatever a run waits for, and a reader that stalls or is gone holds nothing
//! up.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::program::{Folder, Ran, full_pipe, say_skipped, signal, wait_for};

/// The second that is promised, and what a loaded machine takes to start and end a process.
const OBEYED_MAX: Duration = Duration::from_millis(1000);
const VIDEO: &str = "-f lavfi -i testsrc2=s=160x120:r=25 -c:v libx264 -preset ultrafast -pix_fmt yuv420p";

pub fn mkfifo(folder: &Folder, name: &str) {
    assert!(Command::new("mkfifo").arg(folder.path(name)).status().unwrap().success());
}

/// Signals a process, and asserts that it ends soon and with the code of an interrupted run.
pub fn assert_obeys(mut child: Child, names: &[&str]) -> Ran {
    let start = Instant::now();
    names.iter().for_each(|name| signal(&child, name));
    while child.try_wait().unwrap().is_none() {
        if start.elapsed() > OBEYED_MAX {
            child.kill().unwrap();
            panic!("{names:?} is not obeyed: {}", Ran::of(child.wait_with_output().unwrap()).stderr);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let ran = Ran::of(child.wait_with_output().unwrap());
    assert_eq!(ran.code, Some(130), "{}", ran.stderr);
    ran
}

#[test]
fn a_producer_that_stalls_is_not_waited_for_after_a_signal() {
    let folder = Folder::new();
    folder.ffmpeg("-f lavfi -i testsrc2=s=64x48 -frames:v 300 -pix_fmt yuv420p in.y4m");
    mkfifo(&folder, "pipe.y4m");
    let frames = folder.read("in.y4m");
    let start = |line: &str, stdin: Stdio| {
        let line = format!("upscale {line} --model none --progress none");
        folder.hasn_command(&line).stdin(stdin).stderr(Stdio::piped()).spawn().unwrap()
    };
    for name in ["-INT", "-TERM"] {
        let mut child = start("- out.mkv -y", Stdio::piped());
        let mut producer = child.stdin.take().unwrap();
        producer.write_all(&frames).unwrap();
        std::thread::sleep(Duration::from_millis(700));
        assert!(child.try_wait().unwrap().is_none(), "it waits for its producer");
        let ran = assert_obeys(child, &[name]);
        assert!(ran.stderr.contains("interrupted"), "{}", ran.stderr);
        // Before there is a frame.
        for (line, stdin) in [("- none.mkv", Stdio::piped()), ("pipe.y4m none.mkv", Stdio::null())] {
            let child = start(line, stdin);
            std::thread::sleep(Duration::from_millis(300));
            assert_obeys(child, &[name]);
        }
        drop(producer);
    }
    assert!(!folder.path("none.mkv").exists() && !folder.path("out.mkv").exists());
}

#[test]
fn a_named_pipe_ends_with_its_writer() {
    let folder = Folder::new();
    // Of some formats the end is looked at in the file, which a pipe has not.
    for pipe in ["pipe.y4m", "pipe.mkv"] {
        mkfifo(&folder, pipe);
        let line = format!("upscale {pipe} out.mkv -y --model none --progress none");
        let child = folder.hasn_command(&line).stderr(Stdio::piped()).spawn().unwrap();
        folder.ffmpeg(&format!("-f lavfi -i testsrc2=s=64x48 -frames:v 30 -pix_fmt yuv420p {pipe}"));
        Ran::of(child.wait_with_output().unwrap()).assert_done();
        assert_eq!(folder.probe("out.mkv").video_pts().len(), 30, "{pipe}");
    }
}

#[test]
fn a_reader_of_frames_that_stalls_is_not_waited_for_after_a_signal() {
    let folder = Folder::new();
    folder.ffmpeg(&format!("{VIDEO} -frames:v 300 in.mkv"));
    let (_reader, writer) = full_pipe();
    let mut hasn = folder.hasn_command("upscale in.mkv - --model none --progress none");
    let child = hasn.stdout(writer).stderr(Stdio::piped()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(700));
    assert_obeys(child, &["-TERM"]);
}

#[test]
fn a_plan_is_interrupted_while_it_decodes() {
    let folder = Folder::new();
    folder.ffmpeg(&format!("{VIDEO} -frames:v 3000 in.mkv"));
    let line = "plan in.mkv out.mkv --model none --threads 1 --filter nlmeans=s=20:r=15";
    let child = folder.hasn_command(line).stderr(Stdio::piped()).spawn().unwrap();
    wait_for("the plan to begin", || folder.path("out.mkv.hasn/journal.json").exists().then_some(()));
    assert_obeys(child, &["-INT"]);
}

#[test]
fn signals_that_come_together_are_one() {
    let folder = Folder::new();
    folder.ffmpeg(&format!("{VIDEO} -frames:v 6000 in.mkv"));
    let line = "upscale in.mkv out.mkv --model none --progress none";
    let child = folder.hasn_command(line).stderr(Stdio::piped()).spawn().unwrap();
    wait_for("a segment", || folder.path("out.mkv.hasn/000000.segment").exists().then_some(()));
    let ran = assert_obeys(child, &["-TERM", "-INT", "-INT"]);
    assert!(ran.stderr.contains("interrupted; out.mkv.hasn keeps the first"), "{}", ran.stderr);
}

/// As systemd and Slurm signal every process of a group.
#[test]
fn a_batch_whose_processes_are_all_signalled_is_interrupted_once() {
    let folder = Folder::new();
    folder.ffmpeg(&format!("{VIDEO} -frames:v 6000 in.mkv"));
    let line = "batch in.mkv --into out --model none --progress none";
    let parent = folder.hasn_command(line).stderr(Stdio::piped()).spawn().unwrap();
    wait_for("a segment", || folder.path("out/in.mkv.hasn/000000.segment").exists().then_some(()));
    let id = parent.id();
    let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap();
    let kill = format!("kill -TERM {} {id}", children.trim());
    assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    let ran = Ran::of(parent.wait_with_output().unwrap());
    assert_eq!(ran.code, Some(130), "{}", ran.stderr);
    assert!(ran.stderr.contains("interrupted; out/in.mkv.hasn keeps the first"), "{}", ran.stderr);
}

/// The prompt is only for terminals: util-linux' `script` gives it one.
#[test]
fn the_question_whether_to_resume_can_be_interrupted() {
    let folder = Folder::new();
    folder.ffmpeg(&format!("{VIDEO} -frames:v 6000 in.mkv"));
    let line = "upscale in.mkv out.mkv --model none --progress none";
    let mut child = folder.hasn_command(line).stderr(Stdio::null()).spawn().unwrap();
    wait_for("a segment", || folder.path("out.mkv.hasn/000000.segment").exists().then_some(()));
    child.kill().unwrap();
    child.wait().unwrap();
    let exec = format!("exec {} {line}", env!("CARGO_BIN_EXE_hasn"));
    let mut script = Command::new("script");
    script.args(["-qefc", &exec]).arg(folder.path("terminal")).current_dir(folder.path(""));
    let Ok(mut terminal) = script.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()
    else {
        return say_skipped("the prompt: install util-linux for its script");
    };
    wait_for("the prompt", || {
        let said = std::fs::read(folder.path("terminal")).unwrap_or_default();
        String::from_utf8_lossy(&said).contains("Resume it?").then_some(())
    });
    // Open, as its end would be an answer.
    let _keyboard = terminal.stdin.take();
    let id = terminal.id();
    let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap();
    let hasn: u32 = children.trim().parse().expect("one child");
    let start = Instant::now();
    assert!(Command::new("sh").args(["-c", &format!("kill -INT {hasn}")]).status().unwrap().success());
    let ran = Ran::of(terminal.wait_with_output().unwrap());
    assert!(start.elapsed() < OBEYED_MAX, "{:?}", start.elapsed());
    let said = String::from_utf8_lossy(&folder.read("terminal")).into_owned();
    assert_eq!(ran.code, Some(130), "{said}");
    assert!(said.contains("out.mkv.hasn: is left as it is"), "{said}");
    assert!(folder.path("out.mkv.hasn/000000.segment").exists());
}

#[test]
fn readers_of_messages_and_progress_hold_nothing_up() {
    let folder = Folder::new();
    folder.ffmpeg(&format!("{VIDEO} -frames:v 300 in.mkv"));
    // Longer than the program waits for both readers at its end, shorter than for ever.
    let limit = Duration::from_secs(30);
    let run = |name: &str, stdout: Stdio, stderr: Stdio| {
        let line = format!("upscale in.mkv {name} --model none -v -v --progress json");
        let mut child = folder.hasn_command(&line).stdout(stdout).stderr(stderr).spawn().unwrap();
        let start = Instant::now();
        let code = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status.code();
            }
            if start.elapsed() > limit {
                child.kill().unwrap();
                panic!("{name} is held up");
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        assert_eq!(code, Some(0), "{name}");
        assert_eq!(folder.probe(name).video_pts().len(), 300, "{name}");
    };
    let (_out, full_out) = full_pipe();
    run("stalled-progress.mkv", full_out.into(), Stdio::null());
    let (_err, full_err) = full_pipe();
    run("stalled-messages.mkv", Stdio::null(), full_err.into());
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    run("closed.mkv", writer.try_clone().unwrap().into(), writer.into());
}

/// The reader of messages is gone when the damage at the end is reported.
#[test]
fn frames_of_a_pipe_outlive_the_reader_of_messages() {
    let folder = Folder::new();
    folder.ffmpeg("-f lavfi -i testsrc2=s=64x48 -frames:v 300 -pix_fmt yuv420p in.y4m");
    let bytes = folder.read("in.y4m");
    folder.write("cut.y4m", &bytes[..bytes.len() - 1000]);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut hasn = folder.hasn_command("upscale - out.mkv --model none --progress none");
    let pipe = std::fs::File::open(folder.path("cut.y4m")).unwrap();
    let status = hasn.stdin(pipe).stderr(writer).status().unwrap();
    assert_eq!(status.code(), Some(1));
    assert!(folder.probe("out.partial.mkv").video_pts().len() >= 299);
}

/// Serves a file to every client, whatever it asks for.
pub fn serve(listener: &TcpListener, bytes: &[u8]) {
    let answer = |mut client: TcpStream| -> std::io::Result<()> {
        let mut request = [0; 4096];
        let _ = client.read(&mut request)?;
        write!(client, "HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n", bytes.len())?;
        client.write_all(bytes)
    };
    listener.incoming().flatten().for_each(|client| drop(answer(client)));
}

#[test]
fn no_secret_of_an_address_is_reported() {
    let folder = Folder::new();
    folder.ffmpeg(&format!("{VIDEO} -frames:v 30 in.ts"));
    let bytes = folder.read("in.ts");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || serve(&listener, &bytes));
    let address = |port: u16| format!("http://user:pa55@127.0.0.1:{port}/in.ts?token=s3cret");
    let line = format!("upscale {} out.mkv --model none -v -v --report report.json", address(port));
    let ran = folder.hasn(&line);
    ran.assert_done();
    let report = String::from_utf8(folder.read("report.json")).unwrap();
    assert!(report.contains(&format!("http://127.0.0.1:{port}/in.ts")), "{report}");
    let mut output = ran.stderr + &report;
    let unused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    for command in ["upscale", "plan"] {
        let ran = folder.hasn(&format!("{command} {} no.mkv --model none -v -v", address(unused)));
        assert_eq!(ran.code, Some(1), "{}", ran.stderr);
        output += &ran.stderr;
    }
    let ran = folder.hasn(&format!("batch {} --into no --report report.json -v -v", address(unused)));
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    output += &(ran.stderr + &String::from_utf8(folder.read("report.json")).unwrap());
    let ran = folder.hasn(&format!("compare {} in.ts -v -v --log-file log", address(port)));
    ran.assert_done();
    output += &(ran.text().to_owned() + &ran.stderr + &String::from_utf8(folder.read("log")).unwrap());
    // Usage errors repeat what is wrong.
    for wrong in ["", "info", "upscale a b"] {
        let ran = folder.hasn(&format!("{wrong} {} out.mkv", address(port)));
        assert_eq!(ran.code, Some(2), "{}", ran.stderr);
        assert!(ran.stderr.contains(&format!("'http://127.0.0.1:{port}/in.ts'")), "{}", ran.stderr);
        output += &ran.stderr;
    }
    assert_eq!(folder.hasn(&format!("upscale {} --help", address(port))).code, Some(0));
    for secret in ["pa55", "s3cret"] {
        assert!(!output.contains(secret), "{secret} is in\n{output}");
    }
}

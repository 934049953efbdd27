//! Names of files: any that a file system allows, links, and folders of others. What is printed of them gives no command to
//! a terminal.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::common::program::{Folder, Ran};
use crate::common::sweep::sample;

const FRAMES: u64 = 5;
const OPTIONS: &str = "--model none --threads 1 --encoder-opt preset=ultrafast";

/// Names without extension, each of which some program has taken for something else.
const NAMES: [&[u8]; 12] = [
    b"Alien: Covenant",
    b"file:Out: 2x",
    b"data:, x",
    b" a  b ",
    b"-y",
    b"50% off %03d",
    b"it's \"quoted\" \\ $HOME `x`",
    b"two\nlines\tand a tab",
    b"\x1b]0;owned\x07\x1b[31m",
    b"caf\xe9 \xff\xfe",
    "映画 e\u{301} 👩‍👩‍👧 \u{202e}gpj".as_bytes(),
    b"a?b=c&d#e|f*[g]{h};<i>",
];

fn folder() -> Folder {
    let folder = Folder::new();
    folder.ffmpeg(&format!(
        "-f lavfi -i testsrc2=s=32x32:r=25 -frames:v {FRAMES} -c:v libx264 -preset ultrafast v.mkv"
    ));
    folder
}

fn named(name: &[u8], extension: &str) -> OsString {
    let mut name = OsStr::from_bytes(name).to_owned();
    name.push(extension);
    name
}

/// Runs `hasn` with the words of `line`, then `arguments`. What it prints is harmless to a terminal.
fn hasn(folder: &Folder, line: &str, arguments: &[&OsStr]) -> Ran {
    let ran = Ran::of(folder.hasn_command(line).args(arguments).output().unwrap());
    let is_harmful = |c: char| c != '\n' && (c.is_control() || c == '\u{202e}');
    assert!(!ran.stderr.contains(is_harmful) && !ran.text().contains(is_harmful), "{:?}", ran.stderr);
    ran
}

/// Asserts that a file has all frames of `v.mkv`.
fn assert_complete(path: &Path) {
    let mut url = OsString::from("file:");
    url.push(path);
    let mut probe = Command::new("ffprobe");
    probe.args(
        "-v error -count_packets -select_streams v -show_entries stream=nb_read_packets -of csv=p=0"
            .split(' '),
    );
    let probed = probe.arg(url).output().unwrap();
    let found = String::from_utf8_lossy(&probed.stdout).trim().to_owned();
    assert_eq!(found, FRAMES.to_string(), "{}", path.display());
}

/// Names in a folder, sorted.
fn names(folder: &Path) -> Vec<OsString> {
    let mut names: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    names
}

#[derive(Clone, Copy, Debug)]
enum Use {
    Input,
    Output,
    Batch,
    Relay,
    Report,
}

#[test]
fn a_sweep_of_odd_names_in_every_place() {
    let uses = [Use::Input, Use::Output, Use::Batch, Use::Relay, Use::Report];
    let all = NAMES.iter().flat_map(|name| uses.map(|place| (*name, place))).collect();
    let source = folder();
    for (name, place) in sample("names x places", all, 11) {
        println!("{place:?} {}", name.escape_ascii());
        let folder = Folder::new();
        fs::copy(source.path("v.mkv"), folder.path("v.mkv")).unwrap();
        let (video, report) = (named(name, ".mkv"), named(name, ".json"));
        let at = |name: &OsStr| folder.path("").join(name);
        let copy = |name: &OsStr| fs::copy(source.path("v.mkv"), at(name)).map(drop).unwrap();
        let upscale = format!("upscale {OPTIONS} --progress none");
        let dashes = OsStr::new("--");
        // Where no file has the name, `file:` is not a part of it.
        let written = named(name.strip_prefix(b"file:").unwrap_or(name), ".mkv");
        match place {
            Use::Input => {
                copy(&video);
                hasn(&folder, &upscale, &[dashes, &video, "o.mkv".as_ref()]).assert_done();
                assert_complete(&folder.path("o.mkv"));
            }
            Use::Output => {
                hasn(&folder, &upscale, &[dashes, "v.mkv".as_ref(), &video]).assert_done();
                assert_complete(&at(&written));
                assert_eq!(names(&folder.path("")).len(), 2);
            }
            Use::Batch => {
                fs::create_dir(folder.path("in")).unwrap();
                fs::rename(at("v.mkv".as_ref()), at("in".as_ref()).join(&video)).unwrap();
                let ran = hasn(&folder, &format!("batch in --into out {OPTIONS} --report r.json"), &[]);
                ran.assert_done();
                assert_complete(&folder.path("out").join(&video));
                let report: Value = serde_json::from_slice(&folder.read("r.json")).unwrap();
                let output = Path::new("out").join(&video).to_string_lossy().into_owned();
                assert_eq!(report["videos"][0]["output"], Value::from(output));
            }
            Use::Relay => {
                copy(&video);
                let sink = named(name, ".ts");
                let line = "relay -y --ladder none --on-loss stop --progress none";
                let ran = hasn(&folder, line, &[dashes, &video, &sink]);
                if std::str::from_utf8(name).is_err() {
                    // Its options are text.
                    assert!(ran.code == Some(2) && ran.stderr.contains("invalid UTF-8"), "{}", ran.stderr);
                    continue;
                }
                let written = Path::new(&written).with_extension("ts");
                assert!(at(written.as_os_str()).exists(), "{}", ran.stderr);
            }
            Use::Report => {
                let mut option = OsString::from("--report=");
                option.push(&report);
                let line = format!("{upscale} v.mkv o.mkv");
                hasn(&folder, &line, &[&option]).assert_done();
                let report: Value = serde_json::from_slice(&fs::read(at(&report)).unwrap()).unwrap();
                assert_eq!(report["frames"]["encoded"], Value::from(FRAMES));
            }
        }
    }
}

/// FFmpeg's own way to name a file whose name looks like an address.
#[test]
fn file_precedes_any_path() {
    let folder = folder();
    folder.upscale(&format!("file:v.mkv file:data:o.mkv {OPTIONS}"));
    assert_complete(&folder.path("data:o.mkv"));
    let missing = hasn(&folder, "upscale", &["Alien: 3.mkv".as_ref(), "o.mkv".as_ref()]);
    missing.assert_told("Alien: 3.mkv: No such file or directory; check the name", "a missing file");
    folder.hasn("upscale nowhere://v.mkv o.mkv").assert_told("Protocol not found", "an unknown protocol");
    let address = folder.hasn("upscale v.mkv http://user:s3cret@localhost/o.mkv");
    address.assert_told("is an address", "an output");
    assert!(!address.stderr.contains("s3cret"));
    folder.write("jobs.toml", "[[job]]\ninput = \"file:v.mkv\"\noutput = \"file:cache:b.mkv\"\n");
    hasn(&folder, &format!("batch --jobs jobs.toml {OPTIONS}"), &[]).assert_done();
    assert_complete(&folder.path("cache:b.mkv"));
}

#[test]
fn images_and_sequences_have_any_name() {
    let folder = folder();
    fs::create_dir(folder.path("Alien: stills")).unwrap();
    let run = |arguments: &[&str]| {
        let arguments: Vec<_> = arguments.iter().map(OsStr::new).collect();
        hasn(&folder, "upscale --model none --progress none", &arguments).assert_done();
    };
    run(&["v.mkv", "Alien: stills/%03d.png"]);
    run(&["Alien: stills/%03d.png", "out: %03d.png", "--frame-rate", "25"]);
    run(&["out: 003.png", "still: 3.png"]);
    let first = fs::read(folder.path("still: 3.png")).unwrap();
    assert_eq!(first[..4], *b"\x89PNG");
    fs::rename(folder.path("still: 3.png"), folder.path("50%d.png")).unwrap();
    run(&["50%d.png", "from: pattern.png"]);
    assert_eq!(names(&folder.path("Alien: stills")).len() as u64, FRAMES);
}

#[test]
fn links_are_written_through() {
    let folder = folder();
    fs::create_dir(folder.path("nas")).unwrap();
    folder.write("nas/old.mkv", "old");
    for (target, link) in
        [("nas/old.mkv", "l.mkv"), ("nas/new.mkv", "dangling.mkv"), ("nas/none/n.mkv", "lost.mkv")]
    {
        symlink(target, folder.path(link)).unwrap();
    }
    for link in ["l.mkv", "dangling.mkv"] {
        let line = format!("upscale v.mkv {link} {OPTIONS}");
        folder.hasn(&line).assert_told("already exists", &line);
        folder.upscale(&format!("-y v.mkv {link} {OPTIONS}"));
        assert!(folder.path(link).is_symlink(), "{link}");
    }
    assert_complete(&folder.path("nas/old.mkv"));
    assert_complete(&folder.path("nas/new.mkv"));
    assert_eq!(names(&folder.path("nas")), ["new.mkv", "old.mkv"]);
    let line = format!("upscale -y v.mkv lost.mkv {OPTIONS}");
    folder.hasn(&line).assert_told("there is no such folder", &line);
    // The input is never its own output, whatever names lead to it.
    symlink("v.mkv", folder.path("same.mkv")).unwrap();
    let line = format!("upscale -y v.mkv same.mkv {OPTIONS}");
    folder.hasn(&line).assert_told("is the input itself", &line);
    // A batch knows its own output through a link.
    fs::create_dir(folder.path("out")).unwrap();
    symlink("../nas/batch.mkv", folder.path("out/v.mkv")).unwrap();
    for outcome in ["1 done, 0 skipped", "0 done, 1 skipped"] {
        let ran = folder.hasn(&format!("batch -y v.mkv --into out {OPTIONS}"));
        assert!(ran.stderr.contains(outcome), "{}", ran.stderr);
    }
    assert_complete(&folder.path("nas/batch.mkv"));
    // Images of a sequence and reports.
    symlink("nas/1.png", folder.path("1.png")).unwrap();
    symlink("nas/r.json", folder.path("r.json")).unwrap();
    folder.upscale("-y v.mkv %d.png --model none --report r.json");
    assert!(folder.path("1.png").is_symlink() && folder.path("nas/1.png").is_file());
    assert!(folder.path("r.json").is_symlink() && folder.path("nas/r.json").is_file());
}

#[test]
fn a_folder_of_others_is_left_as_it_is() {
    let folder = folder();
    let write = |name: &str| {
        fs::create_dir_all(folder.path(name).parent().unwrap()).unwrap();
        folder.write(name, "mine");
    };
    for name in ["o.mkv.hasn/photo.jpg", "o.mkv.hasn/lock", "o.mkv.hasn/sub/000000.segment"] {
        write(name);
    }
    for line in ["", "--restart", "-y"] {
        let line = format!("upscale v.mkv o.mkv {OPTIONS} {line}");
        folder.hasn(&line).assert_told("hasn did not write", &line);
    }
    assert_eq!(folder.read("o.mkv.hasn/lock"), b"mine");
    assert_eq!(names(&folder.path("o.mkv.hasn")), ["lock", "photo.jpg", "sub"]);
    assert!(!folder.path("o.mkv").exists());
    folder.write("file.mkv.hasn", "mine");
    let line = format!("upscale v.mkv file.mkv {OPTIONS}");
    folder.hasn(&line).assert_told("is not a folder", &line);
    // What others put into a journal stays there.
    let job = format!("plan v.mkv p.mkv {OPTIONS}");
    folder.hasn(&job).assert_done();
    write("p.mkv.hasn/.DS_Store");
    folder.upscale(&format!("v.mkv p.mkv --restart {OPTIONS}"));
    assert_eq!(names(&folder.path("p.mkv.hasn")), [".DS_Store"]);
    assert_complete(&folder.path("p.mkv"));
}

#[test]
fn only_files_are_written() {
    let folder = folder();
    let made =
        Command::new("mkfifo").args([folder.path("pipe.mkv"), folder.path("in.mkv")]).status().unwrap();
    assert!(made.success());
    let line = format!("upscale -y v.mkv pipe.mkv {OPTIONS}");
    folder.hasn(&line).assert_told("is not a regular file", &line);
    // A folder's pipe has no writer to wait for.
    fs::create_dir(folder.path("in")).unwrap();
    fs::rename(folder.path("in.mkv"), folder.path("in/pipe.mkv")).unwrap();
    fs::copy(folder.path("v.mkv"), folder.path("in/v.mkv")).unwrap();
    let ran = folder.hasn(&format!("batch in --into out {OPTIONS}"));
    ran.assert_done();
    assert!(ran.stderr.contains("pipe.mkv: left out"), "{}", ran.stderr);
}

/// The text of a tag or a name in messages: as escapes in lines for people, exact in JSON.
#[test]
fn names_are_escaped_for_people_and_exact_in_json() {
    let folder = folder();
    let name = "a\n\u{1b}[31m\u{9b}2J.mkv";
    let missing = hasn(&folder, "upscale", &[OsStr::new(name), "o.mkv".as_ref()]);
    missing.assert_told(r"a\n\u{1b}[31m\u{9b}2J.mkv: No such file", "a missing file");
    fs::rename(folder.path("v.mkv"), folder.path(name)).unwrap();
    let line = format!("upscale {OPTIONS} -v --report r.json");
    let ran = hasn(&folder, &line, &[OsStr::new(name), "o.mkv".as_ref()]);
    ran.assert_done();
    let report: Value = serde_json::from_slice(&folder.read("r.json")).unwrap();
    assert_eq!(report["input"], Value::from(name));
    let usage = hasn(&folder, "upscale --scale", &["\u{1b}[31m".as_ref(), "a".as_ref(), "b".as_ref()]);
    assert_eq!(usage.code, Some(2));
}

/// Runs a command of the shell to its end, in which `$0` is hasn. Returns its standard output.
fn shell(folder: &Folder, script: &str) -> String {
    let mut shell = Command::new("sh");
    shell.args(["-c", script, env!("CARGO_BIN_EXE_hasn")]).current_dir(folder.path("")).stdin(Stdio::null());
    String::from_utf8(shell.stderr(Stdio::null()).output().unwrap().stdout).unwrap()
}

#[test]
fn a_run_needs_no_reader_of_its_messages() {
    let folder = folder();
    // No network runs, so that a warning is written early: the frames are of another size than their names say.
    let gone = "{ sleep 0.1; \"$0\" COMMAND; echo $? >&3; } 2>&1 >/dev/null 3>CODE | true; cat CODE";
    let closed = "\"$0\" COMMAND 2>&- >&-; echo $?";
    let full = "\"$0\" COMMAND 2>/dev/full; echo $?";
    for (number, how) in [gone, closed, full].into_iter().enumerate() {
        let run = |command: String| {
            let script = how.replace("COMMAND", &command).replace("CODE", &format!("code{number}"));
            assert_eq!(shell(&folder, &script).trim(), "0", "{command} {how}");
        };
        run(format!("-v upscale v.mkv {number}.mkv {OPTIONS} --progress bar"));
        run(format!("batch v.mkv --into b{number} {OPTIONS} --report r{number}.json"));
        run(format!("relay -y v.mkv {number}.ts --ladder none --reconnect-max 0"));
        assert_complete(&folder.path(&format!("{number}.mkv")));
        assert!(folder.path(&format!("b{number}/.v.mkv.hasn-batch")).exists());
        assert!(folder.path(&format!("{number}.ts")).exists());
        assert!(!folder.path(&format!("{number}.mkv.hasn")).exists());
        let report: Value = serde_json::from_slice(&folder.read(&format!("r{number}.json"))).unwrap();
        assert_eq!(report["totals"]["done"], Value::from(1));
    }
}

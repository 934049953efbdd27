//! The question whether to resume, on a terminal.

use std::time::Duration;

use crate::common::program::{Folder, wait_for};
use crate::common::terminal::Terminal;

const LINE: &str = "upscale video.mkv out.mkv --model none --threads 1 --encoder-opt preset=ultrafast";

/// A run that was killed, and how far it was.
fn folder_with_journal() -> (Folder, String) {
    let folder = Folder::new();
    folder
        .ffmpeg("-f lavfi -i testsrc2=s=64x48:r=25 -frames:v 2000 -c:v libx264 -preset ultrafast video.mkv");
    let mut child = folder.hasn_command(&format!("{LINE} --progress none")).spawn().unwrap();
    wait_for("a segment", || {
        assert!(child.try_wait().unwrap().is_none(), "the run is over already");
        folder.path("out.mkv.hasn/000000.segment").exists().then_some(())
    });
    child.kill().unwrap();
    child.wait().unwrap();
    let names = std::fs::read_dir(folder.path("out.mkv.hasn")).unwrap();
    let is_segment = |name: &std::fs::DirEntry| name.file_name().to_string_lossy().ends_with(".segment");
    let frames = 240 * names.flatten().filter(is_segment).count();
    (folder, format!("{frames} of 2000 frames, {} %", 100 * frames / 2000))
}

#[test]
fn the_question_says_how_far_the_run_was_and_takes_every_answer() {
    let (folder, reached) = folder_with_journal();
    let left = "hasn: out.mkv.hasn: is left as it is; --restart starts over";
    for (columns, keys, code, said) in [
        (40, "\x03", 130, left),
        (80, "\x04", 1, left),
        (200, "n\n", 1, left),
        (80, "perhaps\n", 1, left),
        (80, "y\n", 0, "out.mkv: 2000 frames"),
    ] {
        let mut terminal = Terminal::run(&folder, "xterm", columns, LINE);
        let asked = terminal.wait_for("Resume it? [Y/n]");
        let expected = format!("hasn: out.mkv.hasn is from an interrupted run ({reached}). Resume it? [Y/n]");
        assert_eq!(asked.trim_end(), expected);
        terminal.press(keys);
        let (ended, took) = terminal.wait();
        assert_eq!(ended, Some(code), "{keys:?}\n{}", terminal.rows().join("\n"));
        assert!(code == 0 || took < Duration::from_secs(2), "{keys:?} took {took:?}");
        terminal.wait_for(said);
        assert_eq!(folder.path("out.mkv.hasn").exists(), code != 0, "{keys:?}");
    }
}

#[test]
fn where_an_option_answers_nothing_is_asked() {
    let (folder, _) = folder_with_journal();
    let mut terminal = Terminal::run(&folder, "xterm", 80, &format!("{LINE} --resume"));
    assert_eq!(terminal.wait().0, Some(0));
    assert!(!terminal.written().contains("[Y/n]") && folder.path("out.mkv").exists());
}

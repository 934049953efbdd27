//! What a terminal shows of a run.

use crate::common::program::{Folder, wait_for};
use crate::common::terminal::Terminal;

/// A video of some seconds' work.
fn folder_with_video() -> Folder {
    let folder = Folder::new();
    folder.ffmpeg("-f lavfi -i testsrc2=s=192x108:r=25:d=2 -c:v ffv1 in.mkv");
    folder
}

const UPSCALE: &str = "upscale in.mkv out.mkv --model hasn-lite-x2 --encoder ffv1";

/// The rows with a state of the run.
fn states(terminal: &Terminal) -> Vec<String> {
    terminal.rows().into_iter().filter(|row| row.contains(" %")).collect()
}

#[test]
fn the_bar_is_one_row_of_every_terminal() {
    let folder = folder_with_video();
    for (columns, whole) in [(40, false), (80, false), (200, true)] {
        let mut terminal = Terminal::run(&folder, "xterm", columns, &format!("{UPSCALE} -y"));
        let headline = terminal.wait_for("→ out.mkv 384x216");
        assert!(headline.starts_with("in.mkv 192x108 yuv420p 25 fps"), "{headline}");
        terminal.wait_for(" %, ETA ");
        let rows = states(&terminal);
        assert_eq!(rows.len(), 1, "{columns} columns\n{}", terminal.rows().join("\n"));
        assert_eq!(rows[0].contains("limited by"), whole, "{columns} columns: {}", rows[0]);
        let (code, _) = terminal.wait();
        let last = terminal.wait_for("out.mkv: 50 frames, 384x216, hasn-lite-x2 ");
        assert_eq!((code, states(&terminal).len()), (Some(0), 0), "{last}\n{}", terminal.rows().join("\n"));
    }
}

#[test]
fn the_bar_fits_a_terminal_that_becomes_narrow() {
    let folder = folder_with_video();
    let mut terminal = Terminal::run(&folder, "xterm", 160, UPSCALE);
    terminal.wait_for("limited by");
    terminal.resize(40);
    let is_narrow = |row: &&String| row.contains(" %, ETA ") && !row.contains("frames,");
    wait_for("a narrow bar", || states(&terminal).iter().find(is_narrow).cloned());
    assert_eq!(terminal.wait().0, Some(0));
}

#[test]
fn a_dumb_terminal_gets_lines() {
    let folder = folder_with_video();
    let mut terminal = Terminal::run(&folder, "dumb", 80, UPSCALE);
    assert_eq!(terminal.wait().0, Some(0));
    terminal.wait_for("out.mkv: 50 frames");
    let written = terminal.written();
    assert!(!written.contains('\x1b') && !written.replace("\r\n", "\n").contains('\r'), "{written:?}");
    assert!(written.starts_with("in.mkv 192x108 yuv420p 25 fps"), "{written:?}");
}

#[test]
fn what_is_redirected_has_no_escapes() {
    let folder = folder_with_video();
    let said = folder.hasn(UPSCALE).stderr;
    assert!(!said.contains(['\x1b', '\r']) && said.contains("→ out.mkv 384x216"), "{said:?}");
}

#[test]
fn ctrl_c_ends_a_run_with_a_line_of_its_own() {
    let folder = folder_with_video();
    let mut terminal = Terminal::run(&folder, "xterm", 80, UPSCALE);
    terminal.wait_for(" %, ETA ");
    terminal.press("\x03");
    let (code, _) = terminal.wait();
    terminal.wait_for("hasn: interrupted");
    let rows = terminal.rows();
    let is_told = rows.iter().any(|row| row.starts_with("hasn: interrupted"));
    assert!(code == Some(130) && is_told, "{code:?}\n{}", rows.join("\n"));
}

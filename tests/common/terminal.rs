//! A terminal on which the program runs, and what it shows.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use super::program::{Folder, wait_for};

const ROWS: u16 = 24;

/// A program on a terminal of its own.
pub struct Terminal {
    child: Child,
    keyboard: File,
    screen: Arc<Mutex<Screen>>,
}

struct Screen {
    parser: vt100::Parser,
    /// All that was written to the terminal.
    written: Vec<u8>,
}

impl Terminal {
    /// Starts `hasn` with these words on a terminal of this type and width.
    pub fn run(folder: &Folder, term: &str, columns: u16, line: &str) -> Terminal {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
        grantpt(&master).expect("the terminal is ours");
        unlockpt(&master).expect("the terminal is ours");
        let name = ptsname(&master, Vec::new()).expect("a terminal has a name");
        let slave = rustix::fs::open(name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty())
            .expect("the terminal is ours");
        tcsetwinsize(&slave, size(columns)).expect("a terminal has a size");
        let of_hasn = folder.hasn_command(line);
        // It makes the terminal that of the program, whose keys are signals.
        let mut command = Command::new("setsid");
        command.args(["--ctty", "--wait"]).arg(of_hasn.get_program()).args(of_hasn.get_args());
        command.current_dir(folder.path("")).env("TERM", term);
        let stdio = || Stdio::from(slave.try_clone().expect("a descriptor"));
        let child = command.stdin(stdio()).stdout(stdio()).stderr(stdio()).spawn().expect("setsid starts");
        let keyboard = File::from(master);
        let screen = Arc::new(Mutex::new(Screen {
            parser: vt100::Parser::new(ROWS, columns, 0),
            written: Vec::new(),
        }));
        let (mut output, shown) = (keyboard.try_clone().expect("a descriptor"), screen.clone());
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            // It fails once the program has ended.
            while let Ok(count @ 1..) = output.read(&mut bytes) {
                let mut screen = shown.lock().unwrap();
                screen.parser.process(&bytes[..count]);
                screen.written.extend(&bytes[..count]);
            }
        });
        Terminal { child, keyboard, screen }
    }

    /// The rows that are not empty.
    pub fn rows(&self) -> Vec<String> {
        let screen = self.screen.lock().unwrap();
        let (_, columns) = screen.parser.screen().size();
        let rows = screen.parser.screen().rows(0, columns).map(|row| row.trim_end().to_owned());
        rows.filter(|row| !row.is_empty()).collect()
    }

    /// The lines on it, those that are wider than the terminal in one piece.
    pub fn lines(&self) -> Vec<String> {
        let text = self.screen.lock().unwrap().parser.screen().contents();
        text.lines().map(str::to_owned).collect()
    }

    /// All that was written to it.
    pub fn written(&self) -> String {
        String::from_utf8_lossy(&self.screen.lock().unwrap().written).into_owned()
    }

    /// Waits for a row that contains `text`.
    pub fn wait_for(&self, text: &str) -> String {
        wait_for(text, || self.lines().into_iter().find(|line| line.contains(text)))
    }

    pub fn press(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).expect("the terminal is open");
    }

    /// Gives the terminal another width.
    pub fn resize(&self, columns: u16) {
        tcsetwinsize(&self.keyboard, size(columns)).expect("a terminal has a size");
        self.screen.lock().unwrap().parser.screen_mut().set_size(ROWS, columns);
    }

    /// The exit code, and how long it took from now on.
    pub fn wait(&mut self) -> (Option<i32>, Duration) {
        let started = Instant::now();
        let code = wait_for("the program's end", || self.child.try_wait().expect("a child")).code();
        (code, started.elapsed())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn size(columns: u16) -> Winsize {
    Winsize { ws_row: ROWS, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}

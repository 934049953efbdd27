//! Upscales a video with the library, with progress and Ctrl-C:
//!
//!     cargo run --release --example upscale_video -- input.mkv output.mkv

use std::thread;
use std::time::Duration;

use hasn::job::{self, Interrupt, Options, Progress};
use hasn::{Error, Result};

fn main() -> Result<()> {
    let mut names = std::env::args().skip(1);
    let (Some(input), Some(output)) = (names.next(), names.next()) else {
        return Err(Error::new("upscale_video", "needs two names", "give a video to read and one to write"));
    };
    let interrupt = Interrupt::default();
    signal_hook::flag::register(signal_hook::consts::SIGINT, interrupt.flag().clone())
        .map_err(|e| Error::io("SIGINT", e, "look at the system's limits"))?;

    let mut options = Options::new(input, output);
    options.overwrite = true;
    let job = job::open(&options, &interrupt)?;
    let summary = job.summary().clone();
    println!("{}x{}, {} on {}", summary.width, summary.height, summary.model, summary.engine);

    // Clones of the progress share its counters: the job runs on a thread, and this one shows them.
    let progress = Progress::default();
    let running = thread::spawn({
        let progress = progress.clone();
        move || job.run(&progress)
    });
    while !running.is_finished() {
        println!("{} of {} frames", progress.frames(), summary.frames_expected);
        thread::sleep(Duration::from_millis(500));
    }
    let report = running.join().expect("the job does not panic")?;
    match report.is_interrupted() {
        true => println!("interrupted; the same command resumes"),
        false => println!("{} frames, {:.1} fps", report.run.frames.encoded, report.run.fps),
    }
    Ok(())
}

//! Any bytes as the input of a complete run: every stream is demuxed and decoded, converted where it has to be, written
//! and verified. An error of one line, or a report.
#![no_main]

use std::io::Write;

use hasn::job::{self, AudioMode, Interrupt, Options, Progress, Size};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let folder = tempfile::tempdir_in("/dev/shm").expect("memory for files");
    let path = |name: &str| folder.path().join(name).to_str().expect("a plain name").to_owned();
    // No extension: FFmpeg decides by the bytes alone.
    std::fs::File::create(path("input")).and_then(|mut file| file.write_all(bytes)).expect("memory for files");
    let mut options = Options::new(path("input"), path("output.mkv"));
    (options.model, options.threads) = (Some("none".into()), Some(1));
    options.encoder = Some("ffv1".into());
    options.audio = AudioMode::Encode("pcm_s16le".into());
    options.size = Size::Exact { width: 32, height: 32 };
    options.to_s = Some(1.0);
    options.tolerate = u64::MAX;
    let done = job::open(&options, &Interrupt::default()).and_then(|job| job.run(&Progress::default()));
    if let Err(error) = done {
        assert!(!error.to_string().contains('\n'), "{error}");
        assert_ne!(error.kind(), hasn::ErrorKind::Internal, "{error}");
    }
});

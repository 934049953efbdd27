//! Any bytes as a video: an error, or frames whose planes can be read to the last sample.
#![no_main]

use std::io::Write;

use hasn::FrameReader;
use libfuzzer_sys::fuzz_target;

/// Frames that are read of each file.
const FRAMES: usize = 30;

fuzz_target!(|bytes: &[u8]| {
    let mut file = tempfile::NamedTempFile::new_in("/dev/shm").expect("memory for a file");
    file.write_all(bytes).expect("memory for a file");
    let Ok(mut reader) = FrameReader::open(file.path().to_str().expect("a plain name"), 1) else { return };
    for _ in 0..FRAMES {
        let Ok(Some(frame)) = reader.next_frame() else { return };
        for plane in 0..frame.format.pixel_format.planes {
            std::hint::black_box(frame.buffer.plane(plane.into()).iter().fold(0u8, |sum, b| sum ^ b));
        }
    }
});

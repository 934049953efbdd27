//! Any bytes as a film: refused in one line, or pictures whose planes can be read to the last sample.
#![no_main]

use std::io::Write;
use std::sync::Once;

use hasn::media::{self, PictureReader};
use libfuzzer_sys::fuzz_target;

/// Of a hopeful file the first pictures tell enough.
const PICTURES: usize = 30;

fuzz_target!(|bytes: &[u8]| {
    static START: Once = Once::new();
    START.call_once(|| media::init(0));
    let mut file = tempfile::NamedTempFile::new_in("/dev/shm").expect("memory for a file");
    file.write_all(bytes).expect("memory for a file");
    let Ok(mut reader) = PictureReader::open(file.path().to_str().expect("a plain name"), 1) else { return };
    for _ in 0..PICTURES {
        let Ok(Some(picture)) = reader.next_picture() else { return };
        for plane in 0..picture.geometry.format.planes {
            std::hint::black_box(picture.host().plane(plane.into()).iter().fold(0u8, |sum, b| sum ^ b));
        }
    }
});

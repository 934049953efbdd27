//! Look: whether a file is a film, and whether a name is one that films are written under. Nothing is decoded.

use std::ffi::CStr;

use ffmpeg_next::{codec, format};

use super::open::best_video;
use super::output::guess_container;

/// Demuxers of single pictures and of text that is drawn; those of one codec's pictures end in `_pipe`.
const NO_FILMS: [&str; 7] = ["image2", "ico", "tty", "bin", "xbin", "adf", "idf"];

/// Whether FFmpeg finds moving pictures in it. What it cannot open is believed its ending: a film that is damaged that
/// much is to be told, not to be passed over.
pub fn is_film(path: &str) -> bool {
    let Ok(context) = format::input(path) else { return is_film_name(path) };
    // SAFETY: an opened context has a demuxer, whose name is a static C string.
    let demuxer = unsafe { CStr::from_ptr((*(*context.as_ptr()).iformat).name) }.to_string_lossy();
    let all: Vec<usize> = context.streams().map(|stream| stream.index()).collect();
    !NO_FILMS.contains(&&*demuxer) && !demuxer.ends_with("_pipe") && best_video(&context, &all).is_some()
}

/// Whether its ending names a container that films are written into.
pub fn is_film_name(name: &str) -> bool {
    use codec::Id::{MJPEG, None, PNG, WEBP};
    // Containers of music take covers as their pictures.
    guess_container(Option::None, name)
        .is_some_and(|container| !matches!(container.video_codec.into(), None | MJPEG | PNG | WEBP))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endings_of_films_are_known() {
        for name in ["a.mkv", "a.b.MP4", "a.ts", "a.avi", "a.mov", "a.webm", "a.wmv", "a.gif"] {
            assert!(is_film_name(name), "{name}");
        }
        for name in ["a", "mkv", "a.txt", "a.nfo", "a.jpg", "a.png", "a.webp", "a.mp3", "a.flac", "a.srt"] {
            assert!(!is_film_name(name), "{name}");
        }
    }
}

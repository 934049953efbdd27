//! Look: whether a file is a video, and whether a name is one that videos are written under. Nothing is decoded.

use std::ffi::CStr;

use ffmpeg_next::{codec, format};

use crate::media::container::guess_container;
use crate::media::demux::open::best_video;

/// Demuxers of single frames and of text that is drawn; those of one codec's frames end in `_pipe`.
const NO_VIDEOS: [&str; 7] = ["image2", "ico", "tty", "bin", "xbin", "adf", "idf"];

/// Whether FFmpeg finds moving frames in it. What it cannot open is believed its ending: a video that is damaged that
/// much is to be told, not to be passed over.
pub fn is_video_file(path: &str) -> bool {
    let Ok(context) = format::input(path) else { return has_video_extension(path) };
    // SAFETY: an opened context has a demuxer, whose name is a static C string.
    let demuxer = unsafe { CStr::from_ptr((*(*context.as_ptr()).iformat).name) }.to_string_lossy();
    let all: Vec<usize> = context.streams().map(|stream| stream.index()).collect();
    !NO_VIDEOS.contains(&&*demuxer) && !demuxer.ends_with("_pipe") && best_video(&context, &all).is_some()
}

/// Whether its ending names a container that videos are written into.
pub fn has_video_extension(name: &str) -> bool {
    use codec::Id::{MJPEG, None, PNG, WEBP};
    // Containers of music take covers as their frames.
    guess_container(Option::None, name)
        .is_some_and(|container| !matches!(container.video_codec.into(), None | MJPEG | PNG | WEBP))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endings_of_videos_are_known() {
        for name in ["a.mkv", "a.b.MP4", "a.ts", "a.avi", "a.mov", "a.webm", "a.wmv", "a.gif"] {
            assert!(has_video_extension(name), "{name}");
        }
        for name in ["a", "mkv", "a.txt", "a.nfo", "a.jpg", "a.png", "a.webp", "a.mp3", "a.flac", "a.srt"] {
            assert!(!has_video_extension(name), "{name}");
        }
    }
}

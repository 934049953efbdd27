//! Probe: whether a file is a video, and whether a name has the extension of one. Nothing is decoded.

use std::path::Path;

use ffmpeg_next::{Dictionary, codec};

use crate::media::container::guess_container;
use crate::media::demux::access::{Access, Playlists};
use crate::media::demux::open::{best_video, demuxer_name, open_by};
use crate::media::demux::quirks;
use crate::media::path::url_of;
use crate::media::watch::Watch;

/// Whether FFmpeg finds video in the file. A file that it cannot open is judged by its extension: a video that is so
/// damaged is to be reported, not skipped.
pub fn is_video_file(path: &Path) -> bool {
    // The name of an image is literal, no pattern.
    let options: Dictionary = [("pattern_type", "none")].into_iter().collect();
    let url = url_of(path);
    let access = Access::of(&url.to_string_lossy(), Playlists::ByName);
    let Ok(context) = open_by(None, &url, options, Some(access), &Watch::default()) else {
        return has_video_extension(&path.to_string_lossy());
    };
    let all: Vec<usize> = context.streams().map(|stream| stream.index()).collect();
    quirks::reads_video(demuxer_name(&context)) && best_video(&context, &all).is_some()
}

/// Whether the extension is that of a container for video.
pub fn has_video_extension(name: &str) -> bool {
    use codec::Id::{MJPEG, None, PNG, WEBP};
    // Containers of audio name the codec of covers as their video codec.
    guess_container(Option::None, name)
        .is_some_and(|container| !matches!(container.video_codec.into(), None | MJPEG | PNG | WEBP))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extensions_of_videos_are_known() {
        for name in ["a.mkv", "a.b.MP4", "a.ts", "a.avi", "a.mov", "a.webm", "a.wmv", "a.gif"] {
            assert!(has_video_extension(name), "{name}");
        }
        for name in ["a", "mkv", "a.txt", "a.nfo", "a.jpg", "a.png", "a.webp", "a.mp3", "a.flac", "a.srt"] {
            assert!(!has_video_extension(name), "{name}");
        }
    }
}

//! Live sources: streams, named pipes and capture devices.
//!
//! In: addresses. Out: an opened context whose waiting can be ended. It does not reconnect: its owner opens it again.

use std::ffi::CStr;
use std::path::Path;

use ffmpeg_next::{self as ffmpeg, format};

use crate::media::demux::access::{Access, Playlists};
use crate::media::demux::address::bound;
use crate::media::demux::open::{open_by, open_pipe};
use crate::media::ffmpeg::c_string;
use crate::media::path::{Place, url_of};
use crate::media::pipe::{PipeReader, is_named_pipe};
use crate::media::watch::Watch;

/// Duration that FFmpeg probes to find the streams; its default of five seconds would all be latency.
const PROBE_US: &str = "1000000";

/// Prefixes of devices, and the demuxers that read them.
const DEVICES: [(&str, &CStr); 2] = [("lavfi:", c"lavfi"), ("v4l2:", c"video4linux2,v4l2")];

/// Whether the source is a capture device.
pub(crate) fn is_capture_device(source: &str) -> bool {
    source.starts_with("v4l2:")
}

/// Opens a source; with `listen` waits for a publisher.
pub(crate) fn open_source(
    source: &str,
    listen: bool,
    playlists: Playlists,
    watch: &Watch,
) -> std::result::Result<format::context::Input, ffmpeg::Error> {
    let mut options = ffmpeg::Dictionary::new();
    options.set("analyzeduration", PROBE_US);
    let device = DEVICES.iter().find_map(|(prefix, name)| Some((*name, source.strip_prefix(prefix)?)));
    if let Some((demuxer, url)) = device.filter(|_| !Path::new(source).exists()) {
        return open_by(Some(demuxer), &c_string(url), ffmpeg::Dictionary::new(), None, watch);
    }
    match Place::of(source).path() {
        Some(path) if is_named_pipe(path) => {
            return open_pipe(None, PipeReader::of_many_writers(path, watch)?, options, watch);
        }
        Some(path) => {
            let url = url_of(path);
            let access = Access::of(&url.to_string_lossy(), playlists);
            return open_by(None, &url, options, Some(access), watch);
        }
        None => {}
    }
    if listen && source.starts_with("rtmp") {
        options.set("listen", "1");
    }
    if source.starts_with("rtsp") {
        options.set("rtsp_flags", if listen { "listen" } else { "prefer_tcp" });
    }
    let url = c_string(&bound(source, listen));
    open_by(None, &url, options, Some(Access::of(source, playlists)), watch)
}

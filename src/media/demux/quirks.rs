//! Quirks of containers when they are read, by the name of FFmpeg's demuxer. A quirk of another container, such as AVI,
//! is added here.
//!
//! Quirks of containers when they are written, and what they can hold, are in `output.rs`.

/// Whether the stated duration counts from 0, however late the first frame is, as in Matroska and NUT.
pub(crate) fn duration_counts_from_0(demuxer: &str) -> bool {
    matches!(demuxer, "matroska,webm" | "nut")
}

/// Whether edit lists may hide frames, so that fewer are read than the container announces.
pub(crate) fn has_edit_lists(demuxer: &str) -> bool {
    demuxer.contains("mp4")
}

/// Whether a packet's duration is a negative number of 32 bits, as that of Ogg's last packet is where the file ends before
/// the packet starts.
pub(crate) fn is_negative_duration(ticks: i64) -> bool {
    (1 << 31..1 << 32).contains(&ticks)
}

/// Whether it is a transport stream. Its packets are numbered, so gaps are known, and FFmpeg marks packets next to a
/// gap as corrupt.
pub(crate) fn is_mpegts(demuxer: &str) -> bool {
    demuxer == "mpegts"
}

/// Whether it is y4m, which announces no length.
pub(crate) fn is_y4m(demuxer: &str) -> bool {
    demuxer == "yuv4mpegpipe"
}

/// Whether the container counts frames that are left out because the one before them stays.
pub(crate) fn counts_repeated_frames(demuxer: &str) -> bool {
    demuxer == "avi"
}

pub(crate) fn is_matroska(demuxer: &str) -> bool {
    demuxer.contains("matroska")
}

/// Whether it is a list of other files.
pub(crate) fn is_list(demuxer: &str) -> bool {
    matches!(demuxer, "hls" | "dash" | "concat")
}

/// Whether packets arrive before their time: lists of files, and sources that compute their frames.
pub(crate) fn arrives_early(demuxer: &str) -> bool {
    matches!(demuxer, "hls" | "dash" | "lavfi")
}

/// Whether the demuxer reads video, not single images or text that it draws. Demuxers of one codec's images end in
/// `_pipe`.
pub(crate) fn reads_video(demuxer: &str) -> bool {
    !matches!(demuxer, "image2" | "ico" | "tty" | "bin" | "xbin" | "adf" | "idf")
        && !demuxer.ends_with("_pipe")
}

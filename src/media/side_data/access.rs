//! Side data of frames and streams as FFmpeg has it: kinds and bytes, read, added and removed.

use ffmpeg_next as ffmpeg;
use ffmpeg_next::ffi::{self, AVFrameSideDataType as OfFrame, AVPacketSideDataType as OfStream};
use ffmpeg_next::frame::Video as AvFrame;

use crate::media::ffmpeg::bytes_of;

/// The side data of a frame.
pub(crate) fn frame_entries(av_frame: &AvFrame) -> impl Iterator<Item = (OfFrame, &[u8])> {
    // SAFETY: the frame is alive; its list has `nb_side_data` entries of `size` bytes each, which stay as long as it does.
    unsafe {
        let raw = &*av_frame.as_ptr();
        (0..usize::try_from(raw.nb_side_data).unwrap_or(0))
            .map(move |i| &**raw.side_data.add(i))
            .map(|entry| (entry.type_, bytes_of(entry.data, entry.size)))
    }
}

/// The first side data of a kind of a frame.
pub(crate) fn frame_bytes(av_frame: &AvFrame, kind: OfFrame) -> Option<&[u8]> {
    // SAFETY: the frame is alive, and an entry of its list has `size` bytes, which stay as long as it does.
    unsafe {
        let entry = ffi::av_frame_get_side_data(av_frame.as_ptr(), kind).as_ref()?;
        Some(bytes_of(entry.data, entry.size))
    }
}

/// Removes all side data of a kind and returns the first entry.
pub(crate) fn take(av_frame: &mut AvFrame, kind: OfFrame) -> Option<Vec<u8>> {
    let bytes = frame_bytes(av_frame, kind)?.to_vec();
    remove(av_frame, kind);
    Some(bytes)
}

/// Removes all side data of a kind from a frame.
pub(crate) fn remove(av_frame: &mut AvFrame, kind: OfFrame) {
    // SAFETY: the frame is owned.
    unsafe { ffi::av_frame_remove_side_data(av_frame.as_mut_ptr(), kind) };
}

/// Adds side data to a frame.
pub(crate) fn add_to_frame(av_frame: &mut AvFrame, kind: OfFrame, bytes: &[u8]) {
    // SAFETY: the frame is owned, and a new entry has room for the bytes that are copied.
    unsafe {
        let entry = ffi::av_frame_new_side_data(av_frame.as_mut_ptr(), kind, bytes.len());
        assert!(!entry.is_null(), "no memory for side data");
        (*entry).data.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
    }
}

/// The entries of a stream.
pub(crate) fn stream_entries(stream: &ffmpeg::Stream) -> Vec<(OfStream, Vec<u8>)> {
    // SAFETY: the stream is alive, and its list has `count` entries of `size` bytes each.
    unsafe {
        let raw = stream.as_ptr();
        #[cfg(ffmpeg_6_1)]
        let (list, count) = ((*(*raw).codecpar).coded_side_data, (*(*raw).codecpar).nb_coded_side_data);
        #[cfg(not(ffmpeg_6_1))]
        let (list, count) = ((*raw).side_data, (*raw).nb_side_data);
        (0..usize::try_from(count).unwrap_or(0))
            .map(|i| &*list.add(i))
            .map(|entry| (entry.type_, bytes_of(entry.data, entry.size).to_vec()))
            .collect()
    }
}

/// Adds side data to a stream.
pub(crate) fn add_entry(stream: &mut ffmpeg::StreamMut, kind: OfStream, bytes: &[u8]) {
    // SAFETY: the stream is alive, and the new entry is allocated with the number of bytes that are copied.
    unsafe {
        let raw = stream.as_mut_ptr();
        #[cfg(ffmpeg_6_1)]
        let copy = {
            let (list, count) =
                (&raw mut (*(*raw).codecpar).coded_side_data, &raw mut (*(*raw).codecpar).nb_coded_side_data);
            let new = ffi::av_packet_side_data_new(list, count, kind, bytes.len(), 0);
            if new.is_null() { std::ptr::null_mut() } else { (*new).data }
        };
        #[cfg(not(ffmpeg_6_1))]
        let copy = ffi::av_stream_new_side_data(raw, kind, bytes.len());
        assert!(!copy.is_null(), "no memory for a stream's side data");
        copy.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
    }
}

/// A word of a C structure; 0 past its end.
pub(crate) fn integer(bytes: &[u8], index: usize) -> i32 {
    let word = bytes.get(4 * index..4 * index + 4).and_then(|word| word.try_into().ok());
    word.map_or(0, i32::from_ne_bytes)
}

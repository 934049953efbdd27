//! What one stream of the output takes over from a stream of the input.

use ffmpeg_next::ffi;

/// What a container says of a whole stream: rotation, stereo, spherical projection, mastering display,
/// loudness. How the source was coded (buffer sizes, Dolby Vision's layers) does not hold for what we code.
///
/// # Safety
/// Both streams are alive.
pub(super) unsafe fn copy_side_data(from: *const ffi::AVStream, to: *mut ffi::AVStream) {
    use ffi::AVPacketSideDataType::{AV_PKT_DATA_CPB_PROPERTIES, AV_PKT_DATA_DOVI_CONF};
    // SAFETY: the caller's streams are alive, the list has as many entries of `size` bytes each, and the new
    // entry is allocated with as many.
    unsafe {
        #[cfg(ffmpeg_6_1)]
        let (list, count) = ((*(*from).codecpar).coded_side_data, (*(*from).codecpar).nb_coded_side_data);
        #[cfg(not(ffmpeg_6_1))]
        let (list, count) = ((*from).side_data, (*from).nb_side_data);
        for i in 0..usize::try_from(count).unwrap_or(0) {
            let entry = &*list.add(i);
            if matches!(entry.type_, AV_PKT_DATA_CPB_PROPERTIES | AV_PKT_DATA_DOVI_CONF) {
                continue;
            }
            #[cfg(ffmpeg_6_1)]
            let copy = {
                let (list, count) = (
                    &raw mut (*(*to).codecpar).coded_side_data,
                    &raw mut (*(*to).codecpar).nb_coded_side_data,
                );
                let new = ffi::av_packet_side_data_new(list, count, entry.type_, entry.size, 0);
                if new.is_null() { std::ptr::null_mut() } else { (*new).data }
            };
            #[cfg(not(ffmpeg_6_1))]
            let copy = ffi::av_stream_new_side_data(to, entry.type_, entry.size);
            assert!(!copy.is_null(), "no memory for a stream's side data");
            copy.copy_from_nonoverlapping(entry.data, entry.size);
        }
    }
}

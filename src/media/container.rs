//! Containers as FFmpeg knows them: by name and by extension.

use std::ffi::CStr;

use ffmpeg_next::ffi;

use crate::media::ffmpeg::c_string;

/// FFmpeg's short name.
pub(crate) fn container_name(container: &'static ffi::AVOutputFormat) -> &'static str {
    // SAFETY: names of containers are static C strings.
    unsafe { CStr::from_ptr(container.name) }.to_str().expect("container names are ASCII")
}

/// The container of FFmpeg's short name, else of the file name's extension.
pub(crate) fn guess_container(
    short_name: Option<&CStr>,
    file_name: &str,
) -> Option<&'static ffi::AVOutputFormat> {
    let file_name = c_string(file_name);
    let short_name = short_name.map_or(std::ptr::null(), CStr::as_ptr);
    // SAFETY: the strings live through the call; containers are static.
    unsafe { ffi::av_guess_format(short_name, file_name.as_ptr(), std::ptr::null()).as_ref() }
}

//! Nested files: what a demuxer opens besides the input itself, such as the segments of an HLS playlist. FFmpeg skips one that
//! cannot be read, without an error.

use std::cell::Cell;
use std::ffi::{c_char, c_int};
use std::sync::OnceLock;

use ffmpeg_next::{self as ffmpeg, ffi};

use crate::media::ffmpeg::is_of_device;

// SAFETY: callers pass the arguments that FFmpeg passes to `AVFormatContext.io_open`.
type Open = unsafe extern "C" fn(
    *mut ffi::AVFormatContext,
    *mut *mut ffi::AVIOContext,
    *const c_char,
    c_int,
    *mut *mut ffi::AVDictionary,
) -> c_int;
// SAFETY: the same of `AVFormatContext.io_close2`.
type Close = unsafe extern "C" fn(*mut ffi::AVFormatContext, *mut ffi::AVIOContext) -> c_int;

/// FFmpeg's own functions, which are the same for all contexts.
static DEFAULTS: OnceLock<(Open, Close)> = OnceLock::new();

thread_local! {
    /// Demuxers open and close files on the thread that reads from them.
    static ERROR: Cell<Option<ffmpeg::Error>> = const { Cell::new(None) };
}

/// Notes the errors of the devices and connections that nested files of this context are on.
pub(crate) fn watch(context: &mut ffi::AVFormatContext) {
    take_error();
    if let (Some(open), Some(close)) = (context.io_open, context.io_close2) {
        DEFAULTS.get_or_init(|| (open, close));
        context.io_open = Some(open_nested);
        context.io_close2 = Some(close_nested);
    }
}

/// The first error on this thread since the last call.
pub(crate) fn take_error() -> Option<ffmpeg::Error> {
    ERROR.take()
}

fn note(code: c_int) {
    let error = ffmpeg::Error::from(code);
    if code < 0 && is_of_device(error) {
        ERROR.set(ERROR.get().or(Some(error)));
    }
}

/// # Safety
/// FFmpeg's arguments of `AVFormatContext.io_open`.
unsafe extern "C" fn open_nested(
    context: *mut ffi::AVFormatContext,
    pb: *mut *mut ffi::AVIOContext,
    url: *const c_char,
    flags: c_int,
    options: *mut *mut ffi::AVDictionary,
) -> c_int {
    let (open, _) = DEFAULTS.get().expect("set before this function is");
    // SAFETY: the arguments are FFmpeg's own.
    let code = unsafe { open(context, pb, url, flags, options) };
    note(code);
    code
}

/// # Safety
/// FFmpeg's arguments of `AVFormatContext.io_close2`.
unsafe extern "C" fn close_nested(context: *mut ffi::AVFormatContext, pb: *mut ffi::AVIOContext) -> c_int {
    let (_, close) = DEFAULTS.get().expect("set before this function is");
    // SAFETY: the arguments are FFmpeg's own; `pb` is null or open.
    unsafe {
        note(pb.as_ref().map_or(0, |pb| pb.error));
        close(context, pb)
    }
}

//! Nested files: what a demuxer opens besides the input itself, such as the segments of an HLS playlist. FFmpeg skips one that
//! cannot be read, without an error.

use std::cell::Cell;
use std::ffi::{CStr, CString, c_char, c_int};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, OnceLock};

use ffmpeg_next::{self as ffmpeg, ffi};

use crate::media::demux::resolve::look_up;
use crate::media::ffmpeg::{c_string, is_of_device};
use crate::sync::lock;

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

/// The files that a context has open: the input itself and nested ones.
pub(crate) struct OpenFiles {
    /// Protocols that may open the input itself.
    protocols: CString,
    files: Mutex<Vec<File>>,
    /// Bytes of files that are closed, and of all files at the last look.
    closed_bytes: AtomicI64,
    seen_bytes: AtomicI64,
}

struct File(*const ffi::AVIOContext);

// SAFETY: only its count of bytes is read, under the lock that keeps it open.
unsafe impl Send for File {}

impl File {
    fn bytes(&self) -> i64 {
        // SAFETY: a file that is open; the count is plain memory, and an old value does no harm.
        unsafe { (&raw const (*self.0).bytes_read).read_volatile() }
    }
}

impl OpenFiles {
    pub fn new(protocols: &str) -> OpenFiles {
        OpenFiles {
            protocols: c_string(protocols),
            files: Mutex::default(),
            closed_bytes: AtomicI64::new(0),
            seen_bytes: AtomicI64::new(0),
        }
    }

    /// Whether bytes of any of them arrived since the last call.
    pub fn have_moved(&self) -> bool {
        let open_bytes: i64 = lock(&self.files).iter().map(File::bytes).sum();
        let bytes = open_bytes + self.closed_bytes.load(Ordering::Relaxed);
        self.seen_bytes.swap(bytes, Ordering::Relaxed) != bytes
    }
}

/// Opens the input and nested files of this context by functions that note the errors of the devices and connections that
/// they are on.
///
/// # Safety
/// `files` outlives the context.
pub(crate) unsafe fn watch(context: &mut ffi::AVFormatContext, files: &OpenFiles) {
    take_error();
    if let (Some(open), Some(close)) = (context.io_open, context.io_close2) {
        DEFAULTS.get_or_init(|| (open, close));
        context.opaque = (&raw const *files).cast_mut().cast();
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
    // SAFETY: the arguments are FFmpeg's own. Of the contexts that demuxers make for nested files, which inherit this
    // function at most, `opaque` is null.
    unsafe {
        let files = (*context).opaque.cast::<OpenFiles>().as_ref();
        let itself = files.filter(|_| CStr::from_ptr(url) == CStr::from_ptr((*context).url));
        let code = match itself {
            Some(files) => {
                let mut own = std::ptr::null_mut();
                let options = if options.is_null() { &raw mut own } else { options };
                ffi::av_dict_set(options, c"protocol_whitelist".as_ptr(), files.protocols.as_ptr(), 0);
                let code = ffi::avio_open2(pb, url, flags, &(*context).interrupt_callback, options);
                ffi::av_dict_free(&mut own);
                code
            }
            None => {
                let interrupt = &(*context).interrupt_callback;
                let is_over = || interrupt.callback.is_some_and(|is_over| is_over(interrupt.opaque) != 0);
                match look_up(&CStr::from_ptr(url).to_string_lossy(), is_over) {
                    None => ffi::AVERROR_EXIT,
                    // FFmpeg's own lookup reports one that failed.
                    Some(_) => open(context, pb, url, flags, options),
                }
            }
        };
        if let Some(files) = files.filter(|_| code >= 0) {
            lock(&files.files).push(File(*pb));
        }
        note(code);
        code
    }
}

/// # Safety
/// FFmpeg's arguments of `AVFormatContext.io_close2`.
unsafe extern "C" fn close_nested(context: *mut ffi::AVFormatContext, pb: *mut ffi::AVIOContext) -> c_int {
    let (_, close) = DEFAULTS.get().expect("set before this function is");
    // SAFETY: the arguments are FFmpeg's own; `pb` is null or open, and `opaque` as above.
    unsafe {
        note(pb.as_ref().map_or(0, |pb| pb.error));
        if let Some(files) = (*context).opaque.cast::<OpenFiles>().as_ref() {
            let mut open = lock(&files.files);
            if let Some(place) = open.iter().position(|file| std::ptr::eq(file.0, pb)) {
                let bytes = open.swap_remove(place).bytes();
                files.closed_bytes.fetch_add(bytes, Ordering::Relaxed);
            }
        }
        close(context, pb)
    }
}

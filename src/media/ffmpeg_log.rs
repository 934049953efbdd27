//! What FFmpeg says of damage only in its log: a Matroska demuxer that skips a torn cluster and an FFV1 decoder that
//! meets a wrong checksum go on without an error code or a flag.

use crate::sync::lock;
use std::cell::{Cell, RefCell};
use std::ffi::{CStr, c_char, c_int, c_void};
use std::mem;
use std::sync::Mutex;

use ffmpeg_next::ffi::{self, AVClassCategory};

/// Lines said since somebody asked last.
#[derive(Clone, Default)]
pub(crate) struct Complaints {
    count: u64,
    first: String,
}

thread_local! {
    /// Demuxers speak on the thread that reads from them.
    static OF_DEMUXER: RefCell<Complaints> = RefCell::default();
    static CELLS_ARE_MISSING: Cell<bool> = const { Cell::new(false) };
}
/// Decoders speak on threads of their own; the log is one for the process.
static OF_DECODERS: Mutex<Complaints> = Mutex::new(Complaints { count: 0, first: String::new() });

impl Complaints {
    fn add(&mut self, line: &str) {
        self.count += 1;
        if self.count == 1 {
            // Without the address of who speaks: `[matroska,webm @ 0x55d0] Invalid ...`.
            self.first = line.rsplit_once("] ").map_or(line, |(_, text)| text).to_owned();
        }
    }

    /// The first line, where there is any.
    fn take(&mut self) -> Option<String> {
        let Complaints { count, first } = mem::take(self);
        (count > 0).then_some(first)
    }
}

/// How FFmpeg begins to say that the numbers of a transport stream's cells have a hole; which packets it marks for that
/// depends on where it was in one, and often there is none to mark.
const CELLS: &[u8] = b"Continuity check failed";

/// Listens to the log, which goes on to where it went.
pub(crate) fn listen() {
    // SAFETY: `heard` is what FFmpeg asks of a callback, and may be called from any thread.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        ffi::av_log_set_callback(Some(heard))
    };
}

/// What this thread's demuxer complained of since the last call.
pub(crate) fn of_demuxer() -> Option<String> {
    OF_DEMUXER.with_borrow_mut(Complaints::take)
}

/// Whether this thread's demuxer missed cells of a transport stream since the last call.
pub(crate) fn cells_are_missing() -> bool {
    CELLS_ARE_MISSING.take()
}

/// What decoders complained of since the last call.
pub(crate) fn of_decoders() -> Option<String> {
    lock(&OF_DECODERS).take()
}

/// # Safety
/// FFmpeg's own arguments of a log line: an object that begins with its class or null, a format, which is a C string,
/// and its values.
#[cfg(target_arch = "x86_64")]
unsafe extern "C" fn heard(
    object: *mut c_void,
    level: c_int,
    format: *const c_char,
    values: *mut ffi::__va_list_tag,
) {
    use AVClassCategory::{AV_CLASS_CATEGORY_DECODER, AV_CLASS_CATEGORY_DEMUXER};
    // SAFETY: the arguments are FFmpeg's; an object begins with a pointer to its class. Values are read once each: a
    // copy of the tag is this platform's va_copy. Of the line no more is written than it has room for.
    unsafe {
        if CStr::from_ptr(format).to_bytes().starts_with(CELLS) {
            CELLS_ARE_MISSING.set(true);
        }
        let class = object.cast::<*const ffi::AVClass>().as_ref().and_then(|class| class.as_ref());
        let category = class.map(|class| class.get_category.map_or(class.category, |asked| asked(object)));
        if level <= ffi::AV_LOG_ERROR
            && matches!(category, Some(AV_CLASS_CATEGORY_DEMUXER | AV_CLASS_CATEGORY_DECODER))
        {
            let (mut copy, mut line, mut with_name) = (*values, [0; 512], 1);
            let (text, room) = (line.as_mut_ptr(), line.len() as c_int);
            ffi::av_log_format_line(object, level, format, &mut copy, text, room, &mut with_name);
            let line = CStr::from_ptr(text).to_string_lossy();
            if category == Some(AV_CLASS_CATEGORY_DEMUXER) {
                OF_DEMUXER.with_borrow_mut(|complaints| complaints.add(line.trim_end()));
            } else {
                lock(&OF_DECODERS).add(line.trim_end());
            }
        }
        ffi::av_log_default_callback(object, level, format, values);
    }
}

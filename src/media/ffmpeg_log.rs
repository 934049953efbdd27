//! Damage that FFmpeg reports only in its log: a Matroska demuxer that skips a corrupt cluster and an FFV1 decoder that
//! finds a wrong checksum return no error code and set no flag.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::mem;
use std::sync::Mutex;

use ffmpeg_next::codec;
use ffmpeg_next::ffi::{self, AVClassCategory};
use tracing::{debug, info};

use crate::media::redact::redacted_text;
use crate::sync::lock;

/// Error lines logged since the last take.
#[derive(Clone, Default)]
struct ErrorLines {
    count: u64,
    first: String,
}

thread_local! {
    /// Demuxers log on the thread that reads from them.
    static DEMUXER_ERRORS: RefCell<ErrorLines> = RefCell::default();
    static IS_DISCONTINUOUS: Cell<bool> = const { Cell::new(false) };
    static REFUSED: RefCell<Option<Refusal>> = const { RefCell::new(None) };
    static REFUSED_SIZE: RefCell<Option<String>> = const { RefCell::new(None) };
    /// A line as far as this thread has logged it, and whether FFmpeg's next text begins with the name of its object.
    static PARTIAL_LINE: RefCell<String> = RefCell::default();
    static WITH_NAME: Cell<c_int> = const { Cell::new(1) };
}
/// By the address of an AVCodecContext: a decoder logs on threads of its own.
static DECODER_ERRORS: Mutex<BTreeMap<usize, ErrorLines>> = Mutex::new(BTreeMap::new());

/// What one decoder logs. Dropped before the decoder, whose address another may get.
pub(crate) struct DecoderErrors {
    context: usize,
}

impl DecoderErrors {
    /// Listens to a decoder from now on.
    pub fn of(context: &codec::Context) -> DecoderErrors {
        // SAFETY: the pointer is read as a number only.
        let context = unsafe { context.as_ptr() } as usize;
        lock(&DECODER_ERRORS).insert(context, ErrorLines::default());
        DecoderErrors { context }
    }

    /// The first error that the decoder logged since the last call.
    pub fn take(&self) -> Option<String> {
        lock(&DECODER_ERRORS).get_mut(&self.context).and_then(ErrorLines::take)
    }
}

impl Drop for DecoderErrors {
    fn drop(&mut self) {
        lock(&DECODER_ERRORS).remove(&self.context);
    }
}

impl ErrorLines {
    fn add(&mut self, line: &str) {
        self.count += 1;
        if self.count == 1 {
            // Without the name and address of the object: `[matroska,webm @ 0x55d0] Invalid ...`.
            self.first = redacted_text(line.rsplit_once("] ").map_or(line, |(_, text)| text));
        }
    }

    /// The first line, if there is any. Resets the count.
    fn take(&mut self) -> Option<String> {
        let ErrorLines { count, first } = mem::take(self);
        (count > 0).then_some(first)
    }
}

/// Begins FFmpeg's message about a gap in the continuity counters of a transport stream. Which packets it marks as corrupt
/// depends on where in a packet the gap is; often there is none to mark.
const DISCONTINUITY: &[u8] = b"Continuity check failed";

/// Begin FFmpeg's messages about a demuxer and a protocol that an input may not use.
const REFUSED_DEMUXER: &[u8] = b"Format not on whitelist";
const REFUSED_PROTOCOL: &[u8] = b"Protocol '%s' not on whitelist";

/// Ends FFmpeg's message about frames that are too large for it.
const REFUSED_SIZE_OF: &[u8] = b" size %ux%u is invalid\n";

/// What an input may not use, by FFmpeg's name.
pub(crate) enum Refusal {
    Demuxer(String),
    Protocol(String),
}

impl Refusal {
    /// Reads `[hls @ 0x55d0] Format not on whitelist ...` or `[...] Protocol 'http' not on whitelist ...`.
    fn of(format: &[u8], line: &str) -> Option<Refusal> {
        if format.starts_with(REFUSED_DEMUXER) {
            let name = line.trim_start_matches('[').split(" @ ").next()?;
            return Some(Refusal::Demuxer(name.to_owned()));
        }
        let is_protocol = format.starts_with(REFUSED_PROTOCOL);
        is_protocol.then(|| line.split('\'').nth(1)).flatten().map(|name| Refusal::Protocol(name.to_owned()))
    }
}

/// Installs the callback, which takes the place of FFmpeg's default one. It passes on C's variable arguments, whose type
/// differs between processors.
pub(crate) fn install() {
    #[cfg(not(target_arch = "x86_64"))]
    tracing::warn!("damage that FFmpeg only logs is not found on this processor");
    // SAFETY: `callback` has the signature that FFmpeg asks for, and may be called from any thread.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        ffi::av_log_set_callback(Some(callback))
    };
}

/// The first error that this thread's demuxer logged since the last call.
pub(crate) fn take_demuxer_error() -> Option<String> {
    DEMUXER_ERRORS.with_borrow_mut(ErrorLines::take)
}

/// Whether this thread's demuxer found a gap in a transport stream's continuity counters since the last call.
pub(crate) fn take_discontinuity() -> bool {
    IS_DISCONTINUOUS.take()
}

/// The first demuxer or protocol that this thread was refused since the last call.
pub(crate) fn take_refusal() -> Option<Refusal> {
    REFUSED.take()
}

/// The size of frames, as `30000x30000`, that FFmpeg last took for too large on this thread since the last call.
pub(crate) fn take_refused_size() -> Option<String> {
    REFUSED_SIZE.take()
}

/// # Safety
/// FFmpeg's own arguments of a log line: an object that begins with its class or null, a format, which is a C string,
/// and its values.
#[cfg(target_arch = "x86_64")]
unsafe extern "C" fn callback(
    object: *mut c_void,
    level: c_int,
    format: *const c_char,
    values: *mut ffi::__va_list_tag,
) {
    use AVClassCategory::{AV_CLASS_CATEGORY_DECODER, AV_CLASS_CATEGORY_DEMUXER};
    // SAFETY: the arguments are FFmpeg's; an object begins with a pointer to its class. Values are read once each: a
    // copy of the tag is this platform's va_copy. FFmpeg writes no more of the line than it has room for.
    unsafe {
        let template = CStr::from_ptr(format).to_bytes();
        if template.starts_with(DISCONTINUITY) {
            IS_DISCONTINUOUS.set(true);
        }
        let class = object.cast::<*const ffi::AVClass>().as_ref().and_then(|class| class.as_ref());
        let category = class.map(|class| class.get_category.map_or(class.category, |get| get(object)));
        if level <= ffi::AV_LOG_ERROR {
            let (mut copy, mut line, mut with_name) = (*values, [0; 512], 1);
            let (text, room) = (line.as_mut_ptr(), line.len() as c_int);
            ffi::av_log_format_line(object, level, format, &mut copy, text, room, &mut with_name);
            let line = CStr::from_ptr(text).to_string_lossy();
            if template.ends_with(REFUSED_SIZE_OF) {
                let size = line.split(" is invalid").next().and_then(|before| before.rsplit(' ').next());
                REFUSED_SIZE.set(size.map(str::to_owned));
            }
            match (Refusal::of(template, &line), category) {
                (Some(refusal), _) => REFUSED.with_borrow_mut(|first| {
                    first.get_or_insert(refusal);
                }),
                (_, Some(AV_CLASS_CATEGORY_DEMUXER)) => {
                    DEMUXER_ERRORS.with_borrow_mut(|errors| errors.add(line.trim_end()));
                }
                (_, Some(AV_CLASS_CATEGORY_DECODER)) => {
                    let mut errors = lock(&DECODER_ERRORS);
                    if let Some(errors) = errors.get_mut(&(object as usize)) {
                        errors.add(line.trim_end());
                    }
                }
                _ => {}
            }
        }
        if level <= ffi::av_log_get_level() {
            let (mut line, mut with_name) = ([0; 1024], WITH_NAME.get());
            let (text, room) = (line.as_mut_ptr(), line.len() as c_int);
            ffi::av_log_format_line(object, level, format, values, text, room, &mut with_name);
            WITH_NAME.set(with_name);
            log(level, &CStr::from_ptr(text).to_string_lossy());
        }
    }
}

/// Passes a line on to `tracing`, once it is complete: standard error may have a reader that stalls.
#[cfg(target_arch = "x86_64")]
fn log(level: c_int, text: &str) {
    // A thread that ends has no line any more.
    let _ = PARTIAL_LINE.try_with(|partial| {
        let mut line = partial.borrow_mut();
        line.push_str(text);
        if !line.ends_with('\n') {
            return;
        }
        let line = redacted_text(&mem::take(&mut *line));
        match level <= ffi::AV_LOG_WARNING {
            true => info!("{}", line.trim_end()),
            false => debug!("{}", line.trim_end()),
        }
    });
}

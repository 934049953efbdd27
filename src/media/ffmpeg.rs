//! What every part of `media` needs of FFmpeg: initialization, version, errors, strings and rationals.

use std::ffi::{CStr, CString};
use std::io;
use std::sync::Once;

use ffmpeg_next::{self as ffmpeg, ffi};

use crate::error::{Error, ErrorKind};
use crate::frame::TimeBase;
use crate::media::ffmpeg_log;

/// Ticks of FFmpeg's own clock, AV_TIME_BASE.
pub(crate) const MICROSECONDS: ffmpeg::Rational = ffmpeg::Rational(1, 1_000_000);

static INITIALIZED: Once = Once::new();

/// Initializes FFmpeg with its own log off, unless it is initialized.
pub fn start() {
    INITIALIZED.call_once(|| {
        ffmpeg::init().expect("FFmpeg's registration never fails");
        ffmpeg_log::install();
        ffmpeg::log::set_level(ffmpeg::log::Level::Quiet);
    });
}

/// Initializes FFmpeg. Its own log shows warnings from `verbosity` 1 on, everything from 2 on.
pub fn init(verbosity: u8) {
    start();
    ffmpeg::log::set_level(match verbosity {
        0 => ffmpeg::log::Level::Quiet,
        1 => ffmpeg::log::Level::Warning,
        _ => ffmpeg::log::Level::Verbose,
    });
}

/// The FFmpeg that is linked.
pub struct FfmpegInfo {
    /// Version, e.g. `5.1.9-0+deb12u1`.
    pub version: String,
    /// License of this build.
    pub license: &'static str,
}

/// Version and license of the FFmpeg that is linked.
pub fn info() -> FfmpegInfo {
    // SAFETY: av_version_info gives a static C string.
    let version = unsafe { CStr::from_ptr(ffi::av_version_info()) }.to_string_lossy().into_owned();
    FfmpegInfo { version, license: ffmpeg::format::license() }
}

/// A C string of text from the command line, which holds no NUL.
pub(crate) fn c_string(text: &str) -> CString {
    CString::new(text).expect("no NUL in an argument")
}

/// The bytes at an address, which may be null where there are none.
///
/// # Safety
/// The address is null, or that of `len` bytes that stay as long as `'a`.
pub(crate) unsafe fn bytes_of<'a>(start: *const u8, len: usize) -> &'a [u8] {
    // SAFETY: the caller's.
    if start.is_null() { &[] } else { unsafe { std::slice::from_raw_parts(start, len) } }
}

/// Copies a dictionary as bytes: tags may not be UTF-8.
///
/// # Safety
/// The dictionary is alive, or null.
pub(crate) unsafe fn copy_tags(from: *const ffi::AVDictionary) -> ffmpeg::Dictionary<'static> {
    let mut copy = std::ptr::null_mut();
    // SAFETY: the caller's; `copy` is a new dictionary, which the wrapper owns.
    unsafe {
        check(ffi::av_dict_copy(&mut copy, from, 0)).expect("no memory for tags");
        ffmpeg::Dictionary::own(copy)
    }
}

/// The protocol by which FFmpeg opens a URL; `file` for a path, `None` where FFmpeg does not know the protocol.
pub(crate) fn protocol_of(url: &str) -> Option<&'static str> {
    let url = CString::new(url).ok()?;
    // SAFETY: the string lives through the call; the name is null or a static C string.
    let name =
        unsafe { ffi::avio_find_protocol_name(url.as_ptr()).as_ref().map(|name| CStr::from_ptr(name)) };
    name.and_then(|name| name.to_str().ok())
}

/// Parameters of the stream that an open encoder writes.
pub(crate) fn parameters_of(context: &ffmpeg::codec::Context) -> ffmpeg::codec::Parameters {
    let mut parameters = ffmpeg::codec::Parameters::new();
    // SAFETY: both are alive.
    let code = unsafe { ffi::avcodec_parameters_from_context(parameters.as_mut_ptr(), context.as_ptr()) };
    check(code).expect("no memory for parameters");
    // SAFETY: the parameters are ours, and these are plain values.
    let raw = unsafe { &mut *parameters.as_mut_ptr() };
    // An encoder of FFmpeg's states the profile in the tag only, and MXF's muxer reads it here.
    const PRORES: [&[u8; 4]; 6] = [b"apco", b"apcs", b"apcn", b"apch", b"ap4h", b"ap4x"];
    if let Some(profile) = PRORES.iter().position(|tag| u32::from_le_bytes(**tag) == raw.codec_tag) {
        raw.profile = profile as i32;
    }
    parameters
}

/// FFmpeg's return value as a result.
pub(crate) fn check(code: i32) -> Result<i32, ffmpeg::Error> {
    if code < 0 { Err(ffmpeg::Error::from(code)) } else { Ok(code) }
}

/// Returns the kind of error that an FFmpeg error code stands for.
pub(crate) fn error_kind(error: ffmpeg::Error) -> ErrorKind {
    use ffmpeg::Error::*;
    match error {
        InvalidData | Eof => ErrorKind::Damaged,
        Experimental | PatchWelcome | BsfNotFound | DecoderNotFound | DemuxerNotFound | EncoderNotFound
        | MuxerNotFound | FilterNotFound | ProtocolNotFound => ErrorKind::Unsupported,
        StreamNotFound | HttpNotFound => ErrorKind::NotFound,
        OptionNotFound => ErrorKind::InvalidInput,
        Exit => ErrorKind::Interrupted,
        Other { errno } => ErrorKind::from(io::Error::from_raw_os_error(errno).kind()),
        _ => ErrorKind::Io,
    }
}

/// The remedy for a device that fails.
pub(crate) const CHECK_DEVICE: &str = "check the drive or the connection, then run the same command again";

/// Whether an error is one of a device or a connection, not of the bytes that were read.
pub(crate) fn is_of_device(error: ffmpeg::Error) -> bool {
    use rustix::io::Errno;
    const OF_DEVICE: [Errno; 16] = [
        Errno::IO,
        Errno::NXIO,
        Errno::NODEV,
        Errno::STALE,
        Errno::REMOTEIO,
        Errno::TIMEDOUT,
        Errno::PIPE,
        Errno::CONNRESET,
        Errno::CONNABORTED,
        Errno::CONNREFUSED,
        Errno::NOTCONN,
        Errno::NETDOWN,
        Errno::NETRESET,
        Errno::NETUNREACH,
        Errno::HOSTUNREACH,
        Errno::HOSTDOWN,
    ];
    matches!(error, ffmpeg::Error::Other { errno } if OF_DEVICE.contains(&Errno::from_raw_os_error(errno)))
}

/// Returns the error of an FFmpeg call that failed on `subject`: the problem is `doing` and FFmpeg's own text.
pub(crate) fn failure(
    subject: impl Into<String>,
    doing: &str,
    error: ffmpeg::Error,
    remedy: impl Into<String>,
) -> Error {
    Error::new(subject, format!("{doing}: {error}"), remedy).with_kind(error_kind(error)).with_source(error)
}

/// Whether FFmpeg has a filter of this name.
pub(crate) fn has_filter(name: &str) -> bool {
    ffmpeg::filter::find(name).is_some()
}

/// Whether FFmpeg needs more input, or has no output yet.
pub(crate) fn is_again(error: ffmpeg::Error) -> bool {
    error == ffmpeg::Error::Other { errno: ffmpeg::error::EAGAIN }
}

/// FFmpeg's rational as a time base.
pub(crate) fn time_base_of(rational: ffmpeg::Rational) -> TimeBase {
    TimeBase { num: rational.numerator(), den: rational.denominator() }
}

/// A time base as FFmpeg's rational.
pub(crate) fn rational_of(time_base: TimeBase) -> ffmpeg::Rational {
    ffmpeg::Rational::new(time_base.num, time_base.den)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_ffmpeg_have_a_kind() {
        let posix = |errno| error_kind(ffmpeg::Error::Other { errno });
        assert_eq!(posix(ffmpeg::error::ENOSPC), ErrorKind::DiskFull);
        assert_eq!(posix(ffmpeg::error::ENOENT), ErrorKind::NotFound);
        assert_eq!(posix(ffmpeg::error::EPIPE), ErrorKind::Io);
        let of_device = |errno| is_of_device(ffmpeg::Error::Other { errno });
        assert!(of_device(ffmpeg::error::EIO) && of_device(ffmpeg::error::ETIMEDOUT));
        assert!(!of_device(ffmpeg::error::EINVAL) && !is_of_device(ffmpeg::Error::InvalidData));
        assert_eq!(error_kind(ffmpeg::Error::InvalidData), ErrorKind::Damaged);
        assert_eq!(error_kind(ffmpeg::Error::EncoderNotFound), ErrorKind::Unsupported);
    }
}

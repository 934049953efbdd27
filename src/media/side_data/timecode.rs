//! Timecode of a frame as text, as containers have it for the start of a stream.

use std::ffi::{CStr, c_char};

use ffmpeg_next::{Rational, ffi};

/// The timecode of a GOP, from the 25 bits of its header; `None` where it does not fit the frame rate.
pub(super) fn of_gop(bits: u32, rate: Rational) -> Option<String> {
    // SAFETY: writes at most the size of the buffer.
    text(rate, |buffer| unsafe { ffi::av_timecode_make_mpeg_tc_string(buffer, bits) })
}

/// The timecode of a frame by SMPTE 12M; `None` where it does not fit the frame rate.
pub(super) fn of_frame(word: u32, rate: Rational) -> Option<String> {
    // SAFETY: writes at most the size of the buffer.
    text(rate, |buffer| unsafe { ffi::av_timecode_make_smpte_tc_string2(buffer, rate.into(), word, 0, 0) })
}

fn text(rate: Rational, write: impl Fn(*mut c_char) -> *mut c_char) -> Option<String> {
    let mut buffer = [0 as c_char; ffi::AV_TIMECODE_STR_SIZE as usize];
    write(buffer.as_mut_ptr());
    let log = std::ptr::null_mut();
    // SAFETY: the buffer holds a C string, and the structure is plain values, which are written.
    unsafe {
        let mut timecode: ffi::AVTimecode = std::mem::zeroed();
        let code = ffi::av_timecode_init_from_string(&mut timecode, rate.into(), buffer.as_ptr(), log);
        let text = CStr::from_ptr(buffer.as_ptr()).to_str().ok()?;
        (code >= 0).then(|| text.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timecode_is_one_of_its_rate() {
        // Hours, minutes, a marker, seconds, frames.
        let gop = |hours: u32, frames: u32| hours << 19 | 2 << 13 | 1 << 12 | 3 << 6 | frames;
        let pal = Rational(25, 1);
        assert_eq!(of_gop(gop(1, 4), pal).as_deref(), Some("01:02:03:04"));
        // Drop frame is of 29.97 fps.
        assert_eq!(of_gop(1 << 24 | gop(1, 4), pal), None);
        assert_eq!(of_gop(1 << 24 | gop(1, 4), Rational(30_000, 1001)).as_deref(), Some("01:02:03;04"));
        // BCD, frames first.
        assert_eq!(of_frame(0x04_03_02_10, pal).as_deref(), Some("10:02:03:04"));
    }
}

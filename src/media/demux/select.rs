//! Stream selection: the stream specifiers of `--map`, which are those of FFmpeg's `-map`.

use std::ffi::CString;

use ffmpeg_next::{ffi, format};

use crate::error::{Error, ErrorKind, Result};
use crate::media::ffmpeg::check;

/// The streams that `--map` options select, in their order; all if there are none.
pub(crate) fn select(context: &format::context::Input, maps: &[String]) -> Result<Vec<usize>> {
    let all = || context.streams().map(|stream| stream.index());
    // Options that only exclude streams start from all of them.
    let starts_with_all = maps.first().is_none_or(|map| map.starts_with('-'));
    let mut selected: Vec<usize> = if starts_with_all { all().collect() } else { Vec::new() };
    for map in maps {
        let invalid = |problem: &str| {
            Error::new(format!("--map {map}"), problem, "write it like 0:a:1, -0:s or 0:m:language:fra?")
        };
        let (is_excluded, rest) = map.strip_prefix('-').map_or((false, map.as_str()), |rest| (true, rest));
        let (rest, may_miss) = rest.strip_suffix('?').map_or((rest, false), |rest| (rest, true));
        let specifier = match rest.strip_prefix('0') {
            Some("") => "",
            Some(after) if after.starts_with(':') => &after[1..],
            _ => return Err(invalid("names no stream of input 0, the only one")),
        };
        let specifier = CString::new(specifier).expect("no NUL in an argument");
        let mut matching = Vec::new();
        for stream in context.streams() {
            // SAFETY: context and stream are alive, the string lives through the call.
            let code = unsafe {
                let (context, stream) = (context.as_ptr().cast_mut(), stream.as_ptr().cast_mut());
                ffi::avformat_match_stream_specifier(context, stream, specifier.as_ptr())
            };
            if check(code).map_err(|_| invalid("is not a stream specifier"))? > 0 {
                matching.push(stream.index());
            }
        }
        if matching.is_empty() && !may_miss {
            return Err(invalid("matches no stream").with_kind(ErrorKind::NotFound));
        }
        selected.retain(|index| !matching.contains(index));
        if !is_excluded {
            selected.extend(matching);
        }
    }
    Ok(selected)
}

//! Which streams of the input go into the output: the stream specifiers of `--map`, as FFmpeg's `-map` has them.

use std::ffi::CString;

use ffmpeg_next::{ffi, format};

use crate::error::{Error, Result};
use crate::media::ffmpeg::check;

/// The streams that FFmpeg's `-map` options name, in their order; all of them without any.
pub(crate) fn select(context: &format::context::Input, maps: &[String]) -> Result<Vec<usize>> {
    let all = || context.streams().map(|stream| stream.index());
    // What is only to be left out is left out of everything.
    let begin = maps.first().is_none_or(|map| map.starts_with('-'));
    let mut selected: Vec<usize> = if begin { all().collect() } else { Vec::new() };
    for map in maps {
        let failed = |problem: &str| {
            Error::new(format!("--map {map}"), problem, "write it like 0:a:1, -0:s or 0:m:language:fra?")
        };
        let (is_out, rest) = map.strip_prefix('-').map_or((false, map.as_str()), |rest| (true, rest));
        let (rest, may_miss) = rest.strip_suffix('?').map_or((rest, false), |rest| (rest, true));
        let specifier = match rest.strip_prefix('0') {
            Some("") => "",
            Some(after) if after.starts_with(':') => &after[1..],
            _ => return Err(failed("names no stream of input 0, the only one")),
        };
        let specifier = CString::new(specifier).expect("no NUL in an argument");
        let mut matching = Vec::new();
        for stream in context.streams() {
            // SAFETY: context and stream are alive, the string lives through the call.
            let code = unsafe {
                let (context, stream) = (context.as_ptr().cast_mut(), stream.as_ptr().cast_mut());
                ffi::avformat_match_stream_specifier(context, stream, specifier.as_ptr())
            };
            if check(code).map_err(|_| failed("is no stream specifier"))? > 0 {
                matching.push(stream.index());
            }
        }
        if matching.is_empty() && !may_miss {
            return Err(failed("matches no stream"));
        }
        selected.retain(|index| !matching.contains(index));
        if !is_out {
            selected.extend(matching);
        }
    }
    Ok(selected)
}

//! Languages: the code that a container reads back. Matroska keeps any text, others have codes of three letters, QuickTime a
//! list of its own.

use ffmpeg_next::{self as ffmpeg, Rational, codec, ffi};

use crate::media::container::{container_name, demuxer_of};
use crate::media::packet::Packet;
use crate::media::trial::{ReadBack, Trial, TrialStream, try_stream};

/// Languages with two codes in ISO 639-2, bibliographic and terminologic, of which each container writes one.
const CODE_PAIRS: [(&str, &str); 20] = [
    ("alb", "sqi"),
    ("arm", "hye"),
    ("baq", "eus"),
    ("bur", "mya"),
    ("chi", "zho"),
    ("cze", "ces"),
    ("dut", "nld"),
    ("fre", "fra"),
    ("geo", "kat"),
    ("ger", "deu"),
    ("gre", "ell"),
    ("ice", "isl"),
    ("mac", "mkd"),
    ("mao", "mri"),
    ("may", "msa"),
    ("per", "fas"),
    ("rum", "ron"),
    ("slo", "slk"),
    ("tib", "bod"),
    ("wel", "cym"),
];

/// Whether the language survived; only three-letter codes do in all containers.
pub(crate) fn same_language(wanted: Option<&str>, seen: Option<&str>) -> bool {
    match (wanted, seen) {
        (Some(wanted), seen) if wanted.len() == 3 && wanted != "und" => {
            let seen = seen.unwrap_or_default();
            wanted == seen || other_code(wanted) == Some(seen)
        }
        _ => true,
    }
}

/// The other code of ISO 639-2 for a language that has two.
fn other_code(code: &str) -> Option<&'static str> {
    let other = |&(b, t): &(&'static str, &'static str)| match code {
        _ if code == b => Some(t),
        _ if code == t => Some(b),
        _ => None,
    };
    CODE_PAIRS.iter().find_map(other)
}

/// The code to write for a language so that the container reads the same language back; `None` if it has none.
pub(crate) fn written_code(container: &'static ffi::AVOutputFormat, language: &str) -> Option<String> {
    let lower = language.to_ascii_lowercase();
    let other = other_code(&lower).map(str::to_owned);
    let candidates = [Some(language.to_owned()), Some(lower.clone()), other];
    candidates.into_iter().flatten().find(|code| {
        let seen = read_code(container, code);
        seen.is_some_and(|seen| seen == *code || other_code(code) == Some(&seen))
    })
}

/// The language that is read back where this code was written.
fn read_code(container: &'static ffi::AVOutputFormat, code: &str) -> Option<String> {
    let name = container_name(container);
    match demuxer_of(name) {
        Some("mov") => {
            // Two bytes that state an empty text.
            let packet = ffmpeg::Packet::copy(&[0, 0]);
            let time_base = Rational(1, 1000);
            let mut packet = Packet { packet, stream: 0, time_base, index: 0 };
            packet.packet.set_duration(1000);
            let parameters = text_parameters();
            let text = TrialStream { parameters, time_base, language: code, packets: &[packet] };
            match try_stream(container, &text) {
                Trial::ReadBack(ReadBack { language, .. }) => language,
                _ => None,
            }
        }
        // A list of codes.
        Some("mpegts") => code.split(',').all(|code| code.len() == 3).then(|| code.to_owned()),
        _ => Some(code.to_owned()),
    }
}

/// The parameters of a text track of the MP4 family.
fn text_parameters() -> codec::Parameters {
    let mut parameters = codec::Parameters::new();
    // SAFETY: the parameters are ours, and both fields plain values.
    unsafe {
        let raw = &mut *parameters.as_mut_ptr();
        raw.codec_type = ffi::AVMediaType::AVMEDIA_TYPE_SUBTITLE;
        raw.codec_id = ffi::AVCodecID::AV_CODEC_ID_MOV_TEXT;
    }
    parameters
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::container::guess_container;

    #[test]
    fn languages_have_the_code_that_is_read_back() {
        crate::media::start();
        let code = |name: &str, language: &str| {
            let container = guess_container(None, name).expect("a container");
            written_code(container, language).unwrap_or_default()
        };
        for (language, mkv, mp4, mov, ts) in [
            ("eng", "eng", "eng", "eng", "eng"),
            ("ger", "ger", "ger", "ger", "ger"),
            ("deu", "deu", "deu", "ger", "deu"),
            ("isl", "isl", "isl", "ice", "isl"),
            ("hrv", "hrv", "hrv", "", "hrv"),
            ("srp", "srp", "srp", "", "srp"),
            ("ENG", "ENG", "eng", "eng", "ENG"),
            ("NAR", "NAR", "nar", "", "NAR"),
            ("pt-BR", "pt-BR", "", "", ""),
            ("eng,fra", "eng,fra", "", "", "eng,fra"),
            ("e\u{1b}[", "e\u{1b}[", "", "", "e\u{1b}["),
        ] {
            let found = ["x.mkv", "x.mp4", "x.mov", "x.ts"].map(|name| code(name, language));
            assert_eq!(found, [mkv, mp4, mov, ts], "{language}");
        }
    }
}

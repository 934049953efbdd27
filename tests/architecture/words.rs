//! Words that standard terms replaced, which must not come back: in identifiers (those of serde are JSON keys, those of
//! clap are options), in string literals (messages, keys, metrics), in help texts, in names of files and make targets.

use crate::source::{File, Kind, Token, code_without_tests, tokens};

/// A replaced word, wherever it stands, and what stands instead.
const EVERYWHERE: [(&str, &str); 7] = [
    ("picture", "frame, or image"),
    ("pictures", "frames, or images"),
    ("film", "video, input or output"),
    ("films", "videos, inputs or outputs"),
    ("sound", "audio"),
    ("sounds", "audio"),
    ("torn", "truncated"),
];

/// The same of words that are replaced in identifiers and names of files alone.
const IN_NAMES: [(&str, &str); 13] = [
    ("todo", "ResumeState"),
    ("keeper", "SegmentStore"),
    ("facts", "JobFingerprint, StreamSummary"),
    ("making", "BatchRecord"),
    ("standing", "OutputState"),
    ("lane", "Worker, SinkQueue, StreamMapping"),
    ("lanes", "Worker, SinkQueue, StreamMapping"),
    ("complaints", "ffmpeg_log"),
    ("spill", "packet_queue"),
    ("geometry", "FrameFormat"),
    ("proof", "Verification, verify"),
    ("rooms", "architecture"),
    ("ending", "extension"),
];

/// Types of which the word is common English, but the name is not to come back.
const TYPES: [(&str, &str); 1] = [("Coded", "Packet")];

/// The same of words and phrases of messages, keys and help texts.
const IN_TEXTS: [(&str, &str); 25] = [
    ("lane", "worker, queue"),
    ("lanes", "workers, queues"),
    ("frames a second", "fps"),
    ("made larger", "upscaled"),
    ("make larger", "upscale"),
    ("makes larger", "upscales"),
    ("gone on", "resumed"),
    ("go on", "resume, continue"),
    ("goes on", "resumes, continues"),
    ("going on", "resuming, continuing"),
    ("went on", "resumed, continued"),
    ("is told", "is reported"),
    ("are told", "are reported"),
    ("is said", "is logged"),
    ("so many", "count, number of"),
    ("as many as", "count, number of"),
    ("how long since", "latency"),
    ("at the most", "at most"),
    ("anew", "again"),
    ("nobody", "the subject"),
    ("whoever", "the subject"),
    ("that which", "the subject"),
    ("of 8 bits", "8-bit"),
    ("of 10 bits", "10-bit"),
    ("of 16 bits", "16-bit"),
];

/// The plainest words, which do not come back in comments either.
const IN_COMMENTS: [&str; 4] = ["picture", "pictures", "film", "films"];

/// What the field itself calls so.
const TRUE_TEXTS: [&str; 10] = [
    // A scanned film has it, and encoders have an option of this name.
    "film grain",
    "film_grain",
    // A task, the user's own word.
    "film restoration",
    // Matroska's and MP4's cover, and FFmpeg's disposition of it.
    "attached picture",
    "attached_pic",
    // MPEG's GOP, and the standards' word for a coded frame or field.
    "group of pictures",
    "picture_type",
    "avpicturetype",
    // An SEI message of H.264 and H.265.
    "picture timing",
    // A name of ITU-R BT.470's and of H.273's transfer and primaries, as FFmpeg has them.
    "generic film",
];

/// Folders in which a lane is one of a SIMD register's or of a warp's.
const LANES_HOMES: [&str; 2] = ["kernels/", "src/engine/cuda/"];

/// Replaced words in code and comments of Rust files.
pub fn complaints(files: &[File]) -> Vec<String> {
    files.iter().flat_map(|(path, text)| complaints_of_file(path, text)).collect()
}

fn complaints_of_file(path: &str, text: &str) -> Vec<String> {
    let tokens = tokens(text);
    let mut found = Vec::new();
    for token in &tokens {
        match token.kind {
            Kind::Word => found.extend(in_identifier(path, token)),
            Kind::Comment => found.extend(in_comment(path, token)),
            _ => {}
        }
    }
    for token in code_without_tests(&tokens).iter().filter(|token| token.kind == Kind::Text) {
        found.extend(in_text(&token.text).map(|found| complaint(path, token.line, &token.text, found)));
    }
    found
}

fn complaint(path: &str, line: usize, place: &str, (word, instead): (&str, &str)) -> String {
    let place: String = place.trim().chars().take(100).collect();
    format!("{path}:{line}: '{word}' was replaced by '{instead}': {place}")
}

/// Replaced words in the name of a file, of a folder, or of a target of make.
pub fn complaints_of_names<'a>(names: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let mut found = Vec::new();
    for name in names {
        let words = words_of(name);
        let is_it = |(word, _): &&(&str, &str)| words.iter().any(|part| part == word);
        found.extend(EVERYWHERE.iter().chain(&IN_NAMES).find(is_it).map(|(word, instead)| {
            format!("{name}: '{word}' was replaced by '{instead}' (the name of a file or a target)")
        }));
    }
    found
}

/// Replaced words in a text that is no Rust: a page, a dashboard.
pub fn complaints_of_page((path, text): &File) -> Vec<String> {
    let lines = text.lines().enumerate();
    lines.filter_map(|(i, line)| in_text(line).map(|found| complaint(path, i + 1, line, found))).collect()
}

/// The targets and variables of a Makefile.
pub fn names_of_makefile(text: &str) -> Vec<&str> {
    let is_name = |c: char| c.is_alphanumeric() || c == '-' || c == '_' || c == '/';
    let names = text.lines().filter_map(|line| {
        let end = line.find(|c| !is_name(c))?;
        (end > 0 && line[end..].contains([':', '='])).then_some(&line[..end])
    });
    names.collect()
}

fn in_identifier(path: &str, token: &Token) -> Option<String> {
    let name = &token.text;
    // FFmpeg's own.
    if name.starts_with("AV") || name.starts_with("av_") || TRUE_TEXTS.contains(&name.to_lowercase().as_str())
    {
        return None;
    }
    let words = words_of(name);
    let is_lane =
        |word: &str| word.starts_with("lane") && LANES_HOMES.iter().any(|home| path.starts_with(home));
    let mut replaced = EVERYWHERE.into_iter().chain(IN_NAMES);
    let word = replaced.find(|(word, _)| words.iter().any(|part| part == word) && !is_lane(word));
    let found = word.or_else(|| TYPES.into_iter().find(|(known, _)| known == name))?;
    Some(complaint(path, token.line, name, found))
}

/// Doc comments of `cli` are help texts.
fn in_comment(path: &str, token: &Token) -> Option<String> {
    let is_help = path.starts_with("src/cli/") && token.text.starts_with("///");
    let found = match is_help {
        true => in_text(&token.text),
        false => in_text(&token.text).filter(|(word, _)| IN_COMMENTS.contains(word)),
    };
    found.map(|found| complaint(path, token.line, &token.text, found))
}

/// The first replaced word or phrase of a text.
fn in_text(text: &str) -> Option<(&'static str, &'static str)> {
    let mut text = text.to_lowercase();
    for true_text in TRUE_TEXTS {
        text = text.replace(true_text, " ");
    }
    let words: Vec<_> = text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).collect();
    let text = format!(" {} ", words.join(" "));
    EVERYWHERE.into_iter().chain(IN_TEXTS).find(|(phrase, _)| text.contains(&format!(" {phrase} ")))
}

/// The words of a name in snake_case, CamelCase, SCREAMING_CASE or kebab-case, in lower case.
fn words_of(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let chars: Vec<_> = name.chars().collect();
    for (i, &c) in chars.iter().enumerate() {
        let after_small = i > 0 && (chars[i - 1].is_lowercase() || chars[i - 1].is_ascii_digit());
        let before_small =
            i > 0 && chars[i - 1].is_uppercase() && chars.get(i + 1).is_some_and(|c| c.is_lowercase());
        if !c.is_alphanumeric() || c.is_uppercase() && (after_small || before_small) {
            words.push(String::new());
        }
        if c.is_alphanumeric() {
            words.last_mut().unwrap().extend(c.to_lowercase());
        }
    }
    words
}

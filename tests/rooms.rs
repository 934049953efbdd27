//! Each dependency has one room and arrows point one way, as the table of the design says.

mod common;

use std::path::Path;

use common::program::project_file;

/// A word of the code, and the only places where it may stand: files, or folders ending in `/`.
const ROOMS: [(&str, &[&str]); 28] = [
    ("ffmpeg_next", &["src/media/"]),
    ("crossbeam_channel", &["src/pipeline/"]),
    ("cudarc", &["src/engine/cuda/"]),
    ("nvml_wrapper", &["src/engine/cuda/"]),
    ("flate2", &["src/engine/cuda/archive.rs"]),
    ("hasn_kernels", &["src/engine/cpu/", "kernels/cpu/"]),
    ("std::arch", &["kernels/cpu/", "src/engine/resample.rs"]),
    ("rayon", &["src/engine/cpu/", "src/engine/resample.rs"]),
    ("safetensors", &["src/model/"]),
    ("half::", &["src/model/", "src/engine/"]),
    (
        "serde",
        &[
            "src/model/",
            "src/pipeline/report.rs",
            "src/media/segment.rs",
            "src/journal/",
            "src/relay/stats.rs",
            "src/relay/http.rs",
            "src/cli/",
        ],
    ),
    ("serde_json", &["src/model/", "src/media/segment.rs", "src/journal/", "src/cli/"]),
    ("crc32fast", &["src/media/segment.rs", "src/journal/"]),
    ("rustix", &["src/journal/", "src/cli/child.rs"]),
    ("toml", &["src/cli/jobs.rs", "src/cli/settings.rs"]),
    ("axum", &["src/relay/http.rs"]),
    ("hyper", &["src/relay/http.rs"]),
    ("hyper_util", &["src/relay/http.rs"]),
    ("tokio", &["src/relay/http.rs"]),
    ("prometheus_client", &["src/relay/metrics.rs"]),
    ("ndarray", &["src/engine/reference.rs", "src/engine/cuda/check.rs", "src/model/"]),
    ("bytemuck", &["src/engine/cuda/"]),
    ("libloading", &["src/engine/cuda/emulated.rs"]),
    ("clap", &["src/main.rs", "src/cli/"]),
    ("indicatif", &["src/main.rs", "src/cli/"]),
    ("tracing_subscriber", &["src/main.rs", "src/cli/"]),
    ("signal_hook", &["src/main.rs", "src/cli/"]),
    (
        "unsafe",
        &["kernels/cpu/", "src/media/", "src/engine/cpu/", "src/engine/cuda/", "src/engine/resample.rs"],
    ),
];

/// Macros that print, which is done in one place, and a table by a test.
const PRINTS: [&str; 5] = ["println!", "print!", "eprintln!", "eprint!", "dbg!"];
const PRINTS_ROOMS: [&str; 2] = ["src/cli/", "src/engine/cuda/budget.rs"];

/// A room, and the rooms it may use; itself always, `testing` in tests.
const ARROWS: [(&str, &[&str]); 12] = [
    ("error", &[]),
    ("color", &["error"]),
    ("frame", &["error", "color"]),
    ("media", &["error", "frame", "color"]),
    ("model", &["error", "frame", "color"]),
    ("engine", &["error", "frame", "color", "model"]),
    ("quality", &["error", "frame", "color", "engine"]),
    ("pipeline", &["error", "frame", "media", "engine"]),
    ("journal", &["error", "media", "pipeline"]),
    ("relay", &["error", "frame", "media", "engine"]),
    (
        "cli",
        &["error", "frame", "color", "media", "model", "engine", "quality", "pipeline", "journal", "relay"],
    ),
    ("testing", &["frame", "color"]),
];

/// How far above an `unsafe` the fact may stand that makes it safe.
const SAFETY_LINES: usize = 3;

#[test]
fn everything_stays_in_its_room() {
    let mut files = Vec::new();
    collect(&project_file("src"), &mut files);
    collect(&project_file("kernels"), &mut files);
    assert!(files.len() > 30, "the source is to be found");
    let found: Vec<_> = files.iter().flat_map(|(path, text)| violations(path, text)).collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn every_violation_is_found() {
    for (path, text, expected) in [
        ("src/engine/mod.rs", "use ffmpeg_next::ffi;", "ffmpeg_next"),
        ("src/cli/mod.rs", "let (a, b) = crossbeam_channel::bounded(1);", "crossbeam_channel"),
        ("src/pipeline/mod.rs", "#[derive(serde::Serialize)]", "serde"),
        ("src/engine/plan.rs", "use std::arch::x86_64::*;", "std::arch"),
        ("src/color.rs", "// SAFETY: none\nunsafe { f() }", "unsafe"),
        ("src/media/mod.rs", "let a = 1;\nunsafe { f() }", "SAFETY"),
        ("src/media/mod.rs", "// SAFETY: far\n\n\n\nunsafe { f() }", "SAFETY"),
        ("src/color.rs", "use half::f16;", "half"),
        ("src/media/mod.rs", "use crate::model::Model;", "crate::model"),
        ("src/engine/cpu/net.rs", "fn f(x: crate::media::Input) {}", "crate::media"),
        ("src/pipeline/stages.rs", "use crate::{\n    color::Matrix,\n    error::Error,\n};", "crate::color"),
        ("src/error.rs", "use crate::frame::Frame;", "crate::frame"),
        ("src/media/mux.rs", "let c = '\"'; println!(\"\");", "println!"),
        ("src/quality.rs", "use crate::nowhere::Thing;", "crate::nowhere"),
    ] {
        let found = violations(path, text);
        assert!(found.iter().any(|line| line.contains(expected)), "{path}: {text}\nfound {found:?}");
    }
    for (path, text) in [
        ("src/engine/mod.rs", "//! No ffmpeg_next here, and nothing unsafe."),
        ("src/engine/mod.rs", "let a = \"unsafe // \\\" serde\"; // println!"),
        ("src/engine/mod.rs", "let behalf = r#\"clap \" rayon\"#;"),
        ("src/media/mod.rs", "// SAFETY: near\nlet x =\n    unsafe { f() };"),
        ("kernels/cpu/src/simd.rs", "unsafe fn new() -> Self {"),
        ("src/quality.rs", "let half = frame(64, 48);"),
        ("src/cli/mod.rs", "eprintln!(\"hasn\"); use crate::{media, engine::EngineKind};"),
    ] {
        assert_eq!(violations(path, text), Vec::<String>::new(), "{path}: {text}");
    }
}

/// Paths from the project's root and texts of all source files.
fn collect(folder: &Path, files: &mut Vec<(String, String)>) {
    for entry in std::fs::read_dir(folder).expect("a folder of the project") {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.strip_prefix(project_file("")).unwrap().to_str().unwrap().to_owned();
            files.push((name, std::fs::read_to_string(&path).unwrap()));
        }
    }
}

/// A line for each thing that stands where it must not.
fn violations(path: &str, text: &str) -> Vec<String> {
    let code = without_comments_and_strings(text);
    let mut found = Vec::new();
    for (number, line) in code.lines().enumerate() {
        let mut note = |what: &str, why: &str| found.push(format!("{path}:{}: {what} {why}", number + 1));
        for (word, rooms) in ROOMS {
            if has_word(line, word) && !rooms.iter().any(|room| path.starts_with(room)) {
                note(word, &format!("lives in {}", rooms.join(", ")));
            }
        }
        for print in PRINTS {
            if has_word(line, print) && !PRINTS_ROOMS.iter().any(|room| path.starts_with(room)) {
                note(print, &format!("is for {}", PRINTS_ROOMS.join(", ")));
            }
        }
        // `unsafe fn` asks for a fact, and clippy for its docs; blocks and impls state one.
        if has_word(&line.replace("unsafe fn", ""), "unsafe") && !is_safety_told(text, number) {
            note("unsafe", "has no SAFETY line that states the fact that makes it safe");
        }
    }
    // The crate of the loops knows no other room, for it cannot.
    let Some(room) = path.strip_prefix("src/").and_then(|path| path.split(['/', '.']).next()) else {
        return found;
    };
    if let Some((_, allowed)) = ARROWS.iter().find(|(name, _)| *name == room) {
        for used in rooms_used(&code) {
            if used != room && used != "testing" && !allowed.contains(&used.as_str()) {
                found.push(format!("{path}: crate::{used} is not for {room}"));
            }
        }
    } else if room != "main" && room != "lib" {
        found.push(format!("{path}: the room {room} is in no table"));
    }
    found
}

/// In one of the lines above, or at the head of the comment that ends there.
fn is_safety_told(text: &str, number: usize) -> bool {
    let lines: Vec<&str> = text.lines().collect();
    let tells = |line: &str| line.contains("SAFETY:") || line.contains("# Safety");
    let is_comment = |line: &str| line.trim_start().starts_with("//");
    let near = number.saturating_sub(SAFETY_LINES)..=number;
    near.clone().any(|i| tells(lines[i]))
        || near
            .filter(|&i| is_comment(lines[i]))
            .any(|i| lines[..i].iter().rev().take_while(|line| is_comment(line)).any(|line| tells(line)))
}

/// The first segments after `crate::`, in braces or not.
fn rooms_used(code: &str) -> Vec<String> {
    let name = |text: &str| {
        text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>()
    };
    let mut used = Vec::new();
    for (at, found) in code.match_indices("crate::") {
        let rest = &code[at + found.len()..];
        match rest.strip_prefix('{') {
            None => used.push(name(rest)),
            Some(list) => {
                let mut depth = 0;
                let mut start = 0;
                for (i, c) in list.char_indices() {
                    match c {
                        '{' => depth += 1,
                        '}' if depth == 0 => {
                            used.push(name(&list[start..i]));
                            break;
                        }
                        '}' => depth -= 1,
                        ',' if depth == 0 => {
                            used.push(name(&list[start..i]));
                            start = i + 1;
                        }
                        _ => {}
                    }
                }
            }
        }
    }
    // Items of `lib.rs` itself begin with a capital.
    used.retain(|name| name.starts_with(|c: char| c.is_lowercase()));
    used
}

/// Whether `word` stands in the line by itself; one that ends in punctuation may go on.
fn has_word(line: &str, word: &str) -> bool {
    let part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    let goes_on = !part(word.chars().last());
    line.match_indices(word).any(|(at, _)| {
        !part(line[..at].chars().next_back()) && (goes_on || !part(line[at + word.len()..].chars().next()))
    })
}

/// The same lines with comments gone and strings emptied.
fn without_comments_and_strings(text: &str) -> String {
    let mut code = String::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let hashes =
            rest.strip_prefix('r').map_or(0, |after| after.len() - after.trim_start_matches('#').len());
        let raw = rest.starts_with('r')
            && rest[1 + hashes..].starts_with('"')
            && !code.ends_with(char::is_alphanumeric);
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if raw {
            let close = format!("\"{}", "#".repeat(hashes));
            let body = 2 + hashes;
            rest[body..].find(&close).map_or(rest.len(), |end| body + end + close.len())
        } else if c == '"' {
            string_length(rest)
        } else if ["'\"'", "'\\\"'", "'\\''", "'\\\\'"].iter().any(|quote| rest.starts_with(quote)) {
            if rest.starts_with("'\\") { 4 } else { 3 }
        } else {
            code.push(c);
            rest = &rest[c.len_utf8()..];
            continue;
        };
        code.extend(rest[..length].chars().filter(|&c| c == '\n'));
        rest = &rest[length..];
    }
    code
}

/// Of a string that begins here, quotes included.
fn string_length(text: &str) -> usize {
    let mut escaped = false;
    for (i, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return i + 1,
            _ => {}
        }
    }
    text.len()
}

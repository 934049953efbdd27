//! Each dependency has one home, `unsafe` states what makes it safe, and modules import in one direction.

use crate::imports::{Form, Modules, Reference};
use crate::source::{File, Token, tokens};

/// Code, and the only places where it may stand: files, or folders ending in `/`.
const HOMES: [(&str, &[&str]); 35] = [
    ("ffmpeg_next", &["src/media/"]),
    // Decoders are opened in one place, with the limit on the size of frames.
    ("Context::from_parameters", &["src/media/decode/open.rs"]),
    ("crossbeam_channel", &["src/pipeline/"]),
    ("cudarc", &["src/engine/cuda/"]),
    ("nvml_wrapper", &["src/engine/cuda/"]),
    ("flate2", &["src/engine/cuda/archive.rs"]),
    ("hasn_kernels", &["src/engine/cpu/", "src/pixel/", "kernels/cpu/"]),
    ("std::arch", &["kernels/cpu/", "src/pixel/"]),
    ("rayon", &["src/engine/cpu/", "src/pixel/"]),
    ("safetensors", &["src/model/"]),
    ("half::", &["src/model/", "src/engine/"]),
    (
        "serde",
        &[
            "src/model/",
            "src/media/demux/tally.rs",
            "src/media/mux/planned.rs",
            "src/media/segment.rs",
            "src/pipeline/report.rs",
            "src/journal/",
            "src/relay/stats.rs",
            "src/relay/http.rs",
            "src/job/",
            "src/cli/",
        ],
    ),
    (
        "serde_json",
        &["src/model/", "src/media/segment.rs", "src/media/vmaf.rs", "src/journal/", "src/job/", "src/cli/"],
    ),
    ("crc32fast", &["src/media/decode/timestamps.rs", "src/media/segment.rs", "src/journal/"]),
    ("rustix", &["src/journal/", "src/media/", "src/cli/", "src/engine/memory.rs", "src/relay/upscale.rs"]),
    ("libc", &["src/media/mux/time_pattern.rs"]),
    ("humantime", &["src/job/end.rs"]),
    ("toml", &["src/job/", "src/cli/option_file.rs", "src/cli/presets.rs", "src/cli/settings.rs"]),
    ("axum", &["src/relay/http.rs"]),
    ("hyper", &["src/relay/http.rs"]),
    ("hyper_util", &["src/relay/http.rs"]),
    ("tokio", &["src/relay/http.rs"]),
    ("prometheus_client", &["src/relay/metrics.rs"]),
    ("ndarray", &["src/engine/reference.rs", "src/engine/cuda/check.rs", "src/model/"]),
    ("bytemuck", &["src/engine/cuda/"]),
    ("libloading", &["src/engine/cuda/emulated.rs"]),
    ("base64", &["src/cli/preview.rs"]),
    ("font8x8", &["src/cli/compare.rs"]),
    ("clap", &["src/main.rs", "src/cli/"]),
    ("indicatif", &["src/main.rs", "src/cli/"]),
    ("tracing_subscriber", &["src/main.rs", "src/cli/"]),
    ("signal_hook", &["src/main.rs", "src/cli/"]),
    ("stdout()", &["src/cli/console.rs"]),
    ("stderr()", &["src/cli/console.rs"]),
    (
        "unsafe",
        &[
            "kernels/cpu/",
            "src/media/",
            "src/pixel/",
            "src/engine/cpu/",
            "src/engine/cuda/",
            "src/engine/memory.rs",
        ],
    ),
];

/// Macros that print, and panic where the reader is gone. Only tests use them: for tables, and for what was
/// skipped.
const PRINTS: [&str; 5] = ["println!", "print!", "eprintln!", "eprint!", "dbg!"];
const PRINTS_HOMES: [&str; 3] = ["src/engine/cuda/budget.rs", "src/engine/tests/", "src/relay/weeks.rs"];

/// A module, and the modules it may import, each of which stands above it in this table.
const ARROWS: [(&str, &[&str]); 15] = [
    ("error", &[]),
    ("sync", &["error"]),
    ("color", &["error"]),
    ("frame", &["error", "color"]),
    ("media", &["error", "sync", "color", "frame"]),
    ("model", &["error", "color", "frame"]),
    ("pixel", &["error", "color", "frame"]),
    ("quality", &["error", "color", "frame", "pixel"]),
    ("engine", &["error", "color", "frame", "model", "pixel"]),
    ("pipeline", &["error", "sync", "color", "frame", "media", "engine"]),
    ("journal", &["error", "sync", "color", "frame", "media", "pipeline"]),
    ("relay", &["error", "sync", "color", "frame", "media", "model", "pixel", "engine", "pipeline"]),
    (
        "job",
        &[
            "error", "sync", "color", "frame", "media", "model", "pixel", "engine", "pipeline", "journal",
            "relay",
        ],
    ),
    (
        "cli",
        &[
            "error", "color", "frame", "media", "model", "pixel", "quality", "engine", "pipeline", "journal",
            "relay", "job",
        ],
    ),
    ("main", &["cli"]),
];

/// Helpers of tests, which every module's tests may import.
const TESTING: (&str, &[&str]) = ("testing", &["error", "color", "frame"]);

/// How far above an `unsafe` the fact may stand that makes it safe.
const SAFETY_LINES: usize = 3;

/// Every arrow of the table points to a line above.
pub fn table_is_in_order() -> bool {
    let above = |i: usize, name: &str| ARROWS[..i].iter().any(|(known, _)| *known == name);
    (0..ARROWS.len()).all(|i| ARROWS[i].1.iter().all(|name| above(i, name)))
}

pub fn complaints(files: &[File]) -> Vec<String> {
    files.iter().flat_map(|(path, text)| complaints_of_file(path, text)).collect()
}

fn complaints_of_file(path: &str, text: &str) -> Vec<String> {
    let tokens = tokens(text);
    let mut found = misplaced(path, &tokens);
    found.extend(unsafe_without_reason(path, text, &tokens));
    found.extend(wrong_arrows(path, &tokens));
    found
}

/// Dependencies and printing macros outside of their homes.
fn misplaced(path: &str, tokens: &[Token]) -> Vec<String> {
    let prints = PRINTS.iter().map(|print| (*print, &PRINTS_HOMES[..]));
    let mut found = Vec::new();
    for (what, homes) in HOMES.into_iter().chain(prints) {
        if !homes.iter().any(|home| path.starts_with(home)) {
            for line in lines_with(tokens, what) {
                found.push(format!("{path}:{line}: {what} is only for {}", homes.join(", ")));
            }
        }
    }
    found
}

/// The lines on which the tokens of `what` follow each other.
fn lines_with(code: &[Token], what: &str) -> Vec<usize> {
    let wanted = tokens(what);
    let code: Vec<_> = code.iter().filter(|token| token.is_code()).collect();
    let matches = |at: &&[&Token]| at.iter().zip(&wanted).all(|(token, wanted)| token.text == wanted.text);
    let mut lines: Vec<_> = code.windows(wanted.len()).filter(matches).map(|at| at[0].line).collect();
    lines.dedup();
    lines
}

/// `unsafe fn` asks its callers for a fact, and clippy asks for its docs; blocks and impls state one.
fn unsafe_without_reason(path: &str, text: &str, tokens: &[Token]) -> Vec<String> {
    let lines: Vec<_> = text.lines().collect();
    let code: Vec<_> = tokens.iter().filter(|token| token.is_code()).collect();
    let mut found = Vec::new();
    for (i, token) in code.iter().enumerate().filter(|(_, token)| token.is_word("unsafe")) {
        let is_function = code.get(i + 1).is_some_and(|next| next.is_word("fn"));
        if !is_function && !has_reason(&lines, token.line - 1) {
            found.push(format!(
                "{path}:{}: unsafe needs a SAFETY line that states what makes it safe",
                token.line
            ));
        }
    }
    found
}

/// In one of the lines above, or at the head of the comment that ends there.
fn has_reason(lines: &[&str], number: usize) -> bool {
    let tells = |line: &str| line.contains("SAFETY:") || line.contains("# Safety");
    let is_comment = |line: &str| line.trim_start().starts_with("//");
    let near = number.saturating_sub(SAFETY_LINES)..=number;
    near.clone().any(|i| tells(lines[i]))
        || near
            .filter(|&i| is_comment(lines[i]))
            .any(|i| lines[..i].iter().rev().take_while(|line| is_comment(line)).any(|line| tells(line)))
}

fn wrong_arrows(path: &str, tokens: &[Token]) -> Vec<String> {
    // The crate of the CPU's loops cannot name a module of this one.
    let Some(module) = path.strip_prefix("src/").and_then(|path| path.split(['/', '.']).next()) else {
        return Vec::new();
    };
    if module == "lib" {
        return Vec::new();
    }
    let arrows = ARROWS.iter().chain([&TESTING]);
    let Some((_, allowed)) = arrows.into_iter().find(|(name, _)| *name == module) else {
        return vec![format!("{path}: the module {module} is in no table of tests/architecture/homes.rs")];
    };
    let mut found = Vec::new();
    for reference in Modules::of_file(path, tokens).references {
        let Some(used) = module_named(&reference) else { continue };
        if used != module && used != TESTING.0 && !allowed.contains(&used.as_str()) {
            found.push(format!(
                "{path}:{}: {module} may not import {used}: {}",
                reference.line,
                reference.text()
            ));
        }
    }
    found
}

/// The crate's module that a path names from its root: `media` of `crate::media::Input` and of `super::super::media`.
fn module_named(reference: &Reference) -> Option<String> {
    let mut names = match reference.path.first()?.as_str() {
        "crate" | "hasn" => Vec::new(),
        "super" | "self" => reference.module[1..].to_vec(),
        _ => return None,
    };
    for name in &reference.path {
        match name.as_str() {
            "super" => drop(names.pop()),
            "self" | "crate" | "hasn" => {}
            name => names.push(name.to_owned()),
        }
    }
    // A glob of the root brings every module.
    let is_root = names.is_empty() && matches!(reference.form, Form::Glob { .. });
    let name = if is_root { "*".to_owned() } else { names.into_iter().next()? };
    // The items of `lib.rs` begin with a capital.
    name.starts_with(|c: char| !c.is_uppercase()).then_some(name)
}

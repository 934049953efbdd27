//! The public API of the library: listed in `docs/public-api.txt`, and free of types of dependencies.

use std::env;
use std::path::{Path, PathBuf};

/// The crates that paths of the listing may begin with: this one, its CPU loops, and the standard library.
const CRATES: [&str; 5] = ["hasn", "hasn_kernels", "core", "alloc", "std"];

fn listing_path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/public-api.txt")
}

/// The crates of other origin that a line names.
fn foreign_crates(line: &str) -> Vec<&str> {
    let is_path = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    let paths = line.split(|c| !is_path(c)).map(|path| path.trim_start_matches(':'));
    let first = paths.filter_map(|path| path.split_once("::")).map(|(first, _)| first);
    first.filter(|first| !CRATES.contains(first) && *first != "Self").collect()
}

#[test]
fn no_public_item_names_a_type_of_a_dependency() {
    let text = std::fs::read_to_string(listing_path()).unwrap();
    assert!(text.lines().any(|line| line.starts_with("pub fn hasn::job::open(")), "the API is listed");
    let named: Vec<_> = text.lines().filter(|line| !foreign_crates(line).is_empty()).collect();
    assert!(named.is_empty(), "types of dependencies:\n{}", named.join("\n"));
    for fault in [
        "pub fn hasn::job::rate() -> ffmpeg_next::util::rational::Rational",
        "impl core::convert::From<ffmpeg_sys_next::AVRational> for hasn::frame::TimeBase",
        "pub hasn::job::Report::json: ::serde_json::value::Value",
    ] {
        assert_eq!(foreign_crates(fault).len(), 1, "{fault}");
    }
}

/// `make public-api-check` names the JSON of rustdoc; `make public-api` has the listing written.
#[test]
fn listing_is_that_of_the_source() {
    let Some(json) = env::var_os("HASN_RUSTDOC_JSON") else {
        println!("skipped: make public-api-check sets HASN_RUSTDOC_JSON");
        return;
    };
    let api = public_api::Builder::from_rustdoc_json(json)
        .omit_blanket_impls(true)
        .omit_auto_trait_impls(true)
        .omit_auto_derived_impls(true)
        .build()
        .unwrap();
    if env::var_os("HASN_PUBLIC_API_UPDATE").is_some() {
        std::fs::write(listing_path(), api.to_string()).unwrap();
        return;
    }
    let listed = std::fs::read_to_string(listing_path()).unwrap();
    let found = api.to_string();
    let missing = found.lines().filter(|line| !listed.lines().any(|other| other == *line));
    let gone = listed.lines().filter(|line| !found.lines().any(|other| other == *line));
    let changes: Vec<_> =
        missing.map(|line| format!("+ {line}")).chain(gone.map(|line| format!("- {line}"))).collect();
    assert!(changes.is_empty(), "make public-api updates docs/public-api.txt:\n{}", changes.join("\n"));
}

//! Faults planted on files in memory, each of which its rule must report, and what no rule may report.

use crate::source::File;
use crate::{circles, homes, words};

fn files(texts: &[(&str, &str)]) -> Vec<File> {
    texts.iter().map(|(path, text)| (path.to_string(), text.to_string())).collect()
}

#[test]
fn what_is_not_in_its_place_is_reported() {
    for (path, text, expected) in [
        ("src/engine/mod.rs", "use ffmpeg_next::ffi;", "ffmpeg_next"),
        ("src/job/mod.rs", "use clap::Parser;", "clap"),
        ("src/cli/mod.rs", "let (a, b) = crossbeam_channel::bounded(1);", "crossbeam_channel"),
        ("src/pipeline/mod.rs", "#[derive(serde::Serialize)]", "serde"),
        ("src/engine/plan.rs", "use std::arch::x86_64::*;", "std::arch"),
        ("src/color.rs", "// SAFETY: none\nunsafe { f() }", "unsafe"),
        ("src/media/mod.rs", "let a = 1;\nunsafe { f() }", "SAFETY"),
        ("src/media/mod.rs", "// SAFETY: far\n\n\n\nunsafe { f() }", "SAFETY"),
        ("src/color.rs", "use half::f16;", "half"),
        ("src/media/mux.rs", "let c = '\"'; println!(\"\");", "println!"),
        ("src/job/mod.rs", "eprintln!(\"done\");", "eprintln!"),
        ("src/cli/batch.rs", "eprintln!(\"done\");", "eprintln!"),
        ("src/cli/upscale.rs", "io::stderr().lock()", "stderr()"),
        ("src/cli/output.rs", "std::io::stdout().write_all(b\"done\")", "stdout()"),
        ("src/media/mod.rs", "use crate::model::Model;", "may not import model"),
        ("src/media/mux/mod.rs", "use super::super::engine::Engine;", "may not import engine"),
        ("src/engine/cpu/net.rs", "fn f(x: crate::media::Input) {}", "may not import media"),
        ("src/pipeline/stages.rs", "use crate::{\n    model::Model,\n    error::Error,\n};", "stages.rs:2: "),
        ("src/error.rs", "use crate::frame::Frame;", "may not import frame"),
        ("src/pixel/read.rs", "use crate::engine::Engine;", "may not import engine"),
        ("src/job/mod.rs", "use crate::cli::Cli;", "may not import cli"),
        ("src/main.rs", "use hasn::media::Input;", "may not import media"),
        ("src/quality.rs", "use crate::nowhere::Thing;", "may not import nowhere"),
        ("src/nowhere.rs", "pub fn f() {}", "in no table"),
    ] {
        let found = homes::complaints(&files(&[(path, text)]));
        assert!(found.iter().any(|line| line.contains(expected)), "{path}: {text}\nfound {found:?}");
    }
}

#[test]
fn what_is_in_its_place_is_not_reported() {
    for (path, text) in [
        ("src/engine/mod.rs", "//! No ffmpeg_next here, and nothing unsafe."),
        ("src/engine/mod.rs", "/* unsafe /* nested */ println!() */"),
        ("src/engine/mod.rs", "let a = \"unsafe // \\\" serde\"; // println!"),
        ("src/engine/mod.rs", "let behalf = r#\"clap \" rayon\"#;"),
        ("src/engine/mod.rs", "fn f<'a>(x: &'a str) -> char { '\\'' } // unsafe 'b'"),
        ("src/media/mod.rs", "// SAFETY: near\nlet x =\n    unsafe { f() };"),
        ("kernels/cpu/src/simd.rs", "unsafe fn new() -> Self {"),
        ("src/quality.rs", "let half = frame(64, 48);"),
        ("src/cli/console.rs", "io::stderr().is_terminal(); use crate::{media, engine::EngineKind};"),
        ("src/media/mux/mod.rs", "use crate::{Error, media::demux::Input}; use super::super::frame::Frame;"),
        ("src/job/mod.rs", "let line = \"crate::cli::run\"; // crate::cli"),
    ] {
        assert_eq!(homes::complaints(&files(&[(path, text)])), Vec::<String>::new(), "{path}: {text}");
    }
}

/// The complaints about a circle among `texts`, in one.
fn circle(texts: &[(&str, &str)]) -> String {
    circles::complaints(&files(texts)).join("\n")
}

#[test]
fn circles_are_reported_with_their_path() {
    // Three files of one module.
    let found = circle(&[
        ("src/media/mod.rs", "mod a; mod b; mod c;"),
        ("src/media/a.rs", "use crate::media::b::B;\npub struct A(B);"),
        ("src/media/b.rs", "use crate::media::{c::{self, C}};\npub struct B(C);"),
        ("src/media/c.rs", "\nuse crate::media::a::{A as Other};\npub struct C(Other);"),
    ]);
    assert!(
        found.contains("src/media/a.rs -> src/media/b.rs -> src/media/c.rs -> src/media/a.rs"),
        "{found}"
    );
    assert!(found.contains("src/media/c.rs:2: use crate::media::a::A as Other"), "{found}");

    // Two modules, one of which re-exports the other's user.
    let found = circle(&[
        ("src/frame.rs", "use crate::media::Input; pub struct Frame;"),
        ("src/media/mod.rs", "mod demux; pub use demux::Input;"),
        ("src/media/demux/mod.rs", "mod input; pub use self::input::*;"),
        ("src/media/demux/input.rs", "use crate::frame::Frame; pub struct Input;"),
    ]);
    assert!(found.contains("src/frame.rs -> src/media/demux/input.rs -> src/frame.rs"), "{found}");
    assert!(!found.contains("mod.rs"), "{found}");
}

#[test]
fn circles_of_every_form_are_reported() {
    let circles: [(&str, &[(&str, &str)]); 9] = [
        (
            "`super::`, with an item of the module itself",
            &[
                ("src/media/mod.rs", "mod a; pub use a::A; pub struct Shared;"),
                ("src/media/a.rs", "use super::Shared; pub struct A;"),
            ],
        ),
        (
            "a path in the code",
            &[
                ("src/media/mod.rs", "mod a; mod b;"),
                ("src/media/a.rs", "pub fn f() { crate::media::b::g() }"),
                ("src/media/b.rs", "pub fn g() { super::a::f() }"),
            ],
        ),
        (
            "a path that begins with an imported module",
            &[
                ("src/media/mod.rs", "mod a; mod b;"),
                ("src/media/a.rs", "use super::b; pub fn f() { b::g() }"),
                ("src/media/b.rs", "use super::a as other; pub fn g() { other::f() }"),
            ],
        ),
        (
            "a path that begins with a child",
            &[
                ("src/media/mod.rs", "mod a; pub fn f() { a::g() }"),
                ("src/media/a.rs", "pub fn g() { super::f() }"),
            ],
        ),
        (
            "a glob",
            &[
                ("src/media/mod.rs", "mod a; use a::A; pub struct Shared;"),
                ("src/media/a.rs", "use super::*; pub struct A(Shared);"),
            ],
        ),
        (
            "a path in an attribute, a signature and a macro",
            &[
                ("src/media/mod.rs", "mod a; mod b;"),
                ("src/media/a.rs", "pub struct A(#[arg(value_parser = super::b::parse)] u8);"),
                ("src/media/b.rs", "pub fn parse() { warn!(\"{}\", super::a::A(1)) }"),
            ],
        ),
        (
            "an item of a module inside of a file",
            &[
                ("src/media/mod.rs", "mod a; mod b;"),
                ("src/media/a.rs", "pub mod inner { use super::super::b::B; pub struct A; }"),
                ("src/media/b.rs", "use super::a::inner::A; pub struct B;"),
            ],
        ),
        (
            "a function that is called like its module",
            &[
                ("src/media/mod.rs", "mod jpeg; mod b; pub use jpeg::jpeg;"),
                ("src/media/jpeg.rs", "use super::b::B; pub fn jpeg() {}"),
                ("src/media/b.rs", "use crate::media::jpeg; pub struct B;"),
            ],
        ),
        (
            "the crate of the CPU's loops",
            &[
                ("kernels/cpu/src/lib.rs", "mod a; mod b;"),
                ("kernels/cpu/src/a.rs", "use crate::b::B; pub struct A;"),
                ("kernels/cpu/src/b.rs", "use crate::a::A; pub struct B;"),
            ],
        ),
    ];
    for (name, texts) in circles {
        assert!(circle(texts).contains(" -> "), "{name}");
    }
}

#[test]
fn what_is_no_circle_is_not_reported() {
    let sound: [(&str, &[(&str, &str)]); 7] = [
        (
            "re-exports lead to the file that defines the item",
            &[
                (
                    "src/media/mod.rs",
                    "mod demux; mod mux; pub use demux::{Input, Packet}; pub use mux::Muxer;",
                ),
                ("src/media/demux/mod.rs", "mod input; mod packet; pub use input::Input; pub use packet::*;"),
                ("src/media/demux/input.rs", "use super::Packet; pub struct Input;"),
                ("src/media/demux/packet.rs", "pub struct Packet;"),
                ("src/media/mux.rs", "use crate::media::{Input, Packet}; pub struct Muxer;"),
            ],
        ),
        (
            "the name of a module alone",
            &[
                ("src/media/mod.rs", "mod a; mod b; pub use a::A; pub use b::B; pub fn init() {}"),
                ("src/media/a.rs", "use crate::media; pub struct A(media::B);"),
                ("src/media/b.rs", "pub struct B;"),
            ],
        ),
        (
            "comments and strings",
            &[
                ("src/media/mod.rs", "mod a; mod b;"),
                ("src/media/a.rs", "use super::b::B; pub struct A;"),
                (
                    "src/media/b.rs",
                    "// use super::a::A;\n/// [`crate::media::a::A`]\npub const B: &str = r#\"super::a::A\"#;",
                ),
            ],
        ),
        (
            "tests",
            &[
                ("src/media/mod.rs", "mod a; mod b; #[cfg(test)] mod checks;"),
                (
                    "src/media/a.rs",
                    "use super::b::B; pub struct A; #[cfg(test)] #[path = \"a_tests.rs\"] mod tests;",
                ),
                ("src/media/a_tests.rs", "use super::A; use crate::media::b::f;"),
                (
                    "src/media/b.rs",
                    "pub struct B; #[cfg(test)]\nmod tests { use super::super::a::A; fn f() {} }",
                ),
                ("src/media/checks.rs", "use super::a::A; pub fn check() {}"),
                ("src/media/checks/more.rs", "use super::check; use crate::media::a::A;"),
            ],
        ),
        (
            "items that only tests have",
            &[
                ("src/media/mod.rs", "mod a; mod b;"),
                ("src/media/a.rs", "use super::b::B; pub struct A;"),
                (
                    "src/media/b.rs",
                    "#[cfg(test)]\nuse super::a::{A};\npub struct B { #[cfg(test)] a: super::a::A, b: u8 }\n\
                                #[cfg(test)]\nfn f() -> super::a::A { A }",
                ),
            ],
        ),
        (
            "a child in a `pub(in super::super)`",
            &[
                ("src/media/mod.rs", "mod a; pub use a::A; pub struct Shared;"),
                ("src/media/a.rs", "pub(in super::super) struct A; pub(super) fn f() {}"),
            ],
        ),
        (
            "imports that lead nowhere",
            &[
                (
                    "src/media/mod.rs",
                    "mod a; pub use a::*; use std::fmt::{self, Write as _}; use ffmpeg_next::{self as ffmpeg};",
                ),
                (
                    "src/media/a.rs",
                    "use super::*; use std::a::A; fn f() -> impl Sized + use<> { ffmpeg::init() }",
                ),
            ],
        ),
    ];
    for (name, texts) in sound {
        assert_eq!(circle(texts), "", "{name}");
    }
}

#[test]
fn circles_of_folders_are_reported() {
    let folders = files(&[
        ("src/media/mod.rs", "mod demux; mod decode; mod packet;"),
        ("src/media/demux/mod.rs", "mod input; mod live;"),
        ("src/media/demux/input.rs", "use crate::media::packet::Packet; pub struct Input;"),
        ("src/media/demux/live.rs", "use crate::media::decode::trim::Trim;"),
        ("src/media/decode/mod.rs", "mod trim; mod decoder;"),
        ("src/media/decode/trim.rs", "pub struct Trim;"),
        ("src/media/decode/decoder.rs", "use super::trim::Trim;\nuse crate::media::demux::input::Input;"),
        ("src/media/packet.rs", "pub struct Packet;"),
    ]);
    assert_eq!(circles::complaints(&folders), Vec::<String>::new());
    let found = circles::complaints_of_folders(&folders).join("\n");
    assert!(found.contains("src/media/decode -> src/media/demux -> src/media/decode"), "{found}");
    assert!(
        found.contains("src/media/decode/decoder.rs:2: use crate::media::demux::input::Input"),
        "{found}"
    );

    let without_decoder: Vec<_> =
        folders.into_iter().filter(|(path, _)| !path.ends_with("decoder.rs")).collect();
    assert_eq!(circles::complaints_of_folders(&without_decoder), Vec::<String>::new());
}

#[test]
fn every_circle_is_reported() {
    let found = circles::complaints(&files(&[
        ("src/media/mod.rs", "mod a; mod b; mod c;"),
        ("src/media/a.rs", "use super::b::B; use super::c::C; pub struct A;"),
        ("src/media/b.rs", "use super::a::A; pub struct B;"),
        ("src/media/c.rs", "use super::a::A; pub struct C;"),
        ("src/relay/x.rs", "use super::y::Y; pub struct X;"),
        ("src/relay/y.rs", "use super::x::X; pub struct Y;"),
    ]));
    let circles = found.iter().filter(|line| line.starts_with("import circle")).count();
    assert_eq!(circles, 3, "{found:?}");
}

#[test]
fn replaced_words_are_reported() {
    for (path, text, expected) in [
        ("src/frame.rs", "pub struct PicturePool;", "'picture'"),
        ("src/media/mod.rs", "let last_pictures = 1;", "'pictures'"),
        ("src/media/mod.rs", "pub struct Coded;", "'Coded'"),
        ("src/relay/sinks.rs", "struct Lane;", "'lane'"),
        ("src/media/mod.rs", "const SOUND_S: u8 = 1;", "'sound'"),
        ("src/pipeline/report.rs", "#[derive(Serialize)] struct Report { pictures: u64 }", "'pictures'"),
        ("src/pipeline/report.rs", "#[serde(rename = \"pictures_made\")]\nfps: f64,", "'pictures'"),
        ("src/relay/metrics.rs", "(\"hasn_pictures_total\", 1)", "'pictures'"),
        ("src/cli/mod.rs", "#[arg(long = \"worst-picture\")]\nworst: PathBuf,", "'picture'"),
        ("src/cli/mod.rs", "/// The film to upscale\ninput: PathBuf,", "'film'"),
        ("src/cli/mod.rs", "/// Go on where it was\nresume: bool,", "'go on'"),
        ("src/cli/mod.rs", "enum Preset { FilmArchive }", "'film'"),
        ("src/media/mux.rs", "Error::new(name, \"is torn\", \"copy it again\")", "'torn'"),
        ("src/journal/mod.rs", "warn!(\"{name}: the journal \\\n    goes \\\n    on\")", "'goes on'"),
        ("src/pipeline/mod.rs", "info!(\"{fps:.1} frames a second\")", "'frames a second'"),
        ("src/error.rs", "//! What is wrong with a film.", "'film'"),
        ("examples/upscale_image.rs", "let picture = read();", "'picture'"),
    ] {
        let found = words::complaints(&files(&[(path, text)]));
        assert!(found.iter().any(|line| line.contains(expected)), "{path}: {text}\nfound {found:?}");
    }
    let page = ("src/relay/status.html".to_owned(), "<td>\nPictures</td>".to_owned());
    assert!(words::complaints_of_page(&page)[0].starts_with("src/relay/status.html:2: 'pictures'"));
    let targets =
        words::names_of_makefile("A := b\nsoak-films: deps\n\techo a: b\nSOAK_PICTURES ?= 1\n# rooms: no\n");
    assert_eq!(targets, ["A", "soak-films", "SOAK_PICTURES"]);
    let names = ["tests/film/main.rs", "tests/rooms.rs", "tests/video/frames.rs"];
    assert_eq!(words::complaints_of_names(targets.into_iter().chain(names)).len(), 4);
}

#[test]
fn true_names_are_not_reported() {
    for (path, text) in [
        ("src/media/decode.rs", "if frame.pict_type == ffi::AVPictureType::AV_PICTURE_TYPE_NONE {}"),
        ("src/media/encode.rs", "// Film grain is kept.\nlet x = \"film_grain=1\";"),
        ("src/media/streams.rs", "warn!(\"the attached picture stays as it is\"); // attached_pic"),
        ("src/media/decode.rs", "let coded_side_data = 1; // every group of pictures"),
        ("kernels/cpu/src/simd.rs", "const LANES: usize = 8;"),
        ("src/engine/cuda/maps.rs", "let lane = thread % 32;"),
        ("src/media/mux.rs", "#[cfg(test)]\nmod tests { fn f() { assert!(told.contains(\"is torn\")); } }"),
        ("src/media/mux.rs", "// Sounds and lanes of a comment, whole or torn.\nlet towards = filmstrip;"),
    ] {
        assert_eq!(words::complaints(&files(&[(path, text)])), Vec::<String>::new(), "{path}: {text}");
    }
}

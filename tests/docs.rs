//! Checks the documentation against the repository: links and anchors resolve, paths exist, options and their values are
//! those of the program, quoted messages are those of the source, and each measured figure stands in one place.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use common::program::project_file;

/// Pages outside of `docs` and `models`.
const PAGES: [&str; 6] = [
    "README.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "CHANGELOG.md",
    "examples/README.md",
    "training/README.md",
];
const README_LINES_MAX: usize = 150;
/// Pages with measured figures; those of a model are on its card.
const FIGURES: [&str; 2] = ["README.md", "docs/benchmarks.md"];
/// Prefixes of the paths that are checked.
const FOLDERS: [&str; 8] =
    ["src/", "kernels/", "tests/", "examples/", "training/", "models/", "docs/", "gpu-check/"];
/// Units of measured figures. Limits are written in MiB and seconds.
const UNITS: [&str; 8] = ["dB", "fps", "ms", "MB", "GB", "GFLOP/s", "TFLOP/s", "TB/s"];
/// Words that are followed by a version number.
const VERSIONED: [&str; 7] = ["FFmpeg", "Rust", "Python", "Debian", "Ubuntu", "BY", "BY-SA"];

/// What the pages are checked against.
struct Project<'a> {
    exists: &'a dyn Fn(&str) -> bool,
    /// By subcommand.
    options: BTreeMap<String, Options>,
    /// Source files by path, their whitespace normalised.
    source: BTreeMap<String, String>,
}

/// Long options, each with its possible values; empty where any value is accepted.
type Options = BTreeMap<String, Vec<String>>;

/// Path from the repository's root, and text.
type Page = (String, String);

#[test]
fn the_documentation_holds() {
    let mut pages: Vec<Page> = PAGES.iter().map(|name| (*name).to_owned()).map(read).collect();
    for folder in ["docs", "models"] {
        let names = files_of(folder).into_iter().filter(|name| name.ends_with(".md"));
        pages.extend(names.map(read));
    }
    assert!(pages.len() > 18, "pages are found");
    let exists = |path: &str| project_file(path).exists();
    let mut source = BTreeMap::new();
    ["src", "kernels"].iter().for_each(|folder| collect(folder, &mut source));
    let project = Project { exists: &exists, options: options_of_program(), source };
    let found = complaints(&pages, &project);
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn every_fault_is_found() {
    let options =
        options_of("  -y\n  --size <WxH>  The size\n  --preset <PRESET>\n  - web: x264\n  -h, --help\n");
    let options = BTreeMap::from([("upscale".to_owned(), options)]);
    let exists = |path: &str| ["README.md", "docs/a.md", "docs", "src/lib.rs", "src"].contains(&path);
    let text = "fn describe() { \"has no video stream\" \"is larger than {SIDE_MAX} on a side\" }".to_owned();
    let source = BTreeMap::from([("src/lib.rs".to_owned(), text)]);
    let project = Project { exists: &exists, options, source };
    let check = |readme: &str, a: &str, name: &str| {
        let page = |name: &str, text: &str| (name.to_owned(), text.to_owned());
        complaints(&[page("README.md", readme), page(name, a)], &project)
    };
    let good = "# One `b`\n\n[a](docs/a.md#two-words) [here](#one-b) `src/lib.rs` `src/*.rs` Rust 1.95, 38.34 dB, FFmpeg 5.1\n\n\
                 \x20   hasn upscale in - --size 2x2 | mpv - --fs  # --not\n    cargo --lib\n";
    let other = "## Two words\n\n`--size` [up](../README.md) [web](https://a.b/c#d) 39.34, [Rust](https://r) 1.95, FFmpeg 5.1\n\n\
                 \x20   18.5 fps [no](link)\n";
    assert_eq!(check(good, other, "docs/a.md"), Vec::<String>::new());
    for (readme, a, expected) in [
        ("[a](docs/b.md)", "", "docs/b.md"),
        ("[a](docs/a.md#three)", "## Two", "#three"),
        ("[a\nb](#none)", "", "#none"),
        ("", "[a](b.md)", "docs/b.md"),
        ("`src/nowhere.rs`", "", "src/nowhere.rs"),
        ("\n    cat src/nowhere.rs\n", "", "src/nowhere.rs"),
        ("`src/none/*.rs`", "", "src/none"),
        ("\n    hasn upscale a b --siz 2x2\n", "", "--siz"),
        ("\n    hasn upscale a b \\\n        --siz=2x2\n", "", "--siz"),
        ("\n    ffmpeg -i a - | X=1 target/release/hasn upscale - b '--siz'\n", "", "--siz"),
        ("\n    hasn upscal a b\n", "", "upscal"),
        ("\n    hasn upscale a b --preset wed\n", "", "wed"),
        ("`hasn upscale --siz`", "", "--siz"),
        ("`--siz 2`", "", "--siz"),
        ("37.24 dB", "| bicubic | 37.24 |", "37.24"),
        ("is 41 dB off", "some 41 dB", "41 dB"),
        ("it has 41 dB and 41 dB", "", "41 dB"),
        ("", "it takes 12.5 ms", "12.5 ms"),
        (&"line\n".repeat(151), "", "151 lines"),
    ] {
        let found = check(readme, a, "docs/a.md");
        assert!(found.iter().any(|line| line.contains(expected)), "{readme:?} {a:?}\nfound {found:?}");
    }
    let table = "| `has no video stream`, `is larger than ... on a side` | `has no` |\n| `has no audio` | |";
    let found = check("", table, "docs/troubleshooting.md");
    assert_eq!(found, ["docs/troubleshooting.md: no message of the program has 'has no audio'"]);
    let table =
        "| a format | `src/lib.rs` | `Format::describe`, `describe!` |\n| a codec | `src/` | `scribe` |";
    let found = check("", table, "docs/architecture.md");
    assert_eq!(found, ["docs/architecture.md: scribe is not in src/"]);
    let found = check(
        "",
        "`describe` in `src/lib.rs`, `run`\nin `src/lib.rs`, `f` or `src/`",
        "docs/architecture.md",
    );
    assert_eq!(found, ["docs/architecture.md: run is not in src/lib.rs"]);
}

/// Returns a line for each fault.
fn complaints(pages: &[Page], project: &Project<'_>) -> Vec<String> {
    let mut found = Vec::new();
    let anchors: BTreeMap<&str, BTreeSet<String>> =
        pages.iter().map(|(path, text)| (path.as_str(), anchors(text))).collect();
    for (path, text) in pages {
        let mut note = |problem: String| found.push(format!("{path}: {problem}"));
        let lines = text.lines().count();
        if path == "README.md" && lines > README_LINES_MAX {
            note(format!("has {lines} lines, more than {README_LINES_MAX}"));
        }
        let Parts { prose, blocks } = parts(text);
        let spans = spans(&prose);
        links(path, &prose, &anchors, project).into_iter().for_each(&mut note);
        let words = blocks.iter().flat_map(|block| block.split_whitespace());
        words
            .chain(spans.iter().map(|span| span.split_whitespace().next().unwrap_or_default()))
            .filter_map(|word| missing_path(word, project))
            .for_each(|path| note(format!("there is no {path}")));
        let commands = blocks.iter().flat_map(|block| commands(block));
        let in_prose =
            spans.iter().filter(|span| span.starts_with("hasn ")).flat_map(|span| commands_of_line(span));
        commands
            .chain(in_prose)
            .filter_map(|words| unknown_option_or_value(&words, project))
            .for_each(&mut note);
        if !path.starts_with("training/") && !path.starts_with("models/") {
            let alone = spans.iter().filter(|span| span.starts_with("--"));
            let name = |span: &String| option_name(span.split_whitespace().next().unwrap_or_default());
            for option in alone.map(name) {
                if !project.options.values().any(|options| options.contains_key(&option)) {
                    note(format!("no command has the option {option}"));
                }
            }
        }
        match path.as_str() {
            "docs/troubleshooting.md" => unknown_messages(text, project).for_each(&mut note),
            "docs/architecture.md" => misplaced_items(text, project).into_iter().for_each(&mut note),
            _ => {}
        }
    }
    found.extend(doubled_figures(pages));
    found
}

/// A page's text without its code blocks, line for line, and the blocks.
struct Parts {
    prose: String,
    blocks: Vec<String>,
}

fn parts(text: &str) -> Parts {
    let (mut prose, mut blocks) = (String::new(), Vec::<String>::new());
    let (mut in_code, mut in_fence, mut after_blank) = (false, false, true);
    for line in text.lines() {
        let is_fence = line.trim_start().starts_with("```");
        let is_indented = line.starts_with("    ") && (after_blank || in_code);
        let is_code = in_fence || is_fence || is_indented;
        in_fence ^= is_fence;
        if is_code {
            if !in_code {
                blocks.push(String::new());
            }
            if !is_fence {
                let block = blocks.last_mut().expect("a block is open");
                block.push_str(line);
                block.push('\n');
            }
        } else {
            prose.push_str(line);
        }
        prose.push('\n');
        (in_code, after_blank) = (is_code, line.trim().is_empty());
    }
    Parts { prose, blocks }
}

/// Returns the texts between backticks; a text may be wrapped.
fn spans(prose: &str) -> Vec<String> {
    prose.split("\n\n").flat_map(|paragraph| paragraph.split('`').skip(1).step_by(2)).map(one_line).collect()
}

fn without_spans(prose: &str) -> String {
    let of = |paragraph: &str| paragraph.split('`').step_by(2).collect::<Vec<_>>().join(" ");
    prose.split("\n\n").map(of).collect::<Vec<_>>().join("\n\n")
}

fn one_line(text: &str) -> String {
    text.replace("\\\n", " ").split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Returns the anchors that forges derive from a page's headings.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    for line in parts(text).prose.lines() {
        let heading = line.trim_start_matches('#');
        if heading.len() == line.len() || !heading.starts_with(' ') {
            continue;
        }
        let kept = heading.trim().to_lowercase();
        let kept = kept.chars().filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
        let name: String = kept.map(|c| if c == ' ' { '-' } else { c }).collect();
        let count = (1..).find(|count| !seen.contains(&format!("{name}-{count}")));
        let name = match seen.contains(&name) {
            true => format!("{name}-{}", count.expect("some number is free")),
            false => name,
        };
        seen.insert(name);
    }
    seen
}

fn link_targets(prose: &str) -> impl Iterator<Item = &str> {
    prose.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target)
}

fn without_targets(prose: &str) -> String {
    let mut parts = prose.split("](");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| text + part.split_once(')').map_or(part, |(_, rest)| rest))
}

fn links(
    path: &str,
    prose: &str,
    anchors: &BTreeMap<&str, BTreeSet<String>>,
    project: &Project<'_>,
) -> Vec<String> {
    let mut problems = Vec::new();
    for target in link_targets(&without_spans(prose)).filter(|target| !target.contains("://")) {
        let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
        let file = if file.is_empty() { path.to_owned() } else { resolved(path, file) };
        if !(project.exists)(&file) {
            problems.push(format!("the link to {file} leads nowhere"));
        } else if !anchor.is_empty() && !anchors.get(&*file).is_some_and(|names| names.contains(anchor)) {
            problems.push(format!("{file} has no heading #{anchor}"));
        }
    }
    problems
}

/// Resolves a relative link of a page to a path from the root.
fn resolved(page: &str, link: &str) -> String {
    let mut parts: Vec<&str> = page.split('/').collect();
    parts.pop();
    for part in link.trim_end_matches('/').split('/') {
        match part {
            ".." => drop(parts.pop()),
            "." => {}
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// Returns the path that a word names, if the repository lacks it. Of a pattern the folder is checked.
fn missing_path(word: &str, project: &Project<'_>) -> Option<String> {
    let word = word.trim_matches(|c: char| !c.is_alphanumeric() && c != '*');
    FOLDERS.iter().find(|folder| word.starts_with(**folder))?;
    let folder = word.split('*').next().unwrap_or(word);
    let path = if folder == word { word } else { folder.rsplit_once('/').map_or(word, |(folder, _)| folder) };
    (!(project.exists)(path)).then(|| path.to_owned())
}

/// Returns the words of each hasn command of a code block, from the subcommand on.
fn commands(block: &str) -> Vec<Vec<String>> {
    block.replace("\\\n", " ").lines().flat_map(commands_of_line).collect()
}

fn commands_of_line(line: &str) -> Vec<Vec<String>> {
    let line = line.split(" # ").next().unwrap_or(line);
    let of = |part: &str| {
        let words = part.split_whitespace().map(|word| word.trim_matches(['\'', '"', '(', ')']).to_owned());
        let mut words = words.skip_while(|word| word != "hasn" && !word.ends_with("/hasn"));
        words.next().map(|_| words.collect::<Vec<_>>())
    };
    line.split([';', '|', '&']).filter_map(of).filter(|words| !words.is_empty()).collect()
}

fn option_name(word: &str) -> String {
    word.split('=').next().unwrap_or(word).to_owned()
}

fn unknown_option_or_value(words: &[String], project: &Project<'_>) -> Option<String> {
    let (command, words) = words.split_first()?;
    // A placeholder, or an option of the program itself.
    if command.starts_with(['-', '[']) || command.starts_with(char::is_uppercase) {
        return None;
    }
    let Some(options) = project.options.get(command) else {
        return Some(format!("there is no hasn {command}"));
    };
    let problem = |(at, word): (usize, &String)| {
        let name = option_name(word);
        let Some(values) = options.get(&name) else {
            return Some(format!("hasn {command} has no option {name}"));
        };
        let value = word.split_once('=').map(|(_, value)| value).or(words.get(at + 1).map(String::as_str));
        let value = value.filter(|value| !values.is_empty() && !values.iter().any(|one| one == value));
        value.map(|value| format!("hasn {command} {name} takes no {value}"))
    };
    words.iter().enumerate().filter(|(_, word)| word.len() > 2 && word.starts_with("--")).find_map(problem)
}

/// Checks the messages quoted in the first columns of tables; `...` stands for a part that varies.
fn unknown_messages<'a>(text: &'a str, project: &'a Project<'_>) -> impl Iterator<Item = String> + 'a {
    let first = text.lines().filter_map(|line| line.strip_prefix('|')?.split('|').next());
    let quoted = first.flat_map(spans).filter(|span| span.contains(' ') && !span.starts_with("--"));
    let is_there = |part: &str| project.source.values().any(|file| file.contains(part.trim()));
    let has = move |quote: &String| quote.split("...").all(is_there);
    quoted.filter(move |quote| !has(quote)).map(|quote| format!("no message of the program has '{quote}'"))
}

/// Checks that the items of a table's row are in one of the files that it names, and "`item` in `file`" anywhere.
fn misplaced_items(text: &str, project: &Project<'_>) -> Vec<String> {
    let is_path = |span: &String| FOLDERS.iter().any(|folder| span.starts_with(folder));
    let is_item = |span: &&String| span.chars().all(|c| c.is_alphanumeric() || "_:!".contains(c));
    let mut placed: Vec<(String, Vec<String>)> = Vec::new();
    for row in text.lines().filter(|line| line.starts_with('|')) {
        let (paths, others): (Vec<_>, Vec<_>) = spans(row).into_iter().partition(is_path);
        placed.extend(others.iter().filter(is_item).map(|item| (item.clone(), paths.clone())));
    }
    for paragraph in parts(text).prose.split("\n\n") {
        let pieces: Vec<String> = paragraph.split('`').map(one_line).collect();
        let items = pieces.windows(3).skip(1).step_by(2).filter(|three| three[1] == "in");
        placed.extend(items.map(|three| (three[0].clone(), vec![three[2].clone()])));
    }
    let has = |text: &str, name: &str| {
        text.split(|c: char| !(c.is_alphanumeric() || c == '_')).any(|word| word == name)
    };
    let is_there = |(item, paths): &(String, Vec<String>)| {
        let name = item.rsplit("::").next().unwrap_or(item).trim_end_matches('!');
        let mut files =
            project.source.iter().filter(|(file, _)| paths.iter().any(|path| file.starts_with(path)));
        paths.is_empty() || files.any(|(_, text)| has(text, name))
    };
    let missing = placed.iter().filter(|placed| !is_there(placed));
    missing.map(|(item, paths)| format!("{item} is not in {}", paths.join(", "))).collect()
}

/// Finds numbers with a unit that stand twice, and numbers with a decimal point that stand on two pages.
fn doubled_figures(pages: &[Page]) -> Vec<String> {
    let (mut units, mut numbers) = (BTreeMap::<String, &str>::new(), BTreeMap::<String, &str>::new());
    let mut found = Vec::new();
    for (path, text) in pages.iter().filter(|(path, _)| !path.starts_with("models/")) {
        let prose = without_targets(&without_spans(&parts(text).prose));
        let words: Vec<&str> = prose.split_whitespace().collect();
        let trimmed = |word: &str| word.trim_matches(|c: char| !c.is_alphanumeric()).to_owned();
        for (at, word) in words.iter().enumerate() {
            let number = trimmed(word);
            let is_version = at > 0 && VERSIONED.contains(&&*trimmed(words[at - 1]));
            if number.parse::<f64>().is_err() || is_version {
                continue;
            }
            let unit = words.get(at + 1).map_or(String::new(), |word| trimmed(word));
            let is_broken_off = word.ends_with([',', ';', ')', '|']);
            let has_unit = UNITS.contains(&&*unit) && !is_broken_off;
            if has_unit && let Some(other) = units.insert(format!("{number} {unit}"), path) {
                found.push(format!("{path}: the figure {number} {unit} stands in {other} already"));
            }
            if !number.contains('.') || path.starts_with("training/") {
                continue;
            }
            if has_unit && !FIGURES.contains(&&**path) {
                found.push(format!("{path}: the figure {number} {unit} belongs in docs/benchmarks.md"));
            }
            if let Some(other) = numbers.insert(number.clone(), path).filter(|other| other != path) {
                found.push(format!("{path}: the figure {number} stands in {other} already"));
            }
        }
    }
    found
}

fn read(path: String) -> Page {
    let text = std::fs::read_to_string(project_file(&path)).unwrap_or_else(|e| panic!("{path}: {e}"));
    (path, text)
}

/// Lists a folder by paths from the root.
fn files_of(folder: &str) -> Vec<String> {
    let entries = std::fs::read_dir(project_file(folder)).expect("a folder of the project");
    let name = |entry: std::io::Result<std::fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
    let mut names: Vec<_> = entries.map(name).map(|name| format!("{folder}/{name}")).collect();
    names.sort();
    names
}

fn collect(folder: &str, source: &mut BTreeMap<String, String>) {
    for name in files_of(folder) {
        if project_file(&name).is_dir() {
            collect(&name, source);
        } else if name.ends_with(".rs") || name.ends_with(".cu") {
            let (name, text) = read(name);
            source.insert(name, one_line(&text));
        }
    }
}

fn help(words: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_hasn")).args(words).arg("--help").output();
    String::from_utf8(output.expect("hasn starts").stdout).expect("help is UTF-8")
}

fn options_of_program() -> BTreeMap<String, Options> {
    let overview = help(&[]);
    let commands = overview.lines().skip_while(|line| *line != "Commands:").skip(1);
    let names =
        commands.take_while(|line| !line.is_empty()).filter_map(|line| line.split_whitespace().next());
    let options = |command: &str| options_of(&help(&[command]));
    let found: BTreeMap<_, _> = names.map(|name| (name.to_owned(), options(name))).collect();
    assert!(found.contains_key("upscale"), "commands are listed");
    found
}

fn options_of(help: &str) -> Options {
    let (mut options, mut last) = (Options::new(), String::new());
    for line in help.lines().map(str::trim_start) {
        let words = line.split([' ', ',']).take(3).filter(|_| line.starts_with('-'));
        if let Some(name) = words.into_iter().find(|word| word.starts_with("--")) {
            last = option_name(name);
            options.insert(last.clone(), Vec::new());
        }
        let inline = line.split_once("[possible values: ").and_then(|(_, values)| values.split_once(']'));
        let inline = inline.map_or(Vec::new(), |(values, _)| values.split(", ").collect());
        let below = line.strip_prefix("- ").map(|value| value.split(':').next().unwrap_or(value));
        if let Some(values) = options.get_mut(&last) {
            values.extend(inline.into_iter().chain(below).map(str::to_owned));
        }
    }
    options
}

//! `docs/options.md`: the help of every command, as the program prints it.

use std::env;
use std::path::Path;
use std::process::Command;

const HEAD: &str = "# Options\n\nWhat `hasn COMMAND --help` prints, for every command. `hasn man FOLDER` writes the same as manual pages.\n\
                    [development.md](development.md#tests) describes how this page is renewed.\n";

fn help(words: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hasn"));
    let output = command.args(words).arg("--help").env_remove("COLUMNS").output().expect("hasn starts");
    assert!(output.status.success(), "hasn {words:?} --help");
    let text = String::from_utf8(output.stdout).expect("help is UTF-8");
    text.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// Names of the commands in a help text.
fn commands(help: &str) -> Vec<String> {
    let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let names = lines
        .take_while(|line| !line.is_empty())
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    names
        .map(|line| line.split_whitespace().next().expect("a name").to_owned())
        .filter(|name| name != "help")
        .collect()
}

fn page() -> String {
    let section =
        |title: String, text: String| format!("\n## {title}\n\n```text\n{}\n```\n", text.trim_end());
    let overview = help(&[]);
    let mut page = HEAD.to_owned();
    let names = commands(&overview);
    assert!(names.len() > 12, "commands are found: {names:?}");
    page += &section("hasn".to_owned(), overview);
    for name in names {
        let text = help(&[&name]);
        let nested = commands(&text);
        page += &section(format!("hasn {name}"), text);
        for inner in nested {
            page += &section(format!("hasn {name} {inner}"), help(&[&name, &inner]));
        }
    }
    page
}

#[test]
fn the_page_of_options_is_that_of_the_program() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/options.md");
    let page = page();
    for option in ["--dry-run", "--reference <FILE>", "--worst-frame", "--latency-max", "--price-per-hour"] {
        assert!(page.contains(option), "{option} is missing");
    }
    if env::var_os("HASN_OPTIONS_UPDATE").is_some() {
        std::fs::write(path, page).unwrap();
        return;
    }
    let written = std::fs::read_to_string(path).unwrap_or_default();
    let differs = written.lines().zip(page.lines()).find(|(old, new)| old != new);
    let renew = "HASN_OPTIONS_UPDATE=1 cargo test --test options writes docs/options.md";
    assert!(written == page, "{renew}; the first difference: {differs:?}");
}

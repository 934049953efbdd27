//! Presets: `hasn preset list`, and those of the user in a TOML file. A preset of the user's is replaced by the options
//! that it sets before the command line is parsed, so that a resumed run, a batch and a plan depend on those options.

use std::collections::BTreeMap;
use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Command, FromArgMatches, ValueEnum};
use toml::Spanned;

use super::console::print;
use super::option_file::{OptionFile, Table};
use super::upscale::PresetName;
use super::words::Words;
use crate::error::{Error, Result};

/// Commands that take the options of `hasn upscale`.
const COMMANDS: [&str; 4] = ["upscale", "plan", "batch", "preview"];
const PRESET: &str = "preset";
/// Where an example is.
const REMEDY: &str = "see the example in docs/preview.md";

#[derive(clap::Subcommand)]
pub(super) enum Args {
    /// List the presets and what each of them sets: those of hasn, and those of hasn/presets.toml in $XDG_CONFIG_HOME or
    /// ~/.config.
    List,
}

pub(super) fn run(args: &Args) -> Result<ExitCode> {
    let Args::List = args;
    let mut text = String::new();
    for preset in PresetName::value_variants() {
        let value = preset.to_possible_value().expect("every preset has a name");
        let help = value.get_help().map(ToString::to_string).unwrap_or_default();
        text += &format!("{:10} {help}\n{:10} {}\n", value.get_name(), "", preset.preset().sets().join(" "));
    }
    for (name, UserPreset { description, words }) in of_user()? {
        let indent = if description.is_empty() { String::new() } else { format!("{description}\n{:11}", "") };
        text += &format!("{name:10} {indent}{}\n", words.options().join(" "));
    }
    text += &match file() {
        Some(path) if path.exists() => format!("your own: {}\n", path.display()),
        Some(path) => format!("your own: none; {} would have them\n", path.display()),
        None => "your own: none, as neither XDG_CONFIG_HOME nor HOME is set\n".to_owned(),
    };
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// A preset of the user's.
struct UserPreset {
    description: String,
    words: Words,
}

/// The file of the user's presets.
fn file() -> Option<PathBuf> {
    let is_absolute = |path: &PathBuf| path.is_absolute();
    let folder = env::var_os("XDG_CONFIG_HOME").map(PathBuf::from).filter(is_absolute);
    let folder = folder.or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".config")))?;
    Some(folder.join("hasn").join("presets.toml"))
}

/// The presets of the user's file; none if there is no file.
fn of_user() -> Result<BTreeMap<String, UserPreset>> {
    match file() {
        Some(path) if path.exists() => read(&path),
        _ => Ok(BTreeMap::new()),
    }
}

fn read(path: &Path) -> Result<BTreeMap<String, UserPreset>> {
    let file = OptionFile::read(path)?;
    let tables: BTreeMap<Spanned<String>, Table> = file.parse(REMEDY)?;
    let mut presets = BTreeMap::new();
    for (name, mut table) in tables {
        let place = file.place(name.span().start);
        if is_built_in(name.get_ref()) {
            let problem = format!("'{}' is a preset of hasn itself", name.get_ref());
            return Err(Error::new(place, problem, "choose another name"));
        }
        let description = file.take_text(&mut table, "description")?.unwrap_or_default();
        let mut words = Words::default();
        for (option, values) in file.settings(&table)? {
            let mut alone = Words::default();
            alone.set(&option, values.clone());
            let key = table.keys().find(|key| *key.get_ref() == option).expect("a key of the table");
            alone.check(&file.place(key.span().start))?;
            words.set(&option, values);
        }
        words.check(&place)?;
        presets.insert(name.into_inner(), UserPreset { description, words });
    }
    Ok(presets)
}

fn is_built_in(name: &str) -> bool {
    PresetName::from_str(name, false).is_ok()
}

/// Replaces a preset of the user's by the options that it sets. Those of `words` override them.
pub(super) fn expand(words: &Words) -> Result<Words> {
    let Some(name) = words.value(PRESET).filter(|name| !is_built_in(name)) else { return Ok(words.clone()) };
    let Some(preset) = of_user()?.remove(name) else { return Ok(words.clone()) };
    let mut given = words.clone();
    given.set(PRESET, None);
    Ok(preset.words.left_by(&given).joined(&given))
}

/// The same for a command line.
pub(super) fn expand_line(line: Vec<OsString>, command: Command) -> Result<Vec<OsString>> {
    let Some(at) = line.iter().position(|word| COMMANDS.iter().any(|command| word == command)) else {
        return Ok(line);
    };
    let options = line.iter().enumerate().skip(at + 1).take_while(|(_, word)| *word != "--");
    let named = options.filter_map(|(i, word)| match word.to_str()?.strip_prefix("--preset")? {
        "" => Some((i..i + 2, line.get(i + 1)?.to_str()?)),
        value => Some((i..i + 1, value.strip_prefix('=')?)),
    });
    let Some((range, name)) = named.last().filter(|(_, name)| !is_built_in(name)) else { return Ok(line) };
    let Some(preset) = of_user()?.remove(name) else { return Ok(line) };
    let mut line = line.clone();
    line.drain(range);
    // A line that is wrong is reported when it is parsed.
    let Ok(matches) = command.try_get_matches_from(&line) else { return Ok(line) };
    let given = matches.subcommand().and_then(|(_, matches)| Words::from_arg_matches(matches).ok());
    let added = preset.words.left_by(&given.unwrap_or_default()).options();
    line.splice(at + 1..at + 1, added.into_iter().map(OsString::from));
    Ok(line)
}

/// The hint for a preset that does not exist.
pub(super) fn hint(name: &str) -> Option<String> {
    let names: Vec<_> = of_user().ok()?.into_keys().collect();
    (!names.is_empty()).then(|| format!("your own presets are {}, not {name}", names.join(", ")))
}

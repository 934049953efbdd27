//! Options of `hasn upscale` as words for its own parser. They come from a command line and from a job file, and one
//! set overrides another.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};

use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Args as _, Command};

use super::{files, upscale};
use crate::error::{Error, Result};

/// Options that a batch sets itself: each video has its own names and report, and resumes its journal without being asked.
/// A dry run is one of a video.
const OF_THE_BATCH: [&str; 5] = [files::OPTIONS[0], files::OPTIONS[1], "report", "resume", "dry_run"];
/// Options that do not change the output: those of access to the input, of the machine, of the display, and of an earlier run's remains.
const NOT_IN_THE_OUTPUT: [&str; 7] =
    ["allow-playlist", "timeout", "threads", "no-reuse", "overwrite", "restart", "progress"];

/// The option that adds up instead of replacing an earlier one.
const LIST: &str = "encoder-opt";

/// The values of each option, by the option's name without hyphens; a flag has no value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Words(BTreeMap<String, Vec<String>>);

fn options() -> Vec<Arg> {
    let command = upscale::Args::augment_args(Command::new("upscale"));
    let is_ours = |arg: &&Arg| !arg.is_positional() && !OF_THE_BATCH.contains(&arg.get_id().as_str());
    command.get_arguments().filter(is_ours).cloned().collect()
}

fn name(option: &Arg) -> String {
    let short = || option.get_short().map(String::from);
    option.get_long().map(str::to_owned).or_else(short).expect("an option has a name")
}

impl clap::Args for Words {
    fn augment_args(command: Command) -> Command {
        command.args(options())
    }

    fn augment_args_for_update(command: Command) -> Command {
        Words::augment_args(command)
    }
}

impl clap::FromArgMatches for Words {
    fn from_arg_matches(matches: &ArgMatches) -> std::result::Result<Words, clap::Error> {
        let typed = |option: Arg| {
            let id = option.get_id().as_str();
            if matches.value_source(id) != Some(ValueSource::CommandLine) {
                return None;
            }
            let values = match option.get_action().takes_values() {
                true => matches.get_raw(id).into_iter().flatten().collect(),
                false => Vec::new(),
            };
            let values = values.into_iter().map(|value| value.to_string_lossy().into_owned());
            Some((name(&option), values.collect()))
        };
        Ok(Words(options().into_iter().filter_map(typed).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> std::result::Result<(), clap::Error> {
        Words::from_arg_matches(matches).map(|words| *self = words)
    }
}

impl Words {
    /// Names of all options.
    pub fn names() -> BTreeSet<String> {
        options().iter().map(name).collect()
    }

    /// Sets or replaces an option; `None` removes it.
    pub fn set(&mut self, name: &str, values: Option<Vec<String>>) {
        match values {
            Some(values) => self.0.insert(name.to_owned(), values),
            None => self.0.remove(name),
        };
    }

    /// These options, overridden by `others`.
    pub fn under(&self, others: &Words) -> Words {
        Words(self.0.clone().into_iter().chain(others.0.clone()).collect())
    }

    /// These options, as far as `given` leaves them open: another encoder has other options, and a size excludes a scale.
    pub fn left_by(&self, given: &Words) -> Words {
        const OF_ENCODER: [&str; 3] = ["encoder-opt", "crf", "encoder-preset"];
        let command = upscale::Args::augment_args(Command::new("upscale"));
        let conflicts = |option: &str| {
            let arg = command.get_arguments().find(|arg| !arg.is_positional() && name(arg) == option);
            let conflicts = arg.map_or(Vec::new(), |arg| command.get_arg_conflicts_with(arg));
            conflicts.into_iter().map(name).collect::<Vec<_>>()
        };
        // Either of two options may name the other.
        let is_excluded = |option: &str| {
            let of_option = conflicts(option);
            given
                .0
                .keys()
                .any(|given| of_option.contains(given) || conflicts(given).iter().any(|c| c == option))
        };
        let is_left = |option: &String| {
            let is_of_other = OF_ENCODER.contains(&option.as_str()) && given.0.contains_key("encoder");
            !is_of_other && !is_excluded(option) && (!given.0.contains_key(option) || option == LIST)
        };
        let key = |value: &String| value.split('=').next().unwrap_or_default().to_owned();
        let keys: BTreeSet<String> = given.0.get(LIST).into_iter().flatten().map(key).collect();
        let mut left = self.0.clone();
        left.retain(|option, _| is_left(option));
        if let Some(values) = left.get_mut(LIST) {
            values.retain(|value| !keys.contains(&key(value)));
        }
        left.retain(|option, values| option != LIST || !values.is_empty());
        Words(left)
    }

    /// These options and `others`, with the options of the encoder of both.
    pub fn joined(&self, others: &Words) -> Words {
        let mut joined = self.under(others);
        if let (Some(mine), Some(all)) = (self.0.get(LIST), joined.0.get_mut(LIST))
            && others.0.contains_key(LIST)
        {
            all.splice(0..0, mine.iter().cloned());
        }
        joined
    }

    /// The value of an option, where it was given.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.first().map(String::as_str)
    }

    pub fn overwrites(&self) -> bool {
        self.0.contains_key("overwrite")
    }

    pub fn model(&self) -> Option<&str> {
        self.value("model")
    }

    /// The options as words of a command line.
    pub fn options(&self) -> Vec<String> {
        let words = |(name, values): (&String, &Vec<String>)| {
            let option = format!("{}{name}", if name.len() == 1 { "-" } else { "--" });
            match values.as_slice() {
                [] => vec![option],
                values => values.iter().map(|value| format!("{option}={value}")).collect(),
            }
        };
        self.0.iter().flat_map(words).collect()
    }

    /// The words of the command line after `hasn`.
    pub fn command(&self, input: &OsStr, output: &OsStr) -> Vec<OsString> {
        let mut command = vec![OsString::from("upscale")];
        command.extend(self.options().into_iter().map(OsString::from));
        command.extend(["--".into(), input.to_owned(), output.to_owned()]);
        command
    }

    /// Checks that `hasn upscale` takes them; `place` names where they were written, for the error.
    pub fn check(&self, place: &str) -> Result<()> {
        let command = self.command("input".as_ref(), "output".as_ref());
        let Err(error) = upscale::parse_words(command) else { return Ok(()) };
        let message = error.to_string();
        let line = message.lines().next().unwrap_or_default().trim_start_matches("error: ");
        Err(Error::new(place, line, "hasn upscale --help lists what it takes"))
    }

    /// Names and values of all options that an output depends on, whether they were given or not.
    pub fn fingerprint(&self) -> impl Iterator<Item = (String, String)> {
        let names = Words::names().into_iter().filter(|name| !NOT_IN_THE_OUTPUT.contains(&name.as_str()));
        names.map(|name| {
            let value = self.0.get(&name).map_or("not given".to_owned(), |values| match values.as_slice() {
                [] => "given".to_owned(),
                values => values.join(" "),
            });
            (format!("--{name}"), value)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_typed_comes_back_as_words() {
        let command = || Words::augment_args(Command::new("batch").no_binary_name(true));
        let line = ["--map", "-0:s", "--map=0:v", "-y", "--encoder-opt", "crf=20", "--square"];
        let words =
            <Words as clap::FromArgMatches>::from_arg_matches(&command().get_matches_from(line)).unwrap();
        let given = words.command("-in.mkv".as_ref(), "out.mkv".as_ref()).join(OsStr::new(" "));
        assert_eq!(
            given,
            "upscale --encoder-opt=crf=20 --map=-0:s --map=0:v --overwrite --square -- -in.mkv out.mkv"
        );
        assert!(words.overwrites() && words.check("here").is_ok());
        let mut over = Words::default();
        over.set("size", Some(vec!["64x48".into()]));
        let error = words.under(&over).check("jobs.toml, job 1").unwrap_err().to_string();
        assert!(error.starts_with("jobs.toml, job 1: the argument '--size"), "{error}");
        let options: BTreeMap<_, _> = words.fingerprint().collect();
        assert_eq!((&*options["--square"], &*options["--scale"]), ("given", "not given"));
        assert!(!options.contains_key("--threads") && !options.contains_key("--report"));
    }
}

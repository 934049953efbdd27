//! Input and output of `hasn upscale`: two names, or `-i` and `-o` in their place.

use std::ffi::OsString;

use clap::error::ErrorKind;
use clap::{Arg, ArgMatches, Command, ValueHint, value_parser};

/// The two names.
pub(super) struct Files {
    pub input: OsString,
    pub output: OsString,
}

const INPUT: &str =
    "File or URL to read, - for y4m on standard input, or an image sequence such as scan/%06d.dpx";
const OUTPUT: &str = "File to write, whose extension selects the container; - for y4m on standard output, or an image \
                      sequence such as out/%06d.tif";

/// Ids of the arguments.
pub(super) const OPTIONS: [&str; 2] = ["input", "output"];
const NAMES: [&str; 2] = ["INPUT", "OUTPUT"];

impl clap::Args for Files {
    fn augment_args(command: Command) -> Command {
        let file = |id: &'static str| {
            Arg::new(id).value_parser(value_parser!(OsString)).value_hint(ValueHint::FilePath)
        };
        let [input, output] = OPTIONS;
        command
            .arg(file(NAMES[0]).help(INPUT))
            .arg(file(NAMES[1]).help(OUTPUT))
            .arg(
                file(input)
                    .short('i')
                    .long(input)
                    .value_name("FILE")
                    .help_heading("Input")
                    .help("The same as INPUT"),
            )
            .arg(
                file(output)
                    .short('o')
                    .long(output)
                    .value_name("FILE")
                    .help_heading("Output")
                    .help("The same as OUTPUT"),
            )
            .override_usage("hasn upscale [OPTIONS] INPUT OUTPUT")
    }

    fn augment_args_for_update(command: Command) -> Command {
        Files::augment_args(command)
    }
}

impl clap::FromArgMatches for Files {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Files, clap::Error> {
        let get = |id: &str| matches.get_one::<OsString>(id).cloned();
        let mut names = NAMES.into_iter().filter_map(get);
        let input = get(OPTIONS[0]).or_else(|| names.next());
        let output = get(OPTIONS[1]).or_else(|| names.next());
        match (input, output, names.next()) {
            (Some(input), Some(output), None) => Ok(Files { input, output }),
            (_, _, Some(name)) => {
                let message = format!("'{}' is a third name beside INPUT and OUTPUT", name.to_string_lossy());
                Err(clap::Error::raw(ErrorKind::TooManyValues, message))
            }
            (None, ..) => {
                Err(clap::Error::raw(ErrorKind::MissingRequiredArgument, "INPUT and OUTPUT are missing"))
            }
            (_, None, _) => Err(clap::Error::raw(ErrorKind::MissingRequiredArgument, "OUTPUT is missing")),
        }
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        Files::from_arg_matches(matches).map(|files| *self = files)
    }
}

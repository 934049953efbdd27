//! The end of a run whose frames are all written: renames the output to its name.

use std::path::Path;

use super::interrupt::Interrupt;
use super::options::Options;
use super::report::Report;
use crate::error::{Error, ErrorKind, Result};
use crate::journal::Disk;
use crate::media::{Damage, Muxer, Output, folder_of};

/// Renames a complete output to its name, unless its input was too damaged, which the report has as its failure.
pub(super) fn publish(
    options: &Options,
    report: Report,
    muxer: &Muxer,
    damage: &Damage,
    interrupt: &Interrupt,
) -> Result<Report> {
    let damaged = too_damaged(options, damage);
    let partial = match &damaged {
        None => give_name(muxer.output(), options.overwrite, interrupt).map(|()| None)?,
        Some(_) => muxer.keep_partial(),
    };
    let place = partial.map(|partial| partial.display().to_string());
    Ok(with_damage(report, damaged, place))
}

/// Renames a complete file to its output's name. After this, nothing is an error of the run.
pub(super) fn give_name(output: &Output, overwrite: bool, interrupt: &Interrupt) -> Result<()> {
    let folder = folder_of(output.path().unwrap_or(Path::new("")));
    Disk::new(folder, interrupt.flag().clone()).retry_when_full(0, || output.publish(overwrite))
}

/// The error of an input with more damage than the options tolerate.
pub(super) fn too_damaged(options: &Options, damage: &Damage) -> Option<Error> {
    let error = damage.error().filter(|_| damage.count() > options.tolerate);
    error.map(|error| error.with_kind(ErrorKind::Damaged))
}

/// The report of a run whose frames are where they belong. `place`: where they are if the input was too damaged.
pub(super) fn with_damage(report: Report, damaged: Option<Error>, place: Option<String>) -> Report {
    let frames = report.run.frames.encoded;
    let failure = damaged.map(|error| match place {
        Some(place) => error.keeping(&format!("{place} has the {frames} frames that could be decoded")),
        None => error,
    });
    Report { failure, ..report }
}

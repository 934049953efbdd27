//! The end of a run whose frames are all written: renames the output to its name and writes the report.

use super::options::Options;
use super::report::Report;
use crate::error::{Error, ErrorKind, Result};
use crate::media::{Damage, Muxer};

/// Renames a complete output to its name, unless its input was too damaged.
pub(super) fn publish(options: &Options, report: Report, muxer: Muxer, damage: &Damage) -> Result<Report> {
    let damaged = too_damaged(options, damage);
    let partial = match &damaged {
        None => muxer.publish().map(|()| None)?,
        Some(_) => muxer.keep_partial(),
    };
    conclude(options, report, damaged, partial.map(|partial| partial.display().to_string()))
}

/// The error of an input with more damage than the options tolerate.
pub(super) fn too_damaged(options: &Options, damage: &Damage) -> Option<Error> {
    let error = damage.error().filter(|_| damage.count() > options.tolerate);
    error.map(|error| error.with_kind(ErrorKind::Damaged))
}

/// Ends a run whose frames are where they belong. `place`: where they are if the input was too damaged.
pub(super) fn conclude(
    options: &Options,
    report: Report,
    damaged: Option<Error>,
    place: Option<String>,
) -> Result<Report> {
    // The output exists by now, whether or not the report can be written.
    report.write(options)?;
    let Some(error) = damaged else { return Ok(report) };
    let frames = report.run.frames.encoded;
    Err(match place {
        Some(place) => error.keeping(&format!("{place} has the {frames} frames that could be decoded")),
        None => error,
    })
}

//! Preview: single frames of an input as a job upscales them, before its encoder, and as FFmpeg's bicubic filter does.

use std::ffi::OsStr;
use std::time::Instant;

use super::estimate::Estimate;
use super::interrupt::Interrupt;
use super::options::{Options, Size};
use super::parts::{OpenAt, Parts, tone_mapping};
use super::run::Job;
use crate::engine::{EngineSpec, NetworkId};
use crate::error::{Error, ErrorKind, Result};
use crate::frame::Frame;

/// A frame of an input.
pub(crate) struct Sample {
    pub frame: Frame,
    /// Its time, in seconds from the beginning of the input.
    pub at_s: f64,
    /// Time that it took, in seconds.
    pub seconds: f64,
}

/// What the run of an opened job is going to take.
pub(crate) fn estimate(job: Job) -> Result<Estimate> {
    let Job { options, interrupt, parts, .. } = job;
    Estimate::measure(&options, parts, &interrupt)
}

/// The first frame at or after `at_s`, upscaled by a job.
pub(crate) fn upscaled(options: &Options, at_s: f64, interrupt: &Interrupt) -> Result<Sample> {
    let (parts, mut sample) = read(options, at_s, interrupt)?;
    let mut engine = EngineSpec { in_flight: 1, ..parts.engine.clone() }.open()?;
    let mut sr = Frame::try_new(parts.engine.sr)?;
    // Memory is touched for the first time in the first pass.
    for _ in 0..2 {
        let started = Instant::now();
        engine.submit(sample.frame, sr, NetworkId(0))?;
        (sample.frame, sr) = engine.collect()?.expect("a frame was submitted");
        sample.seconds = started.elapsed().as_secs_f64();
    }
    Ok(Sample { frame: sr, ..sample })
}

/// The same frame, scaled by FFmpeg's bicubic filter.
pub(crate) fn bicubic(
    options: &Options,
    at_s: f64,
    (width, height): (usize, usize),
    interrupt: &Interrupt,
) -> Result<Sample> {
    let mut input = options.open_input(interrupt)?;
    input.choose(&options.map)?;
    let filter = options.filter.clone().or_else(|| tone_mapping(options, &input));
    let scale = format!("scale={width}:{height}:flags=bicubic");
    let filter = Some(filter.map_or(scale.clone(), |filter| format!("{filter},{scale}")));
    read(&Options { filter, ..unscaled(options) }, at_s, interrupt).map(|(_, sample)| sample)
}

/// The frame of another input at the same time.
pub(crate) fn reference(name: &OsStr, like: &Options, at_s: f64, interrupt: &Interrupt) -> Result<Sample> {
    let options = Options::new(name, &like.output);
    read(&unscaled(&options), at_s, interrupt).map(|(_, sample)| sample)
}

fn unscaled(options: &Options) -> Options {
    let (model, size) = (Some("none".to_owned()), Size::Scale(1.0));
    Options { model, size, square: false, preset: None, ..options.clone() }
}

fn read(options: &Options, at_s: f64, interrupt: &Interrupt) -> Result<(Parts, Sample)> {
    let from_s = (at_s > 0.0).then_some(at_s);
    let options = Options { from_s, to_s: None, ..options.clone() };
    let mut parts = Parts::open_again(&options, OpenAt { overwrite: true, ..OpenAt::default() }, interrupt)?;
    let name = parts.input.name();
    let missing = || {
        let error = Error::new(name, format!("has no frame at {at_s:.3} s"), "choose an earlier time");
        error.with_kind(ErrorKind::NotFound)
    };
    let frame = parts.decoder.receive()?.ok_or_else(missing)?;
    let at_s = frame.time.seconds() - parts.input.start_us() as f64 / 1e6;
    Ok((parts, Sample { frame, at_s, seconds: 0.0 }))
}

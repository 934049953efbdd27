//! Argument types and parsers that several commands share.

use std::time::Duration;

use crate::engine::EngineChoice;
use crate::engine::cpu::Precision;
use crate::media::AudioMode;

/// Engines as a user names them.
#[derive(Clone, Copy, clap::ValueEnum, PartialEq, Eq, Debug)]
pub(super) enum EngineName {
    /// CUDA where there is a GPU with enough memory, else the CPU
    Auto,
    /// The first NVIDIA GPU
    Cuda,
    /// SIMD on all cores
    Cpu,
    /// The network as published: slow, for checks
    Reference,
}

impl From<EngineName> for EngineChoice {
    fn from(name: EngineName) -> EngineChoice {
        match name {
            EngineName::Auto => EngineChoice::Auto,
            EngineName::Cuda => EngineChoice::Cuda,
            EngineName::Cpu => EngineChoice::Cpu,
            EngineName::Reference => EngineChoice::Reference,
        }
    }
}

/// Precisions as a user names them.
#[derive(Clone, Copy, clap::ValueEnum, PartialEq, Eq, Debug)]
pub(super) enum PrecisionName {
    Auto,
    F32,
    Bf16,
    Int16,
}

impl PrecisionName {
    /// `None` for auto.
    pub fn precision(self) -> Option<Precision> {
        match self {
            PrecisionName::Auto => None,
            PrecisionName::F32 => Some(Precision::F32),
            PrecisionName::Bf16 => Some(Precision::Bf16),
            PrecisionName::Int16 => Some(Precision::Int16),
        }
    }
}

/// Parses `2s`, `500ms` or `1.5s`; seconds without a unit.
pub(super) fn parse_duration(text: &str) -> Result<Duration, String> {
    let (number, unit_s) = match text.strip_suffix("ms") {
        Some(number) => (number, 1e-3),
        None => (text.strip_suffix('s').unwrap_or(text), 1.0),
    };
    let seconds = number.parse::<f64>().ok().map(|number| number * unit_s);
    seconds
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .ok_or_else(|| "write it like 2s or 500ms".to_owned())
}

/// Parses `WxH`.
pub(super) fn parse_size(text: &str) -> Result<(usize, usize), String> {
    let sides = text.split_once(['x', 'X']).and_then(|(w, h)| Some((w.parse().ok()?, h.parse().ok()?)));
    sides.filter(|&(w, h)| w > 0 && h > 0).ok_or_else(|| "write it like 3840x2160".to_owned())
}

pub(super) fn parse_audio(text: &str) -> Result<AudioMode, String> {
    Ok(match text {
        "copy" => AudioMode::Copy,
        "none" => AudioMode::None,
        "" => return Err("write copy, none, or the name of an encoder".to_owned()),
        encoder => AudioMode::Encode(encoder.to_owned()),
    })
}

pub(super) fn parse_key_value(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').filter(|(key, _)| !key.is_empty());
    pair.map(|(key, value)| (key.into(), value.into())).ok_or_else(|| "write it like preset=slow".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_options_are_read_or_refused() {
        assert_eq!(parse_size("3840x2160"), Ok((3840, 2160)));
        for text in ["3840", "0x100", "axb", "-1x5"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
        assert_eq!(parse_key_value("x264-params=a=1"), Ok(("x264-params".into(), "a=1".into())));
        assert!(parse_key_value("=1").is_err() && parse_key_value("preset").is_err());
    }

    #[test]
    fn durations_are_parsed_or_refused() {
        for (text, ms) in [("2s", 2000), ("500ms", 500), ("1.5s", 1500), ("3", 3000)] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "s", "-1s", "nan", "inf", "2m"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }
}

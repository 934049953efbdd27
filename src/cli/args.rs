//! Argument types and parsers that several commands share.

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
}

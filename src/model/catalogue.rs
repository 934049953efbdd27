//! The built-in models: their weights and cards, and [`open`] for a model by name or file.

use std::path::Path;

use super::weights::Model;
use crate::error::{Error, ErrorKind, Result};

/// A weights file in the binary, with its model card.
#[derive(Clone, Copy, Debug)]
pub struct BuiltIn {
    /// Name in options.
    pub name: &'static str,
    /// The safetensors file.
    pub bytes: &'static [u8],
    /// The model card, in Markdown.
    pub card: &'static str,
}

/// All built-in models, the defaults first.
pub const ALL: &[BuiltIn] = &[
    BuiltIn {
        name: "hasn-lite-x2",
        bytes: include_bytes!("../../models/hasn-lite-x2.safetensors"),
        card: include_str!("../../models/hasn-lite-x2.md"),
    },
    BuiltIn {
        name: "hasn-lite-x2-video",
        bytes: include_bytes!("../../models/hasn-lite-x2-video.safetensors"),
        card: include_str!("../../models/hasn-lite-x2-video.md"),
    },
    BuiltIn {
        name: "hasn-x2",
        bytes: include_bytes!("../../models/hasn-x2.safetensors"),
        card: include_str!("../../models/hasn-x2.md"),
    },
];

/// The default for images and for benchmarks.
pub const DEFAULT_IMAGE: &str = "hasn-lite-x2";

/// The default for video, trained on compressed frames. Images get [`DEFAULT_IMAGE`].
pub const DEFAULT_VIDEO: &str = "hasn-lite-x2-video";

/// Returns the built-in model of that name.
pub fn find(name: &str) -> Option<&'static BuiltIn> {
    ALL.iter().find(|built_in| built_in.name == name)
}

/// Opens a built-in model by its name, or the weights file at a path.
pub fn open(name_or_path: &str) -> Result<Model> {
    if let Some(built_in) = find(name_or_path) {
        return Model::parse(built_in.name, built_in.bytes);
    }
    let path = Path::new(name_or_path);
    if path.is_file() {
        return Model::load(path);
    }
    let names: Vec<_> = ALL.iter().map(|built_in| built_in.name).collect();
    Err(Error::new(
        name_or_path,
        "is neither a built-in model nor a file",
        format!("give a safetensors file or one of {}; hasn model list shows them", names.join(", ")),
    )
    .with_kind(ErrorKind::NotFound))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_model_opens_under_its_own_name_and_has_a_card() {
        for built_in in ALL {
            let model = open(built_in.name).unwrap();
            assert_eq!(model.name, built_in.name);
            let parameters = model.sizes.parameters().to_string();
            let grouped =
                format!("{} {}", &parameters[..parameters.len() - 3], &parameters[parameters.len() - 3..]);
            for said in [built_in.name, &model.license, &grouped] {
                assert!(built_in.card.contains(said), "{} does not say {said}", built_in.name);
            }
        }
        assert!(find(DEFAULT_IMAGE).is_some() && find(DEFAULT_VIDEO).is_some());
    }

    #[test]
    fn a_path_is_read_as_a_file() {
        let model = open("models/hasn-lite-x2.safetensors").unwrap();
        assert_eq!(model.sizes, open("hasn-lite-x2").unwrap().sizes);
    }

    #[test]
    fn an_unknown_name_lists_the_known_ones() {
        let line = open("hasn-heavy").unwrap_err().to_string();
        assert!(
            line.starts_with("hasn-heavy: ") && line.contains("hasn-lite-x2, hasn-lite-x2-video, hasn-x2"),
            "{line}"
        );
    }
}

//! `hasn model`: the built-in models, and the contents of a weights file.

use std::fmt::Write;
use std::process::ExitCode;

use clap::Subcommand;

use super::console::print;
use crate::error::Result;
use crate::model::catalogue;

#[derive(clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// List the built-in models.
    List,
    /// Show sizes, origin and card of a built-in model or a weights file.
    Show {
        /// Built-in model or safetensors file.
        model: String,
    },
}

pub(super) fn run(args: Args) -> Result<ExitCode> {
    let mut text = String::new();
    match args.command {
        Command::List => {
            for built_in in catalogue::ALL {
                let model = catalogue::open(built_in.name)?;
                let default = match built_in.name {
                    catalogue::DEFAULT_VIDEO => "  default",
                    catalogue::DEFAULT_IMAGE => "  default for images",
                    _ => "",
                };
                let (scale, parameters) = (model.sizes.scale, model.sizes.parameters());
                writeln!(text, "{:18} x{scale}  {parameters:>7} parameters{default}", built_in.name)
                    .expect("writing to a String succeeds");
            }
        }
        Command::Show { model } => {
            text = describe(&model)?;
        }
    }
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn describe(name: &str) -> Result<String> {
    let model = catalogue::open(name)?;
    let sizes = model.sizes;
    let kind = if sizes.in_channels == 1 { "luma" } else { "RGB" };
    let mut rows = vec![
        ("name", model.name),
        ("scale", format!("x{}", sizes.scale)),
        ("works on", kind.to_owned()),
        ("parameters", sizes.parameters().to_string()),
        ("dim", sizes.dim.to_string()),
        ("blocks", sizes.blocks.to_string()),
        ("mlp channels", sizes.mlp_channels.to_string()),
        ("esa channels", sizes.esa_channels.to_string()),
        ("cab channels", sizes.cab_channels.to_string()),
        ("ca channels", sizes.ca_channels.to_string()),
        ("trained", model.trained),
        ("license", model.license),
    ];
    rows.retain(|(_, value)| !value.is_empty());
    let mut text: String = rows.iter().map(|(key, value)| format!("{key:13} {value}\n")).collect();
    if let Some(built_in) = catalogue::find(name) {
        text += &format!("\n{}", built_in.card);
    }
    Ok(text)
}

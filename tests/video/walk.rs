//! A random walk through what users have: inputs of random containers, codecs, frame rates, channel layouts, languages,
//! subtitles, chapters and cuts go into random containers. The output is compared with its input, and its copied
//! streams with FFmpeg's own remux.
//!
//! `HASN_WALK_RUNS` is the count of runs, `HASN_WALK_SEED` the seed of the first one: the seed of a failed run with a
//! count of 1 repeats it.

mod compare;
mod draw;

use std::collections::BTreeMap;
use std::process::{Command, Stdio};

use compare::differences;
use draw::draw;

use crate::common::Random;
use crate::common::program::Folder;
use crate::common::random::count;

const RUNS: usize = 12;
const SEED: u64 = 1;

/// What one run was given.
pub struct Walk {
    input: String,
    output: String,
    /// The command that wrote the input.
    written_by: String,
    /// Options of `hasn`, and the part of the input that they select, in seconds after its start.
    options: String,
    part: Option<(f64, f64)>,
}

/// Runs a command of FFmpeg's, which may fail; returns what it has said.
fn ffmpeg(folder: &Folder, line: &str) -> Result<(), String> {
    let mut command = Command::new("ffmpeg");
    command.args(["-v", "error", "-xerror", "-y"]).args(line.split_whitespace());
    let output =
        command.current_dir(folder.path("")).stdin(Stdio::null()).output().expect("ffmpeg is installed");
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

#[test]
fn random_inputs_come_out_whole() {
    let runs = count("HASN_WALK_RUNS", RUNS) as u64;
    let seed = std::env::var("HASN_WALK_SEED");
    let first = seed.map_or(SEED, |text| text.parse().expect("HASN_WALK_SEED is a number"));
    let (mut failed, mut refused) = (Vec::new(), BTreeMap::<String, Vec<u64>>::new());
    for seed in first..first + runs {
        let folder = Folder::new();
        let walk = draw(&mut Random(seed), &folder);
        let Walk { input, output, written_by, options, .. } = &walk;
        let line = format!("upscale {input} {output} --model none --report report.json{options}");
        let ran = folder.hasn(&line);
        let mut wrong = match ran.code {
            Some(0) => differences(&folder, &walk, &ran),
            Some(1) => {
                let said = ran.stderr.lines().last().unwrap_or_default().to_owned();
                refused.entry(said.clone()).or_insert_with(Vec::new).push(seed);
                let left = folder.names().into_iter().filter(|name| name.starts_with("out"));
                left.map(|name| format!("refused, and {name} is left: {said}")).collect()
            }
            _ => vec![format!("ends with {:?}: {}", ran.code, ran.stderr)],
        };
        let repeat = format!("HASN_WALK_SEED={seed} HASN_WALK_RUNS=1\n  ffmpeg {written_by}\n  hasn {line}");
        if runs == 1 {
            println!("{repeat}\n{}", ran.stderr);
        }
        if !wrong.is_empty() {
            wrong.insert(0, repeat);
            failed.push(wrong.join("\n    "));
        }
    }
    println!("{runs} runs from seed {first}; refused before the work:");
    refused.iter().for_each(|(said, seeds)| println!("  {said} (seeds {seeds:?})"));
    assert!(failed.is_empty(), "{} of {runs} runs failed\n{}", failed.len(), failed.join("\n"));
}

//! Hints: the spelling of hasn for what users of other programs write.

use std::path::Path;

use super::presets;
use clap::error::{ContextKind, ContextValue, ErrorKind};

/// Options of other programs, and those of `hasn upscale` for the same.
const OPTIONS: [(&[&str], &str); 22] = [
    (&["-c:v", "-codec:v", "-vcodec", "--vcodec", "--codec", "--video-codec"], "--encoder NAME"),
    (&["-c:a", "-codec:a", "-acodec", "--acodec", "--audio-codec"], "--audio ENCODER"),
    (&["-c:s", "-codec:s", "-scodec"], "subtitles are copied; --map chooses them"),
    (&["-c", "-codec"], "--encoder NAME for video, --audio ENCODER for audio"),
    (&["-crf", "-q", "-q:v", "-qp", "--quality", "--cq"], "--crf N"),
    (&["-preset", "--speed"], "--encoder-preset NAME"),
    (&["-b:v", "-b", "--bitrate", "--vbr"], "--encoder-opt b=8M"),
    (&["-pix_fmt", "--pixel-format", "--output-depth"], "--pix-fmt FORMAT"),
    (&["-vf", "-filter:v", "--vf", "--vpp"], "--filter GRAPH"),
    (&["-ss", "--start", "--seek", "--start-time"], "--from T"),
    (&["-to", "-t", "--end", "--stop", "--duration"], "--to T"),
    (&["-r", "--fps", "--rate"], "--frame-rate R for image sequences, --filter fps=R for videos"),
    (&["-map"], "--map SPEC"),
    (&["-an", "--no-audio"], "--audio none"),
    (&["-sn", "--no-subtitles"], "--map -0:s"),
    (&["-hwaccel", "--gpu", "--gpu-id", "--cuda", "--device"], "--engine cuda"),
    (&["--cpu"], "--engine cpu"),
    (&["-s", "--factor", "--upscale", "--ratio", "-x2", "--x2"], "--scale S or --size WxH"),
    (&["--resolution", "--output-res", "--width", "--height"], "--size WxH"),
    (&["-n", "--model-name", "--network"], "--model NAME"),
    (&["-f", "--format"], "the extension of the output selects the container"),
    (&["-j", "--jobs", "--workers", "-threads"], "--threads N"),
];

/// Values of `--preset` in x264, x265 and NVENC.
const SPEEDS: [&str; 9] =
    ["ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow"];

/// Puts our hint in the place of the parser's, which does not know what other programs call the same. `words` are those
/// after the program's name.
pub(super) fn add(error: &mut clap::Error, words: &[String]) {
    if error.kind() == ErrorKind::UnknownArgument {
        error.remove(ContextKind::Suggested);
    }
    if let Some(hint) = hint(error, words) {
        for kind in [ContextKind::SuggestedArg, ContextKind::SuggestedSubcommand, ContextKind::SuggestedValue]
        {
            error.remove(kind);
        }
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![hint.into()]));
    }
}

fn hint(error: &clap::Error, words: &[String]) -> Option<String> {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => text.as_str(),
        _ => "",
    };
    let is_file = |word: &String| !word.starts_with('-') && Path::new(word).extension().is_some();
    match error.kind() {
        ErrorKind::InvalidSubcommand if is_file(&words[0]) || words[0] == "-" => {
            Some(format!("hasn upscale {}", words.join(" ")))
        }
        ErrorKind::InvalidValue if SPEEDS.contains(&text(ContextKind::InvalidValue)) => {
            Some(format!("--encoder-preset {}", text(ContextKind::InvalidValue)))
        }
        ErrorKind::InvalidValue if text(ContextKind::InvalidArg).starts_with("--preset") => {
            presets::hint(text(ContextKind::InvalidValue))
        }
        ErrorKind::UnknownArgument => {
            let known = |word: &String| {
                let name = word.split_once('=').map_or(word.as_str(), |(name, _)| name);
                OPTIONS.iter().find(|(names, _)| names.contains(&name)).map(|(_, ours)| (*ours).to_owned())
            };
            // The parser takes `-crf` for `-c`, `-r` and `-f`.
            let invalid = text(ContextKind::InvalidArg);
            let is_meant = |word: &&String| word.starts_with(invalid) || invalid.starts_with(word.as_str());
            let unknown = words.iter().filter(|word| word.starts_with('-')).find(is_meant);
            let files = || words.iter().filter(|word| is_file(word)).count();
            let sequence = || {
                let extension = Path::new(invalid).extension()?.to_str()?;
                let folder = Path::new(invalid).parent()?.join(format!("%06d.{extension}"));
                (files() > 2).then(|| {
                    format!(
                        "name an image sequence by its pattern, such as {}, and videos with hasn batch",
                        folder.display()
                    )
                })
            };
            unknown.and_then(known).or_else(|| words.iter().find_map(known)).or_else(sequence)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::Cli;
    use super::*;

    #[test]
    fn what_other_programs_write_leads_to_our_spelling() {
        for (line, expected) in [
            ("in.mp4 out.mp4", "hasn upscale in.mp4 out.mp4"),
            ("in.mp4 out.mp4 --scale 2", "hasn upscale in.mp4 out.mp4 --scale 2"),
            ("upscale in.mp4 out.mp4 -c:v libx265", "--encoder NAME"),
            ("upscale -i in.mp4 -vcodec libx265 out.mp4", "--encoder NAME"),
            ("upscale in.mp4 out.mp4 -c:a aac", "--audio ENCODER"),
            ("upscale in.mp4 out.mp4 -crf 18", "--crf N"),
            ("upscale in.mp4 out.mp4 -pix_fmt yuv420p10le", "--pix-fmt FORMAT"),
            ("upscale in.mp4 out.mp4 -ss 10", "--from T"),
            ("upscale in.mp4 out.mp4 -t 10", "--to T"),
            ("upscale in.mp4 out.mp4 -r 25", "--frame-rate R for image sequences, --filter fps=R for videos"),
            ("upscale in.mp4 out.mp4 -an", "--audio none"),
            ("upscale in.mp4 out.mp4 --gpu 0", "--engine cuda"),
            ("upscale in.mp4 out.mp4 --gpu=0", "--engine cuda"),
            ("upscale in.mp4 out.mp4 --preset fast", "--encoder-preset fast"),
            ("upscale in.mp4 out.mp4 -b:v 5M", "--encoder-opt b=8M"),
            ("upscale in.mp4 out.mp4 --bitrate 5M", "--encoder-opt b=8M"),
            ("upscale in.mp4 out.mp4 -s 2", "--scale S or --size WxH"),
            ("upscale in.mp4 out.mp4 --factor 2", "--scale S or --size WxH"),
            (
                "upscale scan/001.dpx scan/002.dpx scan/003.dpx out.mkv",
                "name an image sequence by its pattern, such as scan/%06d.dpx, and videos with hasn batch",
            ),
        ] {
            let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
            let Err(mut error) = Cli::try_parse_from(std::iter::once("hasn").chain(line.split(' '))) else {
                panic!("{line} is taken");
            };
            add(&mut error, &words);
            let text = error.to_string();
            assert!(text.contains(&format!("tip: {expected}\n")), "{line}\n{text}");
        }
        // What is not known gets no hint at all.
        let mut error =
            Cli::try_parse_from("hasn upscale in.mp4 out.mp4 --frobnicate".split(' ')).err().unwrap();
        add(&mut error, &["upscale".into(), "in.mp4".into(), "out.mp4".into(), "--frobnicate".into()]);
        assert!(!error.to_string().contains("tip:"), "{error}");
    }
}

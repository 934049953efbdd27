//! Presets of hasn, and those of the user.

use std::process::Command;

use crate::common::program::{Folder, Ran};

const CLIP: &str = "-f lavfi -i testsrc2=s=64x48:r=25 -frames:v 5 -c:v ffv1";

fn with_presets(folder: &Folder, text: &str) {
    std::fs::create_dir_all(folder.path("config/hasn")).unwrap();
    folder.write("config/hasn/presets.toml", text);
}

fn hasn(folder: &Folder, line: &str) -> Ran {
    let mut command: Command = folder.hasn_command(line);
    Ran::of(command.env("XDG_CONFIG_HOME", folder.path("config")).output().unwrap())
}

#[test]
fn the_list_has_every_preset_with_what_it_sets() {
    let folder = Folder::new();
    with_presets(&folder, "[night]\ndescription = \"For the shelf\"\nencoder = \"libx265\"\ncrf = 24\n");
    let ran = hasn(&folder, "preset list");
    ran.assert_done();
    for part in [
        "archive ",
        "--encoder ffv1",
        "web-fast ",
        "--encoder-opt preset=veryfast",
        "hevc ",
        "--encoder libx265",
        "av1 ",
        "--encoder libsvtav1",
        "night      For the shelf",
        "--crf=24 --encoder=libx265",
        "presets.toml",
    ] {
        assert!(ran.text().contains(part), "{part} is missing in\n{}", ran.text());
    }
}

#[test]
fn the_new_presets_choose_encoder_depth_and_container() {
    let folder = Folder::new();
    folder.ffmpeg(&format!("{CLIP} -pix_fmt yuv420p in.mkv"));
    for (preset, out, codec, format) in [
        ("hevc", "a.mp4", "hevc", "yuv420p10le"),
        ("av1", "b.mkv", "av1", "yuv420p10le"),
        ("web-fast", "c.mp4", "h264", "yuv420p"),
    ] {
        folder.upscale(&format!("in.mkv {out} --model none --preset {preset}"));
        let probe = folder.probe(out);
        let video = probe.video();
        assert_eq!((video.codec_name.as_str(), video.pix_fmt.as_str()), (codec, format), "{preset}");
    }
}

#[test]
fn a_preset_of_the_users_sets_options_that_the_command_line_overrides() {
    let folder = Folder::new();
    folder.ffmpeg(&format!("{CLIP} in.mkv"));
    let mine = "[mine]\npreset = \"web-fast\"\nsize = \"96x72\"\nmodel = \"none\"\nencoder-opt = [\"g=2\", \"bf=0\"]\n";
    with_presets(&folder, mine);
    let keys = |name: &str| folder.frames(name).iter().map(|frame| frame.key_frame).collect::<Vec<_>>();
    for (line, name, size, expected) in [
        ("upscale in.mkv a.mp4 --preset mine", "a.mp4", (96, 72), [1, 0, 1, 0, 1]),
        ("upscale in.mkv b.mp4 --preset=mine --scale 1", "b.mp4", (64, 48), [1, 0, 1, 0, 1]),
        ("upscale in.mkv c.mp4 --preset mine --encoder-opt g=4", "c.mp4", (96, 72), [1, 0, 0, 0, 1]),
        ("batch in.mkv --into d --extension mp4 --preset mine", "d/in.mp4", (96, 72), [1, 0, 1, 0, 1]),
    ] {
        hasn(&folder, line).assert_done();
        let video = folder.probe(name).video().clone();
        assert_eq!((video.width, video.height), size, "{line}");
        assert_eq!(keys(name), expected, "{line}");
        assert_eq!(video.codec_name, "h264", "{line}");
    }
    // Another encoder has other options; the size stays.
    hasn(&folder, "upscale in.mkv e.mkv --preset mine --encoder ffv1").assert_done();
    assert_eq!(folder.probe("e.mkv").video().codec_name, "ffv1");
    // A plan is that of machines without the file.
    hasn(&folder, "plan in.mkv f.mp4 --preset mine").assert_done();
    folder.hasn("segment f.mp4.hasn 0").assert_done();
    folder.hasn("join f.mp4.hasn").assert_done();
    assert_eq!(folder.frame_hashes("f.mp4", "yuv420p"), folder.frame_hashes("a.mp4", "yuv420p"));
    // The presets of a job file.
    folder.write(
        "jobs.toml",
        "[defaults]\npreset = \"mine\"\n[[job]]\ninput = \"in.mkv\"\noutput = \"g.mp4\"\ncrf = 40\n",
    );
    hasn(&folder, "batch --jobs jobs.toml").assert_done();
    assert_eq!(folder.probe("g.mp4").video().width, 96);
}

#[test]
fn mistakes_are_reported_with_file_and_line() {
    let folder = Folder::new();
    folder.ffmpeg(&format!("{CLIP} in.mkv"));
    let run = |line: &str| hasn(&folder, &format!("upscale in.mkv out.mkv --model none {line}"));
    for (text, said) in [
        ("[mine]\nencoder = \"ffv1\"\nnonsense = 1\n", "presets.toml:3: there is no option 'nonsense' here"),
        ("[mine]\n\ncrf = \"high\"\n", "presets.toml:3: invalid value 'high' for '--crf"),
        ("[mine]\nencoder = { a = 1 }\n", "presets.toml:2: 'encoder' is neither text"),
        ("[web]\ncrf = 1\n[mine]\n", "presets.toml:1: 'web' is a preset of hasn itself"),
        ("[mine\n", "presets.toml:1: "),
        ("[mine]\nsize = \"8x8\"\nscale = 2\n", "presets.toml:1: the argument '--s"),
        ("[mine]\ndescription = 1\n", "presets.toml:2: description is not text"),
    ] {
        with_presets(&folder, text);
        run("--preset mine").assert_told(said, text);
    }
    // A run without the file's presets does not read it.
    run("--preset web-fast").assert_done();
    with_presets(&folder, "[mine]\ncrf = 1\n");
    let ran = run("--preset other");
    assert_eq!(ran.code, Some(2));
    assert!(ran.stderr.contains("your own presets are mine"), "{}", ran.stderr);
}

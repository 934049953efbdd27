//! The commands that are disturbed. Their outputs are the same bytes in each run: encoders with one thread, and x264
//! without SIMD, of which some depends on where memory lies.

use crate::common::program::Folder;

macro_rules! line {
    ($($word:literal)*) => {
        concat!($($word, " ",)* "--model none --threads 1 --progress none")
    };
}

/// A command.
#[derive(Debug)]
pub struct Step {
    pub line: &'static str,
    /// The file that it reads from a pipe.
    pub stdin: Option<&'static str>,
}

const fn step(line: &'static str) -> Step {
    Step { line, stdin: None }
}

/// Commands, in groups that run side by side, and what they read and write.
pub struct Scenario {
    pub name: &'static str,
    pub inputs: fn(&Folder),
    pub steps: &'static [&'static [Step]],
    /// How many of the groups are part of an undisturbed run.
    pub disturbed: usize,
    /// How the names of outputs begin.
    pub outputs: &'static [&'static str],
    /// Each video of a batch may have an error line of its own.
    pub has_many_errors: bool,
}

impl Scenario {
    /// The step of the segment that `join` asks for.
    pub fn segment_asked_for(&self, stderr: &str) -> Option<&'static Step> {
        let steps = self.steps.iter().flat_map(|steps| steps.iter());
        let mut segments = steps.filter(|step| step.line.starts_with("segment "));
        segments.find(|step| {
            let (_, rest) = stderr.split_once(step.line).unwrap_or_default();
            stderr.contains(step.line) && !rest.starts_with(|c: char| c.is_ascii_digit())
        })
    }
}

/// 10 s in three segments: B frames, audio and subtitles, each of which a failure could cost.
fn video(folder: &Folder) {
    folder.write(
        "text.srt",
        "1\n00:00:01,000 --> 00:00:02,000\nFirst\n\n2\n00:00:07,000 --> 00:00:09,000\nLast\n",
    );
    folder.ffmpeg(
        "-f lavfi -i testsrc2=s=64x48:r=50 -f lavfi -i sine=r=48000 -i text.srt -t 10 -c:v libx264 -preset ultrafast \
         -bf 2 -g 90 -c:a aac -c:s srt video.mkv",
    );
    std::fs::remove_file(folder.path("text.srt")).unwrap();
}

pub const FILE: Scenario = Scenario {
    name: "file",
    inputs: video,
    steps: &[&[step(line!("upscale video.mkv out.mkv --report report.json --encoder-opt preset=ultrafast"
        "--encoder-opt bf=2 --encoder-opt x264-params=asm=0"))]],
    disturbed: 1,
    outputs: &["out."],
    has_many_errors: false,
};

/// Noise needs many reads, and FFV1 has no frames that depend on others, between which a hole would be seen.
fn long_video(folder: &Folder) {
    folder.ffmpeg(
        "-f lavfi -i testsrc2=s=64x48:r=25,noise=alls=30:allf=t -f lavfi -i sine=r=48000 -t 40 -c:v libx264 \
         -preset ultrafast -qp 12 -bf 2 -g 50 -c:a aac video.mkv",
    );
}

pub const LONG_FILE: Scenario = Scenario {
    name: "long file",
    inputs: long_video,
    steps: &[&[step(line!("upscale video.mkv out.mkv --report report.json --encoder ffv1"))]],
    disturbed: 1,
    outputs: &["out."],
    has_many_errors: false,
};

pub const LONG_PLAN: Scenario = Scenario {
    name: "long plan",
    inputs: long_video,
    steps: &[
        &[step(line!("plan video.mkv out.mkv --encoder ffv1"))],
        &[step("segment out.mkv.hasn 0"), step("segment out.mkv.hasn 1")],
        &[step("segment out.mkv.hasn 2"), step("segment out.mkv.hasn 3")],
        &[step("segment out.mkv.hasn 4")],
        &[step("join out.mkv.hasn")],
    ],
    disturbed: 5,
    outputs: &["out."],
    has_many_errors: false,
};

pub const SEQUENCE: Scenario = Scenario {
    name: "sequence",
    inputs: |folder| {
        std::fs::create_dir(folder.path("in")).unwrap();
        folder.ffmpeg("-f lavfi -i testsrc2=s=32x24 -frames:v 12 -f image2 in/%03d.png");
    },
    steps: &[&[step(line!("upscale in/%03d.png out/%03d.png --report report.json"))]],
    disturbed: 1,
    outputs: &["out/"],
    has_many_errors: false,
};

pub const PLAN: Scenario = Scenario {
    name: "plan",
    inputs: video,
    steps: &[
        &[step(line!("plan video.mkv out.mkv --encoder-opt preset=ultrafast --encoder-opt bf=2"
            "--encoder-opt x264-params=asm=0"))],
        &[step("segment out.mkv.hasn 2"), step("segment out.mkv.hasn 0")],
        &[step("segment out.mkv.hasn 1")],
        &[step("join out.mkv.hasn")],
    ],
    disturbed: 4,
    outputs: &["out."],
    has_many_errors: false,
};

pub const BATCH: Scenario = Scenario {
    name: "batch",
    inputs: |folder| {
        for (name, seconds) in [("a", 6), ("b", 3)] {
            folder.ffmpeg(&format!(
                "-f lavfi -i testsrc2=s=64x48:r=50 -f lavfi -i sine=r=48000 -t {seconds} -c:v libx264 \
                 -preset ultrafast -bf 2 -g 90 -c:a aac {name}.mkv"
            ));
        }
    },
    steps: &[&[step(line!("batch a.mkv b.mkv --into out --encoder-opt preset=ultrafast"
        "--encoder-opt bf=2 --encoder-opt x264-params=asm=0"))]],
    disturbed: 1,
    outputs: &["out/a.", "out/b."],
    has_many_errors: true,
};

pub const RELAY: Scenario = Scenario {
    name: "relay",
    inputs: |folder| {
        folder.ffmpeg(
            "-f lavfi -i testsrc2=s=64x48:r=25 -f lavfi -i sine=r=48000 -t 2 -shortest -c:v libx264 \
             -preset ultrafast -g 25 -c:a aac source.ts",
        );
    },
    steps: &[&[step("relay source.ts first.mkv second.ts --ladder none --threads 1 --progress none")]],
    disturbed: 1,
    outputs: &["first.", "second."],
    has_many_errors: true,
};

/// The second step is for what the first may have left.
pub const PIPE: Scenario = Scenario {
    name: "pipe",
    inputs: |folder| {
        folder.ffmpeg("-f lavfi -i testsrc2=s=64x48:r=50 -frames:v 700 -pix_fmt yuv420p in.y4m");
    },
    steps: &[
        &[Step {
            line: line!("upscale - out.mkv --report report.json --encoder ffv1"),
            stdin: Some("in.y4m"),
        }],
        &[Step {
            line: concat!(line!("upscale - out.mkv --report report.json --encoder ffv1"), " -y"),
            stdin: Some("in.y4m"),
        }],
    ],
    disturbed: 1,
    outputs: &["out."],
    has_many_errors: false,
};

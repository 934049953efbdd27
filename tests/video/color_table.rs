//! What is written comes back: colours in every codec and container, read by what the file states and, where it states
//! nothing, by what players assume.

use std::collections::{BTreeMap, HashSet};
use std::process::Command;
use std::sync::Mutex;

use serde_json::Value;

use crate::color_docs;
use crate::common::program::Folder;
use crate::common::sweep;

/// Colours of the bars of the sources, as R', G', B'.
const BARS: [[u8; 3]; 4] = [[0x20, 0xc0, 0x40], [0xc0, 0x50, 0x30], [0x10, 0x10, 0x10], [0xf0, 0xf0, 0xf0]];

/// Matrix, range, transfer, primaries, siting.
type Tags = [&'static str; 5];

const SOURCES: [Tags; 8] = [
    ["smpte170m", "tv", "smpte170m", "smpte170m", "left"],
    ["bt470bg", "pc", "smpte170m", "bt470bg", "center"],
    ["bt709", "tv", "bt709", "bt709", "left"],
    ["bt709", "pc", "bt709", "bt709", "center"],
    ["bt2020nc", "tv", "smpte2084", "bt2020", "topleft"],
    ["bt2020nc", "tv", "arib-std-b67", "bt2020", "left"],
    ["gbr", "pc", "bt709", "bt709", "unspecified"],
    ["gbr", "pc", "smpte2084", "bt2020", "unspecified"],
];

const CONTAINERS: &str = "mkv webm mp4 mov mxf avi nut wmv flv ogv mpg ts y4m";

/// Extensions of codecs that are images.
const IMAGES: [(&str, &str); 12] = [
    ("png", "png"),
    ("tiff", "tif"),
    ("mjpeg", "jpg"),
    ("libwebp", "webp"),
    ("dpx", "dpx"),
    ("bmp", "bmp"),
    ("targa", "tga"),
    ("jpeg2000", "jp2"),
    ("libopenjpeg", "jp2"),
    ("libjxl", "jxl"),
    ("ppm", "ppm"),
    ("sgi", "sgi"),
];

/// Sizes of encoders that take few; the others get an untagged size that players take for HD.
fn size_of(encoder: &str) -> &'static str {
    match encoder {
        "h261" | "h263" | "svq1" | "rv10" | "rv20" => "352x288",
        "dvvideo" => "720x576",
        _ => "1280x256",
    }
}

/// Video encoders that need no device and take frames of any content.
fn encoders() -> Vec<String> {
    let output = Command::new("ffmpeg").args(["-v", "error", "-encoders"]).output().expect("ffmpeg runs");
    let text = String::from_utf8(output.stdout).expect("names are ASCII");
    let names = text.lines().filter(|line| line.starts_with(" V")).filter_map(|line| line.split(' ').nth(2));
    let devices = ["_nvenc", "_qsv", "_vaapi", "_v4l2m2m", "_omx", "_amf", "_mf", "_vulkan", "_videotoolbox"];
    // Few colours, or no colour at all.
    let poor =
        ["=", "a64", "roqvideo", "xbm", "xface", "alias_pix", "pgm", "zmbv", "gif", "msvideo1", "smc", "vbn"];
    let is_wanted = |name: &&str| {
        !devices.iter().any(|device| name.ends_with(device))
            && !poor.iter().any(|poor| name.starts_with(poor))
    };
    names.filter(is_wanted).map(str::to_owned).collect()
}

/// Writes a source of these tags in a codec and a container that keep them all.
fn write_source(
    folder: &Folder,
    name: &str,
    size: &str,
    [matrix, range, transfer, primaries, siting]: [&str; 5],
) {
    let [a, b, c, d] = BARS.map(|[r, g, b]| format!("0x{r:02x}{g:02x}{b:02x}"));
    let bars = format!(
        "color={a}:s={size}:r=25:d=0.08,format=gbrp,drawbox=x=iw/4:w=iw/4:c={b}:t=fill,\
         drawbox=x=iw/2:w=iw/4:c={c}:t=fill,drawbox=x=iw*3/4:w=iw/4:c={d}:t=fill"
    );
    let converted = match matrix {
        "gbr" => "format=gbrp".to_owned(),
        _ => {
            let matrix = if matrix == "bt2020nc" { "bt2020" } else { matrix };
            format!("scale=out_color_matrix={matrix}:out_range={range}:flags=accurate_rnd,format=yuv420p")
        }
    };
    let tags = format!(
        "setparams=range={range}:colorspace={matrix}:color_trc={transfer}:color_primaries={primaries}"
    );
    folder.ffmpeg(&format!(
        "-f lavfi -i {bars} -vf {converted},{tags} -chroma_sample_location {siting} -c:v ffv1 {name}"
    ));
}

/// The first frame of a file as `ffprobe` reads it.
struct FirstFrame {
    /// In the order of [`Tags`].
    tags: [String; 5],
    size: (usize, usize),
    format: String,
}

fn read(folder: &Folder, name: &str) -> FirstFrame {
    let json: Value = folder.ffprobe("-select_streams v:0 -show_frames -read_intervals %+#1", name);
    let frame = &json["frames"][0];
    let text = |key: &str| frame[key].as_str().unwrap_or("unspecified").to_owned();
    let tags =
        ["color_space", "color_range", "color_transfer", "color_primaries", "chroma_location"].map(text);
    let side = |key: &str| frame[key].as_u64().expect("a size") as usize;
    FirstFrame { tags, size: (side("width"), side("height")), format: text("pix_fmt") }
}

/// The bars as a player shows them.
fn shown(folder: &Folder, name: &str, frame: &FirstFrame) -> Vec<[u8; 3]> {
    let FirstFrame { tags: [matrix, range, ..], size, format } = frame;
    let &(width, height) = size;
    let is_untagged = matches!(matrix.as_str(), "unspecified" | "unknown" | "gbr" | "reserved");
    let matrix = match matrix.as_str() {
        _ if is_untagged && (width >= 1280 || height > 576) => "bt709",
        _ if is_untagged => "smpte170m",
        "bt2020nc" => "bt2020",
        other => other,
    };
    let is_full = range == "pc" || format.starts_with("yuvj");
    let range = if is_full { "pc" } else { "tv" };
    // Matrix and range are those of Y'CbCr; R'G'B' has neither.
    let is_rgb =
        !format.starts_with("yuv") && !["nv", "uyvy", "yuyv", "y2"].iter().any(|y| format.starts_with(y));
    let convert = match is_rgb {
        true => String::new(),
        false => format!("scale=in_color_matrix={matrix}:in_range={range}:flags=accurate_rnd,"),
    };
    // H.261 has no keyframes, which FFmpeg calls an error.
    let line = format!("-v fatal -i {name} -frames:v 1 -vf {convert}format=rgb24 -f rawvideo -");
    bars(&folder.ffmpeg(&line), *size)
}

/// The bars as mpv shows them, where it is installed: it guesses by rules of its own.
fn shown_by_mpv(folder: &Folder, name: &str, size: (usize, usize)) -> Option<Vec<[u8; 3]>> {
    let options = "--no-config --really-quiet --frames=1 --no-audio --vf=format=primaries=bt.709:gamma=bt.1886,format=fmt=rgb24 --of=rawvideo --ovc=rawvideo";
    let mut command = Command::new("mpv");
    let shown = command.args(options.split(' ')).args(["-o", "shown.rgb", name]).current_dir(folder.path(""));
    // It does not read every codec.
    if !shown.status().ok()?.success() {
        println!("mpv does not read {name}");
        return None;
    }
    Some(bars(&folder.read("shown.rgb"), size))
}

/// The colours in the middle of each bar of a frame of R'G'B'.
fn bars(pixels: &[u8], (width, height): (usize, usize)) -> Vec<[u8; 3]> {
    let at = |bar: usize| (height / 2 * width + width * (2 * bar + 1) / 8) * 3;
    (0..4).map(|bar| pixels[at(bar)..][..3].try_into().unwrap()).collect()
}

/// Whether two tags mean the same, or nothing that readers do not assume.
fn is_same(found: &str, wanted: &str, assumed: &[&str]) -> bool {
    let is_assumed = |tag: &str| assumed.contains(&tag) || matches!(tag, "unspecified" | "unknown");
    found == wanted || is_assumed(found) && is_assumed(wanted)
}

/// A file that was written, what it states, and what is wrong with it.
pub struct Written {
    pub encoder: String,
    pub extension: String,
    pub source: Tags,
    pub found: [String; 5],
    wrong: Vec<String>,
}

impl Written {
    fn complaint(&self) -> Option<String> {
        let Written { encoder, extension, source, wrong, .. } = self;
        let said = || format!("{encoder} in {extension} of {}: {}", source.join(" "), wrong.join(", "));
        (!wrong.is_empty()).then(said)
    }
}

/// Writes a source by an encoder and reads it back; `None` if the pair is refused.
fn try_pair(folder: &Folder, source: Tags, encoder: &str, extension: &str) -> Option<Written> {
    let (size, out) = (size_of(encoder), format!("out.{extension}"));
    let input = format!("{}-{}.mkv", source.join("-"), size);
    if !folder.path(&input).exists() {
        write_source(folder, &input, size, source);
    }
    let is_image = IMAGES.iter().any(|(_, of_image)| *of_image == extension);
    let part = if is_image { "--to 0.03" } else { "" };
    let options = match encoder {
        "dnxhd" => "--encoder-opt profile=dnxhr_hq",
        "exr" => "--exr-transfer bt709",
        "libaom-av1" => "--encoder-opt cpu-used=8",
        "librav1e" => "--encoder-opt speed=10",
        "libsvtav1" => "--encoder-opt preset=12",
        "libx265" => "--encoder-opt preset=ultrafast",
        _ => "",
    };
    let line = format!(
        "{input} {out} -y --restart --model none --scale 1 --encoder {encoder} {options} {part} --report report.json"
    );
    let ran = folder.hasn(&format!("upscale {line}"));
    if ran.code != Some(0) {
        // What is refused is refused for the container or the encoder.
        let said = [
            "cannot hold",
            "takes no header",
            "does not take",
            "takes no format",
            "does not open",
            "does not keep its frames apart",
            "what it encodes is",
            "puts all frames into one packet",
        ];
        if !said.iter().any(|it| ran.stderr.contains(it)) {
            let (encoder, extension) = (encoder.to_owned(), extension.to_owned());
            return Some(Written {
                encoder,
                extension,
                source,
                found: [const { String::new() }; 5],
                wrong: vec![ran.stderr],
            });
        }
        return None;
    }
    let report: Value = serde_json::from_slice(&folder.read("report.json")).unwrap();
    let names = |key: &str| {
        let list = report[key].as_array().unwrap();
        list.iter().map(|name| name.as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let (lost, converted) = (names("left_out"), names("converted"));
    let names_one = |list: &[String], word: &str| list.iter().any(|name| name.contains(word));
    let frame = read(folder, &out);
    let [_, _, transfer, primaries, siting] = &frame.tags;
    let mut wrong = Vec::new();
    // Cirrus Logic's format has five bits of luma and six of chroma.
    let allowed = if encoder == "cljr" { 20 } else { 9 };
    let far =
        |(found, bar): &([u8; 3], [u8; 3])| found.iter().zip(bar).any(|(a, b)| a.abs_diff(*b) > allowed);
    // It takes the most of the time.
    let by_mpv =
        [SOURCES[1], SOURCES[4]].contains(&source).then(|| shown_by_mpv(folder, &out, frame.size)).flatten();
    for (reader, shown) in [("FFmpeg", Some(shown(folder, &out, &frame))), ("mpv", by_mpv)] {
        if let Some((found, bar)) = shown.into_iter().flatten().zip(BARS).find(far) {
            wrong.push(format!("{bar:?} is {found:?} in {reader}"));
        }
    }
    let sdr = ["bt709", "smpte170m", "bt470bg", "smpte240m", "bt2020-10", "iec61966-2-1"];
    if !is_same(transfer, source[2], &sdr) && !names_one(&lost, "transfer") {
        wrong.push(format!("transfer {} is read as {transfer}", source[2]));
    }
    // FFmpeg writes the primaries of PNG (cHRM) and does not read them as such.
    let is_unread = encoder == "png" || encoder == "apng";
    if !is_unread && !is_same(primaries, source[3], &sdr) && !names_one(&lost, "primaries") {
        wrong.push(format!("primaries {} are read as {primaries}", source[3]));
    }
    // Unsaid, it is left. 4:2:2 and 4:1:1 have no other row, and 4:4:4 has none at all.
    let is_420 = frame.format.contains("420") || frame.format == "nv12";
    // FFmpeg does not tag what libwebp's decoder takes for granted.
    let assumed = if extension == "webp" { "center" } else { "left" };
    let siting = if siting == "unspecified" { assumed } else { siting };
    if is_420 && source[4] != "unspecified" && siting != source[4] && !names_one(&converted, "siting") {
        wrong.push(format!("siting {} is read as {siting}", source[4]));
    }
    Some(Written {
        encoder: encoder.to_owned(),
        extension: extension.to_owned(),
        source,
        found: frame.tags,
        wrong,
    })
}

/// Pairs that stand for the others: each states another part of the colour.
const TYPICAL: [(usize, &str, &str); 16] = [
    (0, "libx264", "mp4"),
    (4, "libx265", "mkv"),
    (3, "ffv1", "mkv"),
    (1, "ffv1", "mov"),
    (5, "ffv1", "avi"),
    (0, "huffyuv", "avi"),
    (7, "prores_ks", "mov"),
    (4, "dnxhd", "mxf"),
    (1, "mpeg1video", "mpg"),
    (3, "mpeg2video", "ts"),
    (1, "mpeg4", "mp4"),
    (0, "libtheora", "ogv"),
    (2, "libvpx", "webm"),
    (4, "libvpx-vp9", "mp4"),
    (3, "libwebp", "webp"),
    (4, "dpx", "dpx"),
];

#[test]
fn sweep_of_colours_through_every_codec_and_container() {
    let mut all = Vec::new();
    for encoder in encoders() {
        let images = IMAGES.iter().filter(|(name, _)| *name == encoder).map(|(_, extension)| *extension);
        for extension in CONTAINERS.split(' ').chain(images) {
            all.extend(SOURCES.map(|source| (source, encoder.clone(), extension.to_owned())));
        }
    }
    let typical = TYPICAL
        .map(|(source, encoder, extension)| (SOURCES[source], encoder.to_owned(), extension.to_owned()));
    let mut by_encoder = BTreeMap::<_, Vec<_>>::new();
    for (source, encoder, extension) in typical.into_iter().chain(sweep::sample("colours", all, 2)) {
        by_encoder.entry(encoder).or_default().push((source, extension));
    }
    let encoders = Mutex::new(by_encoder.into_iter());
    let next = || encoders.lock().unwrap().next();
    let files: Vec<Written> = std::thread::scope(|scope| {
        let run = || {
            let (folder, mut files) = (Folder::new(), Vec::new());
            while let Some((encoder, pairs)) = next() {
                files.extend(try_encoder(&folder, &encoder, pairs));
            }
            files
        };
        let threads = [scope.spawn(run), scope.spawn(run)];
        threads.into_iter().flat_map(|thread| thread.join().expect("it has not panicked")).collect()
    });
    let wrong: Vec<_> = files.iter().filter_map(Written::complaint).collect();
    println!("{} files, {} wrong", files.len(), wrong.len());
    color_docs::check(&files);
    assert!(files.len() >= TYPICAL.len() && wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Writes sources by one encoder into containers, those that refuse it once.
fn try_encoder(folder: &Folder, encoder: &str, pairs: Vec<(Tags, String)>) -> Vec<Written> {
    let (mut refused, mut files) = (HashSet::new(), Vec::new());
    for (source, extension) in pairs {
        if refused.contains(&extension) {
            continue;
        }
        let Some(written) = try_pair(folder, source, encoder, &extension) else {
            refused.insert(extension);
            continue;
        };
        if let Some(complaint) = written.complaint() {
            println!("{complaint}");
        }
        files.push(written);
    }
    files
}

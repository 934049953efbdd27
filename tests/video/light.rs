//! HDR and what describes colours beside the tags: what belongs to the light of the frames goes where the light goes.

use serde_json::{Value, json};

use crate::common::program::Folder;

const TEST_FRAMES: &str = "-f lavfi -i testsrc2=s=64x64:r=25";
const LINE: &str = "-y --model none --scale 1 --progress none --report report.json";

/// Encodes PQ with a mastering display and content light levels.
fn hdr10(folder: &Folder, name: &str) {
    let display = "master-display=G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50)";
    let tags = "colorprim=bt2020:transfer=smpte2084:colormatrix=bt2020nc:max-cll=1000,400";
    let params = format!("-x265-params log-level=error:{tags}:{display}");
    folder.ffmpeg(&format!("{TEST_FRAMES} -frames:v 4 -pix_fmt yuv420p10le -c:v libx265 {params} {name}"));
}

fn report(folder: &Folder) -> Value {
    serde_json::from_slice(&folder.read("report.json")).unwrap()
}

/// The first frame and the stream of a video, as `ffprobe` describes them.
fn described(folder: &Folder, name: &str) -> (Value, Value) {
    let found: Value = folder.ffprobe("-select_streams v:0 -show_frames -show_streams", name);
    (found["frames"][0].clone(), found["streams"][0].clone())
}

fn has_light(value: &Value) -> bool {
    ["Mastering display", "Content light"]
        .iter()
        .any(|name| value["side_data_list"].to_string().contains(name))
}

#[test]
fn hdr_that_a_filter_maps_to_sdr_loses_its_mastering_display() {
    let folder = Folder::new();
    hdr10(&folder, "in.mkv");
    let filter = "zscale=t=linear:npl=100,format=gbrpf32le,zscale=p=bt709,tonemap=hable,\
                  zscale=t=bt709:m=bt709:r=tv,format=yuv420p";
    for (encoder, out) in [("libx265", "out.mkv"), ("libx264", "out.mp4"), ("ffv1", "ffv1.mkv")] {
        folder.upscale(&format!("in.mkv {out} {LINE} --encoder {encoder} --filter {filter} --strict"));
        let (frame, stream) = described(&folder, out);
        assert_eq!(stream["color_transfer"], "bt709", "{out}");
        assert!(!has_light(&frame) && !has_light(&stream), "{out}: {frame} {stream}");
        assert_eq!(report(&folder)["left_out"], json!([]), "{out}");
    }
    // A filter that leaves the light as it is.
    folder.upscale(&format!("in.mkv out.mkv {LINE} --encoder libx265 --filter hflip --strict"));
    let (frame, stream) = described(&folder, "out.mkv");
    assert!(has_light(&frame) && has_light(&stream), "{frame} {stream}");
}

#[test]
fn the_web_preset_writes_no_hdr_in_8_bits() {
    let folder = Folder::new();
    hdr10(&folder, "in.mkv");
    let ran = folder.upscale(&format!("in.mkv out.mp4 {LINE} --preset web"));
    assert!(ran.stderr.contains("tone-maps"), "{}", ran.stderr);
    let (frame, stream) = described(&folder, "out.mp4");
    let tags = ["pix_fmt", "color_transfer", "color_primaries", "color_space"].map(|key| stream[key].clone());
    assert_eq!(tags, ["yuv420p", "bt709", "bt709", "bt709"]);
    assert!(!has_light(&frame) && !has_light(&stream));
    // The brightest and the darkest parts stay apart.
    let samples = folder.ffmpeg("-i out.mp4 -frames:v 1 -pix_fmt gray -f rawvideo -");
    let spread = samples.iter().max().unwrap() - samples.iter().min().unwrap();
    assert!(spread > 100, "{spread}");
    folder.upscale(&format!("in.mkv out.mp4 {LINE} --preset web --pix-fmt yuv420p10le"));
    let (_, stream) = described(&folder, "out.mp4");
    assert_eq!((&stream["pix_fmt"], &stream["color_transfer"]), (&json!("yuv420p10le"), &json!("smpte2084")));
    for given in ["--filter hflip", "--pix-fmt yuv420p"] {
        folder
            .hasn(&format!("upscale in.mkv out.mp4 {LINE} --preset web {given}"))
            .assert_told("tonemap", given);
    }
    folder.ffmpeg(&format!("{TEST_FRAMES} -frames:v 2 -pix_fmt yuv422p10le -c:v ffv1 sdr.mkv"));
    let ran = folder.upscale(&format!("sdr.mkv out.mp4 {LINE} --preset web"));
    assert!(ran.stderr.contains("2 of 10 bits, chroma resolution left out"), "{}", ran.stderr);
}

/// Adds a chunk `cHRM` of x and y of white, R, G and B to a PNG.
fn with_chromaticities(png: &[u8], values: [u32; 8]) -> Vec<u8> {
    let chunk = [&b"cHRM"[..], &values.map(u32::to_be_bytes).concat()].concat();
    let checksum = crc32fast::hash(&chunk).to_be_bytes();
    [&png[..33], &[0, 0, 0, 32], &chunk, &checksum, &png[33..]].concat()
}

#[test]
fn chromaticities_of_images_are_primaries() {
    let folder = Folder::new();
    folder.ffmpeg(&format!("{TEST_FRAMES} -frames:v 1 -pix_fmt rgb24 plain.png"));
    let plain = folder.read("plain.png");
    for (name, values, primaries) in [
        ("srgb.png", [31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000], Some("bt709")),
        ("p3.png", [31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000], Some("smpte432")),
        ("other.png", [31270, 32900, 73000, 26000, 11000, 82000, 15000, 2000], None),
    ] {
        folder.write(name, with_chromaticities(&plain, values));
        for out in ["out.mkv --encoder libx265", "out.png"] {
            folder.upscale(&format!("{name} {out} {LINE}"));
            let out = out.split(' ').next().unwrap();
            let (frame, stream) = described(&folder, out);
            assert!(!stream["side_data_list"].to_string().contains("Mastering"), "{name} {out}: {stream}");
            assert!(!frame["side_data_list"].to_string().contains("luminance"), "{name} {out}: {frame}");
            let left_out = report(&folder)["left_out"].to_string();
            match primaries {
                Some(_) => assert_eq!(left_out, "[]", "{name} {out}"),
                None => assert!(left_out.contains("chromaticities"), "{name} {out}: {left_out}"),
            }
            if out == "out.mkv" {
                assert_eq!(stream["color_primaries"].as_str(), primaries, "{name}");
            }
        }
    }
    folder
        .hasn(&format!("upscale other.png out.mkv {LINE} --strict"))
        .assert_told("chromaticities", "--strict");
    // FFmpeg's encoder of PNG writes those of the primaries that it knows.
    folder.upscale(&format!("srgb.png out.png {LINE}"));
    let chunk = folder.read("srgb.png")[33..77].to_vec();
    assert!(folder.read("out.png").windows(chunk.len()).any(|bytes| bytes == chunk));
}

/// Adds a box to the sample description of an MP4 of one stream of HEVC, whose index is at its end.
fn with_box(mp4: &[u8], name: &[u8], payload: &[u8]) -> Vec<u8> {
    let size = 8 + payload.len() as u32;
    let find =
        |name: &[u8], before: usize| mp4[..before].windows(4).rposition(|bytes| bytes == name).unwrap();
    let size_at = |at: usize| u32::from_be_bytes(mp4[at - 4..at].try_into().unwrap());
    let header = find(b"hvcC", mp4.len());
    let end = header - 4 + size_at(header) as usize;
    let mut out = [&mp4[..end], &size.to_be_bytes(), name, payload, &mp4[end..]].concat();
    for name in [b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"hvc1"] {
        let at = find(name, header);
        out[at - 4..at].copy_from_slice(&(size_at(at) + size).to_be_bytes());
    }
    out
}

/// Adds the configuration record of Dolby Vision to such an MP4.
fn with_dolby_vision(mp4: &[u8], profile: u16, compatibility: u8) -> Vec<u8> {
    let flags = (profile << 9 | 6 << 3 | 0b101).to_be_bytes();
    with_box(mp4, b"dvcC", &[&[1, 0][..], &flags, &[compatibility << 4], &[0; 19]].concat())
}

#[test]
fn an_area_that_the_container_crops_is_applied_where_ffmpeg_reads_it() {
    let folder = Folder::new();
    let x265 = "-c:v libx265 -x265-params log-level=error -tag:v hvc1";
    folder.ffmpeg(&format!("{TEST_FRAMES} -frames:v 3 {x265} plain.mp4"));
    // Width, height, and offsets of the centre, as fractions.
    let area = [48, 1, 40, 1, 4, 1, -2, 1].map(i32::to_be_bytes).concat();
    folder.write("in.mp4", with_box(&folder.read("plain.mp4"), b"clap", &area));
    let (_, stream) = described(&folder, "in.mp4");
    // From version 7.1 on.
    let is_read = stream["side_data_list"].to_string().contains("Frame Cropping");
    folder.upscale(&format!("in.mp4 out.mkv {LINE} --encoder ffv1 --strict"));
    let (_, stream) = described(&folder, "out.mkv");
    let size = if is_read { (json!(48), json!(40)) } else { (json!(64), json!(64)) };
    assert_eq!((stream["width"].clone(), stream["height"].clone()), size);
    assert_eq!(folder.frame_hashes("out.mkv", "yuv420p"), folder.frame_hashes("in.mp4", "yuv420p"));
}

#[test]
fn dolby_vision_is_refused_reported_or_copied() {
    let folder = Folder::new();
    let x265 = "-c:v libx265 -x265-params log-level=error -tag:v hvc1";
    folder.ffmpeg(&format!("{TEST_FRAMES} -frames:v 3 -pix_fmt yuv420p10le {x265} plain.mp4"));
    let plain = folder.read("plain.mp4");
    for (name, profile, compatibility) in [("5.mp4", 5, 0), ("7.mp4", 7, 0), ("8.mp4", 8, 1)] {
        folder.write(name, with_dolby_vision(&plain, profile, compatibility));
        let (_, stream) = described(&folder, name);
        assert_eq!(stream["side_data_list"][0]["dv_profile"], profile);
    }
    folder.hasn(&format!("upscale 5.mp4 out.mkv {LINE}")).assert_told("--filter libplacebo", "profile 5");
    for name in ["7.mp4", "8.mp4"] {
        folder.upscale(&format!("{name} out.mkv {LINE}"));
        assert_eq!(report(&folder)["left_out"], json!(["Dolby Vision"]), "{name}");
        folder.hasn(&format!("upscale {name} out.mkv {LINE} --strict")).assert_told("Dolby Vision", name);
    }
    // The second video is copied.
    folder.ffmpeg("-i plain.mp4 -i 8.mp4 -map 0 -map 1 -c copy -strict unofficial two.mp4");
    for out in ["out.mkv", "out.mp4"] {
        folder.upscale(&format!("two.mp4 {out} {LINE} --strict"));
        let found: Value = folder.ffprobe("-show_streams", out);
        let has_record = |i: usize| {
            found["streams"][i]["side_data_list"].to_string().contains("DOVI configuration record")
        };
        assert!(!has_record(0) && has_record(1), "{out}: {found}");
    }
}

#[test]
fn a_timecode_of_gops_is_that_of_the_stream() {
    let folder = Folder::new();
    for (name, option) in [("zero.m2v", ""), ("hour.m2v", "-bf 0 -gop_timecode 01:00:00:00")] {
        folder.ffmpeg(&format!("{TEST_FRAMES} -frames:v 30 -c:v mpeg2video {option} {name}"));
        for out in ["out.mkv", "out.mov", "out.avi"] {
            folder.upscale(&format!("{name} {out} {LINE}"));
            let (_, stream) = described(&folder, out);
            let tags = stream["tags"].as_object().into_iter().flatten();
            let timecode =
                tags.filter(|(key, _)| key.eq_ignore_ascii_case("timecode")).map(|(_, value)| value);
            let is_kept = name == "hour.m2v" && out != "out.avi";
            let expected = is_kept.then_some(json!("01:00:00:00"));
            assert_eq!(timecode.collect::<Vec<_>>(), expected.iter().collect::<Vec<_>>(), "{name} {out}");
            let is_lost = name == "hour.m2v" && out == "out.avi";
            let left_out = if is_lost { json!(["GOP timecode"]) } else { json!([]) };
            assert_eq!(report(&folder)["left_out"], left_out, "{name} {out}");
        }
    }
}

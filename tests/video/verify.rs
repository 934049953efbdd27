//! The finished file is verified: its contents are reported, and a file that differs keeps its partial name.

use crate::common::program::Folder;

const SMALL: &str = "-f lavfi -i testsrc2=s=32x32:r=25";
const SINE: &str = "-f lavfi -i sine=r=48000";

fn report(folder: &Folder, name: &str) -> serde_json::Value {
    serde_json::from_slice(&folder.read(name)).unwrap()
}

#[test]
fn the_report_lists_the_contents_of_the_file() {
    let folder = Folder::new();
    folder.ffmpeg(&format!(
        "{SMALL} {SINE} -t 2 -c:v libx264 -bf 2 -c:a aac -metadata:s:a language=fra -disposition:a +forced in.mkv"
    ));
    for out in ["out.mkv", "out.mp4", "out.ts", "out.mov"] {
        folder.upscale(&format!("in.mkv {out} --model none --report {out}.json"));
        let verification = &report(&folder, &format!("{out}.json"))["verification"];
        let probe = folder.probe(out);
        assert_eq!(verification["frames"], 50, "{out}");
        let seconds = probe.video_seconds();
        for (key, expected) in [("first_pts_s", seconds[0]), ("last_pts_s", seconds[49]), ("duration_s", 2.0)]
        {
            assert!(
                (verification[key].as_f64().unwrap() - expected).abs() < 2e-3,
                "{out}: {key} of {verification}"
            );
        }
        let streams = verification["streams"].as_array().unwrap();
        assert_eq!(streams.len(), probe.streams.len(), "{out}");
        let listed =
            |key: &str| streams.iter().map(|stream| stream[key].as_str().unwrap()).collect::<Vec<_>>();
        assert_eq!(listed("kind"), ["video", "audio"], "{out}");
        assert_eq!(listed("codec"), ["h264", "aac"], "{out}");
        assert_eq!(streams[1]["packets"], probe.packets_of(1).len(), "{out}");
        // Containers write the bibliographic or the terminologic code of a language.
        let language = streams[1]["language"].as_str().unwrap();
        assert!(language == "fra" || language == "fre", "{out}: {language}");
        let forced = streams[1]["dispositions"].as_array().unwrap().contains(&"forced".into());
        assert!(forced || out != "out.mkv", "{out}");
    }
    folder.upscale("in.mkv out.gif --model none --report out.json");
    assert_eq!(report(&folder, "out.json")["verification"]["frames"], 50);
}

#[test]
fn a_file_that_differs_keeps_its_partial_name() {
    let folder = Folder::new();
    folder.ffmpeg(&format!("{SMALL} -t 1 -c:v libx264 in.mkv"));
    // FLV's muxer writes any tag, whatever codec it stands for.
    let ran = folder.hasn("upscale in.mkv out.flv --model none --encoder libx264 --encoder-opt tag=XVID");
    ran.assert_told("out.partial.flv: cannot be opened again", "H.264 as XVID");
    assert_eq!(folder.names(), ["in.mkv", "out.flv.hasn", "out.partial.flv"]);
}

#[test]
fn a_transport_stream_may_outlast_its_counter() {
    let folder = Folder::new();
    // The counter wraps after 26.5 hours: here at the beginning, and at frame 160 of 170.
    for (from, frames) in [(95_440, 50), (0, 170)] {
        let every = if frames == 50 { "1/25" } else { "600" };
        folder.ffmpeg(&format!(
            "-f lavfi -i testsrc2=s=32x32:r=1 -frames:v {frames} -vf settb=1/90000,setpts=N*{every}/TB -fps_mode passthrough \
             -enc_time_base 1/90000 -c:v ffv1 -output_ts_offset {from} in.mkv"
        ));
        folder.upscale("in.mkv out.ts -y --model none --report out.json");
        let verification = &report(&folder, "out.json")["verification"];
        let length =
            verification["last_pts_s"].as_f64().unwrap() - verification["first_pts_s"].as_f64().unwrap();
        let expected = if frames == 50 { 49.0 / 25.0 } else { 169.0 * 600.0 };
        assert_eq!(verification["frames"], frames);
        assert!((length - expected).abs() < 0.01, "{length} s instead of {expected} s");
    }
}

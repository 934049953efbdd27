//! `hasn preview`, whose page a browser opens; `hasn compare` and `hasn info`.

use std::process::{Command, Stdio};

use crate::common::program::{Folder, project_file, say_skipped};

const CLIP: &str = "-f lavfi -i testsrc2=s=192x128:r=25 -t 1";

/// What the page holds as JSON.
fn data_of(page: &str) -> serde_json::Value {
    let (_, rest) = page.split_once("id=\"data\">").expect("the page has its data");
    serde_json::from_str(rest.split_once("</script>").unwrap().0).unwrap()
}

#[test]
fn a_preview_shows_frames_with_figures_and_opens_in_a_browser() {
    let folder = Folder::new();
    folder.ffmpeg(&format!("{CLIP} -c:v ffv1 -pix_fmt yuv420p large.mkv"));
    folder.ffmpeg("-i large.mkv -vf scale=96:64:flags=bicubic -c:v ffv1 <in>.mkv");
    let line = "preview <in>.mkv --model none,hasn-lite-x2 --reference large.mkv --encoder-preset ultrafast";
    let ran = folder.hasn(line);
    ran.assert_done();
    let page = String::from_utf8(folder.read("preview.html")).unwrap();
    assert_eq!(folder.names(), ["<in>.mkv", "large.mkv", "preview.html"]);
    assert!(page.len() < 3_000_000 && !page.contains("http"), "{} bytes", page.len());
    let data = data_of(&page);
    assert_eq!(data["versions"], serde_json::json!(["bicubic", "none", "hasn-lite-x2", "reference"]));
    let frames = data["frames"].as_array().unwrap();
    let times: Vec<_> = frames.iter().map(|frame| frame["at_s"].as_f64().unwrap()).collect();
    assert!(times.len() == 3 && times.is_sorted() && times[0] > 0.1 && times[2] < 0.9, "{times:?}");
    for frame in frames {
        assert!(
            frame["images"]
                .as_array()
                .unwrap()
                .iter()
                .all(|image| { image.as_str().unwrap().starts_with("data:image/") })
        );
        let psnr = |version: usize| frame["figures"][version]["psnr_y_db"].as_f64().unwrap();
        assert!((15.0..60.0).contains(&psnr(0)) && (15.0..60.0).contains(&psnr(2)), "{}", frame["figures"]);
        assert!(frame["figures"][2]["seconds"].as_f64().unwrap() > 0.0);
    }
    assert_eq!(data["whole"].as_array().unwrap().len(), 2);
    assert_eq!(data["whole"][1]["frames"], 25);
    folder.hasn(line).assert_told("already exists", line);
    folder.hasn("preview - -o other.html").assert_told("can be read only once", "preview -");
    browse(&folder);
}

#[test]
fn an_image_has_one_frame_and_a_reference_of_another_size_is_refused() {
    let folder = Folder::new();
    folder.ffmpeg("-f lavfi -i testsrc2=s=64x48 -frames:v 1 in.png");
    folder.hasn("preview in.png --model none -o one.html").assert_done();
    let data = data_of(&String::from_utf8(folder.read("one.html")).unwrap());
    assert_eq!(data["frames"].as_array().unwrap().len(), 1);
    assert_eq!((&data["whole"][0]["frames"], &data["shown"][0]), (&1.into(), &128.into()));
    let line = "preview in.png --model none --reference in.png -o two.html";
    folder.hasn(line).assert_told("is 128x96 and its original 64x48", line);
    assert_eq!(folder.names(), ["in.png", "one.html"]);
}

/// Opens the page in two widths. The screenshots stay in target/.
fn browse(folder: &Folder) {
    let page = format!("file://{}", folder.path("preview.html").display());
    let chromium = |width: usize, how: &str| {
        Command::new("chromium")
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"])
            .args([
                "--disable-background-networking",
                "--disable-component-update",
                "--enable-logging=stderr",
            ])
            .arg(format!("--user-data-dir={}", folder.path("browser").display()))
            .args(["--virtual-time-budget=4000", &format!("--window-size={width},1200"), how, &page])
            .stdin(Stdio::null())
            .output()
            .ok()
            .map(|output| {
                let [stdout, stderr] =
                    [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
                let console: Vec<_> =
                    stderr.lines().filter(|line| line.contains(":CONSOLE")).map(str::to_owned).collect();
                (stdout, console)
            })
    };
    let Some((shown, console)) = chromium(1280, "--dump-dom") else {
        return say_skipped("the page was not opened: install chromium");
    };
    assert_eq!(console, Vec::<String>::new());
    for part in [
        "&lt;in&gt;.mkv – hasn preview</title>",
        "type=\"range\"",
        ">hasn-lite-x2</option>",
        ">reference</option>",
        ">PSNR-Y</th>",
        "dB</td>",
        ">1:1</button>",
        "ms</td>",
        ">25</td>",
    ] {
        assert!(shown.contains(part), "{part} is missing in\n{shown}");
    }
    std::fs::create_dir_all(project_file("target")).unwrap();
    for width in [1280, 390] {
        let image = project_file(&format!("target/preview-{width}.png"));
        let _ = std::fs::remove_file(&image);
        let (_, console) = chromium(width, &format!("--screenshot={}", image.display())).unwrap();
        assert_eq!(console, Vec::<String>::new(), "{width}");
        assert!(std::fs::metadata(&image).expect("a screenshot of the page").len() > 10_000, "{width}");
    }
}

#[test]
fn a_comparison_names_the_worst_frame_and_shows_it() {
    let folder = Folder::new();
    folder.ffmpeg(&format!("{CLIP} -frames:v 8 -c:v ffv1 -pix_fmt yuv420p good.mkv"));
    folder.ffmpeg("-i good.mkv -vf noise=alls=40:enable='eq(n,5)' -c:v ffv1 -pix_fmt yuv420p bad.mkv");
    let ran = folder.hasn("compare good.mkv bad.mkv --worst-frame worst.png --difference");
    ran.assert_done();
    assert!(ran.text().contains("\nworst frame        5, at 0.200 s: "), "{}", ran.text());
    assert!(ran.text().contains("VMAF"), "{}", ran.text());
    let video = folder.probe("worst.png").video().clone();
    // Three frames, two gaps, and a line of text above them.
    assert_eq!((video.width, video.height), (3 * 192 + 2 * 4, 128 + 24));
    let area =
        |what: &str| folder.ffmpeg(&format!("-i worst.png -vf crop={what} -pix_fmt gray -f rawvideo -"));
    let label = area("192:24:0:0");
    assert!(label.contains(&0) && label.contains(&255), "the label has ink on paper");
    let difference = area("192:128:392:24");
    assert!(difference.iter().any(|&value| value < 90) && difference.iter().any(|&value| value > 165));
    let json = folder.hasn("compare --json good.mkv bad.mkv");
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json["worst_frame"], 5);
    // An image that cannot be written is refused before the first frame is compared.
    for (image, said) in [
        ("worst.mkv", "worst.mkv: is of a format without rgb24"),
        ("worst.nothing", "names no container"),
        ("nodir/worst.png", "nodir: there is no such folder"),
        ("good.mkv", "is one of the inputs"),
    ] {
        let ran = folder.hasn(&format!("compare good.mkv bad.mkv --worst-frame {image}"));
        ran.assert_told(said, image);
        assert!(ran.stdout.is_empty(), "{image}");
    }
}

#[test]
fn info_groups_encoders_by_codec() {
    let folder = Folder::new();
    let ran = folder.hasn("info --json");
    ran.assert_done();
    let info: serde_json::Value = serde_json::from_slice(&ran.stdout).unwrap();
    let encoders = |codec: &str| info["encoders"][codec].as_array().unwrap().clone();
    assert!(encoders("h264").contains(&"libx264".into()) && encoders("hevc").contains(&"libx265".into()));
    // Those that take frames of a device only do not open here.
    assert!(!ran.text().contains("_vaapi"), "{}", ran.text());
    let lines = folder.hasn("info");
    assert!(lines.text().contains("\n  h264            libx264"), "{}", lines.text());
    assert!(lines.text().contains("VMAF       "), "{}", lines.text());
}

//! Inputs of strangers: what a file names is opened only where the file's own name, or the user, says that it is a list.

use std::net::TcpListener;

use crate::common::program::Folder;
use crate::common::sweep::sample;
use crate::stalls::serve;

/// A video that only the lists name.
const SECRET: &str =
    "-f lavfi -i testsrc2=s=64x48:r=25:d=1 -c:v libx264 -preset ultrafast -pix_fmt yuv420p -bf 0";
/// Extensions that say nothing of a list. That of an image sequence and none at all are among them.
const INNOCENT: [&str; 12] =
    [".mp4", ".mkv", ".mov", ".webm", ".avi", ".ts", ".mxf", ".flv", ".png", ".txt", "", ".m3u8.mp4"];

fn folder() -> Folder {
    let folder = Folder::new();
    folder.ffmpeg(&format!("{SECRET} secret.mp4"));
    folder.ffmpeg("-i secret.mp4 -c copy secret.ts");
    folder
}

/// An HLS playlist with this segment.
fn hls(segment: &str) -> String {
    format!("#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1.0,\n{segment}\n#EXT-X-ENDLIST\n")
}

fn concat(file: &str) -> String {
    format!("ffconcat version 1.0\nfile {file}\n")
}

/// A file of each demuxer that opens further files by name, its own extension, and FFmpeg's name of the demuxer.
fn lists(folder: &Folder) -> Vec<(&'static str, &'static str, Vec<u8>)> {
    folder.ffmpeg("-i secret.mp4 -c copy -f dash dash.mpd");
    let mlv = [b"MLVI\x34\0\0\0v2.0".as_slice(), &[0; 16], &[3, 0, 0, 0, 1, 0], &[0; 14]].concat();
    let sdp = "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 45998 RTP/AVP 33\n";
    let vobsub = "# VobSub index file, v7 (do not modify this line!)\ntimestamp: 00:00:01:000, filepos: 0\n";
    let master = "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1000\nmedia.m3u8\n";
    folder.write("media.m3u8", hls("secret.ts"));
    vec![
        ("hls", "m3u8", hls("secret.ts").into()),
        ("hls", "m3u8", hls(&folder.path("secret.ts").display().to_string()).into()),
        ("hls", "m3u8", hls("subfile,,start,0,end,99999,,:secret.ts").into()),
        ("hls", "m3u8", hls("concat:secret.ts|secret.ts").into()),
        ("hls", "m3u8", hls("http://127.0.0.1:9/secret.ts").into()),
        ("hls", "m3u8", master.into()),
        ("dash", "mpd", folder.read("dash.mpd")),
        ("concat", "ffconcat", concat("secret.ts").into()),
        ("sdp", "sdp", sdp.into()),
        ("vobsub", "idx", vobsub.into()),
        ("mlv", "mlv", mlv),
    ]
}

#[test]
fn sweep_of_lists_with_innocent_names() {
    let folder = folder();
    let all: Vec<_> = lists(&folder)
        .into_iter()
        .flat_map(|list| INNOCENT.map(|extension| (list.clone(), extension)))
        .collect();
    for ((demuxer, own, bytes), extension) in sample("lists by extensions", all, 14) {
        let name = format!("upload{extension}");
        folder.write(&name, bytes);
        let line = format!("upscale {name} out.mkv --model none");
        let ran = folder.hasn(&line);
        // FFmpeg takes a text by the name of an image for a damaged image.
        if (demuxer, extension) == ("sdp", ".png") {
            ran.assert_told("upload.png: ", &line);
        } else {
            ran.assert_told(&format!("{name}: lists other files (FFmpeg's demuxer {demuxer})"), &line);
            ran.assert_told(&format!("name it .{own}, or give --allow-playlist"), &line);
        }
        assert_eq!(folder.names().iter().find(|name| name.starts_with("out")), None, "{line}");
        std::fs::remove_file(folder.path(&name)).unwrap();
    }
}

#[test]
fn a_list_is_followed_where_it_is_named_so_or_allowed() {
    let folder = folder();
    for (at, (demuxer, own, bytes)) in lists(&folder).into_iter().enumerate() {
        let is_whole = matches!(at, 0 | 5) || matches!(demuxer, "dash" | "concat");
        if !is_whole {
            continue;
        }
        for line in [format!("list.{own} out.mkv"), "list.mp4 out.mkv --allow-playlist".to_owned()] {
            folder.write(line.split(' ').next().unwrap(), &bytes);
            folder.upscale(&format!("{line} -y --model none"));
            assert_eq!(folder.probe("out.mkv").video_pts().len(), 25, "{line}");
        }
    }
    // A list of one kind by the name of another.
    folder.write("list.m3u8", concat("secret.ts"));
    let line = "upscale list.m3u8 out.mkv -y --model none";
    folder.hasn(line).assert_told("list.m3u8: lists other files (FFmpeg's demuxer concat)", line);
    // In a playlist, a file that is a list of its own.
    folder.write("nested.ts", concat("secret.ts"));
    folder.write("list.m3u8", hls("nested.ts"));
    folder.hasn(line).assert_told("list.m3u8: ", line);
}

#[test]
fn protocols_are_those_of_the_kind_of_input() {
    let folder = folder();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let secret = folder.path("secret.ts").display().to_string();
    // At an address, a list of files of this machine.
    let playlist = hls(&format!("file:{secret}")).into_bytes();
    std::thread::spawn(move || serve(&listener, &playlist));
    let line = format!("upscale http://127.0.0.1:{port}/list.mp4 out.mkv --model none");
    folder.hasn(&line).assert_told("list.mp4: lists other files (FFmpeg's demuxer hls)", &line);
    let line = format!("upscale http://127.0.0.1:{port}/list.m3u8 out.mkv --model none");
    folder.hasn(&line).assert_told("list.m3u8: ", &line);
    // In a file, addresses.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = format!("http://{}/secret.ts", listener.local_addr().unwrap());
    folder.write("list.m3u8", hls(&address));
    folder.write("list.ffconcat", concat(&address));
    for list in ["list.m3u8", "list.ffconcat"] {
        let line = format!("upscale {list} out.mkv --model none");
        folder.hasn(&line).assert_told(&format!("{list}: "), &line);
    }
    assert!(listener.accept().is_err(), "the address was asked");
    assert!(!folder.path("out.mkv").exists());
}

#[test]
fn a_batch_and_a_relay_follow_no_list_by_another_name() {
    let folder = folder();
    std::fs::create_dir(folder.path("in")).unwrap();
    folder.write("in/upload.mp4", hls(&folder.path("secret.ts").display().to_string()));
    let ran = folder.hasn("batch in --into out --model none");
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    assert!(ran.stderr.contains("lists other files"), "{}", ran.stderr);
    let ran = folder.hasn("relay in/upload.mp4 out.ts --ladder none --reconnect-max 0s");
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    assert!(ran.stderr.contains("lists other files"), "{}", ran.stderr);
}

/// `moov` with an alias to another file in the data references of its track, which FFmpeg's option `enable_drefs` follows.
fn with_alias(mut video: Vec<u8>, path: &str) -> Vec<u8> {
    let mut alias = vec![0; 150];
    alias.extend([&[0, 2], &(path.len() as u16).to_be_bytes()[..], path.as_bytes()].concat());
    alias.extend(vec![0; path.len() % 2]);
    alias.extend([0xff, 0xff, 0, 0]);
    let entry = [b"alis\0\0\0\0".as_slice(), &alias].concat();
    let sized = [&(entry.len() as u32 + 4).to_be_bytes()[..], &entry].concat();
    let place = |video: &[u8], name: &[u8; 4]| video.windows(4).position(|word| word == name).unwrap();
    let old = place(&video, b"dref") + 12;
    let added = sized.len() - 12;
    video.splice(old..old + 12, sized);
    for name in [b"moov", b"trak", b"mdia", b"minf", b"dinf", b"dref"] {
        let at = place(&video, name) - 4;
        let size = u32::from_be_bytes(video[at..at + 4].try_into().unwrap()) + added as u32;
        video[at..at + 4].copy_from_slice(&size.to_be_bytes());
    }
    video
}

#[test]
fn references_of_a_quicktime_file_are_not_followed() {
    let folder = folder();
    folder.ffmpeg("-f lavfi -i smptebars=s=64x48:r=25:d=0.4 -c:v mjpeg secret.mov");
    let own = folder.read("secret.mov");
    let mut alias = with_alias(own.clone(), &folder.path("secret.mov").display().to_string());
    // What the tables point to is in the other file alone.
    let data = own.windows(4).position(|word| word == b"mdat").unwrap() + 4;
    let end = own.windows(4).position(|word| word == b"moov").unwrap() - 4;
    alias[data..end].fill(0);
    folder.write("alias.mov", alias);
    let followed = folder.ffmpeg("-enable_drefs 1 -use_absolute_path 1 -i alias.mov -f framemd5 -");
    assert_eq!(
        String::from_utf8(followed).unwrap().lines().filter(|line| !line.starts_with('#')).count(),
        10
    );
    let line = "upscale alias.mov out.mkv --model none";
    folder.hasn(line).assert_told("alias.mov: ", line);
}

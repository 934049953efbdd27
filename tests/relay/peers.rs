//! Relays among the programs of others: nginx's RTMP module, libsrt's `srt-live-transmit`, GStreamer's RTSP server, and RTP
//! as FFmpeg sends it. `make test-relay` installs them.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::common::program::{Folder, say_skipped};
use crate::harness::{Beside, CODECS, FLASHES, assert_in_step, free_port, lost, seconds, shared_machine};

/// A program with these words, in the folder; its words go nowhere.
fn beside(folder: &Folder, program: &str, line: &str) -> Beside {
    let mut command = Command::new(program);
    command.args(line.split_whitespace()).current_dir(folder.path(""));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Beside(command.spawn().unwrap_or_else(|e| panic!("{program}: {e}")))
}

fn is_there(program: &str) -> bool {
    Command::new(program).arg("-version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

fn publisher(folder: &Folder, to: &str) -> Beside {
    Beside::ffmpeg(folder, &format!("{FLASHES} {CODECS} {to}"))
}

/// Plays what comes out, ends the relay, and holds both to what was sent.
fn assert_played(folder: &Folder, relay: Beside, player: Beside) {
    assert_eq!(player.end("the player"), Some(0));
    let stats = relay.end_accounted(folder);
    assert_eq!((lost(&stats), stats["duplicated"].as_u64()), (0, Some(0)), "{stats}");
    assert_eq!(stats["source_connections"], 1, "{stats}");
    assert_in_step(folder, "played.mkv", played_s() * 25 - 1, 0.045);
}

/// The first two seconds are those in which all find each other.
fn played_s() -> u64 {
    seconds().as_secs() - 2
}

fn player(folder: &Folder, from: &str) -> Beside {
    Beside::ffmpeg(folder, &format!("-i {from} -t {} -c copy played.mkv", played_s()))
}

#[test]
fn nginx_gives_and_takes_a_stream() {
    const PROGRAM: &str = "/usr/sbin/nginx";
    const MODULE: &str = "/usr/lib/nginx/modules/ngx_rtmp_module.so";
    if ![PROGRAM, MODULE].iter().all(|path| Path::new(path).exists()) {
        return say_skipped(
            "nginx as a relay's peer, for nginx-light and libnginx-mod-rtmp are not installed",
        );
    }
    let (_machine, folder, port) = (shared_machine(), Folder::new(), free_port());
    folder.write(
        "nginx.conf",
        format!(
            "load_module {MODULE};\n\
             daemon off; master_process off; pid nginx.pid; error_log error.log;\n\
             events {{}}\n\
             rtmp {{ server {{ listen 127.0.0.1:{port}; application live {{ live on; }} }} }}\n"
        ),
    );
    let root = folder.path("");
    let nginx = beside(&folder, PROGRAM, &format!("-p {} -c nginx.conf -e error.log", root.display()));
    let address = format!("rtmp://127.0.0.1:{port}/live");
    nginx.wait_until_it_listens(&format!("127.0.0.1:{port}"));
    let _publisher = publisher(&folder, &format!("-f flv {address}/in"));
    // It waits there for somebody to publish.
    let player = player(&folder, &format!("{address}/out"));
    let relay = Beside::relay(&folder, &format!("{address}/in {address}/out --ladder none"));
    assert_played(&folder, relay, player);
}

#[test]
fn srt_live_transmit_gives_and_takes_a_stream() {
    const PROGRAM: &str = "srt-live-transmit";
    if !is_there(PROGRAM) {
        return say_skipped("srt-live-transmit as a relay's peer, for srt-tools is not installed");
    }
    let (_machine, folder) = (shared_machine(), Folder::new());
    let [sent, in_port, out_port, played] = [(); 4].map(|()| free_port());
    let source = format!("srt://127.0.0.1:{in_port}?mode=listener");
    let relay = Beside::relay(&folder, &format!("{source} srt://127.0.0.1:{out_port} --ladder none"));
    let player = player(&folder, &format!("udp://127.0.0.1:{played}"));
    relay.wait_until_it_listens(&source);
    let chunk = "-q -c 1316";
    let _takes = beside(
        &folder,
        PROGRAM,
        &format!("{chunk} srt://127.0.0.1:{out_port}?mode=listener udp://127.0.0.1:{played}"),
    );
    let gives = beside(
        &folder,
        PROGRAM,
        &format!("{chunk} udp://127.0.0.1:{sent} srt://127.0.0.1:{in_port}?mode=caller"),
    );
    gives.wait_until_it_listens(&format!("127.0.0.1:{sent}"));
    let _publisher = publisher(&folder, &format!("-f mpegts udp://127.0.0.1:{sent}?pkt_size=1316"));
    assert_played(&folder, relay, player);
}

/// Pulled by its clients, as a camera is.
const RTSP_SERVER: &str = "
import sys, gi
gi.require_version('Gst', '1.0')
gi.require_version('GstRtspServer', '1.0')
from gi.repository import GLib, Gst, GstRtspServer
Gst.init(None)
server = GstRtspServer.RTSPServer(address='127.0.0.1', service=sys.argv[1])
factory = GstRtspServer.RTSPMediaFactory()
factory.set_launch('filesrc location=in.mp4 ! qtdemux name=video video.video_0 ! queue ! rtph264pay name=pay0 '
    'video.audio_0 ! queue ! rtpmp4gpay name=pay1')
server.get_mount_points().add_factory('/live', factory)
server.attach(None)
GLib.MainLoop().run()
";

#[test]
fn an_rtsp_server_is_pulled() {
    // The distribution's, which has its modules.
    const PYTHON: &str = "/usr/bin/python3";
    let needed = "import gi\ngi.require_version('GstRtspServer', '1.0')\nfrom gi.repository import Gst\nGst.init(None)\n\
                  raise SystemExit(not all(map(Gst.ElementFactory.find, ['qtdemux', 'rtph264pay', 'rtpmp4gpay'])))";
    let is_there = Command::new(PYTHON).args(["-c", needed]).stderr(Stdio::null()).status();
    if !is_there.is_ok_and(|status| status.success()) {
        return say_skipped(
            "an RTSP server as a relay's source, for gir1.2-gst-rtsp-server-1.0, python3-gi and \
             gstreamer1.0-plugins-good are not installed",
        );
    }
    let (_machine, folder) = (shared_machine(), Folder::new());
    folder.write("server.py", RTSP_SERVER);
    let flashes = FLASHES.replace("-re ", "");
    folder.ffmpeg(&format!("{flashes} -t {} {CODECS} in.mp4", seconds().as_secs() + 20));
    let [rtsp, played] = [free_port(), free_port()];
    let to = format!("udp://127.0.0.1:{played}");
    let player = player(&folder, &to);
    let _server = beside(&folder, PYTHON, &format!("server.py {rtsp}"));
    let relay = Beside::relay(&folder, &format!("rtsp://127.0.0.1:{rtsp}/live {to} --ladder none"));
    assert_played(&folder, relay, player);
}

#[test]
fn a_transport_stream_by_rtp_comes_in() {
    let (_machine, folder) = (shared_machine(), Folder::new());
    let [rtp, played] = [free_port(), free_port()];
    let to = format!("udp://127.0.0.1:{played}");
    let player = player(&folder, &to);
    let relay = Beside::relay(&folder, &format!("rtp://127.0.0.1:{rtp} {to} --ladder none"));
    relay.wait_until_it_listens(&format!("127.0.0.1:{rtp}"));
    let _publisher = publisher(&folder, &format!("-f rtp_mpegts rtp://127.0.0.1:{rtp}"));
    assert_played(&folder, relay, player);
}

//! Networks that lose, delay, stall and break: a relay's output continues in order, and shows new frames soon after they
//! recover.
//!
//! Each frame carries its number. Packets are lost in a network namespace by nftables' rules; RTMP goes through a proxy of
//! the test.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::program::{Folder, say_skipped, wait_for};
use crate::counted::{Player, Publisher, Seen, WIDTH, favoured};
use crate::harness::{Beside, assert_times_rise, free_port, seconds, shared_machine, widest_gap};

/// fps.
const RATE: u32 = 25;
/// From a network's recovery to the first frame that was sent afterwards.
const RECOVERY_MAX: Duration = Duration::from_secs(2);
/// Between two frames of the output: half a second without a frame of the source, then duplicates.
const GAP_MAX_S: f64 = 0.55;

/// A publisher, a relay and a player, side by side.
struct Streaming {
    folder: Folder,
    relay: Beside,
    publisher: Publisher,
    player: Player,
}

impl Streaming {
    /// `through`: what each program's command becomes.
    fn start(
        source: &str,
        publish: &str,
        through: impl Fn(Command) -> Command + Send + Clone + 'static,
    ) -> Streaming {
        let folder = Folder::new();
        let to = format!("udp://127.0.0.1:{}", free_port());
        let player = Player::start(through(favoured("ffmpeg")), &to, 2 * WIDTH);
        let relay = Beside::relay_through(
            &folder,
            &format!("{source} {to} out.ts --ladder none -v"),
            through.clone(),
        );
        relay.wait_until_it_listens(source.split_whitespace().next().unwrap());
        let publisher = Publisher::start(move || through(favoured("ffmpeg")), RATE, publish);
        wait_for("frames", || (player.seen().len() > 25).then_some(()));
        Streaming { folder, relay, publisher, player }
    }

    /// How many of the frames that were seen since then can be read: the part of all.
    fn readable_since(&self, since: Instant) -> f64 {
        let seen: Vec<Seen> = self.player.seen().into_iter().filter(|seen| seen.at > since).collect();
        seen.iter().filter(|seen| seen.number.is_some()).count() as f64 / seen.len() as f64
    }

    /// Waits for a frame that was sent since then: how long it took to be seen.
    fn recovered_after(&self, since: Instant) -> Duration {
        wait_for("a frame sent since", || {
            let sent = self.publisher.sent();
            let is_new = |seen: &&Seen| seen.number.is_some_and(|number| sent[usize::from(number)] >= since);
            self.player
                .seen()
                .iter()
                .rev()
                .take_while(|seen| seen.at > since)
                .filter(is_new)
                .last()
                .map(|seen| seen.at - since)
        })
    }

    /// A viewer has noticed nothing but the frames.
    fn assert_continued(self) {
        let Streaming { folder, relay, publisher, player } = self;
        let stats = relay.end_accounted(&folder);
        drop((publisher, player));
        println!("{stats}");
        let sinks = stats["sinks"].as_array().unwrap();
        assert!(sinks.iter().all(|sink| sink["connections"] == 1 && sink["dropped"] == 0), "{stats}");
        assert_times_rise(&folder, "out.ts");
        let widest = widest_gap(&folder.probe("out.ts"), 0);
        assert!(widest < GAP_MAX_S, "{widest} s without a frame");
        folder.assert_decodes("out.ts");
    }
}

/// A network of its own, in which packets to some port may be lost.
pub struct Namespace(String);

impl Namespace {
    /// `None` where this user may not create one, or programs for it are missing.
    pub fn create(number: usize) -> Option<Namespace> {
        let namespace = Namespace(format!("hasn-{}-{number}", std::process::id()));
        let name = namespace.0.as_str();
        let is_created = quietly(Command::new("ip").args(["netns", "add", name]))
            && quietly(Command::new("ip").args(["-n", name, "link", "set", "lo", "up"]))
            && namespace
                .nft("add table inet hasn; add chain inet hasn in { type filter hook input priority 0; }");
        is_created.then_some(namespace)
    }

    /// Runs nftables with these rules; whether they are accepted.
    pub fn nft(&self, rules: &str) -> bool {
        quietly(Command::new("ip").args(["netns", "exec", &self.0, "nft", rules]))
    }

    /// From now on these packets do not arrive, of both directions; none is every one that does.
    fn drop_packets(&self, port: u16, which: Option<&str>) {
        let rule = |which: &str| {
            ["dport", "sport"]
                .map(|way| format!("; add rule inet hasn in udp {way} {port} {which} counter drop"))
                .concat()
        };
        let rules = which.map_or_else(String::new, rule);
        assert!(self.nft(&format!("flush chain inet hasn in{rules}")), "{rules}");
    }

    /// Packets that did not arrive since [`Namespace::drop_packets`].
    fn dropped(&self) -> u64 {
        let line = ["netns", "exec", &self.0, "nft", "list", "chain", "inet", "hasn", "in"];
        let output = Command::new("ip").args(line).output().expect("ip was there before");
        let rules = String::from_utf8(output.stdout).unwrap();
        let count = |rule: &str| rule.split_whitespace().next()?.parse::<u64>().ok();
        rules.split("counter packets ").skip(1).map(|rule| count(rule).expect("a count")).sum()
    }

    /// Makes a command one that runs in it.
    pub fn through(&self) -> impl Fn(Command) -> Command + Send + Clone + 'static {
        let name = self.0.clone();
        move |command| {
            let mut through = Command::new("ip");
            through.args(["netns", "exec", &name]).arg(command.get_program()).args(command.get_args());
            if let Some(folder) = command.get_current_dir() {
                through.current_dir(folder);
            }
            through.stdin(Stdio::null());
            through
        }
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        quietly(Command::new("ip").args(["netns", "del", &self.0]));
    }
}

fn quietly(command: &mut Command) -> bool {
    command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

/// Two packets of a hundred are lost for some time, and then all of them for three seconds.
fn through_losses(number: usize, scheme: &str, listen: &str, readable_min: f64) {
    let _machine = shared_machine();
    let Some(namespace) = Namespace::create(number) else {
        return say_skipped(&format!(
            "{scheme} through losses, for a network namespace with nftables cannot be created"
        ));
    };
    let port = free_port();
    let address = format!("{scheme}://127.0.0.1:{port}");
    let publish = format!("-f mpegts {address}?pkt_size=1316");
    let streaming = Streaming::start(&format!("{address}{listen}"), &publish, namespace.through());
    let lossy = Instant::now();
    namespace.drop_packets(port, Some("numgen random mod 100 < 2"));
    thread::sleep(seconds());
    // Of few packets it may be none.
    let dropped = wait_for("a loss", || Some(namespace.dropped()).filter(|&dropped| dropped > 0));
    let readable = streaming.readable_since(lossy);
    namespace.drop_packets(port, Some(""));
    thread::sleep(Duration::from_secs(3));
    namespace.drop_packets(port, None);
    let restored = Instant::now();
    let recovery = streaming.recovered_after(restored);
    println!(
        "{scheme}: {dropped} packets lost, {readable:.3} of the frames can be read; after a blackout back in {recovery:?}"
    );
    assert!(readable > readable_min, "{scheme}: {readable} of the frames can be read");
    assert!(recovery < RECOVERY_MAX, "{scheme}: back after {recovery:?}");
    thread::sleep(Duration::from_secs(1));
    streaming.assert_continued();
}

#[test]
fn udp_through_losses_and_a_blackout() {
    // What is lost is missing until the next keyframe, a second at most.
    through_losses(1, "udp", "", 0.5);
}

#[test]
fn srt_through_losses_and_a_blackout() {
    // It is sent again.
    through_losses(2, "srt", "?mode=listener", 0.95);
}

/// A way for TCP that delays what goes over it, stands still, and breaks.
#[derive(Clone)]
struct Road {
    /// Until when nothing moves, in milliseconds from the beginning.
    still_until_ms: Arc<AtomicU64>,
    start: Instant,
    open: Arc<Mutex<Vec<TcpStream>>>,
}

impl Road {
    /// From the port it gives to that one.
    fn to(port: u16) -> (Road, u16) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let from = listener.local_addr().unwrap().port();
        let road = Road { still_until_ms: Arc::default(), start: Instant::now(), open: Arc::default() };
        let at_gate = road.clone();
        // Ends with the test's process.
        thread::spawn(move || {
            for near in listener.incoming() {
                // Without a peer the connection breaks at once.
                let (near, Ok(far)) = (near.unwrap(), TcpStream::connect(("127.0.0.1", port))) else {
                    continue;
                };
                at_gate.open.lock().unwrap().extend([near.try_clone().unwrap(), far.try_clone().unwrap()]);
                for (from, to) in [(&near, &far), (&far, &near)] {
                    at_gate.carry(from.try_clone().unwrap(), to.try_clone().unwrap());
                }
            }
        });
        (road, from)
    }

    /// What comes arrives 50 to 80 ms later, in order, and the end does as well.
    fn carry(&self, mut from: TcpStream, mut to: TcpStream) {
        let (sender, on_the_way) = mpsc::channel::<(Instant, Vec<u8>)>();
        thread::spawn(move || {
            let (mut random, mut bytes) = (crate::common::Random(3), [0; 4096]);
            loop {
                let read = from.read(&mut bytes).unwrap_or(0);
                let delay = Duration::from_millis(50 + random.below(30) as u64);
                if sender.send((Instant::now() + delay, bytes[..read].to_vec())).is_err() || read == 0 {
                    return;
                }
            }
        });
        let road = self.clone();
        thread::spawn(move || {
            for (due, bytes) in on_the_way {
                let due = due.max(road.start + Duration::from_millis(road.still_until_ms.load(Relaxed)));
                thread::sleep(due.saturating_duration_since(Instant::now()));
                if bytes.is_empty() || to.write_all(&bytes).is_err() {
                    break;
                }
            }
            let _ = to.shutdown(Shutdown::Both);
        });
    }

    /// Nothing moves for so long.
    fn stand_still(&self, time: Duration) {
        self.still_until_ms.store((self.start.elapsed() + time).as_millis() as u64, Relaxed);
        thread::sleep(time);
    }

    fn cut(&self) {
        self.open.lock().unwrap().drain(..).for_each(|stream| drop(stream.shutdown(Shutdown::Both)));
    }
}

#[test]
fn rtmp_through_delays_a_standstill_and_cuts() {
    let _machine = shared_machine();
    let port = free_port();
    let (road, from) = Road::to(port);
    let source = format!("rtmp://127.0.0.1:{port}/live/key --listen");
    let streaming =
        Streaming::start(&source, &format!("-f flv rtmp://127.0.0.1:{from}/live/key"), |command| command);
    let delayed = Instant::now();
    thread::sleep(seconds());
    let readable = streaming.readable_since(delayed);
    assert!(readable > 0.99, "with delays {readable} of the frames can be read");
    road.stand_still(Duration::from_secs(4));
    let recovery = streaming.recovered_after(Instant::now());
    println!("rtmp: after a standstill of four seconds back in {recovery:?}");
    assert!(recovery < RECOVERY_MAX, "after a standstill back in {recovery:?}");
    for _ in 0..3 {
        thread::sleep(Duration::from_secs(2));
        road.cut();
        let recovery = streaming.recovered_after(Instant::now());
        println!("rtmp: after a cut back in {recovery:?}");
        assert!(recovery < RECOVERY_MAX, "after a cut back in {recovery:?}");
    }
    streaming.assert_continued();
}

/// Its timestamps continue from the stall: they are behind the output's from then on.
#[test]
fn a_source_that_stands_still_is_shown_again() {
    let _machine = shared_machine();
    let address = format!("udp://127.0.0.1:{}", free_port());
    let streaming =
        Streaming::start(&address, &format!("-f mpegts {address}?pkt_size=1316"), |command| command);
    streaming.publisher.pause(Duration::from_secs(2));
    let recovery = streaming.recovered_after(Instant::now());
    println!("udp: after two seconds of standing still back in {recovery:?}");
    assert!(recovery < RECOVERY_MAX, "after a pause back in {recovery:?}");
    streaming.assert_continued();
}

/// The fifth segment and all after it come a second and a half later than they should.
#[test]
fn segments_that_come_later_are_all_shown() {
    const SEGMENTS: usize = 12;
    let (_machine, folder) = (shared_machine(), Folder::new());
    ["encoded", "source"].into_iter().for_each(|name| std::fs::create_dir(folder.path(name)).unwrap());
    folder.ffmpeg(&format!(
        "-f lavfi -i testsrc2=s=96x64:r=25 -t {SEGMENTS} -c:v libx264 -preset ultrafast -tune zerolatency -g 25 -f hls \
         -hls_time 1 -hls_list_size 0 encoded/live.m3u8"
    ));
    let relay = Beside::relay(&folder, "source/live.m3u8 out.ts --ladder none --on-loss hold");
    let start = Instant::now();
    let mut list = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:1\n#EXT-X-MEDIA-SEQUENCE:0\n".to_owned();
    for segment in 0..SEGMENTS {
        let late = Duration::from_millis(if segment < 4 { 0 } else { 1500 });
        let due = start + Duration::from_secs(segment as u64) + late;
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let name = format!("live{segment}.ts");
        std::fs::copy(folder.path("encoded").join(&name), folder.path("source").join(&name)).unwrap();
        list += &format!("#EXTINF:1.000000,\n{name}\n");
        folder.write("source/new", &list);
        std::fs::rename(folder.path("source/new"), folder.path("source/live.m3u8")).unwrap();
    }
    let stats = relay.end_accounted(&folder);
    println!("{stats}");
    let count = |key: &str| stats[key].as_u64().unwrap();
    // The second and a half, one in which the source might have caught up, and one until the list is read again.
    assert!(count("duplicated") > 10 && count("duplicated") < 100, "{stats}");
    assert!(count("dropped_superseded") < 40, "{stats}");
    assert_times_rise(&folder, "out.ts");
}

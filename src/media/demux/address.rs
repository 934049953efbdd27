//! Addresses of streams as they are opened: bound to the local interface.

use std::env;
use std::net::{IpAddr, Ipv4Addr};

/// An address that is listened on, bound to the loopback interface unless it names another: FFmpeg accepts UDP packets from
/// anywhere, and listens on all interfaces where no host is named.
pub(crate) fn bound(address: &str, listen: bool) -> String {
    let Some([scheme, user, host, port, tail]) = parts(address) else { return address.to_owned() };
    let is_udp = matches!(scheme, "udp" | "rtp");
    if !(is_udp || listen || tail.contains("mode=listener")) {
        return address.to_owned();
    }
    let loopback = Ipv4Addr::LOCALHOST.to_string();
    let host = if host.is_empty() { &loopback } else { host };
    let at = if user.is_empty() { "" } else { "@" };
    let ip: Option<IpAddr> = host.trim_matches(['[', ']']).parse().ok();
    let is_open = ip.is_some_and(|ip| ip.is_multicast() || ip.is_unspecified());
    let local = match is_udp && !is_open && !tail.contains("localaddr=") {
        true => {
            let (separator, host) =
                (if tail.contains('?') { '&' } else { '?' }, host.trim_matches(['[', ']']));
            format!("{separator}localaddr={host}")
        }
        false => String::new(),
    };
    format!("{scheme}://{user}{at}{host}{port}{tail}{local}")
}

/// The host that FFmpeg looks up for an address; `None` for files, for an address that names none, and where HTTP's proxy
/// looks it up.
pub(crate) fn host(address: &str) -> Option<&str> {
    let [scheme, _, host, ..] = parts(address)?;
    let is_of_proxy = matches!(scheme, "http" | "https" | "rtmps") && env::var_os("http_proxy").is_some();
    Some(host.trim_matches(['[', ']'])).filter(|host| !host.is_empty() && !is_of_proxy)
}

/// Scheme, user, host, port with its colon, and the rest of an address.
fn parts(address: &str) -> Option<[&str; 5]> {
    let (scheme, rest) = address.split_once("://")?;
    let (authority, tail) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let (user, place) = authority.rsplit_once('@').unwrap_or(("", authority));
    let (host, port) =
        place.split_at(place.rfind(':').filter(|_| !place.ends_with(']')).unwrap_or(place.len()));
    Some([scheme, user, host, port, tail])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_of_an_address_is_what_is_looked_up() {
        for (address, expected) in [
            ("rtmp://user:pw@live.example.com:1935/live/key", Some("live.example.com")),
            ("srt://example.com?mode=caller", Some("example.com")),
            ("rtp://[::1]:5000", Some("::1")),
            ("srt://:9000?mode=listener", None),
            ("lavfi:testsrc2=s=96x64", None),
            ("video.mkv", None),
        ] {
            assert_eq!(host(address), expected, "{address}");
        }
    }

    #[test]
    fn only_this_machine_is_listened_to_unless_asked() {
        for (address, listen, opened) in [
            ("udp://:5000", false, "udp://127.0.0.1:5000?localaddr=127.0.0.1"),
            ("udp://@:5000?timeout=1", false, "udp://127.0.0.1:5000?timeout=1&localaddr=127.0.0.1"),
            ("udp://127.0.0.1:5000", false, "udp://127.0.0.1:5000?localaddr=127.0.0.1"),
            ("udp://localhost:5000", false, "udp://localhost:5000?localaddr=localhost"),
            ("rtp://[::1]:5000", false, "rtp://[::1]:5000?localaddr=::1"),
            ("udp://0.0.0.0:5000", false, "udp://0.0.0.0:5000"),
            ("udp://239.0.0.1:5000", false, "udp://239.0.0.1:5000"),
            ("udp://10.0.0.1:5000?localaddr=10.0.0.2", false, "udp://10.0.0.1:5000?localaddr=10.0.0.2"),
            ("srt://:9000?mode=listener", false, "srt://127.0.0.1:9000?mode=listener"),
            ("srt://0.0.0.0:9000?mode=listener", false, "srt://0.0.0.0:9000?mode=listener"),
            ("srt://example.com:9000", false, "srt://example.com:9000"),
            ("rtmp://:1935/live/key", true, "rtmp://127.0.0.1:1935/live/key"),
            ("rtmp://user:pw@host/live/key", false, "rtmp://user:pw@host/live/key"),
            ("video.mkv", false, "video.mkv"),
        ] {
            assert_eq!(bound(address, listen), opened);
        }
    }
}

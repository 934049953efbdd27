//! Addresses of streams: as they are logged, without secrets, and as they are opened, bound to the local interface.

use std::env;
use std::ffi::OsStr;
use std::net::{IpAddr, Ipv4Addr};

/// An address as it may be logged: without passwords, stream keys and passphrases.
pub fn redacted(address: impl AsRef<OsStr>) -> String {
    let address = address.as_ref().to_string_lossy();
    let Some((scheme, rest)) = address.split_once("://") else { return address.into_owned() };
    let rest = rest.split(['?', '#']).next().expect("there is a first part");
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    // The last part of an RTMP address is the key to publish with.
    let path = match path.rsplit_once('/').filter(|_| scheme.starts_with("rtmp")) {
        Some((app, key)) if !app.is_empty() && !key.is_empty() => format!("{app}/***"),
        _ => path.to_owned(),
    };
    format!("{scheme}://{host}{path}")
}

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

    #[test]
    fn no_secret_of_an_address_is_logged() {
        for (address, logged) in [
            ("rtmp://live.example.com/app/s3cret", "rtmp://live.example.com/app/***"),
            ("rtmp://user:pw@host:1935/app/s3cret?token=1", "rtmp://host:1935/app/***"),
            ("srt://host:9000?passphrase=s3cret&streamid=x", "srt://host:9000"),
            ("rtsp://user:s3cret@camera/stream1", "rtsp://camera/stream1"),
            ("https://cdn/live.m3u8?key=s3cret#s3cret", "https://cdn/live.m3u8"),
            ("udp://239.0.0.1:5000", "udp://239.0.0.1:5000"),
            ("out/live.m3u8", "out/live.m3u8"),
        ] {
            assert_eq!(redacted(address), logged);
        }
    }
}

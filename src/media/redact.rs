//! Redaction: addresses as they may be logged, alone and in the lines of others.

use std::ffi::OsStr;

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

/// A text in which every address is as it may be logged. An address ends at white space, a quotation mark or a bracket.
pub fn redacted_text(text: &str) -> String {
    let is_scheme = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
    let mut rest = text;
    let mut line = String::with_capacity(text.len());
    while let Some(at) = rest.find("://") {
        let start = rest[..at].rfind(|c| !is_scheme(c)).map_or(0, |before| {
            before + rest[before..].chars().next().expect("a character is there").len_utf8()
        });
        let is_end = |c: char| c.is_whitespace() || "'\"`<>(){}|".contains(c);
        let end = rest[at..].find(is_end).map_or(rest.len(), |length| at + length);
        line.push_str(&rest[..start]);
        line.push_str(&redacted(&rest[start..end]));
        rest = &rest[end..];
    }
    line + rest
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn no_secret_of_a_line_is_logged() {
        for (line, logged) in [
            (
                "[hls @ 0x5] Opening 'http://u:s3cret@h/a.ts?k=s3cret' for reading",
                "[hls @ 0x5] Opening 'http://h/a.ts' for reading",
            ),
            ("http://u:s3cret@[::1]:80/a b", "http://[::1]:80/a b"),
            ("à rtmp://h/app/s3cret → srt://h:1?passphrase=s3cret", "à rtmp://h/app/*** → srt://h:1"),
            ("concat:http://u:s3cret@h/a|http://u:s3cret@h/b", "concat:http://h/a|http://h/b"),
            ("error: '://' and ://u:s3cret@h", "error: '://' and ://h"),
            ("a line", "a line"),
            ("", ""),
        ] {
            assert_eq!(redacted_text(line), logged);
        }
    }
}

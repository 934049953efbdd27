//! Access: what an input may open. A file opens nothing but itself, and an address no file; a list of other files, such as
//! a playlist, is followed where its own name or the user says that it is one.
//!
//! Three lists of FFmpeg's hold this: the protocols of the input itself, those of nested files, and the demuxers. That of
//! nested files is empty for all other inputs, so that demuxers which are not known here open nothing either.

use std::ffi::CStr;

use ffmpeg_next::ffi;

use crate::error::{Error, ErrorKind};
use crate::media::ffmpeg_log::{self, Refusal};

/// Which inputs may be lists of other files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Playlists {
    /// Those whose extension is that of such a list.
    #[default]
    ByName,
    /// All inputs.
    Always,
}

/// A demuxer that opens the files that its input names.
struct List {
    demuxer: &'static str,
    extensions: &'static [&'static str],
    /// Protocols that it may open in a local file; at an address they are those of the address.
    protocols: &'static str,
}

const FILES: &str = "file,crypto,data";

/// All such demuxers. AviSynth's and VapourSynth's run their input as a program.
const LISTS: [List; 9] = [
    List { demuxer: "hls", extensions: &["m3u8", "m3u"], protocols: FILES },
    List { demuxer: "dash", extensions: &["mpd"], protocols: FILES },
    List { demuxer: "concat", extensions: &["ffconcat"], protocols: FILES },
    List { demuxer: "imf", extensions: &["xml"], protocols: FILES },
    List { demuxer: "vobsub", extensions: &["idx"], protocols: FILES },
    List { demuxer: "mlv", extensions: &["mlv"], protocols: FILES },
    List { demuxer: "sdp", extensions: &["sdp"], protocols: "rtp,srtp,udp" },
    List { demuxer: "avisynth", extensions: &["avs"], protocols: FILES },
    List { demuxer: "vapoursynth", extensions: &["vpy"], protocols: FILES },
];

/// Protocols of web servers, which redirect to one another.
const WEB: &str = "http,https,httpproxy,tls,tcp";
/// Protocols of all other addresses.
const NETWORK: &str = "rtmp,rtmps,rtmpt,rtmpts,rtmpe,rtmpte,ffrtmphttp,ffrtmpcrypt,rtp,srtp,srt,rist,sctp,udp,udplite,\
    tcp,tls,http,https,httpproxy,ftp,sftp,gopher,gophers,mmsh,mmst,ipfs,ipns,amqp,zmq";
/// Protocols that read local files in another way, which a user has named.
const LOCAL: &str = "file,concat,concatf,subfile,crypto,data,bluray,pipe,fd,unix";
/// Demuxers that open an address themselves.
const SESSIONS: [&str; 4] = ["rtsp", "rtp", "sap", "sdp"];

/// What one input may open, as FFmpeg's lists.
pub(crate) struct Access {
    /// Protocols of the input itself.
    pub protocols: String,
    /// Protocols of nested files; none if it is empty.
    pub nested_protocols: String,
    pub demuxers: String,
}

impl Access {
    /// What a file or an address may open.
    pub fn of(source: &str, playlists: Playlists) -> Access {
        let scheme = scheme_of(source).filter(|&scheme| scheme != "file");
        let is_session = matches!(scheme, Some("rtsp" | "rtsps" | "rtp" | "sap"));
        let extension = extension_of(source);
        let lists: Vec<&List> = LISTS
            .iter()
            .filter(|list| playlists == Playlists::Always || list.extensions.contains(&&*extension))
            .collect();
        let nested_protocols = match scheme {
            _ if lists.is_empty() && !is_session => String::new(),
            None => lists.iter().map(|list| list.protocols).collect::<Vec<_>>().join(","),
            Some("http" | "https") => format!("{WEB},crypto,data"),
            Some(_) => NETWORK.to_owned(),
        };
        let may_read = |demuxer: &ffi::AVInputFormat, name: &str| {
            let is_list = LISTS.iter().any(|list| list.demuxer == name);
            let opens_itself = demuxer.flags & ffi::AVFMT_NOFILE != 0 && name != "image2";
            (!is_list && !opens_itself)
                || lists.iter().any(|list| list.demuxer == name)
                || (is_session && SESSIONS.contains(&name))
        };
        Access { protocols: protocols_of(source), nested_protocols, demuxers: demuxers(may_read) }
    }

    /// What a pipe may open, which has no name: nothing else.
    pub fn of_pipe() -> Access {
        Access { protocols: String::new(), ..Access::of("", Playlists::ByName) }
    }
}

/// Whether a source is read over a network.
pub fn is_network(source: &str) -> bool {
    let protocols = protocols_of(source);
    protocols.ends_with(NETWORK) || protocols.ends_with(WEB)
}

/// FFmpeg's names of the demuxers for which `may_read` is true, as its list.
fn demuxers(may_read: impl Fn(&ffi::AVInputFormat, &str) -> bool) -> String {
    let (mut state, mut names) = (std::ptr::null_mut(), Vec::new());
    // SAFETY: `state` is the iterator's own and starts as null; demuxers and their names are static.
    while let Some(demuxer) = unsafe { ffi::av_demuxer_iterate(&mut state).as_ref() } {
        // SAFETY: as above.
        let name = unsafe { CStr::from_ptr(demuxer.name) }.to_str().expect("demuxer names are ASCII");
        if may_read(demuxer, name) {
            names.push(name);
        }
    }
    names.join(",")
}

/// The protocols that open a source.
fn protocols_of(source: &str) -> String {
    match scheme_of(source) {
        None | Some("file") => "file".to_owned(),
        Some("http" | "https") => WEB.to_owned(),
        Some(scheme @ ("async" | "cache")) => {
            format!("{scheme},{}", protocols_of(&source[scheme.len() + 1..]))
        }
        Some(scheme) if LOCAL.split(',').any(|local| local == scheme) => LOCAL.to_owned(),
        Some(_) => NETWORK.to_owned(),
    }
}

/// The scheme that FFmpeg finds in a source; `None` for a file.
fn scheme_of(source: &str) -> Option<&str> {
    let is_of_scheme = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
    let (scheme, rest) = source.split_at(source.find(|c| !is_of_scheme(c))?);
    (rest.starts_with(':') || scheme == "subfile").then_some(scheme).filter(|scheme| !scheme.is_empty())
}

/// The extension of a file's name, or of an address's path, in lower case.
fn extension_of(source: &str) -> String {
    let path = if is_network(source) { source.split(['?', '#']).next().unwrap_or_default() } else { source };
    let name = path.rsplit('/').next().unwrap_or_default();
    name.rsplit_once('.').map_or(String::new(), |(_, extension)| extension.to_ascii_lowercase())
}

/// The error of what this thread was refused since the last call.
pub(crate) fn refusal(name: &str) -> Option<Error> {
    let error = match ffmpeg_log::take_refusal()? {
        Refusal::Demuxer(demuxer) => {
            let problem =
                format!("lists other files (FFmpeg's demuxer {demuxer}), which its extension does not say");
            let extension = LISTS.iter().find(|list| list.demuxer == demuxer).map(|list| list.extensions[0]);
            let rename = extension.map_or(String::new(), |extension| format!("name it .{extension}, or "));
            Error::new(name, problem, format!("{rename}give --allow-playlist if you trust it"))
        }
        Refusal::Protocol(protocol) => {
            let problem = format!("names what only the protocol {protocol} opens, which it may not use");
            Error::new(name, problem, "download the files that it names, and name those in it")
        }
    };
    Some(error.with_kind(ErrorKind::Unsupported))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_opens_only_what_its_name_says() {
        crate::media::ffmpeg::start();
        let has = |list: &str, name: &str| list.split(',').any(|entry| entry == name);
        for (source, protocols, nested, list) in [
            ("a.mp4", "file", "", None),
            ("a", "file", "", None),
            ("m3u8", "file", "", None),
            ("a.m3u8/b.mp4", "file", "", None),
            ("a.M3U8", "file", FILES, Some("hls")),
            ("file:a.mpd", "file", FILES, Some("dash")),
            ("./a:b.ffconcat", "file", FILES, Some("concat")),
            ("a.sdp", "file", "rtp,srtp,udp", Some("sdp")),
            ("http://host/a.mp4?b=.m3u8", WEB, "", None),
            ("https://host/a.m3u8?b=.mp4", WEB, &format!("{WEB},crypto,data"), Some("hls")),
            ("srt://host:1", NETWORK, "", None),
            ("rtsp://host/a", NETWORK, NETWORK, Some("rtsp")),
            ("cache:http://host/a.mp4", &format!("cache,{WEB}"), "", None),
            ("concat:a.ts|b.ts", LOCAL, "", None),
            ("subfile,,start,0,end,9,,:a.ts", LOCAL, "", None),
        ] {
            let access = Access::of(source, Playlists::ByName);
            assert_eq!((&*access.protocols, &*access.nested_protocols), (protocols, nested), "{source}");
            for name in LISTS.iter().map(|list| list.demuxer).chain(["rtsp", "lavfi"]) {
                let is_allowed = list == Some(name) || (list == Some("rtsp") && name == "sdp");
                assert!(!has(&access.demuxers, name) || is_allowed, "{source}: {name}");
            }
            for name in list.into_iter().chain(["mov", "image2", "mpegts", "yuv4mpegpipe"]) {
                assert!(has(&access.demuxers, name), "{source}: {name}");
            }
        }
        let any = Access::of("a.mp4", Playlists::Always);
        assert!(
            has(&any.demuxers, "hls") && !has(&any.demuxers, "lavfi") && !has(&any.nested_protocols, "http")
        );
    }
}

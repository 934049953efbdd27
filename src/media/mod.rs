//! All that touches FFmpeg: demux, decode, encode, mux, and frames borrowed as frames.
//!
//! In: names of files and options. Out: [`Frame`](crate::frame::Frame)s and packets. It knows
//! nothing of networks and engines, and starts no threads of its own: the pipeline drives it.

mod av_frame;
mod convert;
mod damage;
mod decode;
mod encode;
mod exr;
mod ffmpeg_log;
mod filter;
mod format;
mod input;
mod interlace;
mod jpeg;
mod live;
mod live_output;
mod matroska;
mod mpegts;
mod mux;
mod open;
mod output;
mod packet_queue;
mod probe;
mod quicktime;
mod reader;
mod segment;
mod sequence;
mod side;
mod silence;
mod still;
mod streams;
mod target;
mod timeline;
mod timestamps;
mod transcode;
mod verify;

use std::ffi::{CStr, CString};

use ffmpeg_next::{self as ffmpeg, Rescale, ffi};

use crate::frame::TimeBase;

pub use av_frame::FramePool;
pub use damage::{Damage, DamagedPlace};
pub use decode::{Begin, DecodeSpec, Decoder, Trim};
pub use encode::Encoder;
pub use filter::{Deinterlace, FilterSpec};
pub use format::{format_by_name, transfer_by_name};
pub use input::{Input, VideoInfo};
pub use jpeg::jpeg;
pub use live::{Watch, redacted};
pub use live_output::{LiveAudio, LiveOutput, LiveStreams};
pub use mux::Muxer;
pub use output::Output;
pub use packet_queue::CopyQueue;
pub use probe::{has_video_extension, is_video_file};
pub use reader::FrameReader;
pub use segment::{Cut, CutState, Record, SegmentReader, SegmentWriter};
pub use sequence::{Numbering, Pattern};
pub use silence::Silence;
pub use still::StillWriter;
pub use streams::{AudioMode, Plan};
pub use target::{EncoderSpec, Target};
pub use transcode::Transcoders;
pub use verify::{Found, Verification};

/// Frames from one cut to the next. Encoders are closed and opened again at cuts, which depend on the
/// input alone: a run that goes on after a crash then writes the same packets as an undisturbed one.
pub const SEGMENT_FRAMES: u64 = 240;

const MICROSECONDS: ffmpeg::Rational = ffmpeg::Rational(1, 1_000_000);

/// A packet on its way to the muxer.
pub struct Packet {
    packet: ffmpeg::Packet,
    /// Index among the input's streams, which says where it goes in the output.
    stream: usize,
    time_base: ffmpeg::Rational,
    /// Of the frame that was coded; 0 of what is copied.
    index: u64,
}

impl Packet {
    /// Bytes of payload.
    pub fn size(&self) -> usize {
        self.packet.size()
    }

    /// Of the frame that was coded, in the sequence it goes into.
    pub fn number(&self, numbering: Numbering) -> u64 {
        numbering.number(self.index, self.packet.pts().unwrap_or_default())
    }

    /// Where the frame that was coded ends, in seconds of its source's clock.
    pub fn end_s(&self) -> f64 {
        let end = self.packet.pts().unwrap_or_default().saturating_add(self.packet.duration());
        TimeBase::from(self.time_base).seconds(end)
    }

    /// When it is to be decoded, in microseconds; before everything where nobody knows.
    pub fn dts_us(&self) -> i64 {
        let dts = self.packet.dts().or(self.packet.pts());
        dts.map_or(i64::MIN, |dts| dts.rescale(self.time_base, ffmpeg::Rational(1, 1_000_000)))
    }

    /// Whether this packet is to be written before `other`.
    pub fn precedes(&self, other: &Packet) -> bool {
        let (mine, theirs) = (self.packet.dts().unwrap_or(i64::MIN), other.packet.dts().unwrap_or(i64::MIN));
        // SAFETY: av_compare_ts computes with its arguments only.
        unsafe { ffi::av_compare_ts(mine, self.time_base.into(), theirs, other.time_base.into()) < 0 }
    }
}

/// Prepares FFmpeg; its own log lines are shown from `verbosity` 1 (warnings) or 2 (all) on.
pub fn init(verbosity: u8) {
    ffmpeg::init().expect("FFmpeg's registration never fails");
    ffmpeg_log::listen();
    ffmpeg::log::set_level(match verbosity {
        0 => ffmpeg::log::Level::Quiet,
        1 => ffmpeg::log::Level::Warning,
        _ => ffmpeg::log::Level::Verbose,
    });
}

/// What FFmpeg is linked.
pub struct FfmpegInfo {
    /// Of the libraries, e.g. `5.1.9-0+deb12u1`.
    pub version: String,
    /// Of this build of it.
    pub license: &'static str,
    /// Names of its video encoders.
    pub video_encoders: Vec<String>,
}

/// What FFmpeg is linked and what it can encode.
pub fn info() -> FfmpegInfo {
    let mut video_encoders = Vec::new();
    let mut state = std::ptr::null_mut();
    loop {
        // SAFETY: `state` is the iterator's own and starts as null; the codecs it gives are static.
        let codec = unsafe { ffi::av_codec_iterate(&mut state).as_ref() };
        let Some(codec) = codec else { break };
        // SAFETY: `codec` is a static AVCodec.
        let encodes = unsafe { ffi::av_codec_is_encoder(codec) } != 0;
        if encodes && codec.type_ == ffi::AVMediaType::AVMEDIA_TYPE_VIDEO {
            // SAFETY: names of codecs are static C strings.
            video_encoders.push(unsafe { CStr::from_ptr(codec.name) }.to_string_lossy().into_owned());
        }
    }
    // SAFETY: av_version_info gives a static C string.
    let version = unsafe { CStr::from_ptr(ffi::av_version_info()) }.to_string_lossy().into_owned();
    FfmpegInfo { version, license: ffmpeg::format::license(), video_encoders }
}

/// A C string of what a user typed, which holds no NUL: arguments of a process cannot.
fn c_string(text: &str) -> CString {
    CString::new(text).expect("no NUL in an argument")
}

/// What describes the stream that an open encoder makes.
fn parameters_of(context: &ffmpeg::codec::Context) -> ffmpeg::codec::Parameters {
    let mut parameters = ffmpeg::codec::Parameters::new();
    // SAFETY: both are alive.
    let code = unsafe { ffi::avcodec_parameters_from_context(parameters.as_mut_ptr(), context.as_ptr()) };
    check(code).expect("no memory for parameters");
    parameters
}

/// FFmpeg's return value as a result.
fn check(code: i32) -> Result<i32, ffmpeg::Error> {
    if code < 0 { Err(ffmpeg::Error::from(code)) } else { Ok(code) }
}

fn is_again(error: ffmpeg::Error) -> bool {
    error == ffmpeg::Error::Other { errno: ffmpeg::error::EAGAIN }
}

impl From<ffmpeg::Rational> for TimeBase {
    fn from(value: ffmpeg::Rational) -> TimeBase {
        TimeBase { num: value.numerator(), den: value.denominator() }
    }
}

impl From<TimeBase> for ffmpeg::Rational {
    fn from(value: TimeBase) -> ffmpeg::Rational {
        ffmpeg::Rational::new(value.num, value.den)
    }
}

//! All that touches FFmpeg: demux, decode, encode and mux.
//!
//! In: names of files and options. Out: [`Frame`](crate::frame::Frame)s and packets. It knows nothing of networks and
//! engines and starts no threads of its own: the pipeline drives it.
//!
//! Imports point one way: what is shared ← demux ← decode ← encode ← mux.

mod av_frame;
mod color_tags;
mod container;
mod damage;
mod decode;
mod demux;
mod encode;
mod ffmpeg;
mod ffmpeg_log;
mod format;
mod losses;
mod mux;
mod output;
mod packet;
mod packet_queue;
mod path;
mod pattern;
mod pipe;
mod redact;
mod segment;
mod side_data;
mod stream;
mod trial;
mod vmaf;
mod watch;

pub use av_frame::FramePool;
pub use damage::{Damage, DamagedPlace};
pub use decode::decoder::{DecodeSpec, Decoder, SeekPoint};
pub use decode::filter::{Deinterlace, FilterSpec};
pub(crate) use decode::open::stated_transfer;
pub use decode::reader::FrameReader;
pub use demux::access::{Playlists, is_network};
pub(crate) use demux::input::AV_LAG_US_MAX;
pub use demux::input::Input;
pub use demux::probe::{has_video_extension, is_video_file};
pub(crate) use demux::resolve::resolve;
pub use demux::tally::StreamTallies;
pub use encode::encoder::Encoder;
pub use encode::jpeg::jpeg;
pub(crate) use encode::list::video_encoders;
pub(crate) use encode::options::parse_bit_rate;
pub use encode::still::StillWriter;
pub use encode::target::{EncoderSpec, Target};
pub(crate) use ffmpeg::CHECK_DEVICE;
pub(crate) use ffmpeg::has_filter;
pub use ffmpeg::{info, init, start};
pub use format::{format_by_name, transfer_by_name};
pub use mux::live::{LiveAudio, LiveStreams};
pub use mux::live_output::LiveOutput;
pub use mux::muxer::Muxer;
pub(crate) use mux::planned::PlannedStream;
pub use mux::silence::Silence;
pub use mux::streams::{AudioMode, Plan};
pub use mux::summary::VerifiedStream;
pub use mux::transcode::Transcoders;
pub use mux::verify::Verification;
pub use output::Output;
pub use packet::Packet;
pub use packet_queue::PacketQueue;
pub(crate) use path::{Place, folder_of, is_taken, same_file, sync_folder, through_links};
pub use pattern::{Numbering, Pattern};
pub use redact::redacted;
pub(crate) use redact::redacted_text;
pub use segment::{Cut, CutState, Record, SEGMENT_FRAMES, SegmentReader, SegmentSource, SegmentWriter};
pub use stream::{Trim, VideoInfo};
pub(crate) use vmaf::Vmaf;
pub use watch::Watch;

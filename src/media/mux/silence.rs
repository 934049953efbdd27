//! Silence in the codec of an audio stream, which is sent while the source gives no audio.
//!
//! In: a stream's parameters. Out: one packet, which can be repeated: silence depends on no packet before it.

use ffmpeg_next::ffi;
use ffmpeg_next::frame::Audio as AvFrame;
use ffmpeg_next::{self as ffmpeg, codec};

use crate::media::ffmpeg::{MICROSECONDS, check};
use crate::media::mux::channel_layout::ChannelLayout;
use crate::media::packet::Packet;

/// A packet of silence.
pub struct Silence {
    packet: ffmpeg::Packet,
    duration_us: i64,
}

/// Number of packets after which an encoder has no priming samples left.
const PRIMING_PACKETS: usize = 8;

impl Silence {
    /// Encodes silence for a stream; returns `None` where this FFmpeg has no encoder for its codec.
    pub(crate) fn like(parameters: &codec::Parameters) -> Option<Silence> {
        // SAFETY: the parameters are alive.
        let (rate, layout, profile, has_header) = unsafe {
            let raw = &*parameters.as_ptr();
            (raw.sample_rate, ChannelLayout::of(&raw.ch_layout), raw.profile, raw.extradata_size > 0)
        };
        let is_aac = parameters.id() == codec::Id::AAC;
        // HE-AAC's core runs at another rate.
        if is_aac && !matches!(profile, ffi::FF_PROFILE_AAC_LOW | ffi::FF_PROFILE_UNKNOWN) {
            return None;
        }
        let (packet, samples) = encode(parameters.id(), rate, &layout).ok()?;
        let packet = match is_aac && !has_header {
            true => ffmpeg::Packet::copy(&with_adts(packet.data()?, rate, layout.channels())?),
            false => packet,
        };
        Some(Silence { packet, duration_us: samples * 1_000_000 / i64::from(rate) })
    }

    /// Duration of the packet in microseconds.
    pub fn duration_us(&self) -> i64 {
        self.duration_us
    }

    /// Returns the packet with this timestamp.
    pub fn at_us(&self, us: i64) -> Packet {
        let mut packet = self.packet.clone();
        packet.set_pts(Some(us));
        packet.set_dts(Some(us));
        packet.set_duration(self.duration_us);
        packet.set_flags(ffmpeg::packet::Flags::KEY);
        Packet { packet, stream: 0, time_base: MICROSECONDS, index: 0 }
    }
}

/// Encodes a silent stream. Returns its last packet and the number of samples in it.
fn encode(id: codec::Id, rate: i32, layout: &ChannelLayout) -> Result<(ffmpeg::Packet, i64), ffmpeg::Error> {
    let codec = ffmpeg::encoder::find(id).and_then(|codec| codec.audio().ok());
    let codec = codec.ok_or(ffmpeg::Error::EncoderNotFound)?;
    let format = codec.formats().and_then(|mut formats| formats.next()).ok_or(ffmpeg::Error::InvalidData)?;
    let mut context = codec::Context::new_with_codec(*codec);
    context.compliance(codec::Compliance::Experimental);
    context.set_flags(codec::Flags::GLOBAL_HEADER);
    let mut context = context.encoder().audio()?;
    context.set_rate(rate);
    context.set_format(format);
    context.set_time_base(ffmpeg::Rational(1, rate));
    // SAFETY: the context is alive and not opened yet.
    layout.write_to(unsafe { &mut (*context.as_mut_ptr()).ch_layout });
    let mut encoder = context.open_as(*codec)?;
    let samples = encoder.frame_size() as usize;
    let mut last = ffmpeg::Packet::empty();
    for number in 0..PRIMING_PACKETS {
        let mut av_frame = AvFrame::empty();
        av_frame.set_format(format);
        av_frame.set_samples(samples);
        av_frame.set_rate(rate as u32);
        av_frame.set_pts(Some((number * samples) as i64));
        // SAFETY: the frame is owned, and gets room for `samples` of this format and layout.
        unsafe {
            let raw = &mut *av_frame.as_mut_ptr();
            layout.write_to(&mut raw.ch_layout);
            check(ffi::av_frame_get_buffer(raw, 0))?;
            let (data, count) = (raw.extended_data, samples as i32);
            check(ffi::av_samples_set_silence(data, 0, count, layout.channels(), format.into()))?;
        }
        encoder.send_frame(&av_frame)?;
        let mut packet = ffmpeg::Packet::empty();
        while encoder.receive_packet(&mut packet).is_ok() {
            last = packet.clone();
        }
    }
    if last.size() == 0 { Err(ffmpeg::Error::InvalidData) } else { Ok((last, samples as i64)) }
}

/// Adds the ADTS header with which transport streams carry each AAC packet (ISO 13818-7, 6.2).
fn with_adts(packet: &[u8], rate: i32, channels: i32) -> Option<Vec<u8>> {
    const RATES: [i32; 13] = [
        96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000, 7_350,
    ];
    const LOW_COMPLEXITY: usize = 1;
    let (rate, channels) = (RATES.iter().position(|&known| known == rate)?, channels as usize);
    let len = packet.len() + 7;
    let header = [
        0xff,
        0xf1,
        LOW_COMPLEXITY << 6 | rate << 2 | channels >> 2,
        (channels & 3) << 6 | len >> 11,
        len >> 3 & 0xff,
        (len & 7) << 5 | 0x1f,
        0xfc,
    ];
    Some(header.into_iter().map(|byte| byte as u8).chain(packet.iter().copied()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usual_codecs_encode_silence() {
        ffmpeg::init().unwrap();
        for (id, rate, samples) in [
            (codec::Id::AAC, 48_000, 1024),
            (codec::Id::MP2, 44_100, 1152),
            (codec::Id::AC3, 48_000, 1536),
            (codec::Id::OPUS, 48_000, 960),
        ] {
            let stereo = ChannelLayout::usual(2);
            let (packet, length) = encode(id, rate, &stereo).unwrap_or_else(|e| panic!("{id:?}: {e}"));
            assert_eq!(length, samples, "{id:?}");
            assert!(packet.size() > 0, "{id:?}");
        }
    }

    #[test]
    fn adts_headers_hold_the_length_of_the_packet() {
        let packet = with_adts(&[7; 300], 44_100, 2).unwrap();
        assert_eq!(packet[..4], [0xff, 0xf1, 0x50, 0x80]);
        let len =
            (usize::from(packet[3]) & 3) << 11 | usize::from(packet[4]) << 3 | usize::from(packet[5]) >> 5;
        assert_eq!((len, packet.len()), (307, 307));
        assert_eq!(with_adts(&[7; 3], 47_999, 2), None);
    }
}

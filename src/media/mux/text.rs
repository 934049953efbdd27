//! Text that is converted: subtitles and captions, decoded and encoded; and what a cut makes of text.

use ffmpeg_next::ffi;
use ffmpeg_next::packet::Mut;
use ffmpeg_next::{self as ffmpeg, Rational, Rescale, Rounding, codec};

use crate::media::decode::open::decoder_of;
use crate::media::ffmpeg::{MICROSECONDS, check};
use crate::media::stream::Trim;

type Outcome = std::result::Result<(), ffmpeg::Error>;

/// Decoder and encoder of a stream of text.
pub(super) struct TextTranscoder {
    decoder: codec::decoder::Subtitle,
    pub(super) encoder: codec::Context,
    /// A text that is shown until the next one, or the erasure of the screen, arrives.
    open_ended: Option<ffmpeg::Packet>,
    /// Room for one encoded subtitle.
    encoded: Vec<u8>,
}

/// Size limit of an encoded subtitle in bytes, as in FFmpeg's command.
const TEXT_BYTES_MAX: usize = 1 << 20;

impl TextTranscoder {
    pub(super) fn open(
        stream: &ffmpeg::Stream,
        encoder: ffmpeg::Codec,
    ) -> std::result::Result<TextTranscoder, ffmpeg::Error> {
        let mut options = ffmpeg::Dictionary::new();
        if stream.parameters().id() == codec::Id::DVB_TELETEXT {
            // Its decoder draws the text otherwise.
            options.set("txt_format", "text");
        }
        let codec = ffmpeg::decoder::find(stream.parameters().id()).ok_or(ffmpeg::Error::DecoderNotFound)?;
        let decoder =
            decoder_of(stream.parameters(), stream.time_base())?.open_as_with(codec, options)?.subtitle()?;
        let mut context = codec::Context::new_with_codec(encoder);
        context.set_time_base(MICROSECONDS);
        // SAFETY: both contexts are ours; the copy of the header is one zero byte longer, and the encoder's context,
        // which takes it over, frees it.
        unsafe {
            let (from, to) = (&*decoder.as_ptr(), &mut *context.as_mut_ptr());
            if !from.subtitle_header.is_null() {
                let size = from.subtitle_header_size as usize;
                let copy = ffi::av_mallocz(size + 1).cast::<u8>();
                assert!(!copy.is_null(), "no memory for a header");
                copy.copy_from_nonoverlapping(from.subtitle_header, size);
                (to.subtitle_header, to.subtitle_header_size) = (copy, size as i32);
            }
            check(ffi::avcodec_open2(to, encoder.as_ptr(), std::ptr::null_mut()))?;
        }
        Ok(TextTranscoder { decoder, encoder: context, open_ended: None, encoded: vec![0; TEXT_BYTES_MAX] })
    }

    pub(super) fn take(&mut self, packet: Option<ffmpeg::Packet>, out: &mut Vec<ffmpeg::Packet>) -> Outcome {
        if let Some(packet) = packet {
            return self.decode(packet, out).map(drop);
        }
        // Each empty packet fetches one text that the decoder holds back. That of captions gives its last one every time.
        let flushes = if self.decoder.id() == codec::Id::EIA_608 { 1 } else { usize::MAX };
        for _ in 0..flushes {
            if !self.decode(ffmpeg::Packet::empty(), out)? {
                break;
            }
        }
        out.extend(self.open_ended.take());
        Ok(())
    }

    /// Decodes a packet. Returns whether it gave a text, or erased the one before.
    fn decode(
        &mut self,
        mut packet: ffmpeg::Packet,
        out: &mut Vec<ffmpeg::Packet>,
    ) -> std::result::Result<bool, ffmpeg::Error> {
        // SAFETY: a subtitle of zeros is empty; the decoder fills it.
        let (mut subtitle, mut got_subtitle) = (Subtitle(unsafe { std::mem::zeroed() }), 0);
        // SAFETY: the decoder is alive, and so it stays.
        let decoder = unsafe { self.decoder.as_mut_ptr() };
        let raw = &mut subtitle.0;
        // SAFETY: decoder, subtitle and packet are alive.
        check(unsafe {
            ffi::avcodec_decode_subtitle2(decoder, raw, &mut got_subtitle, packet.as_mut_ptr())
        })?;
        if got_subtitle == 0 {
            return Ok(false);
        }
        // Decoders that hold texts back say when each was meant to be shown.
        let pts_us = raw.pts.saturating_add(i64::from(raw.start_display_time) * 1000);
        if raw.pts == ffi::AV_NOPTS_VALUE {
            return Err(ffmpeg::Error::InvalidData);
        }
        if let Some(mut before) = self.open_ended.take() {
            before.set_duration(pts_us.saturating_sub(before.pts().unwrap_or(pts_us)).max(0));
            out.push(before);
        }
        if raw.num_rects == 0 {
            return Ok(true);
        }
        raw.end_display_time = raw.end_display_time.saturating_sub(raw.start_display_time);
        raw.start_display_time = 0;
        let ends = !matches!(raw.end_display_time, 0 | u32::MAX);
        let (buffer, len) = (self.encoded.as_mut_ptr(), self.encoded.len() as i32);
        // SAFETY: encoder and subtitle are alive, and `len` is the buffer's length.
        let size =
            check(unsafe { ffi::avcodec_encode_subtitle(self.encoder.as_mut_ptr(), buffer, len, raw) })?;
        let mut converted = ffmpeg::Packet::copy(&self.encoded[..size as usize]);
        converted.set_pts(Some(pts_us));
        converted.set_dts(Some(pts_us));
        converted.set_flags(ffmpeg::packet::Flags::KEY);
        if ends {
            converted.set_duration(i64::from(raw.end_display_time) * 1000);
            out.push(converted);
        } else {
            self.open_ended = Some(converted);
        }
        Ok(true)
    }
}

/// A decoded subtitle, which is freed.
struct Subtitle(ffi::AVSubtitle);

impl Drop for Subtitle {
    fn drop(&mut self) {
        // SAFETY: it is empty, or a decoder filled it.
        unsafe { ffi::avsubtitle_free(&mut self.0) };
    }
}

/// Shortens a text that begins before the written part, or ends after it, to what lies in the part.
/// Packets are ordered by their dts afterwards.
pub(super) fn clip_text(packet: &mut ffmpeg::Packet, time_base: Rational, trim: Trim) {
    let Some(pts) = packet.pts().filter(|_| packet.duration() > 0) else { return };
    let ticks = |us: i64| us.rescale_with(MICROSECONDS, time_base, Rounding::Up);
    let from = if trim.from_us == i64::MIN { pts } else { ticks(trim.from_us) };
    let to = if trim.to_us == i64::MAX { i64::MAX } else { ticks(trim.to_us) };
    let (start, end) = (pts.max(from), pts.saturating_add(packet.duration()).min(to));
    if start < end {
        packet.set_pts(Some(start));
        packet.set_dts(packet.dts().map(|dts| dts.max(start)));
        packet.set_duration(end - start);
    }
}

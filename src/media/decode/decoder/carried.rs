//! What packets and frames carry besides samples: what the decoder applies, what filters make stale, and what is lost.

use ffmpeg_next::frame::Video as AvFrame;
use ffmpeg_next::{self as ffmpeg, codec, ffi};

use crate::color::Primaries;
use crate::error::{Error, ErrorKind, Result};
use crate::media::decode::alpha::divide_by_alpha;
use crate::media::decode::decoder::Decoder;
use crate::media::decode::exr;
use crate::media::ffmpeg::{check, failure};
use crate::media::format::{code_of, primaries_of};
use crate::media::side_data::{
    frame_of, incompatible_dolby_vision, is_dolby_vision_5, lost_of_packet, remove_light, take_chromaticities,
};

/// What does not take what is lost here.
const OUTPUT: &str = "the output";

impl Decoder {
    /// Makes everything that is lost an error.
    pub fn refuse_losses(&mut self) -> Result<()> {
        self.losses.refuse();
        self.losses.check(OUTPUT)
    }

    /// Fails where only a decoder of Dolby Vision knows the colours of the frames, unless a filter is one.
    pub(crate) fn check_base_layer(&self, stream: &ffmpeg::Stream) -> Result<()> {
        let of_frame = || frame_of(&self.first().props).is_some_and(is_dolby_vision_5).then_some(5);
        let Some(profile) = incompatible_dolby_vision(stream).or_else(of_frame) else { return Ok(()) };
        if self.filters.has("libplacebo") {
            return Ok(());
        }
        let problem =
            format!("is Dolby Vision profile {profile}, whose frames have no colours without its metadata");
        let remedy =
            "convert them with --filter libplacebo=apply_dolbyvision=1, which takes FFmpeg 6 and Vulkan";
        Err(Error::new(&self.source, problem, remedy).with_kind(ErrorKind::Unsupported))
    }

    /// Whether filters leave primaries and transfer of the frames as they are.
    pub(crate) fn has_same_light(&self) -> bool {
        self.has_same_light
    }

    /// Notes what a packet carries and its frames will not have.
    pub(super) fn inspect(&mut self, packet: &ffmpeg::Packet) {
        for entry in packet.side_data() {
            if let Some(name) = lost_of_packet(entry.kind().into(), entry.data()) {
                self.losses.note(name, OUTPUT);
            }
        }
        if self.opened.id() == codec::Id::EXR {
            self.chromaticities = exr::chromaticities(packet.data().unwrap_or_default());
        }
    }

    /// Applies what a decoded frame carries for itself, and takes what the filters must not have.
    pub(super) fn before_filters(&mut self, av_frame: &mut AvFrame) -> Result<()> {
        if let Some(sides) = self.cropping {
            crop(av_frame, sides)
                .map_err(|e| failure(&self.source, "cannot be cropped", e, "get a complete copy"))?;
        }
        if matches!(self.opened.id(), codec::Id::PNG | codec::Id::APNG) {
            self.chromaticities = take_chromaticities(av_frame);
        }
        if let Some(chromaticities) = self.chromaticities {
            self.set_primaries(av_frame, &chromaticities);
        }
        if self.filters.changes_time() {
            self.captions.send(av_frame);
        }
        if self.divides_alpha {
            divide_by_alpha(av_frame)
                .map_err(|e| failure(&self.source, "cannot be divided by its alpha", e, "free memory"))?;
        }
        self.decoded_light = light_of(av_frame);
        Ok(())
    }

    fn set_primaries(&mut self, av_frame: &mut AvFrame, chromaticities: &[f64; 8]) {
        // SAFETY: the frame is owned; a plain value is set.
        let tag = unsafe { &mut (*av_frame.as_mut_ptr()).color_primaries };
        if code_of(&raw const *tag) != u32::from(Primaries::UNSPECIFIED.0) {
            return;
        }
        match Primaries::of_chromaticities(chromaticities) {
            Some(primaries) => *tag = primaries_of(primaries),
            None => self.losses.note("non-standard chromaticities", OUTPUT),
        }
    }

    /// Removes from a frame what held for its light before the filters, and returns its captions.
    pub(super) fn after_filters(&mut self, av_frame: &mut AvFrame) -> Result<()> {
        self.has_same_light = light_of(av_frame) == self.decoded_light;
        if !self.has_same_light {
            remove_light(av_frame);
        }
        self.captions.receive(av_frame);
        self.losses.check(OUTPUT)
    }

    /// Notes captions that no frame is left for.
    pub(super) fn after_last(&mut self) -> Result<()> {
        if self.captions.left() > 0 {
            self.losses.note("closed captions of dropped frames", "--filter");
        }
        self.losses.check(OUTPUT)
    }
}

/// Codes of primaries and transfer.
fn light_of(av_frame: &AvFrame) -> [u32; 2] {
    // SAFETY: the frame was filled by the decoder or a filter.
    let raw = unsafe { &*av_frame.as_ptr() };
    [code_of(&raw const raw.color_primaries), code_of(&raw const raw.color_trc)]
}

/// Crops a frame: top, bottom, left, right.
fn crop(av_frame: &mut AvFrame, sides: [u32; 4]) -> std::result::Result<(), ffmpeg::Error> {
    let [top, bottom, left, right] = sides.map(|side| side as usize);
    // SAFETY: the frame is owned; FFmpeg checks that the sides leave something.
    unsafe {
        let raw = av_frame.as_mut_ptr();
        ((*raw).crop_top, (*raw).crop_bottom, (*raw).crop_left, (*raw).crop_right) =
            (top, bottom, left, right);
        check(ffi::av_frame_apply_cropping(raw, ffi::AV_FRAME_CROP_UNALIGNED as i32)).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_cropped() {
        let mut av_frame = AvFrame::new(ffmpeg::format::Pixel::YUV420P, 64, 48);
        let first = av_frame.data(0).as_ptr();
        crop(&mut av_frame, [4, 8, 2, 6]).unwrap();
        assert_eq!((av_frame.width(), av_frame.height()), (56, 36));
        assert_eq!(av_frame.data(0).as_ptr().addr() - first.addr(), 4 * av_frame.stride(0) + 2);
        assert!(crop(&mut av_frame, [36, 0, 0, 0]).is_err());
    }
}

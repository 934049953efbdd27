//! The shape of frames: the aspect ratio of their samples, and black borders where it changes in mid-stream, since the
//! output has one size and one aspect ratio.

use ffmpeg_next::frame::Video as AvFrame;
use ffmpeg_next::{Rational, ffi};

use crate::frame::{FrameFormat, PixelFormat};
use crate::media::format::pixel_of;

/// A smaller difference between two shapes is one of cropping, and gets no borders.
const DIFFERENCE_MIN: f64 = 1.01;
/// A larger one is an error of the stream.
const DIFFERENCE_MAX: f64 = 4.0;

/// The shape of the frames of one source.
pub(crate) struct Shape {
    /// Whether frames may change in shape.
    changes: bool,
    /// Sample aspect ratio by the container, if it states one, and by the start of the bitstream.
    stated: Option<Rational>,
    first: Option<Rational>,
    /// Sample aspect ratio where a frame has none.
    usual: Rational,
    /// Width over height of the first frame as it is shown.
    shown: Option<f64>,
}

impl Shape {
    /// Sample aspect ratios by the container, by the start of the bitstream, and where neither states one.
    pub fn new([stated, first]: [Option<Rational>; 2], usual: Rational) -> Shape {
        Shape { changes: true, stated, first, usual, shown: None }
    }

    /// The shape of the images of a sequence, which are scaled to one size, whichever is decoded first.
    pub fn of_sequence(usual: Rational) -> Shape {
        Shape { changes: false, ..Shape::new([Some(usual), None], usual) }
    }

    /// Sets the sample aspect ratio of a decoded frame: its own, times what the container states for the first.
    pub fn set_aspect(&mut self, av_frame: &mut AvFrame) {
        let own = av_frame.aspect_ratio();
        let own = if own.0 > 0 && own.1 > 0 { own } else { self.usual };
        let first = *self.first.get_or_insert(own);
        let aspect = match self.stated {
            Some(stated) if own == first || !self.changes => stated,
            Some(stated) => stated * own / first,
            None => own,
        };
        // SAFETY: the frame is owned; a plain value is set.
        unsafe { (*av_frame.as_mut_ptr()).sample_aspect_ratio = aspect.into() };
    }

    /// A filtered frame with the borders that give it the shape of the first one. `None` if it needs none, or FFmpeg knows no
    /// black in its format.
    pub fn padded(&mut self, av_frame: &AvFrame, format: &PixelFormat) -> Option<AvFrame> {
        let size = self.padded_size(av_frame, format)?;
        padded_to(size, av_frame, format)
    }

    fn padded_size(&mut self, av_frame: &AvFrame, format: &PixelFormat) -> Option<(usize, usize)> {
        let (width, height) = (av_frame.width() as usize, av_frame.height() as usize);
        let shown = f64::from(av_frame.aspect_ratio()) * width as f64 / height as f64;
        if !self.changes || !shown.is_normal() {
            return None;
        }
        let ratio = shown / *self.shown.get_or_insert(shown);
        let wider = ratio.max(1.0 / ratio);
        if !(DIFFERENCE_MIN..=DIFFERENCE_MAX).contains(&wider) {
            return None;
        }
        // Whole samples of chroma on both sides.
        let padded = |side: usize, log2_chroma: u8| {
            let step = f64::from(2u32 << log2_chroma);
            side + (step * (side as f64 * (wider - 1.0) / step).round()) as usize
        };
        Some(match ratio > 1.0 {
            true => (width, padded(height, format.log2_chroma_h)),
            false => (padded(width, format.log2_chroma_w), height),
        })
    }
}

/// What a frame is, and was before it got borders.
#[derive(Clone, Copy, PartialEq)]
pub(crate) struct Described {
    pub format: FrameFormat,
    pub size: (u32, u32),
    pub aspect: Rational,
    pub is_padded: bool,
}

impl Described {
    /// The change to a frame after it.
    pub fn change_to(&self, new: &Described) -> String {
        let described = |of: &Described| {
            let (format, (width, height), Rational(num, den)) =
                (of.format.pixel_format.name, of.size, of.aspect);
            let samples =
                if self.aspect == new.aspect { String::new() } else { format!(" of samples {num}:{den}") };
            format!("{width}x{height} {format}{samples}")
        };
        let colors = if self.format.color == new.format.color { "" } else { ", with other colour tags" };
        let borders = if new.is_padded { ", with black borders" } else { "" };
        let (old, new) = (described(self), described(new));
        format!("{old} changes to {new}{colors}; the output keeps its format{borders}")
    }
}

/// The frame in the middle of a black one of this size.
fn padded_to((width, height): (usize, usize), av_frame: &AvFrame, format: &PixelFormat) -> Option<AvFrame> {
    let mut padded = AvFrame::empty();
    // SAFETY: both frames are owned, and their fields are read and set while they are alive.
    let (from, to) = unsafe { (&*av_frame.as_ptr(), &mut *padded.as_mut_ptr()) };
    let pixel = pixel_of(from);
    (to.format, to.width, to.height) = (from.format, width as i32, height as i32);
    // SAFETY: the new frame has the properties of the other and planes of its own size, which are filled in whole.
    let code = unsafe {
        let code = ffi::av_frame_get_buffer(to, 0);
        let copied = ffi::av_frame_copy_props(to, from);
        assert!(code >= 0 && copied >= 0, "no memory for a frame with borders");
        let linesizes = to.linesize.map(|linesize| linesize as isize);
        ffi::av_image_fill_black(
            to.data.as_mut_ptr(),
            linesizes.as_ptr(),
            pixel,
            to.color_range,
            to.width,
            to.height,
        )
    };
    if code < 0 {
        return None;
    }
    let (inner_width, inner_height) = (from.width as usize, from.height as usize);
    let (left, top) = ((width - inner_width) / 2, (height - inner_height) / 2);
    for plane in 0..usize::from(format.planes) {
        let component = (0..format.component_count())
            .find(|&i| usize::from(format.components[i].plane) == plane)
            .expect("a plane has components");
        let (_, rows) = format.component_size(component, inner_width, inner_height);
        let (_, above) = format.component_size(component, left, top);
        // SAFETY: the borders are whole samples of chroma, so that the plane of the inner frame lies within that of the
        // other.
        unsafe {
            let before = ffi::av_image_get_linesize(pixel, left as i32, plane as i32) as isize;
            let bytes = ffi::av_image_get_linesize(pixel, from.width, plane as i32);
            let start = to.data[plane].offset(above as isize * to.linesize[plane] as isize + before);
            let (source, linesize) = (from.data[plane], from.linesize[plane]);
            ffi::av_image_copy_plane(start, to.linesize[plane], source, linesize, bytes, rows as i32);
        }
    }
    Some(padded)
}

#[cfg(test)]
mod tests {
    use ffmpeg_next::format::Pixel;

    use super::*;
    use crate::media::format::{describe, format_by_name, pixel_format};

    fn frame((width, height): (u32, u32), aspect: Rational) -> AvFrame {
        let mut av_frame = AvFrame::new(Pixel::YUV420P, width, height);
        // SAFETY: the frame is owned; a plain value is set.
        unsafe { (*av_frame.as_mut_ptr()).sample_aspect_ratio = aspect.into() };
        av_frame
    }

    #[test]
    fn frames_get_the_shape_of_the_first_one() {
        let format = format_by_name("yuv420p").unwrap();
        let (sd, hd) = ((720, 576), (1920, 1080));
        let (narrow, wide, square) = (Rational(16, 15), Rational(64, 45), Rational(1, 1));
        for (first, then, expected) in [
            ((sd, narrow), (sd, narrow), None),
            ((sd, narrow), (sd, wide), Some((720, 768))),
            ((sd, wide), (sd, narrow), Some((960, 576))),
            ((sd, narrow), (hd, square), Some((1920, 1440))),
            ((sd, wide), (hd, square), None),
            ((sd, narrow), ((704, 576), narrow), Some((720, 576))),
            ((sd, narrow), (sd, Rational(1, 1000)), None),
        ] {
            let mut shape = Shape::new([None, None], square);
            let mut padding = |(size, aspect)| {
                let mut av_frame = frame(size, aspect);
                shape.set_aspect(&mut av_frame);
                shape.padded_size(&av_frame, &format)
            };
            assert_eq!(padding(first), None);
            assert_eq!(padding(then), expected, "{then:?} after {first:?}");
            assert_eq!(padding(first), None);
        }
    }

    #[test]
    fn a_change_in_the_bitstream_counts_where_the_container_states_the_aspect() {
        let (square, narrow, wide) = (Rational(1, 1), Rational(8, 9), Rational(32, 27));
        let aspects = |first: Option<Rational>, owns: [Rational; 2]| {
            let mut shape = Shape::new([Some(narrow), first], narrow);
            owns.map(|own| {
                let mut av_frame = frame((64, 48), own);
                shape.set_aspect(&mut av_frame);
                av_frame.aspect_ratio()
            })
        };
        assert_eq!(aspects(None, [square, Rational(4, 3)]), [narrow, wide]);
        assert_eq!(aspects(Some(square), [Rational(4, 3), square]), [wide, narrow]);
    }

    #[test]
    fn every_plane_lies_in_the_middle() {
        for name in
            ["yuv420p", "yuv411p", "nv12", "yuyv422", "gray", "p010le", "gbrp", "rgb24", "yuva444p10le"]
        {
            let pixel = pixel_format(name);
            let format = describe(pixel).unwrap();
            let mut av_frame = AvFrame::new(pixel.into(), 32, 24);
            for plane in 0..av_frame.planes() {
                av_frame.data_mut(plane).fill(0x55);
            }
            let padded = padded_to((48, 40), &av_frame, &format).unwrap();
            for plane in 0..av_frame.planes() {
                let (stride, rows) = (padded.stride(plane), padded.plane_height(plane) as usize);
                // SAFETY: computes with its arguments only.
                let bytes =
                    |width| unsafe { ffi::av_image_get_linesize(pixel, width, plane as i32) } as usize;
                let (left, inner, top) = (bytes(8), bytes(32), rows / 5);
                for y in 0..rows {
                    let line = &padded.data(plane)[y * stride..][..bytes(48)];
                    let is_inner = (top..rows - top).contains(&y);
                    let found = line[left..left + inner].iter().all(|&byte| byte == 0x55);
                    assert_eq!(found, is_inner, "{name}: plane {plane}, line {y}");
                    assert!(line[..left].iter().all(|&byte| byte != 0x55), "{name}: plane {plane}, line {y}");
                }
            }
        }
    }
}

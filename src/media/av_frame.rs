//! AVFrames behind [`Frame`]: decoded ones to read, ones from a pool to fill.

use std::any::Any;

use ffmpeg_next::frame::Video;
use ffmpeg_next::{self as ffmpeg, ffi};

use crate::error::{Error, ErrorKind, Result};
use crate::frame::{Frame, FrameFormat, HostBuffer, PixelFormat, Props, Timestamp};
use crate::media::ffmpeg::{check, error_kind};
use crate::media::format::{describe, pixel_format, pixel_of};

/// Rows start at multiples of this, for AVX-512 loads.
const ALIGNMENT: i32 = 64;

/// The planes of a frame in host memory.
pub(crate) struct AvFrameBuffer {
    pub av_frame: Video,
    /// Bytes of each plane, from its first sample to its last.
    lengths: [usize; 4],
}

impl AvFrameBuffer {
    /// Takes a frame that is stored from top to bottom.
    pub fn new(av_frame: Video, format: &PixelFormat) -> AvFrameBuffer {
        // SAFETY: the frame is owned and was allocated by FFmpeg.
        let raw = unsafe { &*av_frame.as_ptr() };
        let lengths = std::array::from_fn(|plane| {
            if plane >= usize::from(format.planes) {
                return 0;
            }
            assert!(
                raw.linesize[plane] > 0 && !raw.data[plane].is_null(),
                "a frame has its planes, top line first"
            );
            // SAFETY: computes with its arguments only.
            let row = unsafe { ffi::av_image_get_linesize(pixel_of(raw), raw.width, plane as i32) };
            let rows = (0..format.component_count())
                .filter(|&i| usize::from(format.components[i].plane) == plane)
                .map(|i| format.component_size(i, raw.width as usize, raw.height as usize).1)
                .max()
                .expect("a plane has components");
            raw.linesize[plane] as usize * (rows - 1) + row as usize
        });
        AvFrameBuffer { av_frame, lengths }
    }
}

impl HostBuffer for AvFrameBuffer {
    fn linesize(&self, plane: usize) -> usize {
        // SAFETY: the frame is owned and was allocated by FFmpeg.
        unsafe { (*self.av_frame.as_ptr()).linesize[plane] as usize }
    }

    fn plane(&self, plane: usize) -> &[u8] {
        // SAFETY: `new` computed `lengths` from the frame's size, for which FFmpeg allocated the plane, and the frame is
        // owned for as long as the slice lives.
        unsafe { std::slice::from_raw_parts((*self.av_frame.as_ptr()).data[plane], self.lengths[plane]) }
    }

    fn plane_mut(&mut self, plane: usize) -> &mut [u8] {
        // SAFETY: as in `plane`; a writable frame has the only reference to its buffer.
        unsafe {
            let av_frame = self.av_frame.as_mut_ptr();
            assert!(ffi::av_frame_is_writable(av_frame) != 0, "only frames of a pool are written to");
            std::slice::from_raw_parts_mut((*av_frame).data[plane], self.lengths[plane])
        }
    }

    fn share(&self) -> Box<dyn HostBuffer> {
        let mut av_frame = Video::empty();
        // SAFETY: both frames are owned; the new one takes references to the buffers of the other.
        let code = unsafe { ffi::av_frame_ref(av_frame.as_mut_ptr(), self.av_frame.as_ptr()) };
        check(code).expect("no memory for a frame's references");
        Box::new(AvFrameBuffer { av_frame, lengths: self.lengths })
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

/// A decoded AVFrame as a [`Frame`]. Its props are an AVFrame without samples.
pub(crate) fn into_frame(mut av_frame: Video, frame_format: FrameFormat, time: Timestamp) -> Frame {
    let mut props = Video::empty();
    // SAFETY: both frames are owned; copying props takes references to side data and copies no sample.
    unsafe {
        let code = ffi::av_frame_copy_props(props.as_mut_ptr(), av_frame.as_mut_ptr());
        check(code).expect("no memory for a frame's side data");
        // Side data may describe a part of the frame.
        (*props.as_mut_ptr()).width = frame_format.width as i32;
        (*props.as_mut_ptr()).height = frame_format.height as i32;
    }
    Frame {
        format: frame_format,
        time,
        props: Props(Some(Box::new(props))),
        buffer: Box::new(AvFrameBuffer::new(av_frame, &frame_format.pixel_format)),
    }
}

/// Whether a frame is flagged as interlaced, and with its top field first.
pub(crate) fn fields_of(av_frame: &Video) -> (bool, bool) {
    // SAFETY: the frame is alive.
    let raw = unsafe { &*av_frame.as_ptr() };
    #[cfg(ffmpeg_6_1)]
    let flags = (raw.flags & ffi::AV_FRAME_FLAG_INTERLACED, raw.flags & ffi::AV_FRAME_FLAG_TOP_FIELD_FIRST);
    #[cfg(not(ffmpeg_6_1))]
    let flags = (raw.interlaced_frame, raw.top_field_first);
    (flags.0 != 0, flags.1 != 0)
}

/// Flags a frame as interlaced or progressive.
pub(crate) fn set_fields(av_frame: &mut Video, is_interlaced: bool, top_first: bool) {
    // SAFETY: the frame is owned; plain values are set.
    let raw = unsafe { &mut *av_frame.as_mut_ptr() };
    #[cfg(ffmpeg_6_1)]
    for (flag, is_set) in
        [(ffi::AV_FRAME_FLAG_INTERLACED, is_interlaced), (ffi::AV_FRAME_FLAG_TOP_FIELD_FIRST, top_first)]
    {
        raw.flags = if is_set { raw.flags | flag } else { raw.flags & !flag };
    }
    #[cfg(not(ffmpeg_8_0))]
    {
        (raw.interlaced_frame, raw.top_field_first) = (is_interlaced.into(), top_first.into());
    }
}

/// Hands out frames to fill; their buffers return when the encoder has released them.
pub struct FramePool {
    /// A pool and a linesize for each plane: FFmpeg measures one buffer for all of them in an `int`.
    planes: Vec<(BufferPool, i32)>,
    format: FrameFormat,
    pixel: ffi::AVPixelFormat,
}

struct BufferPool(*mut ffi::AVBufferPool);

// SAFETY: an AVBufferPool is documented as thread-safe.
unsafe impl Send for BufferPool {}

impl Drop for BufferPool {
    fn drop(&mut self) {
        // SAFETY: the pool was created by av_buffer_pool_init; buffers still out keep it alive themselves.
        unsafe { ffi::av_buffer_pool_uninit(&mut self.0) }
    }
}

impl FramePool {
    /// A pool of frames of this format. Fails if FFmpeg has no such frame, since it is too large.
    pub fn new(frame_format: FrameFormat) -> Result<FramePool> {
        let pixel = pixel_format(frame_format.pixel_format.name);
        assert!(describe(pixel).is_some(), "pools are of formats that can be written");
        let planes = pools(pixel, &frame_format).map_err(|e| {
            let FrameFormat { width, height, .. } = frame_format;
            let problem = format!("FFmpeg has no {width}x{height} {}", frame_format.pixel_format.name);
            Error::new("frame", problem, "choose a smaller size").with_kind(error_kind(e)).with_source(e)
        })?;
        Ok(FramePool { planes, format: frame_format, pixel })
    }

    /// A frame whose samples are zero or those of an earlier frame.
    pub fn take(&self) -> Result<Frame> {
        let FrameFormat { width, height, pixel_format: format, .. } = self.format;
        let mut av_frame = Video::empty();
        // SAFETY: the frame is owned, and each buffer, which it owns from here on, is as large as a plane of that linesize.
        unsafe {
            let raw = &mut *av_frame.as_mut_ptr();
            (raw.width, raw.height, raw.format) = (width as i32, height as i32, self.pixel as i32);
            for (plane, (pool, linesize)) in self.planes.iter().enumerate() {
                raw.buf[plane] = ffi::av_buffer_pool_get(pool.0);
                if raw.buf[plane].is_null() {
                    return Err(Error::new("frame", "out of memory", "free some, or choose a smaller size")
                        .with_kind(ErrorKind::OutOfMemory));
                }
                raw.data[plane] = (*raw.buf[plane]).data;
                raw.linesize[plane] = *linesize;
            }
        }
        Ok(Frame {
            format: self.format,
            time: Timestamp::default(),
            props: Props::default(),
            buffer: Box::new(AvFrameBuffer::new(av_frame, &format)),
        })
    }
}

/// A pool of buffers and the linesize for each plane.
fn pools(
    pixel: ffi::AVPixelFormat,
    format: &FrameFormat,
) -> std::result::Result<Vec<(BufferPool, i32)>, ffmpeg::Error> {
    let (width, height) = (format.width as i32, format.height as i32);
    let (mut linesizes, mut sizes) = ([0; 4], [0; 4]);
    // SAFETY: the calls compute with their arguments, and fill lists of four.
    unsafe {
        check(ffi::av_image_check_size2(
            width as u32,
            height as u32,
            i64::MAX,
            pixel,
            0,
            std::ptr::null_mut(),
        ))?;
        check(ffi::av_image_fill_linesizes(linesizes.as_mut_ptr(), pixel, width))?;
        let aligned = linesizes.map(|linesize| (linesize + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT);
        let strides = aligned.map(|linesize| linesize as isize);
        check(ffi::av_image_fill_plane_sizes(sizes.as_mut_ptr(), pixel, height, strides.as_ptr()))?;
        let planes = sizes.into_iter().zip(aligned).filter(|&(size, _)| size > 0);
        // Zeroed: encoders read bytes that no component has, and may read a vector past the last sample.
        let pool = |size| {
            BufferPool(ffi::av_buffer_pool_init(size + ALIGNMENT as usize, Some(ffi::av_buffer_allocz)))
        };
        Ok(planes.map(|(size, linesize)| (pool(size), linesize)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::frame_format;

    #[test]
    fn planes_that_together_pass_two_gigabytes_have_a_buffer_each() {
        let pool = FramePool::new(frame_format(16_384, 11_000, "gbrpf32le")).unwrap();
        assert_eq!(pool.planes.iter().map(|(_, linesize)| *linesize).collect::<Vec<_>>(), [65_536; 3]);
        let error = FramePool::new(frame_format(40_000, 40_000, "rgb24")).err().expect("an int is too small");
        assert_eq!(error.to_string(), "frame: FFmpeg has no 40000x40000 rgb24; choose a smaller size");
    }

    #[test]
    fn frames_have_planes_of_aligned_rows() {
        for (name, linesizes) in
            [("nv12", &[64, 64][..]), ("yuv420p", &[64; 3]), ("rgb0", &[192]), ("ya8", &[128])]
        {
            let frame = FramePool::new(frame_format(35, 7, name)).unwrap().take().unwrap();
            for (plane, linesize) in linesizes.iter().enumerate() {
                assert_eq!(frame.buffer.linesize(plane), *linesize, "{name}");
                assert!(frame.buffer.plane(plane).iter().all(|byte| *byte == 0), "{name}");
            }
        }
    }
}

//! AVFrames behind [`Frame`]: decoded ones to read, ones from a pool to fill.

use std::any::Any;

use ffmpeg_next::ffi;
use ffmpeg_next::frame::Video;

use crate::error::{Error, ErrorKind, Result};
use crate::frame::{Frame, FrameFormat, HostBuffer, PixelFormat, Props, Timestamp};
use crate::media::ffmpeg::check;
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
    }
    Frame {
        format: frame_format,
        time,
        props: Props(Some(Box::new(props))),
        buffer: Box::new(AvFrameBuffer::new(av_frame, &frame_format.pixel_format)),
    }
}

/// Hands out frames to fill; their buffers return when the encoder has released them.
pub struct FramePool {
    pool: BufferPool,
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
    /// A pool of frames of this format.
    pub fn new(frame_format: FrameFormat) -> FramePool {
        let pixel = pixel_format(frame_format.pixel_format.name);
        assert!(describe(pixel).is_some(), "pools are of formats that can be written");
        // SAFETY: both calls compute with their arguments only; null for the allocator means FFmpeg's own.
        let pool = unsafe {
            let size = ffi::av_image_get_buffer_size(
                pixel,
                frame_format.width as i32,
                frame_format.height as i32,
                ALIGNMENT,
            );
            // Encoders may read a vector past the last sample.
            ffi::av_buffer_pool_init(size as usize + ALIGNMENT as usize, None)
        };
        FramePool { pool: BufferPool(pool), format: frame_format, pixel }
    }

    /// A frame whose samples are undefined.
    pub fn take(&self) -> Result<Frame> {
        let FrameFormat { width, height, pixel_format: format, .. } = self.format;
        let pixel = self.pixel;
        let mut av_frame = Video::empty();
        // SAFETY: the buffer is large enough for what av_image_fill_arrays lays out in it (`new` asked for
        // the same size), and the frame owns it from here on.
        unsafe {
            let raw = &mut *av_frame.as_mut_ptr();
            raw.buf[0] = ffi::av_buffer_pool_get(self.pool.0);
            if raw.buf[0].is_null() {
                return Err(Error::new("frame", "out of memory", "free some, or choose a smaller size")
                    .with_kind(ErrorKind::OutOfMemory));
            }
            (raw.width, raw.height, raw.format) = (width as i32, height as i32, pixel as i32);
            let (data, linesize) = (raw.data.as_mut_ptr(), raw.linesize.as_mut_ptr());
            let start = (*raw.buf[0]).data;
            let code = ffi::av_image_fill_arrays(
                data,
                linesize,
                start,
                pixel,
                width as i32,
                height as i32,
                ALIGNMENT,
            );
            check(code).expect("the size of the pool's buffers");
        }
        Ok(Frame {
            format: self.format,
            time: Timestamp::default(),
            props: Props::default(),
            buffer: Box::new(AvFrameBuffer::new(av_frame, &format)),
        })
    }
}

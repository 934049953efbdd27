//! Palettes: frames of packed R'G'B' become indices into at most 256 colours, chosen for each frame.
//!
//! In: frames in [`SOURCE`]. Out: the same number of frames in PAL8, each when the next one is there at the latest, so that
//! no more than two are held. FFmpeg's own filters choose the colours and dither.

use ffmpeg_next::ffi::{self, AVPixelFormat};
use ffmpeg_next::filter::{self, Graph};
use ffmpeg_next::frame::Video as AvFrame;
use ffmpeg_next::{self as ffmpeg, Rational};

use crate::frame::FrameFormat;
use crate::media::ffmpeg::is_again;

/// The one format that the filters take: 32 bits in the order of the machine.
pub(crate) const SOURCE: AVPixelFormat = if cfg!(target_endian = "little") {
    AVPixelFormat::AV_PIX_FMT_BGRA
} else {
    AVPixelFormat::AV_PIX_FMT_ARGB
};

/// Filters that choose a palette for each frame.
pub(crate) struct Palette(Graph);

impl Palette {
    /// `is_opaque`: whether no palette needs a transparent entry.
    pub fn new(
        frame_format: &FrameFormat,
        time_base: Rational,
        is_opaque: bool,
    ) -> Result<Palette, ffmpeg::Error> {
        let FrameFormat { width, height, .. } = frame_format;
        let (format, Rational(num, den)) = (SOURCE as i32, time_base);
        let arguments = format!("video_size={width}x{height}:pix_fmt={format}:time_base={num}/{den}");
        let transparent = i32::from(!is_opaque);
        let chain = format!(
            "split[frames][samples];[samples]palettegen=stats_mode=single:reserve_transparent={transparent}\
             [palettes];[frames][palettes]paletteuse=new=1"
        );
        let named = |name: &str| filter::find(name).ok_or(ffmpeg::Error::FilterNotFound);
        let mut graph = Graph::new();
        graph.add(&named("buffer")?, "in", &arguments)?;
        graph.add(&named("buffersink")?, "out", "")?;
        graph.output("in", 0)?.input("out", 0)?.parse(&chain)?;
        graph.validate()?;
        Ok(Palette(graph))
    }

    /// Sends a frame, or the end.
    pub fn send(&mut self, av_frame: Option<&AvFrame>) -> Result<(), ffmpeg::Error> {
        let mut entry = self.0.get("in").expect("a graph has its source");
        match av_frame {
            Some(av_frame) => entry.source().add(av_frame),
            None => entry.source().flush(),
        }
    }

    /// The next frame, if there is one.
    pub fn receive(&mut self) -> Result<Option<AvFrame>, ffmpeg::Error> {
        let mut av_frame = AvFrame::empty();
        match self.0.get("out").expect("a graph has its sink").sink().frame(&mut av_frame) {
            Ok(()) => {}
            Err(error) if is_again(error) || error == ffmpeg::Error::Eof => return Ok(None),
            Err(error) => return Err(error),
        }
        // SAFETY: the frame is owned; a plain value is set.
        unsafe { (*av_frame.as_mut_ptr()).pict_type = ffi::AVPictureType::AV_PICTURE_TYPE_NONE };
        Ok(Some(av_frame))
    }
}

//! Options of a job: input, output, and all that a user can choose about the way between them.

use std::ffi::OsString;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io};

use super::interrupt::Interrupt;
use crate::engine::EngineChoice;
use crate::engine::cpu::Precision;
use crate::error::{Error, Result};
use crate::media::{
    AudioMode, CHECK_DEVICE, Deinterlace, EncoderSpec, Input, Pattern, Place, Playlists, Watch, is_network,
    redacted,
};

/// Default time without a byte of an address. A server that fetches a file from an archive first may take half a minute.
const TIMEOUT: Duration = Duration::from_secs(60);

/// What to upscale, and how. Start from [`Options::new`] and set the fields that matter.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// File or URL that FFmpeg opens, `-` for y4m on standard input, or an image sequence like `scan/%06d.dpx`.
    pub input: OsString,
    /// File whose extension selects the container, `-` for y4m on standard output, or an image sequence like
    /// `out/%06d.tif`.
    pub output: OsString,
    /// Built-in model, path of a safetensors file, or `none` for the resampler alone. Default: hasn-lite-x2-video,
    /// hasn-lite-x2 for images.
    pub model: Option<String>,
    /// Engine that runs the network.
    pub engine: EngineChoice,
    /// Number format of the CPU engine. Default: the fastest one that loses nothing visible.
    pub precision: Option<Precision>,
    /// Threads of the engine, the decoder and the encoder each. Default: one for each core.
    pub threads: Option<usize>,
    /// Size of the output.
    pub size: Size,
    /// Whether the output has square samples, so that its width follows the display aspect ratio of the input.
    pub square: bool,
    /// Encoder settings for a purpose; `encoder`, `encoder_options` and `pixel_format` override them.
    pub preset: Option<Preset>,
    /// FFmpeg's name of the encoder. Default: libx264 where the container holds H.264.
    pub encoder: Option<String>,
    /// Names and values of options of the encoder.
    pub encoder_options: Vec<(String, String)>,
    /// Constant quality, in the encoder's own unit.
    pub crf: Option<String>,
    /// Speed, by the encoder's own name.
    pub encoder_preset: Option<String>,
    /// FFmpeg's name of the output's pixel format. Default: the input's, or the closest one that the encoder takes.
    pub pixel_format: Option<String>,
    /// Whether the input may be a list of other files, such as a playlist, even if its extension does not say so.
    pub allow_playlist: bool,
    /// Time without a byte of the input after which it counts as lost; zero is no limit. Default: 60 s for an address, no
    /// limit for a file or a pipe.
    pub timeout: Option<Duration>,
    /// Streams to keep, in the syntax of FFmpeg's `-map`: `0:v`, `-0:s`. Default: all.
    pub map: Vec<String>,
    /// Frame rate of an image sequence, as numerator and denominator. Default: 25.
    pub frame_rate: Option<(i32, i32)>,
    /// Number of the first file of an image sequence that is written from a video. Default: 1.
    pub start_number: Option<u64>,
    /// Transfer of the values in EXR files: `linear`, or FFmpeg's name of a transfer.
    pub exr_transfer: Option<String>,
    /// Treatment of audio streams.
    pub audio: AudioMode,
    /// Whether a stream, side data or alpha that the output cannot hold is an error, instead of left out.
    pub strict: bool,
    /// Start of the part to upscale, in seconds.
    pub from_s: Option<f64>,
    /// End of the part to upscale, in seconds, exclusive.
    pub to_s: Option<f64>,
    /// Which frames are deinterlaced.
    pub deinterlace: Deinterlace,
    /// FFmpeg filter graph to run before the network.
    pub filter: Option<String>,
    /// Number of damaged frames and packets that a successful run may have.
    pub tolerate: u64,
    /// Whether a frame that equals the previous one gets the previous result without a pass through the network.
    pub reuse: bool,
    /// Whether existing files are overwritten.
    pub overwrite: bool,
    /// What happens if an earlier run of this job was interrupted.
    pub resume: Resume,
    /// File that the JSON report is written to.
    pub report: Option<PathBuf>,
}

/// Size of the output.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub enum Size {
    /// The input's, times the scale of the model.
    #[default]
    Model,
    /// The input's, times a factor, rounded to full chroma samples.
    Scale(f64),
    /// Exact width and height in luma samples.
    Exact {
        /// Width in luma samples.
        width: usize,
        /// Height in luma samples.
        height: usize,
    },
}

/// Encoder settings for a purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Preset {
    /// FFV1 with checksums, 10-bit or deeper, for preservation in .mkv.
    Archive,
    /// ProRes 422 HQ or 4444, for editing, in .mov.
    Master,
    /// x264, 8-bit 4:2:0, slow, for delivery in .mp4.
    Web,
    /// x264, 8-bit 4:2:0, veryfast, for delivery in a hurry.
    WebFast,
    /// x265, slow, 10-bit or deeper.
    Hevc,
    /// SVT-AV1, 10-bit.
    Av1,
}

/// What happens if an earlier run of a job was interrupted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Resume {
    /// Resume it if there is one, else start.
    #[default]
    Auto,
    /// Resume it; an error if there is none.
    Always,
    /// Discard what it has finished, and start over.
    Restart,
}

impl Options {
    /// Options that upscale `input` to `output` by the defaults.
    pub fn new(input: impl Into<OsString>, output: impl Into<OsString>) -> Options {
        Options {
            input: input.into(),
            output: output.into(),
            model: None,
            engine: EngineChoice::default(),
            precision: None,
            threads: None,
            size: Size::default(),
            square: false,
            preset: None,
            encoder: None,
            encoder_options: Vec::new(),
            crf: None,
            encoder_preset: None,
            pixel_format: None,
            allow_playlist: false,
            timeout: None,
            map: Vec::new(),
            frame_rate: None,
            start_number: None,
            exr_transfer: None,
            audio: AudioMode::default(),
            strict: false,
            from_s: None,
            to_s: None,
            deinterlace: Deinterlace::default(),
            filter: None,
            tolerate: 0,
            reuse: true,
            overwrite: false,
            resume: Resume::default(),
            report: None,
        }
    }

    /// Opens the input.
    pub(super) fn open_input(&self, interrupt: &Interrupt) -> Result<Input> {
        let is_network = matches!(Place::of(&self.input), Place::Url(url) if is_network(url));
        let default = is_network.then_some(TIMEOUT);
        let silence_max = self.timeout.or(default).filter(|timeout| !timeout.is_zero());
        let watch = Watch::new(interrupt.flag().clone()).with_silence_max(silence_max);
        let playlists = if self.allow_playlist { Playlists::Always } else { Playlists::ByName };
        Input::open(&self.input, playlists, &watch)
    }

    /// Whether the input can be read twice: files can, block devices and image sequences.
    pub(super) fn is_read_twice(&self) -> Result<bool> {
        use io::ErrorKind::{InvalidFilename, InvalidInput, NotADirectory, NotFound, PermissionDenied};
        match fs::metadata(Place::of(&self.input).path().unwrap_or(Path::new(""))) {
            Ok(data) if data.is_file() || data.file_type().is_block_device() => Ok(true),
            // A drive that fails says nothing about the input. An address is not a file's name.
            Err(e)
                if !matches!(
                    e.kind(),
                    NotFound | NotADirectory | InvalidFilename | InvalidInput | PermissionDenied
                ) =>
            {
                Err(Error::io(redacted(&self.input), e, CHECK_DEVICE))
            }
            _ => Ok(Pattern::parse(&self.input)?.is_some()),
        }
    }

    /// The encoder that the preset and the explicit options ask for.
    pub(super) fn encoder_spec(&self, threads: usize) -> EncoderSpec {
        let preset = self.preset.map(Preset::encoder).unwrap_or_default();
        let is_overridden = |key: &String| self.encoder_options.iter().any(|(k, _)| k == key);
        // Another encoder has other options.
        let kept =
            preset.options.into_iter().filter(|(key, _)| self.encoder.is_none() && !is_overridden(key));
        EncoderSpec {
            name: self.encoder.clone().or(preset.name),
            options: kept.chain(self.encoder_options.iter().cloned()).collect(),
            crf: self.crf.clone(),
            speed: self.encoder_preset.clone(),
            is_preset: self.pixel_format.is_none() && preset.pixel_format.is_some(),
            pixel_format: self.pixel_format.clone().or(preset.pixel_format),
            depth_min: preset.depth_min,
            threads,
        }
    }
}

impl Preset {
    /// The name in options and messages.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Preset::Archive => "archive",
            Preset::Master => "master",
            Preset::Web => "web",
            Preset::WebFast => "web-fast",
            Preset::Hevc => "hevc",
            Preset::Av1 => "av1",
        }
    }

    /// What it sets, as options of `hasn upscale`, and what those cannot say.
    pub(crate) fn sets(self) -> Vec<String> {
        let EncoderSpec { name, options, pixel_format, depth_min, .. } = self.encoder();
        let named = |option: &str, value: Option<String>| value.map(|value| format!("--{option} {value}"));
        let mut sets: Vec<_> = named("encoder", name).into_iter().collect();
        sets.extend(options.iter().map(|(key, value)| format!("--encoder-opt {key}={value}")));
        sets.extend(named("pix-fmt", pixel_format));
        let notes = [
            (depth_min > 8).then(|| format!("{depth_min}-bit or deeper")),
            self.is_of_web().then(|| "HDR is tone-mapped".to_owned()),
            self.is_delivery().then(|| "MP4 and MOV have their index at the start".to_owned()),
        ];
        let notes: Vec<_> = notes.into_iter().flatten().collect();
        sets.push(format!("({})", notes.join("; ")));
        sets
    }

    /// Whether it is for browsers, which show 8-bit SDR.
    pub(super) fn is_of_web(self) -> bool {
        matches!(self, Preset::Web | Preset::WebFast)
    }

    /// Whether its files are for players, which start before the file has arrived.
    pub(super) fn is_delivery(self) -> bool {
        self.is_of_web() || matches!(self, Preset::Hevc | Preset::Av1)
    }

    fn encoder(self) -> EncoderSpec {
        let (name, options, pixel_format, depth_min): (_, &[(&str, &str)], _, _) = match self {
            // As archives ask for: intra only, in slices with checksums of their own.
            Preset::Archive => ("ffv1", &[("g", "1"), ("slices", "16"), ("context", "1")], None, 10),
            Preset::Master => ("prores_ks", &[("vendor", "apl0")], None, 10),
            Preset::Web => ("libx264", &[("preset", "slow"), ("crf", "20")], Some("yuv420p"), 8),
            Preset::WebFast => ("libx264", &[("preset", "veryfast"), ("crf", "20")], Some("yuv420p"), 8),
            Preset::Hevc => ("libx265", &[("preset", "slow"), ("crf", "20")], None, 10),
            Preset::Av1 => ("libsvtav1", &[("preset", "5"), ("crf", "24")], None, 10),
        };
        let options = options.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect();
        let (name, pixel_format) = (Some(name.to_owned()), pixel_format.map(str::to_owned));
        EncoderSpec { name, options, pixel_format, depth_min, ..EncoderSpec::default() }
    }
}

//! All parts of a job except the destination of its packets, opened from options. It writes nothing.

use std::path::{Path, PathBuf};

use tracing::subscriber::{NoSubscriber, with_default};
use tracing::{info, warn};

use super::end::now;
use super::interrupt::Interrupt;
use super::options::{Options, Preset, Size};
use super::progress::{Event, Progress};
use super::report::Summary;
use crate::color::Transfer;
use crate::engine::{EngineKind, EngineSpec, Network, NetworkId, SIDE_MAX, thread_count};
use crate::error::{Error, ErrorKind, Result};
use crate::frame::FrameFormat;
use crate::media::{
    DecodeSpec, Decoder, Encoder, FilterSpec, Input, Output, Pattern, Place, Plan, SeekPoint, Target, Trim,
    VideoInfo, has_filter, redacted, stated_transfer, transfer_by_name,
};
use crate::model::catalogue;
use crate::pipeline::{Outcome, Run, Sink, peak_memory_bytes};

/// Filters from HDR to BT.709, in linear light where 1 is 100 cd/m2.
const TONE_MAPPING: &str = "zscale=t=linear:npl=100,format=gbrpf32le,zscale=p=bt709,tonemap=hable:desat=0,\
                            zscale=t=bt709:m=bt709:r=tv,format=yuv420p10le";

/// The parts, which [`run`](Parts::run) takes.
pub(super) struct Parts {
    pub input: Input,
    pub decoder: Decoder,
    pub engine: EngineSpec,
    pub encoder: Encoder,
    pub plan: Plan,
    pub output: Output,
    pub trim: Trim,
    pub summary: Summary,
}

/// The circumstances in which parts are opened: what exists on the disk, where decoding begins, and the engine so far.
#[derive(Clone, Copy, Default)]
pub(super) struct OpenAt {
    /// Whether files under the output's names may exist.
    pub overwrite: bool,
    /// Whether a partial output is that of the run's journal.
    pub owns_partial: bool,
    /// Where decoding begins, if not at the first frame.
    pub start: Option<SeekPoint>,
    /// The engine of the run that is resumed.
    pub engine: Option<EngineKind>,
}

impl Parts {
    pub fn open(options: &Options, at: OpenAt, interrupt: &Interrupt) -> Result<Parts> {
        let started = now();
        let threads = thread_count(options.threads);
        let mut output = Output::new(&options.output, &options.input)?;
        output.faststart = options.preset.is_some_and(Preset::is_delivery);
        output.check_folder()?;
        if !at.overwrite {
            output.check_free(at.owns_partial)?;
        }
        // The default model of videos is trained with compressed video, which scans and single images are not.
        let is_image = output.is_one_image();
        let from_images = is_image || Pattern::parse(&options.input)?.is_some();
        let default = if from_images { catalogue::DEFAULT_IMAGE } else { catalogue::DEFAULT_VIDEO };
        let network = Network::open(options.model.as_deref().unwrap_or(default))?;
        let mut input = options.open_input(interrupt)?;
        input.choose(&options.map)?;
        apply_frame_rate(options, &mut input, &output)?;
        let exr_transfer = options.exr_transfer.as_deref().map(parse_transfer).transpose()?;
        let transfer = transfer_of(&input, exr_transfer)?;
        let trim = input.trim(options.from_s, options.to_s);
        let encoder_spec = options.encoder_spec(threads);
        let filter = FilterSpec {
            deinterlace: options.deinterlace,
            graph: options.filter.clone().or_else(|| tone_mapping(options, &input)),
            is_even: output.only_counts_frames(),
            divides_alpha: !encoder_spec.is_exr(&output),
        };
        // A filter of the user's gets frames that are upright, as FFmpeg's do.
        let holds_display_matrix = output.holds_display_matrix() && options.filter.is_none();
        let spec = DecodeSpec { trim, threads, filter, start: at.start, transfer, holds_display_matrix };
        let mut decoder = Decoder::open(&mut input, spec)?;
        let plan = Plan::new(&mut input, &output, &options.audio, trim)?;
        if options.strict {
            plan.check_complete(&output)?;
        }
        let lr = decoder.format();
        let aspect = if options.square { decoder.sample_aspect() } else { 1.0 };
        let size = output_size(options, &lr, scale(&network), aspect)?;
        let target = Target::choose(&encoder_spec, &output, &lr, size)?;
        check_web(options, &input, &lr, &target)?;
        check_exr(exr_transfer, &input, &lr, &target)?;
        let sr = target.format;
        // A network only enlarges.
        let grows = sr.width > lr.width || sr.height > lr.height;
        let network = if grows { network } else { Network::Resample };
        // The resampler alone computes in f32.
        let bits = match network {
            Network::Hasn(_) if !sr.pixel_format.float => sr.pixel_format.depth(),
            _ => 32,
        };
        let frames_expected = frames_expected(options, &input.video());
        let frames = match frames_expected {
            _ if is_image => 1,
            0 => u64::MAX,
            known => known,
        };
        let in_flight = usize::try_from(frames).unwrap_or(usize::MAX);
        let networks = vec![network.clone()];
        let spec = |kind| EngineSpec {
            kind,
            threads,
            in_flight,
            networks: networks.clone(),
            memory_max: None,
            lr,
            sr,
        };
        let kind = match at.engine {
            Some(kind) => kind,
            None => options.engine.resolve(options.precision, bits, |kind| spec(kind).check())?,
        };
        let codecs = decoder.memory_estimate(frames) + target.memory_estimate(frames);
        let between = Run::frame_bytes(&lr, &sr, frames, options.reuse);
        let (engine, memory_needed) = spec(kind).fit(input.name(), between, codecs)?;
        let mut encoder = Encoder::open(target, &output, &input, &decoder)?;
        if options.strict {
            encoder.refuse_losses(decoder.first())?;
            decoder.refuse_losses()?;
        }
        if !encoder.keeps_alpha(&output) {
            decoder.drop_alpha(options.strict)?;
        }
        let bytes_per_frame = encoder.bytes_per_frame(&input, growth(&engine));
        let summary = Summary {
            started,
            input: redacted(&options.input),
            output: options.output.to_string_lossy().into_owned(),
            model: network.name().to_owned(),
            engine: kind.name(),
            precision: kind.precision_name(),
            encoder: encoder.name().to_owned(),
            encoder_options: encoder.options().map(|(key, value)| format!("{key}={value}")).collect(),
            pixel_format: sr.pixel_format.name,
            width: sr.width,
            height: sr.height,
            input_width: lr.width,
            input_height: lr.height,
            input_pixel_format: lr.pixel_format.name,
            input_fps: input.video().fps(),
            fps: encoder.video().fps(),
            frames_expected,
            memory_expected_bytes: peak_memory_bytes() + memory_needed,
            bytes_expected: bytes_per_frame.map(|bytes| (bytes * frames_expected as f64) as u64),
        };
        info!(
            "{}x{} {} -> {}x{} {}",
            lr.width, lr.height, lr.pixel_format.name, sr.width, sr.height, sr.pixel_format.name
        );
        Ok(Parts { input, decoder, engine, encoder, plan, output, trim, summary })
    }

    /// Opens parts of a job that was opened before: what was logged then is not logged again.
    pub fn open_again(options: &Options, at: OpenAt, interrupt: &Interrupt) -> Result<Parts> {
        with_default(NoSubscriber::default(), || Parts::open(options, at, interrupt))
    }

    /// Paths of the files that the job reads and writes.
    pub fn paths(&self, options: &Options) -> Vec<PathBuf> {
        let mut paths = self.input.paths();
        paths.extend(Place::of(&options.input).path().map(Path::to_path_buf));
        paths.extend(options.model.as_ref().map(PathBuf::from));
        paths.extend(self.output.path().map(Path::to_path_buf));
        paths.extend(self.output.partial().map(Path::to_path_buf));
        paths
    }

    /// Runs the stages until the last packet is in `sink`.
    pub fn run(
        self,
        options: &Options,
        sink: impl FnOnce(Plan) -> Sink,
        progress: &Progress,
        interrupt: &Interrupt,
    ) -> Result<Outcome> {
        let Parts { input, decoder, engine, encoder, plan, summary, .. } = self;
        let run = Run {
            input,
            decoder,
            engine,
            network: NetworkId(0),
            reuse: options.reuse,
            encoder,
            sink: sink(plan),
        };
        progress.notify(Event::Started { summary: Box::new(summary) });
        let outcome = run.execute(progress.counters(), interrupt.flag());
        progress.notify(Event::Stopped);
        outcome
    }
}

/// Samples of the output for each sample of the input.
pub(super) fn growth(engine: &EngineSpec) -> f64 {
    let EngineSpec { lr, sr, .. } = engine;
    (sr.width * sr.height) as f64 / (lr.width * lr.height) as f64
}

/// The resampler alone doubles the size, as most models do.
fn scale(network: &Network) -> usize {
    match network {
        Network::Hasn(model) => model.sizes.scale,
        Network::Resample => 2,
    }
}

/// Number of frames that the container states for the selected part; 0 where it states none.
fn frames_expected(options: &Options, video: &VideoInfo) -> u64 {
    let rate = video.fps();
    let all_s = video.frames_expected as f64 / rate;
    let part_s = options.to_s.map_or(all_s, |to_s| to_s.min(all_s)) - options.from_s.unwrap_or(0.0);
    (part_s * rate).round().max(0.0) as u64
}

/// An exact size stays as it is; a scaled one is rounded to full chroma samples. `aspect`: width over height of a sample
/// of the input.
fn output_size(
    options: &Options,
    lr: &FrameFormat,
    model_scale: usize,
    aspect: f64,
) -> Result<(usize, usize)> {
    let scaled = |scale: f64| {
        let side = |side: f64, log2_chroma: u8| {
            let step = f64::from(1u32 << log2_chroma);
            ((side * scale / step).round() * step).max(step) as usize
        };
        let format = &lr.pixel_format;
        (side(lr.width as f64 * aspect, format.log2_chroma_w), side(lr.height as f64, format.log2_chroma_h))
    };
    let (width, height) = match options.size {
        Size::Exact { width, height } => (width, height),
        Size::Scale(scale) => scaled(scale),
        Size::Model => scaled(model_scale as f64),
    };
    if width.max(height) > SIDE_MAX {
        let problem = format!("{width}x{height} is larger than {SIDE_MAX} on a side");
        return Err(Error::new("--size", problem, "choose a smaller one").with_kind(ErrorKind::Unsupported));
    }
    Ok((width, height))
}

/// Sets the frame rate of an image sequence, and refuses `--frame-rate` and `--start-number` where they have no effect.
fn apply_frame_rate(options: &Options, input: &mut Input, output: &Output) -> Result<()> {
    let from_sequence = input.numbers().is_some();
    match options.frame_rate {
        Some(rate) => input.set_frame_rate(rate)?,
        None if from_sequence && !output.is_still() => {
            warn!("{}: the frame rate is taken to be 25 fps; --frame-rate sets another", input.name());
        }
        None => {}
    }
    let problem = match (options.start_number, from_sequence, output.sequence()) {
        (Some(_), true, _) => "the output takes the input's numbers",
        (Some(_), false, None) => "the output is not an image sequence",
        _ => return Ok(()),
    };
    Err(Error::new("--start-number", problem, "leave it out: it is for videos that become out/%06d.tif"))
}

/// The filters of the presets for browsers that turn HDR into SDR, where this FFmpeg has them. A pixel format of the user's keeps HDR.
pub(super) fn tone_mapping(options: &Options, input: &Input) -> Option<String> {
    let preset = options.preset.filter(|preset| preset.is_of_web() && options.pixel_format.is_none())?;
    let can = has_filter("zscale") && has_filter("tonemap");
    (can && stated_transfer(input).is_hdr()).then(|| {
        warn!("{}: is HDR; --preset {} tone-maps it to BT.709", input.name(), preset.name());
        TONE_MAPPING.to_owned()
    })
}

/// Refuses to write HDR in the 8 bits of the presets for browsers, in which it has bands, and which browsers show as SDR.
fn check_web(options: &Options, input: &Input, lr: &FrameFormat, target: &Target) -> Result<()> {
    let Some(preset) = options.preset.filter(|preset| preset.is_of_web()) else { return Ok(()) };
    if !lr.color.transfer.is_hdr() || target.format.pixel_format.depth() > 8 {
        return Ok(());
    }
    let remedy = format!("add {TONE_MAPPING} to --filter, or choose --pix-fmt yuv420p10le");
    let problem = format!("is HDR, which --preset {} does not write in 8 bits", preset.name());
    let error = Error::new(input.name(), problem, remedy);
    Err(error.with_kind(ErrorKind::Unsupported))
}

/// The transfer of an EXR input, which its files do not state.
fn transfer_of(input: &Input, exr_transfer: Option<Transfer>) -> Result<Option<Transfer>> {
    if input.is_exr() && exr_transfer.is_none() {
        let problem = "is EXR, which does not state the transfer of its values";
        return Err(Error::new(
            input.name(),
            problem,
            "give --exr-transfer linear, or the transfer that encodes them, e.g. bt709",
        ));
    }
    Ok(exr_transfer.filter(|_| input.is_exr()))
}

/// The transfer that FFmpeg knows by this name.
fn parse_transfer(name: &str) -> Result<Transfer> {
    transfer_by_name(name).ok_or_else(|| {
        let problem = format!("FFmpeg knows no transfer '{name}'");
        Error::new("--exr-transfer", problem, "write linear, or FFmpeg's name of one, e.g. bt709")
    })
}

/// Refuses to write encoded values into an EXR file unless their transfer is named: programs that open the file take its
/// values for linear light.
fn check_exr(exr_transfer: Option<Transfer>, input: &Input, lr: &FrameFormat, target: &Target) -> Result<()> {
    let to_exr = target.encoder_name() == "exr";
    let is_linear = lr.pixel_format.float && lr.color.transfer == Transfer::LINEAR;
    let (problem, remedy) = match exr_transfer {
        Some(_) if !to_exr && !input.is_exr() => ("neither the input nor the output is EXR", "leave it out"),
        None if to_exr && !is_linear => (
            "an EXR is taken for linear light, and the frames are not linear",
            "name their transfer, e.g. bt709, to write the values unchanged",
        ),
        Some(Transfer::LINEAR) if to_exr && !is_linear => (
            "the frames are not linear, and no filter linearizes them",
            "name their transfer, or linearize with --filter zscale=t=linear,format=gbrpf32le",
        ),
        _ => return Ok(()),
    };
    Err(Error::new("--exr-transfer", problem, remedy))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transfers_have_ffmpegs_names() {
        assert_eq!(parse_transfer("linear").unwrap(), Transfer::LINEAR);
        assert_eq!(parse_transfer("smpte2084").unwrap().0, 16);
        for text in ["", "unknown", "reserved", "light"] {
            assert!(parse_transfer(text).is_err(), "{text}");
        }
    }
}

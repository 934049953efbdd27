//! Channel layouts: which channels audio has, by name, and which layouts of an encoder come nearest to them.
//!
//! In: FFmpeg's `AVChannelLayout` of a stream, a frame or an encoder. Out: copies that own what they point to.

use std::ffi::CStr;
use std::fmt;

use ffmpeg_next::{self as ffmpeg, codec, ffi};

use crate::media::ffmpeg::check;

/// The channels of audio, in their order.
pub(crate) struct ChannelLayout(ffi::AVChannelLayout);

// SAFETY: a layout owns what it points to, and nothing else does.
unsafe impl Send for ChannelLayout {}

/// What becomes of the channels of one layout in another.
#[derive(Clone, Copy, PartialEq, PartialOrd, Debug)]
struct Conversion {
    /// Channels that are mixed with others, or are lost.
    mixed: usize,
    /// By how much the power of the channels changes, summed up.
    power_error: f64,
    /// Number of channels.
    channels: i32,
}

/// The most channels that FFmpeg's resampler knows.
const SWR_CH_MAX: usize = 64;

/// FFmpeg's encoder of AAC writes these layouts in a form that few players read (a program config element). They are
/// the same as the second of each pair in AAC, which has one pair of surround channels (ISO 14496-3, table 1.19).
const SAME_IN_AAC: [(u64, u64); 2] = [
    (ffi::AV_CH_LAYOUT_5POINT0, ffi::AV_CH_LAYOUT_5POINT0_BACK),
    (ffi::AV_CH_LAYOUT_5POINT1, ffi::AV_CH_LAYOUT_5POINT1_BACK),
];

/// Layouts of which FFmpeg's encoder with libopus exchanges channels (seen with FFmpeg 5.1.9).
const EXCHANGED_BY_LIBOPUS: [u64; 2] = [ffi::AV_CH_LAYOUT_5POINT0_BACK, ffi::AV_CH_LAYOUT_6POINT1];

/// Vorbis has one layout for each number of channels (Vorbis I, 4.3.9).
const IN_VORBIS: [u64; 8] = [
    ffi::AV_CH_LAYOUT_MONO,
    ffi::AV_CH_LAYOUT_STEREO,
    ffi::AV_CH_LAYOUT_SURROUND,
    ffi::AV_CH_LAYOUT_QUAD,
    ffi::AV_CH_LAYOUT_5POINT0_BACK,
    ffi::AV_CH_LAYOUT_5POINT1_BACK,
    ffi::AV_CH_LAYOUT_6POINT1,
    ffi::AV_CH_LAYOUT_7POINT1,
];

impl ChannelLayout {
    /// A copy. Where only the number of channels is known, FFmpeg's usual layout of that number is assumed.
    pub(crate) fn of(layout: &ffi::AVChannelLayout) -> ChannelLayout {
        if layout.order == ffi::AVChannelOrder::AV_CHANNEL_ORDER_UNSPEC {
            return ChannelLayout::usual(layout.nb_channels);
        }
        let mut copy = ChannelLayout::none();
        // SAFETY: both layouts are alive.
        let code = unsafe { ffi::av_channel_layout_copy(&mut copy.0, layout) };
        check(code).expect("no memory for a channel layout");
        copy
    }

    /// FFmpeg's usual layout of this number of channels, or as many channels without names.
    pub(crate) fn usual(channels: i32) -> ChannelLayout {
        let mut layout = ChannelLayout::none();
        // SAFETY: the layout is ours.
        unsafe { ffi::av_channel_layout_default(&mut layout.0, channels) };
        layout
    }

    fn none() -> ChannelLayout {
        // SAFETY: FFmpeg's layout without channels is all zeros.
        ChannelLayout(unsafe { std::mem::zeroed() })
    }

    fn of_mask(mask: u64) -> ChannelLayout {
        let mut layout = ChannelLayout::none();
        // SAFETY: the layout is ours.
        let code = unsafe { ffi::av_channel_layout_from_mask(&mut layout.0, mask) };
        check(code).expect("FFmpeg's own channels");
        layout
    }

    /// Whether a field of FFmpeg's holds this layout, by name and not by number.
    pub(crate) fn is(&self, field: &ffi::AVChannelLayout) -> bool {
        // SAFETY: both layouts are alive.
        unsafe { ffi::av_channel_layout_compare(&self.0, field) == 0 }
    }

    /// The number of channels.
    pub(crate) fn channels(&self) -> i32 {
        self.0.nb_channels
    }

    /// Copies the layout into a field of FFmpeg's, in place of what is there.
    pub(crate) fn write_to(&self, field: &mut ffi::AVChannelLayout) {
        // SAFETY: both layouts are alive; what the field held is freed.
        let code = unsafe { ffi::av_channel_layout_copy(field, &self.0) };
        check(code).expect("no memory for a channel layout");
    }

    /// The layout as FFmpeg's filters read it.
    pub(crate) fn filter_argument(&self) -> String {
        self.mask().map_or_else(|| self.to_string(), |mask| format!("0x{mask:x}"))
    }

    /// The channels as a bit mask; `None` where their order needs more.
    fn mask(&self) -> Option<u64> {
        let is_native = self.0.order == ffi::AVChannelOrder::AV_CHANNEL_ORDER_NATIVE;
        // SAFETY: the mask of a layout is a number in any order.
        is_native.then_some(unsafe { self.0.u.mask })
    }

    /// Whether every channel is still one of its own in `to`, as loud as it was.
    pub(crate) fn survives_in(&self, to: &ChannelLayout) -> bool {
        self == to || self.conversion(to).is_some_and(|conversion| conversion.mixed == 0)
    }

    /// The layouts to try an encoder with, the nearest first.
    pub(crate) fn candidates(&self, encoder: ffmpeg::Codec) -> Vec<ChannelLayout> {
        let in_aac = SAME_IN_AAC.iter().filter(|_| encoder.id() == codec::Id::AAC);
        let same =
            in_aac.filter(|(from, _)| self.mask() == Some(*from)).map(|&(_, to)| ChannelLayout::of_mask(to));
        let offered = match encoder.id() {
            codec::Id::VORBIS => Some(IN_VORBIS.map(ChannelLayout::of_mask).into()),
            _ => layouts_of(encoder),
        };
        let is_offered =
            |layout: &ChannelLayout| offered.as_ref().is_none_or(|offered| offered.contains(layout));
        let own = Some(ChannelLayout::of(&self.0)).filter(is_offered);
        let mut others: Vec<(Conversion, ChannelLayout)> = offered
            .unwrap_or_else(standard_layouts)
            .into_iter()
            .filter_map(|layout| Some((self.conversion(&layout)?, layout)))
            .collect();
        others.sort_by(|(a, _), (b, _)| a.partial_cmp(b).expect("powers are numbers"));
        let is_exchanged = |layout: &ChannelLayout| {
            encoder.name() == "libopus"
                && layout.mask().is_some_and(|mask| EXCHANGED_BY_LIBOPUS.contains(&mask))
        };
        let all = same.chain(own).chain(others.into_iter().map(|(_, layout)| layout));
        all.filter(|layout| !is_exchanged(layout)).collect()
    }

    /// What FFmpeg's resampler does to the channels; `None` where it cannot convert them.
    fn conversion(&self, to: &ChannelLayout) -> Option<Conversion> {
        let (from_count, to_count) = (self.channels() as usize, to.channels() as usize);
        if from_count.max(to_count) > SWR_CH_MAX {
            return None;
        }
        // `matrix[SWR_CH_MAX * o + i]` is the weight of channel i in channel o.
        let mut matrix = vec![0.0; SWR_CH_MAX * SWR_CH_MAX];
        let level = std::f64::consts::FRAC_1_SQRT_2;
        let not_scaled_down = f64::from(i32::MAX);
        // SAFETY: both layouts are alive; FFmpeg scales all of a matrix of the most channels, however many there are.
        let code = unsafe {
            ffi::swr_build_matrix2(
                &self.0,
                &to.0,
                level,
                level,
                0.0,
                not_scaled_down,
                1.0,
                matrix.as_mut_ptr(),
                SWR_CH_MAX as isize,
                ffi::AVMatrixEncoding::AV_MATRIX_ENCODING_NONE,
                std::ptr::null_mut(),
            )
        };
        check(code).ok()?;
        let rows: Vec<&[f64]> = matrix.chunks(SWR_CH_MAX).take(to_count).collect();
        let weights = |channel: usize| rows.iter().map(move |row| row[channel]);
        let is_kept = |channel: usize| {
            let mut heard = rows.iter().filter(|row| row[channel] != 0.0);
            let alone = heard.next().is_some_and(|row| {
                (row[channel] - 1.0).abs() < 1e-6 && row.iter().filter(|&&weight| weight != 0.0).count() == 1
            });
            alone && heard.next().is_none()
        };
        let power = |channel: usize| weights(channel).map(|weight| weight * weight).sum::<f64>();
        Some(Conversion {
            mixed: (0..from_count).filter(|&channel| !is_kept(channel)).count(),
            power_error: (0..from_count).map(|channel| (power(channel) - 1.0).abs()).sum(),
            channels: to.channels(),
        })
    }
}

/// The layouts that an encoder lists; `None` if it lists none and takes what it likes.
#[cfg(not(ffmpeg_7_1))]
fn layouts_of(encoder: ffmpeg::Codec) -> Option<Vec<ChannelLayout>> {
    // SAFETY: codecs are static; a list of layouts ends with one that has no channels.
    unsafe {
        let first = (*encoder.as_ptr()).ch_layouts.as_ref()?;
        let listed = (0..).map(|place| &*std::ptr::from_ref(first).add(place));
        Some(listed.take_while(|layout| layout.nb_channels > 0).map(ChannelLayout::of).collect())
    }
}

#[cfg(ffmpeg_7_1)]
fn layouts_of(encoder: ffmpeg::Codec) -> Option<Vec<ChannelLayout>> {
    let kind = ffi::AVCodecConfig::AV_CODEC_CONFIG_CHANNEL_LAYOUT;
    let (mut list, mut count) = (std::ptr::null(), 0);
    // SAFETY: codecs are static, and so is the list, which has `count` layouts.
    unsafe {
        let no_context = std::ptr::null();
        ffi::avcodec_get_supported_config(no_context, encoder.as_ptr(), kind, 0, &mut list, &mut count);
        let list = list.cast::<ffi::AVChannelLayout>().as_ref()?;
        let listed = std::slice::from_raw_parts(list, usize::try_from(count).ok()?);
        Some(listed.iter().map(ChannelLayout::of).collect())
    }
}

/// All layouts that FFmpeg has names for.
fn standard_layouts() -> Vec<ChannelLayout> {
    let mut state = std::ptr::null_mut();
    // SAFETY: `state` is the iterator's own and starts as null; the layouts it gives are static.
    let next = || unsafe { ffi::av_channel_layout_standard(&mut state).as_ref() };
    std::iter::from_fn(next).map(ChannelLayout::of).collect()
}

impl PartialEq for ChannelLayout {
    fn eq(&self, other: &ChannelLayout) -> bool {
        self.is(&other.0)
    }
}

/// FFmpeg's name, e.g. `5.1(side)`.
impl fmt::Display for ChannelLayout {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let mut name = [0; 256];
        // SAFETY: the layout is alive, and the name is cut to the buffer and ends with a zero.
        let name = unsafe {
            ffi::av_channel_layout_describe(&self.0, name.as_mut_ptr(), name.len());
            CStr::from_ptr(name.as_ptr())
        };
        f.write_str(&name.to_string_lossy())
    }
}

impl Drop for ChannelLayout {
    fn drop(&mut self) {
        // SAFETY: the layout owns what it points to.
        unsafe { ffi::av_channel_layout_uninit(&mut self.0) };
    }
}

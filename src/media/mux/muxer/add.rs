//! Adds the streams of the output, before its header is written.

use ffmpeg_next::{self as ffmpeg, Rational, codec, ffi, format};

use crate::error::{Error, ErrorKind, Result};
use crate::media::demux::input::Input;
use crate::media::encode::encoder::Encoder;
use crate::media::ffmpeg::{c_string, check, parameters_of};
use crate::media::mux::metadata::{attach_cover, cover_packet};
use crate::media::mux::muxer::Muxer;
use crate::media::mux::streams::{Plan, StreamAction, StreamMapping};
use crate::media::side_data::copy_entries;
use crate::media::stream::{metadata, tag};

impl Muxer {
    /// Adds the streams of the plan in their order.
    pub(super) fn add_streams(&mut self, input: &Input, encoder: &Encoder, plan: &Plan) -> Result<()> {
        for &StreamMapping { input_index, action } in &plan.mappings {
            let stream = input.context().stream(input_index).expect("planned by the input");
            let added = match action {
                StreamAction::Upscale => self.add_encoded(&stream, encoder),
                StreamAction::Copy => self.add_copied(&stream),
                StreamAction::Convert => self.add_converted(&stream, &plan.encoded[&input_index]),
                StreamAction::Cover => self.add_cover(&stream),
            };
            let added = added.map_err(|e| {
                Error::new(&self.output.name, e.to_string(), "choose another container")
                    .with_kind(ErrorKind::Unsupported)
                    .with_source(e)
            })?;
            if let Some(code) = plan.languages.get(&input_index) {
                self.set_language(added, code);
            }
            if self.output.container() == "mpegts" {
                let pid = free_pid(input, &stream);
                // SAFETY: the stream is alive.
                unsafe { (*self.context.stream_mut(added).expect("an added stream").as_mut_ptr()).id = pid };
            }
            // A cover is written once, with the header.
            self.output_index[input_index] = (action != StreamAction::Cover).then_some(added);
        }
        Ok(())
    }

    /// Sets the code of a stream's language, or removes it if that is empty.
    fn set_language(&mut self, index: usize, code: &str) {
        let code = c_string(code);
        let mut added = self.context.stream_mut(index).expect("an added stream");
        let value = if code.is_empty() { std::ptr::null() } else { code.as_ptr() };
        // SAFETY: the stream is alive, and the strings live through the call, which copies them.
        let code =
            unsafe { ffi::av_dict_set(&mut (*added.as_mut_ptr()).metadata, c"language".as_ptr(), value, 0) };
        check(code).expect("no memory for a language");
    }

    fn add_encoded(
        &mut self,
        stream: &ffmpeg::Stream,
        encoder: &Encoder,
    ) -> std::result::Result<usize, ffmpeg::Error> {
        let rate = encoder.video().frame_rate;
        let time_base = match &self.grid {
            Some(grid) => grid.time_base(),
            None if self.output.has_timestamps() => encoder.video().time_base,
            None => rate.invert(),
        };
        let mut added = self.context.add_stream(ffmpeg::encoder::find(codec::Id::None))?;
        added.set_parameters(parameters_of(encoder.context()));
        describe(&mut added, stream, true);
        added.set_time_base(time_base);
        added.set_avg_frame_rate(rate);
        // SAFETY: stream and parameters are alive.
        unsafe {
            let raw = &mut *added.as_mut_ptr();
            raw.sample_aspect_ratio = encoder.sample_aspect().into();
            let tag = encoder
                .codec_tag()
                .or_else(|| self.output.codec_tag(codec::Id::from((*raw.codecpar).codec_id)));
            if let Some(tag) = tag {
                (*raw.codecpar).codec_tag = tag;
            }
        }
        encoder.side().write(&mut added);
        Ok(added.index())
    }

    fn add_copied(&mut self, stream: &ffmpeg::Stream) -> std::result::Result<usize, ffmpeg::Error> {
        let mut added = self.context.add_stream(ffmpeg::encoder::find(codec::Id::None))?;
        added.set_parameters(stream.parameters());
        // SAFETY: the stream is alive. The codec tag is another container's.
        unsafe { (*(*added.as_mut_ptr()).codecpar).codec_tag = 0 };
        describe(&mut added, stream, false);
        copy_entries(stream, &mut added);
        Ok(added.index())
    }

    fn add_converted(
        &mut self,
        stream: &ffmpeg::Stream,
        (parameters, time_base): &(codec::Parameters, Rational),
    ) -> std::result::Result<usize, ffmpeg::Error> {
        let mut added = self.context.add_stream(ffmpeg::encoder::find(codec::Id::None))?;
        added.set_parameters(parameters.clone());
        describe(&mut added, stream, true);
        copy_entries(stream, &mut added);
        added.set_time_base(*time_base);
        Ok(added.index())
    }

    fn add_cover(&mut self, stream: &ffmpeg::Stream) -> std::result::Result<usize, ffmpeg::Error> {
        let cover = cover_packet(stream);
        let id = stream.parameters().id();
        let index = self.add_copied(stream)?;
        if self.output.container() != "matroska" {
            self.covers.push((index, cover));
            return Ok(index);
        }
        let mut added = self.context.stream_mut(index).expect("just added");
        attach_cover(&mut added, id, cover.data().unwrap_or_default());
        let (name, mime) = match id {
            codec::Id::PNG => ("cover.png", "image/png"),
            codec::Id::BMP => ("cover.bmp", "image/bmp"),
            _ => ("cover.jpg", "image/jpeg"),
        };
        let mut tags = metadata(stream, false);
        for (tag_key, key, value) in [(c"filename", "filename", name), (c"mimetype", "mimetype", mime)] {
            if tag(stream, tag_key).is_none() {
                tags.set(key, value);
            }
        }
        set_tags(&mut added, tags);
        Ok(index)
    }
}

/// The PID of a stream: its id in the input, unless that is a PID of tables.
fn free_pid(input: &Input, stream: &ffmpeg::Stream) -> i32 {
    // FFmpeg puts the tables of programs here, one after the other.
    const PROGRAMS: std::ops::Range<i32> = 0x1000..0x1100;
    let is_table = |pid: i32| !(0x20..0x1ffb).contains(&pid) || PROGRAMS.contains(&pid);
    let mut moved = input.context().streams().filter(|stream| is_table(stream.id()));
    let position = moved.position(|moved| moved.index() == stream.index());
    let is_free = |pid: &i32| input.context().streams().all(|other| other.id() != *pid);
    position.map_or(stream.id(), |position| (0x100..).filter(is_free).nth(position).expect("PIDs are many"))
}

/// Replaces a stream's tags.
fn set_tags(added: &mut format::stream::StreamMut, tags: ffmpeg::Dictionary) {
    // SAFETY: the stream is alive and owns its tags, which the wrapper would not free.
    unsafe { ffi::av_dict_free(&mut (*added.as_mut_ptr()).metadata) };
    added.set_metadata(tags);
}

/// Copies what describes a stream besides its codec: time base, tags, disposition, id.
fn describe(added: &mut format::stream::StreamMut, stream: &ffmpeg::Stream, is_reencoded: bool) {
    added.set_time_base(stream.time_base());
    set_tags(added, metadata(stream, is_reencoded));
    // SAFETY: both streams are alive.
    unsafe {
        let raw = added.as_mut_ptr();
        (*raw).disposition = (*stream.as_ptr()).disposition;
        (*raw).id = (*stream.as_ptr()).id;
    }
}

//! Examples under the help of the commands.

pub(super) const UPSCALE: &str = "\
Examples:
  hasn upscale in.mkv out.mkv                              twice the size, all streams kept
  hasn upscale in.mp4 out.mp4 --size 3840x2160 --crf 16    exact size and quality of x264
  hasn upscale in.mkv out.mkv --encoder libx265 --encoder-preset slow
  hasn upscale in.mov out.mov --preset master              ProRes
  hasn upscale in.ts out.mkv --from 1:30 --to 2:00         a part, exact to the frame
  hasn upscale scan/%06d.dpx out/%06d.tif                  an image sequence
  hasn upscale in.mkv out.mkv --dry-run                    streams, and an estimate of time, disk and memory
  hasn upscale in.mkv - | mpv -                            y4m on standard output";

pub(super) const RELAY: &str = "\
Examples:
  hasn relay rtmp://source/live/a srt://sink:9000
  hasn relay --listen rtmp://0.0.0.0/live/a out/a.m3u8 --latency-max 1s --metrics 8080";

pub(super) const BATCH: &str = "\
Examples:
  hasn batch videos --into upscaled --extension mkv --report night.json
  hasn batch --jobs night.toml";

pub(super) const PLAN: &str = "\
Examples:
  hasn plan in.mkv out.mkv        then, on any machine that shares the files:
  hasn segment out.mkv.hasn 0     and so on, up to the last segment
  hasn join out.mkv.hasn";

pub(super) const PREVIEW: &str = "\
Examples:
  hasn preview in.mkv                                  three frames on preview.html
  hasn preview in.mkv --at 1:30 --model hasn-lite-x2-video,hasn-x2 -o models.html
  hasn preview small.mkv --reference original.mkv      with PSNR-Y and SSIM-Y";

pub(super) const COMPARE: &str = "\
Examples:
  hasn compare reference.mkv out.mkv
  hasn compare reference.mkv out.mkv --worst-frame worst.png";

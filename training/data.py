"""LR/HR pairs for training and evaluation: luma, 8-bit limited range.

In: folders of images and videos, decoded by the ffmpeg command. Out: shards of memory-mapped arrays,
    NAME-lr.npy [N, T, T] u8      NAME-hr.npy [N, T * scale, T * scale] u8      NAME.json, the kind of each pair
which are identical for the same files, arguments and encoders. Two tracks:
    clean   LR by antialiased bicubic, as in the paper and the literature
    video   40 % clean; the rest are clips with motion, downscaled, encoded and decoded
This module must not know networks.

    python training/data.py OUT FOLDER... [--track video] [--clips 1000]
"""

import argparse
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

IMAGES = {".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".jxl"}
VIDEOS = {".mp4", ".mkv", ".mov", ".webm", ".m4v", ".y4m", ".ts"}

# K_R and K_B of BT.601 and BT.709.
MATRICES = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722)}
# 8-bit limited range, the same in BT.601 and BT.709.
BLACK, WHITE = 16, 235

# Of every 20 files in name order, one is in the validation set and one in the test set. The training set has neither.
PARTS = {"valid": 0, "test": 10}
PART_STEP = 20

CLEAN_SHARE = 0.4
# Frames and side of an encoded clip: long enough for frames of every type, small enough to encode thousands.
CLIP_FRAMES, CLIP_SIDE = 24, 160
TILES_PER_CLIP = 4
CLIPS_PER_SHARD = 100


@dataclass(frozen=True)
class Codec:
    """An encoder, its quality option with the range to draw from, its other options, and its probability.

    Encoders run with one thread, so that their output is deterministic."""

    name: str
    quality: str
    range: tuple
    options: tuple
    probability: float


# From the quality of a disc down to that of a poor stream.
CODECS = [
    Codec("libx264", "-crf", (18, 33), ("-preset", "medium"), 0.25),
    Codec("libx264", "-crf", (18, 33), ("-preset", "veryfast"), 0.15),
    Codec("libx265", "-crf", (19, 34), ("-preset", "fast", "-x265-params", "log-level=error:pools=none:frame-threads=1"), 0.3),
    Codec("mpeg2video", "-q:v", (2, 9), ("-g", "15", "-bf", "2"), 0.15),
    Codec("libsvtav1", "-crf", (22, 48), ("-preset", "8", "-svtav1-params", "lp=1"), 0.15),
]


# ---- resampling

def bicubic(a):
    def kernel(x):
        x = np.abs(x)
        near = (a + 2) * x**3 - (a + 3) * x**2 + 1
        far = a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a
        return np.where(x <= 1, near, np.where(x < 2, far, 0))

    return kernel, 2


# A kernel and its radius. The first is that of MATLAB's imresize, the second that of FFmpeg's scaler; area is the mean.
KERNELS = {
    "bicubic": bicubic(-0.5),
    "bicubic-ffmpeg": bicubic(-0.6),
    "lanczos": (lambda x: np.sinc(x) * np.sinc(x / 3) * (np.abs(x) < 3), 3),
    "area": (lambda x: ((x >= -0.5) & (x < 0.5)) * 1.0, 0.5),
}


def resize(image, height, width, kernel="bicubic"):
    """Resizes as MATLAB's imresize: downscaling widens the kernel by the step, and the image is mirrored at the border."""
    out = image.astype(np.float64)
    for axis, size in ((0, height), (1, width)):
        out = resize_axis(out, size, axis, *KERNELS[kernel])
    return out


def resize_axis(image, size, axis, kernel, radius):
    in_size = image.shape[axis]
    scale = size / in_size
    widening = min(scale, 1)
    centre = (np.arange(size) + 0.5) / scale - 0.5
    first = np.floor(centre - radius / widening).astype(int)
    index = first[:, None] + np.arange(int(np.ceil(2 * radius / widening)) + 2)
    weights = kernel((centre[:, None] - index) * widening)
    weights /= weights.sum(1, keepdims=True)
    used = weights.any(0)
    index, weights = index[:, used] % (2 * in_size), weights[:, used]
    index = np.where(index < in_size, index, 2 * in_size - 1 - index)
    source = np.moveaxis(image, axis, 0)
    out = sum(source[index[:, tap]] * weights[:, tap].reshape(-1, *[1] * (image.ndim - 1)) for tap in range(index.shape[1]))
    return np.moveaxis(out, 0, axis)


def to_codes(values):
    """Rounds to 8-bit code values. Overshoot outside the limited range is kept."""
    return np.clip(np.floor(values + 0.5), 0, 255).astype(np.uint8)


# ---- images and videos

def find(folders, suffixes):
    """Lists the files in these folders, in the same order on every machine."""
    files = (file for folder in folders for file in Path(folder).rglob("*"))
    return sorted((file for file in files if file.suffix.lower() in suffixes), key=lambda file: (file.name, str(file)))


def part_of(files, part):
    """Selects the files of the "train", "valid" or "test" set."""
    held_out = {name: [i for i in range(len(files)) if i % PART_STEP == at] for name, at in PARTS.items()}
    chosen = held_out.get(part) or [i for i in range(len(files)) if i % PART_STEP not in PARTS.values()]
    return [files[i] for i in chosen]


def ffmpeg(*arguments, input=None):
    run = subprocess.run(["ffmpeg", "-v", "error", "-nostdin", *map(str, arguments)] if input is None else
                         ["ffmpeg", "-v", "error", *map(str, arguments)], input=input, capture_output=True)
    if run.returncode:
        sys.exit(f"ffmpeg {' '.join(map(str, arguments))}: {run.stderr.decode(errors='replace').strip()}")
    return run.stdout


def read_rgb(path):
    """Returns [H, W, 3] u8."""
    ppm = ffmpeg("-i", path, "-frames:v", 1, "-sws_flags", "accurate_rnd+full_chroma_int", "-pix_fmt", "rgb24",
                 "-f", "image2pipe", "-c:v", "ppm", "-")
    magic, width, height, peak = ppm.split(maxsplit=4)[:4]
    assert (magic, peak) == (b"P6", b"255"), "FFmpeg writes 8-bit PPM"
    size = int(height) * int(width) * 3
    return np.frombuffer(ppm[-size:], np.uint8).reshape(int(height), int(width), 3)


def luma(rgb, matrix):
    """Returns Y' in 8-bit limited-range code values, not rounded."""
    k_r, k_b = MATRICES[matrix]
    return BLACK + (WHITE - BLACK) / 255 * (rgb @ np.array([k_r, 1 - k_r - k_b, k_b]))


def video_size(path):
    out = subprocess.run(["ffprobe", "-v", "error", "-select_streams", "v:0", "-show_entries", "stream=width,height",
                          "-of", "csv=p=0", path], capture_output=True, text=True)
    if out.returncode or not out.stdout.strip():
        sys.exit(f"{path}: ffprobe finds no video stream; {out.stderr.strip()}")
    width, height = out.stdout.split()[0].split(",")[:2]
    return int(height), int(width)


def read_video(path, frames=None, start=0):
    """Returns Y' of its frames, [N, H, W] u8: the decoded code values if the video is 8-bit and limited range."""
    height, width = video_size(path)
    limit = [] if frames is None else ["-frames:v", frames]
    raw = ffmpeg("-ss", start, "-i", path, *limit, "-pix_fmt", "yuv420p", "-f", "rawvideo", "-")
    return planes(raw, height, width)


def planes(raw, height, width):
    """Returns Y' of raw yuv420p, [N, H, W] u8."""
    size = height * width + 2 * ((height + 1) // 2) * ((width + 1) // 2)
    frames = np.frombuffer(raw, np.uint8).reshape(-1, size)
    return frames[:, : height * width].reshape(-1, height, width)


# ---- clips

def clip_from_image(image, side, frames, rng):
    """Moves a window of `side` over the image (pan, shake, zoom or none). Returns [N, side, side] code values."""
    motion = rng.choice(["pan", "shake", "zoom", "none"], p=[0.4, 0.2, 0.3, 0.1])
    room = np.array(image.shape) - side
    time = np.linspace(0, 1, frames)[:, None]
    start = rng.uniform(0, 1, 2) * room
    if motion == "zoom":
        return zoom(image, side, rng.uniform(1, min(image.shape) / side, 2), time[:, 0], start / np.maximum(room, 1))
    # HR pixels per frame.
    speed = {"pan": 6, "shake": 1, "none": 0}[motion]
    path = start + time * frames * rng.uniform(-speed, speed, 2)
    if motion == "shake":
        path = path + np.cumsum(rng.normal(0, 1.5, (frames, 2)), 0)
    # The path is reflected at the border.
    path = np.abs((path + room) % np.maximum(2 * room, 1) - room)
    corners = np.minimum(np.floor(path + 0.5), room).astype(int)
    return np.stack([image[y : y + side, x : x + side] for y, x in corners])


def zoom(image, side, factors, time, centre):
    """Scales the window from the first factor to the second, about a relative position (0..1 on both axes)."""
    frames = []
    for factor in factors[0] + (factors[1] - factors[0]) * time:
        window = min(int(side * factor), *image.shape)
        y, x = (centre * (np.array(image.shape) - window)).astype(int)
        frames.append(resize(image[y : y + window, x : x + window], side, side))
    return np.stack(frames)


def downscale(hr, scale, kernel):
    """[N, H, W] -> [N, H / scale, W / scale], not rounded."""
    frames = np.moveaxis(hr, 0, 2)
    return np.moveaxis(resize(frames, hr.shape[1] // scale, hr.shape[2] // scale, kernel), 2, 0)


def degrade(lr, rng):
    """Adds light blur and light noise, each with probability 1/4, because camera footage is softer than resampled HR."""
    if rng.random() < 0.25:
        sigma = rng.uniform(0.3, 0.7)
        taps = np.exp(-(np.arange(-2, 3) ** 2) / (2 * sigma**2))
        taps /= taps.sum()
        for axis in (1, 2):
            padded = np.pad(lr, [(2, 2) if a == axis else (0, 0) for a in range(3)], mode="edge")
            lr = sum(tap * np.take(padded, np.arange(i, i + lr.shape[axis]), axis) for i, tap in enumerate(taps))
    if rng.random() < 0.25:
        lr = lr + rng.normal(0, rng.uniform(0.5, 2.5), lr.shape)
    return lr


def encode_decode(frames, encoder, *options):
    """Encodes and decodes [N, H, W] u8. Chroma is gray; H and W must be even."""
    count, height, width = frames.shape
    gray = np.full((count, height * width // 2), 128, np.uint8)
    raw = np.concatenate([frames.reshape(count, -1), gray], 1).tobytes()
    encoded = ffmpeg("-f", "rawvideo", "-pix_fmt", "yuv420p", "-s", f"{width}x{height}", "-r", 25, "-i", "-",
                     "-c:v", encoder, *options, "-threads", 1, "-f", "matroska", "-", input=raw)
    decoded = planes(ffmpeg("-f", "matroska", "-i", "-", "-pix_fmt", "yuv420p", "-f", "rawvideo", "-", input=encoded),
                     height, width)
    assert decoded.shape == frames.shape, f"{encoder}: encoded {frames.shape}, decoded {decoded.shape}"
    return decoded


# ---- shards

def main():
    parser = argparse.ArgumentParser(description="Writes LR/HR pairs for training.")
    parser.add_argument("out", type=Path)
    parser.add_argument("folders", type=Path, nargs="+", help="folders of images and videos")
    parser.add_argument("--track", choices=["clean", "video"], default="clean")
    parser.add_argument("--scale", type=int, default=2)
    parser.add_argument("--clips", type=int, default=1000, help=f"number of clips, {TILES_PER_CLIP} pairs each")
    parser.add_argument("--tile", type=int, default=80, help="side of a pair in LR pixels")
    parser.add_argument("--window", type=int, default=CLIP_SIDE,
                        help="side of a clip in LR pixels; sources must be at least this times the scale")
    parser.add_argument("--part", choices=["train", *PARTS], default="train")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--from-clip", type=int, default=0, help="number of the first clip, to split the work between processes")
    args = parser.parse_args()
    if args.window < args.tile:
        sys.exit(f"--window {args.window}: is smaller than --tile {args.tile}; give a larger window")
    if args.from_clip >= args.clips:
        sys.exit(f"--from-clip {args.from_clip}: there are only {args.clips} clips; give --clips a larger number")
    sources = part_of(find(args.folders, IMAGES | VIDEOS), args.part)
    if not sources:
        sys.exit(f"{args.folders[0]}: contains no images ({' '.join(sorted(IMAGES))}) and no videos")
    args.out.mkdir(parents=True, exist_ok=True)
    for first in range(args.from_clip, args.clips, CLIPS_PER_SHARD):
        clips = range(first, min(first + CLIPS_PER_SHARD, args.clips))
        pairs = [pair for clip in clips for pair in pairs_of_clip(clip, sources, args)]
        name = f"{args.part}-{first:05}"
        # The list of kinds is written last: a shard without it is incomplete.
        for suffix, column in (("lr", 0), ("hr", 1)):
            np.save(args.out / f"{name}-{suffix}.npy", np.stack([pair[column] for pair in pairs]))
        (args.out / f"{name}.json").write_text(json.dumps([pair[2] for pair in pairs]))
        print(f"{name}: {len(pairs)} pairs", flush=True)


def pairs_of_clip(index, sources, args):
    """Returns [(LR tile, HR tile, kind)] of one clip."""
    rng = np.random.default_rng([args.seed, index])
    source = sources[rng.integers(len(sources))]
    clean = args.track == "clean" or rng.random() < CLEAN_SHARE
    side = args.window * args.scale
    frames = TILES_PER_CLIP if clean else CLIP_FRAMES
    if source.suffix.lower() in VIDEOS:
        hr = clip_from_video(source, side, frames, rng)
    else:
        hr = frames_from_image(source, side, frames, clean, rng)
    hr = to_codes(hr)
    if clean:
        lr, kind = to_codes(downscale(hr, args.scale, "bicubic")), "clean"
    else:
        codec = CODECS[rng.choice(len(CODECS), p=[codec.probability for codec in CODECS])]
        lr = to_codes(degrade(downscale(hr, args.scale, rng.choice(list(KERNELS))), rng))
        quality = rng.integers(*codec.range, endpoint=True)
        lr, kind = encode_decode(lr, codec.name, codec.quality, quality, *codec.options), f"{codec.name} {quality}"
    chosen = rng.choice(len(lr), TILES_PER_CLIP, replace=False)
    corners = rng.integers(0, args.window - args.tile, (TILES_PER_CLIP, 2), endpoint=True)
    return [(crop(lr[i], corner, args.tile), crop(hr[i], corner * args.scale, args.tile * args.scale), kind)
            for i, corner in zip(chosen, corners)]


def crop(image, corner, side):
    y, x = corner
    return image[y : y + side, x : x + side]


def frames_from_image(source, side, frames, clean, rng):
    """Crops or a clip of an image downscaled by a random factor, which also removes the artefacts of its own compression."""
    image = luma(read_rgb(source), rng.choice(list(MATRICES)))
    factor_min = max(side / min(image.shape), 0.4)
    if factor_min > 1:
        sys.exit(f"{source}: is smaller than {side} pixels; remove it from the folder")
    factor = rng.uniform(factor_min, 1)
    image = resize(image, *(max(side, int(extent * factor)) for extent in image.shape))
    if not clean:
        return clip_from_image(image, side, frames, rng)
    corners = [rng.integers(0, np.array(image.shape) - side, endpoint=True) for _ in range(frames)]
    return np.stack([crop(image, corner, side) for corner in corners])


def clip_from_video(path, side, frames, rng):
    """Crops one window from consecutive frames at a random position."""
    height, width = video_size(path)
    if min(height, width) < side:
        sys.exit(f"{path}: is smaller than {side} pixels; remove it from the folder")
    out = subprocess.run(["ffprobe", "-v", "error", "-show_entries", "format=duration", "-of", "csv=p=0", path],
                         capture_output=True, text=True).stdout
    # The clip starts at least two seconds before the end, so that there are enough frames.
    video = read_video(path, frames, rng.uniform(0, max(float(out) - 2, 0)))
    if len(video) < frames:
        sys.exit(f"{path}: has fewer than {frames} consecutive frames; remove it from the folder")
    y, x = rng.integers(0, [height - side, width - side], endpoint=True)
    return video[:, y : y + side, x : x + side]


if __name__ == "__main__":
    main()

"""Pairs of a small and a large picture to train and to judge with: luma, 8-bit limited range.

In: folders of pictures and films, read by the ffmpeg command. Out: shards, arrays that are mapped into memory,
    NAME-lr.npy [N, T, T] u8      NAME-hr.npy [N, T * scale, T * scale] u8      NAME.json, the kind of each pair
the same for the same pictures, arguments and encoders. Two tracks:
    clean   LR by antialiased bicubic, as the paper and the literature have it
    video   40 % clean; the rest went through a codec: clips with motion, reduced, coded, decoded
It knows nothing of networks.

    python training/data.py OUT FOLDER... [--track video] [--clips 1000]
"""

import argparse
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

PICTURES = {".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".jxl"}
FILMS = {".mp4", ".mkv", ".mov", ".webm", ".m4v", ".y4m", ".ts"}

# K_R and K_B of BT.601 and BT.709.
MATRICES = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722)}
# 8-bit limited range, BT.601 and BT.709 alike.
BLACK, WHITE = 16, 235

# Of every 20 pictures, in the order of their names, one is for watching a training and one for judging its outcome. No
# training sees either.
PARTS = {"valid": 0, "test": 10}
PART_STEP = 20

CLEAN_SHARE = 0.4
# Of a clip as coded: long enough for frames of every type, few enough to be made by the thousand.
CLIP_FRAMES, CLIP_SIDE = 24, 160
TILES_OF_A_CLIP = 4
CLIPS_OF_A_SHARD = 100


@dataclass(frozen=True)
class Codec:
    """An encoder, its option of quality with the range to draw from, what else it is told, and how often it is drawn.

    One thread, for the same stream each time."""

    name: str
    quality: str
    range: tuple
    others: tuple
    weight: float


# From what is sold as good down to what streams badly.
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


# A kernel and how far it reaches. MATLAB's imresize has the first, FFmpeg's scaler the second; area is the mean.
KERNELS = {
    "bicubic": bicubic(-0.5),
    "bicubic-ffmpeg": bicubic(-0.6),
    "lanczos": (lambda x: np.sinc(x) * np.sinc(x / 3) * (np.abs(x) < 3), 3),
    "area": (lambda x: ((x >= -0.5) & (x < 0.5)) * 1.0, 0.5),
}


def resize(picture, height, width, kernel="bicubic"):
    """As MATLAB's imresize: where it reduces the kernel grows with the step, and at the border the picture is mirrored."""
    out = picture.astype(np.float64)
    for axis, size in ((0, height), (1, width)):
        out = resize_axis(out, size, axis, *KERNELS[kernel])
    return out


def resize_axis(picture, size, axis, kernel, reach):
    before = picture.shape[axis]
    scale = size / before
    widened = min(scale, 1)
    centre = (np.arange(size) + 0.5) / scale - 0.5
    first = np.floor(centre - reach / widened).astype(int)
    index = first[:, None] + np.arange(int(np.ceil(2 * reach / widened)) + 2)
    weights = kernel((centre[:, None] - index) * widened)
    weights /= weights.sum(1, keepdims=True)
    used = weights.any(0)
    index, weights = index[:, used] % (2 * before), weights[:, used]
    index = np.where(index < before, index, 2 * before - 1 - index)
    source = np.moveaxis(picture, axis, 0)
    out = sum(source[index[:, tap]] * weights[:, tap].reshape(-1, *[1] * (picture.ndim - 1)) for tap in range(index.shape[1]))
    return np.moveaxis(out, 0, axis)


def to_codes(picture):
    """Rounded to 8 bits. Limited range bounds nothing: what overshoots stays."""
    return np.clip(np.floor(picture + 0.5), 0, 255).astype(np.uint8)


# ---- pictures and films

def find(folders, suffixes):
    """The files there, in one order on every machine."""
    files = (file for folder in folders for file in Path(folder).rglob("*"))
    return sorted((file for file in files if file.suffix.lower() in suffixes), key=lambda file: (file.name, str(file)))


def part_of(files, part):
    """Those of `files` that are for "train", "valid" or "test"."""
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
    """[H, W, 3] u8."""
    ppm = ffmpeg("-i", path, "-frames:v", 1, "-sws_flags", "accurate_rnd+full_chroma_int", "-pix_fmt", "rgb24",
                 "-f", "image2pipe", "-c:v", "ppm", "-")
    magic, width, height, peak = ppm.split(maxsplit=4)[:4]
    assert (magic, peak) == (b"P6", b"255"), "FFmpeg writes 8-bit PPM"
    size = int(height) * int(width) * 3
    return np.frombuffer(ppm[-size:], np.uint8).reshape(int(height), int(width), 3)


def luma(rgb, matrix):
    """Y' codes of 8-bit limited range, not rounded."""
    k_r, k_b = MATRICES[matrix]
    return BLACK + (WHITE - BLACK) / 255 * (rgb @ np.array([k_r, 1 - k_r - k_b, k_b]))


def film_size(path):
    out = subprocess.run(["ffprobe", "-v", "error", "-select_streams", "v:0", "-show_entries", "stream=width,height",
                          "-of", "csv=p=0", path], capture_output=True, text=True)
    if out.returncode or not out.stdout.strip():
        sys.exit(f"{path}: ffprobe finds no pictures in it; {out.stderr.strip()}")
    width, height = out.stdout.split()[0].split(",")[:2]
    return int(height), int(width)


def read_film(path, frames=None, start=0):
    """Y' of its frames, [N, H, W] u8, as coded where it has 8 bits and limited range."""
    height, width = film_size(path)
    limit = [] if frames is None else ["-frames:v", frames]
    raw = ffmpeg("-ss", start, "-i", path, *limit, "-pix_fmt", "yuv420p", "-f", "rawvideo", "-")
    return planes(raw, height, width)


def planes(raw, height, width):
    """Y' of raw yuv420p."""
    size = height * width + 2 * ((height + 1) // 2) * ((width + 1) // 2)
    frames = np.frombuffer(raw, np.uint8).reshape(-1, size)
    return frames[:, : height * width].reshape(-1, height, width)


# ---- clips

def clip_from_still(still, side, frames, rng):
    """A window of `side` that moves over the still: [N, side, side] codes. A pan, a shake or a zoom."""
    motion = rng.choice(["pan", "shake", "zoom", "rest"], p=[0.4, 0.2, 0.3, 0.1])
    room = np.array(still.shape) - side
    time = np.linspace(0, 1, frames)[:, None]
    start = rng.uniform(0, 1, 2) * room
    if motion == "zoom":
        return zoom(still, side, rng.uniform(1, min(still.shape) / side, 2), time[:, 0], start / np.maximum(room, 1))
    # Pixels of HR a frame.
    speed = {"pan": 6, "shake": 1, "rest": 0}[motion]
    way = start + time * frames * rng.uniform(-speed, speed, 2)
    if motion == "shake":
        way = way + np.cumsum(rng.normal(0, 1.5, (frames, 2)), 0)
    # It turns round at the border.
    way = np.abs((way + room) % np.maximum(2 * room, 1) - room)
    corners = np.minimum(np.floor(way + 0.5), room).astype(int)
    return np.stack([still[y : y + side, x : x + side] for y, x in corners])


def zoom(still, side, factors, time, place):
    """From one size of the window to the other, about a place (0..1 both ways)."""
    frames = []
    for factor in factors[0] + (factors[1] - factors[0]) * time:
        window = min(int(side * factor), *still.shape)
        y, x = (place * (np.array(still.shape) - window)).astype(int)
        frames.append(resize(still[y : y + window, x : x + window], side, side))
    return np.stack(frames)


def reduce(hr, scale, kernel):
    """[N, H, W] -> [N, H / scale, W / scale], not rounded."""
    frames = np.moveaxis(hr, 0, 2)
    return np.moveaxis(resize(frames, hr.shape[1] // scale, hr.shape[2] // scale, kernel), 2, 0)


def worsen(lr, rng):
    """Light blur, light noise, each on every fourth clip: cameras are not resamplers."""
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


def code(frames, encoder, *options):
    """[N, H, W] u8 through an encoder and its decoder. Chroma is gray, sizes are even."""
    count, height, width = frames.shape
    gray = np.full((count, height * width // 2), 128, np.uint8)
    raw = np.concatenate([frames.reshape(count, -1), gray], 1).tobytes()
    coded = ffmpeg("-f", "rawvideo", "-pix_fmt", "yuv420p", "-s", f"{width}x{height}", "-r", 25, "-i", "-",
                   "-c:v", encoder, *options, "-threads", 1, "-f", "matroska", "-", input=raw)
    decoded = planes(ffmpeg("-f", "matroska", "-i", "-", "-pix_fmt", "yuv420p", "-f", "rawvideo", "-", input=coded),
                     height, width)
    assert decoded.shape == frames.shape, f"{encoder} gave {decoded.shape}, was given {frames.shape}"
    return decoded


# ---- shards

def main():
    parser = argparse.ArgumentParser(description="Prepares pairs to train with.")
    parser.add_argument("out", type=Path)
    parser.add_argument("folders", type=Path, nargs="+", help="of pictures and films")
    parser.add_argument("--track", choices=["clean", "video"], default="clean")
    parser.add_argument("--scale", type=int, default=2)
    parser.add_argument("--clips", type=int, default=1000, help=f"{TILES_OF_A_CLIP} pairs each")
    parser.add_argument("--tile", type=int, default=80, help="side of LR")
    parser.add_argument("--window", type=int, default=CLIP_SIDE, help="side of a clip in LR; a source has that times the scale")
    parser.add_argument("--part", choices=["train", *PARTS], default="train")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--from-clip", type=int, default=0, help="to share the work among processes: this clip up to --clips")
    args = parser.parse_args()
    if args.window < args.tile:
        sys.exit(f"--window {args.window}: is smaller than a tile of {args.tile}")
    if args.from_clip >= args.clips:
        sys.exit(f"--from-clip {args.from_clip}: there are only {args.clips} clips; give --clips a larger number")
    sources = part_of(find(args.folders, PICTURES | FILMS), args.part)
    if not sources:
        sys.exit(f"{args.folders[0]}: holds no pictures ({' '.join(sorted(PICTURES))}) and no films")
    args.out.mkdir(parents=True, exist_ok=True)
    for first in range(args.from_clip, args.clips, CLIPS_OF_A_SHARD):
        clips = range(first, min(first + CLIPS_OF_A_SHARD, args.clips))
        pairs = [pair for clip in clips for pair in pairs_of_clip(clip, sources, args)]
        name = f"{args.part}-{first:05}"
        # The list of kinds comes last: a shard without it is not whole.
        for suffix, column in (("lr", 0), ("hr", 1)):
            np.save(args.out / f"{name}-{suffix}.npy", np.stack([pair[column] for pair in pairs]))
        (args.out / f"{name}.json").write_text(json.dumps([pair[2] for pair in pairs]))
        print(f"{name}: {len(pairs)} pairs", flush=True)


def pairs_of_clip(index, sources, args):
    """[(LR tile, HR tile, kind)] of the clip of that number."""
    rng = np.random.default_rng([args.seed, index])
    source = sources[rng.integers(len(sources))]
    clean = args.track == "clean" or rng.random() < CLEAN_SHARE
    side = args.window * args.scale
    frames = TILES_OF_A_CLIP if clean else CLIP_FRAMES
    if source.suffix.lower() in FILMS:
        hr = clip_from_film(source, side, frames, rng)
    else:
        hr = stills(source, side, frames, clean, rng)
    hr = to_codes(hr)
    if clean:
        lr, kind = to_codes(reduce(hr, args.scale, "bicubic")), "clean"
    else:
        codec = CODECS[rng.choice(len(CODECS), p=[codec.weight for codec in CODECS])]
        lr = to_codes(worsen(reduce(hr, args.scale, rng.choice(list(KERNELS))), rng))
        quality = rng.integers(*codec.range, endpoint=True)
        lr, kind = code(lr, codec.name, codec.quality, quality, *codec.others), f"{codec.name} {quality}"
    chosen = rng.choice(len(lr), TILES_OF_A_CLIP, replace=False)
    corners = rng.integers(0, args.window - args.tile, (TILES_OF_A_CLIP, 2), endpoint=True)
    return [(cut(lr[i], corner, args.tile), cut(hr[i], corner * args.scale, args.tile * args.scale), kind)
            for i, corner in zip(chosen, corners)]


def cut(picture, corner, side):
    y, x = corner
    return picture[y : y + side, x : x + side]


def stills(source, side, frames, clean, rng):
    """Frames of a still that was made smaller by chance, which also takes its own coding's traces out of it."""
    still = luma(read_rgb(source), rng.choice(list(MATRICES)))
    least = max(side / min(still.shape), 0.4)
    if least > 1:
        sys.exit(f"{source}: is smaller than {side} pixels; leave it out")
    factor = rng.uniform(least, 1)
    still = resize(still, *(max(side, int(extent * factor)) for extent in still.shape))
    if not clean:
        return clip_from_still(still, side, frames, rng)
    corners = [rng.integers(0, np.array(still.shape) - side, endpoint=True) for _ in range(frames)]
    return np.stack([cut(still, corner, side) for corner in corners])


def clip_from_film(path, side, frames, rng):
    """A window that stays, over frames that follow each other."""
    height, width = film_size(path)
    if min(height, width) < side:
        sys.exit(f"{path}: is smaller than {side} pixels; leave it out")
    out = subprocess.run(["ffprobe", "-v", "error", "-show_entries", "format=duration", "-of", "csv=p=0", path],
                         capture_output=True, text=True).stdout
    # The last two seconds are left, that there are frames enough.
    film = read_film(path, frames, rng.uniform(0, max(float(out) - 2, 0)))
    if len(film) < frames:
        sys.exit(f"{path}: has no {frames} frames on end; leave it out")
    y, x = rng.integers(0, [height - side, width - side], endpoint=True)
    return film[:, y : y + side, x : x + side]


if __name__ == "__main__":
    main()

"""LR/HR pairs for training and evaluation: luma, 8-bit limited range.

In: folders of images and videos, decoded by the ffmpeg command. Out: shards of memory-mapped arrays,
    NAME-lr.npy [N, T, T] u8      NAME-hr.npy [N, T * scale, T * scale] u8      NAME.json, the kind of each pair
which are identical for the same files, arguments and encoders, on any number of cores. The tracks are mixtures of clean pairs
(LR by antialiased bicubic, as in the literature) and of degraded ones; degrade.py has the table. This module must not know
networks.

    python training/data.py OUT FOLDER... [--track video] [--clips 1000]
"""

import argparse
import json
import os
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

from degrade import TRACKS, degraded
from frames import MATRICES, downscale, ffmpeg, luma, read_rgb, read_video, resize, to_codes, video_size

IMAGES = {".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".jxl"}
VIDEOS = {".mp4", ".mkv", ".mov", ".webm", ".m4v", ".y4m", ".ts"}

# Of every 20 files in name order, one is in the validation set and one in the test set. The training set has neither.
PARTS = {"valid": 0, "test": 10}
PART_STEP = 20

# Frames and side of a degraded clip: long enough for frames of every type, small enough to encode thousands.
CLIP_FRAMES, CLIP_SIDE = 24, 160
TILES_PER_CLIP = 4
# Sources are downscaled by a random factor, at least this: it removes the artefacts of their own compression.
FACTOR_MIN = 0.4
CLIPS_PER_SHARD = 100


# ---- files

def find(folders, suffixes):
    """Lists the files in these folders, in the same order on every machine."""
    files = (file for folder in folders for file in Path(folder).rglob("*"))
    return sorted((file for file in files if file.suffix.lower() in suffixes), key=lambda file: (file.name, str(file)))


def part_of(files, part):
    """Selects the files of the "train", "valid" or "test" set."""
    held_out = {name: [i for i in range(len(files)) if i % PART_STEP == at] for name, at in PARTS.items()}
    chosen = held_out.get(part) or [i for i in range(len(files)) if i % PART_STEP not in PARTS.values()]
    return [files[i] for i in chosen]


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


# ---- shards

def main():
    parser = argparse.ArgumentParser(description="Writes LR/HR pairs for training.")
    parser.add_argument("out", type=Path)
    parser.add_argument("folders", type=Path, nargs="+", help="folders of images and videos")
    parser.add_argument("--track", choices=list(TRACKS), default="clean")
    parser.add_argument("--scale", type=int, default=2)
    parser.add_argument("--clips", type=int, default=1000, help=f"number of clips, {TILES_PER_CLIP} pairs each")
    parser.add_argument("--tile", type=int, default=80, help="side of a pair in LR pixels")
    parser.add_argument("--window", type=int, default=CLIP_SIDE,
                        help="side of a clip in LR pixels; sources must be at least this times the scale")
    parser.add_argument("--part", choices=["train", *PARTS], default="train")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--from-clip", type=int, default=0, help="number of the first clip: adds to what is there, of any track")
    args = parser.parse_args()
    if args.window < args.tile:
        sys.exit(f"--window {args.window}: is smaller than --tile {args.tile}; give a larger window")
    if args.from_clip >= args.clips:
        sys.exit(f"--from-clip {args.from_clip}: there are only {args.clips} clips; give --clips a larger number")
    sources = part_of(find(args.folders, IMAGES | VIDEOS), args.part)
    if not sources:
        sys.exit(f"{args.folders[0]}: contains no images ({' '.join(sorted(IMAGES))}) and no videos")
    args.out.mkdir(parents=True, exist_ok=True)
    # Clips are independent of each other: the number of processes changes nothing.
    with ProcessPoolExecutor(len(os.sched_getaffinity(0))) as processes:
        for first in range(args.from_clip, args.clips, CLIPS_PER_SHARD):
            clips = range(first, min(first + CLIPS_PER_SHARD, args.clips))
            pairs = [pair for of_clip in processes.map(partial(pairs_of_clip, sources=sources, args=args), clips) for pair in of_clip]
            write_shard(args.out, f"{args.part}-{first:05}", pairs)


def write_shard(out, name, pairs):
    # The list of kinds is written last: a shard without it is incomplete.
    for suffix, column in (("lr", 0), ("hr", 1)):
        np.save(out / f"{name}-{suffix}.npy", np.stack([pair[column] for pair in pairs]))
    (out / f"{name}.json").write_text(json.dumps([pair[2] for pair in pairs]))
    print(f"{name}: {len(pairs)} pairs", flush=True)


def pairs_of_clip(index, sources, args):
    """Returns [(LR tile, HR tile, kind)] of one clip."""
    rng = np.random.default_rng([args.seed, index])
    source = sources[rng.integers(len(sources))]
    track = TRACKS[args.track]
    clean = rng.random() < track.clean
    side = args.window * args.scale
    frames = TILES_PER_CLIP if clean else CLIP_FRAMES
    if source.suffix.lower() in VIDEOS:
        hr = clip_from_video(source, side, frames, rng)
    else:
        hr = frames_from_image(source, side, frames, clean, rng)
    if clean:
        hr = to_codes(hr)
        lr, kind = to_codes(downscale(hr, args.scale, "bicubic")), "clean"
    else:
        lr, hr, kind = degraded(hr, args.scale, track, rng)
    chosen = rng.choice(len(lr), TILES_PER_CLIP, replace=False)
    corners = rng.integers(0, args.window - args.tile, (TILES_PER_CLIP, 2), endpoint=True)
    return [(crop(lr[i], corner, args.tile), crop(hr[i], corner * args.scale, args.tile * args.scale), kind)
            for i, corner in zip(chosen, corners)]


def crop(image, corner, side):
    y, x = corner
    return image[y : y + side, x : x + side]


def frames_from_image(source, side, frames, clean, rng):
    """Crops or a clip of an image downscaled by a random factor."""
    image = luma(read_rgb(source), rng.choice(list(MATRICES)))
    factor_min = max(side / min(image.shape), FACTOR_MIN)
    if factor_min > 1:
        sys.exit(f"{source}: is smaller than {side} pixels; remove it from the folder")
    factor = rng.uniform(factor_min, 1)
    image = resize(image, *(max(side, int(extent * factor)) for extent in image.shape))
    if not clean:
        return clip_from_image(image, side, frames, rng)
    corners = [rng.integers(0, np.array(image.shape) - side, endpoint=True) for _ in range(frames)]
    return np.stack([crop(image, corner, side) for corner in corners])


def clip_from_video(path, side, frames, rng):
    """Crops one window from consecutive frames at a random position, and downscales it by a random factor as with images."""
    height, width = video_size(path)
    if min(height, width) < side:
        sys.exit(f"{path}: is smaller than {side} pixels; remove it from the folder")
    out = subprocess.run(["ffprobe", "-v", "error", "-show_entries", "format=duration", "-of", "csv=p=0", path],
                         capture_output=True, text=True).stdout
    # The clip starts at least two seconds before the end, so that there are enough frames.
    video = read_video(path, frames, rng.uniform(0, max(float(out) - 2, 0)))
    if len(video) < frames:
        sys.exit(f"{path}: has fewer than {frames} consecutive frames; remove it from the folder")
    window = int(rng.uniform(side, min(height, width, side / FACTOR_MIN)))
    y, x = rng.integers(0, [height - window, width - window], endpoint=True)
    video = np.moveaxis(video[:, y : y + window, x : x + window], 0, 2)
    return to_codes(np.moveaxis(resize(video, side, side), 2, 0))


if __name__ == "__main__":
    main()

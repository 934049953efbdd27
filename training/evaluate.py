"""Judges networks beside bicubic, Lanczos and sharpened Lanczos, against the originals.

In: weights; folders of images, original videos, or folders of images to generate clips from. Out: a Markdown table of each
material and, with --json, the same figures for programs. PSNR and SSIM follow the literature: Y' of BT.601 in 8-bit limited
range, rounded; `scale` pixels cropped from each border; peak 255. LR of images is downscaled with MATLAB's bicubic and rounded
to 8 bits, as files store it. judges.py has the other judges.

    python training/evaluate.py models/hasn-lite-x2.safetensors --images Set5 --video original.mp4
"""

import argparse
import functools
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

import data
import degrade
import frames
import judges
from train import keep_memory, load_network, to_tensor

CODINGS = ["libx264 -crf 23", "libx264 -crf 28", "libx265 -crf 28"]
# Every fifth frame of a generated clip is evaluated: they include every frame type.
CLIP_STEP = 5
# Amount and sigma of the unsharp mask after Lanczos.
SHARPENING = 0.5, 1.0
# The size of the grain of --grain, in HR pixels.
GRAIN_SIZE = 1.0
JUDGES = ("psnr", "ssim", "vmaf", "ssimulacra2", "flicker")


def main():
    args = arguments()
    keep_memory()
    torch.set_num_threads(args.threads)
    networks = {path.stem if path.suffix != ".pt" else path.parent.name: load_network(path)[0] for path in args.models}
    scales = {net.sizes.scale for net in networks.values()} or {args.scale}
    assert len(scales) == 1, "compared networks must have the same scale"
    scale = scales.pop()
    upscalers = {
        "bicubic": lambda lr: upscale(lr, scale, "bicubic"),
        "Lanczos": lambda lr: upscale(lr, scale, "lanczos"),
        "Lanczos, sharpened": lambda lr: degrade.sharpened(upscale(lr, scale, "lanczos")[None], *SHARPENING)[0],
        **{name: lambda lr, net=net: run_network(net, lr) for name, net in networks.items()},
    }
    results = {}
    for title, samples in materials(args, scale).items():
        results[title] = evaluate(samples, upscalers, scale, args.judges)
        print(f"{title}\n\n{table(results[title])}\n", flush=True)
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + "\n")


def arguments():
    parser = argparse.ArgumentParser(description="Judges networks and prints tables.")
    parser.add_argument("models", type=Path, nargs="*", help="safetensors or checkpoint.pt of luma networks")
    parser.add_argument("--images", type=Path, action="append", default=[], metavar="FOLDER", help="folder of originals")
    parser.add_argument("--video", type=Path, action="append", default=[], metavar="FILE",
                        help="original video, which is downscaled and encoded")
    parser.add_argument("--pair", type=Path, nargs=2, action="append", default=[], metavar=("LR", "HR"),
                        help="video as it is, and its original")
    parser.add_argument("--clips", type=Path, action="append", default=[], metavar="FOLDER",
                        help="folder of images to generate clips from")
    parser.add_argument("--coding", action="append", help=f"encoder and options [default: {'; '.join(CODINGS)}]")
    parser.add_argument("--grain", type=float, default=0, metavar="STRENGTH",
                        help="add film grain to the originals of --video and --clips: its standard deviation in code values")
    parser.add_argument("--part", choices=list(data.PARTS), help="use only this set of --images and --clips, as data.py splits them")
    parser.add_argument("--every", type=int, default=1, help="evaluate each n-th frame of a video")
    parser.add_argument("--judges", type=lambda text: text.split(","), default=list(JUDGES), metavar="NAME,...",
                        help=f"the judges to ask [default: {','.join(JUDGES)}]")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to a file as well")
    parser.add_argument("--scale", type=int, default=2, help="scale if no network is given")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    unknown = set(args.judges) - set(JUDGES)
    if unknown:
        parser.error(f"--judges {','.join(sorted(unknown))}: is not a judge; the judges are {', '.join(JUDGES)}")
    return args


# ---- materials: frames of LR and HR, code values, u8

@dataclass(frozen=True)
class Sample:
    lr: np.ndarray
    hr: np.ndarray
    # Of a video: VMAF's motion, and LR and HR of the previous frame.
    motion: float = 0
    previous: tuple = None


def materials(args, scale):
    """Returns {title: samples}."""
    found = {}
    for folder in args.images:
        found[f"{folder.name}, images"] = images(folder, scale, args.part)
    for lr, hr in args.pair:
        found[f"{lr.name} for {hr.name}"] = of_video(frames.read_video(lr), frames.read_video(hr), args.every)
    grain = f", grain {args.grain:g}" if args.grain else ""
    for coding in args.coding or CODINGS:
        for video in args.video:
            found[f"{video.name}{grain}, {coding}"] = encoded_video(video, scale, coding, args.every, args.grain)
        for folder in args.clips:
            found[f"{folder.name}, clips{grain}, {coding}"] = clips(folder, scale, coding, args.part, args.grain)
    return found


def image_files(folder, part):
    files = data.find([folder], data.IMAGES)
    if not files:
        raise SystemExit(f"{folder}: contains no images")
    return data.part_of(files, part) if part else files


def images(folder, scale, part):
    for file in image_files(folder, part):
        hr = frames.to_codes(frames.luma(frames.read_rgb(file), "bt601"))
        hr = hr[: hr.shape[0] // scale * scale, : hr.shape[1] // scale * scale]
        yield Sample(frames.to_codes(frames.resize(hr, hr.shape[0] // scale, hr.shape[1] // scale)), hr)


def encoded_video(path, scale, coding, every, grain):
    """Downscales with FFmpeg's bicubic and encodes, as a user would."""
    hr, source = grainy(frames.read_video(path), grain), ["-i", path]
    with tempfile.TemporaryDirectory() as folder:
        encoded = Path(folder, "encoded.mkv")
        if grain:
            source = ["-f", "rawvideo", "-pix_fmt", "gray", "-s", f"{hr.shape[2]}x{hr.shape[1]}", "-r", 25, "-i", "-"]
        downscaling = f"scale=iw/{scale}:ih/{scale}:flags=bicubic"
        frames.ffmpeg(*source, "-an", "-sn", "-vf", downscaling, "-pix_fmt", "yuv420p", "-c:v", *coding.split(), encoded,
                      input=hr.tobytes() if grain else None)
        lr = frames.read_video(encoded)
    assert len(lr) == len(hr), f"{path}: {len(hr)} frames, {len(lr)} after encoding"
    yield from of_video(lr, hr, every)


def clips(folder, scale, coding, part, grain):
    """Generates a clip from each image, with motion as in training."""
    side = data.CLIP_SIDE * scale
    for index, file in enumerate(image_files(folder, part)):
        image = frames.luma(frames.read_rgb(file), "bt709")
        if min(image.shape) > 2 * side:
            image = frames.resize(image, image.shape[0] // 2, image.shape[1] // 2)
        hr = frames.to_codes(data.clip_from_image(image, side, data.CLIP_FRAMES, np.random.default_rng(index)))
        hr = grainy(hr, grain)
        lr = degrade.encode_decode(frames.to_codes(frames.downscale(hr, scale, "bicubic-ffmpeg")), *coding.split())
        yield from of_video(lr, hr, CLIP_STEP)


def grainy(hr, strength):
    """Adds the same grain in each run."""
    if not strength:
        return hr
    return np.concatenate([frames.to_codes(degrade.grain(hr[i : i + 1], strength, GRAIN_SIZE, np.random.default_rng(i)))
                           for i in range(len(hr))])


def of_video(lr, hr, every):
    motion = vmaf().motion(hr)
    for i in range(0, len(hr), every):
        yield Sample(lr[i], hr[i], motion[i], (lr[i - 1], hr[i - 1]) if i else None)


# ---- upscaling

def upscale(lr, scale, kernel):
    return frames.resize(lr, lr.shape[0] * scale, lr.shape[1] * scale, kernel)


@torch.no_grad()
def run_network(net, lr):
    return net(to_tensor(lr[None]))[0, 0].double().numpy() * (frames.WHITE - frames.BLACK) + frames.BLACK


# ---- judging

@functools.cache
def vmaf():
    return judges.Vmaf()


def evaluate(samples, upscalers, scale, asked=JUDGES):
    """Returns {upscaler: {figure: mean over the samples}}."""
    results = {name: [] for name in upscalers}
    for sample in samples:
        flow = judges.Flow(sample.previous[1], sample.hr) if sample.previous and "flicker" in asked else None
        for name, upscaler in upscalers.items():
            out = frames.to_codes(upscaler(sample.lr))
            figures = of_frame(out, sample, scale, asked)
            if flow:
                outs = frames.to_codes(upscaler(sample.previous[0])), out
                figures["flicker"], figures["flicker_moved"] = judges.flicker(outs, (sample.previous[1], sample.hr), flow)
            results[name].append(figures)
    return {name: means(figures) for name, figures in results.items()}


def of_frame(out, sample, scale, asked):
    inside = (slice(scale, -scale),) * 2
    figures = {"mse": judges.mse(out[inside], sample.hr[inside])}
    figures["psnr"] = judges.psnr(figures["mse"])
    if "ssim" in asked:
        figures["ssim"] = judges.ssim(out[inside], sample.hr[inside])
    if "vmaf" in asked:
        figures["vmaf"], figures["vmaf_neg"] = vmaf()(out, sample.hr, sample.motion)
    if "ssimulacra2" in asked:
        figures["ssimulacra2"] = judges.similarity(out, sample.hr)
    return figures


def means(figures):
    names = dict.fromkeys(name for frame in figures for name in frame)
    mean = {name: float(np.nanmean([frame.get(name, np.nan) for frame in figures])) for name in names}
    # `hasn compare` prints it too.
    mean["psnr_of_mean_mse"] = float(judges.psnr(mean.pop("mse")))
    return mean


def table(results):
    columns = {
        "PSNR-Y / SSIM-Y": ("{psnr:.2f} / {ssim:.4f}", "ssim"), "PSNR-Y": ("{psnr:.2f}", "psnr"),
        "PSNR-Y of mean MSE": ("{psnr_of_mean_mse:.2f}", "psnr_of_mean_mse"),
        "VMAF": ("{vmaf:.1f}", "vmaf"), "VMAF-NEG": ("{vmaf_neg:.1f}", "vmaf_neg"), "SSIMULACRA2": ("{ssimulacra2:.1f}", "ssimulacra2"),
        "flicker": ("{flicker:.2f}", "flicker"), "flicker along motion": ("{flicker_moved:.2f}", "flicker_moved"),
    }
    had = next(iter(results.values()))
    shown = [title for title, (_, name) in columns.items() if name in had and not (title == "PSNR-Y" and "ssim" in had)]
    lines = ["| | " + " | ".join(shown) + " |", "|---" * (len(shown) + 1) + "|"]
    for name, figures in results.items():
        lines.append(f"| {name} | " + " | ".join(columns[title][0].format(**figures) for title in shown) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()

"""PSNR-Y and SSIM-Y of networks against the originals, beside bicubic and Lanczos.

In: weights; folders of images, original videos, or folders of images to generate clips from. Out: a Markdown table. The
metrics follow the literature: Y' of BT.601 in 8-bit limited range, rounded; `scale` pixels cropped from each border; peak
255. LR of images is downscaled with MATLAB's bicubic and rounded to 8 bits, as files store it.

    python training/evaluate.py models/hasn-lite-x2.safetensors --images Set5 --video original.mp4
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch

import data
import degrade
import frames
from train import load_network, to_tensor

CODINGS = ["libx264 -crf 23", "libx264 -crf 28", "libx265 -crf 28"]
# Wang et al. 2004: side and sigma of the Gaussian window, and the stabilising constants.
WINDOW, SIGMA, K1, K2 = 11, 1.5, 0.01, 0.03
# Every fifth frame of a generated clip is evaluated: they include every frame type.
CLIP_STEP = 5


def main():
    args = arguments()
    torch.set_num_threads(args.threads)
    networks = {path.stem if path.suffix != ".pt" else path.parent.name: load_network(path)[0] for path in args.models}
    scales = {net.sizes.scale for net in networks.values()} or {args.scale}
    assert len(scales) == 1, "compared networks must have the same scale"
    scale = scales.pop()
    upscalers = {
        "bicubic": lambda lr: upscale(lr, scale, "bicubic"),
        "Lanczos": lambda lr: upscale(lr, scale, "lanczos"),
        **{name: lambda lr, net=net: run_network(net, lr) for name, net in networks.items()},
    }
    columns = {}
    for folder in args.images:
        columns[f"{folder.name}, images"] = images(folder, scale, args.part)
    for coding in args.coding or CODINGS:
        for video in args.video:
            columns[f"{video.name}, {coding}"] = encoded_video(video, scale, coding, args.every)
        for folder in args.clips:
            columns[f"{folder.name}, clips, {coding}"] = clips(folder, scale, coding, args.part)
    metrics = {title: evaluate(pairs, upscalers, scale) for title, pairs in columns.items()}
    print(table(list(upscalers), metrics))


def arguments():
    parser = argparse.ArgumentParser(description="Prints PSNR-Y and SSIM-Y of networks as a table.")
    parser.add_argument("models", type=Path, nargs="*", help="safetensors or checkpoint.pt of luma networks")
    parser.add_argument("--images", type=Path, action="append", default=[], metavar="FOLDER", help="folder of originals")
    parser.add_argument("--video", type=Path, action="append", default=[], metavar="FILE",
                        help="original video, which is downscaled and encoded")
    parser.add_argument("--clips", type=Path, action="append", default=[], metavar="FOLDER",
                        help="folder of images to generate clips from")
    parser.add_argument("--coding", action="append", help=f"encoder and options [default: {'; '.join(CODINGS)}]")
    parser.add_argument("--part", choices=list(data.PARTS), help="use only this set of --images and --clips, as data.py splits them")
    parser.add_argument("--every", type=int, default=1, help="evaluate each n-th frame of a video")
    parser.add_argument("--scale", type=int, default=2, help="scale if no network is given")
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


# ---- pairs of LR and HR code values, u8

def image_files(folder, part):
    files = data.find([folder], data.IMAGES)
    if not files:
        raise SystemExit(f"{folder}: contains no images")
    return data.part_of(files, part) if part else files


def images(folder, scale, part):
    for file in image_files(folder, part):
        hr = frames.to_codes(frames.luma(frames.read_rgb(file), "bt601"))
        hr = hr[: hr.shape[0] // scale * scale, : hr.shape[1] // scale * scale]
        yield frames.to_codes(frames.resize(hr, hr.shape[0] // scale, hr.shape[1] // scale)), hr


def encoded_video(path, scale, coding, every):
    """Downscales with FFmpeg's bicubic and encodes, as a user would."""
    with tempfile.TemporaryDirectory() as folder:
        encoded = Path(folder, "encoded.mkv")
        downscaling = f"scale=iw/{scale}:ih/{scale}:flags=bicubic"
        frames.ffmpeg("-i", path, "-an", "-sn", "-vf", downscaling, "-pix_fmt", "yuv420p", "-c:v", *coding.split(), encoded)
        lr = frames.read_video(encoded)
    hr = frames.read_video(path)
    assert len(lr) == len(hr), f"{path}: {len(hr)} frames, {len(lr)} after encoding"
    yield from zip(lr[::every], hr[::every])


def clips(folder, scale, coding, part):
    """Generates a clip from each image, with motion as in training."""
    side = data.CLIP_SIDE * scale
    for index, file in enumerate(image_files(folder, part)):
        image = frames.luma(frames.read_rgb(file), "bt709")
        if min(image.shape) > 2 * side:
            image = frames.resize(image, image.shape[0] // 2, image.shape[1] // 2)
        hr = frames.to_codes(data.clip_from_image(image, side, data.CLIP_FRAMES, np.random.default_rng(index)))
        lr = degrade.encode_decode(frames.to_codes(frames.downscale(hr, scale, "bicubic-ffmpeg")), *coding.split())
        yield from zip(lr[::CLIP_STEP], hr[::CLIP_STEP])


# ---- upscaling

def upscale(lr, scale, kernel):
    return frames.resize(lr, lr.shape[0] * scale, lr.shape[1] * scale, kernel)


@torch.no_grad()
def run_network(net, lr):
    return net(to_tensor(lr[None]))[0, 0].double().numpy() * (frames.WHITE - frames.BLACK) + frames.BLACK


# ---- metrics

def evaluate(pairs, upscalers, scale):
    """Returns {name: (mean PSNR, mean SSIM)}."""
    results = {name: [] for name in upscalers}
    for lr, hr in pairs:
        inside = (slice(scale, -scale),) * 2
        for name, upscaler in upscalers.items():
            out = frames.to_codes(upscaler(lr)).astype(np.float64)[inside]
            results[name].append((psnr(out, hr[inside]), ssim(out, hr[inside].astype(np.float64))))
    return {name: np.mean(values, 0) for name, values in results.items()}


def psnr(a, b):
    return 10 * np.log10(255**2 / np.mean((a - b) ** 2))


def ssim(a, b):
    """Returns the mean over all positions at which the window lies inside the image."""
    x = np.arange(WINDOW) - WINDOW // 2
    taps = np.exp(-(x**2) / (2 * SIGMA**2))
    taps /= taps.sum()

    def windowed(image):
        for axis in (0, 1):
            size = image.shape[axis] - WINDOW + 1
            image = sum(tap * np.take(image, np.arange(i, i + size), axis) for i, tap in enumerate(taps))
        return image

    mean_a, mean_b = windowed(a), windowed(b)
    variance_a, variance_b = windowed(a * a) - mean_a**2, windowed(b * b) - mean_b**2
    covariance = windowed(a * b) - mean_a * mean_b
    c1, c2 = (K1 * 255) ** 2, (K2 * 255) ** 2
    top = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    return np.mean(top / ((mean_a**2 + mean_b**2 + c1) * (variance_a + variance_b + c2)))


def table(names, metrics):
    lines = ["| | " + " | ".join(metrics) + " |", "|---" * (len(metrics) + 1) + "|"]
    for name in names:
        cells = (f"{psnr:.2f} / {ssim:.4f}" for psnr, ssim in (column[name] for column in metrics.values()))
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()

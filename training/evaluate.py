"""How near a network's pictures come to the originals, beside bicubic and Lanczos: PSNR-Y and SSIM-Y.

In: weights, and folders of stills, films, or stills to make clips of. Out: a table in markdown. As the literature does it:
Y' of BT.601 in 8-bit limited range, rounded, as many pixels as the scale left out at each border, peak 255. LR of stills is
MATLAB's bicubic reduction, rounded to 8 bits as files hold it.

    python training/evaluate.py models/hasn-lite-x2.safetensors --stills Set5 --film original.mp4
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch

import data
from train import load_network, to_tensor

CODINGS = ["libx264 -crf 23", "libx264 -crf 28", "libx265 -crf 28"]
# Wang et al. 2004: a Gaussian window of 11 and what keeps SSIM stable.
WINDOW, SIGMA, K1, K2 = 11, 1.5, 0.01, 0.03
# Judged of a clip made of a still: one of every type of frame is among them.
CLIP_STEP = 5


def main():
    args = arguments()
    torch.set_num_threads(args.threads)
    networks = {path.stem if path.suffix != ".pt" else path.parent.name: load_network(path)[0] for path in args.models}
    scales = {net.sizes.scale for net in networks.values()} or {args.scale}
    assert len(scales) == 1, "networks of one scale are compared"
    scale = scales.pop()
    enlargers = {
        "bicubic": lambda lr: enlarge(lr, scale, "bicubic"),
        "Lanczos": lambda lr: enlarge(lr, scale, "lanczos"),
        **{name: lambda lr, net=net: run_network(net, lr) for name, net in networks.items()},
    }
    columns = {}
    for folder in args.stills:
        columns[f"{folder.name}, stills"] = stills(folder, scale, args.part)
    for coding in args.coding or CODINGS:
        for film in args.film:
            columns[f"{film.name}, {coding}"] = coded_film(film, scale, coding, args.every)
        for folder in args.clips:
            columns[f"{folder.name}, clips, {coding}"] = clips(folder, scale, coding, args.part)
    figures = {title: judge(pairs, enlargers, scale) for title, pairs in columns.items()}
    print(table(list(enlargers), figures))


def arguments():
    parser = argparse.ArgumentParser(description="PSNR-Y and SSIM-Y of networks, as a table.")
    parser.add_argument("models", type=Path, nargs="*", help="safetensors or checkpoint.pt, luma")
    parser.add_argument("--stills", type=Path, action="append", default=[], metavar="FOLDER")
    parser.add_argument("--film", type=Path, action="append", default=[], help="an original, to be reduced and coded")
    parser.add_argument("--clips", type=Path, action="append", default=[], metavar="FOLDER", help="stills to make clips of")
    parser.add_argument("--coding", action="append", help=f"encoder and options [default: {'; '.join(CODINGS)}]")
    parser.add_argument("--part", choices=list(data.PARTS), help="only what data.py left out for it, of --stills and --clips")
    parser.add_argument("--every", type=int, default=1, help="of a film each n-th picture")
    parser.add_argument("--scale", type=int, default=2, help="where no network says it")
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


# ---- pairs of LR and HR codes, u8

def pictures(folder, part):
    files = data.find([folder], data.PICTURES)
    if not files:
        raise SystemExit(f"{folder}: holds no pictures")
    return data.part_of(files, part) if part else files


def stills(folder, scale, part):
    for file in pictures(folder, part):
        hr = data.to_codes(data.luma(data.read_rgb(file), "bt601"))
        hr = hr[: hr.shape[0] // scale * scale, : hr.shape[1] // scale * scale]
        yield data.to_codes(data.resize(hr, hr.shape[0] // scale, hr.shape[1] // scale)), hr


def coded_film(path, scale, coding, every):
    """Reduced by FFmpeg's bicubic and coded as a user would."""
    with tempfile.TemporaryDirectory() as folder:
        coded = Path(folder, "coded.mkv")
        reduction = f"scale=iw/{scale}:ih/{scale}:flags=bicubic"
        data.ffmpeg("-i", path, "-an", "-sn", "-vf", reduction, "-pix_fmt", "yuv420p", "-c:v", *coding.split(), coded)
        lr = data.read_film(coded)
    hr = data.read_film(path)
    assert len(lr) == len(hr), f"{path}: {len(hr)} pictures, coded {len(lr)}"
    yield from zip(lr[::every], hr[::every])


def clips(folder, scale, coding, part):
    """A clip of each still, moving as in training."""
    side = data.CLIP_SIDE * scale
    for index, file in enumerate(pictures(folder, part)):
        still = data.luma(data.read_rgb(file), "bt709")
        if min(still.shape) > 2 * side:
            still = data.resize(still, still.shape[0] // 2, still.shape[1] // 2)
        hr = data.to_codes(data.clip_from_still(still, side, data.CLIP_FRAMES, np.random.default_rng(index)))
        lr = data.code(data.to_codes(data.reduce(hr, scale, "bicubic-ffmpeg")), *coding.split())
        yield from zip(lr[::CLIP_STEP], hr[::CLIP_STEP])


# ---- enlarging

def enlarge(lr, scale, kernel):
    return data.resize(lr, lr.shape[0] * scale, lr.shape[1] * scale, kernel)


@torch.no_grad()
def run_network(net, lr):
    return net(to_tensor(lr[None]))[0, 0].double().numpy() * (data.WHITE - data.BLACK) + data.BLACK


# ---- figures

def judge(pairs, enlargers, scale):
    """{name: (mean of PSNR, mean of SSIM)}."""
    found = {name: [] for name in enlargers}
    for lr, hr in pairs:
        inside = (slice(scale, -scale),) * 2
        for name, larger in enlargers.items():
            out = data.to_codes(larger(lr)).astype(np.float64)[inside]
            found[name].append((psnr(out, hr[inside]), ssim(out, hr[inside].astype(np.float64))))
    return {name: np.mean(values, 0) for name, values in found.items()}


def psnr(a, b):
    return 10 * np.log10(255**2 / np.mean((a - b) ** 2))


def ssim(a, b):
    """Mean over the places where the window lies wholly inside."""
    x = np.arange(WINDOW) - WINDOW // 2
    taps = np.exp(-(x**2) / (2 * SIGMA**2))
    taps /= taps.sum()

    def windowed(picture):
        for axis in (0, 1):
            size = picture.shape[axis] - WINDOW + 1
            picture = sum(tap * np.take(picture, np.arange(i, i + size), axis) for i, tap in enumerate(taps))
        return picture

    mean_a, mean_b = windowed(a), windowed(b)
    variance_a, variance_b = windowed(a * a) - mean_a**2, windowed(b * b) - mean_b**2
    covariance = windowed(a * b) - mean_a * mean_b
    c1, c2 = (K1 * 255) ** 2, (K2 * 255) ** 2
    top = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    return np.mean(top / ((mean_a**2 + mean_b**2 + c1) * (variance_a + variance_b + c2)))


def table(names, figures):
    lines = ["| | " + " | ".join(figures) + " |", "|---" * (len(figures) + 1) + "|"]
    for name in names:
        cells = (f"{psnr:.2f} / {ssim:.4f}" for psnr, ssim in (column[name] for column in figures.values()))
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()

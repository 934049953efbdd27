"""A strip of images: a detail of a frame as each upscaler of the program leaves it, beside the original.

In: an LR video or image and its HR original; `hasn` on PATH, of this version. Out: a PNG of two rows, every pixel twice as wide
and high:
    the original         bicubic             Lanczos                sharpened Lanczos
    LR, pixels repeated  hasn-lite-x2-video  hasn-lite-x2           hasn-x2

    python training/strips.py OUT.png LR HR --frame 110 --crop 380,60
"""

import argparse
import io
import subprocess
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

import frames

MODELS = ("hasn-lite-x2-video", "hasn-lite-x2", "hasn-x2")
RESAMPLERS = {
    "bicubic": "flags=bicubic",
    "Lanczos": "flags=lanczos",
    # The unsharp mask of evaluate.py: amount 0.5; FFmpeg's 5x5 window is about as wide as its sigma of 1.
    "Lanczos, sharpened": "flags=lanczos,unsharp=5:5:0.5:5:5:0",
}


def main():
    parser = argparse.ArgumentParser(description="Writes a strip of images that compares the upscalers.")
    parser.add_argument("out", type=Path)
    parser.add_argument("lr", type=Path)
    parser.add_argument("hr", type=Path)
    parser.add_argument("--frame", type=int, default=0)
    parser.add_argument("--crop", type=lambda text: tuple(map(int, text.split(","))), required=True, metavar="X,Y",
                        help="even position of the detail in HR pixels")
    parser.add_argument("--side", type=int, default=112, help="even side of the detail in HR pixels")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        lr = one_frame(args.lr, args.frame, Path(folder, "lr.mkv"))
        hr = one_frame(args.hr, args.frame, Path(folder, "hr.mkv"))
        images = [rgb(hr)]
        height, width = images[0].shape[:2]
        for options in RESAMPLERS.values():
            images.append(rgb(lr, f"scale={width}:{height}:{options}"))
        images.append(rgb(lr, f"scale={width}:{height}:flags=neighbor"))
        for model in MODELS:
            upscaled = Path(folder, f"{model}.mkv")
            subprocess.run(["hasn", "upscale", lr, upscaled, "--model", model, "--encoder", "ffv1"], check=True, capture_output=True)
            images.append(rgb(upscaled))
    x, y = args.crop
    details = [image[y : y + args.side, x : x + args.side].repeat(2, 0).repeat(2, 1) for image in images]
    assert all(detail.shape == (2 * args.side, 2 * args.side, 3) for detail in details), "the detail lies inside the frame"
    rows = [np.concatenate(details[at : at + 4], 1) for at in (0, 4)]
    Image.fromarray(np.concatenate(rows)).save(args.out, optimize=True)


def one_frame(path, index, out):
    frames.ffmpeg("-i", path, "-an", "-sn", "-vf", f"select=eq(n\\,{index})", "-frames:v", 1, "-pix_fmt", "yuv420p",
                  "-c:v", "ffv1", out)
    return out


def rgb(path, filters="null"):
    """Returns a frame as R'G'B', [H, W, 3] u8. The matrix is the same for all: some tag it, some do not."""
    filters += ",scale=in_color_matrix=bt709:out_range=pc:flags=accurate_rnd+full_chroma_int+bicubic"
    raw = frames.ffmpeg("-i", path, "-vf", filters, "-frames:v", 1, "-pix_fmt", "rgb24", "-f", "image2pipe", "-c:v", "png", "-")
    return np.array(Image.open(io.BytesIO(raw)).convert("RGB"))


if __name__ == "__main__":
    main()

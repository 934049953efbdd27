"""Frames of luma: reading images and videos with the ffmpeg command, and resampling.

Frames are Y' in 8-bit limited range, [H, W] or [N, H, W]: u8 codes, or f64 code values that are not rounded yet.
"""

import subprocess
import sys

import numpy as np

# K_R and K_B of BT.601 and BT.709.
MATRICES = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722)}
# 8-bit limited range, the same in BT.601 and BT.709.
BLACK, WHITE = 16, 235


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


def downscale(hr, scale, kernel):
    """[N, H, W] -> [N, H / scale, W / scale], not rounded."""
    frames = np.moveaxis(hr, 0, 2)
    return np.moveaxis(resize(frames, hr.shape[1] // scale, hr.shape[2] // scale, kernel), 2, 0)


# ---- images and videos

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

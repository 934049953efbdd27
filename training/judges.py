"""Judges of upscaled frames against their originals.

Frames are Y' in 8-bit limited range, [H, W] u8. PSNR and SSIM see errors, VMAF and SSIMULACRA2 what viewers see of them, the
flicker what they see of them in motion. Higher is better, except for flicker. This module must not know networks or files.
"""

import io

import cv2
import numpy as np
import torch
import ssimulacra2.ssimulacra2
from PIL import Image
from scipy.ndimage import gaussian_filter
from vmaf_torch import VMAF

from frames import BLACK, WHITE

# Wang et al. 2004: side and sigma of the Gaussian window, and the stabilising constants.
WINDOW, SIGMA, K1, K2 = 11, 1.5, 0.01, 0.03
# A pixel whose original differs by more from the one that moved here is uncovered, or its motion is wrong.
UNCOVERED = 8


def mse(a, b):
    return np.mean((a.astype(np.float64) - b) ** 2)


def psnr(mse):
    with np.errstate(divide="ignore"):
        return 10 * np.log10(255**2 / mse)


def ssim(a, b):
    """Returns the mean over all positions at which the window lies inside the image."""
    a, b = a.astype(np.float64), b.astype(np.float64)
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


class Vmaf:
    """VMAF and VMAF-NEG, model version 0.6.1, by vmaf-torch. NEG counts no enhancement beyond the original."""

    def __init__(self):
        self.modules = [VMAF(NEG=neg, clip_score=True).requires_grad_(False) for neg in (False, True)]

    @torch.no_grad()
    def motion(self, frames):
        """Returns VMAF's motion of each frame: the lesser difference from its two neighbours. It is of the originals, and of
        consecutive ones, also where only some frames are judged."""
        differences = [0.0]
        for i in range(1, len(frames)):
            differences.append(self.modules[0].motion.motion(as_tensor(frames[i - 1 : i + 1]))[1].item())
        after = differences[1:] + differences[-1:]
        return [0.0] + [min(pair) for pair in zip(differences[1:], after[1:])]

    @torch.no_grad()
    def __call__(self, out, hr, motion):
        out, hr, motion = as_tensor(out[None]), as_tensor(hr[None]), torch.tensor([[motion]])
        return [vmaf.predict(vmaf.compute_adm_score(hr, out), motion, vmaf.compute_vif_features(hr, out)).item()
                for vmaf in self.modules]


def as_tensor(frames):
    return torch.from_numpy(frames.astype(np.float32))[:, None]


def blur_of_libjxl(image, sigma=1.5):
    return gaussian_filter(image, sigma, mode="constant", truncate=3.33, axes=(0, 1))


# Version 0.3.0 mirrors the image at two of its sides. libjxl has zeros beyond all four, and the weights were fitted to that.
ssimulacra2.ssimulacra2.blur_image = blur_of_libjxl


def similarity(out, hr):
    """SSIMULACRA2 of the frames as gray sRGB images: 100 is identical, 90 and more is visually lossless."""
    def png(frame):
        gray = (frame.astype(np.float64) - BLACK) * (255 / (WHITE - BLACK))
        file = io.BytesIO()
        Image.fromarray(np.clip(gray + 0.5, 0, 255).astype(np.uint8)).save(file, "PNG", compress_level=1)
        return file

    return ssimulacra2.ssimulacra2.compute_ssimulacra2(png(hr), png(out))


class Flow:
    """Where the pixels of a frame were in the previous one: dense inverse search (Kroeger et al. 2016) on the originals."""

    def __init__(self, previous, frame):
        flow = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM).calc(frame, previous, None)
        y, x = np.mgrid[: frame.shape[0], : frame.shape[1]].astype(np.float32)
        self.x, self.y = x + flow[..., 0], y + flow[..., 1]
        inside = (self.x >= 0) & (self.x <= x.max()) & (self.y >= 0) & (self.y <= y.max())
        self.valid = inside & (np.abs(frame - self.warped(previous)) <= UNCOVERED)

    def warped(self, previous):
        """The previous frame's values at the places from which this frame's pixels came."""
        return cv2.remap(previous.astype(np.float32), self.x, self.y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def flicker(outs, hrs, flow):
    """Root mean squares, in code values, of how the error e = output - original changes from a frame to the next one:
        at the same place      e[t] - e[t-1], which is (out[t] - out[t-1]) - (hr[t] - hr[t-1])
        along the motion       e[t] - e[t-1] warped, over the pixels that were visible in both frames
    The first compares changes between frames with those of the original, as tLP and tOF of TecoGAN do with other distances
    (Chu et al. 2020, doi 10.1145/3386569.3392457). The second is the warping error with its mask of occlusions (Lai et al. 2018,
    "Learning blind video temporal consistency"), of the error instead of the output: errors that move with the objects,
    such as blur, count nothing, those that stay behind or come and go count in full."""
    before, now = (out.astype(np.float32) - hr for out, hr in zip(outs, hrs))
    moved = (now - flow.warped(before))[flow.valid]
    return np.sqrt(np.mean((now - before) ** 2)), np.sqrt(np.mean(moved**2)) if moved.size else np.nan

"""Losses of training, and mixes of them.

A loss takes the network's output and the HR image, both [N, channels, H, W] f32 in 0..1, and the LR image, and returns a
scalar to minimise, differentiable by PyTorch with respect to the output. This module must not know networks or files.
"""

import functools

import torch
import torch.nn.functional as F

import frames

# Errors below this count quadratically in charbonnier: a third of an 8-bit step.
CHARBONNIER_EPS = 1e-3
# Wang et al. 2004: side and sigma of the Gaussian window of SSIM, and the stabilising constants.
WINDOW, SIGMA, K1, K2 = 11, 1.5, 0.01, 0.03
# Wang et al. 2003: the weights of the scales, from the full size down.
SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)


def l1(out, hr, lr):
    return F.l1_loss(out, hr)


def charbonnier(out, hr, lr):
    return ((out - hr).square() + CHARBONNIER_EPS**2).sqrt().mean()


def psnr(out, hr, lr):
    """The negative mean PSNR of the pairs. With L1 a heavily compressed pair weighs several times as much as a clean one, and
    the network improves on it at the expense of the clean ones."""
    return 10 * (out - hr).square().mean((1, 2, 3)).log10().mean()


def ms_ssim(out, hr, lr):
    """1 - MS-SSIM, with the scales at which the window fits into the image."""
    x = torch.arange(WINDOW, dtype=out.dtype, device=out.device) - WINDOW // 2
    taps = torch.exp(-(x**2) / (2 * SIGMA**2))
    taps = taps / taps.sum()

    def windowed(image):
        image = image.flatten(0, 1)[:, None]
        return F.conv2d(F.conv2d(image, taps.view(1, 1, 1, -1)), taps.view(1, 1, -1, 1))

    weights = [w for scale, w in enumerate(SCALE_WEIGHTS) if min(out.shape[2:]) >> scale >= WINDOW]
    product = 1
    for scale, weight in enumerate(weights):
        if scale:
            out, hr = F.avg_pool2d(out, 2), F.avg_pool2d(hr, 2)
        mean_o, mean_h = windowed(out), windowed(hr)
        variance_o, variance_h = windowed(out * out) - mean_o**2, windowed(hr * hr) - mean_h**2
        covariance = windowed(out * hr) - mean_o * mean_h
        similarity = (2 * covariance + K2**2) / (variance_o + variance_h + K2**2)
        if scale == len(weights) - 1:
            similarity = similarity * (2 * mean_o * mean_h + K1**2) / (mean_o**2 + mean_h**2 + K1**2)
        # A negative mean has no power; its gradient at zero would be infinite.
        product = product * similarity.mean((1, 2, 3)).clamp(min=1e-4) ** (weight / sum(weights))
    return 1 - product.mean()


@functools.cache
def vmaf_network(device):
    from vmaf_torch import VMAF

    return VMAF(NEG=True, enable_motion=False).to(device).requires_grad_(False)


def vmaf_neg(out, hr, lr):
    """1 - VMAF-NEG / 100 of frames without motion. NEG counts no enhancement beyond the original: a sharpened output gains
    nothing. It sees only luma's detail, not its level: give it a share of a mix."""
    codes = (image.flatten(0, 1)[:, None] * (frames.WHITE - frames.BLACK) + frames.BLACK for image in (hr, out))
    return 1 - vmaf_network(out.device)(*codes).mean() / 100


def consistency(out, hr, lr):
    """The L1 difference between LR and the output downscaled to it by the bicubic of clean pairs: no shift of brightness or
    colour. For clean LR; the artefacts of a coded one would come back."""
    scale = out.shape[2] // lr.shape[2]
    # The row of the resampling matrix in the middle has the taps of every pixel away from the border.
    middle = frames.resize_axis(torch.eye(16 * scale).numpy(), 16, 0, *frames.KERNELS["bicubic"])[8]
    taps = torch.tensor(middle[4 * scale : 13 * scale], dtype=out.dtype, device=out.device)
    images = out.flatten(0, 1)[:, None]
    reduced = F.conv2d(F.conv2d(images, taps.view(1, 1, 1, -1), stride=(1, scale)), taps.view(1, 1, -1, 1), stride=(scale, 1))
    return F.l1_loss(reduced, lr.flatten(0, 1)[:, None, 4:-4, 4:-4])


LOSSES = {function.__name__: function for function in (l1, charbonnier, psnr, ms_ssim, vmaf_neg, consistency)}
# Those that training/fused computes itself, in the order of its weights.
PIXEL_LOSSES = ("l1", "charbonnier", "psnr")


class Mix:
    """A weighted sum of losses, written as l1 or 0.8*l1+0.2*psnr. `weights` is {name: weight}."""

    def __init__(self, text):
        self.text, self.weights = text, {}
        for term in text.split("+"):
            weight, _, name = term.strip().rpartition("*")
            if name.strip() not in LOSSES:
                raise ValueError(f"{text}: {name.strip()} is not a loss; the losses are {', '.join(LOSSES)}")
            try:
                value = float(weight) if weight else 1.0
            except ValueError:
                raise ValueError(f"{text}: {weight} is not a weight; write a mix as 0.8*l1+0.2*psnr") from None
            self.weights[name.strip()] = self.weights.get(name.strip(), 0.0) + value

    def __call__(self, out, hr, lr):
        return sum(weight * LOSSES[name](out, hr, lr) for name, weight in self.weights.items())

    def of_pixels(self):
        """True where every term is one of PIXEL_LOSSES."""
        return all(name in PIXEL_LOSSES for name in self.weights)

    def __str__(self):
        return self.text

"""Losses of training, and mixes of them.

A loss takes the network's output and the HR image, both [N, channels, H, W] f32 in 0..1, and returns a scalar to minimise,
differentiable by PyTorch. This module must not know networks or files.
"""

import torch
import torch.nn.functional as F

# Errors below this count quadratically in charbonnier: a third of an 8-bit step.
CHARBONNIER_EPS = 1e-3


def charbonnier(out, hr):
    return ((out - hr).square() + CHARBONNIER_EPS**2).sqrt().mean()


def psnr(out, hr):
    """The negative mean PSNR of the pairs. With L1 a heavily compressed pair weighs several times as much as a clean one, and
    the network improves on it at the expense of the clean ones."""
    return 10 * (out - hr).square().mean((1, 2, 3)).log10().mean()


LOSSES = {"l1": F.l1_loss, "charbonnier": charbonnier, "psnr": psnr}
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

    def __call__(self, out, hr):
        return sum(weight * LOSSES[name](out, hr) for name, weight in self.weights.items())

    def of_pixels(self):
        """True where every term is one of PIXEL_LOSSES."""
        return all(name in PIXEL_LOSSES for name in self.weights)

    def __str__(self):
        return self.text

"""Tests of losses.py, on generated images."""

import unittest

import numpy as np
import torch

import frames
import losses
from test_degrade import waves
from test_judges import blurred, sharpened, textured


def images():
    """Returns HR images in 0..1 and their LR, [2, 1, 96, 96] and [2, 1, 48, 48]."""
    noise = np.random.default_rng(0).normal(0, 12, (2, 96, 96))
    hr = (waves(96, 96, 2) + noise - frames.BLACK) / (frames.WHITE - frames.BLACK)
    return [torch.from_numpy(image).float()[:, None] for image in (hr, frames.downscale(hr, 2, "bicubic"))]


def worse(hr, amount):
    torch.manual_seed(0)
    return hr + amount * torch.randn(hr.shape)


class Losses(unittest.TestCase):
    def setUp(self):
        torch.set_num_threads(1)
        self.hr, self.lr = images()

    def test_every_loss_grows_with_the_error(self):
        for name, loss in losses.LOSSES.items():
            values = [loss(worse(self.hr, amount), self.hr, self.lr).item() for amount in (0.001, 0.01, 0.05, 0.1)]
            self.assertEqual(values, sorted(values), name)
            self.assertGreater(values[-1] - values[0], 0.01, name)

    def test_every_gradient_is_that_of_finite_differences(self):
        torch.manual_seed(1)
        for name, loss in losses.LOSSES.items():
            out = worse(self.hr, 0.03).requires_grad_()
            loss(out, self.hr, self.lr).backward()
            # Along the gradient, where rounding matters least, and along a smooth and a random direction.
            for direction in (out.grad, worse(self.hr, 0), torch.randn(out.shape)):
                direction = direction / direction.norm()
                step = 0.02
                with torch.no_grad():
                    ahead, behind = (loss(out + sign * step * direction, self.hr, self.lr).item() for sign in (1, -1))
                expected, found = (ahead - behind) / (2 * step), (out.grad * direction).sum().item()
                self.assertAlmostEqual(found, expected, delta=0.03 * abs(expected) + 0.01 * out.grad.norm().item(), msg=name)

    def test_descent_along_every_gradient_leads_towards_the_original(self):
        for name, loss in losses.LOSSES.items():
            out = worse(self.hr, 0.05).requires_grad_()
            optimiser = torch.optim.Adam([out], lr=2e-3)
            first = loss(out, self.hr, self.lr).item()
            error = (out - self.hr).square().mean().item()
            for _ in range(25):
                optimiser.zero_grad()
                loss(out, self.hr, self.lr).backward()
                optimiser.step()
            with torch.no_grad():
                self.assertLess(loss(out, self.hr, self.lr).item(), first - 0.005, name)
                self.assertLess((out - self.hr).square().mean().item(), error, name)

    def test_values_at_known_pairs(self):
        hr, lr = self.hr, self.lr
        self.assertAlmostEqual(losses.l1(hr + 0.1, hr, lr).item(), 0.1, 5)
        self.assertAlmostEqual(losses.psnr(hr + 0.1, hr, lr).item(), -20, 4)
        self.assertAlmostEqual(losses.ms_ssim(hr, hr, lr).item(), 0, 5)
        # For flat images only the luminance term of the coarsest of the four scales that fit is left.
        flat, weights = torch.full((1, 1, 96, 96), 0.4), losses.SCALE_WEIGHTS[:4]
        luminance = (2 * 0.4 * 0.6 + 1e-4) / (0.4**2 + 0.6**2 + 1e-4)
        expected = 1 - luminance ** (weights[3] / sum(weights))
        self.assertAlmostEqual(losses.ms_ssim(flat + 0.2, flat, lr).item(), expected, 4)
        # VMAF of identical frames without motion is less than 100.
        self.assertAlmostEqual(losses.vmaf_neg(hr, hr, lr).item(), 0.0257, 3)

    def test_vmaf_neg_is_that_of_libvmaf(self):
        # The frames and the values of test_judges.py.
        hr, *outs = (torch.from_numpy((clip[:1] - 16.0) / 219).float()[:, None] for clip in
                     (textured(), blurred(textured()), sharpened(textured())))
        for out, known in zip(outs, (74.489, 91.046)):
            self.assertAlmostEqual(100 * (1 - losses.vmaf_neg(out, hr, None).item()), known, delta=0.03)

    def test_vmaf_neg_gains_nothing_from_sharpening(self):
        blurred = torch.nn.functional.avg_pool2d(self.hr, 3, 1, 1)
        sharpened = self.hr + 0.5 * (self.hr - blurred)
        self.assertGreater(losses.vmaf_neg(sharpened, self.hr, self.lr).item(),
                           losses.vmaf_neg(self.hr, self.hr, self.lr).item() - 0.001)

    def test_consistency_sees_a_shift_and_nothing_that_downscaling_removes(self):
        self.assertLess(losses.consistency(self.hr, self.hr, self.lr).item(), 1e-6)
        self.assertAlmostEqual(losses.consistency(self.hr + 0.02, self.hr, self.lr).item(), 0.02, 4)
        checkerboard = 0.1 * torch.tensor([[1.0, -1], [-1, 1]]).repeat(48, 48)
        self.assertLess(losses.consistency(self.hr + checkerboard, self.hr, self.lr).item(), 1e-3)

    def test_a_mix_is_the_weighted_sum(self):
        out = worse(self.hr, 0.05)
        mix = losses.Mix("0.7*l1 + 0.2*ms_ssim+0.1*vmaf_neg")
        expected = 0.7 * losses.l1(out, self.hr, self.lr) + 0.2 * losses.ms_ssim(out, self.hr, self.lr)
        expected = expected + 0.1 * losses.vmaf_neg(out, self.hr, self.lr)
        self.assertAlmostEqual(mix(out, self.hr, self.lr).item(), expected.item(), 6)
        for wrong in ("l3", "x*l1", "l1+", ""):
            with self.assertRaises(ValueError):
                losses.Mix(wrong)


if __name__ == "__main__":
    unittest.main(verbosity=2)

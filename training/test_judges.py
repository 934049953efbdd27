"""Tests of judges.py and evaluate.py, on generated frames, against the values of the reference programs."""

import json
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import numpy as np
import torch

import degrade
import frames
import judges
from test_degrade import waves

FOLDER = Path(__file__).resolve().parent


def textured():
    """Returns waves with a texture that does not move, [4, 180, 240] u8."""
    texture = degrade.grain(np.full((1, 180, 240), 125), 20, 1.5, np.random.default_rng(0)) - 125
    return frames.to_codes(waves(180, 240, 4) + texture)


def blurred(clip):
    return frames.to_codes(degrade.blur(clip.astype(float), 1))


def sharpened(clip):
    return frames.to_codes(degrade.sharpened(clip.astype(float), 0.5, 1))


class Judges(unittest.TestCase):
    def setUp(self):
        torch.set_num_threads(1)

    def test_psnr_and_ssim_of_known_pairs(self):
        image = np.random.default_rng(0).uniform(16, 235, (40, 50))
        self.assertAlmostEqual(judges.psnr(judges.mse(image, image + 1)), 48.1308, 4)
        self.assertEqual(judges.psnr(judges.mse(image, image)), np.inf)
        self.assertAlmostEqual(judges.ssim(image, image), 1, 9)
        # For flat images only the luminance term of SSIM is left.
        c1 = (0.01 * 255) ** 2
        flat = np.full((20, 20), 100.0)
        self.assertAlmostEqual(judges.ssim(flat, flat + 50), (2 * 100 * 150 + c1) / (100**2 + 150**2 + c1), 9)

    def test_vmaf_and_vmaf_neg_are_those_of_libvmaf(self):
        clip, vmaf = textured(), judges.Vmaf()
        motion = vmaf.motion(clip)
        # By FFmpeg 7.0's libvmaf filter, vmaf_v0.6.1 and vmaf_v0.6.1neg, of the first two frames.
        known = {
            "blurred": (blurred(clip), [(74.692, 74.489), (97.645, 97.415)]),
            "sharpened": (sharpened(clip), [(99.856, 91.046), (100, 100)]),
            "identical": (clip, [(97.428, 97.425), (100, 100)]),
        }
        for name, (outs, values) in known.items():
            for i, value in enumerate(values):
                np.testing.assert_allclose(vmaf(outs[i], clip[i], motion[i]), value, atol=0.03, err_msg=f"{name} {i}")

    def test_motion_is_the_lesser_difference_from_the_neighbours(self):
        flat = np.array([100, 110, 116, 117], np.uint8)[:, None, None] * np.ones((1, 20, 20), np.uint8)
        np.testing.assert_allclose(judges.Vmaf().motion(flat), [0, 6, 1, 1], atol=1e-4)

    def test_ssimulacra2_is_that_of_its_port_to_rust(self):
        hr = np.tile(textured()[0], (2, 2))[:320, :320]
        # By the crate ssimulacra2 0.5.
        for name, out, known in (("blurred", blurred(hr[None])[0], 66.708), ("sharpened", sharpened(hr[None])[0], 87.974)):
            self.assertAlmostEqual(judges.similarity(out, hr), known, delta=0.1, msg=name)
        self.assertEqual(judges.similarity(hr, hr), 100)

    def test_flicker_of_still_frames_is_that_of_their_errors(self):
        hr, random = textured()[0], np.random.default_rng(1)
        flow = judges.Flow(hr, hr)
        self.assertGreater(flow.valid.mean(), 0.99)
        constant = frames.to_codes(hr + 3.0)
        np.testing.assert_allclose(judges.flicker((constant, constant), (hr, hr), flow), 0, atol=0.05)
        noisy = [hr + np.round(random.normal(0, 4, hr.shape)) for _ in range(2)]
        np.testing.assert_allclose(judges.flicker(noisy, (hr, hr), flow), 4 * np.sqrt(2), rtol=0.03)

    def test_errors_that_move_with_the_objects_flicker_less_along_the_motion(self):
        image = frames.to_codes(frames.resize(textured()[0], 240, 320))
        hr = [image[10 : 210, 10 : 290], image[8 : 208, 13 : 293]]
        flow = judges.Flow(*hr)
        inside = (slice(20, -20),) * 2
        np.testing.assert_allclose(np.median(flow.x[inside] - np.mgrid[:200, :280][1][inside]), 3, atol=0.1)
        np.testing.assert_allclose(np.median(flow.y[inside] - np.mgrid[:200, :280][0][inside]), -2, atol=0.1)
        outs = blurred(np.stack(hr))
        still, moved = judges.flicker(outs, hr, flow)
        self.assertLess(moved, 0.35 * still)
        # An error that stays where it is while the objects move.
        stuck = np.random.default_rng(1).normal(0, 4, hr[0].shape)
        still, moved = judges.flicker([frame + stuck for frame in hr], hr, flow)
        self.assertLess(still, 0.1)
        self.assertGreater(moved, 4)


class Evaluate(unittest.TestCase):
    def test_every_judge_of_a_pair_and_of_a_grainy_clip_is_printed_and_written(self):
        with tempfile.TemporaryDirectory() as folder:
            folder = Path(folder)
            clip = textured()[:, :, :224]
            hr, lr = folder / "hr.mkv", folder / "lr.mkv"
            for file, of in ((hr, clip), (lr, frames.to_codes(frames.downscale(clip, 2, "bicubic")))):
                frames.ffmpeg("-f", "rawvideo", "-pix_fmt", "gray", "-s", f"{of.shape[2]}x{of.shape[1]}", "-i", "-", "-pix_fmt",
                              "yuv420p", "-c:v", "ffv1", file, input=of.tobytes())
            command = [sys.executable, FOLDER / "evaluate.py", "--pair", lr, hr, "--video", hr, "--coding", "libx264 -crf 20",
                       "--grain", 8, "--every", 2, "--json", folder / "figures.json"]
            printed = subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True).stdout
            figures = json.loads((folder / "figures.json").read_text())
        pair, grainy = figures["lr.mkv for hr.mkv"], figures["hr.mkv, grain 8, libx264 -crf 20"]
        names = {"psnr", "psnr_of_mean_mse", "ssim", "vmaf", "vmaf_neg", "ssimulacra2", "flicker", "flicker_moved"}
        for upscaler in ("bicubic", "Lanczos", "Lanczos, sharpened"):
            self.assertEqual(set(pair[upscaler]), names)
            self.assertLess(grainy[upscaler]["psnr"], pair[upscaler]["psnr"] - 3)
            self.assertGreater(grainy[upscaler]["flicker"], pair[upscaler]["flicker"] + 3)
            row = f"| {upscaler} | {pair[upscaler]['psnr']:.2f} / {pair[upscaler]['ssim']:.4f} |"
            self.assertIn(row, printed)
            self.assertIn(f"| {pair[upscaler]['vmaf_neg']:.1f} |", printed)
        self.assertGreater(pair["Lanczos"]["psnr"], pair["bicubic"]["psnr"])
        self.assertGreater(pair["Lanczos, sharpened"]["vmaf"] - pair["Lanczos, sharpened"]["vmaf_neg"],
                           pair["Lanczos"]["vmaf"] - pair["Lanczos"]["vmaf_neg"])


if __name__ == "__main__":
    unittest.main(verbosity=2)

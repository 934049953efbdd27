"""Tests of degrade.py, on generated frames."""

import unittest
from dataclasses import replace

import numpy as np

import degrade
import frames

UNCODED = degrade.Track(clean=0, codecs=(("uncoded", 0, 0, 1),))


def rng():
    return np.random.default_rng(0)


def waves(height, width, count=4):
    y, x = np.mgrid[:height, :width]
    return np.stack([125 + 60 * np.sin(x / 9 + t) * np.sin(y / 7) for t in range(count)])


class Tracks(unittest.TestCase):
    def test_the_shares_of_each_track_add_up_to_one(self):
        for name, track in degrade.TRACKS.items():
            if track.clean < 1:
                self.assertAlmostEqual(sum(share for *_, share in track.codecs), 1, 9, name)
            for codec, least, greatest, _ in track.codecs:
                self.assertTrue(codec == "uncoded" or codec in degrade.CODECS, codec)
                self.assertLessEqual(least, greatest, codec)

    def test_degradations_occur_as_often_as_the_track_says(self):
        track = replace(UNCODED, noise=0.5, sharpened=0.2)
        random = rng()
        kinds = [degrade.degraded(waves(16, 16, 1), 2, track, random)[2] for _ in range(300)]
        for name, share in (("noise", 0.5), ("sharpened", 0.2), ("blur", 0)):
            self.assertAlmostEqual(sum(name in kind.split() for kind in kinds) / 300, share, delta=0.07, msg=name)

    def test_a_pair_without_degradations_is_a_downscaled_one(self):
        lr, hr, kind = degrade.degraded(waves(64, 64), 2, UNCODED, rng())
        np.testing.assert_array_equal(hr, frames.to_codes(waves(64, 64)))
        self.assertEqual((kind, lr.shape), ("uncoded", (4, 32, 32)))
        self.assertLess(np.abs(lr - frames.downscale(hr, 2, "bicubic")).max(), 3)

    def test_worse_quality_options_lose_more(self):
        clip = frames.to_codes(waves(96, 96, 12) + degrade.grain(np.full((1, 96, 96), 125), 12, 2, rng()) - 125)
        for name, least, greatest, _ in degrade.TRACKS["hard"].codecs:
            errors = [np.abs(degrade.encode_decode(clip, *degrade.command(name, quality)) - clip.astype(float)).mean()
                      for quality in (least - 4, greatest)]
            self.assertLess(errors[0] * 1.05, errors[1], name)


class Degradations(unittest.TestCase):
    def test_kept_grain_is_in_both_frames_and_removed_grain_in_lr_alone(self):
        flat = np.full((8, 64, 64), 125.0)
        lr, hr, kind = degrade.degraded(flat, 2, replace(UNCODED, grain_kept=1), rng())
        self.assertEqual(kind, "uncoded grain_kept")
        self.assertGreater(hr.std(), 0.8)
        kept = np.corrcoef(lr.ravel(), frames.downscale(hr, 2, "bicubic").ravel())[0, 1]
        self.assertGreater(kept, 0.9)
        lr, hr, kind = degrade.degraded(flat, 2, replace(UNCODED, grain_removed=1), rng())
        self.assertEqual((kind, hr.std()), ("uncoded grain_removed", 0))
        self.assertGreater(lr.std(), 0.8)

    def test_grain_is_strongest_in_the_mid_tones_and_new_in_each_frame(self):
        middle, black = (frames.BLACK + frames.WHITE) / 2, frames.BLACK
        for size in (0, 1.2):
            field = degrade.grain(np.full((6, 100, 100), middle), 5, size, rng()) - middle
            self.assertAlmostEqual(field.std(), 5, delta=0.1)
            self.assertLess(abs(np.corrcoef(field[0].ravel(), field[1].ravel())[0, 1]), 0.08)
            neighbours = np.corrcoef(field[:, :, 1:].ravel(), field[:, :, :-1].ravel())[0, 1]
            self.assertEqual(neighbours > 0.5, size > 0)
        self.assertAlmostEqual(degrade.grain(np.full((6, 100, 100), black), 5, 0, rng()).std(), 5 / 3, delta=0.05)

    def test_blur_keeps_the_mean_and_widens_an_impulse_by_its_sigma(self):
        impulse = np.zeros((1, 33, 33))
        impulse[0, 16, 16] = 1
        blurred, x = degrade.blur(impulse, 1.5)[0], np.arange(33) - 16
        self.assertAlmostEqual(blurred.sum(), 1, 9)
        for axis in (0, 1):
            self.assertAlmostEqual(np.sqrt((blurred.sum(axis) * x**2).sum()), 1.5, delta=0.05)

    def test_a_sharpened_edge_overshoots_and_flat_areas_stay(self):
        edge = np.where(np.arange(40) < 20, 60.0, 180.0) * np.ones((2, 40, 1))
        out = degrade.sharpened(edge, 0.5, 1)
        self.assertGreater(out.max(), 185)
        self.assertLess(out.min(), 55)
        np.testing.assert_allclose(out[:, :, :10], 60)
        self.assertLess(degrade.sharpened(edge, 0.2, 1).max(), out.max())

    def test_uneven_scaling_blurs_one_axis_more_and_moves_nothing(self):
        stripes = 125 + 60 * np.sin(np.arange(240) * 2 * np.pi / 5) * np.ones((1, 240, 1))
        contrast = np.sum([
            [degrade.unevenly(clip, 2, "bicubic", np.random.default_rng(seed)).std()
             for clip in (stripes, stripes.transpose(0, 2, 1))]
            for seed in range(10)
        ], 0)
        self.assertLess(contrast[0], 0.9 * contrast[1])
        bar = np.zeros((1, 240, 240))
        bar[0, 110:130, 110:130] = 100
        out = degrade.unevenly(bar, 2, "bicubic", rng())[0]
        for axis in (0, 1):
            self.assertAlmostEqual((out.sum(axis) * np.arange(120)).sum() / out.sum(), 59.5, delta=0.02)

    def test_subsampled_chroma_changes_luma_at_edges_only(self):
        edge = np.where(np.arange(40) < 21, 40.0, 200.0) * np.ones((1, 40, 1))
        changes = [np.abs(degrade.through_rgb(edge, np.random.default_rng(seed)) - edge) for seed in range(10)]
        self.assertGreater(max(change.max() for change in changes), 5)
        for change in changes:
            self.assertLess(change[:, :, :14].max(), 1e-9)
            self.assertLess(change[:, :, 28:].max(), 1e-9)
        outside = np.full((1, 8, 8), 250.0)
        np.testing.assert_allclose(degrade.through_rgb(outside, rng()), outside)


if __name__ == "__main__":
    unittest.main(verbosity=2)

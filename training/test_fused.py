"""Tests of the fused step, against PyTorch in f32, and of stopping a run."""

import contextlib
import io
import json
import os
import signal
import sys
import tempfile
import unittest
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import torch
import torch.nn.functional as F

import fused
import losses
import model
import train

LITE, TINY, PAPER = model.SIZES["lite"], model.SIZES["tiny"], model.SIZES["paper"]
# Sizes, samples, height, width. Every level is compiled for the first; the others are shared out among the levels.
EVERYWHERE = (TINY, 3, 33, 41)
SHARED = [
    (PAPER, 1, 30, 33),
    (LITE, 2, 40, 48),
    (model.Sizes(scale=3, dim=19, blocks=2, mlp_ratio=3, esa_channels=5, cab_compress=3, ca_squeeze=7), 2, 29, 20),
    (replace(TINY, scale=4, in_channels=3), 2, 15, 21),
]
# The cosine of the whole gradient with that of PyTorch in f32.
LEAST = {"avx2": 0.99999, "avx512": 0.99999}
LEAST_BF16 = 0.9999


def testable():
    return fused.levels() + fused.levels(fused.STAND_INS)


def network(sizes):
    """Returns a network whose biases and norms are away from their initial values."""
    torch.manual_seed(0)
    net = model.Hasn(sizes)
    with torch.no_grad():
        for name, p in net.named_parameters():
            if p.ndim == 1:
                p += 0.05 * torch.randn_like(p)
            if "attention" in name:
                p += 0.3 * torch.randn_like(p)
    return net


def images(sizes, n, h, w):
    """Returns smooth LR images with a little noise, and HR targets."""
    torch.manual_seed(1)
    coarse = torch.rand(n, sizes.in_channels, h // 3 + 2, w // 3 + 2)
    size = lambda scale: dict(size=(h * scale, w * scale), mode="bicubic")
    x = F.interpolate(coarse, **size(1))
    hr = F.interpolate(coarse, **size(sizes.scale))
    return x + 0.05 * torch.rand_like(x), hr + 0.05 * torch.rand_like(hr)


def cosine(a, b):
    a, b = a.double(), b.double()
    return (a @ b / (a.norm() * b.norm())).item()


def pytorch(net, x, hr, loss):
    """Returns the loss and its whole gradient."""
    for p in net.parameters():
        p.grad = None
    value = loss(net(x), hr, x)
    value.backward()
    return value.item(), torch.cat([p.grad.flatten() for p in net.parameters()])


def fused_pixels(step, x, hr, mix):
    return step.pixels(x, hr, [mix.weights.get(name, 0) for name in losses.PIXEL_LOSSES], losses.CHARBONNIER_EPS)


class Gradients(unittest.TestCase):
    def setUp(self):
        torch.set_num_threads(1)
        self.assertTrue(fused.levels(), "no level of the fused step runs on this machine")

    def cases(self):
        levels = testable()
        for level in levels:
            yield level, *EVERYWHERE
        for i, case in enumerate(SHARED):
            yield levels[i % len(levels)], *case
        if len(levels) > 1:
            yield levels[-1], *SHARED[0]

    def check(self, level, net, x, hr):
        """Holds output and gradients of the sum of squared errors to PyTorch's."""
        error = lambda out, hr, lr: (out - hr).square().sum()
        _, expected = pytorch(net, x, hr, error)
        out = net(x).detach()
        step = fused.Fused(net, 2, level)
        f32 = level in LEAST
        torch.testing.assert_close(step.forward(x), out, rtol=0, atol=1e-5 if f32 else 5e-3)
        step.backward(x, 2 * (out - hr))
        self.assertGreater(cosine(step.gradients, expected), LEAST.get(level, LEAST_BF16))
        self.assertAlmostEqual((step.gradients.norm() / expected.norm()).item(), 1, 4 if f32 else 2)
        if f32:
            for (name, _), found, wanted in zip(net.named_parameters(), step.split(step.gradients), step.split(expected)):
                self.assertLess((found - wanted).norm(), 2e-3 * wanted.norm() + 1e-7, name)

    def test_outputs_and_gradients_are_those_of_pytorch_at_every_level(self):
        for level, sizes, n, h, w in self.cases():
            with self.subTest(level=level, sizes=sizes):
                self.check(level, network(sizes), *images(sizes, n, h, w))

    def test_every_loss_of_pixels_and_a_mix_are_those_of_pytorch(self):
        x, hr = images(*EVERYWHERE)
        for text in (*losses.PIXEL_LOSSES, "0.7*l1+0.2*charbonnier+0.1*psnr"):
            net, mix = network(TINY), losses.Mix(text)
            value, expected = pytorch(net, x, hr, mix)
            # Where an error changes its sign between two roundings, so does the gradient of L1.
            step = fused.Fused(net, 2, next(level for level in testable() if level in LEAST))
            self.assertAlmostEqual(fused_pixels(step, x, hr, mix), value, 4, text)
            self.assertGreater(cosine(step.gradients, expected), 0.9999, text)

    def test_a_broken_gradient_is_caught(self):
        x, hr = images(*EVERYWHERE)
        sources = {file.name: file.read_text() for file in fused.SOURCES.iterdir()}
        with tempfile.TemporaryDirectory() as folder:
            broken = Path(folder)
            # The slope of ESA's sigmoid is a (1 - a), not a.
            line = "d[2][k] * (f3 - f3a)"
            self.assertEqual(sources["backward.h"].count(line), 1)
            sources["backward.h"] = sources["backward.h"].replace(line, "d[2][k] * f3")
            for name, text in sources.items():
                (broken / name).write_text(text)
            with mock.patch.object(fused, "SOURCES", broken), mock.patch.object(fused, "CACHE", broken):
                fused.library.cache_clear()
                with self.assertRaises(AssertionError):
                    self.check("avx2", network(TINY), x, hr)
            fused.library.cache_clear()

    def test_steps_follow_the_loss_of_pytorch(self):
        torch.manual_seed(0)
        batches = [images(TINY, 4, 24, 24) for _ in range(3)]

        def run(level):
            torch.manual_seed(0)
            net, history = model.Hasn(TINY), []
            step = level and fused.Fused(net, 1, level)
            adam = torch.optim.Adam(net.parameters(), lr=2e-3, betas=(0.9, 0.99))
            for i in range(60):
                x, hr = batches[i % len(batches)]
                if step:
                    history.append(fused_pixels(step, x, hr, losses.Mix("l1")))
                else:
                    adam.zero_grad()
                    loss = F.l1_loss(net(x), hr)
                    loss.backward()
                    history.append(loss.item())
                adam.step()
            return np.array(history).reshape(6, 10).mean(1)

        expected = run(None)
        self.assertLess(expected[-1], 0.8 * expected[0])
        for level in fused.levels():
            np.testing.assert_allclose(run(level), expected, rtol=0.02, err_msg=level)


class Runs(unittest.TestCase):
    """Runs of train.py on generated pairs."""

    def setUp(self):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.folder = Path(temporary.name)
        rng = np.random.default_rng(0)
        for part, n in (("train", 8), ("valid", 2)):
            hr = rng.integers(16, 235, (n, 20, 20), dtype=np.uint8).repeat(4, 1).repeat(4, 2)
            np.save(self.folder / f"{part}-00000-hr.npy", hr)
            np.save(self.folder / f"{part}-00000-lr.npy", hr[:, ::2, ::2].copy())
            (self.folder / f"{part}-00000.json").write_text(json.dumps(["clean"] * n))

    def run_train(self, out, *more):
        """Returns what train.py prints."""
        command = ["train.py", self.folder / out, "--data", self.folder, "--sizes", "tiny", "--batch", 2, "--crop", 24, "--every", 15, *more]
        handlers = [(number, signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGTERM)]
        try:
            with mock.patch.object(sys, "argv", [str(part) for part in command]), contextlib.redirect_stdout(io.StringIO()) as output:
                train.main()
        finally:
            for number, handler in handlers:
                signal.signal(number, handler)
        return output.getvalue()

    def checkpoint(self, out):
        return torch.load(self.folder / out / "checkpoint.pt", weights_only=True)

    def test_a_run_that_a_signal_stopped_equals_an_undisturbed_one(self):
        self.run_train("undisturbed", "--steps", 40)
        take_step, evaluate = train.Run.take_step, train.Pairs.evaluate

        def stopping_step(run, pairs):
            take_step(run, pairs)
            if run.step == 7:
                os.kill(os.getpid(), signal.SIGTERM)

        def stopping_evaluation(pairs, net, stop):
            os.kill(os.getpid(), signal.SIGINT)
            return evaluate(pairs, net, stop)

        with mock.patch.object(train.Run, "take_step", stopping_step):
            self.assertRegex(self.run_train("stopped", "--steps", 40), r"step 7 of 40; the same command resumes the run\n$")
        with mock.patch.object(train.Pairs, "evaluate", stopping_evaluation):
            self.assertRegex(self.run_train("stopped", "--steps", 40), r"step 15 of 40; the same command resumes the run\n$")
        self.assertIn("step 40 of 40\n", self.run_train("stopped", "--steps", 40))
        undisturbed, stopped = self.checkpoint("undisturbed"), self.checkpoint("stopped")
        for kind in ("net", "ema"):
            for name, tensor in undisturbed[kind].items():
                self.assertTrue(torch.equal(tensor, stopped[kind][name]), name)
        without_seconds = lambda out: [
            row.split(",")[:1] + row.split(",")[2:] for row in (self.folder / out / "log.csv").read_text().splitlines()
        ]
        self.assertEqual(without_seconds("stopped"), without_seconds("undisturbed"))

    def test_the_schedule_follows_the_time_where_no_steps_are_given(self):
        self.run_train("timed", "--minutes", 0.03, "--every", 1)
        rows = [row.split(",") for row in (self.folder / "timed/log.csv").read_text().splitlines()[1:]]
        self.assertEqual(float(rows[-1][2]), 0)
        self.assertGreater(self.checkpoint("timed")["seconds"], 1.8)
        # The stage is over: the same command takes no step.
        steps = self.checkpoint("timed")["step"]
        self.run_train("timed", "--minutes", 0.03)
        self.assertEqual(self.checkpoint("timed")["step"], steps)

    def test_without_a_compiler_pytorch_computes_the_steps_and_the_run_says_so(self):
        reason = "g++-that-is-missing is not installed; install it or set CXX"
        with mock.patch.dict(os.environ, CXX="g++-that-is-missing"):
            fused.library.cache_clear()
            output = self.run_train("without", "--steps", 1)
            self.assertIn(f"the fused step is not available ({reason}): PyTorch computes the steps", output)
            with self.assertRaisesRegex(SystemExit, f"--level avx2: {reason}".replace("+", r"\+")):
                self.run_train("without", "--steps", 2, "--level", "avx2")
        fused.library.cache_clear()

    def test_a_checkpoint_of_pytorch_is_resumed_by_the_fused_step(self):
        self.run_train("run", "--steps", 3, "--level", "pytorch")
        self.assertIn("step 6 of 6", self.run_train("run", "--steps", 6))


if __name__ == "__main__":
    unittest.main(verbosity=2)

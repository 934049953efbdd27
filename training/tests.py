"""Tests of training/, on generated images, in two minutes: python training/tests.py"""

import os
import subprocess
import sys
import tempfile
import unittest
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

import data
import degrade
import export
import frames
import golden
import model
import train

FOLDER = Path(__file__).resolve().parent
GOLDEN = FOLDER.parent / "tests/data/golden"


def run(script, *arguments):
    """Runs a script from the command line. Returns its output."""
    command = [sys.executable, FOLDER / script, *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def draw(rng, height, width):
    """Draws edges, waves and a little noise. Returns [H, W] u8."""
    y, x = np.mgrid[:height, :width]
    image = 128 + 40 * np.sin(x / rng.uniform(4, 40) + y / rng.uniform(4, 40))
    for _ in range(60):
        top, left, tall, wide = rng.integers(0, [height, width, height // 3, width // 3])
        slope = rng.uniform(-1, 1)
        inside = (y > top) & (y < top + tall) & (x - slope * y > left - slope * top) & (x - slope * y < left - slope * top + wide)
        image[inside] = rng.uniform(20, 235)
    return np.clip(image + rng.normal(0, 1, image.shape), 0, 255).astype(np.uint8)


class Training(unittest.TestCase):
    """From 12 generated images, two of which data.py holds out, to a weights file and its metrics."""

    @classmethod
    def setUpClass(cls):
        torch.set_num_threads(1)
        cls.temporary = tempfile.TemporaryDirectory()
        cls.folder = Path(cls.temporary.name)
        cls.images, cls.shards = cls.folder / "images", cls.folder / "shards"
        cls.images.mkdir()
        rng = np.random.default_rng(0)
        for i in range(12):
            raw = draw(rng, 340, 360).tobytes()
            frames.ffmpeg("-f", "rawvideo", "-pix_fmt", "gray", "-s", "360x340", "-i", "-", cls.images / f"{i:02}.png", input=raw)
        run("data.py", cls.shards, cls.images, "--track", "video", "--clips", 20)
        run("data.py", cls.shards, cls.images, "--part", "valid", "--clips", 3)

    @classmethod
    def tearDownClass(cls):
        cls.temporary.cleanup()

    def train_arguments(self, out, *more):
        return train.arguments([str(self.folder / out), "--data", str(self.shards), "--sizes", "tiny", "--batch", "4",
                                "--crop", "32", "--steps", "60", "--rate", "2e-3", *more])

    def test_sixty_steps_beat_bilinear_and_the_exported_file_has_the_trained_weights(self):
        out = self.folder / "run"
        run("train.py", out, "--data", self.shards, "--sizes", "tiny", "--batch", 4, "--crop", 32, "--steps", 60,
            "--rate", 4e-3, "--every", 20)
        validation = train.Pairs(self.shards, "valid")
        net, stages = train.load_network(out / "checkpoint.pt")
        bilinear = torch.nn.Upsample(scale_factor=2, mode="bilinear")
        bilinear.register_parameter("device", torch.nn.Parameter(torch.zeros(1)))
        net_db, bilinear_db = validation.evaluate(net)["clean"], validation.evaluate(bilinear)["clean"]
        print(f"tiny network after 60 steps {net_db:.2f} dB, bilinear {bilinear_db:.2f} dB")
        self.assertGreater(net_db, bilinear_db + 0.1)
        self.assertEqual([(stage["from"], stage["step"]) for stage in stages], [("scratch", 60)])
        log = (out / "log.csv").read_text().splitlines()
        self.assertEqual([line.split(",")[0] for line in log], ["step", "20", "40", "60"])
        self.assertIn("<polyline", (out / "log.svg").read_text())

        # A warm start takes the finished weights and keeps their record.
        warm = self.folder / "warm"
        run("train.py", warm, "--data", self.shards, "--start", out / "checkpoint.pt", "--steps", 20, "--batch", 4,
            "--crop", 32, "--minutes", 0)
        warm_net, stages = train.load_network(warm / "checkpoint.pt")
        self.assertEqual([stage["step"] for stage in stages], [60, 0])
        self.assertEqual(validation.evaluate(warm_net)["clean"], net_db)

        file = self.folder / "tiny-x2.safetensors"
        run("export.py", out / "checkpoint.pt", file, "--trained", "in a test")
        loaded, metadata = model.load(file)
        half = self.folder / "half.safetensors"
        run("export.py", out / "checkpoint.pt", half, "--blend", file, 0.5)
        for name, tensor in model.load(half)[0].state_dict().items():
            torch.testing.assert_close(tensor, net.state_dict()[name], rtol=1e-3, atol=1e-4)
        self.assertEqual((metadata["name"], metadata["trained"], loaded.sizes), ("tiny-x2", "in a test", net.sizes))
        for name, tensor in net.state_dict().items():
            torch.testing.assert_close(loaded.state_dict()[name], tensor.half().float(), rtol=0, atol=0)
        table = run("evaluate.py", file, "--clips", self.images, "--part", "test", "--coding", "libx264 -crf 23")
        self.assertRegex(table, r"\| tiny-x2 \| \d\d\.\d\d / 0\.\d{4} \|")

    def test_a_resumed_run_equals_an_uninterrupted_one(self):
        pairs = train.Pairs(self.shards, "train")
        losses = []
        for out, interruptions in (("uninterrupted", []), ("resumed", [3, 5])):
            (self.folder / out).mkdir()
            run = train.Run(self.train_arguments(out), torch.device("cpu"))
            for step in range(8):
                if step in interruptions:
                    run.save()
                    run = train.Run(self.train_arguments(out), torch.device("cpu"))
                run.take_step(pairs)
                losses.append(run.losses[-1].item())
        self.assertEqual(losses[:8], losses[8:])
        self.assertEqual(len(set(losses[:8])), 8)

    def test_shards_are_identical_on_one_core_and_have_the_kinds_of_the_track(self):
        again, cores = self.folder / "again", os.sched_getaffinity(0)
        os.sched_setaffinity(0, {min(cores)})
        self.addCleanup(os.sched_setaffinity, 0, cores)
        run("data.py", again, self.images, "--track", "video", "--clips", 20)
        for suffix in ("lr.npy", "hr.npy", "json"):
            name = "train-00000" + ("." if suffix == "json" else "-") + suffix
            self.assertEqual((again / name).read_bytes(), (self.shards / name).read_bytes(), name)
        kinds = train.Pairs(again, "train").kinds
        self.assertTrue(0.2 < kinds.count("clean") / len(kinds) < 0.6, kinds)
        self.assertGreater(len({kind.split()[0] for kind in kinds}), 2)

    def test_no_image_is_in_two_parts(self):
        files = data.find([self.images], data.IMAGES)
        parts = [set(data.part_of(files, part)) for part in ("train", *data.PARTS)]
        self.assertEqual([len(part) for part in parts], [10, 1, 1])
        self.assertEqual(set.union(*parts), set(files))


class Pairs(unittest.TestCase):
    def test_downscaling_has_the_taps_of_imresize(self):
        # The taps of MATLAB's imresize for 1/2, in 256ths.
        impulses = np.eye(32)
        taps = frames.resize_axis(impulses, 16, 0, *frames.KERNELS["bicubic"])[8] * 256
        np.testing.assert_allclose(taps[13:21], [-3, -9, 29, 111, 111, 29, -9, -3], atol=1e-9)

    def test_every_codec_keeps_the_order_of_frames(self):
        y, x = np.mgrid[:96, :96]
        clip = frames.to_codes(np.stack([128 + 60 * np.sin(x / 9 + t) * np.sin(y / 7) for t in range(10)]))
        qualities = {name: least for track in degrade.TRACKS.values() for name, least, _, _ in track.codecs if name != "uncoded"}
        self.assertEqual(set(qualities), set(degrade.CODECS))
        for name, quality in qualities.items():
            decoded = degrade.encode_decode(clip, *degrade.command(name, quality), size=degrade.CODECS[name].size)
            error = np.abs(decoded - clip.astype(float)).mean((1, 2))
            self.assertLess(error.max(), 4, name)

    def test_a_video_is_read_as_its_own_luma(self):
        clip = np.arange(30, dtype=np.uint8)[:, None, None] * np.ones((1, 34, 50), np.uint8) + 100
        with tempfile.TemporaryDirectory() as folder:
            video = Path(folder, "video.mkv")
            raw = np.concatenate([clip.reshape(30, -1), np.full((30, 850), 128, np.uint8)], 1)
            frames.ffmpeg("-f", "rawvideo", "-pix_fmt", "yuv420p", "-s", "50x34", "-r", 25, "-i", "-", "-c:v", "ffv1", video,
                        input=raw.tobytes())
            np.testing.assert_array_equal(frames.read_video(video), clip)
            window = data.clip_from_video(video, 32, 24, np.random.default_rng(0))
            self.assertEqual(window.shape, (24, 32, 32))
            np.testing.assert_array_equal(np.diff(window[:, 0, 0].astype(int)), 1)


class Network(unittest.TestCase):
    def test_it_computes_the_golden_tensors(self):
        files = sorted(GOLDEN.glob("*.safetensors"))
        self.assertEqual(len(files), 4)
        for file in files:
            error, name = golden.check(file)
            self.assertLess(error, golden.TOLERANCE, f"{file.name}: {name}")

    def test_a_new_network_upscales_like_bilinear_and_keeps_its_signal(self):
        torch.manual_seed(0)
        net, x = model.Hasn(model.SIZES["paper"]), torch.rand(1, 1, 40, 40)
        tensors = golden.record(net, x)
        self.assertGreater(tensors["act.block_6"].std().item(), 0.05)
        bilinear = F.interpolate(x, scale_factor=2, mode="bilinear")[0]
        self.assertLess((tensors["output"] - bilinear)[:, 2:-2, 2:-2].abs().mean().item(), 0.03)

    def test_sizes_are_inferred_from_the_tensors(self):
        for name, sizes in model.SIZES.items():
            net = model.Hasn(sizes)
            loaded = model.from_tensors(net.state_dict())
            self.assertEqual(model.parameters(loaded), model.parameters(net), name)

    def test_a_network_rescaled_to_twice_its_scale_repeats_its_pixels(self):
        for name, in_channels in (("tiny", 1), ("lite", 3)):
            net = model.Hasn(replace(model.SIZES[name], in_channels=in_channels))
            x = torch.rand(1, in_channels, 16, 17)
            with torch.no_grad():
                x4, x2 = model.rescaled(net, 4)(x), net(x)
            torch.testing.assert_close(x4, F.interpolate(x2, scale_factor=2, mode="nearest"))

    def test_a_published_checkpoint_is_read_and_exported_to_onnx(self):
        import onnx
        from onnx.reference import ReferenceEvaluator

        with tempfile.TemporaryDirectory() as folder:
            net = model.Hasn(model.SIZES["tiny"])
            torch.save({"params": {}, "params_ema": net.state_dict()}, Path(folder, "net.pth"))
            opened = export.open_checkpoint(Path(folder, "net.pth"))
            export.export_onnx(opened, Path(folder, "net.onnx"))
            x = torch.rand(1, 1, 17, 21)
            (y,) = ReferenceEvaluator(onnx.load(Path(folder, "net.onnx"))).run(None, {"x": x.numpy()})
            with torch.no_grad():
                np.testing.assert_allclose(y, net(x).numpy(), atol=1e-5)


if __name__ == "__main__":
    unittest.main(verbosity=2)

"""Trains a HASN on shards of data.py.

In: shards of data.py. Out: a folder with
    checkpoint.pt   network, its moving average, the optimiser, the step, the record of stages; a run resumes from it
    log.csv         step, seconds, rate, loss, PSNR-Y of the moving average on the clean and on the coded validation pairs
    log.svg         the same as a plot
Every batch is determined by the seed and the step, so that a resumed run gives the result of an uninterrupted one. SIGINT and
SIGTERM save a checkpoint and end the run. On a CPU the fused step of training/fused is used where it can be compiled.

    python training/train.py OUT --data FOLDER --sizes lite --steps 30000            trains from scratch
    python training/train.py OUT --data FOLDER --sizes lite --minutes 600            the schedule follows the time
    python training/train.py OUT --data FOLDER --start FILE --steps 10000            warm start
    python training/train.py OUT --data FOLDER --steps 10000                         resumes the run in OUT
"""

import argparse
import csv
import ctypes
import json
import math
import signal
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch

import model
from frames import BLACK, WHITE
from fused import LEVELS, Fused, Unavailable
from losses import CHARBONNIER_EPS, LOSSES, PIXEL_LOSSES, Mix
from plot import plot

# Decay rates of Adam and of the moving average, as in the paper. In a short run the average covers the last tenth of it.
BETAS, EMA = (0.9, 0.99), 0.999
# Steps over which the learning rate rises, or a twentieth of the run if that is less: a warm start has a fresh optimiser.
WARM_UP = 100
# The learning rate is halved at each of these fractions of the run: the usual milestones for networks of this family.
MILESTONES = (0.5, 0.8, 0.9, 0.95)
# Parameters of glibc's mallopt: M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX.
TRIM_THRESHOLD, TOP_PAD, MMAP_MAX = -1, -2, -4


def main():
    args = arguments(sys.argv[1:])
    stop = stop_by_signal()
    keep_memory()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    args.out.mkdir(parents=True, exist_ok=True)
    run = Run(args, device)
    # Beside the fused step PyTorch does little, and a pool's threads would wait for each other at every parameter.
    torch.set_num_threads(1 if run.fused else args.threads)
    pairs, validation = Pairs(args.data, "train"), Pairs(args.data, "valid")
    if {pairs.scale, validation.scale} != {run.ema.sizes.scale}:
        sys.exit(f"{args.data}: has x{pairs.scale} pairs, the network is x{run.ema.sizes.scale}; set --scale of data.py")
    deadline = time.monotonic() + 60 * args.minutes if args.steps else math.inf
    print(f"{device}, {run.precision}, {model.parameters(run.net)} parameters, {len(pairs)} pairs, from step {run.step}", flush=True)
    while not stop:
        if run.losses and (run.step % args.every == 0 or run.progress() >= 1):
            run.save()
            psnr = validation.evaluate(run.ema, stop)
            if stop:
                break
            run.log(psnr)
        if run.progress() >= 1 or time.monotonic() >= deadline:
            break
        run.take_step(pairs)
    run.save()
    whole = f"of {args.steps}" if args.steps else f"after {run.seconds / 60:.1f} of {args.minutes:g} minutes"
    print(f"step {run.step} {whole}" + ("" if run.progress() >= 1 else "; the same command resumes the run"), flush=True)


def stop_by_signal():
    """Returns a list that is empty until SIGINT or SIGTERM arrives. A second signal ends the process at once."""
    stop = []

    def handle(number, _):
        stop.append(number)
        signal.signal(number, signal.SIG_DFL)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handle)
    return stop


def arguments(argv):
    parser = argparse.ArgumentParser(description="Trains a HASN on shards of data.py.")
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sizes", choices=list(model.SIZES), default="lite", help="sizes of a network trained from scratch")
    parser.add_argument("--start", type=Path, help="finished weights or a checkpoint.pt to start from (warm start)")
    parser.add_argument("--scale", type=int, help="scale of a network trained from scratch, or a multiple of that of --start")
    parser.add_argument("--steps", type=int, help="steps of the stage; may change when a run is resumed")
    parser.add_argument(
        "--minutes", type=float, default=math.inf,
        help="with --steps: stop after this time, the run can be resumed; without: length of the stage, which the schedule follows",
    )
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--crop", type=int, default=64, help="side of a crop in LR pixels")
    parser.add_argument("--rate", type=float, default=1e-3, help="peak learning rate")
    parser.add_argument("--schedule", choices=["cosine", "milestones"], default="cosine")
    parser.add_argument(
        "--loss", type=mix, default="l1", help=f"{', '.join(LOSSES)}, or a mix by weights such as 0.8*l1+0.2*psnr"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--every", type=int, default=500, help="steps between lines of the log")
    parser.add_argument("--threads", type=int, default=1, help="threads on a CPU")
    parser.add_argument(
        "--level", choices=["auto", "pytorch", *LEVELS], default="auto", help="how a CPU computes a step: fused, at the best level, or PyTorch"
    )
    args = parser.parse_args(argv)
    if args.steps is None and args.minutes == math.inf:
        parser.error("give --steps or --minutes, the length of the stage")
    return args


def mix(text):
    try:
        return Mix(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def keep_memory():
    """Keeps freed memory in the process. PyTorch allocates the same memory again in the next step; if it is returned to the
    system in between, half of a step on a CPU is page faults."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(MMAP_MAX, 0)
        libc.mallopt(TRIM_THRESHOLD, -1)
        libc.mallopt(TOP_PAD, 64 << 20)


class Pairs:
    """Memory-mapped shards of one part."""

    def __init__(self, folder, part):
        names = sorted(file.with_suffix("") for file in folder.glob(f"{part}-*.json"))
        if not names:
            sys.exit(f"{folder}: has no shards of the part {part}; write them with data.py --part {part}")
        load = lambda name, suffix: np.load(f"{name}-{suffix}.npy", mmap_mode="r")
        self.lr, self.hr = ([load(name, suffix) for name in names] for suffix in ("lr", "hr"))
        self.kinds = [kind for name in names for kind in json.loads(name.with_suffix(".json").read_text())]
        self.places = [(shard, i) for shard, lr in enumerate(self.lr) for i in range(len(lr))]
        self.tile, self.scale = self.lr[0].shape[1], self.hr[0].shape[1] // self.lr[0].shape[1]

    def __len__(self):
        return len(self.places)

    def batch(self, rng, size, crop):
        """Returns LR and HR crops, rotated and mirrored at random."""
        lr, hr = [], []
        for index in rng.integers(len(self), size=size):
            shard, i = self.places[index]
            y, x = rng.integers(0, self.tile - crop, 2, endpoint=True)
            rotation, mirror = rng.integers(4), rng.integers(2)
            for out, tiles, scale in ((lr, self.lr, 1), (hr, self.hr, self.scale)):
                tile = tiles[shard][i, y * scale : (y + crop) * scale, x * scale : (x + crop) * scale]
                out.append(np.rot90(tile[:, :: 1 - 2 * mirror], rotation))
        return to_tensor(np.stack(lr)), to_tensor(np.stack(hr))

    @torch.no_grad()
    def evaluate(self, net, stop=()):
        """Returns {kind: mean PSNR-Y} of the clean and of the coded pairs. Ends early once `stop` is not empty."""
        psnr = {"clean": [], "coded": []}
        device = next(net.parameters()).device
        for (shard, i), kind in zip(self.places, self.kinds):
            if stop:
                break
            out = net(to_tensor(self.lr[shard][i : i + 1]).to(device)).cpu()
            error = (out - to_tensor(self.hr[shard][i : i + 1])) * (WHITE - BLACK)
            edge = self.scale
            mse = error[..., edge:-edge, edge:-edge].square().mean().item()
            psnr["clean" if kind == "clean" else "coded"].append(10 * math.log10(255**2 / mse))
        return {kind: float(np.mean(values)) if values else math.nan for kind, values in psnr.items()}


def to_tensor(codes):
    """[N, H, W] u8, limited range -> [N, 1, H, W] f32, 0..1."""
    return (torch.from_numpy(codes.astype(np.float32))[:, None] - BLACK) / (WHITE - BLACK)


class Run:
    """The state of a training run: its step, its log and its checkpoint."""

    def __init__(self, args, device):
        self.args, self.device = args, device
        self.checkpoint, self.log_file = args.out / "checkpoint.pt", args.out / "log.csv"
        if self.checkpoint.exists():
            if args.start:
                sys.exit(f"{args.out}: already contains a run; omit --start to resume it, or give another folder")
            state = torch.load(self.checkpoint, map_location="cpu", weights_only=True)
            self.ema, self.stages = model.from_tensors(state["ema"]), state["stages"]
        else:
            torch.manual_seed(args.seed)
            self.ema, self.stages = start(args)
            state = {"net": self.ema.state_dict(), "step": 0, "seconds": 0.0}
            self.stages.append({"from": str(args.start or "scratch")})
        self.stages[-1].update(
            steps=args.steps, minutes=None if args.steps else args.minutes, batch=args.batch, crop=args.crop, rate=args.rate, schedule=args.schedule,
            loss=str(args.loss), seed=args.seed,
        )
        self.ema.to(device).requires_grad_(False)
        self.net = model.from_tensors(state["net"]).to(device, memory_format=torch.channels_last)
        self.fused = self.open_fused()
        self.optimiser = torch.optim.Adam(self.net.parameters(), lr=args.rate, betas=BETAS, fused=True)
        if "optimiser" in state:
            self.optimiser.load_state_dict(state["optimiser"])
            for group in self.optimiser.param_groups:
                group["fused"] = True
            # In the memory format of the parameters, which depends on how a step is computed.
            for parameter, values in self.optimiser.state.items():
                values |= {name: torch.empty_like(parameter).copy_(t) for name, t in values.items() if t.shape == parameter.shape}
        self.step, self.seconds, self.losses = state["step"], state["seconds"], list(state.get("losses", []))
        self.bf16 = self.fused is None and (device.type == "cuda" or torch.cpu._is_avx512_bf16_supported())
        self.precision = f"fused step, {self.fused.level}" if self.fused else "PyTorch, bf16" if self.bf16 else "PyTorch, f32"
        self.forward = torch.compile(self.net) if device.type == "cuda" else self.net
        self.start_s = time.monotonic() - self.seconds

    def open_fused(self):
        """Returns the fused step, or None where PyTorch computes a step."""
        level = self.args.level
        if level == "pytorch" or self.device.type != "cpu":
            return None
        try:
            return Fused(self.net, self.args.threads, None if level == "auto" else level)
        except Unavailable as error:
            if level != "auto":
                sys.exit(f"--level {level}: {error}")
            print(f"the fused step is not available ({error}): PyTorch computes the steps, several times slower", flush=True)
            return None

    def take_step(self, pairs):
        rate = self.rate()
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        rng = np.random.default_rng([self.args.seed, len(self.stages), self.step])
        lr, hr = pairs.batch(rng, self.args.batch, self.args.crop)
        loss = self.fused_gradients(lr, hr) if self.fused else self.pytorch_gradients(lr, hr)
        self.optimiser.step()
        with torch.no_grad():
            share = 1 - min(EMA, (1 + self.step) / (10 + self.step))
            torch._foreach_lerp_(list(self.ema.parameters()), list(self.net.parameters()), share)
        self.step += 1
        self.losses.append(loss)
        self.seconds = time.monotonic() - self.start_s

    def pytorch_gradients(self, lr, hr):
        lr, hr = (t.to(self.device, memory_format=torch.channels_last) for t in (lr, hr))
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            out = self.forward(lr)
        loss = self.args.loss(out.float(), hr, lr)
        self.optimiser.zero_grad()
        loss.backward()
        return loss.detach()

    def fused_gradients(self, lr, hr):
        mix = self.args.loss
        if mix.of_pixels():
            weights = [mix.weights.get(name, 0) for name in PIXEL_LOSSES]
            return torch.tensor(self.fused.pixels(lr, hr, weights, CHARBONNIER_EPS))
        out = self.fused.forward(lr).requires_grad_()
        # On one thread: on two of a busy machine, those of PyTorch wait for each other and VMAF takes ten times as long.
        loss = mix(out, hr, lr)
        loss.backward()
        self.fused.backward(lr, out.grad)
        return loss.detach()

    def progress(self):
        """The share of the stage that is done."""
        if self.args.steps:
            return self.step / self.args.steps
        return self.seconds / max(60 * self.args.minutes, 1e-9)

    def rate(self):
        progress = min(1, self.progress())
        if self.args.schedule == "cosine":
            factor = 0.5 + 0.5 * math.cos(math.pi * progress)
        else:
            factor = 0.5 ** sum(progress >= milestone for milestone in MILESTONES)
        warm_up = min(WARM_UP, 1 + self.args.steps / 20) if self.args.steps else WARM_UP
        return self.args.rate * factor * min(1, (self.step + 1) / warm_up)

    def log(self, psnr):
        loss = torch.tensor([float(loss) for loss in self.losses]).mean().item()
        self.losses = []
        if not math.isfinite(loss):
            sys.exit(f"{self.args.out}: the loss is {loss} at step {self.step}; start again with a lower --rate")
        row = {"step": self.step, "seconds": round(self.seconds), "rate": f"{self.rate():.3g}", "loss": f"{loss:.6f}"}
        row |= {kind: f"{value:.3f}" for kind, value in psnr.items()}
        print(*(f"{name} {value}" for name, value in row.items()), flush=True)
        new = not self.log_file.exists()
        with self.log_file.open("a", newline="") as file:
            writer = csv.DictWriter(file, list(row))
            if new:
                writer.writeheader()
            writer.writerow(row)
        with self.log_file.open(newline="") as file:
            plot(list(csv.DictReader(file)), self.args.out / "log.svg")

    def save(self):
        """Replaces the checkpoint by an atomic rename, because a run may be killed at any moment."""
        self.stages[-1].update(step=self.step, seconds=round(self.seconds), device=str(self.device))
        new = self.checkpoint.with_suffix(".new")
        torch.save(
            {
                "sizes": asdict(self.ema.sizes),
                "net": self.net.state_dict(),
                "ema": self.ema.state_dict(),
                "optimiser": self.optimiser.state_dict(),
                "step": self.step,
                "seconds": self.seconds,
                "losses": [float(loss) for loss in self.losses],
                "stages": self.stages,
            },
            new,
        )
        new.replace(self.checkpoint)


def start(args):
    """Returns a new network, or a finished one with the record of its stages."""
    if args.start is None:
        return model.Hasn(replace(model.SIZES[args.sizes], scale=args.scale or 2)), []
    net, stages = load_network(args.start)
    return model.rescaled(net, args.scale or net.sizes.scale), stages


def load_network(path):
    """Reads a checkpoint.pt (its moving average) or a weights file. Returns the network and the record of its stages."""
    if path.suffix == ".pt":
        state = torch.load(path, map_location="cpu", weights_only=True)
        return model.from_tensors(state["ema"]), state["stages"]
    net, metadata = model.load(path)
    return net, [{"from": path.name, "trained": metadata.get("trained", "")}]


if __name__ == "__main__":
    main()

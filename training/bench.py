"""Speed of a training step: the fused step at every level of this machine, beside PyTorch.

Measures in turns, so that other work on the machine meets all alike, and prints the median and, of the thread's own time, the
best of the rounds, in thousands of LR pixels a second. A step is the forward pass, L1 and all gradients.

    python training/bench.py                       the light and the paper's network, one and two threads
    python training/bench.py --sizes lite --threads 1 --parts        and where the fused step's time goes
"""

import argparse
import statistics
import time

import torch

import fused
import model
import train

# Samples and side of their LR crops.
BATCHES = {"lite": (16, 64), "paper": (4, 48), "tiny": (16, 64)}


def main():
    parser = argparse.ArgumentParser(description="Speed of a training step beside PyTorch.")
    parser.add_argument("--sizes", nargs="+", choices=list(BATCHES), default=["lite", "paper"])
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--levels", nargs="+", default=fused.levels(), help="levels of the fused step")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--parts", action="store_true", help="print the shares of the parts of the fused step")
    args = parser.parse_args()
    train.keep_memory()
    for sizes in args.sizes:
        for threads in args.threads:
            measure(sizes, threads, args)


def measure(sizes, threads, args):
    n, side = BATCHES[sizes]
    torch.manual_seed(0)
    x, hr = torch.rand(n, 1, side, side), torch.rand(n, 1, 2 * side, 2 * side)
    steps = {"PyTorch f32": pytorch_step(sizes, x, hr, False), "PyTorch bf16": pytorch_step(sizes, x, hr, True)}
    nets = {level: fused.Fused(model.Hasn(model.SIZES[sizes]), threads, level) for level in args.levels}
    for level, step in nets.items():
        steps[level] = lambda step=step: step.pixels(x, hr, (1, 0, 0))
    walls, cpus = {name: [] for name in steps}, {name: [] for name in steps}
    for turn in range(args.rounds + 1):
        for name, step in steps.items():
            torch.set_num_threads(threads)
            wall, cpu = time.perf_counter(), time.process_time()
            step()
            # The first round compiles and allocates.
            if turn:
                walls[name].append(time.perf_counter() - wall)
                cpus[name].append(time.process_time() - cpu)
            elif name in nets:
                nets[name].spent()
    pixels = n * side * side / 1e3
    speed = {name: pixels / statistics.median(walls[name]) for name in steps}
    own = {name: pixels / min(cpus[name]) for name in steps}
    best, best_own = (max(figures[f"PyTorch {kind}"] for kind in ("f32", "bf16")) for figures in (speed, own))
    print(f"\n{sizes}, {n} x {side}x{side}, {threads} thread{'s' * (threads > 1)}\n")
    print("| step | kpx/s | of PyTorch's f32 | of its best | kpx/s of a thread's CPU time | of PyTorch's f32 | of its best |")
    print("|---|---|---|---|---|---|---|")
    for name in steps:
        ratios = (speed[name] / speed["PyTorch f32"], speed[name] / best, own[name], own[name] / own["PyTorch f32"], own[name] / best_own)
        print(f"| {name} | {speed[name]:.0f} | " + " | ".join(f"{ratio:.{0 if ratio > 100 else 1}f}" for ratio in ratios) + " |")
    if args.parts:
        for level, step in nets.items():
            cycles = step.spent()
            print(f"\n{level}:", ", ".join(f"{name} {100 * spent / sum(cycles.values()):.1f} %" for name, spent in cycles.items()))


def pytorch_step(sizes, x, hr, bf16):
    net = model.Hasn(model.SIZES[sizes]).to(memory_format=torch.channels_last)
    x, hr = (tensor.to(memory_format=torch.channels_last) for tensor in (x, hr))

    def step():
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            out = net(x)
        net.zero_grad()
        (out.float() - hr).abs().mean().backward()

    return step


if __name__ == "__main__":
    main()

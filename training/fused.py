"""The fused training step of training/fused for PyTorch: output, loss and gradients of a HASN on a CPU.

In: a network of model.py, of any sizes. Out: its gradients, in the network's own parameters. The C++ is compiled for the
network's sizes and the CPU's level at first use and kept in target/fused. This module must not know losses' names or files.

    step = Fused(net, threads=2)
    loss = step.pixels(x, hr, (1, 0, 0))        one pass: weights of l1, charbonnier and psnr of losses.py
    out = step.forward(x)
    step.backward(x, gradient)                  any other loss: the gradient with respect to the output
"""

import ctypes
import functools
import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import torch

SOURCES = Path(__file__).resolve().parent / "fused"
CACHE = SOURCES.parent.parent / "target/fused"
FLAGS = ["-std=c++17", "-O3", "-fno-predictive-commoning", "-fno-math-errno", "-fno-trapping-math", "-shared", "-fPIC", "-pthread", "-Wall",
         # Of GCC's own headers.
         "-Wno-uninitialized", "-Wno-maybe-uninitialized"]
AVX2 = ["-mavx2", "-mfma"]
AVX512 = AVX2 + ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl"]
# Name: flags of /proc/cpuinfo, flags of g++. The best one first.
HAS_AVX512 = {"avx512f", "avx512bw", "avx512dq", "avx512vl"}
LEVELS = {
    "amx": (HAS_AVX512 | {"avx512_bf16", "amx_tile", "amx_bf16"}, AVX512 + ["-mavx512bf16", "-mamx-tile", "-mamx-bf16"]),
    "avx512bf16": (HAS_AVX512 | {"avx512_bf16"}, AVX512 + ["-mavx512bf16"]),
    "avx512": (HAS_AVX512, AVX512),
    "avx2": ({"avx2", "fma"}, AVX2),
}
# Levels for tests: the code of AMX on arrays in place of tiles.
STAND_INS = {"amx-stand-in": (HAS_AVX512 | {"avx512_bf16"}, AVX512 + ["-mavx512bf16", "-DSTAND_IN"])}


class Unavailable(Exception):
    """The fused step cannot run here: says why in one line."""


def levels(among=LEVELS):
    """Returns the names of the levels that this machine has, the best one first."""
    try:
        flags = set(Path("/proc/cpuinfo").read_text().partition("\nflags")[2].partition("\n")[0].split())
    except OSError:
        return []
    return [name for name, (needed, _) in among.items() if needed <= flags]


def sizes_of(net):
    """The sizes that the C++ is compiled for."""
    s = net.sizes
    return (s.scale, s.in_channels, s.dim, s.blocks, s.dim * s.mlp_ratio, s.esa_channels, s.dim // s.cab_compress,
            max(1, s.dim // s.ca_squeeze))


@functools.cache
def library(sizes, level):
    """Compiles the step, unless that was done before, and loads it."""
    compiler = os.environ.get("CXX", "g++")
    flags = [*FLAGS, *(LEVELS | STAND_INS)[level][1], f"-DSIZES={','.join(map(str, sizes))}"]
    digest = hashlib.sha256(" ".join([compiler, *flags]).encode())
    for file in sorted(SOURCES.iterdir()):
        digest.update(file.read_bytes())
    file = CACHE / f"{level}-{digest.hexdigest()[:16]}.so"
    if not file.exists():
        if shutil.which(compiler) is None:
            raise Unavailable(f"{compiler} is not installed; install it or set CXX")
        CACHE.mkdir(parents=True, exist_ok=True)
        new = file.with_suffix(f".{os.getpid()}")
        done = subprocess.run([compiler, *flags, SOURCES / "step.cpp", "-o", new], capture_output=True, text=True)
        if done.returncode:
            raise Unavailable(f"{compiler} failed: {done.stderr.strip().splitlines()[0] if done.stderr.strip() else done.returncode}")
        new.replace(file)
    found = ctypes.CDLL(str(file))
    pointer, integer = ctypes.c_void_p, ctypes.c_int
    found.fused_step.argtypes = [pointer, pointer, pointer, integer, integer, integer, pointer, ctypes.c_float, integer, pointer, pointer]
    found.fused_step.restype = ctypes.c_double
    found.fused_parameters.restype = ctypes.c_long
    found.fused_spent.argtypes, found.fused_spent.restype = [pointer], ctypes.c_char_p
    if not found.fused_possible():
        raise Unavailable(f"the system does not let this process use {level}")
    return found


class Fused:
    """Makes the network's parameters views of one tensor, and their gradients too."""

    def __init__(self, net, threads=1, level=None):
        self.net, self.threads = net, threads
        self.level, self.library = self.open(level)
        parameters = list(net.parameters())
        self.values = torch.cat([p.detach().flatten() for p in parameters])
        self.gradients = torch.zeros_like(self.values)
        assert self.values.numel() == self.library.fused_parameters(), "the parameters are not those of model.py"
        for p, value, gradient in zip(parameters, self.split(self.values), self.split(self.gradients)):
            p.data, p.grad = value, gradient

    def open(self, level):
        """Returns the level, or the best that runs here, and its library."""
        error = Unavailable("this CPU has no AVX2")
        for name in levels() if level is None else [level]:
            try:
                return name, library(sizes_of(self.net), name)
            except Unavailable as found:
                error = found
        raise error

    def split(self, flat):
        shapes = [p.shape for p in self.net.parameters()]
        return [part.view(shape) for part, shape in zip(flat.split([shape.numel() for shape in shapes]), shapes)]

    def forward(self, x):
        """[N, channels, H, W] -> [N, channels, H scale, W scale]"""
        out = x.new_empty(*x.shape[:2], *(side * self.net.sizes.scale for side in x.shape[2:]))
        self.call(x, None, None, 0, out, None)
        return out

    def pixels(self, x, hr, weights, eps=1e-3, out=None):
        """Fills the gradients. weights: of l1, charbonnier (eps wide) and psnr. Returns the loss; fills `out`, if given."""
        return self.call(x, hr, (ctypes.c_float * 3)(*weights), eps, out, self.gradients)

    def backward(self, x, gradient):
        """Fills the gradients from the loss's gradient with respect to the output of x."""
        self.call(x, gradient, None, 0, None, self.gradients)

    def call(self, x, target, weights, eps, out, gradients):
        n, channels, h, w = x.shape
        scale = self.net.sizes.scale
        assert channels == self.net.sizes.in_channels and h >= 15 and w >= 15, f"{tuple(x.shape)}: not an input of the network"
        x = x.contiguous()
        target = None if target is None else target.contiguous()
        for tensor, shape in ((x, x.shape), (target, (n, channels, h * scale, w * scale)), (out, (n, channels, h * scale, w * scale))):
            assert tensor is None or tensor.shape == shape and tensor.dtype == torch.float32 and tensor.is_contiguous()
        at = lambda tensor: None if tensor is None else tensor.data_ptr()
        return self.library.fused_step(at(self.values), at(x), at(target), n, h, w, weights, eps, self.threads, at(out), at(gradients))

    def spent(self):
        """Returns {part: cycles} since the last call."""
        cycles = (ctypes.c_double * 64)()
        names = self.library.fused_spent(cycles).decode().split()
        return dict(zip(names, cycles))

"""The network alone: hasn's CPU engine against ONNX Runtime, OpenVINO and PyTorch, one frame at a time.

    network.py [--models FILE...] [--sizes WxH...] [--threads N...] [--rounds N] [--busy] [--json FILE] ...

Needs target/release/hasn, ffmpeg and requirements.txt (for PyTorch: requirements-torch.txt). Every engine runs the same
weights at the same fixed size: hasn as `hasn bench`, each peer in a warm child process (peer.py) and in its fastest form
(graph.py). In each round every contender has a turn of a warm-up and a few runs; the figures are medians over rounds of
the medians of turns. Precisions are f32, bf16 if the CPU supports it, f32 limited to AVX2 on both sides, and hasn's int16
against the peers' f32, since they have no comparable precision.

Printed first: the CPU's instruction sets and all versions (machine.py), then for each contender the instruction sets that
its runtime reports for this network. Before the measurement all contenders upscale one frame of the clip, and their
outputs are compared with that of `hasn upscale --engine reference`. f32 must be within 2e-4 (and half a code value, for
hasn's output is 16-bit gray), else the exit code is 1. Other precisions are marked as off, there and in the table, where
they differ by more than one 8-bit code value. A ratio below its target is marked and is not an error.
"""

import argparse
import importlib.util
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from machine import cpu_flags, describe

HERE = Path(__file__).parent
CLIP = HERE.parent / "bbb-360p.mp4"
CPU_FLAGS = cpu_flags()
AGREE_F32 = 2e-4 + 0.5 / 65535
# A code value of 8-bit video.
OFF_MIN = 1 / 255
# Idle threads of the previous peer spin for up to 60 ms.
IDLE_CHECK_S = 0.1
BUSY_S_MAX = 300
# A turn is repeated if other processes used more of the machine than this, beyond the resolution of the kernel's clock.
OTHERS_SHARE_MAX = 0.1
CLOCK_S = 0.03
TURN_TRIES = 5
# A median further above the shortest turn than this reflects the machine rather than the engine. On two threads the
# virtual machine of the first measurements had two speeds, for a minute at a time: hasn bf16 took 7.9 or 13.7 ms, and
# passing a cache line between the cores 26 or 166 ns. Cores that the host moves apart would explain it; not proven.
STEADY_RATIO_MAX = 1.15

AVX2_HASN = {"HASN_CPU_LEVEL": "avx2"}
AVX2_TORCH = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}
# PyTorch returns large tensors to the system after every operator; with these settings glibc keeps them (light model:
# 79 ms without, 57 ms with them).
KEEP_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "8000000000", "MALLOC_TOP_PAD_": "100000000"}

# Target ratio of the fastest peer's time to hasn's.
TARGETS = {
    "hasn-lite-x2": {"f32": 1.6, "bf16": 1.6, "avx2": 1.2},
    "hasn-x2": {"f32": 1.35, "bf16": 1.25, "avx2": 1.2},
}


@dataclass
class Contender:
    """An engine at one precision. The target ratio is against peers with `counts`."""

    name: str
    precision: str
    peer: str | None = None
    env: dict = field(default_factory=dict)
    counts: bool = True

    @property
    def is_f32(self):
        return self.precision in ("f32", "avx2")


class Hasn:
    """Runs a new `hasn bench` for every turn."""

    def __init__(self, contender, case, options):
        self.options, self.case = options, case
        self.env = os.environ | contender.env
        self.precision = "f32" if contender.is_f32 else contender.precision
        self.about = {}

    def run(self, runs):
        command = [self.options.hasn, "bench", "--engine", "cpu", "--model", self.case.model, "--json"]
        command += ["--size", f"{self.case.width}x{self.case.height}", "--threads", self.case.threads]
        command += ["--precision", self.precision, "--runs", runs]
        out = subprocess.run(list(map(str, command)), env=self.env, check=True, capture_output=True, text=True)
        self.about = json.loads(out.stdout)
        return self.about["frame_ms_median"]

    def instruction_sets(self):
        return self.about.get("cpu_level", "")

    def upscale(self, frame, folder, engine="cpu"):
        source, target = folder / "in.png", folder / "out.png"
        Image.fromarray(frame).save(source)
        command = [self.options.hasn, "upscale", "-y", "--progress", "none", "--engine", engine]
        command += ["--model", self.case.model, "--threads", self.case.threads, "--precision", self.precision]
        command += ["--pix-fmt", "gray16be", source, target]
        subprocess.run(list(map(str, command)), env=self.env, check=True, stderr=subprocess.PIPE)
        return np.asarray(Image.open(target)) / np.float32(65535)

    def cpu_s(self):
        return ended_children_cpu_s()

    def close(self):
        pass


class Peer:
    """A child process that keeps the peer warm."""

    def __init__(self, contender, case, options, form=None):
        command = [sys.executable, HERE / "peer.py", contender.peer, case.model]
        command += [case.width, case.height, case.threads, form or options.form]
        self.child = subprocess.Popen(
            list(map(str, command)),
            env=os.environ | contender.env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=None if options.verbose else subprocess.DEVNULL,
            text=True,
        )
        self.about = self.read_reply()

    def request(self, line):
        self.child.stdin.write(line + "\n")
        self.child.stdin.flush()
        return self.read_reply()

    def read_reply(self):
        line = self.child.stdout.readline()
        if not line:
            sys.exit(f"{' '.join(self.child.args)}: exited with {self.child.wait()}; --verbose shows its messages")
        return json.loads(line)

    def run(self, runs):
        return statistics.median(self.request(f"run {runs}")["ms"])

    def instruction_sets(self):
        return self.about["instruction_sets"]

    def upscale(self, frame, folder):
        source, target = folder / "in.npy", folder / "out.npy"
        np.save(source, frame[None, None].astype(np.float32) / 255)
        self.request(f"upscale {source} {target}")
        return np.load(target)[0, 0].clip(0, 1)

    def cpu_s(self):
        user, system = Path(f"/proc/{self.child.pid}/stat").read_text().rsplit(") ")[1].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    def close(self):
        self.child.stdin.close()
        self.child.wait()


@dataclass(frozen=True)
class Case:
    model: Path
    width: int
    height: int
    threads: int

    def __str__(self):
        return f"{self.model.stem} {self.width}x{self.height}, {self.threads} thread{'s' * (self.threads > 1)}"


def contenders(options):
    f32 = [
        Contender("hasn", "f32"),
        Contender("ONNX Runtime", "f32", "onnxruntime"),
        Contender("OpenVINO", "f32", "openvino-f32"),
    ]
    bf16 = [Contender("hasn", "bf16"), Contender("OpenVINO", "bf16", "openvino-bf16")]
    # hasn's level for AVX-512 without VNNI has no int16.
    has_int16 = "avx2" in CPU_FLAGS and ("avx512f" not in CPU_FLAGS or "avx512_vnni" in CPU_FLAGS)
    int16 = [Contender("hasn", "int16")] if has_int16 else []
    torch = AVX2_TORCH | KEEP_MEMORY
    avx2 = [Contender("hasn", "avx2", env=AVX2_HASN), Contender("PyTorch", "avx2", "torch", torch)]
    if options.torch_compile:
        avx2.append(Contender("PyTorch compiled", "avx2", "torch-compiled", torch, counts=False))
    if "avx512_bf16" not in CPU_FLAGS and "bf16" in options.precisions:
        print("bf16: skipped because this CPU does not support it")
        bf16 = []
    if importlib.util.find_spec("torch") is None and "avx2" in options.precisions:
        print("PyTorch: skipped because it is not installed; see requirements-torch.txt")
        avx2 = avx2[:1]
    return [one for one in f32 + int16 + bf16 + avx2 if one.precision in options.precisions]


def clip_frame(case):
    """Returns a frame of the clip as full-range gray, [H, W] u8."""
    scale = f"scale={case.width}:{case.height}:flags=area:out_range=full,format=gray"
    command = ["ffmpeg", "-v", "error", "-ss", "2", "-i", CLIP, "-frames:v", "1", "-vf", scale, "-f", "rawvideo", "-"]
    raw = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
    return np.frombuffer(raw, np.uint8).reshape(case.height, case.width)


def check_agreement(case, runners, options):
    """Prints each contender's difference from the reference, and returns them. Exits if that of an f32 engine is too large."""
    frame = clip_frame(case)
    found, agreed = [], True
    with tempfile.TemporaryDirectory() as folder:
        reference = Hasn(Contender("", "f32"), case, options).upscale(frame, Path(folder), "reference")
        for contender, runner in runners:
            difference = np.abs(runner.upscale(frame, Path(folder)) - reference).astype(np.float64)
            worst, psnr_db = difference.max(), -10 * np.log10((difference**2).mean() + 1e-30)
            # These comparisons also reject NaN.
            is_off = not worst <= OFF_MIN
            verdict = f"  OFF: more than {OFF_MIN:.1e}" if is_off else ""
            if contender.is_f32 and not worst <= AGREE_F32:
                verdict, agreed = f"  DISAGREES: more than {AGREE_F32:.1e}", False
            form = runner.about.get("form", "")
            print(f"  {contender.name:16} {contender.precision:5}  {form:17}  max {worst:.1e}, {psnr_db:.1f} dB{verdict}")
            found.append({"max_difference": worst, "psnr_db": psnr_db, "off": is_off})
    if not agreed:
        sys.exit(f"{case}: the engines disagree")
    return found


def undisturbed(work, own_cpu_s, busy):
    """Returns the result of `work`, repeated a few times if other processes used the machine meanwhile, unless `busy`."""
    if busy:
        return work()
    for _ in range(TURN_TRIES):
        wait_until_idle()
        start_s, others_s = time.monotonic(), machine_cpu_s() - own_cpu_s()
        result = work()
        others_s = machine_cpu_s() - own_cpu_s() - others_s
        if others_s < OTHERS_SHARE_MAX * (time.monotonic() - start_s) + CLOCK_S:
            return result
    print(f"disturbed: other processes used more than {OTHERS_SHARE_MAX:.0%} of the machine in each of {TURN_TRIES} tries")
    return result


def wait_until_idle():
    """Waits until neither the last contender's threads nor other processes use the machine."""
    deadline = time.monotonic() + BUSY_S_MAX
    while True:
        before_s = machine_cpu_s()
        time.sleep(IDLE_CHECK_S)
        if machine_cpu_s() - before_s < OTHERS_SHARE_MAX * IDLE_CHECK_S + CLOCK_S:
            return
        if time.monotonic() > deadline:
            sys.exit(f"the machine has been busy for {BUSY_S_MAX} s; measure on an idle machine, or with --busy")


def ended_children_cpu_s():
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def machine_cpu_s():
    """Returns the CPU seconds used since boot, by the machine's processes and by other guests of its host."""
    user, nice, system, _, _, irq, softirq, steal = map(int, Path("/proc/stat").read_text().split()[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def measure(case, everyone, options):
    """Checks that all contenders agree. Returns the median of the turns of each."""
    print(f"\n{case}: differences from the reference")
    make = lambda one: (Hasn if one.peer is None else Peer)(one, case, options)
    runners = [(one, make(one)) for one in everyone]
    try:
        differences = check_agreement(case, runners, options)
        turns_ms = [[] for _ in runners]
        # The first round is a warm-up.
        for counted in [False] + [True] * options.rounds:
            for (_, runner), ms in zip(runners, turns_ms):
                turn_ms = undisturbed(lambda: runner.run(options.runs), runner.cpu_s, options.busy)
                if counted:
                    ms.append(turn_ms)
        print("  instruction sets, as each runtime reports them:")
        for one, runner in runners:
            print(f"  {one.name:16} {one.precision:5}  {runner.instruction_sets()}")
        return [
            {
                "name": one.name,
                "precision": one.precision,
                "counts": one.counts,
                "ms": statistics.median(ms),
                "turns_ms": ms,
                **difference,
                **({"bench": runner.about} if one.peer is None else runner.about),
            }
            for (one, runner), ms, difference in zip(runners, turns_ms, differences)
        ]
    finally:
        for _, runner in runners:
            runner.close()


def table(results):
    """Prints a line for each case and precision, then hasn's speedup by more threads."""
    names = ["hasn", "ONNX Runtime", "OpenVINO", "PyTorch", "PyTorch compiled"]
    names = [name for name in names if any(one["name"] == name for r in results for one in r["contenders"])]
    head = ["model", "size", "threads", "precision", *names, "ratio", "target"]
    lines = []
    for r in results:
        for precision in dict.fromkeys(one["precision"] for one in r["contenders"]):
            of = lambda kind: {one["name"]: one for one in r["contenders"] if one["precision"] == kind}
            found = (of("f32") if precision == "int16" else {}) | of(precision)
            peers_ms = [one["ms"] for name, one in found.items() if name != "hasn" and one["counts"]]
            ratio = min(peers_ms) / found["hasn"]["ms"] if peers_ms else None
            target = TARGETS.get(r["model"], {}).get(precision) if ratio else None
            lines.append(
                [r["model"], r["size"], str(r["threads"]), precision]
                + [cell(found[name]) if name in found else "" for name in names]
                + [f"{ratio:.2f}" if ratio else "", f"{target} {'missed' if ratio < target else 'met'}" if target else ""]
            )
    widths = [max(map(len, column)) for column in zip(head, *lines)]
    print(f"\nms per frame; off: the output differs from the reference by more than {OFF_MIN:.1e} of full scale")
    for line in [head, ["-" * width for width in widths], *lines]:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip())
    for r in results:
        for one in r["contenders"]:
            if one["ms"] > STEADY_RATIO_MAX * min(one["turns_ms"]):
                turns = " ".join(f"{ms:.1f}" for ms in sorted(one["turns_ms"]))
                name = f"{r['model']} {r['size']} {r['threads']} {one['name']} {one['precision']}"
                print(f"unsteady, measure again on an idle machine: {name}: {turns} ms")
    for r in results:
        one = next((o for o in results if (o["model"], o["size"], o["threads"]) == (r["model"], r["size"], 1)), None)
        if r["threads"] == 1 or one is None:
            continue
        gains = [
            f"{a['ms'] / b['ms']:.2f} {b['precision']}"
            for a, b in zip(one["contenders"], r["contenders"])
            if b["name"] == "hasn"
        ]
        print(f"hasn on {r['threads']} threads, {r['model']} {r['size']}, speedup over one thread: {', '.join(gains)}")


def cell(one):
    return f"{one['ms']:.1f}{' off' if one['off'] else ''}"


def parse_size(text):
    width, height = map(int, text.split("x"))
    return width, height


def arguments():
    root = HERE.parent.parent
    models = [root / "models" / f"{name}.safetensors" for name in TARGETS]
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--models", nargs="+", type=Path, default=models, metavar="FILE", help="luma models")
    parser.add_argument("--sizes", nargs="+", type=parse_size, default=[(320, 180)], metavar="WxH")
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2], metavar="N")
    kinds = ["f32", "int16", "bf16", "avx2"]
    parser.add_argument("--precisions", nargs="+", choices=kinds, default=kinds)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--runs", type=int, default=5, help="runs per turn, after a warm-up")
    parser.add_argument("--form", default="fastest", help="form of the peers' graph: fastest, or a name of graph.FORMS")
    parser.add_argument("--torch-compile", action="store_true", help="also run compiled PyTorch, which needs a C++ compiler")
    parser.add_argument("--busy", action="store_true", help="measure beside other processes as well")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the ms of every turn to FILE")
    parser.add_argument("--hasn", type=Path, default=root / "target/release/hasn")
    parser.add_argument("--verbose", action="store_true", help="show the peers' messages")
    return parser.parse_args()


def main():
    options = arguments()
    describe(options.hasn)
    everyone = contenders(options)
    results = []
    for model in options.models:
        for width, height in options.sizes:
            for threads in options.threads:
                case = Case(model, width, height, threads)
                result = {"model": model.stem, "size": f"{width}x{height}", "threads": threads}
                results.append(result | {"contenders": measure(case, everyone, options)})
                if options.json:
                    options.json.write_text(json.dumps(results, indent=1) + "\n")
    table(results)


if __name__ == "__main__":
    main()

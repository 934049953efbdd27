"""What a comparison ran on: the CPU with its instruction sets, and the versions of the programs."""

import subprocess
from importlib import metadata
from pathlib import Path

# Those that the engines make use of, as the kernel names them.
INSTRUCTION_SETS = [
    *("avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_int8", "amx_bf16", "amx_fp16"),
]
PACKAGES = ["onnxruntime", "openvino", "torch", "VapourSynth", "vapoursynth-mlrt-ov", "vapoursynth-bestsource"]


def cpu_flags():
    return Path("/proc/cpuinfo").read_text().split()


def describe(hasn):
    """Prints the CPU, its instruction sets and the versions."""
    cpu = Path("/proc/cpuinfo").read_text()
    name = next((line.split(": ")[1] for line in cpu.splitlines() if line.startswith("model name")), "unknown CPU")
    family, model = (
        next((line.split(": ")[1] for line in cpu.splitlines() if line.split("\t")[0] == key), "?")
        for key in ("cpu family", "model")
    )
    flags = cpu_flags()
    print(f"{name} (family {family}, model {model}): {', '.join(one for one in INSTRUCTION_SETS if one in flags)}")
    print(f"versions: {', '.join([first_line(hasn, '--version'), ffmpeg(), *packages()])}")


def packages():
    for name in PACKAGES:
        try:
            yield f"{name} {metadata.version(name)}"
        except metadata.PackageNotFoundError:
            pass


def ffmpeg():
    """FFmpeg's version, and what the x264 that both sides encode with makes use of."""
    version = " ".join(first_line("ffmpeg", "-version").split()[::2][:2])
    command = ["ffmpeg", "-hide_banner", "-f", "lavfi", "-i", "color=s=64x64", "-frames:v", "1", "-c:v", "libx264"]
    log = subprocess.run([*command, "-f", "null", "-"], capture_output=True, text=True).stderr
    sets = next((line.split("capabilities: ")[1] for line in log.splitlines() if "capabilities: " in line), "unknown")
    return f"{version} (x264: {sets})"


def first_line(*command):
    return subprocess.check_output(command, text=True).splitlines()[0]

"""Compiles the kernels: hasn.cu to PTX with NVRTC, PTX to a cubin for each GPU architecture with ptxas, all into hasn.cubins.

In: the sources beside this file, and the wheels of requirements.txt, in whose environment this script runs. It needs
neither a GPU nor a driver. Out: the archive that src/engine/cuda/archive.rs reads, and a table of each kernel's resources.
The exit code is 1 if a kernel would be slow, because it spills registers or does not use the tensor cores.

The archive, little-endian:
    magic "HASNCUB1", u32 CRC-32 of the sources (all *.cu and *.cuh, in name order), u32 number of entries
    an entry: name as 16 bytes padded with zeros, u32 length, u32 compressed length, zlib data
    entries: a cubin for each target, from "sm_75" on; the PTX; "registers" and "kernels", text with a line per kernel:
    its name and its registers per thread on sm_90, or its name and the bytes of its argument
"""

import argparse
import ctypes
import re
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from concurrent.futures import ProcessPoolExecutor
from importlib.util import find_spec
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
ARCHIVE = FOLDER / "hasn.cubins"
MAGIC = b"HASNCUB1"
# Turing, A100, other Ampere, Ada, Hopper, data centre and other Blackwell.
TARGETS = [75, 80, 86, 89, 90, 100, 120]
# For GPUs that no cubin fits, the driver compiles this PTX.
PTX_TARGET = 120
# Turing copies to shared memory through registers and multiplies in twice as many steps: it may spill.
SPILL_TARGET_MAX = 75
# The archive is embedded in the program. A larger one would indicate kernels built for too many sizes.
SIZE_MAX = 3_000_000

# Kernels of dense convolutions, in all their sizes: their machine code must have tensor core instructions (HMMA).
ON_TENSOR_CORES = ["norm", "squeeze", "grid", "gate", "cab", "first_step", "leave"]
SIZES = ["lite", "paper", "wide"]


def main():
    parser = argparse.ArgumentParser(description="Compiles the kernels into hasn.cubins.")
    parser.add_argument("--check", action="store_true", help="compare with the existing archive instead of writing it")
    check = parser.parse_args().check
    start = time.monotonic()
    with ProcessPoolExecutor(2) as pool:
        built = list(pool.map(build, TARGETS))
    print(table([kernels for _, _, kernels in built]))
    assert len(arguments(built[0][0])) == len(built[0][2]), "every kernel must have one argument, a struct"
    entries = {f"sm_{target}": cubin for target, (_, cubin, _) in zip(TARGETS, built)}
    ptx = built[TARGETS.index(PTX_TARGET)][0]
    entries[f"compute_{PTX_TARGET}"] = ptx
    # On Hopper, for the occupancy that `make cuda-budget` reports.
    registers = built[TARGETS.index(90)][2]
    entries["registers"] = "".join(f"{name} {used['registers']}\n" for name, used in registers.items()).encode()
    entries["kernels"] = "".join(f"{name} {size}\n" for name, size in arguments(ptx)).encode()
    packed = pack(entries)
    print(f"{len(packed)} bytes, {time.monotonic() - start:.0f} s")

    problems = [line for target, (_, _, kernels) in zip(TARGETS, built) for line in problems_of(target, kernels)]
    if len(packed) > SIZE_MAX:
        problems.append(f"{ARCHIVE.name}: {len(packed)} bytes exceed the limit of {SIZE_MAX}; build fewer sizes")
    if check and (not ARCHIVE.exists() or unpack(ARCHIVE.read_bytes()) != unpack(packed)):
        problems.append(f"{ARCHIVE.name}: does not match the sources; run `make kernels` and commit it")
    if not check:
        ARCHIVE.write_bytes(packed)
    for problem in problems:
        print(problem, file=sys.stderr)
    sys.exit(bool(problems))


def build(target):
    """Returns the PTX, the cubin, and {kernel: resources}."""
    ptx = compile_to_ptx(target)
    with tempfile.TemporaryDirectory() as folder:
        ptx_file, cubin_file = Path(folder, "hasn.ptx"), Path(folder, "hasn.cubin")
        ptx_file.write_bytes(ptx)
        ptxas_log = tool("cuda_nvcc/bin/ptxas", "-v", f"-arch=sm_{target}", ptx_file, "-o", cubin_file).stderr
        machine_code = tool("cu13/bin/nvdisasm", cubin_file).stdout
        return ptx, cubin_file.read_bytes(), resources(ptxas_log, machine_code)


def compile_to_ptx(target):
    nvrtc = ctypes.CDLL(str(wheels("cuda_nvrtc/lib/libnvrtc.so.12")))
    # No fast-math options: approximations are explicit in the source. No headers but those beside this file.
    options = [f"--gpu-architecture=compute_{target}", "--std=c++17", "--device-as-default-execution-space",
               "--no-source-include", f"--include-path={FOLDER}"]
    program = ctypes.c_void_p()
    source = (FOLDER / "hasn.cu").read_bytes()
    nvrtc.nvrtcCreateProgram(ctypes.byref(program), source, b"hasn.cu", 0, None, None)
    arguments = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
    failed = nvrtc.nvrtcCompileProgram(program, len(options), arguments)
    log = fetch(nvrtc.nvrtcGetProgramLogSize, nvrtc.nvrtcGetProgramLog, program).decode()
    if failed:
        sys.exit(f"compute_{target}:\n{log}")
    if log:
        print(f"compute_{target}:\n{log}", file=sys.stderr)
    return fetch(nvrtc.nvrtcGetPTXSize, nvrtc.nvrtcGetPTX, program)


def fetch(size_of, get, program):
    size = ctypes.c_size_t()
    size_of(program, ctypes.byref(size))
    text = ctypes.create_string_buffer(size.value)
    get(program, text)
    return text.value


def wheels(path):
    return Path(find_spec("nvidia").submodule_search_locations[0], path)


def tool(path, *arguments):
    ran = subprocess.run([wheels(path), *arguments], capture_output=True, text=True)
    if ran.returncode:
        sys.exit(f"{path}: {ran.stderr}")
    return ran


def resources(ptxas_log, machine_code):
    """Returns {kernel: {registers, shared, stack, spills, hmma}}, from ptxas's log and the disassembled cubin."""
    kernels = {}
    for part in ptxas_log.split("Compiling entry function '")[1:]:
        number = lambda pattern: int((re.search(pattern, part) or [0, 0])[1])
        kernels[part.split("'")[0]] = {
            "registers": number(r"Used (\d+) registers"),
            "shared": number(r"(\d+) bytes smem"),
            "stack": number(r"(\d+) bytes stack frame"),
            "spills": number(r"(\d+) bytes spill stores") + number(r"(\d+) bytes spill loads"),
        }
    for part in machine_code.split("\n.text.")[1:]:
        kernels[part.split(":")[0]]["hmma"] = part.count("HMMA")
    return kernels


def arguments(ptx):
    """Returns the kernels and the bytes of their argument, in source order."""
    return re.findall(r"\.entry (\w+)\(\s*\.param \.align \d+ \.b8 \w+\[(\d+)\]\s*\)", ptx.decode())


def table(targets):
    columns = ["registers", "shared", "stack", "spills", "hmma"]
    lines = ["Per kernel: registers per thread / bytes of static shared memory, stack, spills / HMMA instructions"]
    lines.append("".join([f"{'':18}"] + [f"{f'sm_{target}':>20}" for target in TARGETS]))
    for name in reversed(targets[0]):
        cells = ["/".join(str(kernels[name][column]) for column in columns) for kernels in targets]
        lines.append("".join([f"{name:18}"] + [f"{cell:>20}" for cell in cells]))
    return "\n".join(lines)


def problems_of(target, kernels):
    for name, used in kernels.items():
        if used["spills"] and target > SPILL_TARGET_MAX:
            yield f"{name}: spills {used['spills']} bytes on sm_{target}; keep less in a thread's registers"
        # The launcher sets the dynamic shared memory of every kernel to the device's maximum.
        if used["shared"]:
            yield f"{name}: has {used['shared']} bytes of static shared memory; use shared_memory() instead"
    for name in (f"{kernel}_{size}" for kernel in ON_TENSOR_CORES for size in SIZES):
        if not kernels[name]["hmma"]:
            yield f"{name}: has no HMMA on sm_{target}; use the tensor cores"


def pack(entries):
    sources = b"".join(path.read_bytes() for path in sorted([*FOLDER.glob("*.cu"), *FOLDER.glob("*.cuh")]))
    packed = MAGIC + struct.pack("<II", zlib.crc32(sources), len(entries))
    for name, data in entries.items():
        compressed = zlib.compress(data, 9)
        packed += struct.pack("<16sII", name.encode(), len(data), len(compressed)) + compressed
    return packed


def unpack(packed):
    """Returns the uncompressed contents, because versions of zlib may compress the same data differently."""
    contents, at = [packed[:16]], 16
    while at < len(packed):
        name, _, length = struct.unpack_from("<16sII", packed, at)
        contents += [name, zlib.decompress(packed[at + 24 : at + 24 + length])]
        at += 24 + length
    return contents


if __name__ == "__main__":
    main()

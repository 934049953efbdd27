"""Compiles the kernels: hasn.cu by NVRTC to PTX, PTX by ptxas to a cubin for each kind of GPU, all into hasn.cubins.

What comes in: the sources beside this file and the wheels of requirements.txt, in whose environment it runs. It needs no
GPU and no driver. What goes out: the archive that src/engine/cuda/archive.rs reads, and a table of what each kernel takes
of a multiprocessor. Exits with 1 where a kernel would be slow: spilled registers, or tensor cores left alone.

The archive, in little endian:
    magic "HASNCUB1", u32 CRC-32 of the sources (all *.cu and *.cuh, in order of their names), u32 number of entries
    an entry: name as 16 bytes padded with zeros, u32 length, u32 length as stored, what is stored (zlib)
    entries: a cubin for each target, "sm_75" on; the PTX; "registers" and "kernels", a line each: name, registers a
    thread on sm_90 or bytes of its argument
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
# Of what no cubin fits, the driver compiles the newest PTX.
PTX_OF = 120
# Turing copies to shared memory through registers and multiplies in twice the steps: it may spill.
SPILLS_UP_TO = 75
# It is a part of the program; more would be a sign of kernels built for too many sizes.
SIZE_MAX = 3_000_000

# Kernels of dense maps, in all their sizes: their machine code has instructions of tensor cores (HMMA) on every target.
ON_TENSOR_CORES = ["norm", "squeeze", "grid", "gate", "cab", "first_step", "leave"]
SIZES = ["lite", "paper", "wide"]


def main():
    parser = argparse.ArgumentParser(description="Compiles the kernels into hasn.cubins.")
    parser.add_argument("--check", action="store_true", help="write nothing: compare with the archive that is there")
    check = parser.parse_args().check
    start = time.monotonic()
    with ProcessPoolExecutor(2) as pool:
        built = list(pool.map(build, TARGETS))
    print(table([kernels for _, _, kernels in built]))
    assert len(arguments(built[0][0])) == len(built[0][2]), "a kernel has one argument, a struct"
    entries = {f"sm_{target}": cubin for target, (_, cubin, _) in zip(TARGETS, built)}
    ptx = built[TARGETS.index(PTX_OF)][0]
    entries[f"compute_{PTX_OF}"] = ptx
    # Of Hopper, for the count of what runs beside each other.
    registers = built[TARGETS.index(90)][2]
    entries["registers"] = "".join(f"{name} {takes['registers']}\n" for name, takes in registers.items()).encode()
    entries["kernels"] = "".join(f"{name} {size}\n" for name, size in arguments(ptx)).encode()
    packed = pack(entries)
    print(f"{len(packed)} bytes, {time.monotonic() - start:.0f} s")

    problems = [line for target, (_, _, kernels) in zip(TARGETS, built) for line in unfit(target, kernels)]
    if len(packed) > SIZE_MAX:
        problems.append(f"{ARCHIVE.name}: {len(packed)} bytes are more than {SIZE_MAX}; build fewer sizes")
    if check and (not ARCHIVE.exists() or unpack(ARCHIVE.read_bytes()) != unpack(packed)):
        problems.append(f"{ARCHIVE.name}: is not what these sources give; run `make kernels` and commit it")
    if not check:
        ARCHIVE.write_bytes(packed)
    for problem in problems:
        print(problem, file=sys.stderr)
    sys.exit(bool(problems))


def build(target):
    """PTX, cubin and, by its name, what each kernel takes."""
    ptx = compile_to_ptx(target)
    with tempfile.TemporaryDirectory() as folder:
        ptx_file, cubin_file = Path(folder, "hasn.ptx"), Path(folder, "hasn.cubin")
        ptx_file.write_bytes(ptx)
        told = tool("cuda_nvcc/bin/ptxas", "-v", f"-arch=sm_{target}", ptx_file, "-o", cubin_file).stderr
        machine_code = tool("cu13/bin/nvdisasm", cubin_file).stdout
        return ptx, cubin_file.read_bytes(), resources(told, machine_code)


def compile_to_ptx(target):
    nvrtc = ctypes.CDLL(str(wheels("cuda_nvrtc/lib/libnvrtc.so.12")))
    # Exact where the source is: what may be approximate says so there. No header but ours.
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


def resources(told, machine_code):
    """From what ptxas told and the cubin disassembled: {kernel: {registers, shared, stack, spills, hmma}}."""
    kernels = {}
    for part in told.split("Compiling entry function '")[1:]:
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
    """Kernels and the bytes of their argument, in the order of the sources."""
    return re.findall(r"\.entry (\w+)\(\s*\.param \.align \d+ \.b8 \w+\[(\d+)\]\s*\)", ptx.decode())


def table(targets):
    columns = ["registers", "shared", "stack", "spills", "hmma"]
    lines = ["A kernel's registers a thread / static shared memory, stack, spills in bytes / HMMA instructions"]
    lines.append("".join([f"{'':18}"] + [f"{f'sm_{target}':>20}" for target in TARGETS]))
    for name in reversed(targets[0]):
        cells = ["/".join(str(kernels[name][column]) for column in columns) for kernels in targets]
        lines.append("".join([f"{name:18}"] + [f"{cell:>20}" for cell in cells]))
    return "\n".join(lines)


def unfit(target, kernels):
    for name, takes in kernels.items():
        if takes["spills"] and target > SPILLS_UP_TO:
            yield f"{name}: spills {takes['spills']} bytes on sm_{target}; let a thread hold less"
        # The driver's side lets every kernel have all of the shared memory as dynamic one.
        if takes["shared"]:
            yield f"{name}: has {takes['shared']} bytes of static shared memory; take them of shared_memory()"
    for name in (f"{kernel}_{size}" for kernel in ON_TENSOR_CORES for size in SIZES):
        if not kernels[name]["hmma"]:
            yield f"{name}: has no HMMA on sm_{target}; multiply on tensor cores"


def pack(entries):
    sources = b"".join(path.read_bytes() for path in sorted([*FOLDER.glob("*.cu"), *FOLDER.glob("*.cuh")]))
    packed = MAGIC + struct.pack("<II", zlib.crc32(sources), len(entries))
    for name, data in entries.items():
        stored = zlib.compress(data, 9)
        packed += struct.pack("<16sII", name.encode(), len(data), len(stored)) + stored
    return packed


def unpack(packed):
    """What it holds: two versions of zlib may store the same in two ways."""
    contents, at = [packed[:16]], 16
    while at < len(packed):
        name, _, length = struct.unpack_from("<16sII", packed, at)
        contents += [name, zlib.decompress(packed[at + 24 : at + 24 + length])]
        at += 24 + length
    return contents


if __name__ == "__main__":
    main()

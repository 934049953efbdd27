#!/usr/bin/env python3
"""Reduces full golden files to tests/data/golden/*.safetensors, which are small enough for the repository.

usage: make_golden.py FOLDER_OF_FULL_FILES OUTPUT_FOLDER

A full file has f32 tensors computed by PyTorch: w.* (weights), act.* (module outputs), input and output. Weights,
input and output are kept complete. Of an activation with more than COMPLETE_MAX values, every EVERY-th value of the
flattened tensor is kept; the metadata has these numbers as `every` and `whole_max`. EVERY is prime and divides no
width, plane size or channel count of these files, so that the samples are spread over rows, columns and channels.
"""

import json
import struct
import sys
from pathlib import Path

EVERY = 29
COMPLETE_MAX = 64


def read(path):
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def shrink(path):
    header, data = read(path)
    metadata = header.pop("__metadata__") | {"every": str(EVERY), "whole_max": str(COMPLETE_MAX)}
    out, body = {"__metadata__": metadata}, b""
    for name, info in sorted(header.items()):
        assert info["dtype"] == "F32", name
        begin, end = info["data_offsets"]
        values, shape = data[begin:end], info["shape"]
        if name.startswith("act.") and len(values) // 4 > COMPLETE_MAX:
            assert all(side % EVERY for side in shape), f"{name}: {shape} aliases with every {EVERY}th value"
            values = b"".join(values[i : i + 4] for i in range(0, len(values), 4 * EVERY))
            shape = [len(values) // 4]
        out[name] = {"dtype": "F32", "shape": shape, "data_offsets": [len(body), len(body) + len(values)]}
        body += values
    head = json.dumps(out, separators=(",", ":"), sort_keys=True).encode()
    head += b" " * (-len(head) % 8)
    return struct.pack("<Q", len(head)) + head + body


def main():
    source, target = map(Path, sys.argv[1:])
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted(source.glob("*.safetensors")):
        small = shrink(path)
        (target / path.name).write_bytes(small)
        print(f"{path.name}: {path.stat().st_size} -> {len(small)} bytes")


if __name__ == "__main__":
    main()

"""Lets PyTorch's wheel run without the 4 GB of CUDA libraries that it is linked against.

    pip install --no-deps torch==2.15.0
    python training/without_cuda.py

For machines without a GPU, where those libraries are loaded and never used. They are replaced by one stub library of a few
kilobytes, linked under all their names, in which every function that PyTorch imports returns "no CUDA device". Needs gcc,
nm and objdump. Not for machines with a GPU: there `pip install torch` installs the libraries.
"""

import re
import subprocess
import sys
import tempfile
from collections import defaultdict
from importlib.util import find_spec
from pathlib import Path

# cudaErrorNoDevice of the CUDA runtime; the other libraries define it as an error as well.
NO_DEVICE = 100
STUB = "without_cuda.so"
LIBRARIES = re.compile(r"lib(cu|nv|nccl)\w*\.so\.\d+")
FUNCTIONS = re.compile(r"(__)?(cu|nv|nccl)\w+")


def main():
    folder = Path(find_spec("torch").submodule_search_locations[0]) / "lib"
    libraries, functions = set(), defaultdict(set)
    for file in folder.glob("*.so"):
        needed = re.findall(r"NEEDED\s+(\S+)", output("objdump", "-p", file))
        libraries.update(name for name in needed if LIBRARIES.fullmatch(name))
        for line in output("nm", "-D", "--undefined-only", file).splitlines():
            name, _, version = line.split()[-1].partition("@")
            if FUNCTIONS.fullmatch(name):
                functions[name].add(version)
    build(functions, folder / STUB)
    # The driver's own library is loaded at run time and only if it exists.
    for name in libraries - {"libcuda.so.1"}:
        link = folder / name
        link.unlink(missing_ok=True)
        link.symlink_to(STUB)
    subprocess.run([sys.executable, "-c", "import torch; assert not torch.cuda.is_available()"], check=True)
    print(f"{len(functions)} functions of {len(libraries)} libraries are replaced by stubs that return cudaErrorNoDevice")


def build(functions, path):
    """Builds a stub library. functions: {name: imported symbol versions, "" for an unversioned import}."""
    source = "".join(f"int {name}(void) {{ return {NO_DEVICE}; }}\n" for name in functions)
    versions = defaultdict(list)
    for name, imported in functions.items():
        versions[max(imported) or "none"].append(name)
    script = "".join(f"{version} {{ {'; '.join(names)}; }};\n" for version, names in versions.items())
    with tempfile.TemporaryDirectory() as folder:
        script_file = Path(folder, "versions")
        script_file.write_text(script)
        command = ["gcc", "-shared", "-fPIC", "-fno-builtin", "-x", "c", "-", "-o", path]
        subprocess.run([*command, f"-Wl,--version-script={script_file}"], input=source, text=True, check=True)


def output(*command):
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


if __name__ == "__main__":
    main()

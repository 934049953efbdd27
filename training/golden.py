"""Golden tensors: the output of each module of a network for one input, as a reference for other implementations.

In: sizes, or golden files. Out: a golden file with `w.*` (weights), `act.*` (module outputs), `input` and `output`, all f32;
or, with --check, the largest error of model.py against existing golden files.

    python training/golden.py --write tiny_x2.safetensors --sizes tiny --width 19 --height 17
    python training/golden.py --check FILE...
"""

import argparse
import sys
from dataclasses import asdict, replace
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import model

# Relative to a tensor's largest value. f32 sums in a different order gave 1e-6; engines must stay within 1e-4.
TOLERANCE = 1e-5


def main():
    parser = argparse.ArgumentParser(description="Writes or checks golden tensors.")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--write", type=Path, metavar="FILE")
    what.add_argument("--check", type=Path, nargs="+", metavar="FILE")
    parser.add_argument("--sizes", choices=list(model.SIZES), default="lite")
    parser.add_argument("--scale", type=int, default=2)
    parser.add_argument("--in-channels", type=int, choices=[1, 3], default=1)
    parser.add_argument("--width", type=int, default=45)
    parser.add_argument("--height", type=int, default=31)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if args.write:
        torch.manual_seed(args.seed)
        sizes = replace(model.SIZES[args.sizes], scale=args.scale, in_channels=args.in_channels)
        net, x = model.Hasn(sizes), torch.rand(1, args.in_channels, args.height, args.width)
        metadata = {"arch": "hasn", **{name: str(value) for name, value in asdict(sizes).items()}}
        save_file(record(net, x), args.write, metadata)
        return
    worst = {str(path): check(path) for path in args.check}
    for path, (error, name) in worst.items():
        print(f"{path}: maximum error {error:.1e} of the tensor's largest value, in {name}")
    sys.exit(any(error > TOLERANCE for error, _ in worst.values()))


@torch.no_grad()
def record(net, x):
    """Returns {name: tensor}, without the batch dimension."""
    tensors = {f"w.{name}": tensor for name, tensor in net.state_dict().items()}

    def keep(name):
        return lambda module, inputs, output: tensors.__setitem__(f"act.{name}", output[0])

    hooks = [module.register_forward_hook(keep(name)) for name, module in net.named_modules() if name]
    tensors |= {"input": x[0], "output": net(x)[0]}
    for hook in hooks:
        hook.remove()
    # Copies, because safetensors rejects tensors that share memory.
    return {name: tensor.clone().contiguous() for name, tensor in tensors.items()}


def check(path):
    """Returns the largest error, relative to its tensor's largest value, and the name of that tensor."""
    golden = load_file(path)
    net = model.from_tensors({name[2:]: tensor for name, tensor in golden.items() if name.startswith("w.")})
    actual = record(net, golden["input"][None])
    with safe_open(path, "pt") as file:
        every = int((file.metadata() or {}).get("every", 1))
    missing = [name for name in golden if name not in actual]
    assert not missing, f"{path}: {missing[0]} is not a module of model.py"

    def error_of(name, tensor):
        # Reduced files have only every n-th value of large tensors.
        value = actual[name] if actual[name].shape == tensor.shape else actual[name].flatten()[::every]
        return ((value - tensor).abs().max() / tensor.abs().max()).item()

    errors = {name: error_of(name, tensor) for name, tensor in golden.items()}
    name = max(errors, key=errors.get)
    return errors[name], name


if __name__ == "__main__":
    main()

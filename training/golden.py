"""Golden tensors: what each module of a network gives for one input, for other implementations to be held against.

In: sizes, or files of such tensors. Out: a file with `w.*` weights, `act.*` what each module gives, `input`, `output`, f32;
or, with --check, how far model.py is off those that are there.

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

# f32 sums in another order: 1e-6 of a tensor's largest value was seen, 1e-4 is what engines are held to.
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
    for path, (off, name) in worst.items():
        print(f"{path}: off by {off:.1e} of the largest value at most, {name}")
    sys.exit(any(off > TOLERANCE for off, _ in worst.values()))


@torch.no_grad()
def record(net, x):
    """{name: tensor}, without the batch."""
    tensors = {f"w.{name}": tensor for name, tensor in net.state_dict().items()}

    def keep(name):
        return lambda module, inputs, output: tensors.__setitem__(f"act.{name}", output[0])

    hooks = [module.register_forward_hook(keep(name)) for name, module in net.named_modules() if name]
    tensors |= {"input": x[0], "output": net(x)[0]}
    for hook in hooks:
        hook.remove()
    # Copies: one tensor under two names is refused.
    return {name: tensor.clone().contiguous() for name, tensor in tensors.items()}


def check(path):
    """The greatest distance in parts of the tensor's largest value, and which tensor's it is."""
    golden = load_file(path)
    net = model.from_tensors({name[2:]: tensor for name, tensor in golden.items() if name.startswith("w.")})
    ours = record(net, golden["input"][None])
    with safe_open(path, "pt") as file:
        every = int((file.metadata() or {}).get("every", 1))
    missing = [name for name in golden if name not in ours]
    assert not missing, f"{path}: {missing[0]} is no module of model.py"

    def off_by(name, tensor):
        # Files kept small hold every n-th value only.
        value = ours[name] if ours[name].shape == tensor.shape else ours[name].flatten()[::every]
        return ((value - tensor).abs().max() / tensor.abs().max()).item()

    off = {name: off_by(name, tensor) for name, tensor in golden.items()}
    name = max(off, key=off.get)
    return off[name], name


if __name__ == "__main__":
    main()

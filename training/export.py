"""Turns a checkpoint into the file that the program reads: f16 safetensors with metadata, and ONNX for others.

In: checkpoint.pt of train.py, a published .pth (its `params_ema`), or safetensors. Out: what is asked for.

    python training/export.py target/run/checkpoint.pt hasn-lite-x2-video.safetensors --trained "2026-11-24, ..."
    python training/export.py HASN_x4.pth hasn-x4.safetensors --onnx hasn-x4.onnx
"""

import argparse
import hashlib
import sys
from pathlib import Path

import torch

import model
from train import load_network


def main():
    parser = argparse.ArgumentParser(description="From a checkpoint to f16 safetensors.")
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("out", type=Path, help="NAME.safetensors; NAME is how the program will call it")
    parser.add_argument("--trained", default="", help="when, on what, how long: shown by `hasn model show`")
    parser.add_argument("--license", default="MIT OR Apache-2.0")
    parser.add_argument("--onnx", type=Path, help="the same network for other programs; needs the packages onnx, onnxscript")
    parser.add_argument("--blend", nargs=2, metavar=("CHECKPOINT", "SHARE"), help="that share of another stage's weights")
    args = parser.parse_args()
    net = open_checkpoint(args.checkpoint)
    if args.blend:
        net = blend(net, open_checkpoint(Path(args.blend[0])), float(args.blend[1]))
    model.save(net, args.out, args.out.stem, args.trained, args.license)
    print(f"{args.out}: {model.parameters(net)} parameters, sha256 {hashlib.sha256(args.out.read_bytes()).hexdigest()}")
    if args.onnx:
        export_onnx(model.load(args.out)[0], args.onnx)


def open_checkpoint(path):
    if path.suffix != ".pth":
        return load_network(path)[0]
    tensors = torch.load(path, map_location="cpu", weights_only=True)
    for key in ("params_ema", "params"):
        if key in tensors:
            return model.from_tensors(tensors[key])
    sys.exit(f"{path}: holds neither params_ema nor params, but {', '.join(list(tensors)[:4])}; give a BasicSR checkpoint")


def blend(net, other, share):
    """Between the weights of two stages of one training lie networks between them in what each is better at."""
    theirs = other.state_dict()
    return model.from_tensors({name: torch.lerp(ours, theirs[name], share) for name, ours in net.state_dict().items()})


def export_onnx(net, path):
    """With free height and width: x [1, in, H, W] -> y [1, in, H * scale, W * scale]."""
    x = torch.rand(1, net.sizes.in_channels, 32, 48)
    free = {2: torch.export.Dim("H", min=15), 3: torch.export.Dim("W", min=15)}
    torch.onnx.export(net.eval(), (x,), path, input_names=["x"], output_names=["y"], dynamic_shapes=(free,),
                      dynamo=True, external_data=False)


if __name__ == "__main__":
    main()

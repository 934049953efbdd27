"""Converts a checkpoint to the file that `hasn` reads, f16 safetensors with metadata, and to ONNX for other programs.

In: checkpoint.pt of train.py, a published .pth (its `params_ema`), or safetensors. Out: safetensors, and ONNX on request.

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
    parser = argparse.ArgumentParser(description="Converts a checkpoint to f16 safetensors.")
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("out", type=Path, help="NAME.safetensors; NAME becomes the model's name")
    parser.add_argument("--trained", default="", help="date, data and length of the training, shown by `hasn model show`")
    parser.add_argument("--license", default="MIT OR Apache-2.0")
    parser.add_argument("--onnx", type=Path, help="also write ONNX; needs the packages onnx and onnxscript")
    parser.add_argument("--blend", nargs=2, metavar=("CHECKPOINT", "SHARE"),
                        help="interpolate towards the weights of another stage by SHARE (0 to 1)")
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
    found = ", ".join(list(tensors)[:4])
    sys.exit(f"{path}: has neither params_ema nor params, but {found}; give a BasicSR checkpoint")


def blend(net, other, share):
    """Interpolates the weights of two stages of one training, which trades the strengths of one for those of the other."""
    end = other.state_dict()
    return model.from_tensors({name: torch.lerp(start, end[name], share) for name, start in net.state_dict().items()})


def export_onnx(net, path):
    """Writes ONNX with dynamic height and width: x [1, in, H, W] -> y [1, in, H * scale, W * scale]."""
    x = torch.rand(1, net.sizes.in_channels, 32, 48)
    dynamic = {2: torch.export.Dim("H", min=15), 3: torch.export.Dim("W", min=15)}
    torch.onnx.export(net.eval(), (x,), path, input_names=["x"], output_names=["y"], dynamic_shapes=(dynamic,),
                      dynamo=True, external_data=False)


if __name__ == "__main__":
    main()

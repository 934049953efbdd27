"""Times the network in PyTorch, as published, for a comparison with hasn: f16, channels_last, eager and compiled.

    hasn_torch.py weights.safetensors WxH

For every line on standard input it prints a line of JSON: milliseconds per frame for each execution mode, with input and
output on the device. It exits at the end of its input. Weights are read with the standard library.
"""

import json
import struct
import sys

import torch
from torch import nn
from torch.nn import functional as F

FRAMES = 20


def main():
    tensors = read(sys.argv[1])
    width, height = map(int, sys.argv[2].split("x"))
    net = Hasn(tensors).eval().cuda().half().to(memory_format=torch.channels_last)
    x = torch.rand(1, tensors["conv_1.weight"].shape[1], height, width, device="cuda", dtype=torch.half)
    x = x.contiguous(memory_format=torch.channels_last)
    torch.backends.cudnn.benchmark = True
    modes = {"eager": net}
    with torch.inference_mode():
        try:
            compiled = torch.compile(net)
            compiled(x)
            modes["compiled"] = compiled
        # A missing compiler may raise any exception; eager is measured all the same.
        except Exception as error:
            print(f"torch.compile: skipped because {str(error).splitlines()[0]}", file=sys.stderr)
        for run in modes.values():
            time_ms(run, x)
        for _ in sys.stdin:
            print(json.dumps({name: time_ms(run, x) for name, run in modes.items()}), flush=True)


def time_ms(run, x):
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(FRAMES):
        run(x)
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / FRAMES


def read(path):
    """Returns {name: tensor}. The file is a u64 length of a JSON header, the header, the data."""
    types = {"F32": torch.float32, "F16": torch.float16}
    with open(path, "rb") as file:
        header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
        data = file.read()
    header.pop("__metadata__", None)
    tensor = lambda of: torch.frombuffer(bytearray(data[slice(*of["data_offsets"])]), dtype=types[of["dtype"]])
    return {name: tensor(of).reshape(of["shape"]).float() for name, of in header.items()}


class Conv(nn.Conv2d):
    """The conv with this name, with the sizes of its weights."""

    def __init__(self, tensors, name, **options):
        weight = tensors[name + ".weight"]
        outputs, inputs, side, _ = weight.shape
        super().__init__(inputs * options.get("groups", 1), outputs, side, **options)
        self.weight.data, self.bias.data = weight.clone(), tensors[name + ".bias"].clone()


class Block(nn.Module):
    def __init__(self, tensors, name):
        super().__init__()
        conv = lambda layer, **options: Conv(tensors, f"{name}.{layer}", **options)
        c = tensors[name + ".ln.weight"].shape[0]
        self.dwconv = conv("dwconv.conv", padding=3, groups=c)
        self.dwconv2 = conv("dwconv2.conv", padding=3, groups=c)
        self.norm = nn.LayerNorm(c, eps=1e-5)
        self.norm.weight.data, self.norm.bias.data = tensors[name + ".ln.weight"].clone(), tensors[name + ".ln.bias"].clone()
        self.f1, self.f2, self.f3, self.g = (conv(layer + ".conv") for layer in ["f1", "f2", "f3", "g"])
        self.esa1, self.esa4, self.esa_f = conv("esa.conv1"), conv("esa.conv4"), conv("esa.conv_f")
        self.esa2, self.esa3 = conv("esa.conv2", stride=2), conv("esa.conv3", padding=1)
        self.cab0, self.cab2 = conv("cab.cab.0", padding=1), conv("cab.cab.2", padding=1)
        self.squeeze, self.excite = conv("cab.cab.3.attention.1"), conv("cab.cab.3.attention.3")

    def forward(self, x):
        n = self.norm(self.dwconv(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        t = F.relu6(self.f1(n)) * self.f2(n) + self.esa(self.f3(n))
        z = self.cab2(F.gelu(self.cab0(x + self.dwconv2(self.g(t)))))
        return z * torch.sigmoid(self.excite(F.relu(self.squeeze(z.mean((2, 3), keepdim=True)))))

    def esa(self, v):
        c1 = self.esa1(v)
        c3 = self.esa3(F.max_pool2d(self.esa2(c1), 7, 3))
        c3 = F.interpolate(c3, v.shape[2:], mode="bilinear", align_corners=False)
        return v * torch.sigmoid(self.esa4(c3 + self.esa_f(c1)))


class Hasn(nn.Module):
    def __init__(self, tensors):
        super().__init__()
        count = len({name.split(".")[0] for name in tensors if name.startswith("block_")})
        self.conv_1, self.conv_2 = (Conv(tensors, name, padding=1) for name in ["conv_1", "conv_2"])
        self.upsampler = Conv(tensors, "upsampler.0", padding=1)
        self.blocks = nn.Sequential(*(Block(tensors, f"block_{i + 1}") for i in range(count)))
        self.scale = int((self.upsampler.out_channels // self.conv_1.in_channels) ** 0.5)

    def forward(self, x):
        f = self.conv_1(x)
        return F.pixel_shuffle(self.upsampler(self.conv_2(self.blocks(f)) + f), self.scale)


if __name__ == "__main__":
    main()

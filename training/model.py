"""HASN in PyTorch, with the parameter names of the published checkpoints, and its weights files.

In: sizes, or a weights file. Out: the network, and safetensors files as `hasn` reads them. This module must not know images
or training.
"""

import math
from dataclasses import dataclass, fields, replace

import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

LAYER_NORM_EPS = 1e-5
# ESA's max pool: side and stride, after a conv of stride 2 without padding. The smallest input for it is 15 x 15.
ESA_POOL, ESA_STRIDE = 7, 3


@dataclass(frozen=True)
class Sizes:
    """Sizes of a network. The defaults are the paper's, for luma."""

    scale: int = 2
    in_channels: int = 1
    dim: int = 52
    blocks: int = 6
    mlp_ratio: int = 3
    esa_channels: int = 16
    cab_compress: int = 3
    ca_squeeze: int = 30


SIZES = {
    "paper": Sizes(),
    "lite": Sizes(dim=16, blocks=2, mlp_ratio=2, esa_channels=8, cab_compress=2, ca_squeeze=8),
    "tiny": Sizes(dim=8, blocks=1, mlp_ratio=2, esa_channels=4, cab_compress=2, ca_squeeze=4),
}


class Hasn(nn.Module):
    """[N, in_channels, H, W], gamma-coded, 0..1 -> [N, in_channels, H * scale, W * scale]."""

    def __init__(self, sizes):
        super().__init__()
        self.sizes = sizes
        self.conv_1 = nn.Conv2d(sizes.in_channels, sizes.dim, 3, padding=1)
        for index in range(1, sizes.blocks + 1):
            setattr(self, f"block_{index}", Block(sizes))
        self.conv_2 = nn.Conv2d(sizes.dim, sizes.dim, 3, padding=1)
        outputs = sizes.in_channels * sizes.scale**2
        self.upsampler = nn.Sequential(nn.Conv2d(sizes.dim, outputs, 3, padding=1), nn.PixelShuffle(sizes.scale))
        self.initialise()

    def forward(self, x):
        first = y = self.conv_1(x)
        for index in range(1, self.sizes.blocks + 1):
            y = getattr(self, f"block_{index}")(y)
        return self.upsampler(self.conv_2(y) + first)

    def initialise(self):
        """Initialises the weights. A block has no skip connection around cab, and with PyTorch's default initialisation each
        block attenuates the signal ten times, so that six blocks would hardly train. A luma network starts as a bilinear
        upsampler, to which the blocks add little."""
        for index in range(1, self.sizes.blocks + 1):
            first, _, second, attention = getattr(self, f"block_{index}").cab.cab
            nn.init.kaiming_normal_(first.weight, nonlinearity="relu")
            # The attention starts at sigmoid(0) = 0.5.
            nn.init.kaiming_normal_(second.weight, nonlinearity="linear")
            with torch.no_grad():
                second.weight *= 2
            for conv in (first, second, attention.attention[1], attention.attention[3]):
                nn.init.zeros_(conv.bias)
        if self.sizes.in_channels == 1:
            self.start_as_bilinear()

    @torch.no_grad()
    def start_as_bilinear(self):
        """Passes the input through channel 0 of conv_1 and sets the upsampler's taps on it to bilinear."""
        up = self.upsampler[0]
        self.conv_1.weight[0] = 0
        self.conv_1.weight[0, 0, 1, 1] = 1
        self.conv_1.bias[0] = 0
        # Any output of conv_2 on channel 0 would be noise on the image.
        self.conv_2.weight[0] = 0
        nn.init.zeros_(self.conv_2.bias)
        up.weight *= 0.1
        nn.init.zeros_(up.bias)
        taps = bilinear_taps(self.sizes.scale)
        for y in range(self.sizes.scale):
            for x in range(self.sizes.scale):
                up.weight[y * self.sizes.scale + x, 0] = torch.outer(taps[y], taps[x])


def bilinear_taps(scale):
    """Returns [scale, 3]: for each output phase, its weights on the previous, the current and the next pixel."""
    offsets = (torch.arange(scale) + 0.5) / scale - 0.5
    return torch.stack([(-offsets).clamp(min=0), 1 - offsets.abs(), offsets.clamp(min=0)], 1)


class Block(nn.Module):
    def __init__(self, sizes):
        super().__init__()
        dim, wide = sizes.dim, sizes.dim * sizes.mlp_ratio
        self.dwconv = Conv(dim, dim, 7, padding=3, groups=dim)
        self.ln = nn.LayerNorm(dim, eps=LAYER_NORM_EPS)
        self.f1, self.f2, self.f3 = (Conv(dim, wide, 1) for _ in range(3))
        self.esa = Esa(wide, sizes.esa_channels)
        self.g = Conv(wide, dim, 1)
        self.dwconv2 = Conv(dim, dim, 7, padding=3, groups=dim)
        self.cab = Cab(sizes)

    def forward(self, i):
        n = self.ln(self.dwconv(i).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        t = F.relu6(self.f1(n)) * self.f2(n) + self.esa(self.f3(n))
        return self.cab(i + self.dwconv2(self.g(t)))


class Conv(nn.Module):
    """A convolution under one more level of naming, as in the checkpoints."""

    def __init__(self, *arguments, **options):
        super().__init__()
        self.conv = nn.Conv2d(*arguments, **options)

    def forward(self, x):
        return self.conv(x)


class Esa(nn.Module):
    """Spatial attention: the mask is interpolated from a coarse grid over the image."""

    def __init__(self, wide, channels):
        super().__init__()
        self.conv1 = nn.Conv2d(wide, channels, 1)
        self.conv_f = nn.Conv2d(channels, channels, 1)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride=2)
        self.conv3 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv4 = nn.Conv2d(channels, wide, 1)

    def forward(self, v):
        c1 = self.conv1(v)
        grid = self.conv3(F.max_pool2d(self.conv2(c1), ESA_POOL, ESA_STRIDE))
        c3 = F.interpolate(grid, size=v.shape[2:], mode="bilinear", align_corners=False)
        return v * torch.sigmoid(self.conv4(c3 + self.conv_f(c1)))


class Cab(nn.Module):
    """Two 3x3 convolutions, then the channel attention, without a skip connection."""

    def __init__(self, sizes):
        super().__init__()
        narrow = sizes.dim // sizes.cab_compress
        self.cab = nn.Sequential(
            nn.Conv2d(sizes.dim, narrow, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(narrow, sizes.dim, 3, padding=1),
            ChannelAttention(sizes.dim, max(1, sizes.dim // sizes.ca_squeeze)),
        )

    def forward(self, u):
        return self.cab(u)


class ChannelAttention(nn.Module):
    def __init__(self, dim, squeezed):
        super().__init__()
        self.attention = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(dim, squeezed, 1), nn.ReLU(), nn.Conv2d(squeezed, dim, 1), nn.Sigmoid()
        )

    def forward(self, z):
        return z * self.attention(z)


def sizes_of(tensors):
    """Infers the sizes from the tensors' shapes. A floored ratio represents all ratios that floor to the same value."""
    dim, in_channels = tensors["conv_1.weight"].shape[:2]
    shape = lambda name: tensors[f"block_1.{name}.weight"].shape[0]
    return Sizes(
        scale=math.isqrt(tensors["upsampler.0.weight"].shape[0] // in_channels),
        in_channels=in_channels,
        dim=dim,
        blocks=max(int(name.split(".")[0][len("block_") :]) for name in tensors if name.startswith("block_")),
        mlp_ratio=shape("f1.conv") // dim,
        esa_channels=shape("esa.conv1"),
        cab_compress=dim // shape("cab.cab.0"),
        ca_squeeze=dim // shape("cab.cab.3.attention.1"),
    )


def from_tensors(tensors):
    """Builds the network of these weights. A missing, unknown or wrongly shaped tensor is an error that names it."""
    net = Hasn(sizes_of(tensors))
    net.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    return net


def load(path):
    """Reads a safetensors file. Returns the network and the file's metadata."""
    with safe_open(path, "pt") as file:
        return from_tensors({name: file.get_tensor(name) for name in file.keys()}), file.metadata() or {}


def save(net, path, name, trained, license):
    """Writes f16 safetensors with the metadata that `hasn model show` prints."""
    tensors = {name: tensor.half().contiguous() for name, tensor in net.state_dict().items()}
    for tensor_name, tensor in tensors.items():
        assert tensor.isfinite().all(), f"{tensor_name}: exceeds the range of f16"
    metadata = {field.name: str(getattr(net.sizes, field.name)) for field in fields(net.sizes)}
    save_file(tensors, path, {"arch": "hasn", "name": name, "trained": trained, "license": license, **metadata})


@torch.no_grad()
def rescaled(net, scale):
    """Returns the network for a multiple of its scale, initialised to repeat each output pixel (nearest neighbour)."""
    old_scale, factor = net.sizes.scale, scale // net.sizes.scale
    assert scale == old_scale * factor, f"{scale} is not a multiple of {old_scale}"
    out = Hasn(replace(net.sizes, scale=scale))
    tensors = net.state_dict()
    for name in ("upsampler.0.weight", "upsampler.0.bias"):
        grid = tensors[name].unflatten(0, (net.sizes.in_channels, old_scale, old_scale))
        tensors[name] = grid.repeat_interleave(factor, 1).repeat_interleave(factor, 2).flatten(0, 2)
    out.load_state_dict(tensors)
    return out


def parameters(net):
    return sum(tensor.numel() for tensor in net.parameters())

"""HASN in PyTorch, written for speed: operations are in place where possible."""

import torch
import torch.nn.functional as F

from graph import LAYER_NORM_EPS, sizes


class Hasn(torch.nn.Module):
    def __init__(self, weights, memory_format):
        super().__init__()
        _, self.dim, self.blocks, self.scale = sizes(weights)
        self.memory_format = memory_format
        for name, tensor in weights.items():
            tensor = torch.from_numpy(tensor)
            if tensor.dim() == 4:
                tensor = tensor.contiguous(memory_format=memory_format)
            self.register_buffer(name.replace(".", "_"), tensor)

    def tensor(self, name):
        return getattr(self, name.replace(".", "_"))

    def conv(self, x, layer, pad=0, **options):
        return F.conv2d(x, self.tensor(layer + ".weight"), self.tensor(layer + ".bias"), padding=pad, **options)

    def forward(self, x):
        first = y = self.conv(x.contiguous(memory_format=self.memory_format), "conv_1", 1)
        for index in range(1, self.blocks + 1):
            y = self.block(y, f"block_{index}.")
        return F.pixel_shuffle(self.conv(self.conv(y, "conv_2", 1).add_(first), "upsampler.0", 1), self.scale)

    def block(self, i, p):
        n = self.conv(i, p + "dwconv.conv", 3, groups=self.dim).permute(0, 2, 3, 1)
        n = F.layer_norm(n, (self.dim,), self.tensor(p + "ln.weight"), self.tensor(p + "ln.bias"), LAYER_NORM_EPS)
        n = n.permute(0, 3, 1, 2).contiguous(memory_format=self.memory_format)
        f3 = self.conv(n, p + "f3.conv")
        mask = self.esa_mask(f3, p + "esa.")
        t = F.relu6(self.conv(n, p + "f1.conv"), inplace=True)
        t = t.mul_(self.conv(n, p + "f2.conv")).add_(f3.mul_(mask))
        u = self.conv(self.conv(t, p + "g.conv"), p + "dwconv2.conv", 3, groups=self.dim).add_(i)
        z = self.conv(F.gelu(self.conv(u, p + "cab.cab.0", 1)), p + "cab.cab.2", 1)
        a = self.conv(z.mean((2, 3), keepdim=True), p + "cab.cab.3.attention.1").relu_()
        return z.mul_(self.conv(a, p + "cab.cab.3.attention.3").sigmoid_())

    def esa_mask(self, f3, p):
        c1 = self.conv(f3, p + "conv1")
        grid = self.conv(F.max_pool2d(self.conv(c1, p + "conv2", stride=2), 7, 3), p + "conv3", 1)
        c3 = F.interpolate(grid, size=c1.shape[2:], mode="bilinear", align_corners=False)
        return self.conv(c3.add_(self.conv(c1, p + "conv_f")), p + "conv4").sigmoid_()

"""HASN as an ONNX graph, built from a hasn safetensors file, in several equivalent forms.

    graph = onnx_graph(read_weights("models/hasn-lite-x2.safetensors"), 320, 180, FORMS["exported"])

The fastest form differs between peers, so each runs its own (see peer.py). ms per frame, 320x180, one thread of an
AMD EPYC (Zen 4) (2026-11-24; ONNX Runtime 1.32, OpenVINO 2026.4.1):

                    light model                       paper size
                    ORT    OpenVINO  OpenVINO bf16    ORT   OpenVINO  OpenVINO bf16
    exported        41.0   39.2      25.8             755   806       422
    layernorm       38.3   38.0      25.2             742   784       394
    reduce          38.6   33.5      21.4             761   760       385
    centred         37.5   33.1      20.2             765   760       391
    moments         37.7   34.1      20.6             748   755       378

On two threads the order is the same. Also tried, and not faster for any peer: 1x1 convolutions as Gemm over
channels-last pixels (paper size: 1107, 921, 478), f1, f2 and f3 as one convolution and a Split (light: 55, 55, 34),
the MeanVarianceNormalization operator (light: 56, 44, 27), Gelu written out with Erf, Resize as two MatMuls, the
attention's 17 channels padded to 20 or 32.
"""

from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import load_file

LAYER_NORM_EPS = 1e-5


@dataclass(frozen=True)
class Form:
    """How the layer norm is expressed, and whether the exact rewrites are applied to the weights: the norm's affine
    is folded into f1, f2 and f3, and ESA's conv1 after f3 becomes one convolution of the norm's output."""

    norm: str
    rewritten: bool = True


FORMS = {
    # What exporters write: a LayerNormalization between two transposes, and the weights of the file unchanged.
    "exported": Form("layernorm", rewritten=False),
    "layernorm": Form("layernorm"),
    # ReduceMean of x and of (x - mean)^2.
    "reduce": Form("reduce"),
    # x - mean is one 1x1 convolution, the mean of its square another.
    "centred": Form("centred"),
    # mean(x) and mean(x^2) are 1x1 convolutions.
    "moments": Form("moments"),
}


def read_weights(path):
    """Returns {name: tensor} with the checkpoint's names, as f32."""
    return {name: tensor.astype(np.float32) for name, tensor in load_file(path).items()}


def sizes(weights):
    """Returns (in_channels, dim, blocks, scale), inferred from the tensors' shapes."""
    dim, in_channels = weights["conv_1.weight"].shape[:2]
    blocks = max(int(name.split(".")[0].removeprefix("block_")) for name in weights if name.startswith("block_"))
    scale = round((weights["upsampler.0.weight"].shape[0] / in_channels) ** 0.5)
    return in_channels, dim, blocks, scale


def onnx_graph(weights, width, height, form):
    """Returns a model of fixed shape: x [1, in, H, W] -> y [1, in, H*scale, W*scale]."""
    in_channels, dim, blocks, scale = sizes(weights)
    net = Builder(weights)
    first = y = net.conv("x", "conv_1", pad=1)
    for index in range(1, blocks + 1):
        y = block(net, y, f"block_{index}.", dim, width, height, form)
    y = net.op("Add", net.conv(y, "conv_2", pad=1), first)
    y = net.conv(y, "upsampler.0", pad=1)
    net.nodes.append(helper.make_node("DepthToSpace", [y], ["y"], blocksize=scale, mode="CRD"))
    shape = [1, in_channels, height, width]
    out_shape = [1, in_channels, height * scale, width * scale]
    graph = helper.make_graph(
        net.nodes,
        "hasn",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, out_shape)],
        net.constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    onnx.checker.check_model(model)
    return model


def block(net, i, p, dim, width, height, form):
    normed, gates, biases = norm_and_gates(net, net.conv(i, p + "dwconv.conv", pad=3, group=dim), p, dim, form)
    f1, f2, f3 = (net.conv_with(normed, weight, bias) for weight, bias in zip(gates, biases))
    if form.rewritten:
        conv1 = net.weights[p + "esa.conv1.weight"][:, :, 0, 0]
        bias = conv1 @ biases[2] + net.weights[p + "esa.conv1.bias"]
        c1 = net.conv_with(normed, (conv1 @ gates[2][:, :, 0, 0])[:, :, None, None], bias)
    else:
        c1 = net.conv(f3, p + "esa.conv1")
    esa = net.op("Mul", f3, esa_mask(net, c1, p + "esa.", width, height))
    relu6 = net.op("Clip", f1, net.constant(0.0), net.constant(6.0))
    t = net.op("Add", net.op("Mul", relu6, f2), esa)
    t = net.conv(net.conv(t, p + "g.conv"), p + "dwconv2.conv", pad=3, group=dim)
    return cab(net, net.op("Add", i, t), p + "cab.cab.")


def norm_and_gates(net, x, p, dim, form):
    """Returns the normalised tensor, and the weights and biases of f1, f2 and f3, which follow it."""
    scale, shift = net.weights[p + "ln.weight"], net.weights[p + "ln.bias"]
    gates = [net.weights[f"{p}f{n}.conv.weight"] for n in (1, 2, 3)]
    biases = [net.weights[f"{p}f{n}.conv.bias"] for n in (1, 2, 3)]
    if form.rewritten:
        biases = [bias + gate[:, :, 0, 0] @ shift for gate, bias in zip(gates, biases)]
        gates = [gate * scale[None, :, None, None] for gate in gates]
        scale, shift = np.ones(dim), np.zeros(dim)
    if form.norm == "layernorm":
        x = net.op("Transpose", x, perm=[0, 2, 3, 1])
        affine = net.constant(scale), net.constant(shift)
        x = net.op("LayerNormalization", x, *affine, axis=-1, epsilon=LAYER_NORM_EPS)
        return net.op("Transpose", x, perm=[0, 3, 1, 2]), gates, biases
    assert form.rewritten, "these forms have the affine in f1, f2 and f3"
    mean = np.full((1, dim, 1, 1), 1 / dim)
    if form.norm == "reduce":
        channels = net.constant([1], np.int64)
        centred = net.op("Sub", x, net.op("ReduceMean", x, channels, keepdims=1))
        variance = net.op("ReduceMean", net.op("Mul", centred, centred), channels, keepdims=1)
        variance = net.op("Add", variance, net.constant(LAYER_NORM_EPS))
    elif form.norm == "centred":
        centred = net.conv_with(x, (np.eye(dim) - 1 / dim)[:, :, None, None], np.zeros(dim))
        variance = net.conv_with(net.op("Mul", centred, centred), mean, [LAYER_NORM_EPS])
    elif form.norm == "moments":
        mean_x = net.conv_with(x, mean, [0.0])
        centred = net.op("Sub", x, mean_x)
        mean_square = net.conv_with(net.op("Mul", x, x), mean, [LAYER_NORM_EPS])
        variance = net.op("Sub", mean_square, net.op("Mul", mean_x, mean_x))
    return net.op("Div", centred, net.op("Sqrt", variance)), gates, biases


def esa_mask(net, c1, p, width, height):
    grid = net.conv(c1, p + "conv2", strides=[2, 2])
    grid = net.op("MaxPool", grid, kernel_shape=[7, 7], strides=[3, 3])
    grid = net.conv(grid, p + "conv3", pad=1)
    full = net.constant([1, net.weights[p + "conv3.bias"].size, height, width], np.int64)
    c3 = net.op("Resize", grid, "", "", full, mode="linear", coordinate_transformation_mode="half_pixel")
    return net.op("Sigmoid", net.conv(net.op("Add", c3, net.conv(c1, p + "conv_f")), p + "conv4"))


def cab(net, u, p):
    z = net.conv(net.op("Gelu", net.conv(u, p + "0", pad=1)), p + "2", pad=1)
    a = net.op("Relu", net.conv(net.op("GlobalAveragePool", z), p + "3.attention.1"))
    return net.op("Mul", z, net.op("Sigmoid", net.conv(a, p + "3.attention.3")))


class Builder:
    """Collects nodes and constants; every method returns the name of the value it adds."""

    def __init__(self, weights):
        self.weights = weights
        self.nodes = []
        self.constants = []

    def constant(self, values, dtype=np.float32):
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(values, dtype), name))
        return name

    def op(self, kind, *inputs, **attributes):
        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def conv(self, x, layer, **attributes):
        return self.conv_with(x, self.weights[layer + ".weight"], self.weights[layer + ".bias"], **attributes)

    def conv_with(self, x, weight, bias, pad=0, **attributes):
        attributes |= {"kernel_shape": list(weight.shape[2:]), "pads": [pad] * 4}
        return self.op("Conv", x, self.constant(weight), self.constant(bias), **attributes)

"""A child process of network.py that loads one peer, keeps it warm and times its runs.

    peer.py PEER MODEL.safetensors WIDTH HEIGHT THREADS FORM

PEER is onnxruntime, openvino-f32, openvino-bf16, torch or torch-compiled. FORM is one of graph.FORMS (or of PyTorch's
memory formats), or fastest, which tries all of them and keeps the fastest. Replies are lines of JSON: first the form, the
ms of each form tried, and the instruction sets that the peer's runtime reports; then, to `run N`, the ms of N runs after
an uncounted warm-up; to `upscale IN.npy OUT.npy`, an empty object once the file is written.

Each peer has its own process, because peers in one process disturb each other: OpenVINO pins the calling thread, and
ONNX Runtime's idle threads spin (five sessions of two threads in one process: 60 ms instead of 24).
"""

import json
import sys
import time

import numpy as np

from graph import FORMS, onnx_graph, read_weights

TRIAL_RUNS = 5


def onnxruntime(weights, width, height, threads, form):
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    model = onnx_graph(weights, width, height, FORMS[form]).SerializeToString()
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    binding.bind_output("y")

    def run(x):
        binding.bind_cpu_input("x", x)
        session.run_with_iobinding(binding)
        return lambda: binding.copy_outputs_to_cpu()[0]

    return run, "not reported: all that its MLAS has for the CPU"


def openvino(weights, width, height, threads, form, precision):
    import openvino as ov

    core = ov.Core()
    model = core.read_model(onnx_graph(weights, width, height, FORMS[form]).SerializeToString(), b"")
    options = {
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
    }
    compiled = core.compile_model(model, "CPU", options)
    request = compiled.create_infer_request()

    def run(x):
        request.set_input_tensor(ov.Tensor(x, shared_memory=True))
        request.infer()
        return lambda: request.get_output_tensor().data.copy()

    primitives = {op.get_rt_info()["primitiveType"].astype(str) for op in compiled.get_runtime_model().get_ops()}
    return run, ", ".join(sorted(name for name in primitives if "unknown" not in name))


def pytorch(weights, width, height, threads, form, compiled):
    import torch

    from torch_net import Hasn

    torch.set_num_threads(threads)
    torch.set_grad_enabled(False)
    net = Hasn(weights, getattr(torch, form)).eval()
    if compiled:
        import torch._inductor.config as inductor

        inductor.freezing = True
        if torch.backends.cpu.get_cpu_capability() == "AVX2":
            inductor.cpp.simdlen = 256
        net = torch.compile(net)

    def run(x):
        y = net(torch.from_numpy(x))
        return y.numpy

    return run, torch.backends.cpu.get_cpu_capability()


PEERS = {
    "onnxruntime": (onnxruntime, FORMS),
    "openvino-f32": (lambda *a: openvino(*a, "f32"), FORMS),
    "openvino-bf16": (lambda *a: openvino(*a, "bf16"), FORMS),
    "torch": (lambda *a: pytorch(*a, False), ["contiguous_format", "channels_last"]),
    "torch-compiled": (lambda *a: pytorch(*a, True), ["channels_last"]),
}


def timed(run, x, runs):
    """Returns the ms of each run, after an uncounted warm-up."""
    run(x)
    times_ms = []
    for _ in range(runs):
        start = time.perf_counter()
        run(x)
        times_ms.append((time.perf_counter() - start) * 1e3)
    return times_ms


def choose(load, forms, x):
    """Returns the fastest form and the ms of each form: its shortest run, as the trials disturb each other."""
    tried_ms = {form: min(timed(load(form)[0], x, TRIAL_RUNS)) for form in forms}
    return min(tried_ms, key=tried_ms.get), tried_ms


def main():
    peer, model, width, height, threads, form = sys.argv[1:]
    width, height, threads = int(width), int(height), int(threads)
    weights = read_weights(model)
    load_peer, forms = PEERS[peer]
    load = lambda form: load_peer(weights, width, height, threads, form)
    in_channels = weights["conv_1.weight"].shape[1]
    x = np.random.default_rng(1).random((1, in_channels, height, width), np.float32)
    tried_ms = {}
    if form == "fastest" and len(forms) > 1:
        form, tried_ms = choose(load, forms, x)
    elif form not in forms:
        form = next(iter(forms))
    run, instruction_sets = load(form)
    timed(run, x, 1)
    reply({"form": form, "tried_ms": tried_ms, "instruction_sets": instruction_sets})
    for line in sys.stdin:
        match line.split():
            case ["run", runs]:
                reply({"ms": timed(run, x, int(runs))})
            case ["upscale", source, target]:
                np.save(target, run(np.load(source))())
                reply({})


def reply(message):
    print(json.dumps(message), flush=True)


main()

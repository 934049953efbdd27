"""File to file: `hasn upscale` against VapourSynth with vs-mlrt, the usual way to run such a network on a video.

    pipeline.py [--rounds N] [--clip FILE] [--model FILE] [--json FILE] [--also] [--busy]

The demo clip is upscaled from 640x360 to 1280x720 by the light model, encoded with x264 veryfast at CRF 18, audio copied,
on all cores: hasn with `--precision auto`, against BestSource, OpenVINO (vs-mlrt) for luma, bicubic for chroma
(pipeline.vpy), in f32 and, where the CPU has it, bf16, and y4m from vspipe to ffmpeg. The commands are timed from start to
end, with the CPU time of their processes. Runs alternate, the first of each is a warm-up, and the medians are reported.
All outputs must have all frames and agree in content.

Needs target/release/hasn, ffmpeg, and requirements.txt under Python 3.12 or newer. `--also` adds the peer with the graph
as exporters write it. `--busy` measures beside other processes as well; the CPU time is then the better figure.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import onnx

from graph import FORMS, onnx_graph, read_weights
from machine import cpu_flags, describe
from network import ended_children_cpu_s, undisturbed

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
BIN = Path(sys.executable).parent
CORES = len(os.sched_getaffinity(0))
ENCODE = {"preset": "veryfast", "crf": "18"}
TARGET_FPS = 18
TARGET_RATIO = 1.6
# PSNR-Y between the two outputs. Both are encoded, and bf16 alone brings OpenVINO to 53 dB.
AGREEMENT_DB = 40

# fps of the peer on two cores (2026-11-24), with the graph "moments" in bf16 unless stated otherwise, by OpenVINO's
# streams x VapourSynth's threads: 1x1 15.3, 1x2 14 to 16, 1x4 16.2, 2x2 16 to 17, 2x3 18, 2x4 17.4. The graph as
# exported 13.1. f32, 2x3: 11.1, as exported 9.2. OpenVINO with one thread per stream, or without pinned threads: no
# faster. x264 on 1 or 2 threads instead of its default: no faster.
STREAMS = CORES
VS_THREADS = CORES + 1


def hasn(options, report):
    def command(target):
        encoder = [f"--encoder-opt={key}={value}" for key, value in ENCODE.items()]
        arguments = [options.hasn, "upscale", "-y", "--progress", "none", "--report", report]
        arguments += ["--engine", "cpu", "--precision", "auto"]
        arguments += ["--model", options.model, "--encoder", "libx264", *encoder, options.clip, target]
        subprocess.run(arguments, check=True)

    return command


def vs_mlrt(options, work, graph, precision):
    width, height = map(int, probe(options.clip, "width,height").split(","))
    model = work / f"{graph}.onnx"
    onnx.save(onnx_graph(read_weights(options.model), width, height, FORMS[graph]), model)
    script_arguments = {"clip": options.clip.resolve(), "graph": model, "precision": precision}
    script_arguments |= {"streams": STREAMS, "threads": VS_THREADS, "work": work}

    def command(target):
        vspipe = [BIN / "vspipe", "-c", "y4m", HERE / "pipeline.vpy", "-"]
        vspipe += [word for key, value in script_arguments.items() for word in ("-a", f"{key}={value}")]
        encoder = [word for key, value in ENCODE.items() for word in (f"-{key}", value)]
        ffmpeg = ["ffmpeg", "-v", "error", "-y", "-i", "-", "-i", options.clip, "-map", "0:v", "-map", "1:a?"]
        ffmpeg += ["-c:a", "copy", "-c:v", "libx264", *encoder, target]
        with open(work / "vspipe.log", "w") as log:
            y4m = subprocess.Popen(vspipe, stdout=subprocess.PIPE, stderr=log, env=vs_environment(work))
            encoded = subprocess.run(ffmpeg, stdin=y4m.stdout)
            y4m.stdout.close()
        if y4m.wait() or encoded.returncode:
            sys.exit(f"vspipe or ffmpeg failed: {(work / 'vspipe.log').read_text()}")

    return command


def vs_environment(work):
    """Keeps the file in which vspipe records its Python out of the home folder."""
    return os.environ | {"XDG_CONFIG_HOME": str(work / "config"), "PATH": f"{BIN}:{os.environ['PATH']}"}


def timed(run, target):
    """Returns the seconds from start to end, and those of CPU time."""
    start_s, cpu_s = time.monotonic(), ended_children_cpu_s()
    run(target)
    return time.monotonic() - start_s, ended_children_cpu_s() - cpu_s


def probe(path, entries):
    command = ["ffprobe", "-v", "error", "-select_streams", "v:0", "-count_packets", "-of", "csv=p=0"]
    return subprocess.check_output([*command, "-show_entries", f"stream={entries}", path], text=True).strip()


def check(options, outputs, frames):
    """Exits unless every output has all frames and agrees with that of hasn."""
    hasn_output = next(iter(outputs.values()))
    for name, path in outputs.items():
        if (count := int(probe(path, "nb_read_packets"))) != frames:
            sys.exit(f"{name}: {count} frames instead of {frames}")
        if path == hasn_output:
            continue
        report = subprocess.check_output([options.hasn, "compare", "--json", hasn_output, path], text=True)
        psnr_db = json.loads(report)["psnr_y_of_mean_mse_db"] or float("inf")
        print(f"{name} against hasn: PSNR-Y {psnr_db:.1f} dB")
        if not psnr_db >= AGREEMENT_DB:
            sys.exit(f"{name}: PSNR-Y against hasn is below {AGREEMENT_DB} dB")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--clip", type=Path, default=ROOT / "examples/bbb-360p.mp4", help="8-bit 4:2:0 clip with left siting")
    parser.add_argument("--model", type=Path, default=ROOT / "models/hasn-lite-x2.safetensors", help="a luma model")
    parser.add_argument("--also", action="store_true", help="also run the peer with the graph as exported")
    parser.add_argument("--busy", action="store_true", help="measure beside other processes as well")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the seconds of every run to FILE")
    parser.add_argument("--hasn", type=Path, default=ROOT / "target/release/hasn")
    return parser.parse_args()


def main():
    options = arguments()
    if not (BIN / "vspipe").exists():
        print("pipeline.py: skipped because VapourSynth is not installed; its wheels need Python 3.12 or newer")
        return
    describe(options.hasn)
    precisions = ["f32", *(["bf16"] if "avx512_bf16" in cpu_flags() else [])]
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        subprocess.run([BIN / "vapoursynth", "config"], check=True, env=vs_environment(work), stdout=subprocess.DEVNULL)
        report = work / "hasn.json"
        contenders = {"hasn": hasn(options, report)}
        for precision in precisions:
            contenders[f"vs-mlrt {precision}"] = vs_mlrt(options, work, "moments", precision)
        if options.also:
            contenders[f"vs-mlrt {precision}, as exported"] = vs_mlrt(options, work, "exported", precision)
        outputs = {name: work / f"{index}.mp4" for index, name in enumerate(contenders)}
        runs = {name: [] for name in contenders}
        for counted in [False] + [True] * options.rounds:
            for name, run in contenders.items():
                measured = undisturbed(lambda: timed(run, outputs[name]), ended_children_cpu_s, options.busy)
                if counted:
                    runs[name].append(measured)
        frames = int(probe(options.clip, "nb_read_packets"))
        check(options, outputs, frames)
        print(f"hasn took precision {json.loads(report.read_text())['precision']}")
    runs_s, runs_cpu_s = ({name: [run[i] for run in measured] for name, measured in runs.items()} for i in (0, 1))
    fps = {name: frames / statistics.median(seconds) for name, seconds in runs_s.items()}
    for name, median_fps in fps.items():
        runs_fps = " ".join(f"{frames / run_s:.1f}" for run_s in sorted(runs_s[name], reverse=True))
        cpu_s = statistics.median(runs_cpu_s[name])
        print(f"{name:26} {median_fps:5.1f} fps, {cpu_s:5.1f} s of CPU time  ({runs_fps})")
    hasn_fps = fps["hasn"]
    best = max((name for name in fps if name != "hasn"), key=fps.get)
    ratio = hasn_fps / fps[best]
    cpu_ratio = statistics.median(runs_cpu_s[best]) / statistics.median(runs_cpu_s["hasn"])
    verdict = "met" if hasn_fps >= TARGET_FPS and ratio >= TARGET_RATIO else "missed"
    print(f"hasn is {ratio:.2f} times as fast as {best}, by CPU time {cpu_ratio:.2f}")
    print(f"target {TARGET_FPS} fps and {TARGET_RATIO} times: {verdict}")
    if options.json:
        figures = {"frames": frames, "seconds": runs_s, "cpu_seconds": runs_cpu_s, "ratio": ratio, "cpu_ratio": cpu_ratio}
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


main()

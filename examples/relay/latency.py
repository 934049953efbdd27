"""Draws what tests/relay/latency.rs measured: the relay's own latency of each frame, and the network that upscaled it.

    HASN_LATENCY_CSV=$PWD/latency.csv HASN_RELAY_SECONDS=20 cargo test --test relay latency::
    python examples/relay/latency.py latency.csv examples/relay-latency.png    # matplotlib 3
"""

import csv
import sys

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

CEILING_MS = 1000


def main(source, target):
    with open(source) as file:
        rows = list(csv.DictReader(file))
    seconds = [float(row["seconds"]) for row in rows]
    latency = [max(float(row["latency_ms"]), 0.0) for row in rows]
    loaded = [float(row["seconds"]) for row in rows if row["phase"] == "load"]

    figure, (upper, lower) = plt.subplots(
        2, 1, sharex=True, figsize=(7.5, 4.2), dpi=110, height_ratios=[5, 1], layout="constrained"
    )
    upper.plot(seconds, latency, ".", markersize=3, color="#1f4e79")
    upper.axhline(CEILING_MS, color="#b03030", linewidth=1)
    upper.text(seconds[0], CEILING_MS - 15, "--latency-max", color="#b03030", va="top")
    upper.set_ylim(0, 1.08 * CEILING_MS)
    upper.set_ylabel("ms from frame to frame,\nbeyond ffmpeg -c copy")
    upper.text(sum(loaded) / len(loaded), 0.8 * CEILING_MS, "all cores busy", ha="center")
    names = ["none", "network"]
    lower.step(seconds, [names.index(row["rung"]) for row in rows], where="post", color="#1f4e79")
    lower.set_yticks([0, 1], ["resampler", "network"])
    lower.set_ylim(-0.4, 1.4)
    lower.set_xlabel("seconds")
    for part in (upper, lower):
        part.axvspan(loaded[0], loaded[-1], color="#e8e0d0", zorder=0)
        part.margins(x=0.01)
    figure.savefig(target)


if __name__ == "__main__":
    main(*sys.argv[1:])

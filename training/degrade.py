"""What happens to frames between the camera and the viewer: the degradations of training pairs, and how often each track has them.

Frames are Y' in 8-bit limited range, [N, H, W]. Every function draws from the generator that it is given and from nothing
else. This module must not know networks.
"""

from dataclasses import dataclass

import numpy as np

from frames import BLACK, KERNELS, MATRICES, WHITE, downscale, ffmpeg, planes, resize, to_codes


@dataclass(frozen=True)
class Codec:
    """An FFmpeg encoder with its options. Encoders run with one thread, so that their output is deterministic."""

    encoder: str
    # The option that sets the quality, or "" if there is none.
    quality: str = ""
    options: str = ""
    # Height and width, for an encoder that accepts only one frame size.
    size: tuple = None


CODECS = {
    "x264": Codec("libx264", "-crf", "-preset medium"),
    "x264-veryfast": Codec("libx264", "-crf", "-preset veryfast"),
    # As live encoders are set.
    "x264-live": Codec("libx264", "-crf", "-preset veryfast -tune zerolatency"),
    "x264-ultrafast": Codec("libx264", "-crf", "-preset ultrafast -tune zerolatency"),
    "x265": Codec("libx265", "-crf", "-preset fast -x265-params log-level=error:pools=none:frame-threads=1"),
    "av1": Codec("libsvtav1", "-crf", "-preset 8 -svtav1-params lp=1"),
    "vp9": Codec("libvpx-vp9", "-crf", "-b:v 0 -deadline realtime -cpu-used 6"),
    "mpeg2": Codec("mpeg2video", "-q:v", "-g 15 -bf 2"),
    "mpeg4-asp": Codec("mpeg4", "-q:v", "-g 250 -bf 2 -flags +mv4"),
    "dv": Codec("dvvideo", size=(576, 720)),
}


@dataclass(frozen=True)
class Track:
    """A mixture of pairs. Shares are 0 to 1; those of degradations are shares of the pairs that are not clean."""

    clean: float
    # (name of a codec or "uncoded", least and greatest quality option, share). The shares add up to 1.
    codecs: tuple = ()
    # Grain that both LR and HR have, so that a network learns to keep it, and grain of LR alone, which it learns to remove.
    grain_kept: float = 0
    grain_removed: float = 0
    # Light sensor noise of LR alone.
    noise: float = 0
    blur: float = 0
    sharpened: float = 0
    uneven: float = 0
    chroma: float = 0


TRACKS = {
    # The pairs of the literature.
    "clean": Track(clean=1),
    # From the quality of a disc down to that of a poor stream.
    "video": Track(
        clean=0.4, noise=0.25, blur=0.25, sharpened=0.05, uneven=0.05, chroma=0.05,
        codecs=(("x264", 18, 33, 0.2), ("x264-veryfast", 18, 33, 0.15), ("x265", 19, 34, 0.25), ("av1", 22, 48, 0.15),
                ("vp9", 20, 50, 0.1), ("mpeg2", 2, 9, 0.1), ("mpeg4-asp", 2, 8, 0.05)),
    ),
    # Streams of low bit rate and of live encoders.
    "hard": Track(
        clean=0.2, noise=0.15, blur=0.15, sharpened=0.05, uneven=0.05, chroma=0.05,
        codecs=(("x264", 26, 34, 0.35), ("x264-veryfast", 26, 34, 0.1), ("x264-live", 26, 34, 0.1),
                ("x264-ultrafast", 26, 34, 0.1), ("x265", 28, 36, 0.15), ("av1", 38, 55, 0.05), ("vp9", 36, 55, 0.05),
                ("mpeg2", 6, 14, 0.05), ("mpeg4-asp", 5, 12, 0.05)),
    ),
    # Scans, discs and tapes whose grain is kept.
    "film": Track(
        clean=0.2, grain_kept=0.8, blur=0.2, sharpened=0.2, uneven=0.2, chroma=0.1,
        codecs=(("uncoded", 0, 0, 0.3), ("x264", 10, 20, 0.2), ("x265", 12, 22, 0.1), ("mpeg2", 2, 5, 0.15),
                ("mpeg4-asp", 2, 5, 0.05), ("dv", 0, 0, 0.2)),
    ),
}
# The same, with grain that is removed.
TRACKS["denoise"] = Track(**{**TRACKS["film"].__dict__, "grain_kept": 0, "grain_removed": 0.8})


def degraded(hr, scale, track, rng):
    """Returns LR and HR codes of a clip, [N, H, W] u8, and the kind of the pair: the codec, its quality, the degradations."""
    occurs = {name: rng.random() < getattr(track, name)
              for name in ("grain_kept", "grain_removed", "noise", "blur", "sharpened", "uneven", "chroma")}
    if occurs["grain_kept"]:
        hr = grain(hr, rng.uniform(1, 8), rng.uniform(0.6, 1.4), rng)
    hr = to_codes(hr)
    kernel = rng.choice(list(KERNELS))
    lr = unevenly(hr, scale, kernel, rng) if occurs["uneven"] else downscale(hr, scale, kernel)
    if occurs["blur"]:
        lr = blur(lr, rng.uniform(0.3, 0.7))
    if occurs["grain_removed"]:
        lr = grain(lr, rng.uniform(1, 8), rng.uniform(0, 0.8), rng)
    if occurs["noise"]:
        lr = lr + rng.normal(0, rng.uniform(0.5, 2.5), lr.shape)
    if occurs["sharpened"]:
        lr = sharpened(lr, rng.uniform(0.2, 1), rng.uniform(0.7, 1.5))
    if occurs["chroma"]:
        lr = through_rgb(lr, rng)
    name, least, greatest = choose(track.codecs, rng)
    quality = rng.integers(least, greatest, endpoint=True)
    lr = to_codes(lr) if name == "uncoded" else encode_decode(to_codes(lr), *command(name, quality), size=CODECS[name].size)
    return lr, hr, " ".join([name, *([str(quality)] if greatest else []), *(what for what in occurs if occurs[what])])


def choose(codecs, rng):
    return codecs[rng.choice(len(codecs), p=[share for *_, share in codecs])][:3]


def command(name, quality):
    """Encoder and options of a codec at a quality."""
    codec = CODECS[name]
    return [codec.encoder, *([codec.quality, quality] if codec.quality else []), *codec.options.split()]


# ---- degradations, [N, H, W] -> [N, H, W], not rounded

def blur(frames, sigma):
    radius = int(np.ceil(3 * sigma))
    taps = np.exp(-(np.arange(-radius, radius + 1) ** 2) / (2 * sigma**2))
    taps /= taps.sum()
    for axis in (1, 2):
        padded = np.pad(frames, [(radius, radius) if a == axis else (0, 0) for a in range(3)], mode="edge")
        frames = sum(tap * np.take(padded, np.arange(i, i + frames.shape[axis]), axis) for i, tap in enumerate(taps))
    return frames


def grain(frames, strength, size, rng):
    """Adds film grain: fields of Gaussian noise, blurred to a grain size in pixels, a new one in each frame. Its standard
    deviation is `strength` code values in the mid-tones and a third of that in black and white."""
    field = rng.normal(0, 1, frames.shape)
    if size > 0:
        field = blur(field, size)
        field /= field.std()
    tone = np.clip((frames.astype(np.float64) - BLACK) / (WHITE - BLACK), 0, 1)
    return frames + strength * (1 / 3 + 8 / 3 * tone * (1 - tone)) * field


def sharpened(frames, amount, sigma):
    """The halos of a sharpened master: an unsharp mask."""
    return frames + amount * (frames - blur(frames, sigma))


def unevenly(hr, scale, kernel, rng):
    """Downscales by way of a narrower and a little lower frame, as anamorphic and SD masters were: sharper along one axis."""
    height, width = hr.shape[1] // scale, hr.shape[2] // scale
    frames = np.moveaxis(hr, 0, 2)
    frames = resize(frames, int(height * rng.uniform(0.85, 1)), int(width * rng.uniform(0.6, 1)), kernel)
    return np.moveaxis(resize(frames, height, width, "bicubic"), 2, 0)


def through_rgb(frames, rng):
    """Converts to R'G'B' with 4:2:0 chroma and back. At the edges of saturated colours the subsampled chroma leaves the
    gamut, and clipping changes luma. The colours are drawn: one for each of four levels of the blurred luma."""
    k_r, k_b = MATRICES[rng.choice(list(MATRICES))]
    y = np.clip((frames - BLACK) / (WHITE - BLACK), 0, 1)
    level = np.minimum(blur(y, 1.5) * 4, 3).astype(int)
    cb, cr = rng.uniform(-0.5, 0.5, (2, 4))[:, level]
    # R', G' and B' less Y'.
    red, blue = 2 * (1 - k_r) * cr, 2 * (1 - k_b) * cb
    colour = np.stack([red, -(k_r * red + k_b * blue) / (1 - k_r - k_b), blue])
    with np.errstate(divide="ignore"):
        saturation = np.where(colour > 0, (1 - y) / colour, -y / colour)
    colour = colour * np.minimum(np.nan_to_num(saturation, nan=1, posinf=1), 1).min(0)
    _, count, height, width = colour.shape
    colour = colour.reshape(3, count, height // 2, 2, width // 2, 2).mean((3, 5)).repeat(2, 2).repeat(2, 3)
    rgb = np.clip(y + colour, 0, 1)
    changed = np.tensordot([k_r, 1 - k_r - k_b, k_b], rgb, 1)
    return frames + (WHITE - BLACK) * (changed - y)


def encode_decode(frames, encoder, *options, size=None):
    """Encodes and decodes [N, H, W] u8. Chroma is gray; H and W must be even. With a size, the frames are mirrored to it."""
    count, height, width = frames.shape
    if size:
        padded = np.pad(frames, [(0, 0), *((0, max(whole - part, 0)) for whole, part in zip(size, (height, width)))], "symmetric")
        return encode_decode(padded, encoder, *options)[:, :height, :width]
    gray = np.full((count, height * width // 2), 128, np.uint8)
    raw = np.concatenate([frames.reshape(count, -1), gray], 1).tobytes()
    encoded = ffmpeg("-f", "rawvideo", "-pix_fmt", "yuv420p", "-s", f"{width}x{height}", "-r", 25, "-i", "-",
                     "-c:v", encoder, *options, "-threads", 1, "-f", "matroska", "-", input=raw)
    decoded = planes(ffmpeg("-f", "matroska", "-i", "-", "-pix_fmt", "yuv420p", "-f", "rawvideo", "-", input=encoded),
                     height, width)
    assert decoded.shape == frames.shape, f"{encoder}: encoded {frames.shape}, decoded {decoded.shape}"
    return decoded

"""The codecs everybody has: JPEG, WebP, JPEG 2000 and AVIF, through Pillow, measured exactly as ours is.

Each is swept over settings that span about 0.1 to 3 bits per pixel on photographs. The bits are the size of
the file Pillow writes, and what is compared is the picture Pillow reads back from it. No metadata is written.
Optimised Huffman tables make this JPEG about 10 % smaller than the published Kodak curve, which was measured
without them.

| codec     | setting          | options                                                       |
|-----------|------------------|---------------------------------------------------------------|
| JPEG      | quality 0..100   | 4:2:0, optimised Huffman tables                               |
| WebP      | quality 0..100   | method 6, the slowest and best (4:2:0 always)                 |
| JPEG 2000 | bits per pixel   | 9/7 wavelet, colour transform, one layer: the best for PSNR   |
| AVIF      | quality 0..100   | 4:2:0, speed 6 of 0 (slow) to 10 (fast)                       |
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from time import perf_counter

from PIL import Image, features
from torch import Tensor

from dhp_lab.core.search import largest_within
from dhp_lab.data.images import to_pixels, to_tensor
from dhp_lab.evaluation.measurements import Measurement, measure
from dhp_lab.metrics.pixels import RAW_BITS_PER_PIXEL


@dataclass(frozen=True)
class ClassicalCodec:
    """A Pillow format with the settings to sweep.

    Attributes:
        name: as in tables.
        format: Pillow's name of it.
        feature: what `PIL.features.check` calls it.
        settings: from the smallest file to the largest.
        options: the keyword arguments of Pillow's `save` that a setting stands for.
    """

    name: str
    format: str
    feature: str
    settings: tuple[float, ...]
    options: Callable[[float], dict[str, object]]


CODECS = {
    "jpeg": ClassicalCodec(
        "JPEG",
        "JPEG",
        "jpg",
        (5, 10, 15, 25, 40, 60, 75, 85, 92, 96),
        lambda quality: {"quality": quality, "subsampling": "4:2:0", "optimize": True},
    ),
    "webp": ClassicalCodec(
        "WebP",
        "WEBP",
        "webp",
        (0, 10, 30, 50, 70, 82, 90, 95),
        lambda quality: {"quality": quality, "method": 6},
    ),
    "jpeg2000": ClassicalCodec(
        "JPEG 2000",
        "JPEG2000",
        "jpg_2000",
        (0.1, 0.2, 0.35, 0.6, 1.0, 1.5, 2.2, 3.2),
        lambda bpp: {
            "quality_mode": "rates",
            "quality_layers": [RAW_BITS_PER_PIXEL / bpp],
            "irreversible": True,
            "mct": 1,
        },
    ),
    "avif": ClassicalCodec(
        "AVIF",
        "AVIF",
        "avif",
        (8, 20, 32, 44, 56, 68, 80, 90),
        lambda quality: {"quality": quality, "subsampling": "4:2:0", "speed": 6},
    ),
}


def find_codec(key: str) -> ClassicalCodec:
    """Return the codec called "jpeg", "webp", "jpeg2000" or "avif".

    Raises:
        ValueError: another name, or a Pillow built without that codec.
    """
    if key not in CODECS:
        raise ValueError(f"unknown codec {key!r}; choose from {', '.join(CODECS)}")
    if not features.check(CODECS[key].feature):
        name = CODECS[key].name
        raise ValueError(
            f"this Pillow was built without {name}; leave {key!r} out, or install Pillow's own wheel"
        )
    return CODECS[key]


def encode(codec: ClassicalCodec, x: Tensor, setting: float) -> bytes:
    """Compress a picture, (1, 3, H, W) in [0, 1], at one of the codec's settings; return the whole file."""
    file = io.BytesIO()
    Image.fromarray(to_pixels(x)).save(file, codec.format, **codec.options(setting))
    return file.getvalue()


def decode(data: bytes) -> Tensor:
    """Decompress a file of any format that Pillow reads into a picture (1, 3, H, W) in [0, 1]."""
    with Image.open(io.BytesIO(data)) as image:
        return to_tensor(image.convert("RGB"))


def jpeg_within(x: Tensor, n_bytes: int) -> bytes:
    """Return the best JPEG file of at most n_bytes, or the smallest there is where none is that small.

    Args:
        x: (1, 3, H, W) in [0, 1].
        n_bytes: the limit; all qualities from 1 to 100 are candidates.
    """
    jpeg = find_codec("jpeg")
    return largest_within(lambda quality: encode(jpeg, x, quality), 1, 100, n_bytes)


def sweep(codec: ClassicalCodec, picture: str, x: Tensor) -> Iterator[Measurement]:
    """Measure a picture, (1, 3, H, W) in [0, 1] and called `picture`, at each setting of the codec."""
    for setting in codec.settings:
        start = perf_counter()
        data = encode(codec, x, setting)
        encoded = perf_counter()
        x_hat = decode(data)
        decoded = perf_counter()
        yield measure(
            x_hat,
            x,
            codec=codec.name,
            setting=setting,
            picture=picture,
            n_bytes=len(data),
            encode_seconds=encoded - start,
            decode_seconds=decoded - encoded,
        )

"""Codecs that Pillow brings along, JPEG to AVIF, measured exactly as ours is; and what any codec here can do.

Each is swept over settings that span about 0.1 to 3 bits per pixel on photographs. The bits are the size of
the file Pillow writes, and what is compared is the picture Pillow reads back from it. No metadata is written.
Optimised Huffman tables make this JPEG about 10 % smaller than the published Kodak curve, which was measured
without them.

| codec      | setting        | options                                                      |
|------------|----------------|--------------------------------------------------------------|
| JPEG       | quality 0..100 | 4:2:0, optimised Huffman tables                              |
| WebP       | quality 0..100 | method 6, the slowest and best (4:2:0 always)                |
| JPEG 2000  | bits per pixel | 9/7 wavelet, colour transform, one layer: the best for PSNR  |
| AVIF 4:4:4 | quality 0..100 | speed 2 of 0 (slow) to 10 (fast), tuned for PSNR, no tiles   |
| AVIF 4:2:0 | quality 0..100 | speed 6, tuned for the eye: what Pillow does by default |

AVIF 4:4:4 is libaom as it does best here: full chroma, tuned for PSNR, and slow; in trials on a few photos
speeds below 2 gained next to nothing and took several times as long. The codecs that need other packages are
in `rivals`.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from PIL import Image, features
from torch import Tensor

from dhp_lab.core.search import largest_within
from dhp_lab.data.images import to_pixels, to_tensor
from dhp_lab.metrics.pixels import RAW_BITS_PER_PIXEL


class CodecError(ValueError):
    """A codec that cannot run here, or that failed; the message is one line."""


class Codec(Protocol):
    """A codec with the settings to sweep."""

    @property
    def name(self) -> str:
        """The codec's name, as in tables."""

    @property
    def settings(self) -> tuple[float, ...]:
        """What `encode` takes, from the smallest file to the largest."""

    def encode(self, x: Tensor, setting: float) -> bytes:
        """Compress a picture, (1, 3, H, W) in [0, 1], at one of the settings; return the whole file."""

    def decode(self, data: bytes) -> Tensor:
        """Decompress a file that `encode` wrote into a picture (1, 3, H, W) in [0, 1]."""

    def missing(self) -> str | None:
        """One line on what to install before the codec can run; None if it can."""


@dataclass(frozen=True)
class PillowCodec:
    """A `Codec` that is one of Pillow's formats.

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

    def encode(self, x: Tensor, setting: float) -> bytes:
        """Compress a picture, (1, 3, H, W) in [0, 1], at one of the settings; return the whole file."""
        file = io.BytesIO()
        Image.fromarray(to_pixels(x)).save(file, self.format, **self.options(setting))
        return file.getvalue()

    def decode(self, data: bytes) -> Tensor:
        """Decompress a file that `encode` wrote into a picture (1, 3, H, W) in [0, 1]."""
        with Image.open(io.BytesIO(data), formats=(self.format,)) as image:
            return to_tensor(image.convert("RGB"))

    def missing(self) -> str | None:
        """One line on what to install if this Pillow was built without the format, else None."""
        if features.check(self.feature):
            return None
        return f"{self.name} is left out: this Pillow was built without it; install Pillow's own wheel"


JPEG = PillowCodec(
    "JPEG",
    "JPEG",
    "jpg",
    (5, 10, 15, 25, 40, 60, 75, 85, 92, 96),
    lambda quality: {"quality": quality, "subsampling": "4:2:0", "optimize": True},
)
WEBP = PillowCodec(
    "WebP",
    "WEBP",
    "webp",
    (0, 10, 30, 50, 70, 82, 90, 95),
    lambda quality: {"quality": quality, "method": 6},
)
JPEG2000 = PillowCodec(
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
)


def _avif444(name: str, speed: int) -> PillowCodec:
    """libaom with full chroma, tuned for PSNR, at a speed from 0 (slow) to 10 (fast)."""
    return PillowCodec(
        name,
        "AVIF",
        "avif",
        (4, 14, 26, 38, 50, 62, 74, 87),
        lambda quality: {
            "quality": quality,
            "subsampling": "4:4:4",
            "speed": speed,
            "codec": "aom",
            "autotiling": False,  # else large pictures are cut into tiles, as many as there are cores
            "advanced": {"tune": "psnr"},
        },
    )


AVIF = _avif444("AVIF 4:4:4", speed=2)
QUICK_AVIF = _avif444(
    "AVIF 4:4:4, speed 8", speed=8
)  # for explorers: a search of 7 files while a reader waits
AVIF420 = PillowCodec(
    "AVIF 4:2:0",
    "AVIF",
    "avif",
    (8, 20, 32, 44, 56, 68, 80, 90),
    lambda quality: {"quality": quality, "subsampling": "4:2:0", "speed": 6},
)


def best_within(codec: PillowCodec, x: Tensor, n_bytes: int) -> bytes:
    """Return a codec's best file of at most n_bytes, or its smallest where none is that small.

    Args:
        codec: one whose setting is a quality from 1 to 100, all of which are candidates.
        x: (1, 3, H, W) in [0, 1].
        n_bytes: the limit.
    """
    return largest_within(lambda quality: codec.encode(x, quality), 1, 100, n_bytes)


def jpeg_within(x: Tensor, n_bytes: int) -> bytes:
    """``best_within`` of JPEG."""
    return best_within(JPEG, x, n_bytes)

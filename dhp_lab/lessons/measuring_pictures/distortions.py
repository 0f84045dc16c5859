"""Six distortions of a photo, each at six strengths: what the lesson's measures are tried on.

| name             | strength                                   | what it does                            |
|------------------|--------------------------------------------|-----------------------------------------|
| white noise      | standard deviation, grey levels of 255     | adds independent Gaussian noise         |
| blur             | standard deviation of the window in pixels | convolves with a Gaussian               |
| JPEG             | Pillow's quality, 4:2:0                    | a real file, written and read           |
| AVIF             | Pillow's quality, 4:2:0, speed 6           | a real file, written and read           |
| shift            | pixels to the right                        | moves the picture, changes nothing else |
| AVIF, then noise | standard deviation, grey levels            | AVIF of quality 12, white noise on top  |

A margin is cut from the distorted picture and from its original alike, so that a shift brings real pixels in
from outside. Results are rounded to 8 bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torchvision.transforms.functional as TF
from torch import Tensor

from dhp_lab.data.photos import load_photo
from dhp_lab.evaluation.classical import AVIF420, JPEG, PillowCodec
from dhp_lab.metrics.pixels import psnr, round_to_8_bits

MARGIN = 16  # pixels that are cut from each edge; no shift is larger
SIDE = 192  # of the lesson's pictures, in pixels
COARSE = 12  # the AVIF quality that noise is added to
SHOWN = ("chelsea", "astronaut", "coffee", "flower")  # the lesson's pictures


class Distortion(NamedTuple):
    """A way to spoil a picture.

    Attributes:
        unit: of the strengths, for a reader.
        strengths: from weak to strong.
        apply: a picture (1, 3, H, W) in [0, 1] and a strength to a picture of that size.
    """

    unit: str
    strengths: tuple[float, ...]
    apply: Callable[[Tensor, float], Tensor]


def white_noise(x: Tensor, levels: float, seed: int = 0) -> Tensor:
    """x plus Gaussian noise of a standard deviation of so many grey levels, clamped to [0, 1]."""
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed))
    return (x + levels / 255 * noise).clamp(0, 1)


def _blurred(x: Tensor, deviation: float) -> Tensor:
    return TF.gaussian_blur(x, 2 * math.ceil(3 * deviation) + 1, deviation)


def _coded(codec: PillowCodec) -> Callable[[Tensor, float], Tensor]:
    return lambda x, quality: codec.decode(codec.encode(x, quality))


def _shifted(x: Tensor, pixels: float) -> Tensor:
    return torch.roll(x, int(pixels), dims=3)


def _coarse_and_noisy(x: Tensor, levels: float) -> Tensor:
    return white_noise(_coded(AVIF420)(x, COARSE), levels)


DISTORTIONS = {
    "white noise": Distortion("grey levels", (2, 4, 8, 12, 16, 24), white_noise),
    "blur": Distortion("pixels", (0.4, 0.6, 0.9, 1.3, 2.0, 3.0), _blurred),
    "JPEG": Distortion("quality", (90, 70, 40, 20, 10, 5), _coded(JPEG)),
    "AVIF": Distortion("quality", (85, 65, 45, 25, 12, 4), _coded(AVIF420)),
    "shift": Distortion("pixels", (1, 2, 3, 5, 8, 16), _shifted),
    "AVIF, then noise": Distortion("grey levels", (0, 2, 4, 6, 8, 12), _coarse_and_noisy),
}


def distort(x: Tensor, name: str, strength: float) -> tuple[Tensor, Tensor]:
    """A distorted picture and its original, both without the margin.

    Args:
        x: (1, 3, H, W) in [0, 1], H and W above 32.
        name: one of DISTORTIONS.
        strength: in its unit; a shift is 16 pixels at most.

    Returns:
        Two pictures (1, 3, H - 32, W - 32) in [0, 1], rounded to 8 bits.

    Raises:
        ValueError: another name, or a picture that is too small.
    """
    if name not in DISTORTIONS:
        raise ValueError(f"there is no distortion {name!r}; choose one of {', '.join(DISTORTIONS)}")
    if min(x.shape[-2:]) <= 2 * MARGIN:
        size = " x ".join(map(str, x.shape[-2:]))
        raise ValueError(f"sides above {2 * MARGIN} pixels are needed, got {size}; take a larger picture")
    return round_to_8_bits(_inside(DISTORTIONS[name].apply(x, strength))), round_to_8_bits(_inside(x))


def setting(strength: float, unit: str) -> str:
    """A strength and its unit in words: "quality 10", "1 pixel", "8 grey levels"."""
    if unit == "quality":
        return f"quality {strength:g}"
    return f"{strength:g} {unit.removesuffix('s') if strength == 1 else unit}"


def at_psnr(x: Tensor, name: str, target: float) -> float:
    """The strength at which a distortion comes nearest to a PSNR, by bisection.

    Args:
        x, name: as for ``distort``; a shift cannot be asked for.
        target: in dB.

    Returns:
        A quality is whole, another strength has two decimals.
    """
    distortion = DISTORTIONS[name]
    unit = 1 if distortion.unit == "quality" else 100  # steps in a strength of 1

    def strength(step: int) -> float:
        return step if unit == 1 else step / unit

    def error(step: int) -> float:
        return psnr(*distort(x, name, strength(step))).item() - target

    ends = distortion.strengths[0], distortion.strengths[-1]
    low, high = sorted(round(unit * end) for end in ends)
    rises = error(high) > error(low)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if (error(middle) > 0) == rises else (middle, high)
    return strength(min((low, high), key=lambda step: abs(error(step))))


def _inside(x: Tensor) -> Tensor:
    return x[..., MARGIN:-MARGIN, MARGIN:-MARGIN]


def lesson_photo(name: str) -> Tensor:
    """The middle (1, 3, 224, 224) of one of ``SHOWN``: a picture of SIDE pixels and its margin."""
    return load_photo(name, SIDE + 2 * MARGIN)

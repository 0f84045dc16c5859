"""One coding of one picture as a row of figures, and rows averaged to the points of a curve."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, median

from torch import Tensor

from dhp_lab.metrics.pixels import (
    MS_SSIM_MIN_SIDE,
    RAW_BITS_PER_PIXEL,
    bits_per_pixel,
    gradient_energy_ratio,
    ms_ssim,
    psnr,
    round_to_8_bits,
)


@dataclass(frozen=True)
class Measurement:
    """One picture through one codec at one setting.

    Attributes:
        codec: its name, as in tables.
        setting: what the codec calls its trade-off (lambda, a quality, a target rate).
        picture: its name.
        height, width: in pixels.
        n_bytes: of the whole file.
        psnr: in dB.
        ms_ssim: 0 .. 1; None where a side is below 161 pixels.
        texture: gradient energy over the original's, see `gradient_energy_ratio`.
        encode_seconds, decode_seconds: of one picture.
    """

    codec: str
    setting: float
    picture: str
    height: int
    width: int
    n_bytes: int
    psnr: float
    ms_ssim: float | None
    texture: float
    encode_seconds: float
    decode_seconds: float

    @property
    def bpp(self) -> float:
        """Bits in the file per pixel."""
        return bits_per_pixel(self.n_bytes, self.height, self.width)


def measure(
    x_hat: Tensor,
    x: Tensor,
    *,
    codec: str,
    setting: float,
    picture: str,
    n_bytes: int,
    encode_seconds: float,
    decode_seconds: float,
) -> Measurement:
    """Measure one decoded picture, rounded to 8 bits, against its original.

    Args:
        x_hat: the decoded picture, (1, 3, H, W) in [0, 1].
        x: the original, likewise.
        codec, setting, picture, n_bytes, encode_seconds, decode_seconds: see `Measurement`.
    """
    height, width = x.shape[-2:]
    x_hat = round_to_8_bits(x_hat)
    is_large = min(height, width) >= MS_SSIM_MIN_SIDE
    return Measurement(
        codec=codec,
        setting=setting,
        picture=picture,
        height=height,
        width=width,
        n_bytes=n_bytes,
        psnr=psnr(x_hat, x).item(),
        ms_ssim=ms_ssim(x_hat, x).item() if is_large else None,
        texture=gradient_energy_ratio(x_hat, x).item(),
        encode_seconds=encode_seconds,
        decode_seconds=decode_seconds,
    )


@dataclass(frozen=True)
class Point:
    """A codec at one setting, averaged over pictures: one point of its rate-distortion curve.

    Attributes:
        codec, setting: see `Measurement`.
        pictures: how many were averaged.
        bpp, psnr, texture: means over the pictures, as published curves are.
        ms_ssim: likewise; None if one of the pictures was too small for it.
        compression_ratio: 24 bits of a pixel over bpp.
        encode_seconds, decode_seconds: medians over the pictures.
    """

    codec: str
    setting: float
    pictures: int
    bpp: float
    compression_ratio: float
    psnr: float
    ms_ssim: float | None
    texture: float
    encode_seconds: float
    decode_seconds: float


def average(measurements: Sequence[Measurement]) -> list[Point]:
    """Return one Point for each (codec, setting), in the order of their first appearance."""
    groups: dict[tuple[str, float], list[Measurement]] = {}
    for one in measurements:
        groups.setdefault((one.codec, one.setting), []).append(one)
    return [_point(codec, setting, group) for (codec, setting), group in groups.items()]


def _point(codec: str, setting: float, group: list[Measurement]) -> Point:
    bpp = mean(one.bpp for one in group)
    similarities = [one.ms_ssim for one in group]
    return Point(
        codec=codec,
        setting=setting,
        pictures=len(group),
        bpp=bpp,
        compression_ratio=RAW_BITS_PER_PIXEL / bpp,
        psnr=mean(one.psnr for one in group),
        ms_ssim=None if None in similarities else mean(similarities),
        texture=mean(one.texture for one in group),
        encode_seconds=median(one.encode_seconds for one in group),
        decode_seconds=median(one.decode_seconds for one in group),
    )

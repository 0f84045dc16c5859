"""One coding of one picture as a row of figures, rows averaged to points of a curve, and what the times
depend on.
"""

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

    setting: what the codec calls its trade-off (lambda, a quality, a target rate). psnr in dB, texture as in
    `gradient_energy_ratio`, ms_ssim None where a side is below 161 pixels, times in seconds of one picture.
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
    """Measure one decoded picture, 8-bit rounded, against its original; both (1, 3, H, W) in [0, 1]."""
    height, width = x.shape[-2:]
    x_hat = round_to_8_bits(x_hat)
    fits = min(height, width) >= MS_SSIM_MIN_SIDE
    return Measurement(
        codec,
        setting,
        picture,
        height,
        width,
        n_bytes,
        psnr(x_hat, x).item(),
        ms_ssim(x_hat, x).item() if fits else None,
        gradient_energy_ratio(x_hat, x).item(),
        encode_seconds,
        decode_seconds,
    )


@dataclass(frozen=True)
class Point:
    """A codec at one setting, averaged over pictures: one point of its rate-distortion curve.

    bpp, psnr, ms_ssim and texture are means over the pictures, as published curves are; compression_ratio is
    24 / bpp; the times are medians. ms_ssim is None if one of the pictures was too small for it.
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
        codec,
        setting,
        len(group),
        bpp,
        RAW_BITS_PER_PIXEL / bpp,
        mean(one.psnr for one in group),
        None if None in similarities else mean(similarities),
        mean(one.texture for one in group),
        median(one.encode_seconds for one in group),
        median(one.decode_seconds for one in group),
    )

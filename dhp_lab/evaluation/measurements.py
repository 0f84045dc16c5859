"""One coding of one picture as a row of figures, and rows averaged to the points of a curve."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
        lpips, lpips_vgg, dists, ssimulacra2, cvvdp: see `judges`.

    A metric is None where it was not chosen, or where the picture is too small for it.
    """

    codec: str
    setting: float
    picture: str
    height: int
    width: int
    n_bytes: int
    psnr: float | None
    ms_ssim: float | None
    texture: float | None
    encode_seconds: float
    decode_seconds: float
    lpips: float | None = None
    lpips_vgg: float | None = None
    dists: float | None = None
    ssimulacra2: float | None = None
    cvvdp: float | None = None

    @property
    def bpp(self) -> float:
        """Bits in the file per pixel."""
        return bits_per_pixel(self.n_bytes, self.height, self.width)


@dataclass(frozen=True)
class Metric:
    """A metric of one picture.

    Attributes:
        field: of `Measurement` and `Point`.
        of: decoded picture and original, (1, 3, H, W) in [0, 1] and rounded to 8 bits -> figure.
        smallest_side: below it the metric has no figure.
        prepare: loads what it needs; raises DownloadError or MissingPackage, whose message is one line.
    """

    field: str
    of: Callable[[Tensor, Tensor], float]
    smallest_side: int = 1
    prepare: Callable[[], object] = lambda: None


PIXEL_METRICS = {  # by their names on the command line
    "psnr": Metric("psnr", lambda x_hat, x: psnr(x_hat, x).item()),
    "ms-ssim": Metric("ms_ssim", lambda x_hat, x: ms_ssim(x_hat, x).item(), MS_SSIM_MIN_SIDE),
    "texture": Metric("texture", lambda x_hat, x: gradient_energy_ratio(x_hat, x).item()),
}


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
    metrics: Sequence[Metric] = tuple(PIXEL_METRICS.values()),
) -> Measurement:
    """Measure one decoded picture, rounded to 8 bits, against its original.

    Args:
        x_hat: the decoded picture, (1, 3, H, W) in [0, 1].
        x: the original, likewise.
        codec, setting, picture, n_bytes, encode_seconds, decode_seconds: see `Measurement`.
        metrics: what it is measured by.
    """
    height, width = x.shape[-2:]
    x_hat = round_to_8_bits(x_hat)
    figures = dict.fromkeys(metric.field for metric in PIXEL_METRICS.values())
    for metric in metrics:
        is_large = min(height, width) >= metric.smallest_side
        figures[metric.field] = metric.of(x_hat, x) if is_large else None
    return Measurement(
        codec=codec,
        setting=setting,
        picture=picture,
        height=height,
        width=width,
        n_bytes=n_bytes,
        encode_seconds=encode_seconds,
        decode_seconds=decode_seconds,
        **figures,
    )


@dataclass(frozen=True)
class Point:
    """A codec at one setting, averaged over pictures: one point of its rate-distortion curve.

    Attributes:
        codec, setting: see `Measurement`.
        pictures: how many were averaged.
        bpp, psnr, ms_ssim, texture, lpips, lpips_vgg, dists, ssimulacra2, cvvdp: means over the pictures, as
            published curves are; a metric is None if it was not chosen, or a picture is too small for it.
        compression_ratio: 24 bits of a pixel over bpp.
        encode_seconds, decode_seconds: medians over the pictures.
        patch_kid, patch_kid_low, patch_kid_high: of the patches of all pictures, and its interval of 95 %;
            see `metrics.patch_distance`.
    """

    codec: str
    setting: float
    pictures: int
    bpp: float
    compression_ratio: float
    psnr: float | None
    ms_ssim: float | None
    texture: float | None
    encode_seconds: float
    decode_seconds: float
    lpips: float | None = None
    lpips_vgg: float | None = None
    dists: float | None = None
    ssimulacra2: float | None = None
    cvvdp: float | None = None
    patch_kid: float | None = None
    patch_kid_low: float | None = None
    patch_kid_high: float | None = None


AVERAGED = ("psnr", "ms_ssim", "texture", "lpips", "lpips_vgg", "dists", "ssimulacra2", "cvvdp")


def average(measurements: Sequence[Measurement]) -> list[Point]:
    """Return one Point for each (codec, setting), in the order of their first appearance."""
    groups: dict[tuple[str, float], list[Measurement]] = {}
    for one in measurements:
        groups.setdefault((one.codec, one.setting), []).append(one)
    return [_point(codec, setting, group) for (codec, setting), group in groups.items()]


def _point(codec: str, setting: float, group: list[Measurement]) -> Point:
    bpp = mean(one.bpp for one in group)
    return Point(
        codec=codec,
        setting=setting,
        pictures=len(group),
        bpp=bpp,
        compression_ratio=RAW_BITS_PER_PIXEL / bpp,
        encode_seconds=median(one.encode_seconds for one in group),
        decode_seconds=median(one.decode_seconds for one in group),
        **{field: _mean([getattr(one, field) for one in group]) for field in AVERAGED},
    )


def _mean(values: Sequence[float | None]) -> float | None:
    return None if None in values else mean(values)

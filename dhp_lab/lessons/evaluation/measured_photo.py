"""The explorer's picture: a photo coded by ours and by JPEG, both errors, and their places on the curves."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from dhp_lab.codec import dhp_file
from dhp_lab.codec.model import DiffusionHyperprior
from dhp_lab.data.images import to_pixels
from dhp_lab.data.photos import PHOTOS
from dhp_lab.evaluation.classical import JPEG
from dhp_lab.metrics.pixels import (
    MS_SSIM_MIN_SIDE,
    bits_per_pixel,
    decibel,
    gradient_energy_ratio,
    ms_ssim,
    psnr,
)
from dhp_lab.metrics.rd_curves import Curve
from dhp_lab.notebook.html import Rendered, picture_bytes, table_html
from dhp_lab.notebook.photo_codec import PhotoCodec, none_as_small
from dhp_lab.notebook.style import (
    AMBER,
    BLUE,
    GAP,
    GREY,
    pixel_figure,
    place_axes,
    place_picture,
    place_title,
    style,
)

TITLE = 24  # dots above each panel
ERROR_GAIN = 8  # an error of 32 levels is drawn black
CURVE_RATES = (3e-2, 1e-2, 4e-3, 1.5e-3, 6e-4, 2e-4)  # lambdas of our curve
KEPT = 32  # decoded pictures that the cache holds


def picture_size(side: int) -> tuple[int, int]:
    """Width and height in pixels of the explorer's picture: two rows of three panels."""
    return 3 * side + 2 * GAP, 2 * (side + TITLE)


def error_map(x_hat: Tensor, x: Tensor) -> np.ndarray:
    """White where two pictures are equal, black where a pixel's mean error is 32 levels or more.

    Args:
        x_hat, x: (1, 3, H, W) in [0, 1].

    Returns:
        (H, W, 3) uint8.
    """
    error = np.abs(to_pixels(x_hat).astype(float) - to_pixels(x).astype(float)).mean(2, keepdims=True)
    return np.repeat(255 - (ERROR_GAIN * error).clip(0, 255), 3, 2).round().astype(np.uint8)


class MeasuredPhoto:
    """Photos through a model, measured: each file is written once, each picture decoded once.

    Args:
        model: on any device.
        side: a photo's largest side in pixels, and the width of a panel.
    """

    def __init__(self, model: DiffusionHyperprior, side: int) -> None:
        self.model = model
        self.side = side
        self.files = PhotoCodec(model, side)
        self.decode = lru_cache(maxsize=KEPT)(self._decode)
        self.curves = lru_cache(maxsize=len(PHOTOS))(self._curves)

    def render(
        self, *, photo: str, lambda_rate: float, effort: int = 0, steps: int, gamma: float, seed: int
    ) -> Rendered:
        """Original, ours and a JPEG of at most as many bytes; the curves with both places; both errors.

        Args:
            photo: a name of ``PHOTOS``.
            lambda_rate: 1e-6 .. 1e-1.
            effort: of our encoder, 0 .. 9; the curves are those of effort 0.
            steps: K, 0 .. 1000.
            gamma: 0 .. 1.
            seed: of the noise.
        """
        x, _ = self.files.photo(photo)
        data, seconds = self.files.encode(photo, lambda_rate, effort)
        jpeg = self.files.beside("JPEG", photo, lambda_rate, effort)
        ours = self.decode(photo, lambda_rate, effort, steps, gamma, seed)
        theirs = JPEG.decode(jpeg)
        drawn = "" if steps < 2 else f", γ = {gamma:g}, seed {seed}"
        rows = [_row(f"ours, K = {steps}{drawn}", data, ours, x), _row("JPEG", jpeg, theirs, x)]
        table = table_html(rows, ["", "bytes", "bits per pixel", "PSNR, dB", "MS-SSIM, dB", "texture"]).text
        notes = [none_as_small("JPEG")] if len(jpeg) > len(data) else []
        if steps < 2:
            notes.append("γ and the seed count from K = 2 on")
        spent = f"λ = {lambda_rate:g}"
        if effort:
            spent += f", effort {effort}: our file took {seconds:.1f} s"
        text = f"<p>{spent}</p>{table}" + "".join(f"<p>{note}</p>" for note in notes)
        panels = {
            "original": to_pixels(x),
            f"ours, {len(data)} bytes": to_pixels(ours),
            f"JPEG, {len(jpeg)} bytes": to_pixels(theirs),
            "": None,
            "error of ours, 8 times": error_map(ours, x),
            "error of JPEG, 8 times": error_map(theirs, x),
        }
        places = [_point(data, ours, x), _point(jpeg, theirs, x)]
        with style():
            figure = self._figure(panels, self.curves(photo), places)
        alt = (
            f"{photo} and its errors: ours in {len(data)} bytes (λ = {lambda_rate:g}, K = {steps}{drawn}), "
            f"JPEG in {len(jpeg)} bytes; both as points beside their rate-distortion curves"
        )
        return Rendered(picture_bytes(figure, compress_level=1), alt, text)

    def _decode(
        self, photo: str, lambda_rate: float, effort: int, steps: int, gamma: float, seed: int
    ) -> Tensor:
        data, _ = self.files.encode(photo, lambda_rate, effort)
        return dhp_file.decode(self.model, data, steps=steps, gamma=gamma, seed=seed).float().cpu()

    def _curves(self, photo: str) -> dict[str, Curve]:
        """(bits per pixel, PSNR) of ours with K = 1, and of JPEG."""
        x = self.files.photo(photo)[0]
        ours, theirs = [], []
        for lambda_rate in CURVE_RATES:
            data = dhp_file.encode(self.model, x, lambda_rate=lambda_rate)
            ours.append(_point(data, dhp_file.decode(self.model, data).float().cpu(), x))
        for quality in JPEG.settings:
            data = JPEG.encode(x, quality)
            theirs.append(_point(data, JPEG.decode(data), x))
        curves = {"ours, K = 1": ours, "JPEG": theirs}
        return {name: tuple(map(list, zip(*points, strict=True))) for name, points in curves.items()}

    def _figure(
        self,
        panels: dict[str, np.ndarray | None],
        curves: dict[str, Curve],
        places: list[tuple[float, float]],
    ) -> Figure:
        """Two rows of three panels, pictures pixel for pixel; the one without a picture holds the curves."""
        figure = pixel_figure(*picture_size(self.side))
        for number, (title, pixels) in enumerate(panels.items()):
            row, column = divmod(number, 3)
            left, top = column * (self.side + GAP), row * (self.side + TITLE) + TITLE
            if pixels is None:
                axes = place_axes(figure, left + 44, top + 4, self.side - 48, self.side - 44)
                _draw_chart(axes, curves, places)
            else:
                place_picture(figure, pixels, left, top)
                place_title(figure, title, left, top - 6, size=10.5)
        return figure


def _point(data: bytes, x_hat: Tensor, x: Tensor) -> tuple[float, float]:
    """Bits per pixel and PSNR of a file."""
    return bits_per_pixel(len(data), *x.shape[-2:]), psnr(x_hat, x).item()


def _row(name: str, data: bytes, x_hat: Tensor, x: Tensor) -> list[str]:
    """The table's cells; a small picture has no MS-SSIM."""
    rate, quality = _point(data, x_hat, x)
    large = min(x.shape[-2:]) >= MS_SSIM_MIN_SIDE
    similarity = f"{decibel(ms_ssim(x_hat, x).item()):.2f}" if large else "-"
    texture = gradient_energy_ratio(x_hat, x).item()
    return [name, str(len(data)), f"{rate:.3f}", f"{quality:.2f}", similarity, f"{texture:.2f}"]


def _draw_chart(axes: Axes, curves: dict[str, Curve], places: list[tuple[float, float]]) -> None:
    """The curves, and the places of both files on them."""
    for (name, curve), colour, (rate, quality) in zip(curves.items(), (BLUE, AMBER), places, strict=True):
        axes.plot(*curve, color=colour, linewidth=1.5, label=name)
        axes.plot(rate, quality, "o", color=colour, markersize=9, markeredgecolor="white")
        axes.axvline(rate, color=GREY, linewidth=0.6, linestyle=":")
    rates = [rate for rate, _ in places]
    axes.set(xlim=(0, max(2.0, 1.1 * max(rates))), xlabel="bits per pixel")
    axes.tick_params(labelsize=8)
    axes.set_title("PSNR, dB", fontsize=10)
    axes.legend(loc="lower right", fontsize=8)

"""The explorer of lesson 08: one photo coded by ours and by JPEG, where both are wrong, and their places on
the curves.
"""

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
from dhp_lab.evaluation import classical
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
from dhp_lab.notebook.photo_codec import PhotoCodec
from dhp_lab.notebook.style import AMBER, BLUE, CSS_DPI, GAP, GREY, style

TITLE = 24  # dots above each panel
ERROR_GAIN = 8  # an error of 32 levels is drawn black
CURVE_RATES = (3e-2, 1e-2, 4e-3, 1.5e-3, 6e-4, 2e-4)  # lambdas of our curve
KEPT = 32  # decoded pictures that the cache holds


def picture_size(side: int) -> tuple[int, int]:
    """Width and height in pixels of the explorer's picture: two rows of three panels."""
    return 3 * side + 2 * GAP, 2 * (side + TITLE)


def error_map(x_hat: Tensor, x: Tensor) -> np.ndarray:
    """(H, W, 3) uint8: white where two pictures (1, 3, H, W) are equal, black where a pixel's mean error is
    32 levels or more.
    """
    error = np.abs(to_pixels(x_hat).astype(float) - to_pixels(x).astype(float)).mean(2, keepdims=True)
    return np.repeat(255 - (ERROR_GAIN * error).clip(0, 255), 3, 2).round().astype(np.uint8)


class MeasuredPhoto:
    """Photos through a model, measured: each file is written once, each picture decoded once.

    side: a photo's largest in pixels, and the width of a panel.
    """

    def __init__(self, model: DiffusionHyperprior, side: int) -> None:
        self.model, self.side, self.files = model, side, PhotoCodec(model, side)
        self.decode = lru_cache(maxsize=KEPT)(self._decode)
        self.curves = lru_cache(maxsize=len(PHOTOS))(self._curves)

    def render(self, *, photo: str, lambda_rate: float, steps: int, gamma: float, seed: int) -> Rendered:
        """Original, ours and JPEG at as many bytes; below them the curves with both places, and where both
        are wrong.
        """
        (x, _), (data, jpeg, _) = self.files.photo(photo), self.files.encode(photo, lambda_rate)
        ours, theirs = self.decode(photo, lambda_rate, steps, gamma, seed), classical.decode(jpeg)
        drawn = "" if steps < 2 else f", γ = {gamma:g}, seed {seed}"
        rows = [self._row(f"ours, K = {steps}{drawn}", data, ours, x), self._row("JPEG", jpeg, theirs, x)]
        text = table_html(rows, ["", "bytes", "bits per pixel", "PSNR, dB", "MS-SSIM, dB", "texture"]).text
        if len(jpeg) > len(data):
            text += "<p>no JPEG of this picture is as small: this is its smallest</p>"
        still = "" if steps > 1 else "<p>γ and the seed count from K = 2 on</p>"
        places = [
            (bits_per_pixel(len(file), *x.shape[-2:]), psnr(y, x).item())
            for file, y in ((data, ours), (jpeg, theirs))
        ]
        figure = self._figure(
            {
                "original": to_pixels(x),
                f"ours, {len(data)} bytes": to_pixels(ours),
                f"JPEG, {len(jpeg)} bytes": to_pixels(theirs),
                "": None,
                "error of ours, 8 times": error_map(ours, x),
                "error of JPEG, 8 times": error_map(theirs, x),
            },
            self.curves(photo),
            places,
        )
        alt = (
            f"{photo} and its errors: ours in {len(data)} bytes (λ = {lambda_rate:g}, K = {steps}{drawn}), "
            f"JPEG in {len(jpeg)} bytes; both as points beside their rate-distortion curves"
        )
        return Rendered(
            picture_bytes(figure, compress_level=1), alt, f"<p>λ = {lambda_rate:g}</p>{text}{still}"
        )

    def _decode(self, photo: str, lambda_rate: float, steps: int, gamma: float, seed: int) -> Tensor:
        data = self.files.encode(photo, lambda_rate)[0]
        return dhp_file.decode(self.model, data, steps=steps, gamma=gamma, seed=seed).float().cpu()

    def _curves(self, photo: str) -> dict[str, Curve]:
        """(bits per pixel, PSNR) of ours with K = 1, and of JPEG."""
        x, jpeg = self.files.photo(photo)[0], classical.find_codec("jpeg")
        ours = [dhp_file.encode(self.model, x, lambda_rate=lambda_rate) for lambda_rate in CURVE_RATES]
        theirs = [classical.encode(jpeg, x, quality) for quality in jpeg.settings]
        decoded = {
            "ours, K = 1": [(d, dhp_file.decode(self.model, d).float().cpu()) for d in ours],
            "JPEG": [(d, classical.decode(d)) for d in theirs],
        }
        return {
            name: (
                [bits_per_pixel(len(d), *x.shape[-2:]) for d, _ in pairs],
                [psnr(y, x).item() for _, y in pairs],
            )
            for name, pairs in decoded.items()
        }

    @staticmethod
    def _row(name: str, data: bytes, x_hat: Tensor, x: Tensor) -> list[str]:
        large = min(x.shape[-2:]) >= MS_SSIM_MIN_SIDE
        similarity = f"{decibel(ms_ssim(x_hat, x).item()):.2f}" if large else "-"
        texture, rate = gradient_energy_ratio(x_hat, x).item(), bits_per_pixel(len(data), *x.shape[-2:])
        return [
            name,
            str(len(data)),
            f"{rate:.3f}",
            f"{psnr(x_hat, x).item():.2f}",
            similarity,
            f"{texture:.2f}",
        ]

    def _figure(
        self,
        panels: dict[str, np.ndarray | None],
        curves: dict[str, Curve],
        places: list[tuple[float, float]],
    ) -> Figure:
        """Two rows of three panels, pictures pixel for pixel; the one without a picture holds the curves."""
        width, height = picture_size(self.side)
        with style():
            figure = Figure(figsize=((width + 0.01) / CSS_DPI, (height + 0.01) / CSS_DPI), dpi=CSS_DPI)
            for number, (title, pixels) in enumerate(panels.items()):
                row, column = divmod(number, 3)
                left, top = column * (self.side + GAP), row * (self.side + TITLE) + TITLE
                if pixels is None:
                    place = [
                        (left + 44) / width,
                        1 - (top + self.side - 40) / height,
                        (self.side - 48) / width,
                        (self.side - 44) / height,
                    ]
                    self._chart(figure.add_axes(place), curves, places)
                    continue
                rows, cols = pixels.shape[:2]
                axes = figure.add_axes([left / width, 1 - (top + rows) / height, cols / width, rows / height])
                axes.imshow(pixels, interpolation="none", aspect="auto")
                axes.set_axis_off()
                figure.text(left / width, 1 - (top - 6) / height, title, fontsize=10.5, va="bottom")
        return figure

    @staticmethod
    def _chart(axes: Axes, curves: dict[str, Curve], places: list[tuple[float, float]]) -> None:
        for (name, curve), colour, (rate, quality) in zip(curves.items(), (BLUE, AMBER), places, strict=True):
            axes.plot(*curve, color=colour, linewidth=1.5, label=name)
            axes.plot(rate, quality, "o", color=colour, markersize=9, markeredgecolor="white")
            axes.axvline(rate, color=GREY, linewidth=0.6, linestyle=":")
        rates = [rate for rate, _ in places]
        axes.set(xlim=(0, max(2.0, 1.1 * max(rates))), xlabel="bits per pixel")
        axes.tick_params(labelsize=8)
        axes.set_title("PSNR, dB", fontsize=10)
        axes.legend(loc="lower right", fontsize=8)

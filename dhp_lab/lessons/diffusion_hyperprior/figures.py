"""Lesson 07: rounding errors beside Gaussian noise, schedules and start times, and the explorer's pure
picture.

| function or class   | what it gives                                                                               |
|---------------------|---------------------------------------------------------------------------------------------|
| `errors_figure`     | rounding errors of wide and of narrow latents, and the Gaussian of the same spread          |
| `spectrum`          | the power of a picture of errors at each spatial frequency                                  |
| `spectra_figure`    | such spectra, a panel for each lambda                                                       |
| `curves_figure`     | curves over one number on logarithmic axes: the gain, or the error that a denoiser leaves   |
| `schedules_figure`  | sigma(t) of several schedules, and the band of noise levels that a codec starts from        |
| `DiffusionTimes`    | the explorer: lambda, K and gamma on a photo, and where on the schedule the decoder walks   |
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from functools import lru_cache

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter
from torch import Tensor

from dhp_lab.codec.bits import bitstream
from dhp_lab.codec.model import DiffusionHyperprior
from dhp_lab.codec.networks.gain import quantisation_sigma
from dhp_lab.data.images import to_pixels
from dhp_lab.data.photos import load_photo
from dhp_lab.diffusion.schedules import SCHEDULES, NoiseSchedule
from dhp_lab.metrics.pixels import LUMA_BT601, gradient_energy_ratio, psnr
from dhp_lab.notebook.html import Rendered, picture_bytes, table_html
from dhp_lab.notebook.photo_figures import busiest
from dhp_lab.notebook.style import (
    BLUE,
    CHART_DPI,
    CSS_DPI,
    GREEN,
    GREY,
    ORANGE,
    SKY,
    style,
)

SIDE = 256  # of the explorer's photos, in pixels
DETAIL, ZOOM = 112, 3  # of the part that it shows
GAP, TITLE = 16, 30  # pixels between its pictures, and above them
CHART = 360  # width of its chart
SIZE = 2 * (DETAIL * ZOOM + GAP) + CHART, TITLE + DETAIL * ZOOM
KEPT = 64  # files and decoded pictures that its caches hold
LAST_TIME = 24.0  # of the chart's 50: no lambda of the slider starts later
COLOURS = (BLUE, ORANGE, GREEN, GREY, SKY)


def errors_figure(errors: Mapping[str, np.ndarray]) -> Figure:
    """Histograms of rounding errors, in steps, a panel for each name, with the Gaussian of standard deviation
    1/sqrt(12).
    """
    at, sigma = np.linspace(-1, 1, 401), 1 / math.sqrt(12)
    gauss = np.exp(-(at**2) / (2 * sigma**2)) / (sigma * math.sqrt(2 * math.pi))
    with style():
        figure = Figure(figsize=(9.4, 2.9), dpi=CHART_DPI, layout="constrained")
        panels = figure.subplots(1, len(errors), squeeze=False)[0]
        for axes, (name, values) in zip(panels, errors.items()):
            axes.hist(values, bins=np.linspace(-1, 1, 81), density=True, color=SKY, label="measured")
            axes.plot(at, gauss, color=ORANGE, label="Gaussian, σ = 1/√12")
            axes.set(title=name, xlabel="rounding error, in steps Δ", xlim=(-1, 1))
            axes.set_ylim(top=1.3 * axes.get_ylim()[1])
        panels[0].set_ylabel("density")
        panels[0].legend(loc="upper left", fontsize=8, handlelength=1.2)
    return figure


def spectrum(errors: Tensor, bins: int = 24) -> tuple[np.ndarray, np.ndarray]:
    """Mean power of the luma of errors (1, 3, H, W) in rings of equal spatial frequency.

    Returns:
        (bins,) frequencies in cycles a pixel, up to 0.5; (bins,) power of one coefficient of the orthonormal
        Fourier transform, so that white noise of variance v gives v everywhere.
    """
    luma = torch.einsum("bchw,c->bhw", errors.detach().cpu().double(), torch.tensor(LUMA_BT601).double())[0]
    power = torch.fft.fft2(luma, norm="ortho").abs().square().numpy()
    rows, cols = (np.fft.fftfreq(side) for side in luma.shape)
    ring = (np.hypot(rows[:, None], cols) * 2 * bins).astype(int)  # (H, W), beyond the last at corners
    sums, counts = (np.bincount(ring.ravel(), weights, bins + 1)[:bins] for weights in (power.ravel(), None))
    return (np.arange(bins) + 0.5) / (2 * bins), sums / counts


def spectra_figure(panels: Mapping[str, Mapping[str, tuple[np.ndarray, np.ndarray]]]) -> Figure:
    """Spectra as from ``spectrum`` by name, a panel for each group of them; all panels have one scale."""
    with style():
        figure = Figure(figsize=(9.4, 3.1), dpi=CHART_DPI, layout="constrained")
        for axes, (title, lines) in zip(
            figure.subplots(1, len(panels), sharey=True, squeeze=False)[0], panels.items()
        ):
            for (name, (frequency, power)), colour in zip(lines.items(), COLOURS):
                axes.semilogy(frequency, power, color=colour, label=name)
            axes.set(title=title, xlabel="spatial frequency, cycles a pixel", xlim=(0, 0.5))
        figure.axes[0].set_ylabel("power of the error")
        figure.axes[0].legend(loc="best", fontsize=8, handlelength=1.4)
    return figure


def curves_figure(at: np.ndarray, curves: Mapping[str, np.ndarray], *, xlabel: str, ylabel: str) -> Figure:
    """Curves (n,) by name over the positive numbers ``at`` (n,), on logarithmic axes; the last one is dashed."""
    with style():
        figure = Figure(figsize=(7.2, 3.2), dpi=CHART_DPI, layout="constrained")
        axes = figure.add_subplot()
        for (name, values), colour in zip(curves.items(), COLOURS):
            axes.loglog(
                at, values, color=colour, linestyle="--" if name == list(curves)[-1] else "-", label=name
            )
        axes.set(xlabel=xlabel, ylabel=ylabel)
        for axis, (low, high) in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim())):
            if high < 200 * low:  # else the powers of 10 are enough
                axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
                axis.set_major_formatter("{x:g}")
                axis.set_minor_formatter(NullFormatter())
        axes.legend(loc="best", fontsize=9)
    return figure


def schedules_figure(schedules: Mapping[str, NoiseSchedule], band: tuple[float, float]) -> Figure:
    """sigma(t) by name on a logarithmic scale; the band, two noise levels, is shaded."""
    with style():
        figure = Figure(figsize=(8, 3.4), dpi=CHART_DPI, layout="constrained")
        axes = figure.add_subplot()
        axes.axhspan(*band, color=SKY, alpha=0.3, label="noise of rounding, all λ")
        for (name, schedule), colour in zip(schedules.items(), COLOURS):
            _draw_schedule(axes, schedule, schedule.steps, colour, name)
        axes.set(xlabel="diffusion time t", ylabel="noise σ(t), latents = 1", xlim=(0, None))
        axes.legend(loc="lower right", fontsize=9)
    return figure


def _draw_schedule(
    axes: Axes, schedule: NoiseSchedule, until: float, colour: str, name: str | None = None
) -> None:
    times = torch.linspace(0, until, 1001, dtype=torch.float64)[1:]
    axes.semilogy(times.numpy(), schedule.sigma(times).numpy(), color=colour, label=name)


class DiffusionTimes:
    """A photo's file decoded as the explorer of lesson 07 asks for it.

    Args:
        model: the codec. Its denoiser is told noise levels and not times, so any schedule of ``SCHEDULES``
            can lead it.
    """

    def __init__(self, model: DiffusionHyperprior) -> None:
        self.models = {name: copy.copy(model) for name in SCHEDULES}  # the same weights
        for name, one in self.models.items():
            one.noise_schedule = SCHEDULES[name](model.config.diffusion_steps)
        self.model, self.encode, self.decode = (
            model,
            lru_cache(KEPT)(self._encode),
            lru_cache(KEPT)(self._decode),
        )

    def times(self, schedule: str, lambda_rate: float, steps: int) -> list[float]:
        """The times at which the decoder asks the denoiser, from t* down; none for K = 0."""
        model = self.models[schedule]
        start = model.start_time(model.step_size(lambda_rate))
        return [start * (1 - k / steps) for k in range(steps)]

    def render(self, *, photo: str, schedule: str, lambda_rate: float, steps: int, gamma: float) -> Rendered:
        """A detail of the photo, what the file gives back of it, and the decoder's walk down the schedule."""
        x, asked = load_photo(photo, SIDE), (schedule, steps, gamma)
        decoded = {
            f"K = {steps}, γ = {gamma:g}": asked,
            "K = 0": ("linear", 0, 0.0),
            "K = 1": ("linear", 1, 0.0),
        }
        rows = [[name, *_quality(self.decode(photo, lambda_rate, *how), x)] for name, how in decoded.items()]
        text = self._chain(schedule, lambda_rate, steps, len(self.encode(photo, lambda_rate)))
        figure = self._figure(x, self.decode(photo, lambda_rate, *asked), schedule, lambda_rate, steps)
        alt = (
            f"A detail of {photo}, and the same decoded with λ = {lambda_rate:g}, K = {steps}, γ = {gamma:g}; "
            f"the walk down the {schedule} schedule"
        )
        table = table_html(rows, ["", "PSNR, dB", "texture kept"]).text
        return Rendered(picture_bytes(figure, compress_level=1), alt, text + table)

    def _chain(self, schedule: str, lambda_rate: float, steps: int, n_bytes: int) -> str:
        model, delta = self.models[schedule], self.model.step_size(lambda_rate)
        walk = ", ".join(f"{time:.2f}" for time in self.times(schedule, lambda_rate, steps)) or "none"
        return (
            f"<p>λ = {lambda_rate:g} → Δ = {delta:.4f} → σ<sub>q</sub> = {quantisation_sigma(delta):.4f} → "
            f"t* = {model.start_time(delta):.2f} of {model.config.diffusion_steps}; {n_bytes} bytes</p>"
            f"<p>times at which D is asked: {walk}</p>"
        )

    def _figure(self, x: Tensor, x_hat: Tensor, schedule: str, lambda_rate: float, steps: int) -> Figure:
        width, height = SIZE
        figure = Figure(figsize=((width + 0.01) / CSS_DPI, (height + 0.01) / CSS_DPI), dpi=CSS_DPI)
        rows, cols = busiest(to_pixels(x), DETAIL, DETAIL)
        for i, (title, picture) in enumerate({"original, 3 times as large": x, "decoded": x_hat}.items()):
            left, side = i * (DETAIL * ZOOM + GAP), DETAIL * ZOOM
            axes = figure.add_axes([left / width, 0, side / width, side / height])
            axes.imshow(
                np.kron(to_pixels(picture)[rows, cols], np.ones((ZOOM, ZOOM, 1), np.uint8)),
                interpolation="none",
            )
            axes.set_axis_off()
            figure.text(left / width, 1 - (TITLE - 8) / height, title, fontsize=11, va="bottom")
        with style():
            left = 2 * (DETAIL * ZOOM + GAP) + 56
            axes = figure.add_axes(
                [left / width, 46 / height, (width - left - 8) / width, (height - TITLE - 50) / height]
            )
            self._draw_walk(axes, schedule, lambda_rate, steps)
        return figure

    def _draw_walk(self, axes: Axes, schedule: str, lambda_rate: float, steps: int) -> None:
        chain = self.models[schedule].noise_schedule
        _draw_schedule(axes, chain, LAST_TIME * chain.steps / 50, BLUE)
        times = self.times(schedule, lambda_rate, max(steps, 1))
        axes.plot(
            times[:1],
            chain.sigma(times[0]).item(),
            "D",
            color=ORANGE,
            markersize=10,
            markerfacecolor="none",
            label="t*",
        )
        if steps:
            axes.plot(
                times,
                chain.sigma(torch.tensor(times)).numpy(),
                "o",
                color=ORANGE,
                markersize=5,
                label="D is asked",
            )
        axes.set(title=f"{schedule} schedule", xlabel="diffusion time t", ylabel="noise σ(t), latents = 1")
        axes.set(xlim=(0, LAST_TIME * chain.steps / 50), ylim=(1e-3, 2))
        axes.legend(loc="lower right", fontsize=9)

    def _encode(self, photo: str, lambda_rate: float) -> bytes:
        coded = self.model.compress(load_photo(photo, SIDE).to(self.model.log2_spread.device), lambda_rate)
        return bitstream.write(coded["strings"], coded["shape"], **self.model.file_fields)

    def _decode(self, photo: str, lambda_rate: float, schedule: str, steps: int, gamma: float) -> Tensor:
        file = bitstream.read(self.encode(photo, lambda_rate))
        return (
            self.models[schedule]
            .decompress(file.strings, file.shape, steps=steps, gamma=gamma)["x_hat"]
            .cpu()
        )


def _quality(x_hat: Tensor, x: Tensor) -> list[str]:
    return [f"{psnr(x_hat, x).item():.2f}", f"{gradient_energy_ratio(x_hat, x).item():.2f}"]

"""The lesson's figures: rounding errors, schedules and start times; the explorer's pure picture.

| function or class   | what it gives                                                                        |
|---------------------|--------------------------------------------------------------------------------------|
| `errors_figure`     | rounding errors of wide and of narrow latents, beside a Gaussian of the same spread  |
| `spectrum`          | the power of a picture of errors at each spatial frequency                           |
| `spectra_figure`    | such spectra, a panel for each lambda                                                |
| `curves_figure`     | curves over one number on logarithmic axes                                           |
| `schedules_figure`  | sigma(t) of several schedules, and the band of noise levels that decoders start from |
| `DiffusionTimes`    | the explorer: lambda, K and gamma on a photo, and the walk down the schedule         |
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

from dhp_lab.codec import dhp_file
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
    GREEN,
    GREY,
    ORANGE,
    SKY,
    enlarged,
    pixel_figure,
    place_axes,
    place_picture,
    place_title,
    style,
)

SIDE = 256  # of the explorer's photos, in pixels
DETAIL, ZOOM = 112, 3  # pixels of the part that it shows, and dots of each
SHOWN = DETAIL * ZOOM
GAP, TITLE = 16, 30  # pixels between its pictures, and above them
CHART = 360  # width of its chart
SIZE = 2 * (SHOWN + GAP) + CHART, TITLE + SHOWN
KEPT = 64  # files and decoded pictures that its caches hold
LAST_SHARE = 24 / 50  # of the schedule in the chart: no lambda of the slider starts later
COLOURS = (BLUE, ORANGE, GREEN, GREY, SKY)


def errors_figure(errors: Mapping[str, np.ndarray]) -> Figure:
    """Histograms of rounding errors, with the Gaussian of standard deviation 1/sqrt(12).

    Args:
        errors: in steps, a panel for each name.
    """
    at, sigma = np.linspace(-1, 1, 401), 1 / math.sqrt(12)
    gauss = np.exp(-(at**2) / (2 * sigma**2)) / (sigma * math.sqrt(2 * math.pi))
    with style():
        figure = Figure(figsize=(9.4, 2.9), dpi=CHART_DPI, layout="constrained")
        panels = figure.subplots(1, len(errors), squeeze=False)[0]
        for axes, (name, values) in zip(panels, errors.items(), strict=True):
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
    frequency = np.hypot(rows[:, None], cols)  # (H, W)
    ring = (frequency * 2 * bins).astype(int).ravel()  # beyond the last at corners
    sums = np.bincount(ring, power.ravel(), bins + 1)[:bins]
    counts = np.bincount(ring, None, bins + 1)[:bins]
    return (np.arange(bins) + 0.5) / (2 * bins), sums / counts


def spectra_figure(panels: Mapping[str, Mapping[str, tuple[np.ndarray, np.ndarray]]]) -> Figure:
    """Spectra as from ``spectrum`` by name, five at most in a panel; all panels have one scale."""
    with style():
        figure = Figure(figsize=(9.4, 3.1), dpi=CHART_DPI, layout="constrained")
        row = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for axes, (title, lines) in zip(row, panels.items(), strict=True):
            for (name, (frequency, power)), colour in zip(lines.items(), COLOURS[: len(lines)], strict=True):
                axes.semilogy(frequency, power, color=colour, label=name)
            axes.set(title=title, xlabel="spatial frequency, cycles a pixel", xlim=(0, 0.5))
        row[0].set_ylabel("power of the error")
        row[0].legend(loc="best", fontsize=8, handlelength=1.4)
    return figure


def curves_figure(at: np.ndarray, curves: Mapping[str, np.ndarray], *, xlabel: str, ylabel: str) -> Figure:
    """Curves on logarithmic axes, the last one dashed.

    Args:
        at: (n,) above 0.
        curves: (n,) above 0 by name, five at most.
    """
    last = list(curves)[-1]
    with style():
        figure = Figure(figsize=(7.2, 3.2), dpi=CHART_DPI, layout="constrained")
        axes = figure.add_subplot()
        for (name, values), colour in zip(curves.items(), COLOURS[: len(curves)], strict=True):
            axes.loglog(at, values, color=colour, linestyle="--" if name == last else "-", label=name)
        axes.set(xlabel=xlabel, ylabel=ylabel)
        for axis, (low, high) in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim())):
            if high < 200 * low:  # else the powers of 10 are enough
                axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
                axis.set_major_formatter("{x:g}")
                axis.set_minor_formatter(NullFormatter())
        axes.legend(loc="best", fontsize=9)
    return figure


def schedules_figure(schedules: Mapping[str, NoiseSchedule], band: tuple[float, float]) -> Figure:
    """sigma(t) on a logarithmic scale, five schedules at most; the band, two noise levels, is shaded."""
    with style():
        figure = Figure(figsize=(8, 3.4), dpi=CHART_DPI, layout="constrained")
        axes = figure.add_subplot()
        axes.axhspan(*band, color=SKY, alpha=0.3, label="noise of rounding, all λ")
        for (name, schedule), colour in zip(schedules.items(), COLOURS[: len(schedules)], strict=True):
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
    """A photo's file, decoded for the lesson's explorer; ``encode`` and ``decode`` remember what they made.

    Args:
        model: the codec. Its denoiser is conditioned on noise levels and not on times, so that any schedule
            of ``SCHEDULES`` can lead it.
    """

    def __init__(self, model: DiffusionHyperprior) -> None:
        self.model = model
        self.models = {name: copy.copy(model) for name in SCHEDULES}  # the same weights
        for name, one in self.models.items():
            one.noise_schedule = SCHEDULES[name](model.config.diffusion_steps)
        self.encode = lru_cache(KEPT)(self._encode)
        self.decode = lru_cache(KEPT)(self._decode)

    def times(self, schedule: str, lambda_rate: float, steps: int) -> list[float]:
        """The times at which the decoder evaluates the denoiser, from t* down; none for K = 0."""
        model = self.models[schedule]
        start = model.start_time(model.step_size(lambda_rate))
        return [start * (1 - k / steps) for k in range(steps)]

    def render(self, *, photo: str, schedule: str, lambda_rate: float, steps: int, gamma: float) -> Rendered:
        """A detail of the photo, the same decoded, and the decoder's walk down the schedule.

        Args:
            photo: a name of ``PHOTOS``.
            schedule: "linear" or "cosine".
            lambda_rate: 1e-6 .. 1e-1.
            steps: K, 0 .. 1000.
            gamma: 0 .. 1.
        """
        x = load_photo(photo, SIDE)
        x_hat = self.decode(photo, lambda_rate, schedule, steps, gamma)
        rows = [
            [f"K = {steps}, γ = {gamma:g}", *_quality(x_hat, x)],
            ["K = 0", *_quality(self.decode(photo, lambda_rate, "linear", 0, 0.0), x)],
            ["K = 1", *_quality(self.decode(photo, lambda_rate, "linear", 1, 0.0), x)],
        ]
        table = table_html(rows, ["", "PSNR, dB", "texture kept"]).text
        text = self._noise_level(schedule, lambda_rate, steps, len(self.encode(photo, lambda_rate))) + table
        alt = (
            f"A detail of {photo}, and the same decoded with λ = {lambda_rate:g}, K = {steps}, "
            f"γ = {gamma:g}; the walk down the {schedule} schedule"
        )
        figure = self._figure(x, x_hat, schedule, lambda_rate, steps)
        return Rendered(picture_bytes(figure, compress_level=1), alt, text)

    def _noise_level(self, schedule: str, lambda_rate: float, steps: int, n_bytes: int) -> str:
        """lambda -> Delta -> sigma_q -> t*, and the times of the walk, as paragraphs."""
        model, delta = self.models[schedule], self.model.step_size(lambda_rate)
        walk = ", ".join(f"{time:.2f}" for time in self.times(schedule, lambda_rate, steps)) or "none"
        return (
            f"<p>λ = {lambda_rate:g} → Δ = {delta:.4f} → "
            f"σ<sub>q</sub> = {quantisation_sigma(delta):.4f} → "
            f"t* = {model.start_time(delta):.2f} of {model.config.diffusion_steps}; {n_bytes} bytes</p>"
            f"<p>network evaluations at times: {walk}</p>"
        )

    def _figure(self, x: Tensor, x_hat: Tensor, schedule: str, lambda_rate: float, steps: int) -> Figure:
        figure = pixel_figure(*SIZE)
        rows, cols = busiest(to_pixels(x), DETAIL, DETAIL)
        panels = {"original, 3 times as large": x, "decoded": x_hat}
        for column, (title, picture) in enumerate(panels.items()):
            left = column * (SHOWN + GAP)
            place_picture(figure, enlarged(to_pixels(picture)[rows, cols], ZOOM), left, TITLE)
            place_title(figure, title, left, TITLE - 8)
        left, (width, height) = 2 * (SHOWN + GAP) + 56, SIZE
        with style():
            axes = place_axes(figure, left, TITLE + 4, width - left - 8, height - TITLE - 50)
            self._draw_walk(axes, schedule, lambda_rate, steps)
        return figure

    def _draw_walk(self, axes: Axes, schedule: str, lambda_rate: float, steps: int) -> None:
        """The schedule, t*, and the times at which D is evaluated."""
        chain = self.models[schedule].noise_schedule
        last = LAST_SHARE * chain.steps
        _draw_schedule(axes, chain, last, BLUE)
        times = self.times(schedule, lambda_rate, max(steps, 1))
        look = {"color": ORANGE, "markersize": 10, "markerfacecolor": "none"}
        axes.plot(times[0], chain.sigma(times[0]).item(), "D", **look, label="t*")
        if steps:
            sigmas = chain.sigma(torch.tensor(times)).numpy()
            axes.plot(times, sigmas, "o", color=ORANGE, markersize=5, label="network evaluation")
        axes.set(title=f"{schedule} schedule", xlabel="diffusion time t", ylabel="noise σ(t), latents = 1")
        axes.set(xlim=(0, last), ylim=(1e-3, 2))
        axes.legend(loc="lower right", fontsize=9)

    def _encode(self, photo: str, lambda_rate: float) -> bytes:
        return dhp_file.encode(self.model, load_photo(photo, SIDE), lambda_rate=lambda_rate)

    def _decode(self, photo: str, lambda_rate: float, schedule: str, steps: int, gamma: float) -> Tensor:
        data = self.encode(photo, lambda_rate)
        return dhp_file.decode(self.models[schedule], data, steps=steps, gamma=gamma).cpu()


def _quality(x_hat: Tensor, x: Tensor) -> list[str]:
    return [f"{psnr(x_hat, x).item():.2f}", f"{gradient_energy_ratio(x_hat, x).item():.2f}"]

"""The lesson's figures: quantisation errors, start times, expected errors, what a training learns.

| function             | what it gives                                                           |
|----------------------|-------------------------------------------------------------------------|
| `errors_figure`      | quantisation errors, beside a Gaussian of the spread of rounding errors |
| `schedules_figure`   | sigma(t) of several schedules, and the times of some noise levels       |
| `calibration_figure` | expected errors of places beside measured ones                          |
| `spectrum`           | the power of a picture of errors at each spatial frequency              |
| `training_figure`    | a loss over training steps, and spectra of what is drawn                |
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter
from torch import Tensor

from dhp_lab.diffusion.schedules import NoiseSchedule
from dhp_lab.metrics.pixels import LUMA_BT601
from dhp_lab.notebook.style import BLUE, CHART_DPI, GREEN, GREY, ORANGE, SKY, style

COLOURS = (BLUE, ORANGE, GREEN, GREY, SKY)
GROUPS = 8  # of places with like expected errors, whose measured ones are averaged
SMOOTH = 20  # parts of a training whose losses are averaged

Spectrum = tuple[np.ndarray, np.ndarray]


def errors_figure(errors: Mapping[str, np.ndarray]) -> Figure:
    """Histograms of quantisation errors, with the Gaussian of standard deviation 1/sqrt(12).

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
            axes.set(title=name, xlabel="error, in steps Δ", xlim=(-1, 1))
            axes.set_ylim(top=1.3 * axes.get_ylim()[1])
        panels[0].set_ylabel("density")
        panels[0].legend(loc="upper left", fontsize=8, handlelength=1.2)
    return figure


def schedules_figure(
    schedules: Mapping[str, NoiseSchedule], sigmas: Mapping[str, float], until: float
) -> Figure:
    """sigma(t) on a logarithmic scale, five schedules at most, and the times of some noise levels.

    Args:
        sigmas: noise levels by name, at most sigma(T). until: the last time that is shown.
    """
    with style():
        figure = Figure(figsize=(8, 3.2), dpi=CHART_DPI, layout="constrained")
        axes = figure.add_subplot()
        for (name, schedule), colour in zip(schedules.items(), COLOURS[: len(schedules)], strict=True):
            draw_schedule(axes, schedule, until, colour, name)
            times = [schedule.time_of(sigma).item() for sigma in sigmas.values()]
            axes.plot(times, list(sigmas.values()), "D", color=colour, markersize=6)
        for name, sigma in sigmas.items():
            axes.axhline(sigma, color=GREY, linewidth=0.8, linestyle="--")
            axes.annotate(
                name, (until, sigma), (4, 0), textcoords="offset points", va="center", fontsize=8, color=GREY
            )
        axes.set(xlabel="diffusion time t", ylabel="noise σ(t), latents = 1", xlim=(0, until))
        axes.legend(loc="lower right", fontsize=9)
    return figure


def draw_schedule(
    axes: Axes, schedule: NoiseSchedule, until: float, colour: str, name: str | None = None, unit: float = 1.0
) -> None:
    """Draw sigma(t), times ``unit``, up to the time ``until``."""
    times = torch.linspace(0, until, 1001, dtype=torch.float64)[1:]
    axes.semilogy(times.numpy(), unit * schedule.sigma(times).numpy(), color=colour, label=name)


def calibration_figure(found: Mapping[str, tuple[Tensor, Tensor]]) -> Figure:
    """Measured errors of places against expected ones, on logarithmic axes.

    Places are sorted by expected error, and ``GROUPS`` equal shares of them averaged (root mean square).

    Args:
        found: expected and measured errors by name, of any one shape each, in pixels of [0, 1]; five at most.
    """
    with style():
        figure = Figure(figsize=(5.6, 3.6), dpi=CHART_DPI, layout="constrained")
        axes = figure.add_subplot()
        for (name, (expected, measured)), colour in zip(found.items(), COLOURS[: len(found)], strict=True):
            order = expected.flatten().argsort()
            pair = [255 * values.flatten()[order].double().cpu() for values in (expected, measured)]
            points = [
                [share.square().mean().sqrt().item() for share in values.tensor_split(GROUPS)]
                for values in pair
            ]
            axes.loglog(*points, "o-", color=colour, markersize=4, label=name)
        low, high = axes.get_xlim()
        axes.plot([low, high], [low, high], color=GREY, linestyle="--", linewidth=1, label="equal")
        axes.set(xlabel="expected error e, grey levels of 255", ylabel="measured error, grey levels")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.set_major_formatter("{x:g}")
            axis.set_minor_formatter(NullFormatter())
        axes.legend(loc="upper left", fontsize=9)
    return figure


def spectrum(errors: Tensor, bins: int = 24) -> Spectrum:
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


def training_figure(losses: Sequence[float], spectra: Mapping[str, Spectrum]) -> Figure:
    """The losses of a training, averaged over ``SMOOTH`` parts of it, and spectra as from ``spectrum``, five
    at most; the first is dashed.
    """
    parts = np.array_split(np.asarray(losses), min(SMOOTH, len(losses)))
    ends = np.cumsum([len(part) for part in parts])
    with style():
        figure = Figure(figsize=(9.4, 3.2), dpi=CHART_DPI, layout="constrained")
        left, right = figure.subplots(1, 2)
        left.plot(ends, [part.mean() for part in parts], "o-", color=BLUE, markersize=3)
        left.set(title="denoising loss", xlabel="training step")
        for number, (name, (frequency, power)) in enumerate(spectra.items()):
            line = "-" if number else "--"
            right.semilogy(frequency, power, color=COLOURS[number], linestyle=line, label=name)
        right.set(title="power of what is drawn", xlabel="spatial frequency, cycles a pixel", xlim=(0, 0.5))
        right.legend(loc="best", fontsize=8, handlelength=1.6)
    return figure

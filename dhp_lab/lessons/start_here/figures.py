"""Figures of the first lesson: lambda -> Delta -> sigma_q -> t*, and what K has gained on Kodak."""

from __future__ import annotations

import math
from collections import defaultdict
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter, LogLocator, NullLocator

from dhp_lab.core.paths import RESULTS
from dhp_lab.notebook.results import read_results
from dhp_lab.notebook.style import BLUE, CHART_DPI, ORANGE, SKY, style

KODAK = RESULTS / "kodak.json"


def gains_over_no_diffusion(file: Path = KODAK) -> dict[int, list[float]]:
    """PSNR over that of K = 0 in dB, for each K > 0 one value for each lambda, of a report of `dhp evaluate`.

    Raises:
        ValueError: the report holds nothing of ours with K = 0.
    """
    quality = defaultdict(dict)  # {lambda: {K: dB}}
    for point in read_results(file)["points"]:
        if point["codec"].startswith("dhp K="):
            quality[point["setting"]][int(point["codec"].removeprefix("dhp K="))] = point["psnr"]
    if not quality or any(0 not in found for found in quality.values()):
        raise ValueError(f"{file}: no points of 'dhp K=0'; measure with `dhp evaluate --steps 0,1,4`")
    gains = defaultdict(list)
    for found in quality.values():
        for steps in sorted(found.keys() - {0}):
            gains[steps].append(found[steps] - found[0])
    return dict(gains)


def noise_level_figure(
    *,
    lambdas: np.ndarray,
    deltas: np.ndarray,
    errors: np.ndarray,
    times: np.ndarray,
    sigmas: np.ndarray,
    chosen: tuple[float, float, float, float],
) -> Figure:
    """lambda -> Delta -> sigma_q -> t*, a panel for each arrow.

    Args:
        lambdas, deltas: (n,) the gain curve, both above 0.
        errors: (k,) rounding errors, in units of Delta's.
        times, sigmas: (m,) the noise schedule.
        chosen: lambda, Delta, t* and the schedule's sigma there.
    """
    lambda_rate, delta, time, sigma = chosen
    with style():
        figure = Figure(figsize=(10.4, 3.3), dpi=CHART_DPI, layout="constrained")
        step_panel, noise_panel, time_panel = figure.subplots(1, 3)
        step_panel.loglog(lambdas, deltas, color=BLUE)
        step_panel.set(
            title="1. λ sets the step Δ", xlabel="λ, what a bit costs", ylabel="quantisation step Δ"
        )
        step_panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        step_panel.yaxis.set_major_formatter(FormatStrFormatter("%g"))
        step_panel.yaxis.set_minor_locator(NullLocator())
        _point_out(step_panel, lambda_rate, delta, f"Δ = {delta:.3f}")
        _draw_errors(noise_panel, errors, delta)
        noisy = sigmas > 0
        time_panel.semilogy(times[noisy], sigmas[noisy], color=BLUE)
        time_panel.set(
            title="3. The noise sets the time t*",
            xlabel="diffusion time t",
            ylabel="noise level σ(t), latents = 1",
        )
        _point_out(time_panel, time, sigma, f"t* = {time:.2f}")
    return figure


def _draw_errors(axes: Axes, errors: np.ndarray, delta: float) -> None:
    """The rounding errors as a histogram, and the Gaussian that has their theoretical standard deviation."""
    sigma = delta / math.sqrt(12)
    at = np.linspace(-4 * sigma, 4 * sigma, 200)
    gauss = np.exp(-(at**2) / (2 * sigma**2)) / (sigma * math.sqrt(2 * math.pi))
    bins = np.linspace(-0.75 * delta, 0.75 * delta, 37)  # a trellis leaves errors of more than half a step
    axes.hist(errors, bins=bins, density=True, color=SKY, label="measured error")
    axes.plot(at, gauss, color=ORANGE, label=f"Gaussian, σ$_q$ = {sigma:.3f}")
    axes.set(
        title="2. The step sets the noise σ$_q$",
        xlabel="rounding error of a latent",
        ylabel="how often (density)",
    )
    axes.set_ylim(top=1.55 * axes.get_ylim()[1])  # room for the legend
    axes.legend(loc="upper left", handlelength=1.2)


def _point_out(axes: Axes, x: float, y: float, label: str) -> None:
    """Mark a point of a curve and lead the eye from it to both axes."""
    left, bottom = axes.get_xlim()[0], axes.get_ylim()[0]
    axes.plot([x, x, left], [bottom, y, y], color=ORANGE, linewidth=1.2, linestyle="--")
    axes.plot(x, y, "o", color=ORANGE, markersize=8)
    offset = {"xytext": (10, -14), "textcoords": "offset points"}
    axes.annotate(label, (x, y), **offset, color=ORANGE, fontweight="bold")
    axes.set(xlim=(left, None), ylim=(bottom, None))

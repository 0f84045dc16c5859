"""The lesson's figures: vector fields, points, paths through time, errors against steps; the explorer.

`sampler_picture` is the explorer's pure render: one sampler on the mixture of `mixture.py`, where every
sampler gets the exact denoiser. Points are drawn as z = x / sqrt(s^2 (1 + sigma^2)), of about unit size at
every time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator
from torch import Tensor

from dhp_lab.diffusion.samplers import (
    State,
    ddim,
    ddpm,
    euler_maruyama,
    predictor_corrector,
    probability_flow,
    start,
)
from dhp_lab.diffusion.schedules import NoiseSchedule, broadcast_to, geometric, linear
from dhp_lab.lessons.score_and_sde.mixture import ISLANDS
from dhp_lab.notebook.html import Rendered, picture_bytes, table_html
from dhp_lab.notebook.style import BLUE, CHART_DPI, GREEN, GREY, ORANGE, pixel_figure, style

SIZE = (806, 432)  # of the explorer's picture, in pixels
REACH = 1.6  # the plane is drawn from -REACH to REACH
COLOURS = np.array([BLUE, ORANGE, GREEN])  # of the mixture's components
MARKERS = "osD"  # of the curves
SCHEDULES = {"VP, linear": linear(1000), "VE, geometric": geometric(1000)}
CORRECTED = "predictor-corrector, 5 corrector steps"
SAMPLERS: dict[str, Callable[..., Iterator[State]]] = {
    "Euler-Maruyama": euler_maruyama,
    CORRECTED: partial(predictor_corrector, corrector_steps=5),
    "DDPM": ddpm,
    "DDIM": ddim,
    "probability flow (Heun)": probability_flow,
}
RANDOM = ("Euler-Maruyama", CORRECTED, "DDPM")
PATHS = 4  # in the explorer's left panel


def plane(count: int, reach: float = REACH) -> Tensor:
    """(count * count, 2) points of an even grid on [-reach, reach]^2, x running fastest and y upwards."""
    line = torch.linspace(-reach, reach, count)
    y, x = torch.meshgrid(line, line, indexing="ij")
    return torch.stack([x.flatten(), y.flatten()], 1)


def field_figure(panels: Mapping[str, tuple[np.ndarray, np.ndarray]], *, reach: float = REACH) -> Figure:
    """A vector field over a density, a panel for each title; long arrows are drawn shorter than they are.

    Args:
        panels: by title the density (n, n) and the arrows (m, m, 2), both on an even grid on [-reach,
            reach]^2.
    """
    with style():
        figure = Figure(figsize=(3.3 * len(panels), 3.6), dpi=CHART_DPI, layout="constrained")
        row = figure.subplots(1, len(panels), squeeze=False)[0]
        for axes, (title, (density, arrows)) in zip(row, panels.items(), strict=True):
            _shade(axes, density, reach)
            _draw_arrows(axes, arrows, reach)
            axes.set_title(title)
    return figure


def _draw_arrows(axes: Axes, arrows: np.ndarray, reach: float) -> None:
    """Arrows (m, m, 2) on an even grid, their lengths compressed to 0 .. 1 around the median."""
    line = np.linspace(-reach, reach, len(arrows))
    length = np.linalg.norm(arrows, axis=2, keepdims=True)
    short = arrows / (length + max(np.median(length), 1e-9))
    axes.quiver(
        line,
        line,
        short[..., 0],
        short[..., 1],
        color="#24292f",
        angles="xy",
        pivot="middle",
        scale_units="xy",
        scale=0.8 * len(arrows) / (2 * reach),
        width=0.006,
    )


def points_figure(panels: Mapping[str, np.ndarray], density: np.ndarray, *, reach: float = REACH) -> Figure:
    """Clouds of points over the data's density, coloured by the component whose mean is nearest.

    Args:
        panels: points (n, 2) by title.
        density: (m, m) on an even grid on [-reach, reach]^2.
    """
    with style():
        figure = Figure(figsize=(3.3 * len(panels), 3.6), dpi=CHART_DPI, layout="constrained")
        row = figure.subplots(1, len(panels), squeeze=False)[0]
        for axes, (title, points) in zip(row, panels.items(), strict=True):
            _scatter(axes, points, density, reach)
            axes.set_title(title)
    return figure


def paths_figure(panels: Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]) -> Figure:
    """Paths of one coordinate through time, over its density.

    Args:
        panels: by title the times (m,), the values' grid (n,), the density (n, m) and the paths (p, m).
    """
    with style():
        figure = Figure(figsize=(5.2 * len(panels), 3.4), dpi=CHART_DPI, layout="constrained")
        row = figure.subplots(1, len(panels), squeeze=False)[0]
        for axes, (title, (times, values, density, paths)) in zip(row, panels.items(), strict=True):
            each = density / density.max(axis=0, keepdims=True)  # each time by itself
            axes.pcolormesh(times, values, each, cmap="Blues", vmax=1.6, shading="nearest", rasterized=True)
            axes.plot(times, paths.T, color=ORANGE, linewidth=0.9, alpha=0.8)
            axes.set(title=title, xlabel="diffusion time t", ylabel="state x", ylim=(values[0], values[-1]))
            axes.grid(False)
    return figure


def convergence_figure(
    panels: Mapping[str, Mapping[str, tuple[np.ndarray, np.ndarray]]], ylabel: str
) -> Figure:
    """Distances against numbers of steps on logarithmic axes.

    Args:
        panels: by title up to three curves by name, each of steps (n,) and distances (n,).
        ylabel: what is measured.
    """
    with style():
        figure = Figure(figsize=(4.8 * len(panels), 3.4), dpi=CHART_DPI, layout="constrained")
        row = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
        for axes, (title, curves) in zip(row, panels.items(), strict=True):
            looks = zip(COLOURS, MARKERS, strict=True)
            for (name, (steps, distances)), (colour, marker) in zip(curves.items(), looks, strict=False):
                axes.loglog(steps, distances, marker=marker, color=colour, label=name)
            axes.set_xticks(steps, [f"{count:g}" for count in steps])
            axes.xaxis.set_minor_locator(NullLocator())
            axes.set(title=title, xlabel="steps")
            axes.legend()
        row[0].set_ylabel(ylabel)
    return figure


def sampler_picture(*, sampler: str, schedule: str, steps: int, snr: float, points: int = 1000) -> Rendered:
    """The paths of a few points under one sampler, the samples, and how well they are spread.

    Args:
        sampler, schedule: names in SAMPLERS and SCHEDULES.
        steps: 1 .. 1000.
        snr: above 0, of the corrector; no other sampler uses it.
        points: how many samples are drawn, PATHS or more.
    """
    chain = SCHEDULES[schedule]
    generator = torch.Generator().manual_seed(0)
    denoiser, times = ISLANDS.denoiser(chain), []

    def counted(x: Tensor, t: Tensor) -> Tensor:
        times.append(t)
        return denoiser(x, t)

    x_T = start(chain, (points, 2), generator=generator)
    options = {}
    if sampler in RANDOM:
        options["generator"] = generator
    if sampler == CORRECTED:
        options["snr"] = snr
    states = [State(chain.steps, x_T, x_T)]
    states += SAMPLERS[sampler](counted, chain, x_T, count=steps, **options)
    paths = torch.stack([_unit(chain, state.x[:PATHS], state.t) for state in states], 1)  # (PATHS, n, 2)
    samples = states[-1].x
    shares = [f"{share:.1%}" for share in ISLANDS.shares(samples)]
    rows = [
        ["these samples", *shares, f"{ISLANDS.width(samples):.2f}", len(times)],
        ["the data", *(f"{weight:.1%}" for weight in ISLANDS.weights), "1.00", ""],
    ]
    header = ["", "blue island", "orange island", "green island", "width", "network evaluations"]
    note = "" if sampler == CORRECTED else "<p>This sampler has no corrector: its SNR changes nothing.</p>"
    alt = (
        f"{sampler}, {schedule}, {steps} steps: {PATHS} paths from noise, and {points} samples, of which "
        f"{', '.join(shares)} lie on the three islands"
    )
    picture = picture_bytes(_sampler_figure(paths, samples))
    return Rendered(picture, alt, table_html(rows, header).text + note)


def _sampler_figure(paths: Tensor, samples: Tensor) -> Figure:
    """The paths (PATHS, n, 2) of z, and the samples (B, 2) at their end."""
    density = ISLANDS.log_density(plane(120)).exp().view(120, 120).numpy()
    with style():
        figure = pixel_figure(*SIZE, layout="constrained")
        left, right = figure.subplots(1, 2)
        _shade(left, np.zeros((2, 2)), 3.0)
        for path, component in zip(paths.numpy(), ISLANDS.nearest(samples[:PATHS]), strict=True):
            left.plot(path[:, 0], path[:, 1], color=COLOURS[component], linewidth=0.8, alpha=0.8)
            left.plot(*path[0], "o", color=GREY, markersize=4)
            left.plot(*path[-1], "o", color=COLOURS[component], markersize=6, markeredgecolor="white")
        left.set_title(f"paths of {PATHS} points, from grey to colour")
        _scatter(right, samples.numpy(), density, REACH)
        right.set_title(f"{len(samples)} samples")
    return figure


def _unit(schedule: NoiseSchedule, x: Tensor, t: float) -> Tensor:
    """x / sqrt(s^2 (1 + sigma^2)), the state in units in which it has about the same size at all times."""
    size = schedule.scale(t) * (1 + schedule.sigma(t).square()).sqrt()
    return x / broadcast_to(size, x)


def _shade(axes: Axes, density: np.ndarray, reach: float) -> None:
    """A density (n, n) in shades of blue on [-reach, reach]^2."""
    axes.imshow(
        density,
        origin="lower",
        extent=(-reach, reach, -reach, reach),
        cmap="Blues",
        vmin=0,
        vmax=1.5 * max(density.max(), 1e-9),
        interpolation="bilinear",
    )
    axes.set(xlim=(-reach, reach), ylim=(-reach, reach), xticks=[-1, 0, 1], yticks=[-1, 0, 1], aspect="equal")
    axes.grid(False)


def _scatter(axes: Axes, points: np.ndarray, density: np.ndarray, reach: float) -> None:
    """Points (n, 2), coloured by the nearest component, over a density."""
    _shade(axes, density, reach)
    colours = COLOURS[ISLANDS.nearest(torch.from_numpy(points)).numpy()]
    axes.scatter(points[:, 0], points[:, 1], s=3, c=colours, alpha=0.6, linewidths=0)

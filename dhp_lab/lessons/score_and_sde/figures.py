"""The lesson's figures: vector fields, points, paths through time, errors against steps; the explorer.

`sampler_picture` is the explorer's pure render: two samplers on the mixture of `mixture.py`, where every
sampler gets the exact denoiser. Points are drawn as z = x / sqrt(s^2 (1 + sigma^2)), of about unit size at
every time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
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
from dhp_lab.notebook.style import BLUE, CHART_DPI, GREEN, GREY, ORANGE, SKY, pixel_figure, style

SIZE = (806, 432)  # of the explorer's picture, in pixels
REACH = 1.6  # the plane is drawn from -REACH to REACH
PLANE = 2.4  # and the explorer's, which holds the noise too, from -PLANE to PLANE
COLOURS = np.array([BLUE, ORANGE, GREEN])  # of the mixture's components
LOOKS = ((BLUE, "o"), (ORANGE, "s"), (GREEN, "D"), (SKY, "^"))  # of the curves
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
PATHS = 3  # in each of the explorer's panels


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


def order(steps: Sequence[float], errors: Sequence[float], points: int = 3) -> float:
    """The order of a solver: minus the slope of log(error) over log(steps), fitted to the last points.

    Args:
        steps, errors: (n,), above 0.
        points: how many of the last ones are used, 2 or more.
    """
    x, y = (np.log(np.asarray(values[-points:], dtype=float)) for values in (steps, errors))
    return -float(np.polyfit(x, y, 1)[0])


def convergence_figure(
    panels: Mapping[str, Mapping[str, tuple[Sequence[float], Sequence[float]]]], ylabel: str
) -> Figure:
    """Errors against numbers of steps on logarithmic axes, the order of each curve in the legend.

    Args:
        panels: by title up to four curves by name, each of steps (n,) and errors (n,), n >= 2.
        ylabel: what is measured.
    """
    with style():
        figure = Figure(figsize=(4.8 * len(panels), 4.0), dpi=CHART_DPI, layout="constrained")
        row = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
        for axes, (title, curves) in zip(row, panels.items(), strict=True):
            for (name, (steps, errors)), (colour, marker) in zip(curves.items(), LOOKS, strict=False):
                label = f"{name}: order {order(steps, errors):.1f}"
                axes.loglog(steps, errors, marker=marker, color=colour, label=label)
            _draw_slopes(axes, steps, max(errors[0] for _, errors in curves.values()))
            axes.set_xticks(steps, [f"{count:g}" for count in steps])
            axes.xaxis.set_minor_locator(NullLocator())
            axes.set(title=title, xlabel="steps")
            axes.legend(loc="lower left", fontsize=9)
        row[0].set_ylabel(ylabel)
    return figure


def _draw_slopes(axes: Axes, steps: Sequence[float], top: float) -> None:
    """Dotted lines of the slopes -1 and -2 through the upper left corner."""
    ends = np.array([steps[0], steps[-1]], dtype=float)
    for slope in (1, 2):
        axes.loglog(ends, 1.5 * top * (ends / ends[0]) ** -slope, ":", color=GREY, linewidth=1.2)
        place = ends[0] ** 0.3 * ends[1] ** 0.7
        height = 1.5 * top * (place / ends[0]) ** -slope
        axes.annotate(
            f"slope −{slope}", (place, height), (4, 3), textcoords="offset points", color=GREY, fontsize=9
        )


def sampler_picture(
    *, sampler: str, beside: str, schedule: str, steps: int, snr: float = 0.16, points: int = 1000
) -> Rendered:
    """Two samplers from the same noise: the paths of a few points, the samples, and how they are spread.

    Args:
        sampler, beside: names in SAMPLERS, of the left and the right one.
        schedule: a name in SCHEDULES.
        steps: 1 .. 1000.
        snr: above 0, of the corrector; no other sampler uses it.
        points: how many samples are drawn, PATHS or more.
    """
    panels, rows, spoken = {}, [], []
    for name in (sampler, beside):
        paths, evaluations = _paths(name, SCHEDULES[schedule], steps, snr, points)  # (points, n, 2)
        samples = paths[:, -1]
        shares = [f"{share:.1%}" for share in ISLANDS.shares(samples)]
        rows.append([name, *shares, f"{ISLANDS.width(samples):.2f}", evaluations])
        spoken.append(f"{name} puts {', '.join(shares)} of {points} samples on the three islands")
        panels[f"{name}, {steps} steps" + " " * len(panels)] = paths
    rows.append(["the data", *(f"{weight:.1%}" for weight in ISLANDS.weights), "1.00", ""])
    header = ["", "blue island", "orange island", "green island", "width", "network evaluations"]
    alt = f"{schedule}, {steps} steps, {PATHS} paths and the samples of each: {'; '.join(spoken)}"
    return Rendered(picture_bytes(_sampler_figure(panels)), alt, table_html(rows, header).text)


def _paths(sampler: str, schedule: NoiseSchedule, steps: int, snr: float, points: int) -> tuple[Tensor, int]:
    """The states (points, n, 2) of z from T to 0, and the number of evaluations of the denoiser."""
    generator = torch.Generator().manual_seed(0)
    denoiser, times = ISLANDS.denoiser(schedule), []

    def counted(x: Tensor, t: Tensor) -> Tensor:
        times.append(t)
        return denoiser(x, t)

    x_T = start(schedule, (points, 2), generator=generator)
    options = {}
    if sampler in RANDOM:
        options["generator"] = generator
    if sampler == CORRECTED:
        options["snr"] = snr
    states = [State(schedule.steps, x_T, x_T)]
    states += SAMPLERS[sampler](counted, schedule, x_T, count=steps, **options)
    return torch.stack([_unit(schedule, state.x, state.t) for state in states], 1), len(times)


def _sampler_figure(panels: Mapping[str, Tensor]) -> Figure:
    """A panel for each sampler: its samples, and the paths of the first PATHS points (points, n, 2)."""
    density = ISLANDS.log_density(plane(120, PLANE)).exp().view(120, 120).numpy()
    with style():
        figure = pixel_figure(*SIZE, layout="constrained")
        for axes, (title, paths) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
            _scatter(axes, paths[:, -1].numpy(), density, PLANE, alpha=0.25)
            for path, component in zip(paths.numpy(), ISLANDS.nearest(paths[:PATHS, -1]), strict=False):
                colour = COLOURS[component]
                axes.plot(path[:, 0], path[:, 1], ".-", color=colour, linewidth=1.1, markersize=3.5)
                axes.plot(*path[0], "o", color=GREY, markersize=6)
                axes.plot(*path[-1], "o", color=colour, markersize=8, markeredgecolor="white")
            axes.set_title(title)
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


def _scatter(axes: Axes, points: np.ndarray, density: np.ndarray, reach: float, alpha: float = 0.6) -> None:
    """Points (n, 2), coloured by the nearest component, over a density."""
    _shade(axes, density, reach)
    colours = COLOURS[ISLANDS.nearest(torch.from_numpy(points)).numpy()]
    axes.scatter(points[:, 0], points[:, 1], s=3, c=colours, alpha=alpha, linewidths=0)

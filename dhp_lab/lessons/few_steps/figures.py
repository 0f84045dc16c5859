"""The lesson's figures: curves, noise levels, paths on a line and in the plane, points; the explorer.

`few_steps_picture` is the explorer's pure render: one of the methods of `methods.py` on the islands, by the
four networks that come with the kit.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator
from torch import Tensor

from dhp_lab.core.paths import RESULTS
from dhp_lab.diffusion.mixture import ISLANDS
from dhp_lab.lessons.few_steps.methods import CONSISTENCY, Drawn, distances, draw, reference
from dhp_lab.notebook.html import Html, Rendered, picture_bytes, table_html
from dhp_lab.notebook.results import read_results, source_html
from dhp_lab.notebook.style import (
    AMBER,
    BLUE,
    CHART_DPI,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    pixel_figure,
    style,
)
from dhp_lab.training.islands import SIGMA_DATA, IslandModels, load_islands

SIZE = (806, 432)  # of the explorer's picture, in pixels
REACH = 1.6  # the plane is drawn from -REACH to REACH
POINTS = 1000  # that the explorer draws
PATHS = 24  # of them with their paths
COLOURS = (BLUE, ORANGE, GREEN, PURPLE, AMBER)
MARKERS = "osD^v"
FEW_STEPS, DIGIT_FLOW = RESULTS / "few_steps.json", RESULTS / "digit_flow.json"

Curves = Mapping[str, tuple[np.ndarray, np.ndarray]]


def curves_figure(
    panels: Mapping[str, Curves], *, xlabel: str, ylabel: str, log: str = "xy", steps: bool = False
) -> Figure:
    """Curves side by side.

    Args:
        panels: by title up to five curves by name, each of x (n,) and y (n,).
        log: the axes that are logarithmic, such as "xy", "x" or "".
        steps: whether x counts steps: each is marked and written out.
    """
    with style():
        width = min(4.6, 10.0 / len(panels))
        figure = Figure(figsize=(width * len(panels), 3.4), dpi=CHART_DPI, layout="constrained")
        row = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
        for axes, (title, curves) in zip(row, panels.items(), strict=True):
            looks = zip(COLOURS, MARKERS, strict=True)
            for (name, (x, y)), (colour, marker) in zip(curves.items(), looks, strict=False):
                axes.plot(x, y, color=colour, label=name, marker=marker if steps else None, markersize=5)
            axes.set_xscale("log" if "x" in log else "linear")
            axes.set_yscale("log" if "y" in log else "linear")
            if steps:
                ticks = sorted({int(count) for x, _ in curves.values() for count in x})
                axes.set_xticks(ticks, [f"{count:g}" for count in ticks])
                axes.xaxis.set_minor_locator(NullLocator())
            axes.set(title=title, xlabel=xlabel)
            axes.legend(fontsize=9)
        row[0].set_ylabel(ylabel)
    return figure


def levels_figure(levels: Mapping[str, Tensor]) -> Figure:
    """Noise levels on a logarithmic axis, a row for each spacing; levels of 0 are not drawn.

    Args:
        levels: by name, (n,) each.
    """
    with style():
        figure = Figure(figsize=(8.4, 0.5 * len(levels) + 0.9), dpi=CHART_DPI, layout="constrained")
        axes = figure.subplots()
        for row, sigmas in enumerate(levels.values()):
            seen = sigmas[sigmas > 0].numpy()
            axes.semilogx(seen, np.full(len(seen), row), "o", color=COLOURS[row % len(COLOURS)], markersize=7)
        axes.set_yticks(range(len(levels)), list(levels))
        axes.set(xlabel="noise level σ", ylim=(len(levels) - 0.4, -0.6))
        axes.grid(axis="y")
    return figure


def line_paths_figure(
    panels: Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]], xlabel: str
) -> Figure:
    """Particles on a line: their paths from noise (left) to data (right), over the density of the states.

    Args:
        panels: by title the times (m,) falling, the grid (n,), the density (n, m) and the paths (p, m).
        xlabel: of the times.
    """
    with style():
        figure = Figure(figsize=(3.3 * len(panels), 3.4), dpi=CHART_DPI, layout="constrained")
        row = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
        for axes, (title, (times, grid, density, paths)) in zip(row, panels.items(), strict=True):
            each = density / density.max(axis=0, keepdims=True)  # each time by itself
            axes.pcolormesh(times, grid, each, cmap="Blues", vmax=1.6, shading="nearest", rasterized=True)
            ends = paths[:, -1]
            for path, end in zip(paths, ends, strict=True):
                colour = ORANGE if end > 0 else GREEN
                axes.plot(times, path, color=colour, linewidth=0.9, alpha=0.85)
            axes.set(title=title, xlabel=xlabel, ylim=(grid[0], grid[-1]), xlim=(times[0], times[-1]))
            axes.grid(False)
        row[0].set_ylabel("state")
    return figure


def points_figure(panels: Mapping[str, Tensor], *, paths: Mapping[str, Tensor] | None = None) -> Figure:
    """Clouds of points over the islands' density, coloured by the nearest island; perhaps with their paths.

    Args:
        panels: points (n, 2) by title, up to five.
        paths: by the same titles (m, p, 2) states of p points.
    """
    with style():
        figure = Figure(
            figsize=(11.0 / max(len(panels), 3) * len(panels), 3.5), dpi=110, layout="constrained"
        )
        row = figure.subplots(1, len(panels), squeeze=False)[0]
        for axes, (title, points) in zip(row, panels.items(), strict=True):
            _scatter(axes, points)
            if paths is not None:
                _lines(axes, paths[title])
            axes.set_title(title, fontsize=10)
    return figure


def cost_table(*, steps: tuple[int, ...] = (1, 4, 16), file: Path = FEW_STEPS) -> Html:
    """What benchmarks/few_steps.py has measured, at these numbers of steps, with its command.

    Args:
        file: the JSON that the benchmark has written.
    """
    found = read_results(file)
    rows = [
        [f"{row['method']}, {row['spacing']}", row["steps"], row["evaluations"], *map(_interval, _pair(row))]
        for row in found["rows"]
        if row["steps"] in steps
    ]
    rows.append(["reference solution (the exact denoiser)", "", "", "0", _interval(found["exact"])])
    rows.append(["other points of the data", "", "", "", _interval(found["data"])])
    header = ["method and spacing", "steps", "NFE", "from the reference", "from the data"]
    facts = f"{found['points']} points, {found['seeds']} seeds, 95 % intervals"
    return Html(f"<div>{table_html(rows, header).text}<p>{source_html(found)}; {facts}</p></div>")


def digit_table(*, file: Path = DIGIT_FLOW) -> Html:
    """What benchmarks/digit_flow.py has measured, with its command."""
    found = read_results(file)
    names = ("frechet_distance", "precision", "recall")
    rows = [
        [f"{row['method']}, {row['spacing']}", row["steps"], *(_interval(row[name], 2) for name in names)]
        for row in found["rows"]
    ]
    rows.append(["real digits (the test set)", "", f"{found['real']:.2f}", "", ""])
    header = ["method and spacing", "NFE", "Fréchet distance", "precision", "recall"]
    facts = f"{found['samples']} digits, {found['seeds']} seeds, 95 % intervals"
    return Html(f"<div>{table_html(rows, header).text}<p>{source_html(found)}; {facts}</p></div>")


def few_steps_picture(*, method: str, spacing: str, steps: int) -> Rendered:
    """Paths and samples of one method, and their distances from the reference solution and the data.

    Args:
        method, spacing: one of METHODS and SPACINGS.
        steps: 1 or more.
    """
    eps = torch.randn(POINTS, 2, generator=torch.Generator().manual_seed(7))
    with torch.no_grad():
        drawn = draw(shipped(), method, spacing, steps, eps)
    found = distances(drawn.samples, _goal())
    rows = [
        [method, drawn.evaluations, f"{found.path:.3f}", f"{found.cloud:.3f}"],
        ["reference solution", "", "0", f"{distances(_goal(), _goal()).cloud:.3f}"],
    ]
    header = ["", "network evaluations", "distance from the reference, RMS", "distance from the data, SW"]
    note = "" if method != CONSISTENCY or steps == 1 else "<p>After the first jump noise is added again.</p>"
    alt = (
        f"{method}, {spacing}, {steps} steps: {POINTS} samples, {found.path:.2f} from the reference solution "
        f"and {found.cloud:.2f} from the data"
    )
    return Rendered(picture_bytes(_explorer_figure(drawn, steps)), alt, table_html(rows, header).text + note)


@lru_cache(maxsize=1)
def shipped() -> IslandModels:
    """The networks that come with the kit, read once."""
    return load_islands()


@lru_cache(maxsize=1)
def _goal() -> Tensor:
    """The reference solution of the explorer's noise."""
    return reference(torch.randn(POINTS, 2, generator=torch.Generator().manual_seed(7)))


def unit(path: Tensor, levels: Tensor) -> Tensor:
    """States (n, B, 2) as u / sqrt(1 + (sigma / sigma_data)^2): of one size at all noise levels (n,)."""
    return path / (1 + (levels.to(path) / SIGMA_DATA).square()).sqrt()[:, None, None]


def _explorer_figure(drawn: Drawn, steps: int) -> Figure:
    """The paths of some points, and all samples."""
    with style():
        figure = pixel_figure(*SIZE, layout="constrained")
        left, right = figure.subplots(1, 2)
        _shade(left)
        _lines(left, unit(drawn.path, drawn.levels)[:, :PATHS])
        left.set_title(f"{PATHS} paths in {steps} steps, from grey to colour", fontsize=10)
        _scatter(right, drawn.samples)
        right.set_title(f"{len(drawn.samples)} samples", fontsize=10)
    return figure


def _lines(axes: Axes, paths: Tensor) -> None:
    """Paths (m, p, 2), coloured by the island nearest to their ends."""
    for path, island in zip(paths.transpose(0, 1).numpy(), ISLANDS.nearest(paths[-1]), strict=True):
        colour = COLOURS[island]
        axes.plot(path[:, 0], path[:, 1], "-", color=colour, linewidth=0.9, alpha=0.8)
        axes.plot(*path[0], "o", color=GREY, markersize=3)
        axes.plot(*path[-1], "o", color=colour, markersize=5, markeredgecolor="white")


def _scatter(axes: Axes, points: Tensor) -> None:
    """Points (n, 2) in the colour of the nearest island."""
    _shade(axes)
    colours = np.array(COLOURS)[ISLANDS.nearest(points).numpy()]
    axes.scatter(*points.numpy().T, s=3, c=colours, alpha=0.6, linewidths=0)


def _shade(axes: Axes) -> None:
    """The islands' density in shades of blue."""
    density = _density()
    axes.imshow(
        density,
        origin="lower",
        extent=(-REACH, REACH, -REACH, REACH),
        cmap="Blues",
        vmin=0,
        vmax=1.5 * density.max(),
        interpolation="bilinear",
    )
    ticks = [-1, 0, 1]
    axes.set(xlim=(-REACH, REACH), ylim=(-REACH, REACH), xticks=ticks, yticks=ticks, aspect="equal")
    axes.grid(False)


@lru_cache(maxsize=1)
def _density() -> np.ndarray:
    line = torch.linspace(-REACH, REACH, 120)
    y, x = torch.meshgrid(line, line, indexing="ij")
    points = torch.stack([x.flatten(), y.flatten()], 1)
    return ISLANDS.log_density(points).exp().view(120, 120).numpy()


def _pair(row: dict) -> tuple[dict, dict]:
    return row["path"], row["cloud"]


def _interval(found: dict, digits: int = 3) -> str:
    """A mean with its interval."""
    half = "" if found["half"] is None else f" ± {found['half']:.{digits}f}"
    return f"{found['mean']:.{digits}f}{half}"

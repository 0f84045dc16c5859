"""Lesson 06: figures of the order in which latents are coded, and of the bins that they are rounded in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from dhp_lab.notebook.style import BLUE, CHART_DPI, GREY, ORANGE, SKY, style

SHADES = "#dbe9f4", "#a9cce6", "#fbe3d3", "#f2b892"  # of the passes; letters on them stay readable
REACH = 3.2  # steps to either side of a mean that the picture of bins shows


def order_figure(order: Sequence[np.ndarray], channels: Mapping[str, int]) -> Figure:
    """Which pass sends the latents of some channels, by name.

    Args:
        order: for each pass the latents that it sends, bool (M, rows, cols).
    """
    with style():
        figure = Figure(figsize=(2.7 * len(channels), 2.9), dpi=CHART_DPI, layout="constrained")
        for axes, (name, channel) in zip(
            figure.subplots(1, len(channels), squeeze=False)[0], channels.items()
        ):
            passes = np.argmax([places[channel] for places in order], 0)  # (rows, cols)
            for (row, col), number in np.ndenumerate(passes):
                axes.fill_between([col, col + 1], -row, -row - 1, color=SHADES[number], edgecolor="white")
                axes.text(col + 0.5, -row - 0.5, str(number + 1), ha="center", va="center")
            axes.set(title=name, aspect="equal", xlim=(0, passes.shape[1]), ylim=(-passes.shape[0], 0))
            axes.set_axis_off()
    return figure


def bins_figure(
    widths: Mapping[float, float], files: Mapping[str, Sequence[tuple[int, float]]], zones: Sequence[float]
) -> Figure:
    """Left: normal densities and the bins that they are rounded in, for each scale the width, both in steps.
    Right: bytes and PSNR of files by name; those of the last name are labelled with their dead zones."""
    edges, whole = np.arange(-3, 3) + 0.5, np.arange(-3, 4)
    at = np.linspace(-REACH, REACH, 321)
    with style():
        figure = Figure(figsize=(10.8, 3.6), dpi=CHART_DPI, layout="constrained")
        left, right = figure.subplots(1, 2)
        for row, (scale, width) in enumerate(widths.items()):
            left.fill_between(
                at, -row, 0.8 * np.exp(-((at / scale) ** 2) / 2) - row, color=SKY, alpha=0.4, linewidth=0
            )
            left.vlines(edges, -row, 0.8 - row, color=GREY, linestyle=":", linewidth=1.2)
            left.vlines(width * edges, -row, 0.8 - row, color=ORANGE)
            left.plot(whole, np.full(7, -row), "o", color=BLUE, markersize=4, clip_on=False)
        left.set(
            title="Bins: with a dead zone of 1, and plain (dotted)",
            xlabel="y without its mean, in steps; points: decoded as",
        )
        left.set(
            xlim=(-REACH, REACH),
            yticks=0.35 - np.arange(len(widths)),
            yticklabels=[f"scale {scale:g}" for scale in widths],
        )
        left.grid(visible=False)
        left.tick_params(axis="y", length=0)
        left.spines["left"].set_visible(False)
        for (name, points), colour, line in zip(files.items(), (GREY, ORANGE), ("o--", "o-")):
            right.plot(*zip(*points), line, color=colour, markersize=4, label=name)
        for zone, point in zip(zones, points):
            right.annotate(
                f"{zone:g}", point, xytext=(-4, 6), textcoords="offset points", ha="right", color=ORANGE
            )
        right.set(title="Two ways to save bytes", xlabel="bytes of the file", ylabel="PSNR, dB")
        right.legend(loc="lower right")
    return figure

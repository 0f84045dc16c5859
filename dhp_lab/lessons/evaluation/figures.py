"""The lesson's figures: rate-distortion curves, BD-rate drawn, and what the encoder's effort saves.

| function           | what it gives                                                                  |
|--------------------|--------------------------------------------------------------------------------|
| `curves_figure`    | rate-distortion curves, a panel for each set                                   |
| `savings`          | bits more or less at each quality: what BD-rate is the mean of                 |
| `savings_figure`   | two curves with what lies between them, and the savings against the quality    |
| `effort_figure`    | bits saved against the encoder's seconds                                       |

The tables of what benchmarks have measured are in ``benchmark_tables``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import cycle, islice

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter, LogLocator, NullLocator
from scipy.interpolate import PchipInterpolator

from dhp_lab.metrics.rd_curves import Curve
from dhp_lab.notebook.style import AMBER, BLUE, CHART_DPI, GREEN, GREY, ORANGE, PURPLE, SKY, style

LOOKS = ((BLUE, "o"), (SKY, "s"), (PURPLE, "^"), (AMBER, "D"), (GREEN, "v"), (GREY, "P"), (ORANGE, "X"))
OURS = ("ours, K = 1", "ours, K = 0")  # have the first looks in every panel


def curves_figure(panels: Mapping[str, Mapping[str, Curve]], *, ylabel: str, widest: float = 2.0) -> Figure:
    """Rate-distortion curves, a panel for each title; names that begin with "ours" are drawn thicker.

    Args:
        panels: (bits per pixel, dB) by title and name.
        ylabel: the quality.
        widest: the largest rate to show.
    """
    with style():
        figure = Figure(figsize=(5.1 * len(panels), 4.1), dpi=CHART_DPI, layout="constrained")
        row = figure.subplots(1, len(panels), squeeze=False)[0]
        for axes, (title, curves) in zip(row, panels.items(), strict=True):
            _draw_curves(axes, curves)
            low, high = _range_of(curves, widest)
            margin = 0.05 * (high - low)
            axes.set(title=title, xlabel="bits per pixel", ylabel=ylabel, xlim=(0, widest))
            axes.set_ylim(low - margin, high + margin)
            axes.legend(loc="lower right", fontsize=8.5)
    return figure


def _draw_curves(axes: Axes, curves: Mapping[str, Curve]) -> None:
    looks = _looks(curves)
    for name, curve in curves.items():
        colour, marker = looks[name]
        width = 2.4 if name.startswith("ours") else 1.3
        axes.plot(*curve, color=colour, marker=marker, markersize=4.5, linewidth=width, label=name)


def _range_of(curves: Mapping[str, Curve], widest: float) -> tuple[float, float]:
    """The least and the greatest quality of the points whose rate is at most ``widest``."""
    points = [point for curve in curves.values() for point in zip(*curve, strict=True)]
    qualities = [quality for rate, quality in points if rate <= widest]
    return min(qualities), max(qualities)


def _looks(names: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Colour and marker by name; those of ``OURS`` are the same in every panel."""
    names = list(names)
    looks = {name: LOOKS[place] for place, name in enumerate(OURS) if name in names}
    free = cycle([look for look in LOOKS if look not in looks.values()])
    return {name: looks[name] if name in looks else next(free) for name in names}


def _log_rate(curve: Curve) -> PchipInterpolator:
    """The logarithm of a curve's rate as a function of its quality (piecewise cubic, as BD-rate has it)."""
    rates, qualities = (np.asarray(part) for part in curve)
    order = np.argsort(qualities)
    return PchipInterpolator(qualities[order], np.log(rates[order]))


def savings(anchor: Curve, test: Curve, count: int = 201) -> tuple[np.ndarray, np.ndarray]:
    """The bits of ``test`` more (+) or less (-) than of ``anchor`` at equal quality.

    Returns:
        (count,) qualities in dB that both curves reach, and (count,) differences in %.
    """
    before, after = _log_rate(anchor), _log_rate(test)
    low, high = max(before.x[0], after.x[0]), min(before.x[-1], after.x[-1])
    at = np.linspace(low, high, count)
    return at, 100 * np.expm1(after(at) - before(at))


def savings_figure(anchors: Mapping[str, Curve], test: Curve, *, name: str) -> Figure:
    """On the left the first anchor and the test curve, and what lies between them; on the right all savings.

    Args:
        anchors: (bits per pixel, dB) by name.
        test: the curve that they are compared with, called ``name``.
    """
    with style():
        figure = Figure(figsize=(10.2, 3.7), dpi=CHART_DPI, layout="constrained")
        left, right = figure.subplots(1, 2)
        first, anchor = next(iter(anchors.items()))
        for label, curve, colour in ((name, test, BLUE), (first, anchor, AMBER)):
            left.semilogx(*curve, "o-", color=colour, label=label, markersize=4.5)
        at, percent = savings(anchor, test)
        rate = np.exp(_log_rate(anchor)(at))
        left.fill_betweenx(at, rate, rate * (1 + percent / 100), color=SKY, alpha=0.35, linewidth=0)
        left.set(title="equal quality, other rates", xlabel="bits per pixel, logarithmic", ylabel="PSNR, dB")
        left.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        left.xaxis.set_major_formatter(FormatStrFormatter("%g"))
        left.xaxis.set_minor_locator(NullLocator())
        left.legend(loc="lower right")
        looks = islice(cycle(LOOKS[3:]), len(anchors))
        for (label, curve), (colour, _) in zip(anchors.items(), looks, strict=True):
            right.plot(*savings(curve, test), color=colour, label=label)
        right.axhline(0, color=GREY, linewidth=1)
        right.set(title=f"bits of {name}, more or less than", xlabel="PSNR, dB", ylabel="%")
        right.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=8.5)
    return figure


def effort_figure(lines: Mapping[str, Sequence[tuple[int, float, float]]]) -> Figure:
    """BD-rate against seconds, with the effort beside each point.

    Args:
        lines: by name, (effort, seconds a picture, BD-rate against effort 0 in %).
    """
    with style():
        figure = Figure(figsize=(5.6, 3.5), dpi=CHART_DPI, layout="constrained")
        axes = figure.add_subplot()
        for (name, points), (colour, marker) in zip(lines.items(), LOOKS, strict=False):
            efforts, seconds, percents = zip(*points, strict=True)
            axes.semilogx(seconds, percents, color=colour, marker=marker, label=name)
            for effort, *place in points:
                axes.annotate(str(effort), place, xytext=(3, 6), textcoords="offset points", fontsize=8.5)
        axes.margins(0.1)
        axes.xaxis.set_major_formatter(FormatStrFormatter("%g"))
        axes.set(
            title="the effort beside each point",
            xlabel="seconds a picture",
            ylabel="BD-rate against effort 0, %",
        )
        axes.legend(loc="best", fontsize=8.5)
    return figure

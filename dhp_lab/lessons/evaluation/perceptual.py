"""Rate against learned perceptual metrics on Kodak: generative codecs as published, and ours where measured.

| function               | what it gives                                                                  |
|------------------------|--------------------------------------------------------------------------------|
| `published_perceptual` | curves of LPIPS, DISTS and PSNR by codec, and their source                     |
| `our_perceptual`       | the same of our codec, from results that hold them                             |
| `perceptual_figure`    | a panel for each measure                                                       |
| `at_rate`              | a curve's value at one rate                                                    |
| `equal_rate_table`     | all measures of all codecs at one rate                                         |

LPIPS is that of AlexNet. Less is better, but for PSNR.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from dhp_lab.core.paths import PERCEPTUAL_ANCHORS
from dhp_lab.evaluation.measurements import Point
from dhp_lab.lessons.evaluation.figures import LOOKS
from dhp_lab.metrics.rd_curves import Curve
from dhp_lab.notebook.html import Html, table_html
from dhp_lab.notebook.results import read_results
from dhp_lab.notebook.style import CHART_DPI, style

MEASURES = {"LPIPS": "lpips", "DISTS": "dists", "PSNR, dB": "psnr"}  # title and name in the files
DIGITS = {"LPIPS": 3, "DISTS": 3, "PSNR, dB": 2}
AS_MANY = 0.02  # bits that differ by less are as many
SHOWN = ("HiFiC", "MS-ILLM", "RDEIC-2", "VTM")  # VTM: made for the error alone
ByMeasure = dict[str, Curve]  # bits per pixel and values, by a title of MEASURES


def published_perceptual(
    names: Sequence[str] = SHOWN, file: Path = PERCEPTUAL_ANCHORS
) -> tuple[dict[str, ByMeasure], str]:
    """Curves of published codecs by name, and where they come from.

    Raises:
        KeyError: a name that the file lacks.
        FileNotFoundError: the package was installed without its data folder.
    """
    found = read_results(file)
    return {name: _curves(found["curves"][name]) for name in names}, f"{found['about']}; {found['source']}"


def our_perceptual(points: Sequence[Point], rows: Sequence[Mapping] = ()) -> dict[str, ByMeasure]:
    """Curves of our codec with LPIPS or DISTS, by "ours, K = 1" and so on; empty where nothing was measured.

    Args:
        points: of `dhp evaluate`.
        rows: of benchmarks/realism.py, without blends; they count for a K that the points lack.
    """
    by_name: dict[str, list[Mapping]] = {}
    for point in points:
        if point.codec.startswith("dhp K=") and _is_measured(vars(point)):
            by_name.setdefault(point.codec.replace("dhp K=", "ours, K = "), []).append(vars(point))
    seen = set(by_name)
    for row in rows:
        name = f"ours, K = {row['K']}"
        if name not in seen and not row["gamma"] and _is_measured(row):
            by_name.setdefault(name, []).append(row)
    return {name: _curves(own) for name, own in by_name.items()}


def _is_measured(row: Mapping) -> bool:
    return any(row.get(name) is not None for name in ("lpips", "dists"))


def _curves(rows: Sequence[Mapping]) -> ByMeasure:
    """The measures that every row has, sorted by rate."""
    rows = sorted(rows, key=lambda row: row["bpp"])
    rates = [row["bpp"] for row in rows]
    return {
        title: (rates, [row[name] for row in rows])
        for title, name in MEASURES.items()
        if all(row.get(name) is not None for row in rows)
    }


def perceptual_figure(curves: Mapping[str, ByMeasure], *, widest: float = 0.5) -> Figure:
    """A panel for each measure against the rate; names that begin with "ours" are drawn thicker.

    Args:
        curves: by name, then by measure.
        widest: the largest rate to show.
    """
    looks = dict(zip(curves, cycle(LOOKS), strict=False))
    with style():
        figure = Figure(figsize=(3.7 * len(MEASURES), 3.6), dpi=CHART_DPI, layout="constrained")
        for axes, title in zip(figure.subplots(1, len(MEASURES)), MEASURES, strict=True):
            for name, by_measure in curves.items():
                if title in by_measure:
                    inside = [pair for pair in zip(*by_measure[title], strict=True) if pair[0] <= widest]
                    colour, marker = looks[name]
                    width = 2.4 if name.startswith("ours") else 1.4
                    axes.plot(
                        *np.array(inside).reshape(-1, 2).T, color=colour, marker=marker, lw=width, label=name
                    )
            better = "more is better" if title.startswith("PSNR") else "less is better"
            axes.set(title=f"{title}: {better}", xlabel="bits per pixel", xlim=(0, widest))
        figure.axes[0].legend(loc="upper right", fontsize=8.5)
    return figure


def at_rate(curve: Curve, bpp: float) -> float | None:
    """The value of a curve at a rate: of a point within 2 % of it, else linear in the logarithm of the rate;
    None outside the curve.
    """
    rates, values = (np.asarray(part, dtype=float) for part in curve)
    nearest = np.abs(np.log(rates / bpp)).argmin()
    if abs(rates[nearest] / bpp - 1) < AS_MANY:
        return float(values[nearest])
    order = np.argsort(rates)
    if not rates.min() <= bpp <= rates.max():
        return None
    return float(np.interp(np.log(bpp), np.log(rates[order]), values[order]))


def equal_rate_table(curves: Mapping[str, ByMeasure], bpp: float) -> Html:
    """All measures of all codecs at one rate; "-" where a curve does not reach it or was not measured."""
    rows = []
    for name, by_measure in curves.items():
        values = [at_rate(by_measure[title], bpp) if title in by_measure else None for title in MEASURES]
        cells = zip(values, MEASURES, strict=True)
        rows.append(
            [name, *("-" if value is None else f"{value:.{DIGITS[title]}f}" for value, title in cells)]
        )
    return table_html(rows, [f"at {bpp:g} bits per pixel", *MEASURES])

"""The lesson's figures and measured tables.

| function           | what it gives                                                                         |
|--------------------|---------------------------------------------------------------------------------------|
| `versions_figure`  | pictures in rows, enlarged                                                            |
| `equal_psnr_table` | what five versions of one PSNR measure by the real networks, from the results         |
| `sets_table`       | the same of sets of crops, from the results                                           |
| `strength_figure`  | each measure of a pair over the strength of a distortion                              |
| `size_figure`      | Fréchet and kernel distance of equal sets over the number of features                 |
| `manifold_figure`  | two sets of points, and the balls whose union is the manifold of one                  |
| `plane_figure`     | decoders in the perception-distortion plane, and the bound                            |
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from scipy import stats
from torch import Tensor

from dhp_lab.core.paths import RESULTS
from dhp_lab.data.images import to_pixels
from dhp_lab.lessons.measuring_pictures.distortions import setting
from dhp_lab.lessons.measuring_pictures.plane import bound
from dhp_lab.metrics.feature_distances import distances
from dhp_lab.notebook.html import Html, table_html
from dhp_lab.notebook.results import read_results, source_html
from dhp_lab.notebook.style import (
    AMBER,
    BLUE,
    CHART_DPI,
    GAP,
    GREEN,
    GREY,
    LINE,
    ORANGE,
    enlarged,
    pixel_figure,
    place_picture,
    place_title,
    style,
)

FILE = RESULTS / "picture_measures.json"
MEASURES = {  # field of the results: name, digits, which way is better
    "psnr": ("PSNR, dB", 1, "more"),
    "ms_ssim": ("MS-SSIM", 3, "more"),
    "texture": ("texture", 2, "1"),
    "lpips": ("LPIPS", 3, "less"),
    "dists": ("DISTS", 3, "less"),
}
Curves = Mapping[str, Mapping[str, tuple[float, float]]]


@lru_cache(maxsize=1)
def measured() -> dict:
    """What benchmarks/picture_measures.py has measured.

    Raises:
        FileNotFoundError: it has not run.
    """
    return read_results(FILE)


def versions_figure(pictures: Mapping[str, Tensor], *, columns: int = 3, zoom: int = 2) -> Figure:
    """Pictures (1, 3, H, W) of one size in rows, each pixel as zoom x zoom dots, with titles above them.

    Raises:
        ValueError: no picture, or pictures of several sizes.
    """
    shapes = {tuple(x.shape) for x in pictures.values()}
    if len(shapes) != 1:
        raise ValueError(f"pictures of one size are needed, got {shapes or 'none'}")
    height, width = (zoom * side for side in shapes.pop()[2:])
    above = 10 + LINE * max(title.count("\n") + 1 for title in pictures)
    rows = -(-len(pictures) // columns)
    figure = pixel_figure(columns * (width + GAP) - GAP, rows * (above + height))
    for number, (title, x) in enumerate(pictures.items()):
        left, top = number % columns * (width + GAP), number // columns * (above + height) + above
        place_picture(figure, enlarged(to_pixels(x), zoom), left, top)
        place_title(figure, title, left, top - 7)
    return figure


def named(row: Mapping) -> str:
    """A distortion and its strength, from a row of the results."""
    return f"{row['distortion']}, {setting(row['strength'], row['unit'])}" if row["unit"] else "nothing"


def equal_psnr_table(file: Path = FILE) -> Html:
    """Five versions of one photo with one PSNR, by all measures of pairs; with the command.

    Raises:
        FileNotFoundError: it was not measured.
    """
    found = read_results(file)
    rows = [
        [named(row), *(f"{row[field]:.{digits}f}" for field, (_, digits, _) in MEASURES.items())]
        for row in found["equal_psnr"]
    ]
    header = [found["photos"][0], *(name for name, _, _ in MEASURES.values())]
    return Html(f"<div>{table_html(rows, header).text}<p>{source_html(found)}</p></div>")


def sets_table(file: Path = FILE) -> Html:
    """Sets of crops beside other, distorted ones, with PSNR and DISTS of the pairs; with the command.

    Raises:
        FileNotFoundError: it was not measured.
    """
    found = read_results(file)
    t = stats.t.ppf(0.975, found["blocks"] - 1)  # Student's, for a mean over so many blocks
    pairs = {(row["distortion"], row["strength"]): row["photos"].values() for row in found["rows"]}
    rows = []
    for row in found["sets"]:
        own = pairs.get((row["distortion"], row["strength"]), ())
        means = [
            f"{fmean(one[field] for one in own):.{MEASURES[field][1]}f}" if own else ""
            for field in ("psnr", "dists")
        ]
        kid = f"{row['kid']:.2f} ± {t * row['kid_error']:.2f}"
        rows.append(
            [named(row), *means, f"{row['fid']:.0f}", kid, f"{row['precision']:.2f}", f"{row['recall']:.2f}"]
        )
    header = [f"{found['crops']} crops each", "PSNR, dB", "DISTS", "FID", "KID, 95 %", "precision", "recall"]
    return Html(f"<div>{table_html(rows, header).text}<p>{source_html(found)}</p></div>")


def strength_figure(name: str, *, file: Path = FILE) -> Figure:
    """Each measure of a pair over the six strengths of a distortion: every photo, and their mean.

    Args:
        name: of the distortion.
    """
    found = read_results(file)
    with style():
        figure = Figure(figsize=(9.6, 2.3), dpi=CHART_DPI, layout="constrained")
        axes = figure.subplots(1, len(MEASURES))
        for one, field in zip(axes, MEASURES, strict=True):
            draw_measure(one, found, name, field)
    return figure


def draw_measure(
    axes: Axes, found: Mapping, name: str, field: str, *, photo: str = "", strength: int = 0
) -> None:
    """One measure over the strengths: grey lines for photos, blue for their mean, or for one of them with a
    mark at a strength (1 .. 6).
    """
    rows = [row for row in found["rows"] if row["distortion"] == name]
    at = range(1, len(rows) + 1)
    values = {one: [row["photos"][one][field] for row in rows] for one in found["photos"]}
    for one in values.values():
        axes.plot(at, one, color=GREY, linewidth=0.8, alpha=0.6)
    shown = values[photo] if photo else [fmean(column) for column in zip(*values.values(), strict=True)]
    axes.plot(at, shown, "o-", color=BLUE, markersize=3)
    if strength:
        axes.plot(strength, shown[strength - 1], "o", color=ORANGE, markersize=9)
    label, _, better = MEASURES[field]
    axes.set_title(f"{label}\n(better: {better})", fontsize=9)
    numbers = [f"{row['strength']:g}" for row in rows]
    axes.set_xticks(list(at), numbers, fontsize=7, rotation=45)
    axes.tick_params("y", labelsize=8)
    axes.set_xlabel(rows[0]["unit"], fontsize=8)


def size_figure(
    panels: Mapping[str, Sequence[tuple[int, float, float]]], theory: Mapping[str, np.ndarray] | None = None
) -> Figure:
    """Distances of two sets of one distribution over the number of features in each: 0 is right.

    Args:
        panels: (N, mean, standard deviation) by the panel's title.
        theory: values at the same N by title, drawn as a dashed line.
    """
    with style():
        figure = Figure(figsize=(4.6 * len(panels), 3.2), dpi=CHART_DPI, layout="constrained")
        axes = figure.subplots(1, len(panels), squeeze=False)[0]
        for one, (title, rows) in zip(axes, panels.items(), strict=True):
            counts, means, deviations = np.array(rows, float).T
            one.errorbar(
                counts, means, deviations, fmt="o-", color=BLUE, capsize=3, label="measured, ± 1 s.d."
            )
            if theory and title in theory:
                one.plot(counts, theory[title], "--", color=ORANGE, label="predicted")
            one.axhline(0, color=GREY, linewidth=1)
            one.set(title=title, xscale="log", xlabel="features in each set, N")
            one.set_xticks(counts, [f"{count:g}" for count in counts])
            one.minorticks_off()
            one.legend(fontsize=8)
    return figure


def manifold_figure(real: Tensor, samples: Tensor, *, neighbours: int = 3) -> Figure:
    """Two sets of points (N, 2): left the balls around the real ones, right those around the samples."""
    with style():
        figure = Figure(figsize=(9.0, 4.3), dpi=CHART_DPI, layout="constrained")
        titles = ("precision: samples among the real ones", "recall: real ones among the samples")
        for axes, title, members, points, colours in zip(
            figure.subplots(1, 2, sharex=True, sharey=True),
            titles,
            (real, samples),
            (samples, real),
            ((GREY, BLUE), (AMBER, GREY)),
            strict=True,
        ):
            radii = distances(members, members).kthvalue(neighbours + 1, dim=1).values
            inside = (distances(points, members) <= radii).any(1)
            for centre, radius in zip(members.tolist(), radii.tolist(), strict=True):
                axes.add_patch(Circle(centre, radius, color=colours[0], alpha=0.12, linewidth=0))
            axes.scatter(
                *points[inside].T, s=14, color=colours[1], label=f"inside: {inside.float().mean():.0%}"
            )
            axes.scatter(*points[~inside].T, s=26, marker="x", color=ORANGE, label="outside")
            axes.set(title=title, aspect="equal")
            axes.legend(fontsize=8, loc="upper left")
    return figure


def plane_figure(
    panels: Mapping[str, tuple[Tensor, Tensor]], decoders: Mapping[str, Curves | Mapping]
) -> Figure:
    """Decoders in the perception-distortion plane, one panel for each prior.

    Args:
        panels: the bound by the panel's title: distortions and perception indices, (n,) each.
        decoders: by the panel's title: (distortion, perception index) by K, by the decoder's name.
    """
    with style():
        figure = Figure(figsize=(4.8 * len(panels), 3.9), dpi=CHART_DPI, layout="constrained")
        axes = figure.subplots(1, len(panels), squeeze=False)[0]
        for one, (title, (distortion, perception)) in zip(axes, panels.items(), strict=True):
            one.fill_betweenx(perception, 0, distortion, color=GREY, alpha=0.15, linewidth=0)
            one.plot(distortion, perception, color=GREY, label="bound; nothing lies left of it")
            for (name, points), colour, sign in zip(
                decoders[title].items(), (BLUE, ORANGE, GREEN), "osD", strict=False
            ):
                across, up = np.array(list(points.values())).T
                one.plot(across, up, sign, color=colour, markersize=6, label=name)
                for label, x, y in zip(points, across, up, strict=True):
                    one.annotate(label, (x, y), (5, 4), textcoords="offset points", fontsize=7.5)
            low, high = (
                distortion.min().item(),
                max(x for points in decoders[title].values() for x, _ in points.values()),
            )
            one.set(title=title, xlabel="distortion D: mean squared error", xlim=(0.9 * low, 1.12 * high))
            one.set(
                ylabel="perception index P: W2 to the prior", ylim=(-0.01, 1.15 * perception.max().item())
            )
            one.legend(fontsize=8)
    return figure


def bound_of(mmse: float, distance: float) -> tuple[Tensor, Tensor]:
    """The bound's distortions and perception indices, (101,) each, from D* and W* of the posterior mean."""
    perception = torch.linspace(0, distance, 101)
    return bound(perception, mmse, distance), perception

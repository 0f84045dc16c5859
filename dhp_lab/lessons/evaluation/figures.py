"""Lesson 08, evaluation: rate-distortion curves, BD-rate drawn, steps and gamma as a trade, measured speed.

| function or class  | what it gives                                                                       |
|--------------------|-------------------------------------------------------------------------------------|
| `codec_curves`     | curves by metric and codec, from an evaluation's points                             |
| `kodak_results`    | what `dhp evaluate` has found on Kodak: points, measurements, and the run           |
| `curves_figure`    | rate-distortion curves, a panel for each set                                        |
| `savings`          | bits more or less at each quality: what BD-rate is the mean of                      |
| `savings_figure`   | two curves with what lies between them, and the savings against the quality         |
| `lines_figure`     | measures against one number, such as K                                              |
| `trade_figure`     | PSNR against texture along gamma                                                    |
| `measured_speed`   | seconds and memory as benchmarks/codec_speed.py has found them                      |
| `measured_trade`   | what K changes, as benchmarks/realism.py has found it over many photos              |
| `measured_gammas`  | what gamma changes, likewise                                                        |
| `measured_z_only`  | z alone beside z + y, as benchmarks/z_only.py has found them                        |
"""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import cycle
from pathlib import Path
from statistics import median

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter, LogLocator, NullLocator
from scipy.interpolate import PchipInterpolator

from dhp_lab.core.paths import RESULTS
from dhp_lab.evaluation.measurements import Measurement, Point
from dhp_lab.evaluation.report import curves_of
from dhp_lab.metrics.rd_curves import Curve
from dhp_lab.notebook.html import Html, figure_html, table_html
from dhp_lab.notebook.style import (
    AMBER,
    BLUE,
    CHART_DPI,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    SKY,
    style,
)

LOOKS = ((BLUE, "o"), (SKY, "s"), (PURPLE, "^"), (AMBER, "D"), (GREEN, "v"), (GREY, "P"), (ORANGE, "X"))
TRADE_COLUMNS = {
    "bpp": ("bpp", 3),
    "psnr": ("PSNR, dB", 2),
    "ms_ssim": ("MS-SSIM", 4),
    "texture": ("texture", 2),
    "lpips": ("LPIPS", 3),
    "dists": ("DISTS", 3),
    "fid": ("FID", 1),
    "kid": ("KID, 1000 times", 2),
}
WAYS = {"z": "z alone", "z+y": "z + y, as many bytes", "shrunk": "z + y of a shrunk photo"}
USUAL_STEPS = 8  # of those K whose gammas are drawn, the nearest


def codec_curves(points: Sequence[Point]) -> dict[str, dict[str, Curve]]:
    """Curves by metric ("PSNR", "MS-SSIM", both in dB), then by codec; our codec is called "ours, K = 1"."""
    found: dict[str, dict[str, Curve]] = {}
    for codec, curves in curves_of(points).items():
        for metric, curve in curves.items():
            found.setdefault(metric, {})[codec.replace("dhp K=", "ours, K = ")] = curve
    return found


def kodak_results(file: Path = RESULTS / "kodak.json") -> tuple[list[Point], list[Measurement], dict]:
    """The averaged points, our codec's measurements of each picture, and what the run was.

    Raises:
        FileNotFoundError: the package was installed without its data folder.
    """
    found = json.loads(file.read_text())
    rows = [{name: value for name, value in row.items() if name != "bpp"} for row in found["measurements"]]
    return [Point(**row) for row in found["points"]], [Measurement(**row) for row in rows], found["about"]


def curves_figure(panels: Mapping[str, Mapping[str, Curve]], *, ylabel: str, widest: float = 2.0) -> Figure:
    """Rate-distortion curves by name, a panel for each title; names that begin with "ours" are drawn thicker.

    Args:
        panels: (bits per pixel, dB) by title and name. ylabel: the quality. widest: the largest rate to show.
    """
    with style():
        figure = Figure(figsize=(5.1 * len(panels), 4.1), dpi=CHART_DPI, layout="constrained")
        for axes, (title, curves) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items()):
            shown, looks = [], _looks(curves)
            for name, (rates, qualities) in curves.items():
                (colour, marker), width = looks[name], 2.4 if name.startswith("ours") else 1.3
                axes.plot(
                    rates, qualities, color=colour, marker=marker, markersize=4.5, linewidth=width, label=name
                )
                shown += [quality for rate, quality in zip(rates, qualities) if rate <= widest]
            margin = 0.05 * (max(shown) - min(shown))
            axes.set(title=title, xlabel="bits per pixel", ylabel=ylabel, xlim=(0, widest))
            axes.set_ylim(min(shown) - margin, max(shown) + margin)
            axes.legend(loc="lower right", fontsize=8.5)
    return figure


def _looks(names: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Colour and marker by name: K = 1 and K = 0 have the same ones in every panel."""
    names = list(names)
    looks = {name: LOOKS[place] for place, name in enumerate(("ours, K = 1", "ours, K = 0")) if name in names}
    free = cycle([look for look in LOOKS if look not in looks.values()])
    return {name: looks[name] if name in looks else next(free) for name in names}


def savings(anchor: Curve, test: Curve, count: int = 201) -> tuple[np.ndarray, np.ndarray]:
    """Qualities (count,) in dB that both curves reach, and there the bits of `test` more (+) or less (-) in
    %.
    """
    logs = []
    for rates, qualities in (anchor, test):
        order = np.argsort(qualities)
        logs.append(PchipInterpolator(np.asarray(qualities)[order], np.log(np.asarray(rates)[order])))
    low, high = (end(values(log.x) for log in logs) for end, values in ((max, min), (min, max)))
    at = np.linspace(low, high, count)
    return at, 100 * np.expm1(logs[1](at) - logs[0](at))


def savings_figure(anchors: Mapping[str, Curve], test: Curve, *, name: str) -> Figure:
    """On the left the first anchor and the test curve, and what lies between them; on the right all savings.

    Args:
        anchors: (bits per pixel, dB) by name. test: the curve that they are compared with, called `name`.
    """
    with style():
        figure = Figure(figsize=(10.2, 3.7), dpi=CHART_DPI, layout="constrained")
        left, right = figure.subplots(1, 2)
        first, anchor = next(iter(anchors.items()))
        for label, (rates, qualities), colour in ((name, test, BLUE), (first, anchor, AMBER)):
            left.semilogx(rates, qualities, "o-", color=colour, label=label, markersize=4.5)
        at, percent = savings(anchor, test)
        order = np.argsort(anchor[1])
        rate = np.exp(
            PchipInterpolator(np.asarray(anchor[1])[order], np.log(np.asarray(anchor[0])[order]))(at)
        )
        left.fill_betweenx(at, rate, rate * (1 + percent / 100), color=SKY, alpha=0.35, linewidth=0)
        left.set(title="equal quality, other rates", xlabel="bits per pixel, logarithmic", ylabel="PSNR, dB")
        left.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        left.xaxis.set_major_formatter(FormatStrFormatter("%g"))
        left.xaxis.set_minor_locator(NullLocator())
        left.legend(loc="lower right")
        for (label, curve), (colour, _) in zip(anchors.items(), cycle(LOOKS[3:])):
            right.plot(*savings(curve, test), color=colour, label=label)
        right.axhline(0, color=GREY, linewidth=1)
        right.set(title=f"bits of {name}, more or less than", xlabel="PSNR, dB", ylabel="%")
        right.legend(loc="best", fontsize=8.5)
    return figure


def lines_figure(
    at: Sequence[float], panels: Mapping[str, Mapping[str, Sequence[float]]], *, xlabel: str
) -> Figure:
    """Measures by title, each with a line by name over the positions `at`, which stand at equal distances."""
    with style():
        figure = Figure(figsize=(3.5 * len(panels), 3.0), dpi=CHART_DPI, layout="constrained")
        for axes, (title, lines) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items()):
            for (name, values), (colour, marker) in zip(lines.items(), cycle(LOOKS)):
                axes.plot(range(len(at)), values, color=colour, marker=marker, label=name)
            axes.set(title=title, xlabel=xlabel)
            axes.set_xticks(range(len(at)), [f"{value:g}" for value in at])
        figure.axes[0].legend(loc="best", fontsize=8.5)
    return figure


def trade_figure(
    paths: Mapping[str, tuple[Sequence[float], Sequence[float]]], gammas: Sequence[float]
) -> Figure:
    """Ways from the sample to the mean by name: (textures, PSNRs), one of each for each gamma, the ends
    named.
    """
    with style():
        figure = Figure(figsize=(6.8, 3.9), dpi=CHART_DPI, layout="constrained")
        axes = figure.add_subplot()
        for (name, (textures, qualities)), (colour, marker) in zip(paths.items(), cycle(LOOKS)):
            axes.plot(textures, qualities, color=colour, marker=marker, label=name)
            for i in {0, len(gammas) - 1}:
                axes.annotate(
                    f"γ = {gammas[i]:g}",
                    (textures[i], qualities[i]),
                    xytext=(7, 4),
                    textcoords="offset points",
                    fontsize=8.5,
                    color=colour,
                )
        axes.axvline(1, color=GREY, linestyle="--", linewidth=1.2, label="the original's texture")
        axes.margins(x=0.14, y=0.1)
        axes.set(xlabel="texture, 1 = as much as the original", ylabel="PSNR, dB")
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=8.5)
    return figure


def measured_speed(file: Path = RESULTS / "speed.json") -> Html:
    """Seconds (medians) and memory as benchmarks/codec_speed.py has found them, with the command that did."""
    found = json.loads(file.read_text())
    photo = found["photo_768x512"]
    rows = [["encode", f"{median(photo['encode_seconds']):.3f}"]]
    rows += [[f"decode, K = {k}", f"{median(seconds):.3f}"] for k, seconds in photo["decode_seconds"].items()]
    sizes = [
        [
            f"{one['megapixels']:.1f}",
            *(
                f"{value:.{digits}f}"
                for job in ("encode", "decode")
                for value, digits in ((median(one[job]["seconds"]), 2), (one[job]["peak_memory_mb"], 0))
            ),
        ]
        for one in found["sizes"]
    ]
    idle = found["sizes"][0]["encode"]["idle_memory_mb"]
    text = f"<p>{_source(found)}; λ = {found['lambda_rate']:g}. Medians; of the peaks {idle:.0f} MB are Python, torch and the model.</p>"
    header = ["megapixels", "encode, s", "peak, MB", "decode K = 1, s", "peak, MB"]
    return Html(
        f"<div>{table_html(rows, ['photo of 768 x 512', 'seconds']).text}{table_html(sizes, header).text}{text}</div>"
    )


def measured_trade(file: Path = RESULTS / "realism.json") -> Html:
    """Averages over photos for each lambda and K as benchmarks/realism.py has found them (gamma = 0), or that
    it has not run.
    """
    if not file.exists():
        return _not_yet("realism.py", file)
    found = json.loads(file.read_text())
    names = _columns(found["rows"])
    rows = [
        [f"{row['lambda_rate']:g}", row["K"], *_cells(row, names)]
        for row in found["rows"]
        if not row["gamma"]
    ]
    table = table_html(rows, ["λ", "K", *(TRADE_COLUMNS[name][0] for name in names)]).text
    notes = "".join(f"<br>{html.escape(note)}" for note in found["notes"])
    return Html(f"<div>{table}<p>{_source(found)}; {len(found['pictures'])} photos, γ = 0.{notes}</p></div>")


def measured_gammas(file: Path = RESULTS / "realism.json") -> Html:
    """PSNR against texture along gamma, a way for each lambda, as benchmarks/realism.py has found them, or
    that it has not run.
    """
    if not file.exists():
        return _not_yet("realism.py", file)
    found = json.loads(file.read_text())
    rows = [row for row in found["rows"] if row["gamma"] is not None]
    steps = min({row["K"] for row in rows}, key=lambda k: abs(k - USUAL_STEPS))
    rows = [row for row in rows if row["K"] == steps]
    paths = {}
    for row in rows:
        texture, quality = paths.setdefault(f"λ = {row['lambda_rate']:g}", ([], []))
        texture.append(row["texture"]), quality.append(row["psnr"])
    gammas = list(dict.fromkeys(row["gamma"] for row in rows))
    alt = f"Mean PSNR against mean texture for K = {steps}, a line for each λ, from γ = {gammas[0]:g} to γ = {gammas[-1]:g}"
    drawn = figure_html(trade_figure(paths, gammas), alt).text
    return Html(f"<div>{drawn}<p>{_source(found)}; {len(found['pictures'])} photos, K = {steps}</p></div>")


def measured_z_only(file: Path = RESULTS / "z_only.json") -> Html:
    """A codec of z alone beside z + y in as many bytes, as benchmarks/z_only.py has found them, or that it
    has not run.
    """
    if not file.exists():
        return _not_yet("z_only.py", file)
    found = json.loads(file.read_text())
    names = [name for name in _columns(found["rows"]) if name != "bpp"]
    rows = [
        [f"{row['lambda_rate']:g}", WAYS[row["transmit"]], row["K"], f"{row['bpp']:.4f}", *_cells(row, names)]
        for row in found["rows"]
    ]
    table = table_html(rows, ["λ of z", "sent", "K", "bpp", *(TRADE_COLUMNS[name][0] for name in names)]).text
    fits = ", ".join(f"{one['fits']['z+y']} at λ = {one['lambda_rate']:g}" for one in found["files"])
    text = f"z + y has a file as small as that of z alone for so many of the {len(found['pictures'])} photos, not shrunk: {fits}."
    return Html(f"<div>{table}<p>{text}<br>{_source(found)}</p></div>")


def _not_yet(script: str, file: Path) -> Html:
    return Html(f"<p>Not measured yet: <code>python benchmarks/{script}</code> writes {file.name}.</p>")


def _columns(rows: Sequence[dict]) -> list[str]:
    """The measures that every row has."""
    return [name for name in TRADE_COLUMNS if all(name in row for row in rows)]


def _cells(row: dict, names: Sequence[str]) -> list[str]:
    return [f"{row[name]:.{TRADE_COLUMNS[name][1]}f}" for name in names]


def _source(found: dict) -> str:
    """The command and the machine of a benchmark's figures, as HTML."""
    place = found["environment"]
    machine = f"{html.escape(place['device'])}, {place['threads']} threads, torch {place['versions']['torch']}, {place['date']}"
    return f"<code>{html.escape(found['command'])}</code><br>{machine}"

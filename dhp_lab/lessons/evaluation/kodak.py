"""Kodak's photos: our curve beside the codecs that were coded here and beside those that were published.

| function            | what it gives                                                                       |
|---------------------|-------------------------------------------------------------------------------------|
| `kodak_results`     | what `dhp evaluate` has measured on Kodak: points, measurements, and the run        |
| `codec_curves`      | curves by metric and codec, from an evaluation's points                             |
| `unmeasured_codecs` | the codecs of the kit that the points lack                                          |
| `published_kodak`   | the published curves by metric and name, those of 8-bit pictures where there are any |
| `standings`         | BD-rates of our curve against each other, sorted                                    |
| `standings_table`   | the same as a table                                                                 |
| `outcome`           | the same in sentences                                                               |

CompressAI has two curves of each of its codecs: of pictures as its networks give them, in floating point, and
of the same pictures rounded to 8 bits. Only the second are comparable with a file that a viewer decodes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dhp_lab.core.paths import ANCHORS, RESULTS
from dhp_lab.evaluation.codecs import CODECS
from dhp_lab.evaluation.measurements import Measurement, Point
from dhp_lab.evaluation.report import PUBLISHED, curves_of, published_curves
from dhp_lab.metrics.rd_curves import BDRate, Curve, bd_rate
from dhp_lab.notebook.html import Html, table_html
from dhp_lab.notebook.results import read_results

OURS = "ours, K = 1"
HERE, ELSEWHERE = "coded here", "published"
ROUNDED = "-8bit"  # ends the name of a published curve of pictures of 8 bits
NOT_ROUNDED = ("bmshj2018-hyperprior-vbr", "mbt2018-mean-vbr", "mbt2018-vbr")  # published in floating point
UNSAID = ("elic2022 (paper)",)  # a paper's own figures
KIT_CODECS = tuple(codec.name for key, codec in CODECS.items() if key != "avif420")

ByMetric = Mapping[str, Mapping[str, Curve]]  # by "PSNR" or "MS-SSIM", then by name


def kodak_results(file: Path = RESULTS / "kodak.json") -> tuple[list[Point], list[Measurement], dict]:
    """The averaged points, the measurements of our codec on each picture, and what the run was.

    Raises:
        FileNotFoundError: the package was installed without its data folder.
    """
    found = read_results(file)
    rows = [{name: value for name, value in row.items() if name != "bpp"} for row in found["measurements"]]
    return [Point(**row) for row in found["points"]], [Measurement(**row) for row in rows], found["about"]


def codec_curves(points: Sequence[Point]) -> dict[str, dict[str, Curve]]:
    """Curves by metric ("PSNR", "MS-SSIM", both in dB), then by codec; our codec is called "ours, K = 1"."""
    found: dict[str, dict[str, Curve]] = {}
    for codec, curves in curves_of(points).items():
        for metric, curve in curves.items():
            found.setdefault(metric, {})[codec.replace("dhp K=", "ours, K = ")] = curve
    return found


def unmeasured_codecs(points: Sequence[Point]) -> str:
    """A line on the codecs of the kit that the points lack; empty if there are all."""
    measured = {point.codec for point in points}
    names = [name for name in KIT_CODECS if name not in measured]
    return f"not measured: {', '.join(names)}" if names else ""


def published_kodak(path: Path = ANCHORS) -> dict[str, dict[str, Curve]]:
    """The published curves by metric and name; of a codec with two, the one of pictures of 8 bits.

    Raises:
        FileNotFoundError: the package was installed without its data folder.
    """
    curves = {name.removesuffix(PUBLISHED): curve for name, curve in published_curves(path).items()}
    found: dict[str, dict[str, Curve]] = {}
    for name, by_metric in curves.items():
        for metric, curve in by_metric.items() if name + ROUNDED not in curves else ():
            found.setdefault(metric, {})[name.removesuffix(ROUNDED)] = curve
    return found


@dataclass(frozen=True)
class Standing:
    """Our curve against one other.

    Attributes:
        name: of the other curve.
        kind: HERE or ELSEWHERE.
        pictures: "8 bits", "floating point" or "not said": what the quality was measured on.
        results: BD-rate by metric, those that can be computed; less than 0 % where ours takes fewer bits.
    """

    name: str
    kind: str
    pictures: str
    results: Mapping[str, BDRate]


def standings(coded: ByMetric, published: ByMetric, *, ours: str = OURS) -> list[Standing]:
    """Our curve against all others, sorted by the BD-rate by PSNR; curves without one come last.

    Args:
        coded: by metric, curves coded here, ours among them; those of our codec with other K are left out.
        published: likewise.
        ours: the name of our curve.

    Raises:
        KeyError: ``ours`` is not among the curves.
    """
    rows = [_standing(name, HERE, coded, coded, ours) for name in coded["PSNR"] if name[:4] != "ours"]
    rows += [_standing(name, ELSEWHERE, published, coded, ours) for name in published["PSNR"]]
    return sorted(
        rows, key=lambda row: row.results["PSNR"].percent if "PSNR" in row.results else float("inf")
    )


def _standing(name: str, kind: str, others: ByMetric, coded: ByMetric, ours: str) -> Standing:
    results = {}
    for metric, curves in others.items():
        if name in curves and metric in coded:
            try:
                results[metric] = bd_rate(curves[name], coded[metric][ours])
            except ValueError:  # no quality in common, or too few points
                continue
    named = kind == ELSEWHERE
    pictures = "floating point" if named and name in NOT_ROUNDED else "8 bits"
    return Standing(name, kind, "not said" if named and name in UNSAID else pictures, results)


def standings_table(rows: Sequence[Standing]) -> Html:
    """BD-rate, common range and its share by PSNR, and BD-rate by MS-SSIM, a row for each curve."""
    cells = []
    for row in rows:
        found, similar = row.results.get("PSNR"), row.results.get("MS-SSIM")
        by_psnr = ["-"] * 3
        if found:
            by_psnr = [f"{found.percent:+.1f} %", f"{found.low:.1f} .. {found.high:.1f} dB"]
            by_psnr.append(f"{found.coverage:.0%}")
        by_ms_ssim = f"{similar.percent:+.1f} %" if similar else "-"
        cells.append([row.name, row.kind, row.pictures, *by_psnr, by_ms_ssim])
    header = [
        "ours against",
        "curve",
        "pictures",
        "BD-rate, PSNR",
        "common range",
        "share",
        "BD-rate, MS-SSIM",
    ]
    return table_html(cells, header)


def outcome(rows: Sequence[Standing], *, metric: str = "PSNR") -> str:
    """What a sorted table says, in sentences."""
    known = [(row.results[metric].percent, row.name) for row in rows if metric in row.results]
    less = sorted(one for one in known if one[0] < 0)
    more = sorted(one for one in known if one[0] >= 0)
    lines = [f"By {metric} our codec takes fewer bits than {len(less)} of {len(known)} curves"]
    if less:
        lines[0] += f", from {_named(less[0])} to {_named(less[-1])}"
    if more:
        lines.append(
            f"It takes more than {len(more)}: the next one is {_named(more[0])}, the best {_named(more[-1])}"
        )
    return ".\n".join(lines) + "."


def _named(one: tuple[float, str]) -> str:
    return f"{one[1]} ({one[0]:+.0f} %)"

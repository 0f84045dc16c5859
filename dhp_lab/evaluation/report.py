"""What an evaluation found: averaged curves, BD-rates, a table to read and a JSON file to keep.

| in the JSON    | one entry for each                                                                        |
|----------------|-------------------------------------------------------------------------------------------|
| `about`        | the run: command, model, threads, processor, versions                                     |
| `notes`        | a picture that was skipped or converted, a figure that could not be measured              |
| `points`       | codec and setting: means over the pictures (`measurements.Point`)                         |
| `comparisons`  | our curve, other curve and metric: BD-rate in %, common range in dB, or why there is none |
| `measurements` | picture and setting of our codec (`measurements.Measurement`)                    |

A figure that is not finite (the PSNR of identical pictures) is written as null. No folder of the machine is
named.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from dhp_lab.core.files import write_atomic
from dhp_lab.core.paths import ANCHORS
from dhp_lab.evaluation.columns import points_table, without_others
from dhp_lab.evaluation.config import DEFAULT_METRICS
from dhp_lab.evaluation.judges import Judges
from dhp_lab.evaluation.measurements import Measurement, Point, average
from dhp_lab.metrics.pixels import decibel
from dhp_lab.metrics.rd_curves import BDRate, Curve, bd_rate, smallest_gain

METRICS = ("PSNR", "MS-SSIM")
KODAK = {f"kodim{number:02d}" for number in range(1, 25)}
KODAK_PIXELS = 768 * 512
PUBLISHED = " (published)"
COMPARISON_HEADS = f"{'curve':<10} {'against':<33}" + "".join(
    f"{f'BD-rate by {metric} (common range, share)  gain':<50}" for metric in METRICS
)

Curves = Mapping[str, Curve]  # by metric
TABLE_ANCHORS = (
    "jpeg",
    "jpeg2000",
    "webp",
    "bpg",
    "av1",
    "vtm",
    "bmshj2018-factorized",
    "bmshj2018-hyperprior",
    "mbt2018-mean",
    "mbt2018",
)


@dataclass(frozen=True)
class Comparison:
    """One curve against another by one metric.

    Attributes:
        test, anchor: names of the curves.
        metric: one of METRICS.
        result: the BD-rate; None for the `reason` given.
        least_gain: the smallest distance of the test curve above the anchor at equal rate between 0.2 and 1
            bits per pixel, in dB; None where they have no such rate in common.
        reason: why there is no result.
    """

    test: str
    anchor: str
    metric: str
    result: BDRate | None
    least_gain: float | None = None
    reason: str = ""


@dataclass(frozen=True)
class EvaluationReport:
    """All that was measured; fields as in the module's table, and the metrics that were chosen."""

    about: dict[str, object]
    notes: list[str]
    points: list[Point]
    comparisons: list[Comparison]
    measurements: list[Measurement]
    metrics: tuple[str, ...] = DEFAULT_METRICS

    def save(self, path: Path) -> None:
        """Write the report as JSON, whole or not at all.

        Raises:
            OSError: the disk's own trouble.
        """
        write_atomic(path, to_json(self).encode())

    def table(self) -> str:
        """Return the averaged figures, the BD-rates, the notes and where it was measured, as aligned text."""
        machine = "{device}, threads: {threads}, peak memory {peak_memory_mb:.0f} MB".format_map(self.about)
        parts = [
            points_table(self.points, self.metrics),
            comparisons_table(self.comparisons),
            "\n".join(self.notes),
            f"mean of {self.points[0].pictures} pictures, median of their times; {machine}",
        ]
        return "\n\n".join(part for part in parts if part)


def make_report(
    about: dict[str, object],
    ours: list[Measurement],
    classical: list[Measurement],
    judges: Judges | None = None,
) -> EvaluationReport:
    """Average the measurements and compare the curves.

    Each of our curves is compared with the first of them, with the classical ones and, on Kodak's pictures,
    with the published ones; without measurements of ours, the classical curves with the published ones.

    Args:
        about: what the run depends on, for the JSON.
        ours: measurements of our codec, one for each picture, lambda and K.
        classical: those of the classical codecs on the same pictures.
        judges: what measured them; None is PSNR, MS-SSIM and texture.
    """
    judges = judges or Judges()
    everything = [*ours, *classical]
    notes = judges.notes(everything)
    published = {}
    if is_kodak(everything):
        if ANCHORS.exists():
            published = published_curves()
        else:
            notes.append(f"no published curves: data/anchors/{ANCHORS.name} is missing; work in a full clone")
    own_curves = curves_of(average(ours))
    classical_curves = curves_of(average(classical))
    if own_curves:
        first = next(iter(own_curves))
        anchors = {first: own_curves[first]} | classical_curves | published
        comparisons = compare(own_curves, anchors)
    else:
        comparisons = compare(classical_curves, published)
    points = judges.judge(average(everything))
    return EvaluationReport(about, notes, points, comparisons, ours, judges.names)


def curves_of(points: Sequence[Point]) -> dict[str, Curves]:
    """Return the rate-distortion curves of each codec: PSNR and MS-SSIM where they were measured, in dB."""
    curves = {}
    for codec in dict.fromkeys(point.codec for point in points):
        own = [point for point in points if point.codec == codec]
        bpp = [point.bpp for point in own]
        curves[codec] = {}
        if all(point.psnr is not None for point in own):
            curves[codec]["PSNR"] = (bpp, [point.psnr for point in own])
        if all(point.ms_ssim is not None for point in own):
            curves[codec]["MS-SSIM"] = (bpp, [decibel(point.ms_ssim) for point in own])
    return curves


def published_curves(path: Path = ANCHORS) -> dict[str, Curves]:
    """Return the published Kodak curves, each named "<codec> (published)"; sources are in the file itself.

    Raises:
        FileNotFoundError: the package was installed without its data folder.
    """
    curves = {}
    for name, entry in json.loads(path.read_text()).items():
        own = {"PSNR": (entry["bpp"], entry["psnr_rgb"])}
        if entry["ms_ssim_rgb"]:
            own["MS-SSIM"] = (entry["bpp"], [decibel(value) for value in entry["ms_ssim_rgb"]])
        curves[name + PUBLISHED] = own
    return curves


def is_kodak(measurements: Sequence[Measurement]) -> bool:
    """Return whether the pictures are the 24 of the Kodak set, by name and size.

    Only then are the published curves comparable.
    """
    names = {Path(one.picture).stem for one in measurements}
    return names == KODAK and all(one.height * one.width == KODAK_PIXELS for one in measurements)


def compare(tests: Mapping[str, Curves], anchors: Mapping[str, Curves]) -> list[Comparison]:
    """Return the BD-rate of each test curve against each other anchor, by each metric that both have."""
    found = []
    for test, test_curves in tests.items():
        for anchor, anchor_curves in anchors.items():
            common = [metric for metric in METRICS if metric in test_curves and metric in anchor_curves]
            for metric in common if test != anchor else ():
                found.append(_compare_one(test, anchor, metric, test_curves[metric], anchor_curves[metric]))
    return found


def _compare_one(test: str, anchor: str, metric: str, test_curve: Curve, anchor_curve: Curve) -> Comparison:
    try:
        gain = smallest_gain(anchor_curve, test_curve)
        result = bd_rate(anchor_curve, test_curve)
    except ValueError as error:
        return Comparison(test, anchor, metric, None, reason=str(error))
    return Comparison(test, anchor, metric, result, gain)


def comparisons_table(comparisons: Sequence[Comparison]) -> str:
    """Return one line per pair of curves: BD-rate, the common range, its share of our curve, the least gain.

    Of the published curves only those in TABLE_ANCHORS have a line; the JSON has them all.
    """
    pairs: dict[tuple[str, str], dict[str, Comparison]] = {}
    for one in comparisons:
        name = one.anchor.removesuffix(PUBLISHED)
        if name == one.anchor or name in TABLE_ANCHORS:
            pairs.setdefault((one.test, one.anchor), {})[one.metric] = one
    if not pairs:
        return ""
    lines = [COMPARISON_HEADS.rstrip()]
    for (test, anchor), by_metric in pairs.items():
        cells = "".join(f"{_comparison_cell(by_metric.get(metric)):<49} " for metric in METRICS)
        lines.append(f"{test:<10} {anchor:<33}{cells}".rstrip())
    lines.append("gain: the least at equal rate, 0.2 to 1 bits per pixel")
    return "\n".join(lines)


def _comparison_cell(one: Comparison | None) -> str:
    if one is None:
        return "-"
    if one.result is None:
        return one.reason.partition(":")[0].partition(";")[0]
    gain = "-" if one.least_gain is None else f"{one.least_gain:+.2f} dB"
    common = f"({one.result.low:.1f}..{one.result.high:.1f} dB, {one.result.coverage:.0%})"
    return f"{one.result.percent:+7.1f} % {common:<24} {gain}"


def to_json(report: EvaluationReport) -> str:
    """Return the report as JSON, one line per entry of its lists."""
    sections = {
        "about": report.about,
        "notes": report.notes,
        "points": [without_others(asdict(point), report.metrics) for point in report.points],
        "comparisons": [_comparison_entry(one) for one in report.comparisons],
        "measurements": [
            without_others(asdict(one), report.metrics) | {"bpp": one.bpp} for one in report.measurements
        ],
    }
    lines = [f"{json.dumps(name)}: {_section(value)}" for name, value in sections.items()]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _comparison_entry(one: Comparison) -> dict[str, object]:
    names = {"test": one.test, "anchor": one.anchor, "metric": one.metric}
    result = {"percent": None, "reason": one.reason} if one.result is None else asdict(one.result)
    return names | result | {"least_gain": one.least_gain}


def _section(value: object) -> str:
    """A list with an entry on each line; anything else indented."""
    if not isinstance(value, list):
        return json.dumps(_rounded(value), indent=1, allow_nan=False)
    lines = ["\n " + json.dumps(_rounded(entry), allow_nan=False) for entry in value]
    return "[" + ",".join(lines) + "\n]"


def _rounded(value: object) -> object:
    """Six significant digits for floats, None where JSON has no number."""
    if isinstance(value, Mapping):
        return {key: _rounded(entry) for key, entry in value.items()}
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value

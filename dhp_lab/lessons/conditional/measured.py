"""What benchmarks/digit_guidance.py has measured of guidance, for the lesson's tables and charts."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from statistics import mean, stdev

from dhp_lab.core.paths import RESULTS
from dhp_lab.notebook.html import Html, table_html
from dhp_lab.notebook.results import read_results, source_html

FILE = RESULTS / "digit_guidance.json"
MEASURES = {
    "accuracy": "class accuracy",
    "precision": "precision",
    "diversity": "diversity",
    "recall": "recall",
    "frechet_distance": "Fréchet distance",
}


def measured_rows(
    *,
    scales: Iterable[float] | None = None,
    thresholds: Iterable[str] = ("static",),
    intervals: bool = False,
    file: Path = FILE,
) -> list[dict]:
    """The rows of the benchmark in its order.

    Args:
        scales: of the guidance; None takes all.
        thresholds: what was done to x0: "none", "static" or "dynamic".
        intervals: True for rows whose scale acts in a part of the chain, False for the others.
        file: the JSON that the benchmark has written.

    Raises:
        ValueError: there is no such row.
    """
    kinds, wanted = tuple(thresholds), None if scales is None else tuple(scales)
    rows = [
        row
        for row in read_results(file)["rows"]
        if (wanted is None or row["scale"] in wanted)
        and row["threshold"] in kinds
        and (row["high"] is not None) == intervals
    ]
    if not rows:
        raise ValueError(
            f"no row of {file.name} has scale {wanted}, threshold {kinds}, intervals {intervals}"
        )
    return rows


def means_and_deviations(rows: list[dict], measure: str) -> tuple[list[float], list[float]]:
    """Mean and standard deviation over the seeds of one measure, a key of MEASURES, in each row."""
    values = [row["measured"][measure] for row in rows]
    return [mean(one) for one in values], [stdev(one) if len(one) > 1 else 0.0 for one in values]


def guidance_table(rows: list[dict], *, file: Path = FILE) -> Html:
    """Rows as a table of means ± standard deviations, with the command that measured them."""
    found = read_results(file)
    cells = []
    for row in rows:
        where = "all" if row["high"] is None else f"{row['low']} < t ≤ {row['high']}"
        numbers = []
        for measure in MEASURES:
            (average,), (deviation,) = means_and_deviations([row], measure)
            numbers.append(f"{average:.2f} ± {deviation:.2f}")
        cells.append([f"{row['scale']:g}", row["threshold"], where, *numbers])
    header = ["scale", "thresholding", "times", *MEASURES.values()]
    about = (
        f"{found['samples']} digits, DDIM in {found['steps']} steps, {found['seeds']} seeds: mean ± deviation"
    )
    return Html(f"<div>{table_html(cells, header).text}<p>{about}<br>{source_html(found)}</p></div>")

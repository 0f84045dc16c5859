"""What the benchmarks have measured, read from data/results for a notebook."""

from __future__ import annotations

import html
import json
from pathlib import Path

from dhp_lab.core.paths import RESULTS
from dhp_lab.notebook.html import Html, table_html

MEASURED = RESULTS / "digit_samplers.json"


def measured_samplers(*names: str, file: Path = MEASURED) -> Html:
    """What benchmarks/digit_samplers.py has found of the samplers so called, and of real digits, with the
    command that did.

    Args:
        names: such as "DDPM" and "DDIM", which may have several numbers of steps.
        file: the JSON that the benchmark has written.

    Raises:
        ValueError: a sampler that was not measured.
    """
    found = json.loads(file.read_bytes())
    known = [row["name"] for row in found["samplers"]]
    if not names or not set(names) <= set(known):
        raise ValueError(
            f"names must be among {', '.join(dict.fromkeys(known))}; got {', '.join(names) or 'none'}"
        )
    measures = ("frechet_distance", "precision", "recall", "diversity")
    rows = []
    for row in [
        *(row for row in found["samplers"] if row["name"] in names),
        {"name": "real digits"} | found["real"],
    ]:
        cost = (
            [row["steps"], row["evaluations"], f"{row['milliseconds']:.1f}"]
            if "steps" in row
            else ["", "", ""]
        )
        rows.append(
            [row["name"], *cost, *(f"{row['quality'][key]:.2f}" for key in measures), f"{row['control']:.1%}"]
        )
    header = [
        "sampler",
        "steps",
        "calls",
        "ms a digit",
        "Fréchet distance",
        "precision",
        "recall",
        "diversity",
        "control",
    ]
    place = found["environment"]
    text = (
        f"<p><code>{html.escape(found['command'])}</code><br>{found['samples']} digits for each row; "
        f"{html.escape(place['device'])}, {place['threads']} threads, torch {place['versions']['torch']}, {place['date']}</p>"
    )
    return Html(f"<div>{table_html(rows, header).text}{text}</div>")

"""What the benchmarks have measured, read from data/results for a notebook."""

from __future__ import annotations

import html
import json
from pathlib import Path

from dhp_lab.core.paths import RESULTS
from dhp_lab.notebook.html import Html, table_html

SAMPLERS = RESULTS / "digit_samplers.json"
QUALITY = {
    "frechet_distance": "Fréchet distance",
    "precision": "precision",
    "recall": "recall",
    "diversity": "diversity",
}


def read_results(file: Path) -> dict:
    """What a benchmark has written.

    Raises:
        FileNotFoundError: it has not run, or the package was installed without its data folder.
    """
    return json.loads(file.read_bytes())


def source_html(found: dict) -> str:
    """The command and the machine of a benchmark's results, as two lines of HTML."""
    command = html.escape(found["command"])
    return f"<code>{command}</code><br>{html.escape(machine(found))}"


def machine(found: dict) -> str:
    """The device, threads, version of torch and date of a benchmark's run, as plain text."""
    place = found["environment"]
    torch_version = place["versions"]["torch"]
    return f"{place['device']}, {place['threads']} threads, torch {torch_version}, {place['date']}"


def measured_samplers(*names: str, file: Path = SAMPLERS) -> Html:
    """What benchmarks/digit_samplers.py has measured of samplers and of real digits, with its command.

    Args:
        names: such as "DDPM" and "DDIM", which may have several numbers of steps.
        file: the JSON that the benchmark has written.

    Raises:
        ValueError: no name, or a sampler that was not measured.
    """
    found = read_results(file)
    measured = list(dict.fromkeys(row["name"] for row in found["samplers"]))
    if not names or not set(names) <= set(measured):
        raise ValueError(f"names must be among {', '.join(measured)}; got {', '.join(names) or 'none'}")
    rows = [_sampler_cells(row) for row in found["samplers"] if row["name"] in names]
    rows.append(_sampler_cells({"name": "real digits", **found["real"]}))
    header = ["sampler", "steps", "network evaluations", "ms a digit", *QUALITY.values(), "control"]
    command, place = html.escape(found["command"]), html.escape(machine(found))
    text = f"<p><code>{command}</code><br>{found['samples']} digits for each row; {place}</p>"
    return Html(f"<div>{table_html(rows, header).text}{text}</div>")


def _sampler_cells(row: dict) -> list[object]:
    """A row of the table; real digits have no steps."""
    cost = ["", "", ""]
    if "steps" in row:
        cost = [row["steps"], row["evaluations"], f"{row['milliseconds']:.1f}"]
    quality = [f"{row['quality'][key]:.2f}" for key in QUALITY]
    return [row["name"], *cost, *quality, f"{row['control']:.1%}"]

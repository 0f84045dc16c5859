"""What benchmarks and `dhp evaluate` have measured, as tables and a figure.

| function           | what it gives                                                                  |
|--------------------|--------------------------------------------------------------------------------|
| `measured_speed`   | seconds and memory as benchmarks/codec_speed.py has measured them              |
| `measured_trade`   | what K changes, as benchmarks/realism.py has measured it over many photos      |
| `measured_effort`  | what the encoder's effort saves, as benchmarks/effort.py has measured it       |
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from dhp_lab.core.paths import RESULTS
from dhp_lab.lessons.evaluation.figures import effort_figure
from dhp_lab.notebook.html import Html, figure_html, table_html
from dhp_lab.notebook.results import read_results, source_html

COLUMNS = {  # title and digits by measure
    "bpp": ("bpp", 3),
    "psnr": ("PSNR, dB", 2),
    "ms_ssim": ("MS-SSIM", 4),
    "texture": ("texture", 2),
    "lpips": ("LPIPS", 3),
    "dists": ("DISTS", 3),
    "fid": ("FID", 1),
    "kid": ("KID, 1000 times", 2),
    "patch_kid": ("patch-KID", 3),
}


def measured_speed(file: Path = RESULTS / "speed.json") -> Html:
    """Median seconds, and memory, as benchmarks/codec_speed.py has measured them, with its command.

    Raises:
        FileNotFoundError: it was not measured.
    """
    found = read_results(file)
    photo = found["photo_768x512"]
    times = {"encode": photo["encode_seconds"]}
    times |= {f"decode, K = {k}": seconds for k, seconds in photo["decode_seconds"].items()}
    rows = [[job, f"{median(seconds):.3f}"] for job, seconds in times.items()]
    first = table_html(rows, ["photo of 768 x 512", "seconds"]).text
    header = ["megapixels", "encode, s", "peak, MB", "decode K = 1, s", "peak, MB"]
    second = table_html([_size_cells(one) for one in found["sizes"]], header).text
    idle = found["sizes"][0]["encode"]["idle_memory_mb"]
    text = (
        f"<p>{source_html(found)}; λ = {found['lambda_rate']:g}{_model(found)}. Medians; "
        f"of the peaks {idle:.0f} MB are Python, torch and the model.</p>"
    )
    return Html(f"<div>{first}{second}{text}</div>")


def _size_cells(one: dict) -> list[str]:
    """Megapixels, then median seconds and peak memory of both jobs."""
    cells = [f"{one['megapixels']:.1f}"]
    for job in ("encode", "decode"):
        cells += [f"{median(one[job]['seconds']):.2f}", f"{one[job]['peak_memory_mb']:.0f}"]
    return cells


def measured_trade(file: Path = RESULTS / "realism.json") -> Html:
    """Averages over photos for each lambda and K (gamma = 0) as benchmarks/realism.py has measured them, or
    that it has not run.
    """
    if not file.exists():
        return _not_measured("realism.py", file)
    found = read_results(file)
    measures = _shared_measures(found["rows"])
    rows = [
        [f"{row['lambda_rate']:g}", row["K"], *_cells(row, measures)]
        for row in found["rows"]
        if not row["gamma"]
    ]
    table = table_html(rows, ["λ", "K", *_titles(measures)]).text
    notes = "".join(f"<br>{html.escape(note)}" for note in found["notes"])
    text = f"<p>{source_html(found)}; {len(found['pictures'])} photos, γ = 0{_model(found)}.{notes}</p>"
    return Html(f"<div>{table}{text}</div>")


def measured_effort(file: Path = RESULTS / "effort.json") -> Html:
    """Seconds and BD-rate of the encoder's efforts, drawn and as a table, as benchmarks/effort.py has
    measured them, or that it has not run.
    """
    if not file.exists():
        return _not_measured("effort.py", file)
    found = read_results(file)
    steps = [str(k) for k in found["K"]]
    first, rows, lines = found["rows"][0], [], {f"K = {k}": [] for k in steps}
    for row in found["rows"]:
        seconds, percents = median(row["seconds"]), []
        for k in steps:
            gain = row["gains"].get(k)
            percents.append(f"{gain['percent']:+.1f} %" if gain else "-")
            lines[f"K = {k}"].append((row["effort"], seconds, gain["percent"] if gain else 0.0))
        rows.append([row["effort"], f"{seconds:.2f}", *percents, f"{row['peak_memory_mb']:.0f}"])
    header = ["effort", "seconds a picture", *(f"BD-rate, K = {k}" for k in steps), "peak, MB"]
    alt = f"BD-rate against the encoder's seconds for {' and '.join(lines)}, a point for each effort"
    drawn, table = figure_html(effort_figure(lines), alt).text, table_html(rows, header).text
    source = source_html({"command": found["command"], "environment": first["environment"]})
    text = f"<p>{source}; {first['pictures']} pictures, model {html.escape(first['model_id'])}</p>"
    return Html(f"<div>{drawn}{table}{text}</div>")


def _model(found: dict) -> str:
    """The model that results are of, where they name it."""
    return f", model {html.escape(found['model_id'])}" if "model_id" in found else ""


def _not_measured(script: str, file: Path) -> Html:
    return Html(f"<p>Not measured yet: <code>python benchmarks/{script}</code> writes {file.name}.</p>")


def _shared_measures(rows: Sequence[dict]) -> list[str]:
    """The measures that every row has."""
    return [name for name in COLUMNS if all(name in row for row in rows)]


def _titles(measures: Sequence[str]) -> list[str]:
    return [COLUMNS[name][0] for name in measures]


def _cells(row: dict, measures: Sequence[str]) -> list[str]:
    return [f"{row[name]:.{COLUMNS[name][1]}f}" for name in measures]

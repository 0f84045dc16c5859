"""What benchmarks and `dhp evaluate` have measured, as tables and a figure.

| function           | what it gives                                                                  |
|--------------------|--------------------------------------------------------------------------------|
| `kodak_results`    | what `dhp evaluate` has measured on Kodak: points, measurements, and the run   |
| `measured_speed`   | seconds and memory as benchmarks/codec_speed.py has measured them              |
| `measured_trade`   | what K changes, as benchmarks/realism.py has measured it over many photos      |
| `measured_gammas`  | what gamma changes, likewise                                                   |
| `measured_z_only`  | z alone beside z + y, as benchmarks/z_only.py has measured them                |
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from dhp_lab.core.paths import RESULTS
from dhp_lab.evaluation.measurements import Measurement, Point
from dhp_lab.lessons.evaluation.figures import trade_figure
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
WAYS = {"z": "z alone", "z+y": "z + y, at most as many bytes", "shrunk": "z + y of a shrunk photo"}
USUAL_STEPS = 8  # of the K that were measured, the nearest one's gammas are drawn


def kodak_results(file: Path = RESULTS / "kodak.json") -> tuple[list[Point], list[Measurement], dict]:
    """The averaged points, the measurements of our codec on each picture, and what the run was.

    Raises:
        FileNotFoundError: the package was installed without its data folder.
    """
    found = read_results(file)
    rows = [{name: value for name, value in row.items() if name != "bpp"} for row in found["measurements"]]
    return [Point(**row) for row in found["points"]], [Measurement(**row) for row in rows], found["about"]


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
        f"<p>{source_html(found)}; λ = {found['lambda_rate']:g}. Medians; "
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
    text = f"<p>{source_html(found)}; {len(found['pictures'])} photos, γ = 0.{notes}</p>"
    return Html(f"<div>{table}{text}</div>")


def measured_gammas(file: Path = RESULTS / "realism.json") -> Html:
    """PSNR against texture along gamma, a line for each lambda, as benchmarks/realism.py has measured them,
    or that it has not run.
    """
    if not file.exists():
        return _not_measured("realism.py", file)
    found = read_results(file)
    rows = [row for row in found["rows"] if row["gamma"] is not None]
    if not rows:  # a codec without a realism part
        return _not_measured("realism.py", file)
    steps = min({row["K"] for row in rows}, key=lambda k: abs(k - USUAL_STEPS))
    rows = [row for row in rows if row["K"] == steps]
    paths = {}
    for row in rows:
        textures, qualities = paths.setdefault(f"λ = {row['lambda_rate']:g}", ([], []))
        textures.append(row["texture"])
        qualities.append(row["psnr"])
    gammas = list(dict.fromkeys(row["gamma"] for row in rows))
    alt = (
        f"Mean PSNR against mean texture for K = {steps}, a line for each λ, "
        f"from γ = {gammas[0]:g} to γ = {gammas[-1]:g}"
    )
    drawn = figure_html(trade_figure(paths, gammas), alt).text
    text = f"<p>{source_html(found)}; {len(found['pictures'])} photos, K = {steps}</p>"
    return Html(f"<div>{drawn}{text}</div>")


def measured_z_only(file: Path = RESULTS / "z_only.json") -> Html:
    """A codec of z alone beside z + y in at most as many bytes, as benchmarks/z_only.py has measured them, or
    that it has not run.
    """
    if not file.exists():
        return _not_measured("z_only.py", file)
    found = read_results(file)
    measures = [name for name in _shared_measures(found["rows"]) if name != "bpp"]
    rows = []
    for row in found["rows"]:
        setting = [f"{row['lambda_rate']:g}", WAYS[row["transmit"]], row["K"], f"{row['bpp']:.4f}"]
        rows.append([*setting, *_cells(row, measures)])
    table = table_html(rows, ["λ of z", "sent", "K", "bpp", *_titles(measures)]).text
    fits = ", ".join(f"{one['fits']['z+y']} at λ = {one['lambda_rate']:g}" for one in found["files"])
    text = (
        "z + y has a file as small as that of z alone for so many of the "
        f"{len(found['pictures'])} photos, not shrunk: {fits}."
    )
    return Html(f"<div>{table}<p>{text}<br>{source_html(found)}</p></div>")


def _not_measured(script: str, file: Path) -> Html:
    return Html(f"<p>Not measured yet: <code>python benchmarks/{script}</code> writes {file.name}.</p>")


def _shared_measures(rows: Sequence[dict]) -> list[str]:
    """The measures that every row has."""
    return [name for name in COLUMNS if all(name in row for row in rows)]


def _titles(measures: Sequence[str]) -> list[str]:
    return [COLUMNS[name][0] for name in measures]


def _cells(row: dict, measures: Sequence[str]) -> list[str]:
    return [f"{row[name]:.{COLUMNS[name][1]}f}" for name in measures]

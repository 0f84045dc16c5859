"""Does longer training still pay? BD-rate against hours of training, a row for each checkpoint.

    python benchmarks/training_hours.py --checkpoint DIR --hours H --pictures FOLDER [--label TEXT]
                                        [--lambdas 2.3e-2,1e-2,...] [--steps 0] [--threads 0]
                                        [--output data/results/training_hours.json]

``--hours`` are those of one core beyond the weights that the training started from, which is row 0. Each
checkpoint codes the pictures as real files; on Kodak's photos its curve is compared with the published scale
hyperprior, elsewhere with row 0. Rows stay in the output until their hours are measured again. Prints a
table, and writes it as JSON and Markdown.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from common import (
    add_machine_options,
    bd_rate_or_reason,
    heading,
    listed,
    load_codec,
    markdown_table,
    new_parser,
    page,
    percent_cell,
    photos_of,
    save,
    set_threads,
)

PUBLISHED = "bmshj2018-hyperprior"
LAMBDAS = (2.3e-2, 1e-2, 4.4e-3, 1.9e-3, 8.3e-4, 3.6e-4, 1.6e-4, 6.9e-5)


def measure(options: argparse.Namespace) -> dict:
    """Return a checkpoint's row."""
    from dhp_lab.evaluation.evaluate import evaluate

    report = evaluate(
        load_codec(options.checkpoint),
        photos_of(options.pictures),
        lambda_rates=options.lambdas,
        steps=options.steps,
        codecs=(),
    )
    points = [point for point in report.points if point.codec == f"dhp K={options.steps[0]}"]
    return {
        "hours": options.hours,
        "label": options.label,
        "model_id": report.about["model_id"],
        "bpp": [point.bpp for point in points],
        "psnr": [point.psnr for point in points],
        "environment": {key: report.about[key] for key in ("device", "threads", "versions", "date")},
    }


def published() -> tuple[list[float], list[float]]:
    """The published scale hyperprior's curve on Kodak."""
    from dhp_lab.evaluation.report import published_curves

    return published_curves()[f"{PUBLISHED} (published)"]["PSNR"]


def curve(row: dict) -> tuple[list[float], list[float]]:
    """(bpp, PSNR) of a row."""
    return row["bpp"], row["psnr"]


def table(found: dict) -> str:
    """Return the rows as Markdown."""
    heads = ["hours", "what", "BD-rate against row 0", f"against {PUBLISHED}"]
    rows = [
        [f"{row['hours']:g}", row["label"], percent_cell(row["gain"]), percent_cell(row["published"])]
        for row in found["rows"]
    ]
    facts = f"the commands are this with each row's checkpoint and hours; K = {found['K']}"
    return page(heading(found, facts), markdown_table(heads, rows, "rlr"))


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the options."""
    parser = new_parser(__doc__, "training_hours")
    parser.add_argument("--checkpoint", type=Path, required=True, help="a folder")
    parser.add_argument("--hours", type=float, required=True, help="of one core, beyond row 0")
    parser.add_argument("--label", default="", help="what was done in them")
    parser.add_argument("--pictures", type=Path, help="a folder; the packages' photos if not given")
    parser.add_argument("--lambdas", type=listed(float), default=LAMBDAS)
    parser.add_argument("--steps", type=listed(int), default=(0,), help="K")
    add_machine_options(parser, device=False)
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Measure one checkpoint, print, write."""
    options = make_parser().parse_args(arguments)
    set_threads(options)
    before = json.loads(options.output.read_text("utf-8"))["rows"] if options.output.exists() else []
    rows = {row["hours"]: row for row in before} | {options.hours: measure(options)}
    ordered = [rows[hours] for hours in sorted(rows)]
    is_kodak = options.pictures is not None and options.pictures.resolve().name == "kodak"
    for row in ordered:
        row["gain"] = None if row is ordered[0] else bd_rate_or_reason(curve(ordered[0]), curve(row))
        row["published"] = bd_rate_or_reason(published(), curve(row)) if is_kodak else None
    place = options.pictures.resolve().name if options.pictures else None
    command = "python benchmarks/training_hours.py --checkpoint DIR --hours H"
    command += f" --pictures {place}" if place else ""
    found = {"command": command, "K": options.steps[0], "rows": ordered}
    save(found, table(found), options.output)


if __name__ == "__main__":
    main()

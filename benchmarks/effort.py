"""What an effort is worth: the encoder's seconds for a picture against the bits that it saves.

    python benchmarks/effort.py [--pictures FOLDER] [--efforts 0,1,2,3,6,9] [--crop 256] [--model_path DIR]
                                [--lambdas 1e-2,3e-3,1e-3,3e-4] [--steps 0,1] [--threads 0]
                                [--output data/results/effort.json]

Every picture is encoded at every lambda and effort, decoded, and measured; the BD-rates compare an effort's
averaged curve with that of effort 0 at the same K. Without a folder the photos that packages bring are taken.
``--crop`` takes the middle of each, so many pixels a side. Efforts measured before with the same options stay
in the output until they are measured again, so that a slow one can be added later. Prints a table, and writes
it as JSON and Markdown.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from statistics import median

from common import (
    add_machine_options,
    command_line,
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

OPTIONS = ("model_path", "pictures", "crop", "lambdas", "steps", "threads")


def pictures(options: argparse.Namespace) -> Iterator[tuple[str, object]]:
    """The pictures, or their middles."""
    for name, x in photos_of(options.pictures):
        if options.crop:
            top, left = ((length - options.crop) // 2 for length in x.shape[-2:])
            x = x[..., max(0, top) :, max(0, left) :][..., : options.crop, : options.crop]
        yield name, x


def measure(options: argparse.Namespace, effort: int) -> dict:
    """Return an effort's row: seconds of each encoding, and the averaged curves."""
    from dhp_lab.evaluation.evaluate import evaluate

    report = evaluate(
        load_codec(options.model_path),
        pictures(options),
        lambda_rates=options.lambdas,
        steps=options.steps,
        effort=effort,
        batch_size=1,
        codecs=(),
    )
    names = ("codec", "setting", "bpp", "psnr", "ms_ssim")
    first_k = [one for one in report.measurements if one.codec == report.points[0].codec]
    return {
        "effort": effort,
        "pictures": len({one.picture for one in first_k}),
        "seconds": [one.encode_seconds for one in first_k],
        "peak_memory_mb": report.about["peak_memory_mb"],
        "points": [{name: getattr(point, name) for name in names} for point in report.points],
        "environment": {key: report.about[key] for key in ("device", "threads", "versions", "date")},
        "model_id": report.about["model_id"],
    }


def gain(anchor: dict, row: dict, k: int) -> dict | None:
    """Return the BD-rate of an effort against effort 0 at one K; None for effort 0 itself."""
    from dhp_lab.metrics.rd_curves import bd_rate

    if row is anchor:
        return None
    curves = []
    for one in (anchor, row):
        points = [point for point in one["points"] if point["codec"] == f"dhp K={k}"]
        curves.append(([point["bpp"] for point in points], [point["psnr"] for point in points]))
    return asdict(bd_rate(*curves))


def table(found: dict) -> str:
    """Return seconds and BD-rates as Markdown."""
    rows, first = [], found["rows"][0]
    for row in found["rows"]:
        seconds = row["seconds"]
        cells = [row["effort"], f"{median(seconds):.1f}", f"{max(seconds):.1f}"]
        cells += [percent_cell(row["gains"].get(str(k))) for k in found["K"]]
        rows.append([*cells, f"{row['peak_memory_mb']:.0f}"])
    heads = ["effort", "seconds a picture, median", "most"]
    heads += [*(f"BD-rate, K = {k}" for k in found["K"]), "peak, MB"]
    facts = f"{first['pictures']} pictures, lambda {', '.join(f'{value:g}' for value in found['lambdas'])}"
    return page(
        heading(found | {"environment": first["environment"]}, facts), markdown_table(heads, rows, "r")
    )


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the options."""
    parser = new_parser(__doc__, "effort")
    parser.add_argument("--model_path", type=Path, help="a checkpoint's folder; the shipped one if not given")
    parser.add_argument("--pictures", type=Path, help="a folder; the packages' photos if not given")
    parser.add_argument("--efforts", type=listed(int), default=(0, 1, 2, 3, 6, 9))
    parser.add_argument(
        "--crop", type=int, default=256, help="side of the middle that is taken; 0: all of it"
    )
    parser.add_argument("--lambdas", type=listed(float), default=(1e-2, 3e-3, 1e-3, 3e-4))
    parser.add_argument("--steps", type=listed(int), default=(0, 1), help="K, several")
    add_machine_options(parser, device=False)
    return parser


def earlier_rows(output: Path, command: str) -> dict[int, dict]:
    """Rows of an output that the same command measured, by effort."""
    if not output.exists():
        return {}
    found = json.loads(output.read_text("utf-8"))
    return {row["effort"]: row for row in found["rows"]} if found["command"] == command else {}


def main(arguments: list[str] | None = None) -> None:
    """Measure, print, write after every effort."""
    options = make_parser().parse_args(arguments)
    set_threads(options)
    command = command_line(__file__, options, OPTIONS)
    rows = earlier_rows(options.output, command)
    for effort in options.efforts:
        rows[effort] = measure(options, effort)
        ordered = [rows[number] for number in sorted(rows)]
        for row in ordered:
            gains = {str(k): gain(ordered[0], row, k) for k in options.steps}
            row["gains"] = {k: value for k, value in gains.items() if value is not None}
        found = {"command": command, "K": options.steps, "lambdas": options.lambdas, "rows": ordered}
        save(found, table(found), options.output)


if __name__ == "__main__":
    main()

"""JPEG, WebP, JPEG 2000 and AVIF on a folder of pictures: the curves to beat, without any model.

    python benchmarks/classical_codecs.py PICTURES [--output data/results/classical_kodak.json]

Prints the averaged curves and, on Kodak's 24 photos, their BD-rates against the published ones.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from time import perf_counter

from common import new_parser

from dhp_lab.data.images import load_pictures
from dhp_lab.evaluation.evaluate import evaluate


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the options."""
    parser = new_parser(__doc__, "classical_kodak")
    parser.add_argument("pictures", type=Path, help="a folder")
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Measure, print, write."""
    options = make_parser().parse_args(arguments)
    start, notes = perf_counter(), []
    report = evaluate(None, load_pictures(options.pictures, notes, print))
    seconds = perf_counter() - start
    command = f"python benchmarks/classical_codecs.py {options.pictures.resolve().name}"
    about = {"command": command, "seconds": seconds, **report.about}
    report = replace(report, about=about, notes=[*notes, *report.notes])
    options.output.parent.mkdir(parents=True, exist_ok=True)
    report.save(options.output)
    print(report.table())
    print(f"\n{seconds:.0f} s; written to {options.output}")


if __name__ == "__main__":
    main()

"""JPEG, WebP, JPEG 2000, AVIF and, if named, stronger codecs: the curves to beat, without any model.

    python benchmarks/classical_codecs.py PICTURES --codecs avif,jxl,hevc,vvc

PICTURES is a folder, or `offline`: the seven photos that scikit-image and scikit-learn bring. Prints the
averaged curves and, on Kodak's 24 photos, their BD-rates against the published ones.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from time import perf_counter

from common import listed, new_parser, one_of

from dhp_lab.evaluation.codecs import CODECS
from dhp_lab.evaluation.config import CLASSICAL_CODECS
from dhp_lab.evaluation.evaluate import evaluate, pictures_of


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the options."""
    parser = new_parser(__doc__, "classical_kodak")
    parser.add_argument("pictures", type=Path, help="a folder, or offline")
    parser.add_argument(
        "--codecs",
        type=listed(one_of(CODECS)),
        default=CLASSICAL_CODECS,
        help=f"some of {','.join(CODECS)}; {','.join(CLASSICAL_CODECS)} if not given",
    )
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Measure, print, write."""
    options = make_parser().parse_args(arguments)
    start, notes = perf_counter(), []
    report = evaluate(None, pictures_of(options.pictures, notes, print), codecs=options.codecs)
    seconds = perf_counter() - start
    words = [options.pictures.resolve().name, "--codecs", ",".join(options.codecs)]
    command = f"python benchmarks/classical_codecs.py {' '.join(words)}"
    about = {"command": command, "seconds": seconds, **report.about}
    report = replace(report, about=about, notes=[*notes, *report.notes])
    options.output.parent.mkdir(parents=True, exist_ok=True)
    report.save(options.output)
    print(report.table())
    print(f"\n{seconds:.0f} s; written to {options.output}")


if __name__ == "__main__":
    main()

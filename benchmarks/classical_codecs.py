"""JPEG, WebP, JPEG 2000 and AVIF on a folder of pictures: the curves to beat, without any model.

    python benchmarks/classical_codecs.py PICTURES [OUTPUT.json]

Prints the averaged curves and, on Kodak's 24 photos, their BD-rates against the published ones.
"""

import argparse
from dataclasses import replace
from pathlib import Path
from time import perf_counter

from dhp_lab.data.images import load_pictures
from dhp_lab.evaluation.evaluate import evaluate


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pictures", type=Path)
    parser.add_argument("output", type=Path, nargs="?", default=Path("data/results/classical_kodak.json"))
    options = parser.parse_args()
    start, notes = perf_counter(), []
    report = evaluate(None, load_pictures(options.pictures, notes, print))
    command = f"python benchmarks/classical_codecs.py {options.pictures.name} {options.output.name}"
    about = {"command": command, "seconds": perf_counter() - start, **report.about}
    report = replace(report, about=about, notes=[*notes, *report.notes])
    options.output.parent.mkdir(parents=True, exist_ok=True)
    report.save(options.output)
    print(report.table())
    print(f"\n{about['seconds']:.0f} s; written to {options.output}")


if __name__ == "__main__":
    main()

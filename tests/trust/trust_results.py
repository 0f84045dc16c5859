"""data/results/trust.json: what the long checks of `make trust` found, each under a key of its own.

    python tests/trust/trust_results.py [--page SECURITY.md]        puts the table into the page

A check is a module of this folder, named like its key, with

    make_parser() -> ArgumentParser its options
    main(arguments=None)            checks, and ends with `save(__file__, found, options.output)`
    row(found) -> list[str]         its line in the table: what was tried, how much of it, what happened

``found`` holds counts, with "command" and "environment". A fault ends a check with an error and writes
nothing: a result in the file means that none was found. To add a check, add its name to TRUST in the
Makefile.
"""

from __future__ import annotations

import argparse
import importlib
import json
import re
from pathlib import Path

from dhp_lab.core.files import write_atomic

ROOT = Path(__file__).resolve().parents[2]
RESULT = ROOT / "data" / "results" / "trust.json"
HEADS = ["what was tried", "how much", "what happened"]
PLACE = re.compile(r"(?<=<!-- trust: begin -->\n).*?(?=<!-- trust: end -->)", re.DOTALL)


def new_parser(description: str) -> argparse.ArgumentParser:
    """Return a parser with the option ``--output``; description: the module's docstring."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=RESULT, help="JSON of which one key is replaced")
    return parser


def load(path: Path = RESULT) -> dict[str, dict]:
    """Return what every check found, by its name; nothing where none has run."""
    return json.loads(path.read_text("utf-8")) if path.exists() else {}


def save(script: str, found: dict, path: Path = RESULT) -> None:
    """Replace one check's key, leave the others as they are, and print the check's line.

    Args:
        script: the check's ``__file__``. found: its counts.
    """
    name = Path(script).stem
    whole = dict(sorted((load(path) | {name: found}).items()))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, (json.dumps(whole, indent=1) + "\n").encode())
    print(f"{name}: {'; '.join(importlib.import_module(name).row(found))}")


def table(whole: dict[str, dict]) -> str:
    """Return the table of all checks, a row each."""
    rows = [HEADS, ["---"] * len(HEADS)]
    rows += [importlib.import_module(name).row(found) for name, found in whole.items()]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n"


def filled(page: str, whole: dict[str, dict]) -> str:
    """Return the page with the table in its place.

    Raises:
        ValueError: it has no place for one.
    """
    if not PLACE.search(page):
        raise ValueError("the page has no lines <!-- trust: begin --> and <!-- trust: end -->")
    return PLACE.sub(lambda _: table(whole), page)


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--page", type=Path, default=ROOT / "SECURITY.md")
    parser.add_argument("--results", type=Path, default=RESULT)
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Read, fill, write."""
    options = make_parser().parse_args(arguments)
    page = filled(options.page.read_text("utf-8"), load(options.results))
    write_atomic(options.page, page.encode())


if __name__ == "__main__":
    main()

"""Put the tables that the benchmarks wrote into a page, each between its marks.

    python benchmarks/tables.py [--page benchmarks/README.md] [--results data/results]

A table lies in RESULTS as <name>.md, where a script wrote it; in the page its place is between two lines

    <!-- name: begin -->
    <!-- name: end -->

whose content is replaced. Marks without a file keep what is between them. Prints a line for each mark, and
one for each table without a place.
"""

from __future__ import annotations

import argparse
import re
from itertools import zip_longest
from pathlib import Path

from common import RESULTS, ROOT

from dhp_lab.core.files import write_atomic

MARK = re.compile(r"<!-- (?P<name>[\w-]+): (?P<end>begin|end) -->")


def places(page: str) -> dict[str, tuple[int, int]]:
    """Where each named table lies in a page: (start, end) of what is between its marks.

    Raises:
        ValueError: a mark without its partner, or a name that comes twice.
    """
    marks = list(MARK.finditer(page))
    begins, ends = marks[::2], marks[1::2]
    found = {}
    for begin, end in zip_longest(begins, ends):
        name = begin["name"]
        if begin["end"] != "begin" or end is None or (end["name"], end["end"]) != (name, "end"):
            raise ValueError(
                f"the mark {begin[0]} has no partner: after 'begin' of a name comes its 'end', with no mark "
                "between"
            )
        if name in found:
            raise ValueError(f"there are two places called {name}; give each table one")
        found[name] = begin.end(), end.start()
    return found


def filled(page: str, tables: dict[str, str]) -> str:
    """Return the page with the tables in their places; places without a table are as they were.

    Raises:
        ValueError: as for `places`.
    """
    found = places(page)
    for name in reversed(found):  # from the end, so that the other places stay where they are
        if name in tables:
            start, end = found[name]
            page = f"{page[:start]}\n{tables[name].strip()}\n{page[end:]}"
    return page


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--page", type=Path, default=ROOT / "benchmarks" / "README.md")
    parser.add_argument("--results", type=Path, default=RESULTS)
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Read, print, write."""
    options = make_parser().parse_args(arguments)
    page = options.page.read_text("utf-8")
    tables = {file.stem: file.read_text("utf-8") for file in sorted(options.results.glob("*.md"))}
    found = places(page)
    write_atomic(options.page, filled(page, tables).encode())
    for name in found:
        print(f"{name}: {f'from {name}.md' if name in tables else 'kept as it was'}")
    for name in sorted(set(tables) - set(found)):
        print(f"{name}.md has no place in {options.page.name}")


if __name__ == "__main__":
    main()

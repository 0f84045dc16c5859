"""What does it cost to start? `dhp compress` and `dhp decompress` of a small picture, as whole processes.

    python benchmarks/start_up.py [--side 256] [--runs 7] [--output data/results/start_up.json]

A first run of each that is not counted fills the disk's cache. CPU seconds are those of the process, user and
system, all threads together: they do not depend on what the machine does beside. One more run, which Python
times import by import (`-X importtime`), shows where they go: the five imports that took longest, and what
took longest in each. These are seconds on the clock, somewhat longer for being timed. Prints tables, and
writes them as JSON and Markdown.
"""

from __future__ import annotations

import argparse
import re
import resource
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter

from common import command_line, heading, markdown_table, new_parser, page, photo, save, spread

LARGEST = 5  # imports in the table
PARTS = 2  # of each of them
IMPORT_LINE = re.compile(r"import time:\s+(?P<own>\d+) \|\s+(?P<all>\d+) \| (?P<indent> *)(?P<name>\S+)$")
INDENT = 2  # spaces, one level in the tree


@dataclass
class Import:
    """A module that was imported.

    Attributes:
        name: of the module.
        seconds: of its import, with all that it imported itself.
        parts: what it imported, in order.
    """

    name: str
    seconds: float
    parts: list[Import] = field(default_factory=list)

    def largest(self, count: int) -> list[Import]:
        """Return the parts that took longest."""
        return sorted(self.parts, key=lambda part: -part.seconds)[:count]


def read_import_times(text: str) -> Import:
    """Read what `python -X importtime` writes to stderr; other lines are left out.

    A module's line comes after those of what it imported, which are indented further.

    Returns:
        The program itself, whose parts are the modules that it imported first.
    """
    waiting: list[list[Import]] = []  # by depth: modules whose importer has no line yet
    for match in filter(None, map(IMPORT_LINE.match, text.splitlines())):
        depth = len(match["indent"]) // INDENT
        while len(waiting) < depth + 2:
            waiting.append([])
        found = Import(match["name"], int(match["all"]) / 1e6, waiting[depth + 1])
        waiting[depth + 1] = []
        waiting[depth].append(found)
    top = waiting[0] if waiting else []
    return Import("", sum(one.seconds for one in top), top)


def commands(folder: Path, side: int) -> dict[str, list[str]]:
    """Return the words behind `dhp` of each command; the picture is written to the folder."""
    from dhp_lab.data.images import save_image

    picture, file, decoded = folder / "in.png", folder / "coded.dhp", folder / "out.png"
    save_image(photo(side, side), picture)
    return {
        "compress": ["compress", str(picture), str(file), "--force"],
        "decompress": ["decompress", str(file), str(decoded), "--force"],
    }


def run_program(words: list[str]) -> tuple[float, float]:
    """Run a program to its end; return its CPU seconds and those on the clock.

    Raises:
        CalledProcessError: it ended with an error.
    """
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), perf_counter()
    subprocess.run(words, stdout=subprocess.DEVNULL, check=True)
    passed, after = perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = (after.ru_utime + after.ru_stime) - (before.ru_utime + before.ru_stime)
    return cpu, passed


def measure(words: list[str], runs: int) -> dict[str, list[float]]:
    """Return both kinds of seconds of `runs` runs of `dhp` after one that is not counted."""
    program = [str(Path(sys.executable).with_name("dhp")), *words]
    run_program(program)
    found = [run_program(program) for _ in range(runs)]
    return {"cpu_seconds": [cpu for cpu, _ in found], "seconds": [passed for _, passed in found]}


def measure_imports(words: list[str]) -> list[dict[str, object]]:
    """Return the imports that took longest in a run of `dhp`, and what took longest in each."""
    program = [sys.executable, "-X", "importtime", "-m", "dhp_lab.cli", *words]
    done = subprocess.run(program, capture_output=True, text=True, check=True)
    largest = read_import_times(done.stderr).largest(LARGEST)
    return [
        {
            "name": one.name,
            "seconds": one.seconds,
            "parts": {part.name: part.seconds for part in one.largest(PARTS)},
        }
        for one in largest
    ]


def measure_all(options: argparse.Namespace) -> dict[str, object]:
    """Run both commands; return every figure."""
    import torch

    from dhp_lab.core.environment import environment

    with tempfile.TemporaryDirectory() as folder:
        both = commands(Path(folder), options.side)
        processes = {name: measure(words, options.runs) for name, words in both.items()}
        imports = {name: measure_imports(words) for name, words in both.items()}
    return {
        "command": command_line(__file__, options, ["side", "runs"]),
        "environment": environment(torch.device("cpu")),
        "side": options.side,
        "processes": processes,
        "imports": imports,
    }


def import_table(command: str, imports: list[dict]) -> str:
    """Return the table of one command's imports."""
    rows = []
    for one in imports:
        rows.append([one["name"], f"{one['seconds']:.2f}", ""])
        rows += [[f"- {name}", "", f"{seconds:.2f}"] for name, seconds in one["parts"].items()]
    return markdown_table([f"imports of `dhp {command}`", "seconds", "of these"], rows)


def table(found: dict) -> str:
    """Return all figures as Markdown."""
    rows = [
        [f"`dhp {name}`", spread(one["cpu_seconds"], 2), spread(one["seconds"], 2)]
        for name, one in found["processes"].items()
    ]
    picture = f"{found['side']} x {found['side']} picture, whole process"
    return page(
        heading(found),
        markdown_table([picture, "CPU seconds: median (least..greatest)", "seconds on the clock"], rows),
        *(import_table(name, imports) for name, imports in found["imports"].items()),
    )


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the options."""
    parser = new_parser(__doc__, "start_up")
    parser.add_argument("--side", type=int, default=256, help="of the picture, in pixels")
    parser.add_argument("--runs", type=int, default=7)
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Measure, print, write."""
    options = make_parser().parse_args(arguments)
    found = measure_all(options)
    save(found, table(found), options.output)


if __name__ == "__main__":
    main()

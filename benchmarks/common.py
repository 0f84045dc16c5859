"""What every benchmark shares: its options, its child processes, its timing, and how its results are written.

A benchmark is a module with

    make_parser() -> ArgumentParser its options
    main(arguments=None)            measures, prints, writes
    table(found) -> str             the Markdown of what it writes as JSON, or of such a file read again

Nothing heavy is imported before a function needs it: some benchmarks measure imports.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from dhp_lab.codec.model import DiffusionHyperprior
    from dhp_lab.data.images import Picture
    from dhp_lab.metrics.rd_curves import Curve

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "data" / "results"


# ------------------------------------------------------------------------------------------------- options


def new_parser(description: str, result: str) -> argparse.ArgumentParser:
    """Return a parser with the option ``--output``.

    Args:
        description: the module's docstring.
        result: name of the JSON in data/results that is written if no output is given.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=RESULTS / f"{result}.json")
    return parser


def add_machine_options(parser: argparse.ArgumentParser, *, device: bool = True) -> None:
    """Add ``--threads``, and ``--device`` where a benchmark does not run on the CPU alone."""
    if device:
        parser.add_argument("--device", help="cpu or cuda; the fastest there is if not given")
    parser.add_argument("--threads", type=int, default=0, help="0: as many as torch chooses")


def set_threads(options: argparse.Namespace) -> None:
    """Give torch the number of threads of the options, and keep freed memory as `dhp` does."""
    import torch

    from dhp_lab.core.memory import keep_freed_memory

    keep_freed_memory()
    if options.threads:
        torch.set_num_threads(options.threads)


def listed(kind: Callable[[str], object]) -> Callable[[str], tuple]:
    """Return a reader of values separated by commas; "none" is an empty list."""

    def read(text: str) -> tuple:
        return () if text == "none" else tuple(kind(word) for word in text.split(","))

    return read


def one_of(names: Iterable[str]) -> Callable[[str], str]:
    """Return a reader of one name out of several, for ``listed``."""
    names = tuple(names)

    def read(text: str) -> str:
        if text not in names:
            raise argparse.ArgumentTypeError(f"there is no '{text}'; choose from {', '.join(names)}")
        return text

    return read


def command_line(script: str, options: argparse.Namespace, names: Iterable[str]) -> str:
    """Return the command that measures the same again.

    Args:
        script: its ``__file__``.
        options: as they were parsed.
        names: of the options that belong to the command; one that is None is left out.
    """
    given = [(name, getattr(options, name)) for name in names]
    words = [f"--{name} {_word(value)}" for name, value in given if value is not None]
    return " ".join([f"python benchmarks/{Path(script).name}", *words])


def _word(value: object) -> str:
    """An option's value as it is typed; of a folder the last name only."""
    if isinstance(value, Path):
        return value.resolve().name
    if isinstance(value, tuple):
        return ",".join(_word(one) for one in value) or "none"
    if isinstance(value, list):
        return " ".join(_word(one) for one in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


# -------------------------------------------------------------------------------------- pictures and models


def photos_of(folder: Path | None) -> Iterator[Picture]:
    """Return (name, picture) of the photos in a folder, or of those that come with the packages."""
    from dhp_lab.data.images import load_pictures
    from dhp_lab.data.photos import PHOTOS, load_photo

    if folder is None:
        return ((name, load_photo(name)) for name in PHOTOS)
    return load_pictures(folder, [], lambda line: print(line, file=sys.stderr))


def photo(width: int = 768, height: int = 512) -> torch.Tensor:
    """A photo of coffee (3:2, scikit-image) resized, (1, 3, height, width) in [0, 1]."""
    import skimage
    from PIL import Image

    from dhp_lab.data.images import to_tensor

    whole = Image.fromarray(skimage.data.coffee())
    return to_tensor(whole.resize((width, height), Image.Resampling.BICUBIC))


def mosaic(width: int, height: int) -> torch.Tensor:
    """Photos of the packages side by side at full detail, (1, 3, height, width) in [0, 1]."""
    import numpy as np
    import skimage
    from sklearn.datasets import load_sample_images

    from dhp_lab.data.images import to_tensor

    photos = [skimage.data.astronaut(), skimage.data.coffee(), skimage.data.rocket()]
    photos += load_sample_images().images
    row = np.concatenate([one[:400, :600] for one in photos], axis=1)  # (400, 2472..3000, 3)
    down, across = -(-height // row.shape[0]), -(-width // row.shape[1])
    rows = [np.tile(np.roll(row, 600 * i, axis=1), (1, across, 1)) for i in range(down)]
    return to_tensor(np.concatenate(rows)[:height, :width])


def load_codec(folder: str | Path | None = None, device: torch.device | str = "cpu") -> DiffusionHyperprior:
    """Load a codec's checkpoint, the shipped one if no folder is given. Errors as for ``from_pretrained``."""
    from dhp_lab.codec.model import DiffusionHyperprior
    from dhp_lab.core.memory import keep_freed_memory
    from dhp_lab.core.paths import default_checkpoint

    keep_freed_memory()  # as `dhp` and a notebook do
    return DiffusionHyperprior.from_pretrained(folder or default_checkpoint()).to(device)


# ------------------------------------------------------------------------------------------ child processes


def run_child(script: str, words: Iterable[object], *, show: bool = False) -> dict:
    """Run a benchmark in a fresh process, and return what its ``answer`` printed.

    Args:
        script: its ``__file__``.
        words: of the command line.
        show: whether what it writes to stderr appears at once; otherwise only if it fails.

    Raises:
        SystemExit: it ended with an error.
    """
    arguments = [sys.executable, str(script), *(str(word) for word in words)]
    errors = None if show else subprocess.PIPE
    done = subprocess.run(arguments, stdout=subprocess.PIPE, stderr=errors, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(arguments[1:])} ended with {done.returncode}\n{done.stderr or ''}")
    return json.loads(done.stdout.splitlines()[-1])


def options_as_words(options: argparse.Namespace, names: Iterable[str]) -> list[object]:
    """Return options as the words of a command line, for ``run_child``."""
    return [word for name in names for word in (f"--{name}", getattr(options, name))]


def answer(job: Callable[[], dict]) -> None:
    """Do a child's job, and print what it found as the last line; what it prints meanwhile goes to stderr."""
    with redirect_stdout(sys.stderr):
        found = job()
    print(json.dumps(found))


# ---------------------------------------------------------------------------------------------- measurement


def timed(function: Callable[[], object], runs: int) -> tuple[list[float], object]:
    """Return the seconds of ``runs`` calls after one that is not counted, and the last result."""
    seconds, result = [], function()
    for _ in range(runs):
        start = perf_counter()
        result = function()
        seconds.append(perf_counter() - start)
    return seconds, result


def spread(values: Sequence[float], digits: int = 3) -> str:
    """Return "median (least..greatest)"."""
    return f"{median(values):.{digits}f} ({min(values):.{digits}f}..{max(values):.{digits}f})"


def bd_rate_or_reason(anchor: Curve, test: Curve) -> dict[str, object]:
    """Return the fields of a BD-rate, or "percent" None and the reason why there is none."""
    from dataclasses import asdict

    from dhp_lab.metrics.rd_curves import bd_rate

    try:
        return asdict(bd_rate(anchor, test))
    except ValueError as error:
        return {"percent": None, "reason": str(error)}


def percent_cell(gain: dict[str, object] | None) -> str:
    """Return a BD-rate as a cell; "-" where there is none."""
    return "-" if gain is None or gain["percent"] is None else f"{gain['percent']:+.1f} %"


# -------------------------------------------------------------------------------------------------- results


def markdown_table(heads: Sequence[str], rows: Iterable[Sequence[object]], align: str = "lr") -> str:
    """Return a table in Markdown.

    Args:
        heads: of the columns.
        rows: cells, as many in each.
        align: l or r for each column; the last letter goes on to the last column.

    Raises:
        ValueError: a row with another number of cells than there are heads.
    """
    lines = [[str(cell) for cell in cells] for cells in rows]
    for cells in lines:
        if len(cells) != len(heads):
            raise ValueError(f"a row has {len(cells)} cells under {len(heads)} heads: {cells}")
    align = align.ljust(len(heads), align[-1])
    rule = "|" + "".join("---|" if side == "l" else "---:|" for side in align[: len(heads)])
    return "\n".join([_row(heads), rule, *(_row(cells) for cells in lines)])


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def heading(found: dict, *facts: str) -> str:
    """Return the line above a table: the command, the machine where it is noted, and further facts."""
    line = f"`{found['command']}`"
    if place := found.get("environment"):
        line += f" on {place['device']}, {place['threads']} threads, torch {place['versions']['torch']}"
        line += f", {place['date']}"
    return "; ".join([line, *facts])


def page(*parts: str) -> str:
    """Return paragraphs and tables one below the other."""
    return "\n\n".join(part for part in parts if part)


def save(found: dict, table: str, output: Path, *, default: Callable | None = None) -> None:
    """Write ``found`` to ``output`` and the table to the same name in .md, and print the table.

    Args:
        default: as for ``json.dumps``.

    Raises:
        OSError: the disk's own trouble; older files are intact.
    """
    from dhp_lab.core.files import write_atomic

    output.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(output, (json.dumps(found, indent=1, default=default) + "\n").encode())
    write_atomic(output.with_suffix(".md"), (table + "\n").encode())
    print(table)

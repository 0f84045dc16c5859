"""How fast is the codec, and how much memory does it need?

    python benchmarks/codec_speed.py [--model_path DIR] [--runs 7] [--threads N] [--megapixels 1,3,6,12]
                                     [--output data/results/speed.json]

Prints tables, and writes them as JSON and Markdown. Every figure is a median with the least and the greatest
in brackets. Model load and each size of picture run in processes of their own, so that neither caches nor
memory of one reach the next. The photos come with scikit-image and scikit-learn. Files are kept in memory;
reading and writing the disk is not timed.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING

from common import (
    ROOT,
    add_machine_options,
    answer,
    command_line,
    heading,
    listed,
    markdown_table,
    mosaic,
    new_parser,
    options_as_words,
    page,
    photo,
    run_child,
    save,
    set_threads,
    spread,
    timed,
)

if TYPE_CHECKING:
    from torch import Tensor

    from dhp_lab.codec.model import DiffusionHyperprior

LAMBDA_RATE = 1e-3
STEPS = (0, 1, 2, 4)
MEGAPIXELS = {1: (1155, 866), 3: (2000, 1500), 6: (2828, 2121), 12: (4000, 3000)}  # width, height
FEW = 3  # runs of the large pictures at most
BOTH = ("encode", "decode")


# ------------------------------------------------------------------------------- in the child processes


def load_model(options: argparse.Namespace) -> tuple[DiffusionHyperprior, dict[str, float]]:
    """Return the model, and the seconds for importing and for loading it."""
    start = perf_counter()
    from dhp_lab.codec.model import DiffusionHyperprior

    set_threads(options)
    imported = perf_counter()
    model = DiffusionHyperprior.from_pretrained(options.model_path)
    return model, {"import_seconds": imported - start, "load_seconds": perf_counter() - imported}


def encoder(model: DiffusionHyperprior, x: Tensor) -> Callable[[], bytes]:
    """Return a function that makes the .dhp file of x."""
    from dhp_lab.codec import dhp_file

    return lambda: dhp_file.encode(model, x, lambda_rate=LAMBDA_RATE)


def decoder(model: DiffusionHyperprior, data: bytes, steps: int) -> Callable[[], Tensor]:
    """Return a function that makes the picture of a .dhp file."""
    from dhp_lab.codec import dhp_file

    return lambda: dhp_file.decode(model, data, steps=steps)


def load_job(options: argparse.Namespace) -> dict[str, object]:
    """Load the model, and note where."""
    model, seconds = load_model(options)
    import torch

    from dhp_lab.core.environment import environment

    return {**seconds, "environment": environment(torch.device("cpu")), "model_id": model.model_id.hex()}


def photo_job(options: argparse.Namespace) -> dict[str, object]:
    """Encode and decode the photo of usual size."""
    model, _ = load_model(options)
    seconds, data = timed(encoder(model, photo()), options.runs)
    decoding = {k: timed(decoder(model, data, k), options.runs)[0] for k in STEPS}
    return {"encode_seconds": seconds, "decode_seconds": decoding, "n_bytes": len(data)}


def size_job(options: argparse.Namespace) -> dict[str, object]:
    """Encode a large picture to a file, or decode that file."""
    model, _ = load_model(options)
    from dhp_lab.core.environment import peak_memory_mb

    idle = peak_memory_mb()
    if options.job == "encode":
        seconds, data = timed(encoder(model, mosaic(*options.size)), options.runs)
        options.file.write_bytes(data)
    else:
        seconds, _ = timed(decoder(model, options.file.read_bytes(), 1), options.runs)
    return {
        "seconds": seconds,
        "n_bytes": options.file.stat().st_size,
        "idle_memory_mb": idle,
        "peak_memory_mb": peak_memory_mb(),
    }


JOBS = {"load": load_job, "photo": photo_job, "encode": size_job, "decode": size_job}


# ------------------------------------------------------------------------------------ in the parent process


def measure_all(options: argparse.Namespace) -> dict[str, object]:
    """Run all jobs; return every figure."""

    def run(job: str, *more: object) -> dict[str, object]:
        words = options_as_words(options, ["model_path", "threads"])
        return run_child(__file__, ["--job", job, *words, *more])

    loads = [run("load") for _ in range(options.runs)]
    sizes = []
    with tempfile.TemporaryDirectory() as folder:
        for megapixels in options.megapixels:
            size = MEGAPIXELS[megapixels]
            file = Path(folder) / f"{megapixels}.dhp"
            more = ("--size", *size, "--file", file, "--runs", min(FEW, options.runs))
            figures = {job: run(job, *more) for job in BOTH}
            sizes.append({"megapixels": size[0] * size[1] / 1e6, "size": size, **figures})
    return {
        "command": command_line(__file__, options, ["runs", "threads"]),
        "model": Path(options.model_path).name,
        "model_id": loads[0]["model_id"],
        "environment": loads[0]["environment"],
        "lambda_rate": LAMBDA_RATE,
        "load": {name: [one[name] for one in loads] for name in ("import_seconds", "load_seconds")},
        "photo_768x512": run("photo", "--runs", options.runs),
        "sizes": sizes,
        "exponent": {job: growth(sizes, job) for job in BOTH},
    }


def growth(sizes: list[dict], job: str) -> float | None:
    """The exponent p of seconds ~ pixels**p, by least squares on the logarithms; None of one size alone."""
    import numpy as np

    if len(sizes) < 2:
        return None
    pixels = [one["megapixels"] for one in sizes]
    seconds = [median(one[job]["seconds"]) for one in sizes]
    return float(np.polyfit(np.log(pixels), np.log(seconds), 1)[0])


def photo_table(found: dict) -> str:
    """Return the table of the photo of usual size."""
    photo, load = found["photo_768x512"], found["load"]
    rows = [
        ["import of torch and the package, fresh process", spread(load["import_seconds"])],
        ["model load, fresh process", spread(load["load_seconds"])],
        ["encode", spread(photo["encode_seconds"])],
    ]
    rows += [[f"decode, K = {k}", spread(seconds)] for k, seconds in photo["decode_seconds"].items()]
    heads = [f"768 x 512 photo, {photo['n_bytes']} bytes", "seconds: median (least..greatest)"]
    return markdown_table(heads, rows)


def size_table(found: dict) -> str:
    """Return the table of the large pictures."""
    rows = []
    for one in found["sizes"]:
        cells = [f"{one['megapixels']:.1f}", one["encode"]["n_bytes"]]
        for job in BOTH:
            cells += [spread(one[job]["seconds"], 2), f"{one[job]['peak_memory_mb']:.0f}"]
        rows.append(cells)
    heads = ["megapixels", "bytes", "encode, s", "peak MB", "decode K = 1, s", "peak MB"]
    return markdown_table(heads, rows, align="r")


def table(found: dict) -> str:
    """Return all figures as Markdown."""
    idle, powers = found["sizes"][0]["encode"]["idle_memory_mb"], found["exponent"]
    model = f"model {found['model']} ({found['model_id']}), lambda {found['lambda_rate']:g}"
    summary = f"Of the peaks, {idle:.0f} MB are Python, torch and the model."
    if None not in powers.values():
        summary += (
            f" Seconds grow as pixels to the power {powers['encode']:.2f} (encode) and "
            f"{powers['decode']:.2f} (decode); 1 is linear."
        )
    return page(heading(found, model), photo_table(found), size_table(found), summary)


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the options."""
    parser = new_parser(__doc__, "speed")
    shipped = ROOT / "data" / "checkpoints" / "diffusion-hyperprior"
    parser.add_argument("--model_path", default=str(shipped))
    parser.add_argument("--runs", type=int, default=7, help=f"of large pictures {FEW} at most")
    parser.add_argument(
        "--megapixels", type=listed(int), default=tuple(MEGAPIXELS), help=f"some of {tuple(MEGAPIXELS)}"
    )
    add_machine_options(parser, device=False)
    parser.add_argument("--job", choices=tuple(JOBS), help=argparse.SUPPRESS)
    parser.add_argument("--size", type=int, nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Parse the options; be the parent, or a child where --job is given."""
    options = make_parser().parse_args(arguments)
    if options.job:
        answer(lambda: JOBS[options.job](options))
        return
    found = measure_all(options)
    save(found, table(found), options.output)


if __name__ == "__main__":
    main()

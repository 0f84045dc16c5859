"""How good can a picture get? PSNR without any rounding, and of real files, picture by picture.

    python benchmarks/quality_cap.py [--model_path DIR] [--lambda_rates 1e-3,1e-5] [--threads 0]
                                     [--output data/results/quality_cap.json]

Without rounding the decoder gets g_a's latents themselves, at the step of each lambda: what is lost then no
bits can bring back. Pictures are the photos that scikit-image and scikit-learn bring along (middles of 512
pixels) and the drawings of the evaluation lesson (256 pixels). Prints a table, and writes it as JSON and
Markdown.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import torch
from common import (
    add_machine_options,
    command_line,
    heading,
    listed,
    load_codec,
    markdown_table,
    new_parser,
    page,
    save,
    set_threads,
)
from torch import Tensor

from dhp_lab import dhp_file
from dhp_lab.codec.model import DiffusionHyperprior
from dhp_lab.data.photos import offline_photos
from dhp_lab.lessons.evaluation.failures import drawn_pictures

SIDE = 256  # of the drawings
LAMBDA_RATES = (1e-3, 1e-5)
BEST = 99.0  # dB that no error is shown as


def pictures() -> Iterator[tuple[str, str, Tensor]]:
    """Iterate over (kind, name, picture)."""
    for name, x in offline_photos():
        yield "photo", name, x
    for name, x in drawn_pictures(SIDE).items():
        yield "drawing", name, x


def psnr(x_hat: Tensor, x: Tensor) -> float:
    """Of pictures in [0, 1], rounded to 8 bits as files of pixels are; BEST at most."""
    error = ((255 * x_hat.clamp(0, 1)).round() / 255 - x).square().mean().clamp(min=10 ** (-BEST / 10))
    return -10 * error.log10().item()


@torch.no_grad()
def measure(model: DiffusionHyperprior, x: Tensor, lambda_rate: float) -> dict[str, float]:
    """Return a picture's PSNR without rounding, and PSNR (K = 0), bytes and bpp of its file."""
    log2_delta = torch.tensor([model.step_size(lambda_rate)]).log2()
    unrounded = model.synthesise(model.analyse(x, log2_delta), log2_delta, x.shape[-2:])
    data = dhp_file.encode(model, x, lambda_rate=lambda_rate)
    return {
        "lambda_rate": lambda_rate,
        "unrounded": psnr(unrounded, x),
        "psnr": psnr(dhp_file.decode(model, data, steps=0), x),
        "bytes": len(data),
        "bpp": 8 * len(data) / (x.shape[-2] * x.shape[-1]),
    }


def table(found: dict) -> str:
    """Return all figures as Markdown."""
    names = ["picture"]
    for value in found["lambda_rates"]:
        names += [f"unrounded, lambda {value:g}", "file, dB", "bytes"]
    rows = []
    for row in found["rows"]:
        cells = [row["name"]]
        for at in row["measured"]:
            cells += [f"{at['unrounded']:.1f}", f"{at['psnr']:.1f}", str(at["bytes"])]
        rows.append(cells)
    mean = sum(found["mean_unrounded_of_photos"].values()) / len(found["mean_unrounded_of_photos"])
    return page(
        heading(found, f"model {found['model_id']}", "PSNR in dB, K = 0"),
        markdown_table(names, rows, align="l" + "r" * (len(names) - 1)),
        f"Mean over the photos without rounding, over these lambdas: {mean:.1f} dB.",
    )


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the options."""
    parser = new_parser(__doc__, "quality_cap")
    parser.add_argument("--model_path", help="the shipped checkpoint if not given")
    parser.add_argument("--lambda_rates", type=listed(float), default=LAMBDA_RATES)
    add_machine_options(parser, device=False)
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Measure, print, write."""
    options = make_parser().parse_args(arguments)
    set_threads(options)
    model = load_codec(options.model_path)
    rows = [
        {"kind": kind, "name": name, "measured": [measure(model, x, lam) for lam in options.lambda_rates]}
        for kind, name, x in pictures()
    ]
    photos = [row["measured"] for row in rows if row["kind"] == "photo"]
    found = {
        "command": command_line(__file__, options, ["lambda_rates"]),
        "model_id": model.model_id.hex(),
        "lambda_rates": list(options.lambda_rates),
        "rows": rows,
        "mean_unrounded_of_photos": {
            f"{lam:g}": sum(measured[i]["unrounded"] for measured in photos) / len(photos)
            for i, lam in enumerate(options.lambda_rates)
        },
    }
    save(found, table(found), options.output)


if __name__ == "__main__":
    main()

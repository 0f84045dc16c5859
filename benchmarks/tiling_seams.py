"""Do the tiles into which a large picture is cut leave a seam?

    python benchmarks/tiling_seams.py [--model_path DIR] [--tile 32] [--width 1536] [--height 1024]
                                      [--steps 2] [--output data/results/tiling.json]

Codes and decodes one picture whole and in tiles, prints the greatest differences and writes them as JSON and
Markdown: of the latents in quantiser steps, of the decoded picture in 8-bit levels, and the same within 2
pixels of a tile's edge. A checkpoint with a realism part has a row of a drawn picture at each lambda, of that
part in tiles alone.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import torch
from common import command_line, heading, load_codec, markdown_table, mosaic, new_parser, page, save
from torch import Tensor

from dhp_lab.codec.bits.lambdas import lambda_code
from dhp_lab.codec.model import DiffusionHyperprior
from dhp_lab.evaluation.evaluate import model_ids

LAMBDA_RATES = (1e-2, 1e-3, 1e-4)
WHOLE = 10**6  # a tile that no picture fills
EDGE = 2  # pixels on both sides of a tile's edge that count as near it


def near_edges(height: int, width: int, side: int) -> Tensor:
    """(H, W) bool: whether a pixel is near the edge of a tile with this side."""
    rows, cols = (torch.arange(length) % side for length in (height, width))
    near_row, near_col = ((at < EDGE) | (at >= side - EDGE) for at in (rows, cols))
    return near_row[:, None] | near_col[None, :]


@torch.no_grad()
def differences(model: DiffusionHyperprior, x: Tensor, lambda_rate: float, tile: int) -> dict[str, float]:
    """Return the greatest differences between the whole picture and its tiles; all levels are of 255."""
    latents = model.encode(x, [lambda_code(lambda_rate)])
    state = model.decoder_state(latents)
    y = model.analyse(x, latents.log2_delta, tile=tile)
    y_hat = model.sampler.sample(state, steps=1)
    whole, tiled = (
        255 * model.synthesise(y_hat, latents.log2_delta, x.shape[-2:], tile=side).clamp(0, 1)
        for side in (WHOLE, tile)
    )
    return {
        "lambda_rate": lambda_rate,
        "decoder": "K = 1",
        "latents_in_steps": ((y - latents.y).abs() / state.delta).max().item(),
        **picture_differences(whole, tiled, model.block * tile),
    }


@torch.no_grad()
def drawn_differences(
    model: DiffusionHyperprior, x: Tensor, lambda_rate: float, tile: int, steps: int
) -> dict[str, object]:
    """Return the same of the realism part's picture, around the same decoded one."""
    state = model.decoder_state(model.encode(x, [lambda_code(lambda_rate)]))
    conditions = model.realism_conditions(state, model.sampler.sample(state, steps=1))
    whole, tiled = (
        255 * replace(model.realism_sampler, tile=side).sample(conditions, steps=steps).clamp(0, 1)
        for side in (WHOLE, tile)
    )
    return {
        "lambda_rate": lambda_rate,
        "decoder": f"realism, K = {steps}",
        "latents_in_steps": None,
        **picture_differences(whole, tiled, model.block * tile),
    }


def picture_differences(whole: Tensor, tiled: Tensor, side: int) -> dict[str, float]:
    """Return the differences of two pictures (1, 3, H, W) in levels, the second of tiles with this side."""
    gap = (whole - tiled).abs().amax((0, 1))  # (H, W)
    seams = gap[near_edges(*gap.shape, side)]
    return {
        "picture_in_levels": gap.max().item(),
        "picture_near_seams_in_levels": seams.max().item(),
        "mean_in_levels": gap.mean().item(),
        "pixels_that_differ_after_rounding": (whole.round() != tiled.round()).float().mean().item(),
    }


def table(found: dict) -> str:
    """Return all figures as Markdown."""
    width, height = found["picture"]
    names = list(found["rows"][0])
    return page(
        heading(found, f"a picture of {width} x {height}", f"model {found['model_id']}"),
        markdown_table(
            [name.replace("_", " ") for name in names],
            [[_cell(row[name]) for name in names] for row in found["rows"]],
            align="r",
        ),
        found.get("note", ""),
    )


def _cell(value: float | str | None) -> str:
    return "" if value is None else value if isinstance(value, str) else f"{value:.3g}"


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the options."""
    parser = new_parser(__doc__, "tiling")
    parser.add_argument("--model_path", help="the shipped checkpoint if not given")
    parser.add_argument("--tile", type=int, default=32, help="side of a tile, in latents of 16 pixels")
    parser.add_argument("--width", type=int, default=1536, help="of the picture, in pixels")
    parser.add_argument("--height", type=int, default=1024)
    parser.add_argument("--steps", type=int, default=2, help="K of the drawn picture")
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Measure, print, write."""
    options = make_parser().parse_args(arguments)
    model = load_codec(options.model_path)
    x = mosaic(options.width, options.height)
    rows = [differences(model, x, rate, options.tile) for rate in LAMBDA_RATES]
    note = "This checkpoint has no realism part, whose pictures would have rows of their own."
    if model.realism is not None:
        note = ""
        rows += [drawn_differences(model, x, rate, options.tile, options.steps) for rate in LAMBDA_RATES]
    found = {
        "command": command_line(__file__, options, ["tile", "steps"]),
        **model_ids(model),
        "picture": [options.width, options.height],
        "tile": options.tile,
        "rows": rows,
        "note": note,
    }
    save(found, table(found), options.output)


if __name__ == "__main__":
    main()

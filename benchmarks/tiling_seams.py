"""Do the tiles into which a large picture is cut leave a seam?

    python benchmarks/tiling_seams.py [--model_path DIR] [--tile 32] [--output data/results/tiling.json]

Codes and decodes one photo whole and in tiles, prints the greatest differences and writes them as JSON and
Markdown: of the latents in quantiser steps, of the decoded picture in 8-bit levels, and the same within 2
pixels of a square's edge.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from codec_speed import mosaic
from saving import save

from dhp_lab.codec.bits.lambdas import lambda_code
from dhp_lab.codec.model import DiffusionHyperprior
from dhp_lab.codec.networks.lapped import BLOCK

ROOT = Path(__file__).resolve().parents[1]
LAMBDA_RATES = (1e-2, 1e-3, 1e-4)
SIZE = (1536, 1024)


@torch.no_grad()
def differences(
    model: DiffusionHyperprior, x: torch.Tensor, lambda_rate: float, tile: int
) -> dict[str, float]:
    """Greatest differences between the whole picture and its tiles; all levels are of 255."""
    latents = model.encode(x, [lambda_code(lambda_rate)])
    known, delta = model.known(latents), latents.log2_delta.exp2()
    y = model.analyse(x, latents.log2_delta, tile=tile)
    y_hat = model.denoise(known, steps=1)
    whole, parts = (
        255 * model.synthesise(y_hat, latents.log2_delta, x.shape[-2:], tile=t).clamp(0, 1)
        for t in (10**6, tile)
    )
    gap = (whole - parts).abs().amax((0, 1))  # (H, W)
    rows, cols = (torch.arange(side) % (BLOCK * tile) for side in gap.shape)
    near = [(edge < 2) | (edge >= BLOCK * tile - 2) for edge in (rows, cols)]
    seams = gap[near[0][:, None] | near[1][None, :]]
    return {
        "lambda_rate": lambda_rate,
        "latents_in_steps": ((y - latents.y).abs().max() / delta).item(),
        "picture_in_levels": gap.max().item(),
        "picture_near_seams_in_levels": seams.max().item(),
        "mean_in_levels": gap.mean().item(),
        "pixels_that_differ_after_rounding": ((whole.round() != parts.round()).float().mean()).item(),
    }


def table(found: dict) -> str:
    """Return all figures as Markdown."""
    names = list(found["rows"][0])
    lines = [
        f"`{found['command']}`, a picture of {found['picture'][0]} x {found['picture'][1]}; model {found['model_id']}",
        "",
        "| " + " | ".join(name.replace("_", " ") for name in names) + " |",
        "|---:" * len(names) + "|",
    ]
    return "\n".join(
        [*lines, *("| " + " | ".join(f"{row[name]:.3g}" for name in names) + " |" for row in found["rows"])]
    )


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model_path", default=str(ROOT / "data" / "checkpoints" / "diffusion-hyperprior"))
    parser.add_argument("--tile", type=int, default=32, help="side of a square in latents of 16 pixels")
    parser.add_argument("--output", type=Path, default=ROOT / "data" / "results" / "tiling.json")
    options = parser.parse_args()
    model = DiffusionHyperprior.from_pretrained(options.model_path)
    rows = [differences(model, mosaic(*SIZE), lambda_rate, options.tile) for lambda_rate in LAMBDA_RATES]
    command = f"python benchmarks/tiling_seams.py --tile {options.tile}"
    found = {
        "command": command,
        "model_id": model.model_id.hex(),
        "picture": SIZE,
        "tile": options.tile,
        "rows": rows,
    }
    save(found, table(found), options.output)


if __name__ == "__main__":
    main()

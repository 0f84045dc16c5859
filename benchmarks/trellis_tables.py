"""The constants of ``codec/networks/trellis_tables.py``: fitted to the levels that the encoder writes.

    python benchmarks/trellis_tables.py --data_path PHOTOS [--model_path DIR] [--crops 32] [--rounds 8]
                                        [--threads 1] [--output data/results/trellis_tables.json]

Crops of training photos are coded at six lambdas with the tables as they are; then weights, widths and half
zeros are moved to where the levels take the fewest bits, and the residuals are quantised again with the new
tables, which changes the levels: so several rounds. Prints for each round the bits of a level with the fitted
tables, the least that any tables with these rows could take (the levels' own entropy), and by how much the
cost, price * squared error + bits, has changed in % of the bits of the first round; and the constants.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from common import (
    add_machine_options,
    command_line,
    heading,
    load_codec,
    markdown_table,
    new_parser,
    page,
    save,
    set_threads,
)
from torch import Tensor

from dhp_lab.codec.bits.lambdas import lambda_code
from dhp_lab.codec.bits.scales import LEVELS, LOG2_SCALE_MIN, PER_OCTAVE, scale_indexes
from dhp_lab.codec.bits.trellis import PRICE, cheapest_path, path_of_values, values_of_path
from dhp_lab.codec.create import with_settings
from dhp_lab.codec.networks.trellis_tables import HALF_ZEROS, WEIGHTS, WIDTHS
from dhp_lab.codec.symbol_tables import SymbolTables
from dhp_lab.data.crops import PhotoCrops
from dhp_lab.data.images import list_images

LAMBDAS = (1e-2, 3e-3, 1e-3, 3e-4, 1e-4, 3e-5)
SIDE = 256
MOST = 120  # levels beyond are left out of the fit
OCTAVES = len(HALF_ZEROS[0])
LEAST_PROBABILITY = 2.0**-17
FIT_STEPS, FIT_RATE = 200, 0.03
SMOOTH = 1e-4  # weight of the squared differences between octaves


class Fit(torch.nn.Module):
    """Probabilities of levels, (2, LEVELS, MOST + 1) for sizes 0 .. MOST, as ``level_probabilities``."""

    def __init__(self) -> None:
        super().__init__()
        self.log_half_zeros = torch.nn.Parameter(torch.tensor(HALF_ZEROS, dtype=torch.float64).log())
        self.mixture = torch.nn.Parameter(torch.tensor([WEIGHTS[0], *WIDTHS], dtype=torch.float64))

    def forward(self) -> Tensor:
        """P(0), and P(k) + P(-k) for k = 1 .. MOST."""
        octave = torch.arange(LEVELS, dtype=torch.float64) / PER_OCTAVE
        below = octave.floor().clamp(max=OCTAVES - 2).long()
        half_zero = torch.lerp(self._at(below), self._at(below + 1), octave - below)  # (2, LEVELS)
        edges = torch.arange(MOST + 1, dtype=torch.float64) + torch.tensor([[0.5], [0.0]])
        edges = torch.cat([half_zero[..., None], edges[:, None, 1:].expand(-1, LEVELS, -1)], 2)
        distance = edges / (octave + LOG2_SCALE_MIN).exp2()[:, None]
        share, narrow, wide = self.mixture
        parts = ((share, narrow), (1 - share, wide))
        beyond = sum(w * torch.erfc(distance / (s * math.sqrt(2))) for w, s in parts)
        return torch.cat([1 - beyond[..., :1], -beyond.diff(dim=2)], 2).clamp(min=LEAST_PROBABILITY)

    def _at(self, octave: Tensor) -> Tensor:
        return self.log_half_zeros.exp()[:, octave]

    def bits(self, longest: int) -> np.ndarray:
        """What levels of size 0 .. longest - 1 cost, (2, LEVELS, longest); beyond MOST as the last."""
        with torch.no_grad():
            p = self()
            p[..., 1:] /= 2  # a level and its negative
            bits = -p.log2().float().numpy()
        return np.concatenate([bits, np.repeat(bits[..., -1:], longest - MOST - 1, 2)], 2)

    def improve(self, counts: Tensor) -> float:
        """Move to where levels with these counts take the fewest bits; returns how many, of one."""
        adam = torch.optim.Adam(self.parameters(), FIT_RATE)
        for step in range(FIT_STEPS):
            adam.param_groups[0]["lr"] = FIT_RATE * (1 - step / FIT_STEPS)
            bits = -(counts * self().log2()).sum() / counts.sum()
            adam.zero_grad()
            (bits + SMOOTH * self.log_half_zeros.diff(dim=1).square().sum()).backward()
            adam.step()
        return bits.item()


def residuals_of(model, pictures: Tensor) -> list[tuple[np.ndarray, np.ndarray]]:
    """For each lambda y/Delta - mean of what is coded, and the rows of its scales, in coding order."""
    found = []
    for lambda_rate in LAMBDAS:
        latents = model.encode(pictures, [lambda_code(lambda_rate)] * len(pictures))
        residuals, rows = [], []
        for group in model.context.groups(latents.first):
            of_group = (group.gather(t).mT for t in (latents.residual, latents.log2_scale))
            residual, log2_scale = of_group
            indexes = scale_indexes(log2_scale)
            usual = (indexes > 0) & (residual.abs() < MOST - 1)
            residuals.append(residual[usual])
            rows.append(indexes[usual])
        found.append((torch.cat(residuals).numpy(), torch.cat(rows).numpy()))
    return found


def quantise(found: list, bits: np.ndarray) -> tuple[Tensor, np.ndarray, np.ndarray]:
    """The counts (2, LEVELS, MOST + 1) of sizes, and each lambda's cost and bits."""
    counts, costs, spent = np.zeros((2, LEVELS, MOST + 1)), [], []
    for residual, rows in found:
        levels = cheapest_path(residual, rows, bits, PRICE)
        values = values_of_path(levels)
        _, quantisers = path_of_values(values)
        size = np.minimum(np.abs(levels), MOST)
        np.add.at(counts, (quantisers, rows, size), 1)
        spent.append(bits[quantisers, rows, size].sum())
        costs.append(PRICE * np.square(residual - values).sum() + spent[-1])
    return torch.from_numpy(counts), np.array(costs), np.array(spent)


def entropy(counts: Tensor) -> float:
    """Of a level, given quantiser and row, with the sign's bit left out."""
    share = counts / counts.sum(2, keepdim=True).clamp(min=1)
    return -(counts * share.clamp(min=1e-30).log2()).sum().item() / counts.sum().item()


def constants(fit: Fit) -> dict[str, list]:
    """What stands in ``trellis_tables.py``, rounded as there."""
    share, narrow, wide = fit.mixture.tolist()
    return {
        "WEIGHTS": [round(share, 2), round(1 - share, 2)],
        "WIDTHS": [round(narrow, 2), round(wide, 2)],
        "HALF_ZEROS": [[round(h, 2) for h in row] for row in fit.log_half_zeros.exp().tolist()],
    }


def table(found: dict) -> str:
    """Return all figures as Markdown."""
    heads = ["round", "bits of a level", "entropy", *(f"cost, {rate:g}" for rate in LAMBDAS)]
    rows = [
        [i, f"{row['bits']:.4f}", f"{row['entropy']:.4f}", *(f"{cost:+.2f} %" for cost in row["cost"])]
        for i, row in enumerate(found["rounds"])
    ]
    octaves = [f"1/{2 ** (3 - i)}" if i < 3 else f"{2 ** (i - 3)}" for i in range(OCTAVES)]
    fitted = found["constants"]
    zeros = [[f"quantiser {i}", *(f"{h:.2f}" for h in row)] for i, row in enumerate(fitted["HALF_ZEROS"])]
    mixture = " and ".join(
        f"{weight} with width {width}"
        for weight, width in zip(fitted["WEIGHTS"], fitted["WIDTHS"], strict=True)
    )
    return page(
        heading(found, f"{found['crops']} crops", f"the mixture fitted: {mixture}"),
        markdown_table(heads, rows, align="r"),
        "Half of a zero's width in steps, by the scale in steps:",
        markdown_table(["", *octaves], zeros),
    )


def make_parser() -> argparse.ArgumentParser:
    """Return the options."""
    parser = new_parser(__doc__, "trellis_tables")
    parser.add_argument("--data_path", type=Path, required=True, help="training photos")
    parser.add_argument("--model_path", type=Path, help="a checkpoint; the shipped one if not given")
    parser.add_argument("--crops", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=8)
    add_machine_options(parser, device=False)
    return parser


@torch.no_grad()
def main(arguments: Sequence[str] | None = None) -> None:
    """Fit, print and write."""
    options = make_parser().parse_args(arguments)
    set_threads(options)
    model = with_settings(load_codec(options.model_path), trellis=True).eval()
    pictures = PhotoCrops(list_images(options.data_path), SIDE, seed=1, cache_gb=0).batch(0, options.crops)
    found, fit = residuals_of(model, pictures), Fit()
    bits = SymbolTables(model.gaussian_conditional, model.entropy_bottleneck).level_bits
    rounds, first = [], None
    for _ in range(options.rounds):
        counts, costs, spent = quantise(found, bits)
        first = first or (costs, spent)
        cost = 100 * (costs - first[0]) / first[1]
        with torch.enable_grad():
            fitted = fit.improve(counts)
        rounds.append({"bits": fitted, "entropy": entropy(counts), "cost": cost.tolist()})
        bits = fit.bits(bits.shape[2])
    command = command_line(__file__, options, ("data_path", "model_path", "crops", "rounds"))
    result = {"command": command, "crops": options.crops, "model_id": model.model_id.hex()}
    result |= {"rounds": rounds, "constants": constants(fit)}
    save(result, table(result), options.output)


if __name__ == "__main__":
    main()

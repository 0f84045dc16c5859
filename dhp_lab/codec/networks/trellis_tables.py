r"""Probabilities of trellis-coded levels, for each scale and each of the two quantisers.

A level's probability is what the distribution of residuals has between two edges:

    p(r) = 0.9 N(r; 0, (0.85 s)^2) + 0.1 N(r; 0, (1.55 s)^2)
    edges: +-h, then half way between the values of neighbouring levels

h depends on scale and quantiser, because the encoder's path is the cheapest, not the nearest: where scales
are small zeros are wide, and where they are large quantiser 1 seldom takes the zero that lies between its
values of +-1/2. The numbers are fitted to the levels of crops of training photos, and the crops coded
again with them until both agree: ``benchmarks/trellis_tables.py``.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from dhp_lab.codec.bits.rans import CoderTables
from dhp_lab.codec.bits.scales import LEVELS, LOG2_SCALE_MIN, PER_OCTAVE
from dhp_lab.codec.networks.scale_mixture import ScaleMixtureConditional

WEIGHTS = (0.9, 0.1)
WIDTHS = (0.85, 1.55)  # in units of the predicted scale
# h in steps at scales 1/8, 1/4 .. 64, of quantisers 0 and 1
HALF_ZEROS = (
    (0.60, 0.69, 0.56, 0.48, 0.47, 0.46, 0.45, 0.45, 0.45, 0.45),
    (0.95, 0.28, 0.10, 0.12, 0.13, 0.16, 0.16, 0.16, 0.16, 0.16),
)
UNIT = 2**16  # of the coder's probabilities
ESCAPE_BITS = 4.0  # of each digit of a level outside a table, and of their number


class TrellisConditional(ScaleMixtureConditional):
    """CompressAI's ``GaussianConditional`` with 2 LEVELS tables: quantiser 0's, then quantiser 1's.

    ``_likelihood`` is that of the mixture with bins one step wide: what training minimises, where uniform
    noise takes the place of the trellis.
    """

    def update(self) -> None:
        """Make the tables, each up to the level that is less likely than ``tail_mass``."""
        most = -self._standardized_quantile(self.tail_mass / 2)
        center = torch.ceil(self.scale_table.cpu() * most).int().repeat(2)
        length, widest = 2 * center + 1, int(2 * center.max() + 1)
        pmf = torch.zeros(len(center), widest)
        for row, size in enumerate(center.tolist()):
            pmf[row, : 2 * size + 1] = level_probabilities(row % LEVELS, row // LEVELS, size)
        tail = (1 - pmf.sum(1, keepdim=True)).clamp(min=0)
        device = self.scale_table.device
        self._quantized_cdf = self._pmf_to_cdf(pmf, tail, length, widest).to(device)
        self._offset, self._cdf_length = -center.to(device), (length + 2).to(device)


def level_probabilities(row: int, quantiser: int, most: int) -> Tensor:
    """P(k) of the levels k = -most .. most for a scale of the table, float32.

    Args:
        row: of the scale, 0 .. LEVELS - 1. quantiser: 0 or 1.
    """
    octave = row / PER_OCTAVE
    half_zero = np.interp(octave, range(len(HALF_ZEROS[0])), HALF_ZEROS[quantiser])
    edges = torch.arange(most + 1, dtype=torch.float64) + 0.5 * (1 - quantiser)  # between k and k + 1
    edges[0] = half_zero
    scale = 2.0 ** (LOG2_SCALE_MIN + octave)
    beyond = torch.stack(
        [
            0.5 * w * torch.erfc(edges / (scale * s * math.sqrt(2)))
            for w, s in zip(WEIGHTS, WIDTHS, strict=True)
        ]
    ).sum(0)  # P(r > edge)
    sizes = -beyond.diff()  # P(k), k = 1 .. most
    return torch.cat([sizes.flip(0), 1 - 2 * beyond[:1], sizes]).float()


def level_bits(tables: CoderTables) -> np.ndarray:
    """What levels cost with tables of two quantisers: (2, LEVELS, W) float32, of sizes 0 .. W - 1."""
    widest = max(-offset for offset in tables.offsets) + 2
    bits = np.empty((len(tables.cdfs), widest), np.float32)
    sizes = np.arange(widest)
    for row, (cdf, length, offset) in enumerate(zip(*tables, strict=True)):
        counts = np.diff(np.array(cdf[:length], dtype=np.float64))
        cost = np.log2(UNIT / counts)
        most = -offset
        digits = np.floor(np.log2(np.maximum(2 * (sizes - most), 1)) / ESCAPE_BITS) + 1
        bits[row] = cost[-1] + ESCAPE_BITS * (1 + digits)
        bits[row, : most + 1] = cost[most : 2 * most + 1]
    return bits.reshape(2, LEVELS, widest)

r"""The shape of the symbols' distribution: a mixture of two Gaussians of one scale.

    p(r) = 0.8 N(r; 0, (0.8 s)^2) + 0.2 N(r; 0, (1.5 s)^2)

What remains of a latent after its prediction is more peaked and has heavier tails than a Gaussian, because
the predicted scale s is itself uncertain: a mixture over scales (Wainwright & Simoncelli 2000, "Scale
mixtures of Gaussians and the statistics of natural images"). Weights and widths are the same for every
latent, so a file needs no more side information and the coder no more tables: one for each s. The mixture's
variance is 0.962 s^2.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dhp_lab.core.compressai_imports import GaussianConditional

WEIGHTS = (0.8, 0.2)
WIDTHS = (0.8, 1.5)  # in units of the predicted scale


class ScaleMixtureConditional(GaussianConditional):
    """CompressAI's ``GaussianConditional`` with that mixture in the Gaussian's place."""

    def _standardized_cumulative(self, inputs: Tensor) -> Tensor:
        """The mixture's distribution function for s = 1."""
        parts = [
            weight * super(ScaleMixtureConditional, self)._standardized_cumulative(inputs / width)
            for weight, width in zip(WEIGHTS, WIDTHS, strict=True)
        ]
        return torch.stack(parts).sum(0)

    @staticmethod
    def _standardized_quantile(quantile: float) -> float:
        """A point beyond which, to the left, at most ``quantile`` (below 1e-2) lies: that of the wide part
        alone, as if it had all the mass.
        """
        return WIDTHS[-1] * GaussianConditional._standardized_quantile(quantile)

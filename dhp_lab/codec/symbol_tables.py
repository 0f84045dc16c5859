"""The probability tables of a model's two entropy models, in the forms that coders and encoder take."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from dhp_lab.codec.bits.rans import CoderTables, coder_tables
from dhp_lab.codec.bits.scales import SCALES
from dhp_lab.codec.bits.trellis_decoder import TableArrays
from dhp_lab.codec.config import CodecConfig
from dhp_lab.codec.networks.scale_mixture import ScaleMixtureConditional
from dhp_lab.codec.networks.trellis_tables import TrellisConditional, level_bits
from dhp_lab.core.compressai_imports import EntropyBottleneck, GaussianConditional


def conditional_of(config: CodecConfig) -> GaussianConditional:
    """The entropy model of y, without tables yet."""
    if config.trellis:
        kind = TrellisConditional
    else:
        kind = GaussianConditional if config.revision == 1 else ScaleMixtureConditional
    return kind(SCALES, scale_bound=SCALES[0])


class SymbolTables:
    """Tables as they are first needed; make another object when the entropy models have changed.

    Raises, each of them but ``level_bits``:
        ValueError: the tables have never been made (``update``).
    """

    def __init__(self, of_y: GaussianConditional, of_z: EntropyBottleneck) -> None:
        self.of_y, self.of_z = of_y, of_z

    @cached_property
    def y(self) -> CoderTables:
        """One row for each scale, with a trellis for each of two quantisers."""
        return coder_tables(self.of_y)

    @cached_property
    def z(self) -> CoderTables:
        """One row for each channel."""
        return coder_tables(self.of_z)

    @cached_property
    def y_arrays(self) -> TableArrays:
        """``y`` as arrays."""
        return TableArrays.of(self.y)

    @cached_property
    def level_bits(self) -> np.ndarray:
        """What a trellis's levels cost: (2, LEVELS, W), of sizes 0 .. W - 1. They depend on no weight, so a
        model that has no tables yet is trained with the same.
        """
        if self.of_y._quantized_cdf.numel():
            return level_bits(self.y)
        fresh = TrellisConditional(SCALES, scale_bound=SCALES[0])
        fresh.update()
        return level_bits(coder_tables(fresh))

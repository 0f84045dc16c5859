r"""lambda -> Delta -> sigma_q -> t*: how the trade-off on the slider becomes a diffusion time.

The loss is MSE + lambda * bpp (MSE of pictures in [0, 1]). A uniform quantiser of step Delta makes an error
of variance Delta^2/12, so in an orthonormal latent space d(MSE)/d(bpp) = -lambda is solved by Delta ~
sqrt(lambda): the curve starts at Delta = 5.1 sqrt(lambda) (Gish & Pierce 1968), one scalar gain for each
lambda (Cui et al. 2021, "Asymmetric gained deep image compression"). Training measures which steps are the
best and moves the curve there (``training.calibration``). The error's standard deviation is a noise level:

    sigma_q = Delta / sqrt(12),          t* = schedule.time_of(sigma_q / latent_scale)

A file carries lambda as a 16-bit code on a logarithmic scale (0.03 % apart). Everything that the entropy
decoder derives from it is computed in whole numbers: log2(Delta) is interpolated between knots in units of
2^-16, so every machine agrees on it to the last bit.

| symbol            | here                     | unit                       |
|-------------------|--------------------------|----------------------------|
| lambda            | ``lambda_rate``          | MSE per bpp, 1e-6 .. 1e-1  |
| code              | ``lambda_code(lambda)``  | 16 bits, 2048 an octave    |
| log2(Delta)       | ``GainCurve``            | octaves of latent units    |
| sigma_q           | ``quantisation_sigma``   | latent units               |
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from dhp_lab.codec.bits.lambdas import (
    CODE_MAX,
    CODES_PER_OCTAVE,
    FRACTION_BITS,
    OCTAVE_OFFSET,
    lambda_of,
)

START = 5.1  # Delta / sqrt(lambda) in an orthonormal latent space
KNOT_CODES = 2 * CODES_PER_OCTAVE  # a knot of the gain curve every second octave of lambda


def quantisation_sigma(delta: float | Tensor) -> float | Tensor:
    """Standard deviation of a uniform rounding error, Delta / sqrt(12) (Bennett 1948)."""
    return delta / math.sqrt(12)


class GainCurve(nn.Module):
    """log2(Delta) as a function of lambda: knots two octaves of lambda apart, linear between."""

    def __init__(self) -> None:
        super().__init__()
        count = CODE_MAX // KNOT_CODES + 2
        log2_lambda = torch.arange(count) * (KNOT_CODES / CODES_PER_OCTAVE) - OCTAVE_OFFSET
        self.knots = nn.Parameter(math.log2(START) + 0.5 * log2_lambda)

    def forward(self, lambda_rate: Tensor) -> Tensor:
        """log2(Delta) for training, (B,), differentiable in the knots; lambda_rate: (B,) in [1e-6, 1e-1]."""
        place = (lambda_rate.log2() + OCTAVE_OFFSET) * (CODES_PER_OCTAVE / KNOT_CODES)
        low = place.floor().long().clamp(0, len(self.knots) - 2)
        return torch.lerp(self.knots[low], self.knots[low + 1], (place - low).to(self.knots.dtype))

    def fixed_point(self, code: int) -> int:
        """log2(Delta) * 2^16 for a lambda code, in exact whole-number arithmetic.

        Raises:
            ValueError: a code outside those of [1e-6, 1e-1].
        """
        lambda_of(code)
        low, part = divmod(code, KNOT_CODES)
        knots = self.knots[low : low + 2].detach().double().tolist()
        left, right = (round(knot * 2**FRACTION_BITS) for knot in knots)
        return left + (right - left) * part // KNOT_CODES

    @contextmanager
    def held_at(self, log2_delta: float) -> Iterator[None]:
        """One step for every lambda, inside the block: to measure a codec at steps that no lambda has yet."""
        knots = self.knots.detach()
        before = knots.clone()
        try:
            knots.fill_(log2_delta)
            yield
        finally:
            knots.copy_(before)

"""The trade-off lambda as a 16-bit code on a logarithmic scale, 0.03 % apart; no torch."""

from __future__ import annotations

import math

LAMBDA_MIN, LAMBDA_MAX = 1e-6, 1e-1
CODES_PER_OCTAVE, OCTAVE_OFFSET = 2048, 20
FRACTION_BITS = 16  # log2(Delta) in whole multiples of 2^-16


def check_lambda(lambda_rate: float) -> float:
    """The value itself if it lies in [1e-6, 1e-1].

    Raises:
        ValueError: otherwise, naming the value.
    """
    if not (LAMBDA_MIN <= lambda_rate <= LAMBDA_MAX):
        raise ValueError(
            f"lambda_rate must lie in [{LAMBDA_MIN:g}, {LAMBDA_MAX:g}], got {lambda_rate}; "
            "larger gives a smaller file"
        )
    return float(lambda_rate)


def lambda_code(lambda_rate: float) -> int:
    """The 16-bit code of a trade-off: round(2048 (log2(lambda) + 20)).

    Raises:
        ValueError: lambda outside [1e-6, 1e-1].
    """
    return round(CODES_PER_OCTAVE * (math.log2(check_lambda(lambda_rate)) + OCTAVE_OFFSET))


def lambda_of(code: int) -> float:
    """The trade-off that a code stands for, 2^(code/2048 - 20), in [1e-6, 1e-1].

    Raises:
        ValueError: a code outside those of [1e-6, 1e-1].
    """
    if not (CODE_MIN <= code <= CODE_MAX):
        raise ValueError(f"a lambda code must lie in [{CODE_MIN}, {CODE_MAX}], got {code}")
    return min(
        max(2.0 ** (code / CODES_PER_OCTAVE - OCTAVE_OFFSET), LAMBDA_MIN), LAMBDA_MAX
    )  # both ends are rounded codes


CODE_MIN = lambda_code(LAMBDA_MIN)
CODE_MAX = lambda_code(LAMBDA_MAX)

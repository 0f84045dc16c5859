"""The largest file within a number of bytes."""

from __future__ import annotations

import math
from collections.abc import Callable

INTERPOLATIONS = 6  # before bisection takes over, which is never slow


def largest_within(encode: Callable[[int], bytes], low: int, high: int, n_bytes: int) -> bytes:
    """Return the largest file of at most n_bytes that a codec makes, by bisection over integer settings.

    Args:
        encode: setting -> file. Files grow with the setting; where a larger setting gives a file that is
            smaller by a few bytes, the result may be that much below the largest.
        low, high: the range of settings, both included.
        n_bytes: the limit.

    Returns:
        The file; that of ``low`` where even it is larger than n_bytes.
    """
    best = encode(low)
    if len(best) > n_bytes:
        return best
    while low < high:
        middle = (low + high + 1) // 2
        file = encode(middle)
        if len(file) <= n_bytes:
            low, best = middle, file
        else:
            high = middle - 1
    return best


def largest_within_near(
    encode: Callable[[int], bytes], low: int, high: int, n_bytes: int, *, start: int, step: int
) -> bytes:
    """As ``largest_within``, where the setting is known roughly: half as many files, and none far larger.

    Steps from ``start`` until one file fits and another is too large, then interpolates the logarithm of the
    size between them.

    Args:
        encode, low, high, n_bytes: as for ``largest_within``.
        start: the setting to try first, low .. high. step: how far apart the first settings lie, at least 1.
    """
    fitting, larger = None, None  # (setting, file): the largest that fits, the smallest that is too large
    setting, tries = start, 0
    while True:
        file = encode(setting)
        if len(file) <= n_bytes:
            fitting = setting, file
        else:
            larger = setting, file
        if not larger:
            if setting == high:
                return file
            setting = min(setting + step, high)
        elif not fitting:
            if setting == low:
                return file
            setting = max(setting - step, low)
        elif larger[0] - fitting[0] == 1:
            return fitting[1]
        else:
            tries += 1
            setting = _between(fitting, larger, n_bytes, by_size=tries <= INTERPOLATIONS)


def _between(fitting: tuple[int, bytes], larger: tuple[int, bytes], n_bytes: int, *, by_size: bool) -> int:
    """A setting between two others: where the logarithm of the size reaches n_bytes, or in the middle."""
    (low, small), (high, large) = fitting, larger
    share = 0.5
    if by_size and small:
        share = math.log(n_bytes / len(small)) / math.log(len(large) / len(small))
    return min(max(low + int(share * (high - low)), low + 1), high - 1)

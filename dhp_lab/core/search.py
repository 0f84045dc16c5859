"""The largest file within a number of bytes."""

from __future__ import annotations

from collections.abc import Callable


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

"""The exercises of the lesson on the scale hyperprior."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from statistics import NormalDist

import numpy as np

from dhp_lab.notebook.exercises import Case, exercise


@exercise
def cross_entropy() -> Iterator[Case]:
    """Return the mean bits for symbols of probabilities p, coded with a table q: cross_entropy(p, q)."""
    coin = np.array([0.5, 0.5])
    yield Case(
        {"p": coin, "q": coin},
        1.0,
        hint="with the right table it is the entropy, and a fair coin has one bit",
    )
    four = np.array([0.5, 0.25, 0.125, 0.125])
    yield Case(
        {"p": four, "q": four},
        1.75,
        hint="a symbol costs log2(1 / q); weigh the costs by how often they are paid",
    )
    wrong = "the data decide how often a symbol comes, the table what it costs: sum p log2(1 / q)"
    yield Case({"p": four, "q": np.full(4, 0.25)}, 2.0, hint=wrong)
    yield Case(
        {"p": np.array([0.75, 0.25]), "q": np.array([0.25, 0.75])}, 1.5 + 0.25 * math.log2(4 / 3), hint=wrong
    )
    zero = (
        "a symbol that never comes costs nothing, whatever its probability in the table: 0 log 0 counts as 0"
    )
    yield Case({"p": np.array([1.0, 0.0]), "q": np.array([0.5, 0.5])}, 1.0, hint=zero)
    yield Case({"p": np.array([1.0, 0.0]), "q": np.array([1.0, 0.0])}, 0.0, hint=zero)
    never = "a symbol that comes, but has no room in the table, cannot be coded at all: return infinity"
    yield Case({"p": coin, "q": np.array([1.0, 0.0])}, math.inf, hint=never)
    draws = np.random.default_rng(0).choice(4, 200_000, p=four)
    table = np.array([0.1, 0.2, 0.3, 0.4])
    measured = "measured: the mean cost of 200 000 symbols drawn by p"
    yield Case({"p": four, "q": table}, float(-np.log2(table[draws]).mean()), hint=measured, tolerance=0.01)


@exercise
def pop() -> Iterator[Case]:
    """Return the symbol on top of an rANS state and the state below it: pop(state, table, precision)."""
    four = [0, 8, 12, 14, 16]
    slot = (
        "29 is 1 * 16 + 13: place 13 lies in the part of symbol 2, and the state before was 2 * 1 + (13 - 12)"
    )
    yield Case({"state": 29, "table": four, "precision": 4}, (2, 3), hint=slot, tolerance=1e-9)
    first = "a part holds its first place and not its end: place 8 is the second symbol's, number 1"
    yield Case({"state": 24, "table": four, "precision": 4}, (1, 4), hint=first, tolerance=1e-9)
    back = "undo the push: frequency * (state >> precision), and how far into its part the place lies"
    yield Case({"state": 100, "table": four, "precision": 4}, (0, 52), hint=back, tolerance=1e-9)
    yield Case({"state": 5, "table": four, "precision": 4}, (0, 5), hint=back, tolerance=1e-9)
    size = "this table has 2^3 places, and a symbol with seven of them"
    yield Case({"state": 59, "table": [0, 1, 8], "precision": 3}, (1, 51), hint=size, tolerance=1e-9)
    searched = "found by pushing every symbol on every smaller state, until one gave this state"
    yield Case(
        {"state": 4001, "table": four, "precision": 4},
        _pushed_to(4001, four, 4),
        hint=searched,
        tolerance=1e-9,
    )


@exercise
def latent_bits() -> Iterator[Case]:
    """Return the bits of a latent y that is sent as round(y - mean), for a normal density: latent_bits(y,
    mean, scale).
    """
    middle = (
        "the symbol is 0; its probability is that of -1/2 .. 1/2: a whole step, not the height of the density"
    )
    yield Case({"y": 0.2, "mean": 0.0, "scale": 1.0}, -math.log2(math.erf(0.5 / math.sqrt(2))), hint=middle)
    wide = "the ends of the step count in units of the scale: divide by it"
    yield Case(
        {"y": 0.0, "mean": 0.0, "scale": 3.0}, -math.log2(math.erf(0.5 / (3 * math.sqrt(2)))), hint=wide
    )
    two = (
        "here the symbol is 2: the probability of 1.5 .. 2.5, by the "
        "difference of two values of the distribution function"
    )
    yield Case(
        {"y": 1.9, "mean": 0.0, "scale": 1.0},
        -math.log2(NormalDist().cdf(2.5) - NormalDist().cdf(1.5)),
        hint=two,
    )
    even = "the density is even, so -2 costs as much as 2"
    yield Case(
        {"y": -1.9, "mean": 0.0, "scale": 1.0},
        -math.log2(NormalDist().cdf(2.5) - NormalDist().cdf(1.5)),
        hint=even,
    )
    mean = "first take the mean away, then round: y = 7.4 with a mean of 7.3 is sent as 0"
    yield Case({"y": 7.4, "mean": 7.3, "scale": 0.5}, -math.log2(math.erf(1 / math.sqrt(2))), hint=mean)
    yield Case({"y": 7.6, "mean": 7.2, "scale": 0.5}, -math.log2(math.erf(1 / math.sqrt(2))), hint=mean)
    draws = np.rint(np.random.default_rng(0).normal(0.0, 2.0, 400_000))
    share = float((draws == -3).mean())
    measured = "measured: how often the symbol -3 came among 400 000 draws"
    yield Case({"y": 1.1, "mean": 4.0, "scale": 2.0}, -math.log2(share), hint=measured, tolerance=0.01)


def _pushed_to(state: int, table: list[int], precision: int) -> tuple[int, int]:
    """The only symbol and smaller state whose push gives this state, by brute force."""
    for symbol, (start, end) in enumerate(pairwise(table)):
        for before in range(state):
            if (before // (end - start) << precision) + start + before % (end - start) == state:
                return symbol, before
    raise AssertionError(f"no push gives {state}")

"""The exercises of the lesson on entropy coding."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import torch

from dhp_lab.codec.bits.rans import CoderTables, rans_encode
from dhp_lab.lessons.entropy_coding import sources
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
        hint="a symbol has a code length of log2(1 / q); weigh the lengths by how often they are used",
    )
    wrong = "the data decide how often a symbol comes, the table its length: sum p log2(1 / q)"
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
    measured = "measured: the mean code length of 200 000 symbols drawn by p"
    yield Case({"p": four, "q": table}, float(-np.log2(table[draws]).mean()), hint=measured, tolerance=0.01)


@exercise
def decode_rans() -> Iterator[Case]:
    """Return the first n symbols that rANS has coded, all with one table: decode_rans(data, sums, n)."""
    half = [0, 2**15, 2**16]
    slot = "the state is the first 8 bytes, little-endian; its lowest 16 bits name the first symbol"
    yield _coded(half, [1, 0, 1, 1], hint=slot)
    uneven = [0, 40_000, 60_000, 65_000, 2**16]
    undo = "undo the push: frequency * (state >> 16), and how far into its part the place lies"
    yield _coded(uneven, [0, 2, 0, 1, 3, 0], hint=undo)
    refill = "below 2^31 the state takes in the next word: state * 2^32 + the next 4 bytes, little-endian"
    yield _coded(uneven, [3, 2, 3, 1, 0, 2, 3, 3, 2, 1, 3, 3], hint=refill)
    draws = np.random.default_rng(0)
    yield _coded(uneven, draws.integers(0, 4, 300).tolist(), hint=refill)
    more = "the stream may hold more symbols than you are asked for"
    yield _coded(half, draws.integers(0, 2, 200).tolist(), 150, hint=more)
    # a state whose lowest bits are where a part begins
    data = (2**40 + 40_000).to_bytes(8, "little")
    border = "a part holds its first place and not its end: place 40000 is the second symbol's, number 1"
    yield Case({"data": data, "sums": uneven, "n": 1}, np.array([1]), hint=border)


@exercise
def pixel_model() -> Iterator[Case]:
    """Return mean and scale of each pixel, from its decoded neighbours: pixel_model(west, north, north_west,
    north_east).
    """
    hint = "one scale for all pixels wastes bits: take it larger where the neighbours differ"
    yield _photo_to_code("astronaut", 4.60, hint)
    yield _photo_to_code("coffee", 3.95, "the same function for another photo: did you fit it to one alone?")


def _coded(sums: list[int], symbols: list[int], n: int | None = None, *, hint: str) -> Case:
    """Symbols as CompressAI's coder writes them; its last symbol, the escape, gets no room."""
    tables = CoderTables([[*sums, sums[-1]]], [len(sums) + 1], [0])
    rows = torch.zeros(len(symbols), dtype=torch.int32)
    data = rans_encode(torch.tensor(symbols, dtype=torch.int32), rows, tables)
    n = len(symbols) if n is None else n
    return Case({"data": data, "sums": sums, "n": n}, np.array(symbols[:n]), hint=hint)


def _photo_to_code(name: str, goal: float, hint: str) -> Case:
    pixels = sources.grey_photo(name)
    arguments = sources.neighbours(pixels)._asdict()
    return Case(arguments, goal, hint=hint, tolerance=1e-6, measure=_bits_per_pixel(pixels, goal))


def _bits_per_pixel(pixels: np.ndarray, goal: float) -> Callable[[object], object]:
    """From a mean and a scale for each pixel to the bits per pixel of a real file, or the goal if that is
    more.
    """

    def measure(result: object) -> object:
        if not isinstance(result, tuple) or len(result) != 2:
            return result
        mean, scale = (np.broadcast_to(np.asarray(part, float), pixels.shape) for part in result)
        if not (np.isfinite(mean).all() and np.isfinite(scale).all()):
            return math.inf
        symbols = np.rint(pixels - mean.clip(0, 255)).astype(np.int64)
        return max(goal, 8 * len(sources.gaussian_bytes(symbols, scale)) / pixels.size)

    return measure

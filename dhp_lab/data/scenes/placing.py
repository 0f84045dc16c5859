"""Random scenes from a seed: what they show, where it lies, and batches of them with their captions.

| word     | in the picture                                                                      |
|----------|-------------------------------------------------------------------------------------|
| colour   | ``drawing.RGB``; no two shapes of a scene share one                                 |
| size     | the radius of the circle of the same area: ``drawing.RADII``, in pixels             |
| relation | the centroids are ``GAP`` or more apart along the named axis, and at most ``SLOPE`` |
|          | times as far across it                                                              |

Shapes keep ``SPACE`` pixels between them and ``MARGIN`` to the border.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from dhp_lab.data.scenes.drawing import (
    BACKGROUNDS,
    DIRECTIONS,
    RADII,
    SIDE,
    Scene,
    Shape,
    apothem,
    caption,
    draw_all,
)
from dhp_lab.data.scenes.grammar import (
    COLOURS,
    KINDS,
    MAX_SHAPES,
    RELATIONS,
    SIZES,
    CaptionedShape,
)

MARGIN = 3.0  # pixels between a shape and the border
SPACE = 3.0  # pixels between two shapes
GAP = 22.0  # pixels between two related centroids along the named axis, at least
SLOPE = 0.75  # of that distance, what they may be apart across it

Reach = tuple[float, float]
"""Pixels from a shape's centroid to its smallest and to its largest coordinate, both positive."""


def scene(seed: int | torch.Generator) -> Scene:
    """A random scene of 1 to 3 shapes; every number, word and background is equally likely.

    Whether the caption names a shape's size is as likely as not.

    Args:
        seed: gives always the same scene; a generator (on the CPU) gives another one at each call.
    """
    dice = _Dice(seed if isinstance(seed, torch.Generator) else torch.Generator().manual_seed(seed))
    count = 1 + dice.below(MAX_SHAPES)
    colours = dice.some(COLOURS, count)
    sizes = [dice.one(SIZES) for _ in colours]
    captioned = [
        CaptionedShape(colour, dice.one(KINDS), dice.one((size, None)))
        for colour, size in zip(colours, sizes, strict=True)
    ]
    radii = [dice.between(*RADII[size]) for size in sizes]
    relation = dice.one(RELATIONS) if count > 1 else None
    reaches = [_reach(shape.kind, radius) for shape, radius in zip(captioned, radii, strict=True)]
    centroids = _related(reaches, relation, dice) if relation else [_anywhere(reaches[0], dice)]
    shapes = [
        Shape(shape, x, y, radius) for shape, (x, y), radius in zip(captioned, centroids, radii, strict=True)
    ]
    return Scene(tuple(shapes), relation, dice.below(len(BACKGROUNDS)))


def batch(count: int, seed: int) -> tuple[Tensor, list[str]]:
    """Pictures and their captions: a function of the seed, of which a smaller count gives the first ones.

    Args:
        count: at least 1.
        seed: of the batch.

    Returns:
        (count, 3, 64, 64) float32 in [0, 1], and as many captions.

    Raises:
        ValueError: a count below 1.
    """
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}")
    generator = torch.Generator().manual_seed(seed)
    scenes = [scene(generator) for _ in range(count)]
    return draw_all(scenes), [caption(one) for one in scenes]


def _reach(kind: str, radius: float) -> tuple[Reach, Reach]:
    """How far a shape extends along x and along y."""
    if kind == "circle":
        return (radius, radius), (radius, radius)
    a = apothem(kind) * radius
    if kind == "square":
        return (a, a), (a, a)
    half_side = math.sqrt(3) * a
    return (half_side, half_side), (2 * a, a)


def _anywhere(reach: tuple[Reach, Reach], dice: _Dice) -> tuple[float, float]:
    """A centroid (x, y) that keeps the margins."""
    x, y = (dice.between(MARGIN + low, SIDE - MARGIN - high) for low, high in reach)
    return x, y


def _related(reaches: list[tuple[Reach, Reach]], relation: str, dice: _Dice) -> list[tuple[float, float]]:
    """Centroids (x, y) that satisfy the relation, the margins and the gaps, by rejection sampling.

    All is computed for "left of" and "above"; "right of" and "below" are their mirror images.
    """
    axis = 0 if DIRECTIONS[relation][0] else 1
    mirrored = sum(DIRECTIONS[relation]) > 0
    along = [reach[axis][::-1] if mirrored else reach[axis] for reach in reaches]
    across = [reach[1 - axis] for reach in reaches]
    v = None
    while v is None:
        u = _place_along(along, dice)
        distances = [other - u[0] for other in u[1:]]
        v = _place_across(across, distances, dice)
    if mirrored:
        u = [SIDE - coordinate for coordinate in u]
    return list(zip(u, v, strict=True) if axis == 0 else zip(v, u, strict=True))


def _place_along(reaches: list[Reach], dice: _Dice) -> list[float]:
    """Coordinates along the named axis: the first shape before all others."""
    first, *others = reaches
    gaps = [max(GAP, first[1] + other[0] + SPACE) for other in others]
    ends = [SIDE - MARGIN - other[1] for other in others]
    latest = min(end - gap for end, gap in zip(ends, gaps, strict=True))
    start = dice.between(MARGIN + first[0], latest)
    return [start, *(dice.between(start + gap, end) for end, gap in zip(ends, gaps, strict=True))]


def _place_across(reaches: list[Reach], distances: list[float], dice: _Dice) -> list[float] | None:
    """Coordinates across the named axis, or None if the first shape finds no place.

    The others keep clear of each other; the first is within ``SLOPE`` times its distance along the axis of
    each of them.
    """
    order = dice.some(range(1, len(reaches)), len(reaches) - 1)  # of the others, by coordinate
    v = {}
    start = 0.0
    for i, following in zip(order, [*order[1:], None], strict=True):
        if following is None:
            gap = 0.0
            end = SIDE - MARGIN - reaches[i][1]
        else:
            gap = reaches[i][1] + SPACE + reaches[following][0]
            end = SIDE - MARGIN - reaches[following][1] - gap
        v[i] = dice.between(max(MARGIN + reaches[i][0], start), end)
        start = v[i] + gap
    low = max(MARGIN + reaches[0][0], *(v[i] - SLOPE * distances[i - 1] for i in v))
    high = min(SIDE - MARGIN - reaches[0][1], *(v[i] + SLOPE * distances[i - 1] for i in v))
    if low > high:
        return None
    return [dice.between(low, high), *(v[i] for i in sorted(v))]


class _Dice:
    """Random choices from one generator, as plain Python values."""

    def __init__(self, generator: torch.Generator) -> None:
        self.generator = generator

    def between(self, low: float, high: float) -> float:
        """Uniform in [low, high)."""
        return low + (high - low) * torch.rand((), generator=self.generator).item()

    def below(self, end: int) -> int:
        """One of 0 .. end - 1."""
        return int(torch.randint(end, (), generator=self.generator))

    def one(self, choices: Sequence):
        """One of the choices."""
        return choices[self.below(len(choices))]

    def some(self, choices: Sequence, count: int) -> list:
        """Different choices, in random order."""
        order = torch.randperm(len(choices), generator=self.generator)
        return [choices[i] for i in order[:count].tolist()]

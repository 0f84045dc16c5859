"""Scenes at random, by a seed: what they show, where it lies, and batches of them with their captions.

| word     | in the picture                                                                                          |
|----------|---------------------------------------------------------------------------------------------------------|
| colour   | ``drawing.RGB``; no two shapes of a scene share one                                                     |
| size     | the radius of the circle of the same area: ``drawing.RADII``, in pixels                                 |
| relation | the centroids are ``GAP`` or more apart along the named axis, and at most ``SLOPE`` times as far across |

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
    MAX_THINGS,
    RELATIONS,
    SIZES,
    CaptionedShape,
)

MARGIN, SPACE, GAP, SLOPE = 3.0, 3.0, 22.0, 0.75


def scene(seed: int | torch.Generator) -> Scene:
    """A scene drawn at random: as often 1 as 2 and 3 shapes; every word, and whether a size is said, equally
    likely.

    Args:
        seed: gives always the same scene; a generator (on the CPU) gives another one at each call.
    """
    dice = _Dice(seed if isinstance(seed, torch.Generator) else torch.Generator().manual_seed(seed))
    colours = dice.some(COLOURS, 1 + dice.below(MAX_THINGS))
    sizes = [dice.one(SIZES) for _ in colours]
    things = [
        CaptionedShape(colour, dice.one(KINDS), dice.one((size, None)))
        for colour, size in zip(colours, sizes, strict=True)
    ]
    radii = [dice.between(*RADII[size]) for size in sizes]
    relation = dice.one(RELATIONS) if len(things) > 1 else None
    reach = [_reach(thing.kind, radius) for thing, radius in zip(things, radii, strict=True)]
    places = _related(reach, relation, dice) if relation else [[_inside(r, dice) for r in reach[0]]]
    shapes = [
        Shape(thing, *place, radius) for thing, place, radius in zip(things, places, radii, strict=True)
    ]
    return Scene(tuple(shapes), relation, dice.below(len(BACKGROUNDS)))


def batch(count: int, seed: int) -> tuple[Tensor, list[str]]:
    """Pictures and their captions: a function of the seed, of which a smaller count gives the first ones.

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


# where the shapes lie
Reach = tuple[float, float]  # from the centroid to the smallest and to the largest coordinate, both positive


def _reach(kind: str, radius: float) -> tuple[Reach, Reach]:
    """How far a shape extends along x and along y, in pixels."""
    if kind == "circle":
        return (radius, radius), (radius, radius)
    a, half = apothem(kind) * radius, math.sqrt(3) * apothem(kind) * radius
    return ((a, a), (a, a)) if kind == "square" else ((half, half), (2 * a, a))


def _inside(reach: Reach, dice: _Dice) -> float:
    return dice.between(MARGIN + reach[0], SIDE - MARGIN - reach[1])


def _related(reach: list[tuple[Reach, Reach]], relation: str, dice: _Dice) -> list[tuple[float, float]]:
    """Centroids (x, y) that satisfy the relation, the margins and the gaps: drawn anew until they do."""
    axis = 0 if DIRECTIONS[relation][0] else 1
    mirrored = sum(DIRECTIONS[relation]) > 0  # right of, below: as left of and above, seen in a mirror
    along, across = [r[axis][::-1] if mirrored else r[axis] for r in reach], [r[1 - axis] for r in reach]
    v = None
    while v is None:
        u = _apart(along, dice)
        v = _beside(across, [other - u[0] for other in u[1:]], dice)
    u = [SIDE - one for one in u] if mirrored else u
    return list(zip(u, v, strict=True) if axis == 0 else zip(v, u, strict=True))


def _apart(reach: list[Reach], dice: _Dice) -> list[float]:
    """Along the named axis: the first thing before all others."""
    first, others = reach[0], reach[1:]
    gaps = [max(GAP, first[1] + other[0] + SPACE) for other in others]
    ends = [SIDE - MARGIN - other[1] for other in others]
    u = dice.between(MARGIN + first[0], min(end - gap for end, gap in zip(ends, gaps, strict=True)))
    return [u, *(dice.between(u + gap, end) for end, gap in zip(ends, gaps, strict=True))]


def _beside(reach: list[Reach], distances: list[float], dice: _Dice) -> list[float] | None:
    """Across it: the others clear of each other, the first nearer to each than along the axis; None if that
    cannot be.
    """
    others = dice.some(range(1, len(reach)), len(reach) - 1)  # in the order in which they lie
    v, start = {}, 0.0
    for i, after in zip(others, [*others[1:], None], strict=True):
        gap = 0 if after is None else reach[i][1] + SPACE + reach[after][0]
        end = SIDE - MARGIN - reach[i if after is None else after][1] - gap
        v[i] = dice.between(max(MARGIN + reach[i][0], start), end)
        start = v[i] + gap
    low = max(MARGIN + reach[0][0], *(v[i] - SLOPE * distances[i - 1] for i in v))
    high = min(SIDE - MARGIN - reach[0][1], *(v[i] + SLOPE * distances[i - 1] for i in v))
    return None if low > high else [dice.between(low, high), *(v[i] for i in sorted(v))]


class _Dice:
    """Choices at random, in plain Python values."""

    def __init__(self, generator: torch.Generator) -> None:
        self.generator = generator

    def between(self, low: float, high: float) -> float:
        return low + (high - low) * torch.rand((), generator=self.generator).item()

    def below(self, end: int) -> int:
        return int(torch.randint(end, (), generator=self.generator))

    def one(self, choices: Sequence):
        return choices[self.below(len(choices))]

    def some(self, choices: Sequence, count: int) -> list:
        return [choices[i] for i in torch.randperm(len(choices), generator=self.generator)[:count].tolist()]

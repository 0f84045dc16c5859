"""Scenes against geometry by hand, captions against all that the grammar can say, the checks against the
scenes themselves.
"""

from __future__ import annotations

import math
from collections import Counter
from itertools import combinations

import numpy as np
import pytest
import torch
from drawn_scenes import BLUE, RED, box, corners, lies, many
from scipy.stats import chisquare

from dhp_lab.data.scenes import (
    BACKGROUNDS,
    KINDS,
    RGB,
    WORDS,
    CaptionedShape,
    Scene,
    Shape,
    batch,
    caption,
    coverage,
    draw,
    scene,
)
from dhp_lab.data.scenes.drawing import RADII
from dhp_lab.data.scenes.placing import GAP, MARGIN, SLOPE, SPACE

PINNED = [
    "a yellow circle above a large purple triangle and a large blue circle",
    "a large cyan triangle right of a red triangle",
    "a small yellow square",
    "a blue square above a yellow square",
]


# the scenes


def test_a_seed_is_a_scene_everywhere_and_nothing_else_counts():
    torch.manual_seed(5)
    first = [scene(seed) for seed in range(4)]
    state = torch.get_rng_state()
    torch.manual_seed(6)
    assert [scene(seed) for seed in range(4)] == first and len({one.shapes[0].x for one in first}) == 4
    assert [caption(one) for one in first] == PINNED
    torch.manual_seed(5)
    scene(0), batch(3, 0)
    assert torch.equal(torch.get_rng_state(), state), "the global generator is left alone"


def test_shapes_keep_to_themselves_and_the_relation_is_unmistakable():
    for one in many()[0]:
        boxes = [box(shape) for shape in one.shapes]
        for left, right, top, bottom in boxes:
            assert min(left, top) >= MARGIN - 1e-6 and max(right, bottom) <= 64 - MARGIN + 1e-6
        for a, b in combinations(boxes, 2):
            assert max(b[0] - a[1], a[0] - b[1], b[2] - a[3], a[2] - b[3]) >= SPACE - 1e-6
        first, *others = one.shapes
        for other in others:
            apart = (
                abs(first.x - other.x) if one.relation in ("left of", "right of") else abs(first.y - other.y)
            )
            assert lies(one.relation, first, other, SLOPE + 1e-6) and apart >= GAP - 1e-6 > 64 / 3


def test_what_is_drawn_at_random_is_drawn_fairly():
    """Five chi-square tests of one fixed seed: of fair dice, one seed in 200 would fail."""
    scenes = many()[0]
    shapes = [shape for one in scenes for shape in one.shapes]
    for seen, kinds in (
        ([len(one.shapes) for one in scenes], 3),
        ([one.background for one in scenes], len(BACKGROUNDS)),
        ([one.relation for one in scenes if one.relation], 4),
        ([shape.captioned.colour for shape in shapes], 6),
        ([(shape.captioned.kind, shape.size, shape.captioned.size is None) for shape in shapes], 12),
    ):
        counts = Counter(seen)
        assert len(counts) == kinds and chisquare(list(counts.values())).pvalue > 1e-3
    for shape in shapes:
        assert (
            shape.captioned.size in (None, shape.size)
            and RADII[shape.size][0] <= shape.radius <= RADII[shape.size][1]
        )


def share_inside(shape: Shape, fine: int = 32) -> np.ndarray:
    """Each pixel's share of fine x fine points that lie inside the shape, by its corners."""
    points = (np.arange(64 * fine) + 0.5) / fine
    x, y = points, points[:, None]
    if shape.captioned.kind == "circle":
        inside = (x - shape.x) ** 2 + (y - shape.y) ** 2 <= shape.radius**2
    else:
        ring = (
            corners(shape)
            if shape.captioned.kind == "triangle"
            else [corners(shape)[i] for i in (0, 1, 3, 2)]
        )
        sides = zip(ring, ring[1:] + ring[:1], strict=True)
        left = [(bx - ax) * (y - ay) > (by - ay) * (x - ax) for (ax, ay), (bx, by) in sides]
        inside = np.all(left, axis=0) | ~np.any(left, axis=0)
    return inside.reshape(64, fine, 64, fine).mean((1, 3))


@pytest.mark.parametrize("x, y", [(30.3, 27.6), (30.5, 27.877)])
@pytest.mark.parametrize("kind", KINDS)
def test_coverage_by_counting_points(kind, x, y):
    """Where the distance may differ from the covered area, and by how much.

    Along a straight side with normal (c, s) most at d = 0.5: (|c| + |s| - 1)^2 / 8|cs|, at most 0.0429, at 45
    degrees; a circle's bend adds 1 / 24r. At a corner most where the triangle's tip lies t = 0.07 below a
    pixel's centre (the second place): 0.5 - t / 2 against tan(30) (0.5 - t)^2, by 0.358. All in all the shape
    grows by 1 / 12a^2, a its apothem.
    """
    shape = Shape(CaptionedShape("red", kind), x, y, 9.2)
    ours, counted = coverage([shape])[0].double().numpy(), share_inside(shape)
    middle = np.arange(64) + 0.5
    near = np.min([np.hypot(middle - i, middle[:, None] - j) for i, j in corners(shape)], axis=0) < 1.5
    near &= kind != "circle"
    assert np.abs(ours - counted)[~near].max() < 0.05 and np.abs(ours - counted).max() < 0.36
    assert ours.sum() == pytest.approx(math.pi * shape.radius**2, rel=0.005)
    assert (ours.sum(0) @ middle / ours.sum(), ours.sum(1) @ middle / ours.sum()) == pytest.approx(
        (x, y), abs=0.05
    )


def test_a_picture_is_its_background_and_its_shapes():
    made = Scene((Shape(RED, 20, 20, 9), Shape(BLUE, 44, 40, 6)), "above", background=3)
    picture = draw(made)
    assert (
        picture.shape == (3, 64, 64)
        and picture.dtype == torch.float32
        and picture.min() >= 0
        and picture.max() <= 1
    )
    for (row, column), colour in {
        (20, 20): RGB["red"],
        (40, 44): RGB["blue"],
        (60, 5): BACKGROUNDS[3],
    }.items():
        assert (picture[:, row, column] - torch.tensor(colour)).abs().max() < 1e-6
    red, blue = coverage(made.shapes)
    parts = ((1 - red - blue, BACKGROUNDS[3]), (red, RGB["red"]), (blue, RGB["blue"]))
    mixed = sum(share * torch.tensor(colour)[:, None, None] for share, colour in parts)
    assert (picture - mixed).abs().max() < 1e-6
    covered = draw(Scene((Shape(RED, 30, 30, 6), Shape(BLUE, 30, 30, 9)), "above"))
    assert (covered[:, 30, 30] - torch.tensor(RGB["blue"])).abs().max() < 1e-6, "the later lies in front"


def test_a_batch_is_its_scenes_one_by_one():
    generator = torch.Generator().manual_seed(7)
    scenes = [scene(generator) for _ in range(12)]
    pictures, captions = batch(12, 7)
    assert torch.equal(pictures, torch.stack([draw(one) for one in scenes])) and captions == [
        caption(one) for one in scenes
    ]
    fewer = batch(5, 7)
    assert torch.equal(fewer[0], pictures[:5]) and fewer[1] == captions[:5] and batch(12, 8)[1] != captions
    assert pictures.shape == (12, 3, 64, 64) and {word for text in many()[2] for word in text.split()} == set(
        WORDS
    )

"""Two thousand scenes that several tests share, and the geometry of their shapes by hand."""

from __future__ import annotations

import math
from functools import lru_cache

import torch

from dhp_lab.data.scenes import CaptionedShape, Scene, Shape, caption, draw_all, scene

COUNT = 2000
RED, BLUE = CaptionedShape("red", "circle"), CaptionedShape("blue", "square")


@lru_cache(maxsize=1)
def many() -> tuple[list[Scene], torch.Tensor, list[str]]:
    """2000 scenes, with their pictures and captions."""
    generator = torch.Generator().manual_seed(1)
    scenes = [scene(generator) for _ in range(COUNT)]
    return scenes, draw_all(scenes), [caption(one) for one in scenes]


def corners(shape: Shape) -> list[tuple[float, float]]:
    """The corners of a shape by school geometry; for a circle those of its box."""
    x, y, area = shape.x, shape.y, math.pi * shape.radius**2
    if shape.captioned.kind == "triangle":
        side = math.sqrt(4 * area / math.sqrt(3))
        height = side * math.sqrt(3) / 2
        return [(x, y - 2 * height / 3), (x - side / 2, y + height / 3), (x + side / 2, y + height / 3)]
    half = shape.radius if shape.captioned.kind == "circle" else math.sqrt(area) / 2
    return [(x + i * half, y + j * half) for i in (-1, 1) for j in (-1, 1)]


def box(shape: Shape) -> tuple[float, float, float, float]:
    xs, ys = zip(*corners(shape), strict=True)
    return min(xs), max(xs), min(ys), max(ys)


def perimeter(shape: Shape) -> float:
    left, right, top, bottom = box(shape)
    return {"circle": math.pi, "square": 4, "triangle": 3}[shape.captioned.kind] * (right - left)


def lies(relation: str, a: Shape, b: Shape, slope: float) -> bool:
    dx, dy = a.x - b.x, a.y - b.y
    along, across = {"left of": (-dx, dy), "right of": (dx, dy), "above": (-dy, dx), "below": (dy, dx)}[
        relation
    ]
    return along > 0 and abs(across) <= slope * along

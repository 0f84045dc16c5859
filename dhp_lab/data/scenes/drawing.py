"""What a scene is, and how it is drawn: shapes as signed distances, on a plain ground of 64 x 64 pixels.

A pixel (row i, column j) has its centre at x = j + 0.5, y = i + 0.5; x runs to the right and y down. A shape
covers 0.5 - d of a pixel whose centre has the signed distance d from its edge (d > 0 outside), clamped to
[0, 1], so that edges are smooth.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor

from dhp_lab.data.scenes.grammar import KINDS, SIZES, CaptionedShape, Conditions, sentence

SIDE = 64  # pixels
RADII = {"small": (5.5, 6.5), "large": (8.5, 9.5)}  # pixels, of the circle of the same area
BORDER_RADIUS = math.sqrt(RADII["small"][1] * RADII["large"][0])  # 7.43: what is larger counts as large

RGB = {
    "red": (0.86, 0.12, 0.12),
    "green": (0.10, 0.62, 0.20),
    "blue": (0.12, 0.25, 0.85),
    "yellow": (0.98, 0.80, 0.05),
    "purple": (0.60, 0.12, 0.66),
    "cyan": (0.05, 0.74, 0.84),
}
BACKGROUNDS = (
    (0.96, 0.96, 0.96),
    (0.98, 0.90, 0.88),
    (0.89, 0.96, 0.88),
    (0.88, 0.92, 0.99),
    (0.97, 0.95, 0.85),
)

DIRECTIONS = {"left of": (-1, 0), "right of": (1, 0), "above": (0, -1), "below": (0, 1)}
"""From the second shape to the first, as (x, y)."""

NORMALS = {
    "square": ((1.0, 0.0), (-1.0, 0.0), (0.0, 1.0), (0.0, -1.0)),
    "triangle": ((0.0, 1.0), (math.sqrt(0.75), -0.5), (-math.sqrt(0.75), -0.5)),
}
"""The outward normals of the sides, as (x, y): a triangle stands on one of them. A circle has none."""


@dataclass(frozen=True)
class Shape:
    """One shape of a scene.

    Attributes:
        captioned: what the caption says of it; its size is None if the caption leaves that out.
        x, y: the centroid, in pixels.
        radius: of the circle of the same area, in pixels.
    """

    captioned: CaptionedShape
    x: float
    y: float
    radius: float

    @property
    def size(self) -> str:
        """What the picture shows, whether the caption says it or not: "small" or "large"."""
        return SIZES[self.radius > BORDER_RADIUS]


@dataclass(frozen=True)
class Scene:
    """The content of a picture, together with what its caption says.

    Attributes:
        shapes: 1 to 3, in the caption's order; where they overlap (those of ``scene`` never do) the later lie
            in front.
        relation: of the first to the others, as in ``Conditions``.
        background: index into ``BACKGROUNDS``.

    Raises:
        ValueError: there is no such background.
    """

    shapes: tuple[Shape, ...]
    relation: str | None = None
    background: int = 0

    def __post_init__(self) -> None:
        if self.background not in range(len(BACKGROUNDS)):
            raise ValueError(f"background must lie in 0 .. {len(BACKGROUNDS) - 1}, got {self.background}")


def caption(scene: Scene) -> str:
    """What the scene's caption says, in the words of the grammar.

    Raises:
        ValueError: a scene made by hand that no caption can describe.
    """
    return sentence(Conditions(tuple(shape.captioned for shape in scene.shapes), scene.relation))


def draw(scene: Scene) -> Tensor:
    """The picture of a scene: (3, 64, 64) float32 in [0, 1], with smooth edges."""
    return draw_all([scene])[0]


def draw_all(scenes: Sequence[Scene]) -> Tensor:
    """The pictures of one or more scenes: (B, 3, 64, 64) float32 in [0, 1].

    Raises:
        ValueError: no scene.
    """
    if not scenes:
        raise ValueError("there is no scene to draw: give at least one")
    grounds = torch.tensor([BACKGROUNDS[scene.background] for scene in scenes])  # (B, 3)
    pictures = grounds[:, :, None, None].repeat(1, 1, SIDE, SIDE)  # (B, 3, 64, 64)
    for layer in range(max(len(scene.shapes) for scene in scenes)):
        here = [i for i, scene in enumerate(scenes) if len(scene.shapes) > layer]
        shapes = [scenes[i].shapes[layer] for i in here]
        colours = torch.tensor([RGB[shape.captioned.colour] for shape in shapes])  # (n, 3)
        pictures[here] = pictures[here].lerp(colours[:, :, None, None], coverage(shapes)[:, None])
    return pictures


def coverage(shapes: Sequence[Shape]) -> Tensor:
    """How much of each pixel a shape covers: 0.5 - d, with d the signed distance of the pixel's centre.

    Returns:
        (N, 64, 64) float32 in [0, 1], for N shapes.
    """
    covered = torch.empty(len(shapes), SIDE, SIDE)
    centres = torch.arange(SIDE) + 0.5
    for kind in KINDS:
        here = [i for i, shape in enumerate(shapes) if shape.captioned.kind == kind]
        places = [(shapes[i].x, shapes[i].y, shapes[i].radius) for i in here]
        x, y, radius = torch.tensor(places, dtype=torch.float32).view(-1, 3, 1, 1).unbind(1)  # (n, 1, 1)
        dx = centres - x  # (n, 1, 64)
        dy = centres[:, None] - y  # (n, 64, 1)
        if kind == "circle":
            distance = torch.hypot(dx, dy) - radius  # (n, 64, 64)
        else:
            along_normals = [nx * dx + ny * dy for nx, ny in NORMALS[kind]]  # (n, 64, 64) each
            distance = reduce(torch.maximum, along_normals) - apothem(kind) * radius
        covered[here] = (0.5 - distance).clamp(0, 1)
    return covered


def apothem(kind: str) -> float:
    """Centroid to side, for a regular n-gon with the area of the unit circle: n a^2 tan(pi / n) = pi."""
    n = len(NORMALS[kind])
    return math.sqrt(math.pi / (n * math.tan(math.pi / n)))

"""What is to be seen in a picture: regions of the six colours, their kinds, places and areas; from the pixels
alone.

    pixels --unmix--> a mask for each colour --connected regions--> Found(colour, kind, x, y, area)

A pixel p at the edge of a shape is a mixture of its colour c and of the background b: p = b + share (c - b).
So b is read off the picture's frame, and p given to the colour whose line from b passes nearest, if its share
is half or more. Neither a smooth edge nor blur nor noise then makes a third colour out of two. A region's
kind is the one whose drawing, of the same area at the same centroid, covers the region best.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from dhp_lab.data.scenes.drawing import BORDER_RADIUS, RGB, SIDE, Shape, coverage
from dhp_lab.data.scenes.grammar import COLOURS, KINDS, SIZES, CaptionedShape

FRAME = 2  # pixels along the border that show nothing but background
MIN_SHARE, TOLERANCE = 0.5, 0.3  # of a colour in a pixel; of its distance from the line, in RGB of [0, 1]
CHUNK = 100  # pictures looked at together, 100 MB or so
MIN_AREA = 30  # pixels; a smaller region is a speck. The smallest shape has 95
# intersection over union. A circle and a square of one area have 0.83, hence "best" and not "enough"
MIN_OVERLAP = 0.75


@dataclass(frozen=True)
class Found:
    """A region of one colour.

    Attributes:
        colour: one of ``COLOURS``. kind: one of ``KINDS``, or None for a region that looks like none of them.
        x, y: its centroid in pixels, as in ``scenes.Shape``.
        area: in pixels.
    """

    colour: str
    kind: str | None
    x: float
    y: float
    area: int

    @property
    def size(self) -> str:
        """What its area says: "small" or "large"."""
        return SIZES[self.area > math.pi * BORDER_RADIUS**2]

    def __str__(self) -> str:
        return f"a {self.size} {self.colour} {self.kind or 'blot'}"


def unmix(pictures: Tensor) -> Tensor:
    """Which pixels have which colour: (B, 3, 64, 64) in [0, 1] -> (B, 6, 64, 64) bool in the order of
    ``COLOURS``.

    A pixel of the background, or of no colour of ours, belongs to none.

    Raises:
        ValueError: pictures of another shape, or with values that are not finite.
    """
    _check_pictures(pictures)
    x = pictures.detach().float()
    frame = torch.ones(SIDE, SIDE, dtype=torch.bool, device=x.device)
    frame[FRAME:-FRAME, FRAME:-FRAME] = False
    background = x[:, :, frame].median(2).values  # (B, 3)
    lines = torch.tensor([RGB[colour] for colour in COLOURS]).to(x) - background[:, None]  # (B, 6, 3)
    lengths = lines.square().sum(2).clamp(min=1e-6)[:, :, None, None]  # (B, 6, 1, 1)
    offset = x - background[:, :, None, None]  # (B, 3, 64, 64)
    share = torch.einsum("bkc,bchw->bkhw", lines, offset) / lengths  # (B, 6, 64, 64)
    apart = offset.square().sum(1, keepdim=True) - share.square() * lengths  # squared, from the line
    nearest = apart == apart.amin(1, keepdim=True)
    return nearest & (share >= MIN_SHARE) & (apart <= TOLERANCE**2)


def find_shapes(pictures: Tensor) -> list[list[Found]]:
    """What the judge sees in each of the pictures (B, 3, 64, 64) in [0, 1]: its regions, in the order of
    ``COLOURS``.

    Raises:
        ValueError: as ``unmix``.
    """
    _check_pictures(pictures)
    return [found for some in pictures.split(CHUNK) for found in _regions(unmix(some).cpu().numpy())]


def _regions(masks: np.ndarray) -> list[list[Found]]:
    """The regions of 30 pixels or more in the colours' masks (B, 6, 64, 64) of each picture."""
    neighbours = np.zeros((3, 3, 3, 3), dtype=bool)
    neighbours[1, 1] = ndimage.generate_binary_structure(2, 1)  # along rows and columns, within a mask
    labels, _ = ndimage.label(masks, neighbours)  # (B, 6, 64, 64)
    areas, places, found = np.bincount(labels.ravel()), ndimage.find_objects(labels), [[] for _ in masks]
    numbers = [i for i in range(1, len(areas)) if areas[i] >= MIN_AREA]
    if not numbers:
        return found
    where = [(places[i - 1][0].start, places[i - 1][1].start) for i in numbers]  # picture, colour
    regions = np.stack([labels[b, k] == i for i, (b, k) in zip(numbers, where, strict=True)])  # (N, 64, 64)
    middles = np.arange(SIDE) + 0.5
    x, y = (regions.sum(axis) @ middles / areas[numbers] for axis in (1, 2))  # (N,) each
    kinds = _kinds(regions, x, y)
    for i, (b, k) in enumerate(where):
        found[b].append(Found(COLOURS[k], kinds[i], float(x[i]), float(y[i]), int(areas[numbers[i]])))
    return found


def _kinds(regions: np.ndarray, x: np.ndarray, y: np.ndarray) -> list[str | None]:
    """The kind that covers each of the regions (N, 64, 64) best, or None if even that covers it badly."""
    radii = np.sqrt(regions.sum((1, 2)) / math.pi)
    places = zip(x.tolist(), y.tolist(), radii.tolist(), strict=True)
    alike = [Shape(CaptionedShape("red", kind), *place) for place in places for kind in KINDS]
    drawn = coverage(alike).view(len(regions), len(KINDS), SIDE, SIDE).numpy() > 0.5  # (N, 3, 64, 64)
    common = (drawn & regions[:, None]).sum((2, 3))
    overlap = common / (drawn | regions[:, None]).sum((2, 3))  # (N, 3)
    return [KINDS[row.argmax()] if row.max() >= MIN_OVERLAP else None for row in overlap]


def _check_pictures(pictures: Tensor) -> None:
    if (
        pictures.ndim != 4
        or pictures.shape[1:] != (3, SIDE, SIDE)
        or len(pictures) == 0
        or not pictures.is_floating_point()
    ):
        raise ValueError(
            f"pictures must be float (B, 3, {SIDE}, {SIDE}), got {pictures.dtype} of shape {tuple(pictures.shape)}"
        )
    if not bool(pictures.isfinite().all()):
        raise ValueError("pictures must be finite; those that are not come from a sampler that diverged")

"""What a picture shows: regions of the six colours, their kinds, centroids and areas, from the pixels alone.

    pixels --unmix--> a mask for each colour --connected regions--> Found(colour, kind, x, y, area)

A pixel p at the edge of a shape is a mixture of its colour c and of the background b: p = b + share (c - b).
So b is the median of the picture's frame, and p is assigned to the colour whose line from b passes nearest,
if its share is half or more. Neither a smooth edge nor blur nor noise then makes a third colour out of two. A
region's kind is the one whose drawing, of the same area at the same centroid, has the largest intersection
over union with it.
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
MIN_SHARE = 0.5  # of a colour in a pixel
TOLERANCE = 0.3  # the distance of a pixel from a colour's line, in RGB of [0, 1]
CHUNK = 100  # pictures at once, 100 MB or so
MIN_AREA = 30  # pixels; a smaller region is a speck. The smallest shape has 95
MIN_OVERLAP = 0.75  # intersection over union. A circle and a square of one area have 0.83: so the best counts


@dataclass(frozen=True)
class Found:
    """A region of one colour.

    Attributes:
        colour: one of ``COLOURS``.
        kind: one of ``KINDS``, or None for a region that resembles none of them.
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
        """ "small" or "large", by its area."""
        return SIZES[self.area > math.pi * BORDER_RADIUS**2]

    def __str__(self) -> str:
        return f"a {self.size} {self.colour} {self.kind or 'blot'}"


def unmix(pictures: Tensor) -> Tensor:
    """Assign pixels to the six colours; one of the background, or of another colour, belongs to none.

    Args:
        pictures: (B, 3, 64, 64) in [0, 1].

    Returns:
        (B, 6, 64, 64) bool, a mask for each of ``COLOURS``.

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
    """The regions that each picture shows, in the order of ``COLOURS``.

    Args:
        pictures: (B, 3, 64, 64) in [0, 1].

    Returns:
        B lists of regions.

    Raises:
        ValueError: as ``unmix``.
    """
    _check_pictures(pictures)
    result = []
    for chunk in pictures.split(CHUNK):
        result += _regions(unmix(chunk).cpu().numpy())
    return result


def _regions(masks: np.ndarray) -> list[list[Found]]:
    """The regions of 30 pixels or more in the colours' masks (B, 6, 64, 64) of each picture."""
    neighbours = np.zeros((3, 3, 3, 3), dtype=bool)
    neighbours[1, 1] = ndimage.generate_binary_structure(2, 1)  # along rows and columns, within a mask
    labels, _ = ndimage.label(masks, neighbours)  # (B, 6, 64, 64)
    all_areas = np.bincount(labels.ravel())
    numbers = [i for i in range(1, len(all_areas)) if all_areas[i] >= MIN_AREA]
    found: list[list[Found]] = [[] for _ in masks]
    if not numbers:
        return found
    slices = ndimage.find_objects(labels)
    where = [(slices[i - 1][0].start, slices[i - 1][1].start) for i in numbers]  # picture, colour
    regions = np.stack([labels[b, k] == i for i, (b, k) in zip(numbers, where, strict=True)])  # (N, 64, 64)
    areas = all_areas[numbers]  # (N,)
    centres = np.arange(SIDE) + 0.5
    x = regions.sum(1) @ centres / areas  # (N,)
    y = regions.sum(2) @ centres / areas
    kinds = _kinds(regions, x, y)
    for i, (b, k) in enumerate(where):
        found[b].append(Found(COLOURS[k], kinds[i], float(x[i]), float(y[i]), int(areas[i])))
    return found


def _kinds(regions: np.ndarray, x: np.ndarray, y: np.ndarray) -> list[str | None]:
    """The kind that overlaps each of the regions (N, 64, 64) best, or None if even that overlaps it badly."""
    radii = np.sqrt(regions.sum((1, 2)) / math.pi)
    places = zip(x.tolist(), y.tolist(), radii.tolist(), strict=True)
    candidates = [Shape(CaptionedShape("red", kind), *place) for place in places for kind in KINDS]
    drawn = coverage(candidates).view(len(regions), len(KINDS), SIDE, SIDE).numpy() > 0.5  # (N, 3, 64, 64)
    intersection = (drawn & regions[:, None]).sum((2, 3))
    union = (drawn | regions[:, None]).sum((2, 3))
    overlap = intersection / union  # (N, 3)
    return [KINDS[row.argmax()] if row.max() >= MIN_OVERLAP else None for row in overlap]


def _check_pictures(pictures: Tensor) -> None:
    fits = pictures.ndim == 4 and pictures.shape[1:] == (3, SIDE, SIDE) and len(pictures) > 0
    if not fits or not pictures.is_floating_point():
        got = f"{pictures.dtype} of shape {tuple(pictures.shape)}"
        raise ValueError(f"pictures must be float (B, 3, {SIDE}, {SIDE}), got {got}")
    if not bool(pictures.isfinite().all()):
        raise ValueError("pictures must be finite; those that are not come from a sampler that diverged")

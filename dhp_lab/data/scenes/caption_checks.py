"""Does a picture show what its caption says? Checked by geometry on the pixels alone, without a network.

| condition | holds if                                                                                       |
|-----------|------------------------------------------------------------------------------------------------|
| colour    | there is exactly one region of it                                                              |
| kind      | that region resembles it, more than another kind                                               |
| size      | the region's area is on its side of the border, see ``drawing.BORDER_RADIUS``                  |
| relation  | the first centroid lies within 45 degrees of the named direction, seen from each of the others |
| alone     | no region has a colour that the caption does not name                                          |

``regions`` finds the regions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from dhp_lab.data.scenes.drawing import DIRECTIONS
from dhp_lab.data.scenes.grammar import CaptionedShape, Conditions, parse
from dhp_lab.data.scenes.regions import Found, find_shapes

CONDITIONS = ("colour", "kind", "size", "relation", "alone")


@dataclass(frozen=True)
class CaptionCheck:
    """Which conditions of a caption a picture meets, each of them for all shapes that the caption names.

    Attributes:
        colour: each colour has exactly one region; a shape without one counts as wrong in kind, size and
            relation too.
        kind: each shape has its kind.
        size: each shape has the size that the caption gives it; None if it gives none.
        relation: the first shape lies on the named side of each of the others; None if there are no others.
        alone: no region has a colour that the caption does not name.
        faults: everything that is wrong, in words; empty if the picture matches.
    """

    colour: bool
    kind: bool
    size: bool | None
    relation: bool | None
    alone: bool
    faults: tuple[str, ...]

    @property
    def placed(self) -> bool:
        """Colours, kinds and relation are right; sizes and further shapes do not matter."""
        return self.colour and self.kind and self.relation is not False

    @property
    def matches(self) -> bool:
        """The picture shows what the caption says, and no other shape."""
        return not self.faults


def check_caption(picture: Tensor, caption: str) -> CaptionCheck:
    """Compare one picture with its caption.

    Args:
        picture: (3, 64, 64), [0, 1].
        caption: a sentence of the grammar.

    Raises:
        ValueError: a caption outside the grammar, as ``grammar.parse``, or a picture that does not fit, as
            ``regions.unmix``.
    """
    conditions = parse(caption)
    return _compare(find_shapes(picture[None])[0], conditions)


def check_captions(pictures: Tensor, captions: Sequence[str]) -> list[CaptionCheck]:
    """Compare pictures with their captions, as ``check_caption`` does for one.

    Args:
        pictures: (B, 3, 64, 64), [0, 1].
        captions: B sentences of the grammar.

    Raises:
        ValueError: another number of captions than of pictures, or as ``check_caption``.
    """
    if isinstance(captions, str) or len(captions) != len(pictures):
        raise ValueError(f"{len(pictures)} captions are needed, one for each picture, got {captions!r:.60}")
    parsed = [parse(caption) for caption in captions]
    pairs = zip(find_shapes(pictures), parsed, strict=True)
    return [_compare(found, conditions) for found, conditions in pairs]


def matches_caption(picture: Tensor, caption: str) -> bool:
    """Whether a picture shows what its caption says, and no other shape.

    Arguments and errors as for ``check_caption``.
    """
    return check_caption(picture, caption).matches


def caption_accuracy(pictures: Tensor, captions: Sequence[str]) -> float:
    """The share of pictures that match their captions, in [0, 1].

    Arguments and errors as for ``check_captions``.
    """
    return caption_accuracy_table(pictures, captions)["matches"]


def caption_accuracy_table(pictures: Tensor, captions: Sequence[str]) -> dict[str, float]:
    """The share of pictures for which each condition of ``CaptionCheck`` holds.

    Arguments and errors as for ``check_captions``.

    Returns:
        In [0, 1]: colour, kind, size, relation, alone, placed, matches. For size and relation among those
        pictures whose captions name one; NaN if none does.
    """
    checks = check_captions(pictures, captions)
    table = {}
    for name in (*CONDITIONS, "placed", "matches"):
        values = [getattr(check, name) for check in checks]
        stated = [value for value in values if value is not None]
        table[name] = sum(stated) / len(stated) if stated else math.nan
    return table


def _compare(found: list[Found], conditions: Conditions) -> CaptionCheck:
    """Check the regions of a picture against a caption's conditions."""
    shapes = conditions.shapes
    candidates = [[region for region in found if region.colour == shape.colour] for shape in shapes]
    regions = [same[0] if len(same) == 1 else None for same in candidates]
    pairs = list(zip(shapes, regions, strict=True))
    kinds = [region is not None and region.kind == shape.kind for shape, region in pairs]
    sizes = [region is not None and region.size == shape.size for shape, region in pairs if shape.size]
    sides = [_lies(conditions.relation, regions[0], other) for other in regions[1:]]
    colours = {shape.colour for shape in shapes}
    strangers = [region for region in found if region.colour not in colours]

    faults = [f"{region} that was not asked for" for region in strangers]
    for shape, same in zip(shapes, candidates, strict=True):
        faults += _faults_of(shape, same)
    for (shape, region), side in zip(pairs[1:], sides, strict=True):
        if regions[0] and region and not side:
            faults.append(f"{shapes[0]} not {conditions.relation} {shape}")

    return CaptionCheck(
        colour=None not in regions,
        kind=all(kinds),
        size=all(sizes) if sizes else None,
        relation=all(sides) if sides else None,
        alone=not strangers,
        faults=tuple(faults),
    )


def _faults_of(shape: CaptionedShape, regions: list[Found]) -> list[str]:
    """What is wrong with the regions of a shape's colour, in words."""
    if len(regions) != 1:
        return [f"{len(regions)} {shape.colour} regions in place of one"]
    region = regions[0]
    fits = region.kind == shape.kind and shape.size in (region.size, None)
    return [] if fits else [f"{region} in place of {shape}"]


def _lies(relation: str, first: Found | None, second: Found | None) -> bool:
    """Whether the first centroid lies within 45 degrees of the direction, seen from the second."""
    if first is None or second is None:
        return False
    dx, dy = first.x - second.x, first.y - second.y
    along = DIRECTIONS[relation][0] * dx + DIRECTIONS[relation][1] * dy
    return along > 0 and 2 * along**2 > dx**2 + dy**2  # the angle's cosine exceeds that of 45 degrees

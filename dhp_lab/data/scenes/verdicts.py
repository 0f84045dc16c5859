"""Does a picture obey its caption? A judge that knows the pixels alone, and needs no training.

| asked    | holds if                                                                                                  |
|----------|-----------------------------------------------------------------------------------------------------------|
| colour   | there is exactly one region of it                                                                         |
| kind     | that region looks like it, more than like another kind                                                    |
| size     | the region's area, against that of ``drawing.BORDER_RADIUS``, says so                                     |
| relation | the first centroid lies within 45 degrees of the asked direction, seen from each of the others            |
| alone    | no region has a colour that was not asked for                                                             |

How the regions are found stands in ``regions``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from dhp_lab.data.scenes.drawing import DIRECTIONS
from dhp_lab.data.scenes.grammar import Conditions, CaptionedShape, parse
from dhp_lab.data.scenes.regions import Found, find_shapes

CONDITIONS = ("colour", "kind", "size", "relation", "alone")


@dataclass(frozen=True)
class CaptionCheck:
    """Which of a caption's conditions a picture meets, each of them for all things that the caption names.

    Attributes:
        colour: each colour has exactly one region; what a thing without one is and where it lies counts as
            wrong.
        kind: each thing has its kind.
        size: each thing has the size that the caption gives it; None if it gives none.
        relation: the first thing lies on the asked side of each of the others; None if there are no others.
        alone: no region has a colour that was not asked for.
        faults: everything that is wrong, in words; nothing if the picture obeys.
    """

    colour: bool
    kind: bool
    size: bool | None
    relation: bool | None
    alone: bool
    faults: tuple[str, ...]

    @property
    def placed(self) -> bool:
        """The asked colours and kinds are there, at the asked side; sizes and further shapes do not matter."""
        return self.colour and self.kind and self.relation is not False

    @property
    def obeyed(self) -> bool:
        """The picture shows what the caption asks for, and no other shape."""
        return not self.faults


def judge(picture: Tensor, caption: str) -> CaptionCheck:
    """The verdict on one picture.

    Args:
        picture: (3, 64, 64), [0, 1].
        caption: a sentence of the grammar.

    Raises:
        ValueError: a caption outside the grammar, as ``grammar.parse``, or a picture that does not fit, as
            ``regions.unmix``.
    """
    conditions = parse(caption)
    return _verdict(find_shapes(picture[None])[0], conditions)


def judge_all(pictures: Tensor, captions: Sequence[str]) -> list[CaptionCheck]:
    """The verdicts on pictures (B, 3, 64, 64) in [0, 1] with B captions.

    Raises:
        ValueError: another number of captions than of pictures, or as ``judge``.
    """
    if isinstance(captions, str) or len(captions) != len(pictures):
        raise ValueError(f"{len(pictures)} captions are needed, one for each picture, got {captions!r:.60}")
    conditions = [parse(caption) for caption in captions]
    return [_verdict(*one) for one in zip(find_shapes(pictures), conditions, strict=True)]


def matches_caption(picture: Tensor, caption: str) -> bool:
    """Whether a picture shows what its caption asks for, and no other shape; arguments and errors as for
    ``judge``.
    """
    return judge(picture, caption).obeyed


def caption_accuracy(pictures: Tensor, captions: Sequence[str]) -> float:
    """The share of pictures that obey their captions, in [0, 1]; arguments and errors as for ``judge_all``."""
    return caption_accuracy_table(pictures, captions)["obeyed"]


def caption_accuracy_table(pictures: Tensor, captions: Sequence[str]) -> dict[str, float]:
    """The share of pictures for which each part of ``CaptionCheck`` holds; arguments and errors as for
    ``judge_all``.

    Returns:
        In [0, 1]: colour, kind, size, relation, alone, placed, obeyed. For size and relation among those
        pictures whose captions ask for it; NaN if none does.
    """
    verdicts = judge_all(pictures, captions)
    held = {
        name: [getattr(verdict, name) for verdict in verdicts] for name in (*CONDITIONS, "placed", "obeyed")
    }
    asked = {name: [one for one in some if one is not None] for name, some in held.items()}
    return {name: sum(some) / len(some) if some else float("nan") for name, some in asked.items()}


def _verdict(found: list[Found], asked: Conditions) -> CaptionCheck:
    regions = [[one for one in found if one.colour == thing.colour] for thing in asked.things]
    seen = [some[0] if len(some) == 1 else None for some in regions]
    pairs = list(zip(asked.things, seen, strict=True))
    kinds = [one is not None and one.kind == thing.kind for thing, one in pairs]
    sizes = [one is not None and one.size == thing.size for thing, one in pairs if thing.size]
    sides = [_lies(asked.relation, seen[0], other) for other in seen[1:]]
    colours = {thing.colour for thing in asked.things}
    wrong = [f"{one} that was not asked for" for one in found if one.colour not in colours]
    alone = not wrong
    for thing, some in zip(asked.things, regions, strict=True):
        wrong += _wrong_with(thing, some)
    for thing, other, side in zip(asked.things[1:], seen[1:], sides, strict=True):
        if seen[0] and other and not side:
            wrong.append(f"{asked.things[0]} not {asked.relation} {thing}")
    size, relation = all(sizes) if sizes else None, all(sides) if sides else None
    return CaptionCheck(None not in seen, all(kinds), size, relation, alone, tuple(wrong))


def _wrong_with(thing: CaptionedShape, regions: list[Found]) -> list[str]:
    if len(regions) != 1:
        return [f"{len(regions)} {thing.colour} regions in place of one"]
    fits = regions[0].kind == thing.kind and thing.size in (regions[0].size, None)
    return [] if fits else [f"{regions[0]} in place of {thing}"]


def _lies(relation: str, first: Found | None, second: Found | None) -> bool:
    if first is None or second is None:
        return False
    dx, dy = first.x - second.x, first.y - second.y
    along = DIRECTIONS[relation][0] * dx + DIRECTIONS[relation][1] * dy
    return along > 0 and 2 * along**2 > dx**2 + dy**2  # the angle's cosine exceeds that of 45 degrees

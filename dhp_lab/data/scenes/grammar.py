"""What a caption of a scene may say, and how it is read: a grammar of 18 words and three forms.

    caption   =  shape  |  shape relation shape  |  shape relation shape "and" shape
    shape     =  "a" [size] colour kind
    size      =  "small" | "large"
    colour    =  "red" | "green" | "blue" | "yellow" | "purple" | "cyan"
    kind      =  "circle" | "square" | "triangle"
    relation  =  "left of" | "right of" | "above" | "below"

"A above B and C" puts A above B and above C, and leaves it open how B and C lie to each other. A size that is
left out is open too. No colour comes twice, so that a colour identifies its shape.

``parse`` turns a caption into ``Conditions``, ``sentence`` is its inverse. ``read_words`` gives the role of
each word of a caption.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

SIZES = ("small", "large")
COLOURS = ("red", "green", "blue", "yellow", "purple", "cyan")
KINDS = ("circle", "square", "triangle")
RELATIONS = ("left of", "right of", "above", "below")

WORDS = ("a", *SIZES, *COLOURS, *KINDS, "left", "right", "of", "above", "below", "and")
"""The vocabulary of a text encoder. The order is fixed: a checkpoint's embeddings depend on it."""

ROLES = {
    **dict.fromkeys(SIZES, "size"),
    **dict.fromkeys(COLOURS, "colour"),
    **dict.fromkeys(KINDS, "kind"),
    **dict.fromkeys(" ".join(RELATIONS).split(), "relation"),
}
"""What a word names; "a" and "and" name nothing."""

MAX_SHAPES = 3
MAX_WORDS = 15
"""The words of the longest caption."""

FORM = "'a [small|large] COLOUR KIND', 'SHAPE RELATION SHAPE' or 'SHAPE RELATION SHAPE and SHAPE'"

_SHAPE = rf"a (?:({'|'.join(SIZES)}) )?({'|'.join(COLOURS)}) ({'|'.join(KINDS)})"
_CAPTION = re.compile(rf"{_SHAPE}(?: ({'|'.join(RELATIONS)}) {_SHAPE}(?: and {_SHAPE})?)?")


@dataclass(frozen=True)
class CaptionedShape:
    """What a caption says of one shape.

    Attributes:
        colour: one of ``COLOURS``. kind: one of ``KINDS``.
        size: one of ``SIZES``, or None if the caption leaves it open.

    Raises:
        ValueError: a word that is none of these.
    """

    colour: str
    kind: str
    size: str | None = None

    def __post_init__(self) -> None:
        for name, choices in (("colour", COLOURS), ("kind", KINDS), ("size", (*SIZES, None))):
            if getattr(self, name) not in choices:
                raise ValueError(
                    f"{name} must be one of {', '.join(map(str, choices))}; got {getattr(self, name)!r}"
                )

    def __str__(self) -> str:
        return " ".join(word for word in ("a", self.size, self.colour, self.kind) if word)


@dataclass(frozen=True)
class Conditions:
    """What a caption says.

    Attributes:
        shapes: 1 to 3 of them, no colour twice.
        relation: one of ``RELATIONS``, of the first shape to each of the others; None if there is but one.

    Raises:
        ValueError: what no caption can say.
    """

    shapes: tuple[CaptionedShape, ...]
    relation: str | None = None

    def __post_init__(self) -> None:
        count = len(self.shapes)
        if not 1 <= count <= MAX_SHAPES:
            raise ValueError(f"a caption names 1 to {MAX_SHAPES} shapes, got {count}")
        choices = RELATIONS if count > 1 else (None,)
        if self.relation not in choices:
            allowed = ", ".join(map(str, choices))
            raise ValueError(
                f"the relation among {count} shapes must be one of {allowed}; got {self.relation!r}"
            )
        colours = [shape.colour for shape in self.shapes]
        for colour in colours:
            if colours.count(colour) > 1:
                raise ValueError(
                    f"{colour} comes twice: give each shape a colour of its own, out of {', '.join(COLOURS)}"
                )


def sentence(conditions: Conditions) -> str:
    """The caption that says this, in lower case and without a full stop."""
    first, *others = map(str, conditions.shapes)
    if not others:
        return first
    return f"{first} {conditions.relation} {' and '.join(others)}"


def parse(caption: str) -> Conditions:
    """Read a caption; upper case and repeated spaces do not matter.

    Raises:
        ValueError: a word outside ``WORDS`` (the message lists them), a sentence that has none of the three
            forms (the message shows them), or a colour that comes twice.
    """
    words = caption.lower().split()
    unknown = dict.fromkeys(word for word in words if word not in WORDS)  # in order, each once
    if unknown:
        named = ", ".join(map(repr, unknown))
        raise ValueError(f"a caption does not know {named}; its words are: {', '.join(WORDS)}")
    found = _CAPTION.fullmatch(" ".join(words))
    if found is None:
        raise ValueError(
            f"{caption!r} is not a caption; write {FORM}, where a RELATION is {', '.join(RELATIONS)}"
        )
    parts = found.groups()  # size, colour, kind, relation, size, colour, kind, size, colour, kind
    shapes = [
        CaptionedShape(colour, kind, size)
        for size, colour, kind in (parts[:3], parts[4:7], parts[7:])
        if colour
    ]
    return Conditions(tuple(shapes), parts[3])


@dataclass(frozen=True)
class Word:
    """One word of a caption.

    Attributes:
        text: one of ``WORDS``.
        role: what it names: "size", "colour", "kind" or "relation"; None for "a" and "and".
        shape: index of the shape it belongs to, in the caption's order; None for a relation and for "and".
    """

    text: str
    role: str | None
    shape: int | None


def read_words(caption: str) -> list[Word]:
    """The words of a caption, each with its role and its shape; "left" and "of" name a relation together.

    Raises:
        ValueError: as ``parse``.
    """
    parse(caption)
    words = []
    shape = -1
    for text in caption.lower().split():
        if text == "a":  # every shape begins with it
            shape += 1
        role = ROLES.get(text)
        between = role == "relation" or text == "and"
        words.append(Word(text, role, None if between else shape))
    return words

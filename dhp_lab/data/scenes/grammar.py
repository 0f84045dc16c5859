"""What a caption of a scene may say, and how it is read: a grammar of 18 words and three forms.

    caption   =  thing  |  thing relation thing  |  thing relation thing "and" thing
    thing     =  "a" [size] colour kind
    size      =  "small" | "large"
    colour    =  "red" | "green" | "blue" | "yellow" | "purple" | "cyan"
    kind      =  "circle" | "square" | "triangle"
    relation  =  "left of" | "right of" | "above" | "below"

"A above B and C" puts A above B and above C, and leaves it open how B and C lie to each other. A size that is
left out is open too. No colour comes twice, so that a colour is enough to tell which shape is meant.

``parse`` and ``sentence`` are each other's inverse: a caption is a ``Conditions``, and back. ``read_words``
says what each word of a caption names.
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

MAX_THINGS = 3
MAX_WORDS = 15
"""The words of the longest caption."""

FORM = "'a [small|large] COLOUR KIND', 'THING RELATION THING' or 'THING RELATION THING and THING'"

_THING = rf"a (?:({'|'.join(SIZES)}) )?({'|'.join(COLOURS)}) ({'|'.join(KINDS)})"
_CAPTION = re.compile(rf"{_THING}(?: ({'|'.join(RELATIONS)}) {_THING}(?: and {_THING})?)?")


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
        things: 1 to 3 things, no colour twice.
        relation: one of ``RELATIONS``, of the first thing to each of the others; None if there is but one.

    Raises:
        ValueError: what no caption can say.
    """

    things: tuple[CaptionedShape, ...]
    relation: str | None = None

    def __post_init__(self) -> None:
        if not 1 <= len(self.things) <= MAX_THINGS:
            raise ValueError(f"a caption names 1 to {MAX_THINGS} things, got {len(self.things)}")
        choices = RELATIONS if len(self.things) > 1 else (None,)
        if self.relation not in choices:
            allowed = ", ".join(map(str, choices))
            raise ValueError(
                f"the relation among {len(self.things)} things must be one of {allowed}; got {self.relation!r}"
            )
        colours = [thing.colour for thing in self.things]
        for colour in colours:
            if colours.count(colour) > 1:
                raise ValueError(
                    f"{colour} comes twice: give each thing a colour of its own, out of {', '.join(COLOURS)}"
                )


def sentence(conditions: Conditions) -> str:
    """The caption that says this, in lower case and without a full stop."""
    first, *others = map(str, conditions.things)
    return " ".join([first, conditions.relation, " and ".join(others)] if others else [first])


def parse(caption: str) -> Conditions:
    """What a caption says; upper case and repeated spaces do not matter.

    Raises:
        ValueError: a word outside ``WORDS`` (the message lists them), a sentence that has none of the three
            forms (the message shows them), or a colour that comes twice.
    """
    words = caption.lower().split()
    unknown = dict.fromkeys(word for word in words if word not in WORDS)
    if unknown:
        named = ", ".join(map(repr, unknown))
        raise ValueError(f"a caption does not know {named}; its words are: {', '.join(WORDS)}")
    found = _CAPTION.fullmatch(" ".join(words))
    if found is None:
        raise ValueError(
            f"{caption!r} is not a caption; write {FORM}, where a RELATION is {', '.join(RELATIONS)}"
        )
    parts = found.groups()  # size, colour, kind, relation, size, colour, kind, size, colour, kind
    things = [
        CaptionedShape(colour, kind, size)
        for size, colour, kind in (parts[:3], parts[4:7], parts[7:])
        if colour
    ]
    return Conditions(tuple(things), parts[3])


@dataclass(frozen=True)
class Word:
    """One word of a caption.

    Attributes:
        text: one of ``WORDS``.
        role: what it names: "size", "colour", "kind" or "relation"; None for "a" and "and".
        thing: index of the thing it belongs to, in the caption's order; None for a relation and for "and".
    """

    text: str
    role: str | None
    thing: int | None


def read_words(caption: str) -> list[Word]:
    """The words of a caption, each with what it names and of which thing: "left" and "of" name a relation
    together.

    Raises:
        ValueError: as ``parse``.
    """
    parse(caption)
    result, thing = [], -1
    for text in caption.lower().split():
        thing += text == "a"  # every thing begins with it
        role = ROLES.get(text)
        result.append(Word(text, role, None if role == "relation" or text == "and" else thing))
    return result

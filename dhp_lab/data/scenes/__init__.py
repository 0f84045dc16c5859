"""Captioned pictures in any number: 64 x 64 colour scenes of 1 to 3 shapes, drawn from a seed; no download.

    seed --scene--> Scene --draw-----> picture (3, 64, 64) in [0, 1]              --find_shapes--> [Found]
                          --caption--> "a small red circle left of a blue square" --parse--> Conditions

    check_caption: [Found] against Conditions --> CaptionCheck

A picture shows more than its caption says: where exactly the shapes lie, the background, now and then a size.
That is what a model has to invent. What a caption does say is unmistakable: ``placing`` has the margins.
"""

from __future__ import annotations

from dhp_lab.data.scenes.caption_checks import (
    CaptionCheck,
    caption_accuracy,
    caption_accuracy_table,
    check_caption,
    check_captions,
    matches_caption,
)
from dhp_lab.data.scenes.drawing import (
    BACKGROUNDS,
    RGB,
    Scene,
    Shape,
    caption,
    coverage,
    draw,
    draw_all,
)
from dhp_lab.data.scenes.grammar import (
    COLOURS,
    KINDS,
    MAX_WORDS,
    RELATIONS,
    SIZES,
    WORDS,
    CaptionedShape,
    Conditions,
    Word,
    parse,
    read_words,
    sentence,
)
from dhp_lab.data.scenes.placing import batch, scene
from dhp_lab.data.scenes.regions import Found, find_shapes

__all__ = [
    "BACKGROUNDS",
    "COLOURS",
    "KINDS",
    "MAX_WORDS",
    "RELATIONS",
    "RGB",
    "SIZES",
    "WORDS",
    "CaptionCheck",
    "CaptionedShape",
    "Conditions",
    "Found",
    "Scene",
    "Shape",
    "Word",
    "batch",
    "caption",
    "caption_accuracy",
    "caption_accuracy_table",
    "check_caption",
    "check_captions",
    "coverage",
    "draw",
    "draw_all",
    "find_shapes",
    "matches_caption",
    "parse",
    "read_words",
    "scene",
    "sentence",
]

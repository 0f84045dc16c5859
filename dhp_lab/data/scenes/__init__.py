"""Captioned pictures without end: 64 x 64 colour scenes of 1 to 3 shapes, drawn by a seed; nothing to
download.

    seed --scene--> Scene --draw----> picture (3, 64, 64) in [0, 1] --find_shapes--> Found --.
                          --caption-> "a small red circle left of a blue square" --parse----> judge --> Verdict

A picture shows more than its caption says: where exactly the shapes lie, the background, now and then a size.
That is what a model has to invent. What a caption does say is unmistakable: ``placing`` says by how much.
"""

from __future__ import annotations

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
    Conditions,
    CaptionedShape,
    Word,
    parse,
    read_words,
    sentence,
)
from dhp_lab.data.scenes.placing import batch, scene
from dhp_lab.data.scenes.regions import Found, find_shapes
from dhp_lab.data.scenes.verdicts import (
    CaptionCheck,
    judge,
    judge_all,
    caption_accuracy,
    caption_accuracy_table,
    matches_caption,
)

__all__ = [
    "BACKGROUNDS",
    "COLOURS",
    "KINDS",
    "MAX_WORDS",
    "RELATIONS",
    "RGB",
    "SIZES",
    "WORDS",
    "Conditions",
    "Found",
    "Scene",
    "Shape",
    "CaptionedShape",
    "CaptionCheck",
    "Word",
    "batch",
    "caption",
    "coverage",
    "draw",
    "draw_all",
    "find_shapes",
    "judge",
    "judge_all",
    "caption_accuracy",
    "caption_accuracy_table",
    "matches_caption",
    "parse",
    "read_words",
    "scene",
    "sentence",
]

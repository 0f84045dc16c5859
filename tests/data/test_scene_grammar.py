"""Captions against all that the grammar of scenes can say."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest
from drawn_scenes import BLUE, RED, many

from dhp_lab.data.scenes import (
    COLOURS,
    KINDS,
    MAX_WORDS,
    RELATIONS,
    SIZES,
    WORDS,
    CaptionedShape,
    Conditions,
    Scene,
    batch,
    caption,
    draw_all,
    parse,
    read_words,
    sentence,
)

SHAPES = [CaptionedShape(*words) for words in product(COLOURS, KINDS, (None, *SIZES))]


# the grammar


def test_the_vocabulary_is_what_checkpoints_know():
    assert " ".join(WORDS) == (
        "a small large red green blue yellow purple cyan circle square triangle left right of above below and"
    )


@pytest.mark.slow
def test_every_caption_of_one_or_two_shapes_has_one_meaning_and_is_read_back():
    pairs = [two for two in product(SHAPES, SHAPES) if two[0].colour != two[1].colour]
    said = [Conditions((one,)) for one in SHAPES] + [Conditions(two, r) for two in pairs for r in RELATIONS]
    assert len(said) == 54 + 54 * 45 * 4
    sentences = [sentence(one) for one in said]
    assert [parse(text) for text in sentences] == said and len(set(sentences)) == len(said)
    assert {word for text in sentences for word in text.split()} == set(WORDS) - {"and"}


def test_captions_of_three_shapes():
    things = (
        CaptionedShape("red", "circle"),
        CaptionedShape("blue", "square"),
        CaptionedShape("yellow", "triangle", "small"),
    )
    assert parse("a red circle above a blue square and a small yellow triangle") == Conditions(
        things, "above"
    )
    for _, _, text in zip(range(300), *many()[1:], strict=False):
        assert sentence(parse(text)) == text
    longest = Conditions(tuple(replace(thing, size="small") for thing in things), "right of")
    assert len(sentence(longest).split()) == MAX_WORDS == max(len(text.split()) for text in many()[2])


def test_case_and_spaces_do_not_matter():
    two = Conditions((CaptionedShape("red", "circle", "small"), BLUE), "left of")
    assert (
        parse("  A small  RED circle left of a blue square ")
        == two
        == parse("a small red circle left of a blue square")
    )


def test_each_word_names_something_of_one_shape():
    read = read_words("A small red circle left of a blue square and a cyan triangle")
    assert [(word.text, word.role, word.shape) for word in read] == [
        ("a", None, 0),
        ("small", "size", 0),
        ("red", "colour", 0),
        ("circle", "kind", 0),
        ("left", "relation", None),
        ("of", "relation", None),
        ("a", None, 1),
        ("blue", "colour", 1),
        ("square", "kind", 1),
        ("and", None, None),
        ("a", None, 2),
        ("cyan", "colour", 2),
        ("triangle", "kind", 2),
    ]
    for text in many()[2][:300]:
        read, said = read_words(text), parse(text)
        assert " ".join(word.text for word in read) == text
        assert " ".join(word.text for word in read if word.role == "relation") == (said.relation or "")
        for i, thing in enumerate(said.shapes):
            assert [word.text for word in read if word.shape == i] == str(thing).split()
            assert all(
                getattr(thing, word.role) == word.text for word in read if word.shape == i and word.role
            )
    with pytest.raises(ValueError, match="does not know 'dog'"):
        read_words("a red dog")


def test_an_unknown_word_is_refused_with_all_that_are_known():
    with pytest.raises(ValueError) as caught:
        parse("a pink dog left of a pink square.")
    assert (
        str(caught.value)
        == f"a caption does not know 'pink', 'dog', 'square.'; its words are: {', '.join(WORDS)}"
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "red circle",
        "a circle",
        "a red",
        "a red small circle",
        "a circle red",
        "a red circle and a blue square",
        "a red circle left a blue square",
        "a red circle left of",
        "a red circle above a blue square above a cyan square",
        "a red circle above a blue square and a cyan square and a green square",
        "left of a red circle",
        "a a red circle",
    ],
)
def test_a_sentence_outside_the_grammar_is_refused_with_the_form(text):
    with pytest.raises(ValueError) as caught:
        parse(text)
    assert str(caught.value) == (
        f"{text!r} is not a caption; write 'a [small|large] COLOUR KIND', 'SHAPE RELATION SHAPE' or "
        "'SHAPE RELATION SHAPE and SHAPE', where a RELATION is left of, right of, above, below"
    )


@pytest.mark.parametrize(
    "call, message",
    [
        (
            lambda: parse("a red circle above a red square"),
            "red comes twice: give each shape a colour of its own, out of red, gr",
        ),
        (lambda: CaptionedShape("pink", "circle"), "colour must be one of red, .*cyan; got 'pink'"),
        (lambda: CaptionedShape("red", "dog"), "kind must be one of circle, square, triangle; got 'dog'"),
        (
            lambda: CaptionedShape("red", "circle", "huge"),
            "size must be one of small, large, None; got 'huge'",
        ),
        (lambda: Conditions(()), "1 to 3 shapes, got 0"),
        (
            lambda: Conditions((RED, BLUE)),
            "the relation among 2 shapes must be one of left of, right of, above, below; got None",
        ),
        (lambda: Conditions((RED,), "above"), "the relation among 1 shapes must be one of None; got 'above'"),
        (lambda: caption(Scene(())), "1 to 3 shapes, got 0"),
        (lambda: draw_all([]), "no scene to draw"),
        (lambda: batch(0, 0), "count must be at least 1, got 0"),
        (lambda: Scene((), background=5), "background must lie in 0 .. 4, got 5"),
    ],
)
def test_what_cannot_be_said_or_drawn_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()

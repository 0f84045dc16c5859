"""Lesson 11, "Which is the photo?": the sides are fair, the first answer counts, nothing gives it away."""

import io
import math
from collections import Counter

import numpy as np
import pytest
from models import untrained
from PIL import Image

from dhp_lab.data.images import to_pixels
from dhp_lab.data.photos import PHOTOS
from dhp_lab.lessons.evaluation.blind_test import (
    CLASS,
    LEFT,
    NOT_YET,
    RIGHT,
    ZOOM,
    BlindTest,
    chance_of_guessing,
    detail,
    score_text,
    trial,
)

SIDE = 64


@pytest.fixture(scope="module")
def quiz():
    return BlindTest(untrained(), side=SIDE)


@pytest.fixture(autouse=True)
def start(quiz):
    for name, value in {"answer": NOT_YET, "number": 1, "lambda_rate": 3e-3, "steps": 1}.items():
        quiz.controls[name].value = value
    quiz.answers.clear()


def other(side):
    return RIGHT if side == LEFT else LEFT


def test_questions_are_repeatable_and_fair():
    drawn = [trial(number) for number in range(400)]
    assert drawn == [trial(number) for number in range(400)]
    assert 160 < Counter(one.answer for one in drawn)[LEFT] < 240
    assert {one.photo for one in drawn} == set(PHOTOS)
    assert 0 <= min(one.down for one in drawn) < 0.05 and 0.95 < max(one.across for one in drawn) <= 1


def test_the_chance_is_the_binomial_tail():
    assert chance_of_guessing(0, 7) == 1
    assert chance_of_guessing(5, 5) == 1 / 32
    assert chance_of_guessing(2, 3) == 0.5
    assert math.isclose(chance_of_guessing(60, 100), sum(math.comb(100, k) for k in range(60, 101)) / 2**100)
    with pytest.raises(ValueError, match=r"0 .. 3, got 4"):
        chance_of_guessing(4, 3)


def test_both_details_show_the_same_place_and_the_photo_is_where_it_is_said(quiz):
    asked = trial(quiz.controls["number"].value)
    shown = quiz.render(**quiz.position())
    canvas = np.asarray(Image.open(io.BytesIO(shown.picture)))
    photo = detail(quiz.codec.photo(asked.photo)[0], asked)
    decoded = detail(quiz.codec.decode(asked.photo, 3e-3, 1)[0], asked)
    pair = {asked.answer: photo, other(asked.answer): decoded}
    enlarged = {side: np.kron(pixels, np.ones((ZOOM, ZOOM, 1), np.uint8)) for side, pixels in pair.items()}
    height, width = enlarged[LEFT].shape[:2]
    assert np.array_equal(canvas[-height:, :width], enlarged[LEFT])
    places = range(width, canvas.shape[1] - width + 1)
    assert any(np.array_equal(canvas[-height:, at : at + width], enlarged[RIGHT]) for at in places)


def test_a_detail_of_a_large_picture_is_where_the_trial_lies(quiz):
    x = quiz.codec.photo("coffee")[0].repeat(1, 1, 5, 6)
    asked = trial(3)
    pixels = detail(x, asked)
    top, left = round(asked.down * (5 * SIDE - 160)), round(asked.across * (6 * SIDE - 160))
    assert np.array_equal(pixels, to_pixels(x)[top : top + 160, left : left + 160])


def test_nothing_gives_the_answer_away(quiz):
    shown = quiz.render(**quiz.position())
    for text in (shown.alt, quiz.text.value):
        assert "the photo is" not in text and "ours" not in text and "bytes" not in text
    assert "which is the photo?" in quiz.text.value


@pytest.mark.parametrize("right", [True, False])
def test_the_first_answer_counts(quiz, right):
    truth = trial(1).answer
    given = truth if right else other(truth)
    quiz.controls["answer"].value = given
    assert ("Right" if right else "Wrong") + f": the photo is on the {truth}" in quiz.text.value
    assert f"{int(right)} of 1 right" in quiz.text.value
    quiz.controls["answer"].value = other(given)
    assert list(quiz.answers.values()) == [right]


def test_the_next_question_begins_unanswered(quiz):
    quiz.controls["answer"].value = LEFT
    quiz.controls["number"].value = 2
    assert quiz.controls["answer"].value == NOT_YET
    assert "Question 2: which is the photo?" in quiz.text.value
    assert len(quiz.answers) == 1


def test_score():
    assert score_text({}) == "No answer yet."
    assert score_text({1: True, 2: False, 3: True}).startswith("2 of 3 right; who guesses has as many")
    assert "50%" in score_text({1: True, 2: False, 3: True})


def test_it_is_not_the_lesson_s_explorer(quiz):
    assert CLASS in quiz._dom_classes and "dhp-explorer" not in quiz._dom_classes

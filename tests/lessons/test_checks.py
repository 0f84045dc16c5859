"""The lessons' checks: every exercise is proved on a stub, on wrong answers and on a right one."""

import itertools
import math

import numpy as np
import pytest
import torch
from answers import ANSWERS, CHECKS, FOLDERS, MISTAKES, RIGHT

from dhp_lab.notebook import exercises as machinery
from dhp_lab.notebook.exercises import CORRECT, NOT_ATTEMPTED, REGISTRY, WRONG, Case, Check, exercise


def unfinished(*arguments):
    raise NotImplementedError


def constant(value):
    """A function that always returns this."""
    return lambda *arguments: value


class WrongAt:
    """A function but for one of its calls, counted from 0."""

    def __init__(self, number, function):
        self.number, self.function, self.calls = number, function, itertools.count()

    def __call__(self, *arguments):
        return "?" if next(self.calls) == self.number else self.function(*arguments)


def test_every_exercise_is_proved_here():
    assert REGISTRY.keys() == RIGHT.keys() == MISTAKES.keys()
    for name, check in REGISTRY.items():
        assert getattr(CHECKS[check.lesson], name) is check and check.name == name
        assert check.task and "\n" not in check.task


def test_every_lesson_has_its_own():
    for folder in FOLDERS:
        names = {name for name, check in REGISTRY.items() if check.lesson == folder}
        assert names == ANSWERS[folder].RIGHT.keys()


@pytest.mark.parametrize("stub", [constant(None), unfinished], ids=["None", "unfinished"])
def test_stubs_are_not_attempted(stub):
    for name, check in REGISTRY.items():
        result = check(stub)
        assert result.status == NOT_ATTEMPTED, name
        assert repr(result).startswith(f"{name}: not attempted yet")
        assert check.task in result.message


@pytest.mark.parametrize("name", RIGHT)
def test_mistakes_are_explained(name):
    for answer, words in MISTAKES[name]:
        result = REGISTRY[name](answer)
        assert result.status == WRONG, f"a mistake whose message holds {words!r}"
        assert words in result.message
        assert "expected: " in result.message


def test_right_answers_are_correct():
    for name, answer in RIGHT.items():
        result = REGISTRY[name](answer)
        assert result.status == CORRECT, result.message
        assert repr(result) == f"{name}: correct"


@pytest.mark.parametrize("name", RIGHT)
def test_every_case_catches_something(name):
    """A function that is right but for one case fails at that case, and its hint is shown."""
    for wrong_at, case in enumerate(REGISTRY[name].cases()):
        result = REGISTRY[name](WrongAt(wrong_at, RIGHT[name]))
        assert (result.status, case.hint != "") == (WRONG, True)
        assert result.message.endswith(
            f"your function returned '?'\nexpected: {machinery._show(case.expected)}\nHint: {case.hint}"
        )


def make(*cases: Case) -> Check:
    return Check("example", "ddpm", "An example.", lambda: iter(cases))


def test_result_of_a_call_instead_of_a_function():
    assert "checks.example(my_function)" in make(Case({"x": 1}, 1))(1).message


def test_arguments_are_copies():
    values = np.ones(3)
    check = make(Case({"x": values}, 3.0), Case({"x": values}, 3.0))

    def spoils_its_input(x):
        total = x.sum()
        x[:] = 0
        return total

    assert check(spoils_its_input).status == CORRECT
    assert values.sum() == 3


def test_none_after_the_first_case_is_wrong():
    check = make(Case({"x": 1}, 1), Case({"x": -1}, 1))
    assert (
        check(lambda x: x if x > 0 else None).message == "For x=-1\nyour function returned None\nexpected: 1"
    )


@pytest.mark.parametrize(
    ("expected", "right", "wrong"),
    [
        (
            1.0,
            [1, np.float32(1), torch.tensor(1.0, dtype=torch.bfloat16), 1.00009],
            [1.00011, "1", [1.0], math.nan, 1j],
        ),
        (0.0, [0, -0.0, 9e-5], [1.1e-4, math.inf]),
        (math.inf, [np.inf, torch.tensor(math.inf)], [1e300, -math.inf, math.nan]),
        (
            np.array([100.0, 0.0]),
            [[100, 0], torch.tensor([100.0, 0.009])],
            [[100, 0.011], [[100, 0]], [100], "ab", [[1], 2]],
        ),
        (torch.ones(2, requires_grad=True), [np.ones(2)], [np.zeros(2)]),
        ((1.0, "linear"), [(1, "linear"), [1, "linear"]], [(1, "cosine"), (2, "linear"), (1,), 1]),
        (1 + 1j, [complex(1, 1)], [1]),
    ],
)
def test_comparison(expected, right, wrong):
    check = make(Case({"x": 0}, expected))
    assert [value for value in right if check(constant(value)).status != CORRECT] == []
    assert [value for value in wrong if check(constant(value)).status != WRONG] == []


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (48.13080361, "48.1308"),
        (np.array([[1, 2]], np.uint8), "[[1, 2]] (uint8)"),
        (torch.tensor([0.5, 0.123456789]), "[0.5, 0.12346] (float32)"),
        (torch.zeros(1, 3, 4, 4), "float32 of shape (1, 3, 4, 4) from 0 to 0"),
        ([1, 2], "[1, 2] (list)"),
        ((1.5, "linear"), "(1.5, 'linear')"),
        (None, "None"),
    ],
)
def test_values_are_shown_shortly(value, text):
    assert machinery._show(value) == text


def test_html_is_escaped_and_names_the_status():
    page = make(Case({"x": 1}, 1))(lambda x: "<script>")._repr_html_()
    assert "<b " in page and ">wrong</b>" in page
    assert "<script>" not in page and "&lt;script&gt;" in page


def test_name_is_taken_once():
    with pytest.raises(ValueError, match="there is an exercise 'psnr' already"):

        @exercise
        def psnr():
            """A second exercise of this name."""

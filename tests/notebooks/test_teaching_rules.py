"""Every lesson keeps the rules of teaching_rules.py; each rule is proved on notebooks that break it."""

from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from teaching_rules import MAX_CELLS, MAX_WORDS, TEACHING

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))


def broken_rules(nb) -> set[str]:
    return {name for name, check in TEACHING.items() if check(nb)}


@pytest.fixture(scope="module")
def lessons() -> dict[str, nbformat.NotebookNode]:
    return {path.stem: nbformat.read(path, as_version=nbformat.NO_CONVERT) for path in NOTEBOOKS}


@pytest.mark.parametrize("rule", TEACHING)
def test_the_lessons_keep(rule, lessons):
    offenders = [f"{name}: {what}" for name, lesson in lessons.items() for what in TEACHING[rule](lesson)]
    assert not offenders, "\n".join([TEACHING[rule].__doc__, *offenders])


# A lesson that keeps every rule, and below it what breaks each rule alone.

QUESTION = """## A question to think about

**1. Why does the size
fall?**

<details><summary>Answer</summary>So.</details>

Things to do:

1. Look.
2. Count to 12.
   - once
"""


def solution(name: str, arguments: str, result: str):
    function = f"def my_{name}({arguments}):\n    return {result}"
    return new_markdown_cell(
        f"<details><summary>Solution</summary>\n\n```python\n{function}\n```\n\n</details>"
    )


TIME = "np.interp(math.log1p(delta**2 / 12 / s**2), -table, np.arange(len(table)))"


def lesson() -> nbformat.NotebookNode:
    return new_notebook(
        cells=[
            new_markdown_cell("# 00 · A lesson\n\n## What you will do\nRead."),
            new_code_cell(
                "import math\nfrom dhp_lab.lessons.start_here import checks\nheader = HEADER_BYTES"
            ),
            new_markdown_cell("## Explorer\n\n**Predict:** λ rises. What happens\nto the bytes?"),
            new_code_cell("explorer.explore()"),
            new_markdown_cell("<details><summary>What happens</summary>\n\nThey fall.\n\n</details>"),
            new_markdown_cell(QUESTION),
            new_markdown_cell("## Exercises\n\n### Exercise 1 (*): bits"),
            new_code_cell("checks.bits_per_pixel(my_bits)"),
            new_markdown_cell(
                "<details><summary>Solution</summary>\n\n```python\nmy_bits = lambda n, h, w: 8 * n / (h * w)"
                "\n```\n\n</details>"
            ),
            new_markdown_cell("### Exercise 2 (**): a step"),
            new_code_cell("checks.start_time(my_time)"),
            solution("time", "delta, s, table", TIME),
            new_markdown_cell("### Exercise 3 (***): error"),
            new_code_cell("checks.psnr(my_psnr)"),
            solution("psnr", "a, b", "10 * np.log10(255**2 / ((np.float64(a) - b) ** 2).mean())"),
        ]
    )


def replace(old: str, new: str):
    def change(nb):
        cell = next(cell for cell in nb.cells if old in cell.source)
        cell.source = cell.source.replace(old, new)

    return change


BREAKS = [
    ("one_sitting", replace("Read.", "word " * MAX_WORDS)),
    ("one_sitting", lambda nb: nb.cells.extend(new_code_cell("1") for _ in range(MAX_CELLS))),
    ("exercises_of_three_kinds", replace("Exercise 1 (*)", "Exercise 1")),
    ("exercises_of_three_kinds", replace("(**)", "(*)")),
    ("exercises_of_three_kinds", replace("(***)", "(****)")),
    ("solutions_are_right", replace("len(table)", "6")),
    ("solutions_are_right", replace("len(table)", "missing_name")),
    ("solutions_are_right", replace("def my_time", "def another")),
    (
        "solutions_are_right",
        replace("<summary>Solution</summary>\n\n```python\ndef my_time", "```\ndef my_time"),
    ),
    ("solutions_are_right", lambda nb: nb.cells.pop()),
    ("no_list_by_accident", replace("Read.", "Read lesson\n01. You have done so.")),
    ("no_list_by_accident", replace("Read.", "Take one\n- or two.")),
    ("questions_have_answers", replace("<details><summary>Answer</summary>So.</details>", "So.")),
    ("questions_have_answers", replace("**Predict:**", "Predict:")),
    ("questions_have_answers", replace("to the bytes?", "to the bytes.")),
    ("questions_have_answers", replace("What happens</summary>", "Answer</summary>")),
    ("words_of_the_field", replace("Read.", "It is a copying machine.")),
    ("words_of_the_field", replace("Read.", "Here the network knows more.")),
    ("header_size_is_read", replace("HEADER_BYTES", "data[:48]")),
]


def test_the_example_keeps_every_rule():
    assert {name: check(lesson()) for name, check in TEACHING.items()} == dict.fromkeys(TEACHING, [])


@pytest.mark.parametrize(("rule", "change"), BREAKS)
def test_rule_notices(rule, change):
    nb = lesson()
    change(nb)
    assert broken_rules(nb) == {rule}


def test_every_rule_can_fail():
    assert {rule for rule, _ in BREAKS} == TEACHING.keys()

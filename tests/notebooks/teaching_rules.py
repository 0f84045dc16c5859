"""The rules of teaching that every lesson keeps, beside those of form in notebook_rules.py.

A rule takes a notebook and returns one sentence for each place that breaks it. test_teaching_rules.py applies
all rules to all lessons, and proves each rule on notebooks made to break it.
"""

import math
import re
from collections.abc import Callable

import nbformat
import numpy as np
import torch
from notebook_rules import code_cells, prose, sections

from dhp_lab.notebook.exercises import CORRECT, REGISTRY

MAX_CELLS = 60
MAX_WORDS = 3200
MARKS = ["*", "**", "***"]
EXERCISE = re.compile(r"^### Exercise \d+ \((\*{1,3})\): ", re.MULTILINE)
SOLUTION = re.compile(
    r"<details><summary>Solution</summary>\s*```python\n(.*?)```\s*</details>", re.DOTALL | re.MULTILINE
)
CHECKED = re.compile(r"^checks\.(\w+)\((\w+)\)\s*$", re.MULTILINE)
BLOCK = re.compile(
    r"^(?:#|>|\||\$\$|```|<|[-*+] |\d+[.)] | {2,})"
)  # what may stand before a list's first line
ITEM = re.compile(r"^(?:[-*+]|\d+[.)]) ")
QUESTION = re.compile(r"^\*\*\d+\. .*?\*\*", re.DOTALL | re.MULTILINE)
# Ours, and in the message the field's own.
WORDS = {
    r"no chance|without chance": "deterministic",
    r"four things more|gradients that are too long": "warm-up, decay, gradient clipping, EMA",
    r"silent(?:ly)? start\w*": "zero initialisation",
    r"copying machine|learnt by heart": "memorisation",
    r"comes from the front|looks from behind": "prior given x0, likelihood of xt",
    r"(?:several|two) hills": "multimodal",
    r"leans? towards zero": "dead-zone quantisation",
    r"hang(?:s)? together": "are correlated",
    r"a referee": "a reference solution",
    r"makes the whole sum to 1": "normalising constant",
    r"what it makes small": "objective",
    r"has its say": "matters at high noise",
    r"foret(?:ell|old)\w*": "predict",
    r"share read rightly": "accuracy",
    r"look through a network": "learned perceptual metrics",
    r"hardly weighed": "with a tiny KL weight",
    r"averaged by what each is off": "inverse-variance weighting",
    r"the smaller place": "latent space",
    r"dear(?:er|est)? symbols?|cheap(?:er|est)? symbols?": "long, short code lengths",
    r"endless numbers": "arbitrary precision",
    r"rounding has no slope": "rounding has zero gradient",
    r"even noise": "additive uniform noise",
    r"stand-ins?": "proxy, surrogate",
    r"(?:straight|curved) parts?": "linear, non-linear part",
    r"strange to it": "out of distribution",
    r"asks? D\b|D is asked|the network is asked|asks? the network": "evaluates D; one evaluation",
    r"(?:network|denoiser|U-Net|decoder|D) (?:tells|says|knows|told)": "predicts, estimates",
}

TEACHING: dict[str, Callable[[nbformat.NotebookNode], list[str]]] = {}


def rule(function):
    """Add a function to TEACHING."""
    TEACHING[function.__name__] = function
    return function


@rule
def one_sitting(nb):
    """A lesson has 60 cells and 3 200 words of prose at most; fenced code is not counted."""
    words = len(prose(nb).split())
    problems = [f"{len(nb.cells)} cells, more than {MAX_CELLS}"] if len(nb.cells) > MAX_CELLS else []
    return problems + ([f"{words} words, more than {MAX_WORDS}"] if words > MAX_WORDS else [])


@rule
def exercises_of_three_kinds(nb):
    """One exercise at least of each of *, ** and ***: '### Exercise 1 (*): title'."""
    text = "\n".join(cell.source for cell in nb.cells if cell.cell_type == "markdown")
    marks = EXERCISE.findall(text)
    headings = len(re.findall(r"^### Exercise\b", text, flags=re.MULTILINE))
    problems = [] if len(marks) == headings else [f"{headings - len(marks)} exercises have no mark"]
    return problems + [f"no exercise ({mark})" for mark in MARKS if mark not in marks]


@rule
def solutions_are_right(nb):
    """Under each check a folded solution, which passes it."""
    problems = []
    for i, cell in code_cells(nb):
        for name, function in CHECKED.findall(cell.source):
            following = nb.cells[i + 1].source if i + 1 < len(nb.cells) else ""
            solution = SOLUTION.search(following)
            if solution is None:
                problems.append(f"cell {i}: no folded solution under checks.{name}")
            elif problem := problem_of(solution[1], name, function, nb):
                problems.append(f"cell {i + 1}: {problem}")
    return problems


def problem_of(solution: str, name: str, function: str, nb) -> str:
    """What is wrong with a solution of the exercise ``name``; empty where it passes its check."""
    space = {"math": math, "np": np, "torch": torch, "nn": torch.nn, "F": torch.nn.functional}
    try:
        exec("\n".join(imports(nb)), space)  # noqa: S102  (the lesson's own code, as a reader runs it)
        exec(solution, space)  # noqa: S102  (likewise)
        result = REGISTRY[name](space[function])
    except Exception as error:  # noqa: BLE001  (whatever a lesson's code raises is what the rule reports)
        return f"the solution of {name} raises {type(error).__name__}: {error}"
    return "" if result.status == CORRECT else f"the solution of {name} is {result.status}: {result.message}"


def imports(nb) -> list[str]:
    """The lines of the notebook's code that import something from the standard library or a package."""
    lines = "\n".join(cell.source for _, cell in code_cells(nb)).split("\n")
    return [line for line in lines if re.match(r"(?:import|from) [\w.]+", line) and "(" not in line]


@rule
def no_list_by_accident(nb):
    """No line of a paragraph begins as a list does: '12. You have ...' would be shown as an item."""
    problems = []
    for i, cell in enumerate(nb.cells):
        if cell.cell_type != "markdown":
            continue
        lines = re.sub(r"```.*?```", "", cell.source, flags=re.DOTALL).split("\n")
        listed = False
        for before, line in zip(["", *lines], lines, strict=False):
            listed = bool(ITEM.match(before)) or (listed and before.startswith("  "))
            if ITEM.match(line) and before.strip() and not (listed or BLOCK.match(before)):
                problems.append(f"cell {i}: {line[:60]!r} begins a list in the middle of a paragraph")
    return problems


@rule
def questions_have_answers(nb):
    """Each bold numbered question has its folded answer, and the explorer a prediction and its outcome."""
    text = dict(sections(nb))
    asked = text.get("A question to think about", "")
    starts = [found.start() for found in QUESTION.finditer(asked)] + [len(asked)]
    parts = [asked[a:b] for a, b in zip(starts, starts[1:], strict=False)]
    problems = [f"no folded answer: {part[:60]!r}" for part in parts if "<details>" not in part]
    explorer = text.get("Explorer", "")
    if not re.search(r"^\*\*Predict:\*\* .*?\?", explorer, flags=re.DOTALL | re.MULTILINE):
        problems.append("before the explorer no paragraph '**Predict:** ... ?'")
    if "<details><summary>What happens</summary>" not in explorer:
        problems.append("after the explorer no '<details><summary>What happens</summary>'")
    return problems


@rule
def words_of_the_field(nb):
    """The prose uses the field's terms."""
    text = prose(nb)
    return [
        f"{text[max(found.start() - 20, 0) : found.end() + 20]!r}: {better}"
        for words, better in WORDS.items()
        for found in re.finditer(rf"\b(?:{words})\b", text)
    ]


@rule
def header_size_is_read(nb):
    """No code writes the size of the header as a number: HEADER_BYTES holds it."""
    return [
        f"cell {i}: {line.strip()!r}"
        for i, cell in code_cells(nb)
        for line in cell.source.split("\n")
        if re.search(r"\b48\b", line) and re.search(r"header|bytes|\bdata\b", line, re.IGNORECASE)
    ]

"""Every notebook keeps the rules of notebook_rules.py; each rule is proved on notebooks that break it."""

import copy
import re
from pathlib import Path

import nbformat
import pytest
from execute_notebooks import WIDGET_VIEW, clean, execute
from nbclient.exceptions import CellExecutionError
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from notebook_rules import RULES, SECTIONS, WIDGET_STATE, lesson_number

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))
MAX_FOLDER_BYTES = 14_000_000


def broken_rules(nb) -> set[str]:
    return {name for name, check in RULES.items() if check(nb)}


def test_there_are_notebooks():
    assert NOTEBOOKS, "notebooks/ holds no notebook"


@pytest.fixture(scope="module")
def notebooks() -> dict[str, nbformat.NotebookNode]:
    """All lessons by the names of their files, as they are stored."""
    return {
        path.name: nbformat.reads(path.read_text("utf-8"), as_version=nbformat.NO_CONVERT)
        for path in NOTEBOOKS
    }


@pytest.mark.parametrize("rule", RULES)
def test_the_lessons_keep(rule, notebooks):
    offenders = [f"{name}: {what}" for name, notebook in notebooks.items() for what in RULES[rule](notebook)]
    assert not offenders, "\n".join([RULES[rule].__doc__, *offenders])


def test_titles_have_the_numbers_of_the_files(notebooks):
    assert [name for name, notebook in notebooks.items() if lesson_number(notebook) != int(name[:2])] == []


READING = {"half an hour": 30, "an hour": 60, "an hour and a half": 90}


@pytest.mark.parametrize("page", ["README.md", "README.ko.md"])
def test_the_front_page_has_the_minutes_that_each_lesson_states(page, notebooks):
    rows = (Path(__file__).parents[2] / page).read_text("utf-8").splitlines()
    for name, notebook in notebooks.items():
        needs = " ".join(notebook.cells[0].source.split())
        stated = re.search(
            r"(half an hour|an hour and a half|an hour) of reading|Reading takes ([a-z ]+)[.;]", needs
        )
        row = next(row for row in rows if f"](notebooks/{name})" in row)
        assert stated, name
        assert row.endswith(f"| {READING[stated[1] or stated[2]]} |"), name


def test_folder_is_small():
    assert sum(path.stat().st_size for path in NOTEBOOKS) < MAX_FOLDER_BYTES


# A lesson that keeps every rule, and below it what breaks each rule alone.

PICTURE = '<img alt="Two curves that cross at 0.5 bits per pixel" src="data:image/png;base64,/home/+/tmp/a=">'


def html(text: str):
    return new_output("display_data", {"text/html": text, "text/plain": "<HTML>"})


def code(source: str, *outputs):
    return new_code_cell(source, outputs=list(outputs))


def checked(name: str):
    result = f"{name}: not attempted yet. The task."
    return code(
        f"checks.{name}(my_{name})", new_output("execute_result", {"text/plain": result}, execution_count=1)
    )


def lesson() -> nbformat.NotebookNode:
    cells = [
        new_markdown_cell("# 00 · A lesson\n\n## What you will do\nRead.\n\n## What you will learn\nThis."),
        new_markdown_cell(
            "## What you need\n3 minutes on a laptop, 1 minute on a GPU; see https://example.org/a/b/c."
        ),
        code("from dhp_lab.lessons.start_here import checks, explorer\n%matplotlib inline"),
        new_markdown_cell(
            "## The idea\n$1/2$ and/or/not.\n```\n## not a heading\n```\n![A noisy photo of a cat](a.png)"
        ),
        code("1 / 2", new_output("stream", name="stdout", text="0.5 bits/pixel/channel\n")),
        new_markdown_cell("## Explorer"),
        code("explorer.explore()"),
        code("plots.figure_html(figure)", html(PICTURE)),
        new_markdown_cell(
            "## A question to think about\nWhy?\n<details><summary>Answer</summary>So.</details>"
        ),
        new_markdown_cell("## Exercises\n\n### Exercise 1: bits"),
        code("def my_psnr(a, b):\n    ..."),
        checked("psnr"),
        new_markdown_cell("### Exercise 2: more bits"),
        checked("bits_per_pixel"),
        new_markdown_cell("## Summary\nDone.\n\n## Further reading\nA paper, 2018."),
    ]
    nb = new_notebook(cells=cells, metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}})
    for number, cell in enumerate([cell for cell in cells if cell.cell_type == "code"], start=1):
        cell.execution_count = number
    return nb


def first(nb, words: str):
    return next(cell for cell in nb.cells if words in cell.source)


def replace(old: str, new: str):
    def change(nb):
        cell = first(nb, old)
        cell.source = cell.source.replace(old, new)

    return change


def show(words: str, *outputs):
    """Add outputs to the first cell with these words."""
    return lambda nb: first(nb, words).outputs.extend(copy.deepcopy(outputs))


def put(value, *path):
    """Set nb[path[0]][path[1]]... = value."""

    def change(nb):
        node = nb
        for key in path[:-1]:
            node = node[key]
        node[path[-1]] = nbformat.from_dict(value)

    return change


def add_state_without_models(nb):
    nb.metadata.widgets = nbformat.from_dict({WIDGET_STATE: {"state": {"other": {}}}})
    show("explorer.explore", VIEW)(nb)


def swap_sections(nb):
    nb.cells[1], nb.cells[0] = nb.cells[0], nb.cells[1]


VIEW = new_output("display_data", {WIDGET_VIEW: {"model_id": "abc"}, "text/plain": "VBox()"})
PNG = new_output("display_data", {"image/png": "iVBORw0KGgo="})
PNG_FILE_NAME = new_output(
    "display_data", {"image/png": "iVBORw0KGgo="}, metadata={"image/png": {"alt": "rd.png"}}
)
ERROR = new_output("error", ename="ValueError", evalue="no", traceback=[])
WARNING = new_output("stream", name="stderr", text="UserWarning")
HOME = str(Path.home() / "notes.txt")

BREAKS = [
    ("valid_format", put(4, "nbformat_minor")),
    ("valid_format", put(5, "cells", 2, "id")),
    ("valid_format", lambda nb: nb.cells[3].update(id=nb.cells[4].id)),
    ("valid_format", put("yes", "cells", 2, "metadata", "collapsed")),
    ("kernel_is_python3", put("dhp", "metadata", "kernelspec", "name")),
    ("kernel_is_python3", put({}, "metadata")),
    ("executed_in_order", put(None, "cells", 4, "execution_count")),
    ("executed_in_order", put(9, "cells", 4, "execution_count")),
    (
        "executed_in_order",
        lambda nb: [cell.update(execution_count=None) for cell in nb.cells if "execution_count" in cell],
    ),
    ("no_error_output", show("1 / 2", ERROR)),
    ("no_error_output", show("1 / 2", WARNING)),
    *[
        ("no_cell_is_skipped", put({"tags": [tag]}, "cells", 4, "metadata"))
        for tag in ("raises-exception", "nbval-skip")
    ],
    ("short_cells", put("x = 1\n" * 15 + "x", "cells", 4, "source")),
    ("small_file", put("x" * 1_500_000, "cells", 8, "metadata", "note")),
    ("sections_in_order", swap_sections),
    ("sections_in_order", replace("# 00 · A lesson", "A lesson")),
    *[("sections_in_order", replace(f"## {title}", f"### {title}")) for title in SECTIONS],
    ("sections_in_order", replace("## Further", "## Summary\nagain\n\n## Further")),
    ("sections_in_order", replace("minute", "moment")),
    ("sections_in_order", replace("GPU", "server")),
    ("sections_in_order", replace("<details>", "<div>")),
    ("sections_in_order", replace("$1/2$", "1/2")),
    ("exercises_are_checked", replace("start_here import", "ddpm import")),
    ("exercises_are_checked", replace("### Exercise 2", "### Number 2")),
    ("exercises_are_checked", replace("checks.psnr(my_psnr)", "checks.unknown(my_psnr)")),
    ("exercises_are_checked", replace("checks.psnr(my_psnr)", "check = checks.psnr")),
    ("exercises_are_checked", put([], "cells", 11, "outputs")),
    ("exercises_are_checked", put("psnr: correct", "cells", 11, "outputs", 0, "data", "text/plain")),
    ("one_explorer", replace("explorer.explore()", "explorer.explore")),
    ("one_explorer", replace("explorer.explore()", "explorer.explore(); explorer.explore()")),
    ("one_explorer", put([], "cells", 7, "outputs")),
    ("pictures_have_alt_text", show("1 / 2", PNG)),
    ("pictures_have_alt_text", show("1 / 2", PNG_FILE_NAME)),
    ("pictures_have_alt_text", show("1 / 2", html('<img src="data:image/png;base64,abc=">'))),
    ("pictures_have_alt_text", show("1 / 2", html('<p><img alt="The figure" src="a.png"/></p>'))),
    ("pictures_have_alt_text", show("1 / 2", html("<svg viewBox='0 0 1 1'></svg>"))),
    ("pictures_have_alt_text", replace("![A noisy photo of a cat]", "![]")),
    ("pictures_have_alt_text", replace("![A noisy photo of a cat](a.png)", "<img src='a.png'>")),
    ("widgets_are_valid", show("explorer.explore", VIEW)),
    ("widgets_are_valid", add_state_without_models),
    ("widgets_are_valid", put({WIDGET_STATE: {"version_major": 2}}, "metadata", "widgets")),
    ("no_machine_paths", replace("1 / 2", f"open({HOME!r})")),
    ("no_machine_paths", replace("1 / 2", "open('/tmp')")),
    ("no_machine_paths", replace("This.", "Written to /data/runs/a.")),
    ("no_machine_paths", show("1 / 2", new_output("stream", text=f"saved {HOME}"))),
    ("no_machine_paths", show("1 / 2", html(f"<a href='file://{HOME}'>log</a>"))),
    ("no_machine_paths", show("1 / 2", new_output("stream", text=r"saved C:\Users\me"))),
]


def test_the_example_keeps_every_rule():
    assert {name: check(lesson()) for name, check in RULES.items()} == dict.fromkeys(RULES, [])


def test_a_widget_with_its_state_is_fine():
    nb = lesson()
    nb.metadata.widgets = nbformat.from_dict({WIDGET_STATE: {"state": {"abc": {}}}})
    show("explorer.explore", VIEW)(nb)
    assert broken_rules(nb) == set()


@pytest.mark.parametrize(("rule", "change"), BREAKS)
def test_rule_notices(rule, change):
    nb = lesson()
    change(nb)
    assert broken_rules(nb) == {rule}


def test_every_rule_can_fail():
    assert {rule for rule, _ in BREAKS} == RULES.keys()


# How notebooks are executed in place.


def test_clean_keeps_the_outputs_and_the_tags():
    nb = lesson()
    show("explorer.explore", VIEW)(nb)
    nb.metadata.widgets = nbformat.from_dict({WIDGET_STATE: {"version_major": 2}})
    nb.metadata.kernelspec.name = "my-kernel"
    nb.cells[4].metadata = nbformat.from_dict({"tags": ["nbval-check-output"], "execution": {"shell": "now"}})
    assert broken_rules(clean(nb)) == set()
    assert nb.cells[4].metadata == {"tags": ["nbval-check-output"]}
    assert [cell.get("outputs") for cell in nb.cells] == [cell.get("outputs") for cell in lesson().cells]


@pytest.mark.slow
def test_execute_in_place(tmp_path):
    path = tmp_path / "a.ipynb"
    nbformat.write(new_notebook(cells=[code("import os; 1 + 1"), code("print(os.getcwd())")]), path)
    execute(path)
    first, second = nbformat.read(path, as_version=4).cells
    assert (first.execution_count, first.outputs[0].data["text/plain"]) == (1, "2")
    assert (second.execution_count, second.outputs[0].text) == (2, f"{tmp_path.resolve()}\n")


@pytest.mark.slow
def test_an_error_leaves_the_file_as_it_was(tmp_path):
    path = tmp_path / "a.ipynb"
    nbformat.write(new_notebook(cells=[code("1"), code("1 / 0")]), path)
    before = path.read_bytes()
    with pytest.raises(CellExecutionError, match="ZeroDivisionError"):
        execute(path)
    assert path.read_bytes() == before

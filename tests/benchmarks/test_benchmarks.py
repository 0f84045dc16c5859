"""What the benchmarks share: how they end, the page of their tables, and what they read from a training's
log.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
PAGE = "# P\n\n<!-- a: begin -->\nold\n<!-- a: end -->\n\n<!-- b: begin -->\nkept\n<!-- b: end -->\nend\n"


@pytest.fixture
def script(monkeypatch):
    """A benchmark as a module."""
    monkeypatch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])
    return importlib.import_module


def test_figures_and_table_lie_side_by_side_and_on_the_screen(script, tmp_path, capsys):
    script("saving").save({"a": 1}, "| a |", tmp_path / "new" / "x.json")
    assert json.loads((tmp_path / "new" / "x.json").read_text()) == {"a": 1}
    assert (tmp_path / "new" / "x.md").read_text() == "| a |\n" == capsys.readouterr().out


def test_tables_are_put_between_their_marks_and_nothing_else_changes(script):
    tables = script("tables")
    page = tables.filled(PAGE, {"a": "| new |\n", "c": "| no place |"})
    assert page == PAGE.replace("old", "| new |") and tables.filled(page, {}) == page


@pytest.mark.parametrize(
    "page, message",
    [
        ("<!-- a: begin -->\n", "has no partner"),
        ("<!-- a: begin -->\n<!-- b: end -->\n", "has no partner"),
        (2 * "<!-- a: begin -->\n<!-- a: end -->\n", "two places called a"),
    ],
)
def test_a_page_with_odd_marks_is_refused(script, page, message):
    with pytest.raises(ValueError, match=message):
        script("tables").filled(page, {})


def test_every_table_has_its_place_in_the_page(script):
    tables = script("tables")
    written = {file.stem for file in (BENCHMARKS.parent / "data" / "results").glob("*.md")}
    assert written <= set(tables.places((BENCHMARKS / "README.md").read_text("utf-8")))


def test_steps_and_minutes_are_those_of_the_logs_last_training(script, tmp_path):
    (tmp_path / "best_checkpoint").mkdir()
    lines = [
        "2026-01-01 10:00:00,1 INFO 900 steps: {}",
        "2026-01-01 11:00:00,1 INFO step 900 loss 1",
        "2026-01-01 12:00:00,1 INFO 400 steps: {}",
        "2026-01-01 12:30:00,1 INFO validation at step 400: objective 1",
    ]
    (tmp_path / "training.log").write_text("\n".join(lines))
    trained = script("variants").trained
    assert trained(tmp_path) == (400, 30.0) and trained(tmp_path / "best_checkpoint") == (None, None)

"""benchmarks/common.py: options, child processes, timing and tables of all benchmarks."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
CHILD = f"""
import sys
sys.path.insert(0, {str(BENCHMARKS)!r})
from common import answer

def job():
    print("said meanwhile")
    if sys.argv[1] == "fail":
        sys.exit("what went wrong")
    return {{"words": sys.argv[1:]}}

answer(job)
"""


@pytest.fixture
def common(monkeypatch):
    """The module."""
    monkeypatch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])
    return importlib.import_module("common")


def test_figures_and_table_lie_side_by_side_and_on_the_screen(common, tmp_path, capsys):
    common.save({"a": 1}, "| a |", tmp_path / "new" / "x.json")
    assert json.loads((tmp_path / "new" / "x.json").read_text()) == {"a": 1}
    assert (tmp_path / "new" / "x.md").read_text() == "| a |\n" == capsys.readouterr().out


@pytest.mark.parametrize(
    "align, rule",
    [
        ("lr", "|---|---:|---:|"),
        ("r", "|---:|---:|---:|"),
        ("rl", "|---:|---|---|"),
        ("lrlr", "|---|---:|---|"),
    ],
)
def test_the_last_letter_of_a_tables_alignment_goes_on(common, align, rule):
    lines = common.markdown_table(["a", "b", "c"], [[1, "x", 2.5], ["", 0, None]], align).splitlines()
    assert lines == ["| a | b | c |", rule, "| 1 | x | 2.5 |", "|  | 0 | None |"]


def test_a_row_that_does_not_fit_its_heads_is_refused(common):
    with pytest.raises(ValueError, match="1 cells under 2 heads"):
        common.markdown_table(["a", "b"], [["x"]])


def test_a_command_line_measures_the_same_again(common, tmp_path):
    options = argparse.Namespace(
        folder=tmp_path / "photos",
        rates=(0.01, 5e-05),
        none=(),
        steps=3,
        lr=0.0008,
        absent=None,
        names=["a", "b"],
    )
    names = ["folder", "rates", "none", "steps", "lr", "absent", "names"]
    words = "--folder photos --rates 0.01,5e-05 --none none --steps 3 --lr 0.0008 --names a b"
    assert common.command_line("/x/y/z.py", options, names) == f"python benchmarks/z.py {words}"
    read = common.listed(float)
    assert read("0.01,5e-05") == options.rates and read("none") == ()


def test_a_name_that_is_not_among_the_choices_is_refused(common, capsys):
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", type=common.listed(common.one_of(["a", "b"])))
    assert parser.parse_args(["--only", "b,a"]).only == ("b", "a")
    with pytest.raises(SystemExit):
        parser.parse_args(["--only", "a,c"])
    assert "there is no 'c'; choose from a, b" in capsys.readouterr().err


def test_seconds_are_counted_after_a_first_call(common):
    calls = []
    seconds, result = common.timed(lambda: calls.append(1) or len(calls), runs=3)
    assert len(calls) == 4 == result and len(seconds) == 3 and min(seconds) >= 0


def test_a_spread_is_median_least_and_greatest(common):
    assert common.spread([3.0, 1.0, 2.0], 1) == "2.0 (1.0..3.0)"


def test_a_child_answers_in_its_last_line(common, tmp_path):
    (tmp_path / "child.py").write_text(CHILD)
    found = common.run_child(tmp_path / "child.py", ["go", 1, tmp_path])
    assert found == {"words": ["go", "1", str(tmp_path)]}


def test_a_child_that_fails_ends_the_parent_with_its_words(common, tmp_path):
    (tmp_path / "child.py").write_text(CHILD)
    with pytest.raises(SystemExit, match="(?s)child.py fail ended with 1.*what went wrong"):
        common.run_child(tmp_path / "child.py", ["fail"])


def test_a_bd_rate_that_cannot_be_had_has_a_reason(common):
    rates, psnr = [0.1, 0.2, 0.4, 0.8], [28.0, 30.0, 32.0, 34.0]
    twice = common.bd_rate_or_reason((rates, psnr), ([2 * rate for rate in rates], psnr))
    assert twice["percent"] == pytest.approx(100) and common.percent_cell(twice) == "+100.0 %"
    apart = common.bd_rate_or_reason((rates, psnr), (rates, [50.0, 52.0, 54.0, 56.0]))
    assert apart["percent"] is None and apart["reason"] and common.percent_cell(apart) == "-"
    assert common.percent_cell(None) == "-"


def test_a_heading_names_command_machine_and_facts(common):
    assert common.heading({"command": "c"}, "one", "two") == "`c`; one; two"
    place = {"device": "cpu", "threads": 2, "versions": {"torch": "2"}, "date": "today"}
    assert common.heading({"command": "c", "environment": place}) == "`c` on cpu, 2 threads, torch 2, today"


def test_a_mosaic_has_the_size_that_is_wanted(common):
    x = common.mosaic(700, 500)
    assert x.shape == (1, 3, 500, 700) and 0 <= x.min() < x.max() <= 1

"""data/results/trust.json and its table in SECURITY.md: each check owns a key, and a row."""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path

import pytest
import trust_results

FOLDER = Path(__file__).parent
FOUND = trust_results.load()
CHECKS = sorted(path.stem for path in FOLDER.glob("*.py") if "\ndef row(" in path.read_text("utf-8"))


def test_make_trust_runs_every_check_and_nothing_else():
    makefile = (trust_results.ROOT / "Makefile").read_text("utf-8")
    assert sorted(re.search(r"^TRUST \?= (.*)$", makefile, re.MULTILINE)[1].split()) == CHECKS
    assert set(FOUND) <= set(CHECKS)


@pytest.mark.parametrize("name", CHECKS)
def test_a_check_names_its_command_and_its_options(name):
    parser = importlib.import_module(name).make_parser()
    assert f"python tests/trust/{name}.py" in parser.format_help()
    assert parser.get_default("output") == trust_results.RESULT


@pytest.mark.parametrize("name", FOUND)
def test_a_result_names_what_measures_it_again(name):
    assert FOUND[name]["command"].startswith(f"python tests/trust/{name}.py")
    assert FOUND[name]["environment"]["versions"]["torch"]
    assert len(importlib.import_module(name).row(FOUND[name])) == len(trust_results.HEADS)


def test_the_page_has_the_figures_that_were_found():
    page = (trust_results.ROOT / "SECURITY.md").read_text("utf-8")
    assert trust_results.filled(page, FOUND) == page


@pytest.mark.parametrize("found", [found for name, found in FOUND.items() if name == "hostile_files"])
def test_every_input_of_the_recorded_run_was_counted(found):
    assert found["inputs"] >= 200_000 and sum(found["outcomes"].values()) == found["inputs"]
    assert sum(found["checksums_mended"].values()) == found["inputs"]
    assert 0.45 < 1 - found["checksums_mended"]["none"] / found["inputs"] < 0.55
    assert found["slowest_cpu_seconds"] < 1 and found["environment"]["peak_memory_mb"] < 1000


EXAMPLE = {
    "environment": {"peak_memory_mb": 765.2},
    "inputs": 4000,
    "checksums_mended": {"container": 1385, "everything": 654, "none": 1961},
    "outcomes": {
        "all_forged": 220,
        "container": 3139,
        "header_forged": 28,
        "model": 88,
        "same": 118,
        "symbols": 407,
    },
    "slowest_cpu_seconds": 0.306,
}


def test_a_row_says_what_was_counted():
    """Of 4000: 3634 refused, 118 the same, 248 forged."""
    tried, count, happened = importlib.import_module("hostile_files").row(EXAMPLE)
    assert tried.endswith("mended in 51%") and count == "4 000 files"
    assert "90.8% refused in one line, 2.9% showed the picture" in happened and "6.2% had every" in happened
    assert happened.endswith("slowest 0.31 s of CPU time, 765 MB at most")


def test_a_check_replaces_its_own_key_alone(tmp_path, capsys):
    path = tmp_path / "new" / "trust.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"other": {"n": 1}, "hostile_files": {"n": 2}}))
    trust_results.save("tests/trust/hostile_files.py", EXAMPLE, path)
    assert json.loads(path.read_text()) == {"hostile_files": EXAMPLE, "other": {"n": 1}}
    assert capsys.readouterr().out.startswith("hostile_files: changed .dhp files")
    path.unlink()
    trust_results.save("tests/trust/hostile_files.py", EXAMPLE, path)
    assert trust_results.load(path) == {"hostile_files": EXAMPLE}


def test_a_page_is_filled_between_its_marks(tmp_path):
    page, results = tmp_path / "page.md", tmp_path / "trust.json"
    page.write_text("# P\n<!-- trust: begin -->\nold\n<!-- trust: end -->\nend\n")
    results.write_text(json.dumps({"hostile_files": EXAMPLE}))
    trust_results.main(["--page", str(page), "--results", str(results)])
    before, table, after = re.split(r"<!-- trust: (?:begin|end) -->\n", page.read_text())
    assert (before, after) == ("# P\n", "end\n") and len(table.splitlines()) == 3
    assert table.splitlines()[1] == "| --- | --- | --- |" and "| 4 000 files |" in table
    page.write_text("no place")
    with pytest.raises(ValueError, match="has no lines"):
        trust_results.main(["--page", str(page), "--results", str(results)])

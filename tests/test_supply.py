"""What is installed: the versions in constraints.txt, which everything that installs the package uses."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
LINES = [line for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines() if line[0] != "#"]
PINNED = {canonicalize_name(line.partition("==")[0]): line.partition("==")[2] for line in LINES}
DECLARED = [Requirement(line) for line in [*PROJECT["dependencies"], *sum(EXTRAS.values(), [])]]


def test_every_line_is_one_version_that_any_index_has():
    """No local part such as +cpu, which only one index has."""
    assert [line for line in LINES if not re.fullmatch(r"[\w.-]+==[\w.]+", line)] == []
    assert len(PINNED) == len(LINES)


@pytest.mark.parametrize("requirement", DECLARED, ids=lambda requirement: requirement.name)
def test_what_is_declared_is_pinned_within_its_range(requirement):
    assert requirement.specifier.contains(PINNED[canonicalize_name(requirement.name)])


def test_everything_that_installs_the_package_takes_these_versions():
    makefile = (ROOT / "Makefile").read_text("utf-8")
    installs = [line for line in makefile.splitlines() if "pip install" in line]
    free = [line for line in installs if "--constraint constraints.txt" not in line]
    assert len(installs) == 3 and len(free) == 1 and "--upgrade" in free[0]  # make lock
    conda = (ROOT / "environment.yml").read_text("utf-8")
    assert "- -c constraints.txt" in conda
    assert "$(READY): pyproject.toml constraints.txt" in makefile


def test_the_linter_looks_for_what_is_unsafe():
    linter = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["ruff"]["lint"]
    assert {"S", "BLE"} <= set(linter["select"])
    assert set(linter["ignore"]) == {"E741", "S101"}
    assert all(path.startswith(("tests/", "benchmarks/")) for path in linter["per-file-ignores"])

"""The lessons pass under nbval, which is how a course or a fork would run them in its own CI."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"


@pytest.mark.slow
def test_the_first_lesson_passes_under_nbval():
    """Its cells run without an error, its explorer's callbacks too, and tagged outputs are as committed."""
    options = ["--nbval-lax", "--nbval-current-env", "-p", "no:cacheprovider", "-q"]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(NOTEBOOKS / "00_start_here.ipynb")],
        capture_output=True,
        text=True,
        env=os.environ | {"DHP_PROFILE": "ci"},
        cwd=NOTEBOOKS.parent,
    )
    assert run.returncode == 0, run.stdout[-3000:]
    assert " passed" in run.stdout and "failed" not in run.stdout

"""Killed trainings: the short form of the recorded check, and that it can fail."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import killed_trainings
import pytest

SCRIPT = Path(__file__).resolve().parent / "killed_trainings.py"


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks the trainings that it kills")
def test_two_kills_a_photo_that_vanishes_and_a_full_disk(tmp_path):
    """The disk is filled where this is allowed: by root."""
    output = tmp_path / "trust.json"
    output.write_text(json.dumps({"other": {"count": 1}}))
    command = [sys.executable, str(SCRIPT), "--kills", "2", "--epochs", "8", "--output", str(output)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    whole = json.loads(output.read_text())
    found = whole["killed_trainings"]
    assert whole["other"] == {"count": 1} and found["command"].startswith("python tests/trust/")
    assert found["killed"]["kills"] == found["vanished"]["kills"] == 2
    assert found["killed"]["steps_made"] >= found["killed"]["steps"] > 20
    assert found["vanished"]["photos_gone"] == 1
    assert len(killed_trainings.row(found)) == 3 and "4 kills" in killed_trainings.row(found)[1]


def test_losses_that_differ_or_are_missing_are_faults():
    good = {0: [("codec", 1.0, 2.0)], 1: [("codec", 3.0, 4.0)]}
    again = {**good, 1: good[1] * 3}
    assert killed_trainings._same(again, good) == 4
    with pytest.raises(killed_trainings.Fault, match="step 1: None"):
        killed_trainings._same({0: good[0]}, good)
    with pytest.raises(killed_trainings.Fault, match="step 1: .*4.5.*4.0"):
        killed_trainings._same({**good, 1: [*good[1], ("codec", 3.0, 4.5)]}, good)


def test_a_training_that_ends_too_early_is_a_fault(tmp_path):
    lab = killed_trainings.Lab(tmp_path, random.Random(0))
    child = os.fork()
    if not child:
        os._exit(0)
    with pytest.raises(killed_trainings.Fault, match="ended before it was killed"):
        lab.kill(child, tmp_path / "none.losses")

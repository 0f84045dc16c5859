"""Where the shipped checkpoints, the results and downloaded data sets lie; no torch."""

from __future__ import annotations

import os
from pathlib import Path

from dhp_lab.core.weights import WEIGHTS, CheckpointError

ROOT = Path(__file__).resolve().parents[2]  # the clone that the package lies in
CHECKPOINTS = ROOT / "data" / "checkpoints"
RESULTS = ROOT / "data" / "results"
LESSONS = ROOT / "notebooks"  # as they were committed
LESSON_COPIES = ROOT / "my-lessons"  # the reader's own; git ignores it
ANCHORS = ROOT / "data" / "anchors" / "kodak_rd.json"
PERCEPTUAL_ANCHORS = ANCHORS.with_name("kodak_perceptual.json")
DEFAULT = "diffusion-hyperprior"  # the checkpoint that programs load when none is named


def default_checkpoint() -> Path:
    """Return the folder of the shipped checkpoint, data/checkpoints/diffusion-hyperprior beside the package.

    Raises:
        CheckpointError: it is not there.
    """
    folder = CHECKPOINTS / DEFAULT
    if not (folder / WEIGHTS).is_file():
        raise CheckpointError(
            f"the shipped checkpoint is not at {folder}; work in a full clone, or name one with --model_path"
        )
    return folder


def data_dir() -> Path:
    """Return the folder of data sets: DHP_DATA where it is set, else `data` beside the package."""
    folder = os.environ.get("DHP_DATA")
    return Path(folder).expanduser().resolve() if folder else ROOT / "data"

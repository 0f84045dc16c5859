"""What a training leaves in its folder, and that none is overwritten unasked."""

from __future__ import annotations

import logging
from pathlib import Path

from dhp_lab.core.files import check_writable, refuse_to_overwrite
from dhp_lab.core.weights import CONFIG, WEIGHTS

STATE = "last.safetensors"
BEST, FINAL = "best_checkpoint", "final_checkpoint"
SAMPLES, BOARD, LOG = "samples", "tensorboard", "training.log"
MADE = (STATE, *(f"{name}/{file}" for name in (BEST, FINAL) for file in (WEIGHTS, CONFIG)))


def prepare_folder(folder: Path, *, resume: bool, overwrite: bool) -> None:
    """Check that a training can write what it makes and overwrites nothing unasked; nothing is removed yet.

    Raises:
        OverwriteError: the folder holds a training, and neither ``resume`` nor ``overwrite`` is set.
        OSError: something cannot be written.
    """
    if not (resume or overwrite):
        refuse_to_overwrite(
            (folder / name for name in MADE),
            "go on with it (--resume), take another --output_dir, or replace it (--overwrite)",
        )
    for name in MADE:
        check_writable(folder / name)
    (folder / SAMPLES).mkdir(parents=True, exist_ok=True)


def clear_folder(folder: Path) -> None:
    """Remove what an earlier training made, so that nothing of it can be taken for the new one's.

    Other files stay.
    """
    old = [folder / name for name in MADE]
    old += (folder / SAMPLES).glob("step_*.png")
    old += (folder / BOARD).glob("events.out.tfevents.*")
    for path in old:
        path.unlink(missing_ok=True)


def log_to_file(path: Path) -> None:
    """Append what the package logs to a file, and no longer to that of an earlier run."""
    root = logging.getLogger("dhp_lab")
    root.setLevel(logging.INFO)
    for old in [handler for handler in root.handlers if isinstance(handler, logging.FileHandler)]:
        root.removeHandler(old)
        old.close()
    handler = logging.FileHandler(path, encoding="utf-8", errors="backslashreplace")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    root.addHandler(handler)

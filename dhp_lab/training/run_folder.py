"""What a training leaves in its folder, and that none is overwritten unasked."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from dhp_lab.core.files import check_writable, refuse_to_overwrite
from dhp_lab.core.weights import CONFIG, WEIGHTS

STATE = "last.safetensors"
BEST, FINAL = "best_checkpoint", "final_checkpoint"
SAMPLES, BOARD, LOG, PHOTOS = "samples", "tensorboard", "training.log", "photos.list"
MADE = (STATE, *(f"{name}/{file}" for name in (BEST, FINAL) for file in (WEIGHTS, CONFIG)))


def prepare_folder(folder: Path, *, resume: bool, overwrite: bool, made: Sequence[str] = MADE) -> None:
    """Check that a training can write what it makes and overwrites nothing unasked.

    Nothing is removed yet, but for what a killed run left half written.

    Args:
        made: the files that a later training could replace.

    Raises:
        OverwriteError: the folder holds a training, and neither ``resume`` nor ``overwrite`` is set.
        OSError: something cannot be written.
    """
    if not (resume or overwrite):
        refuse_to_overwrite(
            (folder / name for name in made),
            "go on with it (--resume), take another --output_dir, or replace it (--overwrite)",
        )
    _remove_parts(folder, made)
    for name in made:
        check_writable(folder / name)
    (folder / SAMPLES).mkdir(parents=True, exist_ok=True)


def _remove_parts(folder: Path, made: Sequence[str]) -> None:
    """Remove what a run that was killed left half written."""
    places = [folder / name for name in (*made, PHOTOS)] + [folder / SAMPLES / "step_*.png"]
    for place in places:
        for part in place.parent.glob(f".{place.name}.*.part"):
            part.unlink(missing_ok=True)


def clear_folder(folder: Path, made: Sequence[str] = MADE) -> None:
    """Remove what an earlier training made, so that nothing of it can be taken for the new one's.

    Other files stay.
    """
    old = [folder / name for name in (*made, PHOTOS)]
    old += (folder / SAMPLES).glob("step_*.png")
    old += (folder / BOARD).glob("events.out.tfevents.*")
    for path in old:
        path.unlink(missing_ok=True)


def last_state(folder: Path, remedy: str) -> str:
    """Where a run that ended early can go on, for a message; ``remedy``: what to do before."""
    if (folder / STATE).is_file():
        return f"the last good state is {folder / STATE}. {remedy} go on with --resume"
    return f"no state was saved yet. {remedy} start again with --overwrite"


def log_to_file(path: Path) -> None:
    """Append what the package logs to a file, and no longer to that of an earlier run."""
    root = logging.getLogger("dhp_lab")
    root.setLevel(logging.INFO)
    for old in [handler for handler in root.handlers if isinstance(handler, logging.FileHandler)]:
        root.removeHandler(old)
        old.close()
    handler = _LogFile(path, encoding="utf-8", errors="backslashreplace")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    root.addHandler(handler)


class _LogFile(logging.FileHandler):
    """A file whose lines are lost while the disk is full; the training goes on, up to its next checkpoint."""

    is_lost = False

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  (logging's own name)
        """Say it once on stderr, in one line, where logging prints a traceback for each line."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
        elif not self.is_lost:
            self.is_lost = True
            sys.stderr.write(f"{self.baseFilename}: {error.strerror}; lines of the log are lost\n")

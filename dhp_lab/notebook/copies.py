"""The reader's own copies of the lessons: refreshed while nobody changed them, and never overwritten after.

JupyterLab saves by itself: a lesson that was opened and half run is another file than the one that was
committed. So readers work in copies, and the lessons stay as they are.

| the copy                              | what happens                                                    |
|---------------------------------------|-----------------------------------------------------------------|
| is not there, or was deleted          | the lesson is copied                                            |
| is as it was copied                   | it becomes today's lesson                                       |
| was changed; the lesson was not       | it stays                                                        |
| was changed, and the lesson was too   | it stays; today's lesson comes beside it, as NAME.newer.ipynb,  |
|                                       | until that is deleted: then it was seen                         |
| is as it was copied, and is no longer | it goes: a lesson that is no more, or a NAME.newer.ipynb that   |
| needed                                | has taken the place of its deleted elder                        |

The copies' folder holds a file, ``.copied.json``: by the name of each copy, the sha256 of what was copied
there. Where it is lost, a copy that is not today's lesson counts as changed.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from dhp_lab.core.files import write_atomic

STATE = ".copied.json"
NO_FILE = "not a file"  # in the place of a sha256, which it never equals


def refresh_copies(lessons: Path, folder: Path) -> list[str]:
    """Bring the reader's copies up to date; see the table above.

    Args:
        lessons: the folder of the committed notebooks, which are read.
        folder: of the copies; it is made if need be.

    Returns:
        One line for each lesson that lies beside an older copy which the reader changed.

    Raises:
        ValueError: there are no lessons. OSError: the disk's own trouble.
    """
    notebooks = sorted(lessons.glob("*.ipynb"))
    if not notebooks:
        raise ValueError(f"there are no lessons at {lessons}; work in a full clone")
    folder.mkdir(parents=True, exist_ok=True)
    copied = _read_state(folder)
    needed, lines = set(), []
    try:
        for notebook in notebooks:
            place = _refresh(notebook, folder, copied)
            needed |= {notebook.name, place}
            if place not in (notebook.name, None):
                lines.append(f"{notebook.name}: you changed it, so it stays; today's lesson is {place}")
        _remove_unneeded(folder, copied, needed)
    finally:
        state = json.dumps(copied, indent=1, sort_keys=True) + "\n"
        write_atomic(folder / STATE, state.encode())
    return lines


def _refresh(notebook: Path, folder: Path, copied: dict[str, str]) -> str | None:
    """Copy one lesson where that overwrites nobody's work.

    Returns:
        The name of the copy that is today's lesson, unchanged; None where the reader changed it or deleted it
        from beside an older one.
    """
    data = notebook.read_bytes()
    today = hashlib.sha256(data).hexdigest()
    number = 0
    while True:
        name = _name(notebook, number)
        found, before = _sha256(folder / name), copied.get(name)
        if found in (None, before, today):  # nobody's work
            if number and found is None and before == today:
                return None
            if found != today:
                write_atomic(folder / name, data)
            copied[name] = today
            return name
        if before == today:
            return None
        number += 1


def _name(notebook: Path, number: int) -> str:
    """The name of a lesson's copy, 0, and of those that come beside it, 1, 2, ..."""
    if number == 0:
        return notebook.name
    return f"{notebook.stem}.newer{number if number > 1 else ''}{notebook.suffix}"


def _remove_unneeded(folder: Path, copied: dict[str, str], needed: set[str | None]) -> None:
    """Remove the copies that nobody changed and nobody needs."""
    for name in sorted(copied.keys() - needed):
        if _sha256(folder / name) == copied[name]:
            (folder / name).unlink()
            del copied[name]


def _sha256(path: Path) -> str | None:
    """The sha256 of a file; None where nothing is, and what equals none for a folder or a broken link."""
    if not os.path.lexists(path):
        return None
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else NO_FILE


def _read_state(folder: Path) -> dict[str, str]:
    """What was copied, by name; nothing where the file is lost or damaged."""
    try:
        state = json.loads((folder / STATE).read_text("utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}

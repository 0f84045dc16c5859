"""Which files below a folder are pictures to work on: one rule for every command.

| passed over                                   | why                                                       |
|-----------------------------------------------|-----------------------------------------------------------|
| names that begin with a dot, `@eaDir`, ...    | caches, copies and thumbnails that other programs keep    |
| the caller's output_dir; `samples/` in each   | pictures that this program wrote: a training would learn  |
| other folder of results                       | from them, an evaluation would measure them again         |
| a link back up, or to what is searched anyway | each folder is searched once, by its own name if possible |
| other suffixes, broken links, closed folders  | nothing there can be read                                 |
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

JPEG_SUFFIXES = {".jpg", ".jpeg", ".jpe", ".jfif"}
NETPBM_SUFFIXES = {".ppm", ".pgm", ".pbm", ".pnm"}
OTHER_SUFFIXES = {".png", ".apng", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".jp2", ".j2k"}
SUFFIXES = JPEG_SUFFIXES | NETPBM_SUFFIXES | OTHER_SUFFIXES
OTHERS_FOLDERS = {"@eaDir", "__MACOSX", "$RECYCLE.BIN"}  # thumbnails of a NAS, copies by macOS, Windows' bin
RESULTS = ("training.log", "evaluation.json")  # a folder that holds one of them was an output_dir
SAMPLES = "samples"

Log = Callable[[str], None]
"""Called with one line of text."""


class ImageError(ValueError):
    """A picture that cannot be read, used or written; the message names the file and the reason."""


def list_images(
    folder: str | Path, *, output_dir: str | Path | None = None, log: Log | None = None
) -> list[Path]:
    """All picture files below a folder, sorted by path; links are followed, and no folder is searched twice.

    Args:
        folder: a hidden one is searched too if it is named here.
        output_dir: where the caller's results go; it need not exist.
        log: receives one line on how many files of which kind were passed over, if any were.

    Raises:
        ImageError: the folder is missing or holds no file with a picture's suffix.
        OSError: the disk's own trouble.
    """
    folder = Path(folder)
    return [folder / name for name in list_names(folder, output_dir=output_dir, log=log)]


def list_names(
    folder: str | Path, *, output_dir: str | Path | None = None, log: Log | None = None
) -> list[str]:
    """What ``list_images`` finds, as paths inside the folder: of a million files in seconds, as none is asked
    for more than its folder tells. Arguments and errors as for ``list_images``.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ImageError(f"{folder} is not a folder")
    search = _Search(folder, output_dir)
    search.run()
    remark = search.remark()
    if not search.names:
        raise ImageError(
            f"{folder} holds no picture (looked for {', '.join(sorted(SUFFIXES))}, folders below included)"
            + (f"; passed over: {remark}" if remark else "")
        )
    if log is not None and remark:
        log(f"passed over in {search.root.name or folder}: {remark}")
    return sorted(search.names, key=lambda name: name.replace(os.sep, "\0"))  # as paths are sorted


class _Search:
    """One search: the pictures found, and what was passed over."""

    def __init__(self, folder: Path, output_dir: str | Path | None) -> None:
        self.folder = folder
        self.root = folder.resolve()
        self.output = None if output_dir is None else Path(output_dir).resolve()
        self.prefix = len(os.path.join(folder, ""))  # of paths, before the part inside the folder
        self.names: list[str] = []
        self.passed_over: Counter[str] = Counter()
        self.searched: set[Path] = set()  # where folders really lie
        self.links: list[str] = []  # to folders; they wait until all folders are searched by their own names

    def run(self) -> None:
        """Search the folder, then what links lead to, and the links found there."""
        self._search(str(self.folder))
        while self.links:
            self._follow(self.links.pop(0))

    def remark(self) -> str:
        """What was passed over, the largest number first; empty if nothing was."""
        kinds = sorted(self.passed_over.items(), key=lambda item: (-item[1], item[0]))
        return ", ".join(f"{count} {kind}" for kind, count in kinds)

    def _search(self, folder: str) -> None:
        """Search a folder and those below; links to folders are put aside."""
        waiting = [folder]
        while waiting:
            place = waiting.pop()
            real = Path(place).resolve()
            if real in self.searched:
                continue
            self.searched.add(real)
            try:
                with os.scandir(place) as entries:
                    found = sorted(entries, key=lambda entry: entry.name)
            except PermissionError:
                self.passed_over["folders without permission"] += 1
                continue
            waiting += [entry.path for entry in found if self._is_folder_to_search(entry)]

    def _is_folder_to_search(self, entry: os.DirEntry) -> bool:
        """Whether an entry is a folder to search now; files are taken in or counted."""
        if entry.name.startswith(".") or entry.name in OTHERS_FOLDERS:
            self.passed_over["hidden"] += 1
            return False
        is_link = entry.is_symlink()
        if not (Path(entry).is_dir() if is_link else entry.is_dir()):
            self._take(entry, is_link)
            return False
        if self._is_result(Path(entry).resolve()):
            self.passed_over["folders of results"] += 1
            return False
        if is_link:
            self.links.append(entry.path)
            return False
        return True

    def _take(self, entry: os.DirEntry, is_link: bool) -> None:
        """Take a file in if it is a picture, else count it."""
        suffix = os.path.splitext(entry.name)[1].lower().removesuffix(".")
        if is_link and not Path(entry).exists():
            self.passed_over["broken links"] += 1
        elif suffix in SUFFIXES and (Path(entry).is_file() if is_link else entry.is_file()):
            self.names.append(entry.path[self.prefix :])
        else:
            self.passed_over[suffix or "without a suffix"] += 1

    def _follow(self, link: str) -> None:
        """Search what a link leads to, unless that is searched anyway or holds all of the search."""
        place = Path(link).resolve()
        if place in self.searched or self.root.is_relative_to(place):
            self.passed_over["links to what is searched anyway"] += 1
        else:
            self._search(link)

    def _is_result(self, place: Path) -> bool:
        """Whether a folder below is the output_dir, or the samples of a folder of results."""
        if place == self.output:
            return True
        parent = place.parent
        is_result = parent == self.output or any((parent / name).is_file() for name in RESULTS)
        return place.name == SAMPLES and is_result

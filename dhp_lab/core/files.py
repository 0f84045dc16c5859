"""Files that appear whole or not at all: each is written beside its place, flushed to the disk, and moved
there.
"""

from __future__ import annotations

import errno
import io
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

CHUNK = 1 << 20  # bytes that are asked for at once
DISK_ERRORS = {
    errno.EACCES,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EIO,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOMEM,
    errno.ENOSPC,
    errno.EPERM,
    errno.EROFS,
    errno.ESTALE,
}


def is_disk_error(error: Exception) -> bool:
    """Whether an error is the disk's or the system's own trouble: other files would fare no better.

    Libraries raise OSError for damaged content too, then without a number or with that of a wrong argument.
    """
    return isinstance(error, OSError) and error.errno in DISK_ERRORS


def read_at_most(stream: BinaryIO, limit: int) -> bytes:
    """Read a binary stream to its end, or its first ``limit`` bytes: a pipe may never end.

    Raises:
        OSError: the system's own trouble.
    """
    data = io.BytesIO()  # grows as the bytes come, and gives them away without a copy
    while chunk := stream.read(min(limit - data.tell(), CHUNK)):
        data.write(chunk)
    return data.getvalue()


class OverwriteError(ValueError):
    """Earlier work lies where new work would go; the message names it and what to do."""


def write_atomic(path: str | Path, data: bytes) -> None:
    """Write a whole file or nothing.

    Args:
        path: the file, in a folder that exists.
        data: all of its bytes.

    Raises:
        OSError: the disk's own trouble; the old file, if any, is intact and no part of the new one is left.
    """
    write_all_atomic({Path(path): data})


def write_all_atomic(files: dict[Path, bytes]) -> None:
    """Write several files that belong together: none is put in its place before all are on the disk.

    Args:
        files: the bytes of each file by its path; the folders exist.

    Raises:
        OSError: the disk's own trouble, naming the file; no part of one is left beside its place.
    """
    temporary = {path: path.with_name(f".{path.name}.{os.getpid()}.part") for path in files}
    try:
        for path, data in files.items():
            with _named(path), open(temporary[path], "wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
        for path in files:
            with _named(path):
                os.replace(temporary[path], path)
    except BaseException:
        for part in temporary.values():
            part.unlink(missing_ok=True)
        raise


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Let an error of the disk name the file that was to be written, and not the one beside its place."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from None


def check_writable(path: str | Path) -> None:
    """Find out that a file cannot be written before the work begins whose result it shall hold.

    Args:
        path: the file; its folder is made if need be. A file that is there stays as it is.

    Raises:
        OSError: its place is a folder's, or its folder cannot be made or written to; it names ``path``.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    with _named(path):
        descriptor, part = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    os.close(descriptor)
    os.unlink(part)


def replace_files(source: Path, target: Path) -> None:
    """Move each file below ``source`` to its place below ``target``, where it appears whole."""
    for path in sorted(source.rglob("*")):
        place = target / path.relative_to(source)
        if path.is_dir():
            place.mkdir(exist_ok=True)
        else:
            os.replace(path, place)


def refuse_to_overwrite(places: Iterable[Path], remedy: str) -> None:
    """Check that nothing is lost when files are written.

    Args:
        places: of the files. remedy: what to do instead, for the message.

    Raises:
        OverwriteError: one of them is there.
    """
    for place in places:
        if place.exists():
            raise OverwriteError(f"{place} exists and would be overwritten: {remedy}")

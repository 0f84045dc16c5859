"""Files that appear whole or not at all: each is written beside its place, flushed to the disk, and moved
there.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

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
        OSError: the disk's own trouble; no part of a file is left beside its place.
    """
    temporary = {path: path.with_name(f".{path.name}.{os.getpid()}.part") for path in files}
    try:
        for path, data in files.items():
            with open(temporary[path], "wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
        for path in files:
            os.replace(temporary[path], path)
    except BaseException:
        for part in temporary.values():
            part.unlink(missing_ok=True)
        raise


def replace_files(source: Path, target: Path) -> None:
    """Move each file below ``source`` to its place below ``target``, where it appears whole."""
    for path in sorted(source.rglob("*")):
        place = target / path.relative_to(source)
        if path.is_dir():
            place.mkdir(exist_ok=True)
        else:
            os.replace(path, place)

"""Memory: what the C library's allocator does with what networks free, and the error of a shortage.

No torch.
"""

from __future__ import annotations

import ctypes
from functools import cache

import psutil

from dhp_lab.core.files import is_disk_error

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # glibc's malloc.h
MMAP_FROM = 128 << 20  # bytes of a buffer that gets pages of its own, and gives them back when freed
KEPT = 512 << 20  # bytes of freed memory that the process keeps
SHORTAGE = ("out of memory", "allocate memory", "not enough memory", "alloc_failed", "bad_alloc")


class OutOfMemory(MemoryError):
    """A shortage of memory whose message says what to do."""


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error is of a shortage of memory: Python's own, or by its words torch's or Pillow's."""
    if isinstance(error, MemoryError):
        return True
    return isinstance(error, (RuntimeError, OSError)) and any(
        words in str(error).lower() for words in SHORTAGE
    )


def raise_if_of_the_machine(error: Exception) -> None:
    """Raise an error again that is of the machine and not of what it was reading: a file is not damaged
    because memory or disk failed while it was read.
    """
    if is_out_of_memory(error) or is_disk_error(error):
        raise error


def check_memory(needed: float, what: str, remedy: str) -> None:
    """Pass a job that the machine's free memory suffices for: where the system promises more memory than it
    has, as Linux does, it would end the process without a word.

    Args:
        needed: bytes, about. what: the job, for the message. remedy: what to do instead.

    Raises:
        OutOfMemory: there is less.
    """
    available = psutil.virtual_memory().available
    if needed > available:
        raise OutOfMemory(
            f"{what} needs about {needed / 1e9:.1f} GB of memory, {available / 1e9:.1f} are free: {remedy}"
        )


@cache
def keep_freed_memory() -> None:
    """Let glibc's allocator keep freed memory, up to half a gigabyte, for the next network (`mallopt(3)`).

    By default it returns each buffer above 32 MB to the system, and getting its pages anew takes as long as
    the networks do. Other allocators stay as they are. A program calls this once, when it starts: the command
    line, and `settings.current_settings` for a notebook.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # not glibc: musl, macOS, Windows
        return
    mallopt(M_MMAP_THRESHOLD, MMAP_FROM)
    mallopt(M_TRIM_THRESHOLD, KEPT)

"""What the C library's allocator does with memory that networks free."""

from __future__ import annotations

import ctypes
from functools import cache


@cache
def _keep_freed_memory() -> None:
    """Let glibc's allocator keep what networks free, up to half a gigabyte, for the next one.

    It would hand each buffer above 32 MB back to the system, and getting its pages anew takes as long as the
    networks do. Other allocators stay as they are.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # not glibc: musl, macOS, Windows
        return
    mallopt(-3, 128 << 20)  # M_MMAP_THRESHOLD
    mallopt(-1, 512 << 20)  # M_TRIM_THRESHOLD

"""``-`` in the place of a file: standard input, or standard output, as bytes.

Where standard output carries a file, everything that is meant for a person goes to the error stream.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import typer

PIPE = Path("-")
INPUT, OUTPUT = "standard input", "standard output"


def file_or_pipe(text: str) -> Path:
    """An argument of the command line as a path; ``-`` is ``PIPE``, and ``./-`` a file of that name."""
    path = Path(text)
    return path.absolute() if path == PIPE and text != str(PIPE) else path


def input_name(source: Path) -> str:
    """How messages name an input."""
    return INPUT if source == PIPE else str(source)


def output_name(target: Path) -> str:
    """How messages name an output."""
    return OUTPUT if target == PIPE else str(target)


@contextmanager
def open_input(source: Path) -> Iterator[BinaryIO]:
    """Open a file, or standard input, to read its bytes.

    Raises:
        ValueError: standard input is closed, or a terminal. OSError: the system's own trouble, while it is
            open too; it names the input.
    """
    if source != PIPE:
        with open(source, "rb") as stream:
            yield stream
        return
    if sys.stdin is None:
        raise ValueError(f"{INPUT} is closed; give it a file, as in `dhp ... - < FILE`")
    if sys.stdin.isatty():
        raise ValueError(f"{INPUT} is a terminal; give it a file, as in `cat FILE | dhp ... -`")
    try:
        yield sys.stdin.buffer
    except OSError as error:  # of the pipe; it names nothing
        raise OSError(error.errno, error.strerror or str(error), error.filename or INPUT) from None


def check_standard_output() -> None:
    """Refuse to fill a terminal with bytes, before any work is done.

    Raises:
        ValueError: standard output is closed, or a terminal.
    """
    if sys.stdout is None:
        raise ValueError(f"{OUTPUT} is closed; give it a file, as in `dhp ... - > FILE`")
    if sys.stdout.isatty():
        raise ValueError(f"{OUTPUT} is a terminal, and a file no text; write it with `dhp ... - > FILE`")


def write_standard_output(data: bytes) -> None:
    """Write all bytes to standard output.

    Raises:
        BrokenPipeError: its reader has had enough. OSError: the system's own trouble; it names the output.
    """
    stream = sys.stdout.buffer
    raw = getattr(stream, "raw", stream)  # a buffer would try again at the program's end what failed
    rest = memoryview(data)
    try:
        while rest:
            written = raw.write(rest)
            if written is None:
                raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
            rest = rest[written:]
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), OUTPUT) from None


def report(target: Path, line: str) -> None:
    """Print a line about an output, where it is not taken for a part of it."""
    typer.echo(line, err=target == PIPE)

"""Batches that are read ahead of a training, by a thread or by processes of their own."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from dhp_lab.data.listing import ImageError

AHEAD = 2  # batches, for each process
PACKAGE = "dhp_lab"

Read = Callable[[int], Tensor]
"""A batch by its number; with processes of their own it must be picklable where they are not forked."""


class ReaderError(ValueError):
    """A process that reads photos has ended; the message says what may help."""


@contextmanager
def prefetching() -> Iterator[ThreadPoolExecutor]:
    """One thread that prefetches the next batch on one core, while the caller trains on the others.

    A second team of OpenMP's threads would spin beside the first: on two cores a step took a quarter longer.

    Yields:
        The executor of that thread.
    """
    threads = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(1,)) as executor:
            yield executor
    finally:
        torch.set_num_threads(threads)  # for threads that begin later


@contextmanager
def batches_ahead(read: Read, numbers: range, workers: int = 0) -> Iterator[Iterator[Tensor]]:
    """Read batches while the caller works on the one before.

    Args:
        read: gives a batch by its number, the same in any process.
        numbers: of the batches, in this order.
        workers: processes that read, through torch's DataLoader; 0: one thread, which shares this process's
            photos and is enough where most of them are kept in memory.

    Yields:
        An iterator over the batches. It raises what ``read`` raised for the batch that is due, and
        ReaderError where a process has ended.
    """
    if not workers:
        with prefetching() as executor:
            yield _by_thread(read, numbers, executor)
        return
    loader = DataLoader(
        _Reads(read),
        batch_size=None,
        sampler=numbers,
        num_workers=workers,
        prefetch_factor=AHEAD,
        collate_fn=_unchanged,
        worker_init_fn=_begin_worker,
    )
    reader = iter(loader)
    try:
        yield _by_processes(reader)
    finally:
        _end(reader)


def _by_thread(read: Read, numbers: range, executor: ThreadPoolExecutor) -> Iterator[Tensor]:
    ahead = executor.submit(read, numbers.start)
    for number in numbers:
        x, ahead = ahead.result(), executor.submit(read, number + 1)
        yield x


def _by_processes(reader: Iterator) -> Iterator[Tensor]:
    log, said = logging.getLogger(__name__), set()
    while True:
        try:
            x, lines = next(reader)
        except StopIteration:
            return
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            raise ReaderError(
                f"a process that reads photos has ended ({error}): try fewer of them (--workers)"
            ) from None
        for level, line in lines:
            if line not in said:  # by another process, of the same photo
                said.add(line)
                log.log(level, line)
        if isinstance(x, Exception):
            raise x
        yield torch.from_numpy(x)


def _end(reader: Iterator) -> None:
    """End the processes of a DataLoader's iterator: the traceback of an error would keep it for longer."""
    reader._shutdown_workers()
    for worker in reader._workers:
        if worker.is_alive():  # it waits for a disk, and ignores SIGTERM
            worker.kill()


class _Reads(Dataset):
    """Batches by number, each with the lines that were logged while it was read; errors as values."""

    def __init__(self, read: Read) -> None:
        self.read = read

    def __getitem__(self, number: int) -> tuple[np.ndarray | Exception, list[tuple[int, str]]]:
        try:
            x = self.read(number).contiguous().numpy()  # not a tensor: those need room in /dev/shm
        except (ImageError, OSError, MemoryError) as error:
            x = error
        lines = [line for handler in logging.getLogger(PACKAGE).handlers for line in handler.taken()]
        return x, lines


class _Lines(logging.Handler):
    """Keeps what is logged, for the process that writes the log."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[tuple[int, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append((record.levelno, record.getMessage()))

    def taken(self) -> list[tuple[int, str]]:
        """The lines since the last call."""
        lines, self.lines = self.lines, []
        return lines


def _begin_worker(number: int) -> None:
    """Signals are for the process that trains, which ends this one; so are lines for the log."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):  # Windows has no SIGHUP
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    root = logging.getLogger(PACKAGE)
    root.handlers, root.propagate = [_Lines()], False


def _unchanged(batch: object) -> object:
    return batch


def next_batch(batches: Iterator[Tensor]) -> Tensor:
    """The next of ``batches_ahead``, (B, 3, H, W) in channels_last order.

    Raises:
        ImageError: the disk cannot be read: for a training not the disk that it writes to.
    """
    try:
        return next(batches).contiguous(memory_format=torch.channels_last)
    except OSError as error:
        raise ImageError(f"{error.filename}: {error.strerror or error}") from None

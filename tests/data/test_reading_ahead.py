"""Batches that are read ahead: in order, by a thread or by processes, and what is heard of their troubles."""

from __future__ import annotations

import logging
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
import torch

from dhp_lab.data.listing import ImageError
from dhp_lab.data.reading_ahead import ReaderError, batches_ahead, prefetching

WORKERS = pytest.mark.parametrize("workers", [0, 2])
log = logging.getLogger("dhp_lab.tests")


def counted(number: int) -> torch.Tensor:
    """A batch that holds its number."""
    return torch.full((2, 3, 4, 4), float(number))


@WORKERS
def test_batches_come_in_order(workers):
    with batches_ahead(counted, range(3, 20), workers) as batches:
        assert [int(x[1, 2, 3, 3]) for x in batches] == list(range(3, 20))


@WORKERS
@pytest.mark.parametrize("error", [ImageError("none is a photo"), OSError(5, "Input/output error", "a.png")])
def test_an_error_is_raised_for_the_batch_that_is_due(workers, error):
    def read(number):
        if number == 2:
            raise error
        return counted(number)

    with batches_ahead(read, range(5), workers) as batches:
        assert [int(next(batches).max()) for _ in range(2)] == [0, 1]
        with pytest.raises(type(error)) as caught:
            next(batches)
        assert str(caught.value) == str(error)


@WORKERS
def test_what_a_reader_warns_of_is_logged_once(workers, caplog):
    said = set()

    def read(number):
        if "gone.png" not in said:  # as `PhotoCache`, of which each process has its own
            said.add("gone.png")
            log.warning("skipped gone.png: no such file")
        return counted(number)

    with batches_ahead(read, range(6), workers) as batches:
        assert len(list(batches)) == 6
    assert caplog.messages == ["skipped gone.png: no such file"]


def test_a_reader_that_is_killed_is_an_error_in_one_line():
    def read(number):
        if number == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return counted(number)

    with batches_ahead(read, range(20), 2) as batches, pytest.raises(ReaderError, match="fewer .*--workers"):
        list(batches)


def test_readers_leave_signals_to_the_process_that_trains():
    def read(number):
        for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(os.getpid(), one)
        return counted(number)

    with batches_ahead(read, range(4), 1) as batches:
        assert len(list(batches)) == 4


@pytest.mark.parametrize("last", [1000, 4])
def test_readers_end_with_the_block_even_after_an_error_that_is_kept(last):
    def read(number):
        if number == last:
            raise ImageError("none is a photo")
        return torch.tensor([os.getpid()], dtype=torch.float64)

    def in_a_block(found):
        with batches_ahead(read, range(1001), 2) as batches:
            found += [int(next(batches)) for _ in range(4)]
            if last == 4:
                next(batches)

    children: list[int] = []
    try:
        in_a_block(children)
        kept = None
    except ImageError as error:
        kept = error  # with its traceback, as pytest and notebooks keep one
    assert (kept is None) == (last == 1000) and len(set(children)) == 2
    assert not any(Path(f"/proc/{child}").exists() for child in children)


def test_prefetching_takes_one_core_and_leaves_the_others_their_number(
    request: pytest.FixtureRequest,
) -> None:
    request.addfinalizer(partial(torch.set_num_threads, torch.get_num_threads()))
    before = 3
    torch.set_num_threads(before)
    with prefetching() as executor:
        assert executor.submit(torch.get_num_threads).result() == 1 and torch.get_num_threads() == before
    with ThreadPoolExecutor(1) as later:
        assert later.submit(torch.get_num_threads).result() == torch.get_num_threads() == before

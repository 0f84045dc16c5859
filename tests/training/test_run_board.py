"""The curves of a run: what is hidden when it goes on, and a disk that fills."""

from __future__ import annotations

import errno
import os
import threading

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dhp_lab.training.run_board import RunBoard
from dhp_lab.training.run_folder import BOARD


def test_a_resumed_run_hides_the_steps_that_are_made_again(tmp_path):
    for begin, steps in ((0, range(1, 6)), (3, range(4, 8))):
        board = RunBoard(tmp_path, begin)
        for step in steps:
            board.report(step, {"loss": float(10 * begin + step)}, 0.1)
        board.close(failed=False)
    found = EventAccumulator(str(tmp_path / BOARD)).Reload().Scalars("train/loss")
    expected = [(1, 1), (2, 2), (3, 3), (4, 34), (5, 35), (6, 36), (7, 37)]
    assert [(event.step, event.value) for event in found] == expected


def test_a_full_disk_is_an_error_of_the_run_and_no_traceback_of_a_thread(tmp_path, capsys):
    before = threading.excepthook
    board = RunBoard(tmp_path, 0)
    thread = board.writer._get_file_writer().event_writer._async_writer

    def full(data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    thread._worker._record_writer.write = full
    board.report(1, {"loss": 1.0}, 0.1)
    thread._worker.join(10)
    with pytest.raises(OSError, match="No space left on device"):
        board.report(2, {"loss": 1.0}, 0.1)
    board.close(failed=True)
    assert threading.excepthook is before and "Traceback" not in capsys.readouterr().err

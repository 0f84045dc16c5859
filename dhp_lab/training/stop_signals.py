"""Signals that end a training between two steps, so that its state can be saved."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

STOP_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")  # Ctrl-C; kill, batch systems; a terminal that is closed


class StopRequest:
    """Whether a signal asked the run to end, and its name.

    The first signal is noted, for the loop to look at between two steps; a second one raises
    KeyboardInterrupt at once.

    Attributes:
        name: of the signal. stays: whether signals are noted after the block too, as the program ends and
            has a line to say first.
    """

    def __init__(self) -> None:
        self.name, self.stays = "", False

    def __bool__(self) -> bool:
        return bool(self.name)

    def note(self, number: int, frame: FrameType | None) -> None:
        """The handler of a signal."""
        if self.name:
            raise KeyboardInterrupt
        self.name = signal.Signals(number).name


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Note the signals that stop a program, inside the block.

    SIGINT is noted even where the shell had it ignored, as in a job in the background; SIGHUP is left ignored
    where nohup made it so. Outside the main thread Python has no handlers, and nothing is noted.
    """
    request = StopRequest()
    before = {}
    if threading.current_thread() is threading.main_thread():
        for name in STOP_SIGNALS:
            number = getattr(signal, name, None)  # Windows has no SIGHUP
            if number is None or (name == "SIGHUP" and signal.getsignal(number) == signal.SIG_IGN):
                continue
            before[number] = signal.signal(number, request.note)
    try:
        yield request
    finally:
        for number, handler in before.items() if not request.stays else ():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

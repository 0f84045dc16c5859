"""The bar of `dhp compress --effort`: the seconds left, and the bits saved so far."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from tqdm import tqdm

if TYPE_CHECKING:
    from dhp_lab.codec.effort import Progress

LAYOUT = "{desc}: {percentage:3.0f}% |{bar}| {n_fmt}/{total_fmt}{postfix}"


class EffortBar:
    """A bar on stderr for an effort, 0 .. 9, as a context; without an iteration nothing is shown."""

    def __init__(self, effort: int) -> None:
        self.effort = effort
        self.last: Progress | None = None
        self.bar: tqdm | None = None  # from the first iteration on

    def __enter__(self) -> EffortBar:
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def show(self, progress: Progress) -> None:
        """Move the bar."""
        if self.bar is None:
            label = f"effort {self.effort}"
            self.bar = tqdm(total=progress.iterations, desc=label, bar_format=LAYOUT, file=sys.stderr)
        self.last, self.bar.n = progress, progress.iteration
        left, saved = f"{progress.seconds_left:.0f} s left", f"{progress.saved:.1%} of the bits saved"
        self.bar.set_postfix_str(f"{left}, {saved} at equal quality")

    def notes(self) -> list[str]:
        """What the user should hear at the end: that the optimisation was stopped early."""
        if self.last is None or self.last.iteration == self.last.iterations:
            return []
        return [f"stopped at iteration {self.last.iteration} of {self.last.iterations}"]

"""What a training run left for TensorBoard: its numbers as arrays and as a figure, and TensorBoard itself.

values = scalars("outputs/tensorboard")        # {"train/loss": (steps, values), ...}
address = serve("outputs/tensorboard")         # a server in this process, gone when the process ends
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.program import TensorBoard

from dhp_lab.notebook.style import BLUE, CHART_DPI, GREY, style

Scalars = Mapping[str, tuple[np.ndarray, np.ndarray]]


def scalars(folder: str | Path) -> Scalars:
    """All scalars in a folder of event files.

    Returns:
        (n,) steps and (n,) values by tag, the tags sorted.

    Raises:
        FileNotFoundError: the folder holds no event file.
    """
    if not any(Path(folder).glob("**/events.out.tfevents.*")):
        raise FileNotFoundError(
            f"{folder} holds no event file of TensorBoard; train with `dhp train --output_dir ...` first"
        )
    board = EventAccumulator(str(folder), size_guidance={"scalars": 0})  # 0 keeps all of them
    board.Reload()
    found = {tag: board.Scalars(tag) for tag in sorted(board.Tags()["scalars"])}
    return {
        tag: (np.array([e.step for e in events]), np.array([e.value for e in events]))
        for tag, events in found.items()
    }


def scalars_figure(
    values: Scalars, tags: Sequence[str], *, changes: Mapping[str, int] | None = None
) -> Figure:
    """The scalars of these tags, a panel for each.

    Args:
        values: as from ``scalars``; a tag that is missing has an empty panel.
        changes: steps at which something began, by name, drawn as lines across.
    """
    with style():
        figure = Figure(figsize=(3.2 * len(tags), 2.9), dpi=CHART_DPI, layout="constrained")
        panels = figure.subplots(1, len(tags), squeeze=False)[0]
        for axes, tag in zip(panels, tags, strict=True):
            steps, curve = values.get(tag, ((), ()))
            axes.plot(steps, curve, "o-", color=BLUE, markersize=3.5, linewidth=1.4)
            axes.margins(y=0.18)  # room for the names of changes
            for name, step in (changes or {}).items():
                _mark(axes, name, step)
            axes.set(title=tag, xlabel="step")
            axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    return figure


def _mark(axes: Axes, name: str, step: int) -> None:
    """A named line across at a step."""
    axes.axvline(step, color=GREY, linestyle="--", linewidth=1)
    place = {"xycoords": ("data", "axes fraction"), "xytext": (3, -3), "textcoords": "offset points"}
    axes.annotate(name, (step, 1), **place, va="top", fontsize=8, color=GREY)


def serve(folder: str | Path) -> str:
    """Start TensorBoard on a folder of event files, on a free port that only this machine reaches.

    Returns:
        Its address. The server is a thread of this process.
    """
    board = TensorBoard()
    board.configure(logdir=str(folder), port=0, host="127.0.0.1", load_fast="false", reload_interval=5)
    return board.launch()

"""A small training in a process of its own, which notes the loss of every step as soon as it is known.

    python tests/recorded_training.py LOSSES KILL CONFIG          or torchrun in the place of python

LOSSES is a file that lines are added to: step, stage, loss and gradient norm, exact. KILL is
"process:step", where that process kills itself before that step, "process:step:SIGTERM" or the like, or "".
CONFIG is JSON, of `TrainingConfig`.
Convolutions are in float32 on every machine.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

from dhp_lab.core import precision
from dhp_lab.training.codec_config import TrainingConfig
from dhp_lab.training.codec_trainer import Trainer, train

SMALL = {
    "batch_size": 2,
    "epochs": 2,
    "denoiser_epochs": 1,
    "joint_epochs": 1,
    "lr": 5e-4,
    "N": 8,
    "M": 8,
    "diffusion_steps": 10,
    "image_size": 64,
    "device": "cpu",
    "minutes_between_saves": 60.0,
}
Losses = dict[int, list[tuple[str, float, float]]]
"""By step: stage, loss and gradient norm, once for each time that the step was made."""


def record(losses: Path, kill: str = "") -> None:
    """Let every training of this process note its losses."""
    step = Trainer._train_step

    def recorded(self: Trainer, x):
        place, _, name = kill.partition(":SIG")
        if place == f"{self.processes.index}:{self.step}":
            os.kill(os.getpid(), signal.Signals[f"SIG{name or 'KILL'}"])
        number, report = self.step, step(self, x)
        if self.processes.is_main:
            values = (float(report[name]).hex() for name in ("loss", "gradient norm"))
            with open(losses, "a") as file:
                file.write(" ".join((str(number), self.stage, *values)) + "\n")
        return report

    Trainer._train_step = recorded
    precision.has_fast_bfloat16 = lambda device_type: False


def read_losses(path: Path) -> Losses:
    """What was noted; a last line that a kill cut off is left out."""
    found: Losses = {}
    for line in path.read_text().splitlines(keepends=True) if path.exists() else ():
        if line.endswith("\n"):
            number, stage, *values = line.split()
            found.setdefault(int(number), []).append((stage, *map(float.fromhex, values)))
    return found


def main(losses: str, kill: str, config: str) -> None:
    """Train; an expected error is one line, as the program's own."""
    record(Path(losses), kill)
    try:
        train(TrainingConfig(**json.loads(config)))
    except ValueError as error:
        sys.exit(f"dhp: {error}")


if __name__ == "__main__":
    main(*sys.argv[1:])

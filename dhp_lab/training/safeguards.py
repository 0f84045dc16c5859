"""What keeps a training from going on with numbers that are not finite, and says where it can go on."""

from __future__ import annotations

import logging
from pathlib import Path

import torch
from torch import Tensor

from dhp_lab.training.codec_config import TrainingError
from dhp_lab.training.run_folder import last_state

log = logging.getLogger(__name__)

MOST_LEFT_OUT = 10  # updates in a row that may be left out


class Safeguards:
    """The checks of one run's losses and gradients.

    Args:
        folder: of the run. remedy: against a loss that is not finite, for the message.
        lr_option: the learning rate's option with its value, likewise for a gradient.
    """

    def __init__(self, folder: Path, *, remedy: str, lr_option: str) -> None:
        self.folder, self.remedy, self.lr_option = folder, remedy, lr_option
        self.left_out = 0  # updates in a row

    def check_loss(self, objective: Tensor, step: int) -> None:
        """Check a loss, ().

        Raises:
            TrainingError: it is not finite.
        """
        if not bool(torch.isfinite(objective)):
            raise TrainingError(
                f"the loss is {objective.item()} at step {step}; {last_state(self.folder, self.remedy)}"
            )

    def is_usable(self, norm: Tensor, step: int) -> bool:
        """Whether the gradient of this norm, (), is finite; one that is not costs an update.

        Raises:
            TrainingError: MOST_LEFT_OUT in a row were not.
        """
        if bool(torch.isfinite(norm)):
            self.left_out = 0
            return True
        self.left_out += 1
        log.warning("step %d: the gradient is not finite, its update is left out", step)
        if self.left_out >= MOST_LEFT_OUT:
            raise TrainingError(
                f"the gradient was not finite in the {MOST_LEFT_OUT} steps up to {step}; "
                f"{last_state(self.folder, f'With a smaller {self.lr_option}')}"
            )
        return False

"""The exact state of a training run in one file: weights, average, optimiser, random state, step.

And its log.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from dhp_lab.core.files import write_atomic
from dhp_lab.core.weights import CheckpointError
from dhp_lab.training.codec_config import TrainingError
from dhp_lab.training.codec_objective import STAGES
from dhp_lab.training.processes import Processes

log = logging.getLogger(__name__)

FACTS = ("step", "best", "stage", "lengths", "average_steps")


@dataclass(frozen=True)
class TrainingState:
    """Everything that a resumed run needs to repeat an unbroken one.

    Attributes:
        step: number of steps done. best: lowest validation objective so far.
        stage: name of the current stage. lengths: steps of each stage.
        average_steps: how often the EMA was updated.
        model, average: state dictionaries.
        optimizer: the optimiser's tensors by parameter number and name.
        random: states of the random generators by name.
        pictures: those to validate on, "validation"; older files have none.
    """

    step: int
    best: float
    stage: str
    lengths: list[int]
    average_steps: int
    model: Mapping[str, Tensor]
    average: Mapping[str, Tensor]
    optimizer: Mapping[int, Mapping[str, Tensor]]
    random: Mapping[str, Tensor]
    pictures: Mapping[str, Tensor] = field(default_factory=dict)

    def save(self, path: str | Path) -> None:
        """Write the file, whole or not at all.

        Raises:
            OSError: the disk's own trouble; an older file is intact.
        """
        tensors = {f"model.{name}": value for name, value in self.model.items()}
        tensors |= {f"average.{name}": value for name, value in self.average.items()}
        tensors |= {f"random.{name}": value for name, value in self.random.items()}
        tensors |= {f"pictures.{name}": value for name, value in self.pictures.items()}
        for number, state in self.optimizer.items():
            tensors |= {f"optimizer.{number}.{name}": value for name, value in state.items()}
        copies = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
        facts = {name: getattr(self, name) for name in FACTS}
        write_atomic(path, save(copies, metadata={"facts": json.dumps(facts)}))

    def goes_on_with(self, lengths: list[int], stages: Sequence[str] = STAGES) -> bool:
        """Whether a run can go on with stages of other lengths: those before the current one must be as they
        were, and the current one must not end before the step that is reached. The log has the change.
        """
        current = stages.index(self.stage) if self.stage else 0
        ends = sum(lengths[: current + 1])
        if lengths == self.lengths:
            return True
        if lengths[:current] == self.lengths[:current] and self.step <= ends:
            log.info(
                "the run was planned with stages of %s steps and goes on with %s: "
                "the learning rate follows the new plan from step %d on",
                self.lengths,
                lengths,
                self.step,
            )
            return True
        return False

    def check_lengths(self, lengths: list[int], path: Path) -> None:
        """Check that a training of the codec can go on with stages of other lengths (``goes_on_with``).

        Raises:
            CheckpointError: it cannot; the message names ``path`` and what to do.
        """
        if self.goes_on_with(lengths):
            return
        raise CheckpointError(
            f"{path} is of a run with stages of {self.lengths} steps, at step {self.step} in the stage "
            f"'{self.stage}'; this one has {lengths}: resume with the same photos, batch size and epochs. "
            f"More epochs of '{self.stage}' or a later stage go on too; for more of an earlier one start "
            f"from {path.parent / 'best_checkpoint'} (--init_from) with another --output_dir"
        )

    def optimizer_like(self, optimizer: torch.optim.Optimizer) -> dict[int, dict[str, Tensor]]:
        """The optimiser's moments in the memory order of their parameters, as the fused one assumes."""
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        ordered: dict[int, dict[str, Tensor]] = {}
        for number, tensors in self.optimizer.items():
            like = parameters[number]
            ordered[number] = {
                name: torch.empty_like(like).copy_(value) if value.shape == like.shape else value
                for name, value in tensors.items()
            }
        return ordered

    @classmethod
    def from_bytes(cls, data: bytes, path: str | Path) -> TrainingState:
        """Read the bytes of a file back, on the CPU; ``path``: where they come from, for messages.

        Raises:
            CheckpointError: they are no training state.
        """
        try:
            tensors = load(data)
            header = int.from_bytes(data[:8], "little")  # of safetensors: its length, and JSON
            facts = json.loads(json.loads(data[8 : 8 + header])["__metadata__"]["facts"])
            facts = {name: facts[name] for name in FACTS}
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{path} is not a training state: {error}") from None
        optimizer: dict[int, dict[str, Tensor]] = {}
        for name, value in _below(tensors, "optimizer").items():
            number, key = name.split(".")
            optimizer.setdefault(int(number), {})[key] = value
        parts = {part: _below(tensors, part) for part in ("model", "average", "random", "pictures")}
        return cls(**facts, **parts, optimizer=optimizer)

    @classmethod
    def load(cls, path: str | Path) -> TrainingState:
        """Read a file back, on the CPU. Errors as for ``from_bytes``."""
        return cls.from_bytes(Path(path).read_bytes(), path)


def shared_state(path: Path, processes: Processes) -> TrainingState:
    """The main process's state of a run, in all processes.

    Raises:
        TrainingError: there is none. CheckpointError: it is not a training state.
    """
    data = None
    if processes.is_main:
        if not path.is_file():
            raise TrainingError(f"--resume: there is no {path}; start without --resume")
        data = path.read_bytes()
    return TrainingState.from_bytes(processes.share_bytes(data), path)


def _below(tensors: Mapping[str, Tensor], part: str) -> dict[str, Tensor]:
    """The tensors of one part, under the names they have in it."""
    prefix = f"{part}."
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def random_states() -> dict[str, Tensor]:
    """The states of torch's own generators, which an experiment's objective may use."""
    states = {"torch": torch.get_rng_state()}
    if torch.cuda.is_available():
        states |= {f"cuda{i}": state for i, state in enumerate(torch.cuda.get_rng_state_all())}
    return states


def restore_random_states(states: Mapping[str, Tensor]) -> None:
    """The inverse of ``random_states``; the states of GPUs that are not here are left out."""
    torch.set_rng_state(states["torch"])
    for i in range(torch.cuda.device_count()):
        if f"cuda{i}" in states:
            torch.cuda.set_rng_state(states[f"cuda{i}"], i)

"""The exact state of a training of a small U-Net in one file, to go on from where it was broken off."""

from __future__ import annotations

from pathlib import Path

import torch

from dhp_lab.core.weights import CheckpointError
from dhp_lab.training.denoiser_run import DenoiserRun

STATE = "state.safetensors"


def save_state(run: DenoiserRun, losses: list[float], path: Path) -> None:
    """Write the state of a run, and the loss of each step until now.

    Raises:
        OSError: the disk's own trouble; an older file is intact.
    """
    from dhp_lab.training.codec_state import TrainingState, random_states  # which imports the codec

    state = TrainingState(
        step=run.done,
        best=0.0,
        stage="",
        lengths=[run.config.training_steps],
        average_steps=run.ema.steps,
        model=run.network.state_dict(),
        average=run.ema.average.state_dict(),
        optimizer=run.optimizer.state_dict()["state"],
        random=random_states() | {"run": run.generator.get_state()},
        pictures={"losses": torch.tensor(losses, dtype=torch.float64)},
    )
    state.save(path)


def resume(run: DenoiserRun, path: Path) -> list[float]:
    """Bring a new run to a saved state; the loss of each step until then.

    A run may be resumed with another number of steps: the learning rate then follows the new plan.

    Raises:
        CheckpointError: the file is no state, or that of another run.
    """
    from dhp_lab.training.codec_state import TrainingState, restore_random_states

    state = TrainingState.load(path)
    remedy = "resume with the options it was begun with, or remove that file to begin anew"
    if state.step > run.config.training_steps:
        raise CheckpointError(
            f"{path} has {state.step} steps, this run ends after {run.config.training_steps}: {remedy}"
        )
    try:
        run.network.load_state_dict(dict(state.model))
        run.ema.average.load_state_dict(dict(state.average))
    except RuntimeError as error:
        raise CheckpointError(f"{path} does not fit this network ({error}): {remedy}") from None
    moments = state.optimizer_like(run.optimizer)
    run.optimizer.load_state_dict(run.optimizer.state_dict() | {"state": moments})
    run.done, run.ema.steps = state.step, state.average_steps
    run.generator.set_state(state.random["run"])
    restore_random_states(state.random)
    return state.pictures["losses"].tolist()

"""The full state of a training run in one file, for exact resume."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from dhp_lab.core.files import write_atomic
from dhp_lab.core.weights import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor

    from dhp_lab.training.codec_trainer import Trainer


def save_training_state(path: str | Path, trainer: Trainer) -> None:
    """The exact state of a run in one safetensors file: weights, averages, optimiser, random state, step."""
    import torch
    from safetensors.torch import save

    tensors = {f"model.{k}": v for k, v in trainer.model.state_dict().items()}
    tensors |= {f"ema.{i}": v for i, v in enumerate(trainer.ema.shadow_params)}
    for i, state in trainer.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{i}.{k}": v for k, v in state.items()}
    tensors["random"] = torch.get_rng_state()
    for i, state in enumerate(torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []):
        tensors[f"random.cuda.{i}"] = state
    facts = {
        "step": trainer.step,
        "best": trainer.best,
        "stage": trainer.stage,
        "ema_step": trainer.ema.optimization_step,
    }
    facts |= {"lengths": trainer.lengths}
    tensors = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
    write_atomic(path, save(tensors, metadata={"facts": json.dumps(facts)}))


def load_training_state(path: str | Path, trainer: Trainer) -> None:
    """Put a run back into the state that ``save_training_state`` wrote.

    Raises:
        CheckpointError: a damaged file, or one of a run with other stages or another model.
    """
    import torch
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            facts = json.loads(file.metadata()["facts"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path} is not a training state: {error}") from None
    if facts["lengths"] != trainer.lengths:
        raise CheckpointError(
            f"{path} is of a run with stages of {facts['lengths']} steps, this one has {trainer.lengths}: "
            "resume with the same photos, batch size and epochs"
        )
    try:
        trainer.model.load_state_dict({k[6:]: v for k, v in tensors.items() if k.startswith("model.")})
    except RuntimeError as error:
        raise CheckpointError(f"{path} is of another model: {error}") from None
    trainer.ema.shadow_params = [
        tensors[f"ema.{i}"].to(p.device) for i, p in enumerate(trainer.ema.shadow_params)
    ]
    trainer.ema.optimization_step = facts["ema_step"]
    trainer.step, trainer.best = facts["step"], facts["best"]
    if trainer.step < sum(trainer.lengths):
        trainer.enter_stage(facts["stage"])
        trainer.optimizer.load_state_dict(
            {**trainer.optimizer.state_dict(), "state": _optimizer_state(tensors, trainer)}
        )
    torch.set_rng_state(tensors["random"])
    cuda = [v for k, v in sorted(tensors.items()) if k.startswith("random.cuda.")]
    if cuda and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(cuda)


def _optimizer_state(tensors: dict[str, Tensor], trainer: Trainer) -> dict[int, dict[str, Tensor]]:
    """Each parameter's averages, in the order in memory that the parameter has: the fused optimiser takes
    them as they lie.
    """
    import torch

    parameters = [parameter for group in trainer.optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("optimizer."):
            _, index, key = name.split(".")
            like = parameters[int(index)]
            state.setdefault(int(index), {})[key] = (
                torch.empty_like(like).copy_(value) if value.shape == like.shape else value
            )
    return state

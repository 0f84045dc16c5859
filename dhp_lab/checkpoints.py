"""Checkpoints: a folder with config.json, model.safetensors and a model card; and the full state of a training run.

Files appear whole or not at all: each is written beside its place, flushed to the disk, and moved there.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn

    from dhp_lab.codec.model import DiffusionHyperprior
    from dhp_lab.training import Trainer

DEFAULT = "diffusion-hyperprior"
CONFIG, WEIGHTS = "config.json", "model.safetensors"
PLACE = re.compile(rb'\n *"bk_sdm_path": [^\n]*')    # in CONFIG, as it is written
HALF_FROM = 4096                         # tensors of at least this many numbers are stored in float16, smaller ones in float32


class CheckpointError(ValueError):
    """A checkpoint that is missing, incomplete or of another kind; the message says which part and what to do."""


def default_checkpoint() -> Path:
    """The folder of the shipped checkpoint, data/checkpoints/diffusion-hyperprior beside the package.

    Raises:
        CheckpointError: it is not there.
    """
    folder = Path(__file__).resolve().parents[1] / "data" / "checkpoints" / DEFAULT
    if not (folder / WEIGHTS).is_file():
        raise CheckpointError(f"the shipped checkpoint is not at {folder}; work in a full clone, or name one with --model_path")
    return folder


def write_atomic(path: str | Path, data: bytes) -> None:
    """Write a whole file or nothing.

    Raises:
        OSError: the disk's own trouble; the old file, if any, is intact and no part of the new one is left.
    """
    write_all_atomic({Path(path): data})


def write_all_atomic(files: dict[Path, bytes]) -> None:
    """Write several files that belong together: none is put in its place before all are on the disk."""
    temporary = {path: path.with_name(f".{path.name}.{os.getpid()}.part") for path in files}
    try:
        for path, data in files.items():
            with open(temporary[path], "wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
        for path in files:
            os.replace(temporary[path], path)
    except BaseException:
        for part in temporary.values():
            part.unlink(missing_ok=True)
        raise


def replace_files(source: Path, target: Path) -> None:
    """Move each file below ``source`` to its place below ``target``, where it appears whole."""
    for path in sorted(source.rglob("*")):
        place = target / path.relative_to(source)
        if path.is_dir():
            place.mkdir(exist_ok=True)
        else:
            os.replace(path, place)


def save_model(folder: str | Path, model: DiffusionHyperprior) -> None:
    """Write config.json and model.safetensors (weights and probability tables) to a folder, made if need be.

    Raises:
        OSError: the disk's own trouble; an older checkpoint there is intact.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    config = json.dumps(model.config.stored(folder), indent=2) + "\n"
    write_all_atomic({folder / WEIGHTS: weights_to_bytes(model), folder / CONFIG: config.encode()})


def weights_to_bytes(model: nn.Module) -> bytes:
    """A safetensors file of a network's parameters and tables, the large ones in float16."""
    import torch
    from safetensors.torch import save

    tensors = {}
    for name, value in model.state_dict().items():
        half = value.dtype == torch.float32 and value.numel() >= HALF_FROM
        tensors[name] = value.detach().cpu().contiguous().to(torch.float16 if half else value.dtype)
    return save(tensors, metadata={"format": "pt"})


def weights_from_bytes(data: bytes) -> dict[str, Tensor]:
    """The inverse of ``weights_to_bytes``, in float32.

    Raises:
        ValueError: this is not a safetensors file.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        tensors = load(data)
    except SafetensorError as error:
        raise ValueError(f"{WEIGHTS}: {error}") from None
    return {name: value.float() if value.dtype == torch.float16 else value for name, value in tensors.items()}


def read_checkpoint(folder: str | Path) -> tuple[dict, dict[str, Tensor], bytes]:
    """The configuration, the tensors in float32, and the model id (first 8 bytes of the sha256 of both files).

    Raises:
        CheckpointError: a file is missing or cannot be read.
    """
    folder = find_checkpoint(folder)
    try:
        config_bytes, weights = (folder / CONFIG).read_bytes(), (folder / WEIGHTS).read_bytes()
    except OSError as error:
        raise CheckpointError(f"no checkpoint at {folder}: {error.strerror}: {error.filename}") from None
    try:
        config, tensors = json.loads(config_bytes), weights_from_bytes(weights)
    except ValueError as error:
        raise CheckpointError(f"the checkpoint at {folder} is damaged: {error}; fetch it again") from None
    if not isinstance(config, dict):
        raise CheckpointError(f"{folder / CONFIG} does not describe a codec")
    return config, tensors, model_id(config_bytes, weights)


def find_checkpoint(name: str | Path, patterns: Sequence[str] = (CONFIG, WEIGHTS)) -> Path:
    """A checkpoint's folder: the path itself if it is there, else a repository of the Hugging Face hub, "owner/name".

    Args:
        patterns: of the repository's files that are wanted.

    Raises:
        CheckpointError: there is no such folder, and the hub has no such repository or cannot be reached.
    """
    if Path(name).is_dir() or str(name).count("/") != 1 or str(name).startswith((".", "/", "~")):
        return Path(name)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(str(name), allow_patterns=list(patterns)))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise CheckpointError(f"{name} is neither a folder here nor a repository that the hub gives out: {reason}") from None


def upload_checkpoint(folder: str | Path, repository: str) -> str:
    """Upload a checkpoint folder to the Hugging Face hub, where the user is logged in; returns the address."""
    from huggingface_hub import HfApi

    api = HfApi()
    api.create_repo(repository, exist_ok=True)
    return api.upload_folder(repo_id=repository, folder_path=str(folder), allow_patterns=[CONFIG, WEIGHTS, "README.md"])


def model_id(config: bytes, weights: bytes) -> bytes:
    """The 8 bytes by which a file names its model: the head of sha256(config.json + model.safetensors).

    Where borrowed networks lie does not count: ``parts`` says which they are.
    """
    return hashlib.sha256(PLACE.sub(b"", config) + weights).digest()[:8]


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
    facts = {"step": trainer.step, "best": trainer.best, "stage": trainer.stage, "ema_step": trainer.ema.optimization_step}
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
        raise CheckpointError(f"{path} is of a run with stages of {facts['lengths']} steps, this one has {trainer.lengths}: "
                              "resume with the same photos, batch size and epochs")
    try:
        trainer.model.load_state_dict({k[6:]: v for k, v in tensors.items() if k.startswith("model.")})
    except RuntimeError as error:
        raise CheckpointError(f"{path} is of another model: {error}") from None
    trainer.ema.shadow_params = [tensors[f"ema.{i}"].to(p.device) for i, p in enumerate(trainer.ema.shadow_params)]
    trainer.ema.optimization_step = facts["ema_step"]
    trainer.step, trainer.best = facts["step"], facts["best"]
    if trainer.step < sum(trainer.lengths):
        trainer.enter_stage(facts["stage"])
        trainer.optimizer.load_state_dict({**trainer.optimizer.state_dict(), "state": _optimizer_state(tensors, trainer)})
    torch.set_rng_state(tensors["random"])
    cuda = [v for k, v in sorted(tensors.items()) if k.startswith("random.cuda.")]
    if cuda and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(cuda)


def _optimizer_state(tensors: dict[str, Tensor], trainer: Trainer) -> dict[int, dict[str, Tensor]]:
    """Each parameter's averages, in the order in memory that the parameter has: the fused optimiser takes them as they lie."""
    import torch

    parameters = [parameter for group in trainer.optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("optimizer."):
            _, index, key = name.split(".")
            like = parameters[int(index)]
            state.setdefault(int(index), {})[key] = torch.empty_like(like).copy_(value) if value.shape == like.shape else value
    return state

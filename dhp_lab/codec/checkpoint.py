"""A codec's checkpoint: a folder with config.json, model.safetensors and a model card, and the id that its
files carry.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

from dhp_lab.core.files import write_all_atomic
from dhp_lab.core.hub import find_checkpoint
from dhp_lab.core.weights import (
    CONFIG,
    WEIGHTS,
    CheckpointError,
    weights_from_bytes,
    weights_to_bytes,
)

if TYPE_CHECKING:
    from torch import Tensor

    from dhp_lab.codec.config import CodecConfig
    from dhp_lab.codec.model import DiffusionHyperprior

PLACE = re.compile(rb'\n *"bk_sdm_path": [^\n]*')  # in CONFIG, as it is written

RENAMED = {  # the heads of tensors' names in checkpoints of earlier versions
    "denoiser.trust": "denoiser.posterior_weight",
    "denoiser.doubt.": "denoiser.log_variance_head.",
}


def save_model(folder: str | Path, model: DiffusionHyperprior) -> None:
    """Write config.json and model.safetensors (weights and probability tables) to a folder, made if need be.

    Raises:
        OSError: the disk's own trouble; an older checkpoint there is intact.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    config = json.dumps(model.config.stored(folder), indent=2) + "\n"
    write_all_atomic({folder / WEIGHTS: weights_to_bytes(model), folder / CONFIG: config.encode()})


def read_checkpoint(folder: str | Path) -> tuple[dict, dict[str, Tensor], bytes]:
    """The configuration, the tensors in float32, and the model id (first 8 bytes of the sha256 of both
    files).

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
    return (
        config,
        {current_name(name): value for name, value in tensors.items()},
        model_id(config_bytes, weights),
    )


def current_name(name: str) -> str:
    """A tensor's name today, for one that an earlier version stored it under."""
    for old, new in RENAMED.items():
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name


def model_id(config: bytes, weights: bytes) -> bytes:
    """The 8 bytes by which a file names its model: the head of sha256(config.json + model.safetensors).

    Where borrowed networks lie does not count: ``parts`` says which they are.
    """
    return hashlib.sha256(PLACE.sub(b"", config) + weights).digest()[:8]


def read_config(values: dict[str, object], folder: Path) -> CodecConfig:
    """The inverse of ``CodecConfig.stored`` for any kind of codec.

    Raises:
        TypeError, ValueError: values that no codec has.
    """
    from dhp_lab.codec.config import CodecConfig

    values = dict(values)
    kind = values.pop("model", None)
    if kind == CodecConfig.kind:
        return CodecConfig(**values)
    from dhp_lab.codec.stable_diffusion.config import StableDiffusionConfig

    if kind == StableDiffusionConfig.kind:
        return StableDiffusionConfig.read(values, folder)
    raise ValueError(f"config.json does not describe a codec but {kind!r}")

"""A codec's checkpoint: a folder with config.json, model.safetensors, a model card and perhaps a realism part
(``codec.realism``), and the id that its files carry.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

from dhp_lab.codec.config import CodecConfig
from dhp_lab.codec.realism import check_realism, realism_files
from dhp_lab.codec.stable_diffusion.config import StableDiffusionConfig
from dhp_lab.core.files import write_all_atomic
from dhp_lab.core.hub import find_checkpoint
from dhp_lab.core.weights import (
    CONFIG,
    REALISM_CONFIG,
    REALISM_WEIGHTS,
    WEIGHTS,
    CheckpointError,
    weights_from_bytes,
    weights_to_bytes,
)

if TYPE_CHECKING:
    from torch import Tensor, nn

    from dhp_lab.codec.denoising.residual_unet import ResidualUNet
    from dhp_lab.codec.parts import CodecParts

PLACE = re.compile(rb'\n *"bk_sdm_path": [^\n]*')  # in CONFIG, as it is written

RENAMED = {  # the heads of tensors' names in checkpoints of earlier versions
    "denoiser.trust": "denoiser.posterior_weight",
    "denoiser.doubt.": "denoiser.log_variance_head.",
    "passes.later.": "context.networks.",
    "g_a.lapped": "g_a.linear.weight",
    "g_s.lapped": "g_s.linear.weight",
}


def save_model(
    folder: str | Path, config: CodecConfig, model: nn.Module, realism: ResidualUNet | None = None
) -> None:
    """Write config.json and model.safetensors (weights and probability tables) to a folder, made if need be.

    Args:
        realism: its realism part, written beside them; with None one that lies there is removed, for it is of
            the checkpoint that is replaced.

    Raises:
        OSError: the disk's own trouble; an older checkpoint there is intact.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(config.to_dict(folder), indent=2) + "\n"
    files = {WEIGHTS: weights_to_bytes(model), CONFIG: text.encode()}
    if realism is not None:
        files |= realism_files(realism, model_id(files[CONFIG], files[WEIGHTS]))
    write_all_atomic({folder / name: data for name, data in files.items()})
    if realism is None:
        for name in (REALISM_CONFIG, REALISM_WEIGHTS):
            (folder / name).unlink(missing_ok=True)


def save_realism(folder: str | Path, network: ResidualUNet) -> None:
    """Put a realism part into the checkpoint of the codec that it was trained for, in the place of an older
    one; config.json and model.safetensors stay as they are.

    Raises:
        CheckpointError: there is no checkpoint of a codec that can have one.
        OSError: the disk's own trouble; an older realism part is intact.
    """
    folder = Path(folder)
    values, _, identity = read_checkpoint(folder)
    try:
        check_realism(read_config(values, folder))
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{folder / CONFIG}: {error}") from None
    files = realism_files(network, identity)
    write_all_atomic({folder / name: data for name, data in files.items()})


def read_checkpoint(folder: str | Path) -> tuple[dict, dict[str, Tensor], bytes]:
    """The configuration's values, the tensors in float32 under today's names, and the model id.

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
    renamed = {current_name(name): value for name, value in tensors.items()}
    return config, renamed, model_id(config_bytes, weights)


def current_name(name: str) -> str:
    """A tensor's name today, for one that an earlier version stored it under."""
    for old, new in RENAMED.items():
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name


def model_id(config: bytes, weights: bytes) -> bytes:
    """The 8 bytes by which a file names its model: the head of sha256(config.json + model.safetensors).

    Where borrowed networks lie does not count: ``parts`` holds a digest of their weights.
    """
    return hashlib.sha256(PLACE.sub(b"", config) + weights).digest()[:8]


def load_codec(folder: str | Path) -> tuple[CodecConfig, CodecParts, dict[str, Tensor], bytes]:
    """Everything that a model is made of: configuration, parts, tensors under today's names, model id.

    Raises:
        CheckpointError: a file is missing, damaged, or of another kind of model.
    """
    values, tensors, identity = read_checkpoint(folder)
    try:
        config = read_config(values, find_checkpoint(folder))
        return config, load_parts(config), tensors, identity
    except CheckpointError:
        raise
    except (TypeError, ValueError) as error:
        raise misfit(folder, error) from None


def misfit(folder: str | Path, error: Exception) -> CheckpointError:
    """The error of a checkpoint whose configuration or tensors do not fit this version."""
    return CheckpointError(f"the checkpoint at {folder} does not fit this version of dhp_lab: {error}")


def read_config(values: dict[str, object], folder: Path) -> CodecConfig:
    """The inverse of ``to_dict`` for any kind of codec.

    Raises:
        TypeError, ValueError: values that no codec has.
    """
    settings = {name: value for name, value in values.items() if name != "model"}
    for kind in (CodecConfig, StableDiffusionConfig):
        if values.get("model") == kind.kind:
            return kind.from_dict(settings, folder)
    raise ValueError(f"config.json does not describe a codec but {values.get('model')!r}")


def load_parts(config: CodecConfig) -> CodecParts:
    """The parts that a configuration stands for. Errors as for ``native_parts`` and
    ``stable_diffusion_parts``.
    """
    if isinstance(config, StableDiffusionConfig):  # its imports take seconds: only where they are needed
        from dhp_lab.codec.stable_diffusion.parts import stable_diffusion_parts

        return stable_diffusion_parts(config)
    from dhp_lab.codec.parts import native_parts

    return native_parts(config)

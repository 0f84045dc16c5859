"""The realism part of a codec's checkpoint: realism.json and realism.safetensors, beside config.json and
model.safetensors.

The bytes of a file do not depend on it, so it is no part of the model id: it can be trained further, or left
out, and every file stays decodable. Its own file names the codec that it was trained for, as the residuals of
another are other ones. No torch until a network is loaded or written: ``dhp info`` gets here.
"""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING

from dhp_lab.codec.config import CodecConfig
from dhp_lab.core.memory import raise_if_of_the_machine
from dhp_lab.core.weights import (
    REALISM_CONFIG,
    REALISM_WEIGHTS,
    CheckpointError,
    weights_from_bytes,
    weights_to_bytes,
)

if TYPE_CHECKING:
    from dhp_lab.codec.denoising.residual_unet import ResidualUNet

KIND = "ResidualUNet"  # as realism.json calls it
WIDEST = 1024  # channels
LARGEST_LEVEL = 100.0  # of noise, in units of the expected error


def check_realism(config: CodecConfig) -> None:
    """Pass a codec that can have a realism part.

    Raises:
        ValueError: its latents are not those of the lapped transform, or it sends z alone.
    """
    if config.kind != CodecConfig.kind:
        raise ValueError(f"a realism part needs a codec around the lapped transform, not {config.kind}")
    if config.transmit == "z":
        raise ValueError("a realism part needs a codec that sends y: with z alone the latents are drawn")


def realism_files(network: ResidualUNet, codec_id: bytes) -> dict[str, bytes]:
    """The two files, by their names; large tensors in float16.

    Args:
        codec_id: the model id of the codec that the network was trained for.
    """
    about = {
        "model": KIND,
        "widths": list(network.widths),
        "start": network.start,
        "first": network.first,
        "codec": codec_id.hex(),
    }
    text = json.dumps(about, indent=2) + "\n"
    return {REALISM_WEIGHTS: weights_to_bytes(network), REALISM_CONFIG: text.encode()}


def realism_id(network: ResidualUNet, codec_id: bytes) -> bytes:
    """The 8 bytes that name a realism part: the head of sha256(realism.json + realism.safetensors).

    Args:
        codec_id: as for ``realism_files``.
    """
    files = realism_files(network, codec_id)
    return hashlib.sha256(files[REALISM_CONFIG] + files[REALISM_WEIGHTS]).digest()[:8]


def load_realism(folder: Path, config: CodecConfig, codec_id: bytes) -> ResidualUNet | None:
    """The realism part in a checkpoint's folder, in eval mode on the CPU; None where neither file is there.

    Args:
        config, codec_id: of the checkpoint.

    Raises:
        CheckpointError: one of the two files is missing, damaged, of another codec or of another kind of
            network, or this kind of codec can have none; the message names the file.
        OSError: the disk's own trouble.
    """
    from dhp_lab.codec.denoising.residual_unet import ResidualUNet
    from dhp_lab.core.precision import float32_by_default

    places = [folder / name for name in (REALISM_CONFIG, REALISM_WEIGHTS)]
    missing = [place for place in places if not place.exists()]
    if len(missing) == 2:
        return None
    if missing:
        raise CheckpointError(f"half of the realism part: {missing[0]} is not there; fetch it again")
    about, weights = (place.read_bytes() for place in places)
    try:
        check_realism(config)
        settings = _read_settings(about, codec_id)
    except ValueError as error:
        raise CheckpointError(f"{places[0]}: {error}") from None
    try:
        tensors = weights_from_bytes(weights, REALISM_WEIGHTS)
    except ValueError as error:
        raise CheckpointError(f"{places[1]} is damaged: {error}; fetch it again") from None
    with float32_by_default():
        network = ResidualUNet(**settings)
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        raise_if_of_the_machine(error)
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{places[1]} does not fit {REALISM_CONFIG}: {reason}") from None
    return network.eval()


def _read_settings(about: bytes, codec_id: bytes) -> dict[str, object]:
    """The network's arguments in realism.json.

    Raises:
        ValueError: it is damaged, of another codec, or of another kind of network.
    """
    try:
        values = json.loads(about)
    except ValueError as error:
        raise ValueError(f"it is damaged: {error}; fetch it again") from None
    if not isinstance(values, dict) or values.get("model") != KIND:
        raise ValueError(f"it does not describe a {KIND}")
    if set(values) != {"model", "widths", "start", "first", "codec"}:
        held = ", ".join(values)
        raise ValueError(f"it must hold model, widths, start, first and codec, and holds {held}")
    widths, start, first = (values[name] for name in ("widths", "start", "first"))
    if not isinstance(widths, list) or len(widths) != 3 or not all(map(_is_width, widths)):
        raise ValueError(f"widths must be three whole numbers in 1 .. {WIDEST}, got {widths}")
    if not (_is_level(start) and _is_level(first) and first < start):
        raise ValueError(
            f"start and first must be noise levels, 0 < first < start <= {LARGEST_LEVEL:g}, "
            f"got {start} and {first}"
        )
    if values["codec"] != codec_id.hex():
        raise ValueError(
            f"this realism part was trained for the codec {values['codec']}, the one beside it is "
            f"{codec_id.hex()}: train one for it, or remove {REALISM_CONFIG} and {REALISM_WEIGHTS}"
        )
    return {"widths": tuple(widths), "start": float(start), "first": float(first)}


def _is_level(value: object) -> bool:
    return type(value) in (int, float) and math.isfinite(value) and 0 < value <= LARGEST_LEVEL


def _is_width(value: object) -> bool:
    return type(value) is int and 1 <= value <= WIDEST

"""What a realism training leaves and starts from: the two files of ``codec.realism`` in a folder of its own.

They are installed by copying both into the folder of the codec that they were trained for.
"""

from __future__ import annotations

import json
from pathlib import Path

from dhp_lab.codec.config import CodecConfig
from dhp_lab.codec.denoising.residual_unet import ResidualUNet
from dhp_lab.codec.realism import load_realism, realism_files
from dhp_lab.core.files import write_all_atomic
from dhp_lab.core.weights import REALISM_CONFIG, REALISM_WEIGHTS, CheckpointError

__all__ = ["REALISM_CONFIG", "REALISM_WEIGHTS", "load_part", "save_part"]


def save_part(folder: Path, network: ResidualUNet, codec_id: bytes) -> None:
    """Write both files, or none.

    Args:
        codec_id: the model id of the codec that the network is trained for.

    Raises:
        OSError: the disk's own trouble; older files are intact.
    """
    write_all_atomic({folder / name: data for name, data in realism_files(network, codec_id).items()})


def load_part(folder: str | Path) -> ResidualUNet:
    """The network of both files, on the CPU, whichever codec it was trained for.

    Raises:
        CheckpointError: a file is missing or damaged, or both do not fit together.
    """
    place = Path(folder) / REALISM_CONFIG
    try:
        codec_id = bytes.fromhex(json.loads(place.read_bytes())["codec"])
    except OSError as error:
        raise CheckpointError(f"no realism part at {folder}: {error.strerror}: {error.filename}") from None
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{place} is damaged: {error}; fetch it again") from None
    return load_realism(Path(folder), CodecConfig(), codec_id)

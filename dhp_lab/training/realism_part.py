"""The realism denoiser as two files, which are installed by copying them into a codec's folder.

| file                  | what it holds                                                      |
|-----------------------|--------------------------------------------------------------------|
| `realism.json`        | {"widths": [a, b, c]}                                              |
| `realism.safetensors` | the tensors of `ResidualUNet.state_dict()`, large ones in float16  |
"""

from __future__ import annotations

import json
from pathlib import Path

from dhp_lab.codec.denoising.residual_unet import ResidualUNet
from dhp_lab.core.files import write_all_atomic
from dhp_lab.core.memory import raise_if_of_the_machine
from dhp_lab.core.weights import CheckpointError, weights_from_bytes, weights_to_bytes

REALISM_CONFIG, REALISM_WEIGHTS = "realism.json", "realism.safetensors"


def save_part(folder: Path, widths: tuple[int, ...], network: ResidualUNet) -> None:
    """Write both files, or none.

    Raises:
        OSError: the disk's own trouble; older files are intact.
    """
    text = json.dumps({"widths": list(widths)}) + "\n"
    write_all_atomic(
        {folder / REALISM_WEIGHTS: weights_to_bytes(network), folder / REALISM_CONFIG: text.encode()}
    )


def load_part(folder: str | Path) -> tuple[tuple[int, ...], ResidualUNet]:
    """The widths and the network of both files, on the CPU.

    Raises:
        CheckpointError: a file is missing or damaged, or both do not fit together.
    """
    folder = Path(folder)
    try:
        config, weights = (folder / REALISM_CONFIG).read_bytes(), (folder / REALISM_WEIGHTS).read_bytes()
    except OSError as error:
        raise CheckpointError(f"no realism part at {folder}: {error.strerror}: {error.filename}") from None
    try:
        a, b, c = widths = tuple(int(width) for width in json.loads(config)["widths"])
        tensors = weights_from_bytes(weights)
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"the realism part at {folder} is damaged: {error}") from None
    try:
        network = ResidualUNet((a, b, c))
        network.load_state_dict(tensors)
    except (RuntimeError, ValueError) as error:
        raise_if_of_the_machine(error)
        raise CheckpointError(f"the realism part at {folder} is of another network: {error}") from None
    return widths, network

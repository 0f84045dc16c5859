"""Weights as safetensors: large tensors in float16, small ones and tables in full."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn

CONFIG, WEIGHTS = "config.json", "model.safetensors"
REALISM_CONFIG, REALISM_WEIGHTS = "realism.json", "realism.safetensors"  # of a codec that has them
HALF_FROM = 4096  # tensors of at least this many numbers are stored in float16, smaller ones in float32


class CheckpointError(ValueError):
    """A checkpoint that is missing, incomplete or of another kind; the message names part and remedy."""


def weights_to_bytes(model: nn.Module) -> bytes:
    """Return a safetensors file of a network's parameters and tables, the large ones in float16."""
    import torch
    from safetensors.torch import save

    tensors = {}
    for name, value in model.state_dict().items():
        is_large = value.dtype == torch.float32 and value.numel() >= HALF_FROM
        dtype = torch.float16 if is_large else value.dtype
        tensors[name] = value.detach().cpu().contiguous().to(dtype)
    return save(tensors, metadata={"format": "pt"})


def weights_from_bytes(data: bytes, name: str = WEIGHTS) -> dict[str, Tensor]:
    """Return the tensors of a file that ``weights_to_bytes`` wrote, those in float16 as float32.

    Args:
        name: the file's, for the message.

    Raises:
        ValueError: this is not a safetensors file.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        tensors = load(data)
    except SafetensorError as error:
        raise ValueError(f"{name}: {error}") from None
    return {name: value.float() if value.dtype == torch.float16 else value for name, value in tensors.items()}

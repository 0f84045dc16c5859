"""Small trainings of the realism denoiser that several tests share: their sizes, files and weights."""

from __future__ import annotations

import torch

from dhp_lab.training.realism_trainer import RealismTrainer

SMALL = {
    "denoising_steps": 3,
    "drawn_steps": 2,
    "batch_size": 2,
    "image_size": 64,
    "drawn_image_size": 64,
    "widths": (4, 6, 8),
    "device": "cpu",
    "validate_every": 100,
    "minutes_between_saves": 60.0,
}
FILES = {"realism.json", "realism.safetensors", "last.safetensors"}


def tensors(run: RealismTrainer) -> dict[str, torch.Tensor]:
    """The weights of the network that is trained, as they are now."""
    return {name: value.clone() for name, value in run.network.state_dict().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    """Whether two state dictionaries are equal bit by bit."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)

"""A checkpoint's weights in eight bits each, and back: the state of a training between two machines.

    python training_state/weights.py pack CHECKPOINT FILE.safetensors
    python training_state/weights.py restore FILE.safetensors CHECKPOINT

Tensors of more than 4096 numbers are stored as whole numbers of -127 .. 127 and a scale for each row.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

LARGE = 4096
NUMBERS, SCALE = ".eight_bits", ".scale"


def pack(folder: Path, target: Path) -> None:
    """Write a checkpoint folder's weights, and its config.json, to one small file."""
    packed = {}
    for name, tensor in load_file(folder / "model.safetensors").items():
        if not tensor.is_floating_point() or tensor.numel() <= LARGE:
            packed[name] = tensor
            continue
        rows = tensor.float().flatten(1)
        scale = rows.abs().amax(1).clamp(min=1e-12) / 127
        packed[name + NUMBERS] = (rows / scale[:, None]).round().to(torch.int8).view(tensor.shape)
        packed[name + SCALE] = scale
    save_file(packed, target, metadata={"config": (folder / "config.json").read_text("utf-8")})


def restore(source: Path, folder: Path) -> None:
    """The inverse of ``pack``, but for the rounding."""
    with safe_open(source, "pt") as file:
        config = file.metadata()["config"]
        packed = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    tensors = {}
    for name, tensor in packed.items():
        if name.endswith(NUMBERS):
            plain = name.removesuffix(NUMBERS)
            rows = tensor.float().flatten(1) * packed[plain + SCALE][:, None]
            tensors[plain] = rows.view(tensor.shape)
        elif not name.endswith(SCALE):
            tensors[name] = tensor
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(config, "utf-8")
    save_file(tensors, folder / "model.safetensors")


if __name__ == "__main__":
    {"pack": pack, "restore": restore}[sys.argv[1]](Path(sys.argv[2]), Path(sys.argv[3]))

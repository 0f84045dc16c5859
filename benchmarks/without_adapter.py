"""`dhp train`, with the adapter on the U-Net's input held at nothing: what does z lose that way?

    python benchmarks/without_adapter.py train --data_path train --output_dir adapter-at-nothing \\
        --init_from codec/final_checkpoint --image_size 64 --batch_size 32 --lr 2e-3 \\
        --epochs 0 --denoiser_epochs 8 --joint_epochs 0

All but the program's name is as in the card of `data/checkpoints/scenes-codec`; `scenes_codec.py --variant`
measures the result.
"""

import torch
from torch import Tensor

from dhp_lab.cli import app
from dhp_lab.codec.stable_diffusion.networks import Adapter


def nothing(adapter: Adapter, state: Tensor, *arguments: object) -> Tensor:
    """What an adapter adds that was never trained."""
    return torch.zeros_like(state)


if __name__ == "__main__":
    Adapter.forward = nothing
    app()

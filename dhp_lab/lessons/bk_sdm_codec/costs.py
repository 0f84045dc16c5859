"""What the parts of Stable Diffusion cost, counted from their shapes alone: no weights are needed.

| function          | what it gives                                                                        |
|-------------------|--------------------------------------------------------------------------------------|
| `multiply_adds`   | the multiply-adds of one call of a network, in convolutions and matrix products      |
| `published_costs` | parameters and multiply-adds of the VAE and the U-Nets of Stable Diffusion and BK-SDM |

The shapes are those of Stable Diffusion 1 (Rombach et al. 2022) in diffusers' terms, and of BK-SDM (Kim et
al. 2023), which ``latent.block_removal`` derives from them.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from dhp_lab.latent.block_removal import SIZES, smaller_config

F = 8  # pixels that a latent of Stable Diffusion spans in each direction
TOKENS, TEXT_WIDTH = 77, 768  # of its captions
VAE = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
}
UNET = {"sample_size": 64, "cross_attention_dim": TEXT_WIDTH}  # and diffusers' defaults


class Cost(NamedTuple):
    """Parameters of a network, and multiply-adds of one call."""

    parameters: int
    multiply_adds: int


@torch.no_grad()
def multiply_adds(network: nn.Module, *inputs: object, method: str = "forward", **more: object) -> int:
    """The multiply-adds of one call in convolutions and matrix products, attention among them.

    Args:
        network: of diffusers where it has attention; on the device "meta" nothing is computed.
        inputs, more: of the call.
        method: what is called.
    """
    if hasattr(network, "set_attn_processor"):
        network.set_attn_processor(AttnProcessor())  # plain products; the fused ones are not counted
    with FlopCounterMode(display=False) as counter:
        getattr(network, method)(*inputs, **more)
    return counter.get_total_flops() // 2


def published_costs(size: int = 512) -> dict[str, Cost]:
    """The parts of Stable Diffusion 1 and BK-SDM for a picture of ``size`` x ``size`` pixels.

    Args:
        size: a multiple of 64.

    Returns:
        By name: "VAE encoder", "VAE decoder", and "U-Net, full" to "U-Net, tiny" for one evaluation.
    """
    side = size // F
    with torch.device("meta"):
        vae, latents = AutoencoderKL(**VAE), torch.empty(1, 4, side, side)
        full = UNet2DConditionModel(**UNET)
        unets = {kind: UNet2DConditionModel.from_config(smaller_config(full.config, kind)) for kind in SIZES}
        picture, text = torch.empty(1, 3, size, size), torch.empty(1, TOKENS, TEXT_WIDTH)
        time = torch.empty(1)
    found = {
        "VAE encoder": Cost(_count(vae.encoder), multiply_adds(vae, picture, method="encode")),
        "VAE decoder": Cost(_count(vae.decoder), multiply_adds(vae, latents, method="decode")),
    }
    for kind, unet in unets.items():
        calls = multiply_adds(unet, latents, time, encoder_hidden_states=text)
        found[f"U-Net, {kind}"] = Cost(_count(unet), calls)
    return found


def _count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())

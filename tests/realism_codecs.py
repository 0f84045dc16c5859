"""Small codecs with a realism part, that several tests share."""

from __future__ import annotations

import torch
from models import woken

from dhp_lab.codec.denoising.residual_unet import ResidualUNet
from dhp_lab.codec.model import DiffusionHyperprior

SMALL = (8, 12, 16)
SIZE = (50, 70)  # neither side is a multiple of 16


def network(*, awake: bool = True) -> ResidualUNet:
    """An untrained U-Net, or one with noise in its last layer; always the same."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        unet = ResidualUNet(SMALL).eval()
        if awake:
            torch.nn.init.normal_(unet.exit.weight, std=0.1)
    return unet


def codec(*, awake: bool = True, **settings) -> DiffusionHyperprior:
    """``woken`` with a realism part."""
    model = woken(**{"N": 4, "M": 24} | settings)
    model.realism = network(awake=awake)
    return model

r"""Reflow on digits: the flow of the shipped diffusion is distilled into a flow with straighter paths.

A diffusion's probability flow is a first flow already (``diffusion.flow``). It connects noise with digits,
and a second network learns the velocity of the straight lines between them (Liu et al. 2023, section 2):

    pairs:  eps --DPM-Solver++ 2M, the shipped U-Net--> x0;      v(x_t, t) learns eps - x0

The second U-Net starts from the first one's weights, and takes its times as 1000 t.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from dhp_lab.core.paths import CHECKPOINTS
from dhp_lab.data.digits import SIDE
from dhp_lab.diffusion.multistep import dpm_solver_2m
from dhp_lab.diffusion.networks import UNet
from dhp_lab.diffusion.process import Denoiser, noise_like
from dhp_lab.diffusion.samplers import last
from dhp_lab.diffusion.schedules import NoiseSchedule
from dhp_lab.training.digit_denoiser import load_denoiser, save_denoiser
from dhp_lab.training.few_steps import FitConfig, fit, flow_objective, kept_pairs

FOLDER = CHECKPOINTS / "digits-reflow"
PAIRS = 960
BATCH = 48


class FlowUNet(nn.Module):
    """v(x, t) by a U-Net whose own times are 0 .. 1000.

    Args:
        unet: maps (B, C, H, W) and (B,) to (B, C, H, W).
    """

    def __init__(self, unet: UNet) -> None:
        super().__init__()
        self.unet = unet

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """x (B, C, H, W) and t (B,) in [0, 1] -> the velocity (B, C, H, W)."""
        return self.unet(x, 1000 * t)


def connected_pairs(
    denoiser: Denoiser, schedule: NoiseSchedule, eps: Tensor, *, count: int = 25
) -> tuple[Tensor, Tensor]:
    """Pairs (x0, eps) that a preserving schedule's probability flow connects; both (B, ...)."""
    return last(dpm_solver_2m(denoiser, schedule, eps, count=count)).x, eps


def train_reflow(
    steps: int = 500,
    *,
    pairs: int = PAIRS,
    seed: int = 0,
    progress: Callable[[int, float], None] | None = None,
) -> FlowUNet:
    """Train a flow on pairs of the shipped denoiser of digits, and return the EMA of its weights.

    Args:
        steps, pairs: at least 1.
        seed: of noise, batches and times.
        progress: called after each step with its number and loss.
    """
    unet, config = load_denoiser("digits")
    generator = torch.Generator().manual_seed(seed)
    noise = noise_like(torch.empty(pairs, 1, SIDE, SIDE), generator)
    x0, eps = connected_pairs(unet, config.noise_schedule(), noise)
    network = FlowUNet(copy.deepcopy(unet).requires_grad_(True))  # in eval mode: without dropout
    fitted = FitConfig(steps, lr=1e-3, average=0.99, seed=seed)
    return fit(network, flow_objective(kept_pairs(x0, eps, BATCH)), fitted, progress=progress)


def save_reflow(network: FlowUNet, *, steps: int, folder: str | Path = FOLDER) -> None:
    """Write the flow's U-Net as ``digit_denoiser.save_denoiser`` writes one."""
    _, config = load_denoiser("digits")
    save_denoiser(folder, network.unet, replace(config, training_steps=steps, batch_size=BATCH))


def load_reflow(folder: str | Path = FOLDER, *, device: torch.device | str = "cpu") -> FlowUNet:
    """Read a flow that ``save_reflow`` wrote, in eval mode.

    Raises:
        CheckpointError: a file is missing, damaged or of another kind.
    """
    return FlowUNet(load_denoiser(folder, device=device)[0]).eval()

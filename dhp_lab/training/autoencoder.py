"""Training of the first stages: reconstruction and a regulariser, on pictures from any function that draws
them.

    repeat:  a batch x;  a gradient step on the loss of ``autoencoders.autoencoder_loss``;  EMA of the weights

A code that is nearest to no latent gets no gradient and stays unused for ever. So at the first step, and then
every 100 steps in the first half of a run, each code that the batch did not use is moved onto one of the
batch's latents: the random restarts of Dhariwal et al. 2020 (Jukebox). Rombach et al. 2022, appendix G, has
the rest.

A run is a function of its configuration and its pictures, whatever the state of torch's global generator.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dhp_lab.core.precision import autocast
from dhp_lab.core.seeding import temporary_seed
from dhp_lab.latent.autoencoders import (
    Autoencoder,
    VQModel,
    autoencoder_loss,
    codebook_use,
    encode,
    kl_autoencoder,
    scale_factor,
    vq_autoencoder,
)
from dhp_lab.training.optimisation import EMA, optimizer_step

Batches = Callable[[int, int], Tensor]
"""``batches(count, seed)``: (count, 3, H, W) pictures in [0, 1], the same for the same seed."""

Progress = Callable[[int, dict[str, float]], None]
"""``progress(step, losses)``, called after each step, the first of them 1; the losses are those that
``autoencoder_loss`` names."""

RESTART_EVERY = 100  # steps
SCALE_PICTURES = 256  # that the scale factor is measured on


@dataclass(frozen=True)
class AutoencoderConfig:
    """Everything that a run depends on, except its pictures.

    Attributes:
        f: how many pixels a latent spans in each direction: 2, 4, 8 or 16.
        codes: size of the codebook of a VQ-reg autoencoder; 0 makes a KL-reg one.
        widths: channels at each size, multiples of 8; None: as many of ``autoencoders.WIDTHS`` as f needs.
        edge_weight, kl_weight, commitment: as for ``autoencoder_loss``, at least 0.
        training_steps, batch_size: at least 1.
        lr: Adam's peak learning rate, in (0, 1); see ``optimisation.lr_factor``.
        average: the EMA's decay, in [0, 1); less in the first steps, see ``optimisation.EMA``.
        seed: of the first weights, pictures, noise and restarts.

    Raises:
        ValueError: a value outside its range; ``network`` raises it for f and widths.
    """

    f: int = 8
    codes: int = 0
    widths: tuple[int, ...] | None = None
    edge_weight: float = 1.0
    kl_weight: float = 1e-6
    commitment: float = 0.25
    training_steps: int = 6000
    batch_size: int = 32
    lr: float = 1e-3
    average: float = 0.999
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("codes", 0), ("training_steps", 1), ("batch_size", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        for name in ("edge_weight", "kl_weight", "commitment"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be finite and at least 0, got {getattr(self, name):g}")
        if not 0 < self.lr < 1 or not 0 <= self.average < 1:
            raise ValueError(
                f"lr must lie in (0, 1) and average in [0, 1), got {self.lr:g} and {self.average:g}"
            )

    def network(self) -> Autoencoder:
        """A new autoencoder of this kind, its weights drawn from torch's global generator."""
        if self.codes:
            return vq_autoencoder(self.f, codes=self.codes, widths=self.widths)
        return kl_autoencoder(self.f, widths=self.widths)


def train_autoencoder(
    config: AutoencoderConfig,
    batches: Batches,
    *,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> Autoencoder:
    """Train an autoencoder and return the EMA of its weights, in eval mode, its scaling_factor measured.

    Args:
        config: everything that the run depends on, except its pictures.
        batches: ``batches(count, seed)`` gives the pictures, (count, 3, H, W) in [0, 1].
        device: where to train, and where the result lives.
        progress: called after each step with its number and losses.

    Raises:
        ValueError: pictures that do not fit, or a loss that is not finite.
    """
    with temporary_seed(config.seed):  # first weights
        network = config.network().to(device).train()
    ema = EMA(network, config.average)
    generator = torch.Generator().manual_seed(config.seed)
    network = network.to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(network.parameters(), lr=config.lr)
    for step in range(1, config.training_steps + 1):
        x = _draw(batches, config.batch_size, generator).to(device, memory_format=torch.channels_last)
        if config.codes and step % RESTART_EVERY == 1 and 2 * step <= config.training_steps + 1:
            restart_unused([network, ema.average], x, generator=generator)
        losses = _step(config, network, optimizer, x, generator, step)
        ema.update(network)
        if progress is not None:
            progress(step, losses)
    x = _draw(batches, SCALE_PICTURES, generator).to(device)
    ema.average.register_to_config(scaling_factor=scale_factor(ema.average, x))
    return ema.average


@torch.no_grad()
def restart_unused(models: Sequence[VQModel], x: Tensor, *, generator: torch.Generator | None = None) -> int:
    """Move the codes that no picture uses onto random latents of the pictures (Dhariwal et al. 2020).

    Args:
        models: the first one determines the unused codes and the latents; all of them get the new codes.
        x: (B, 3, H, W) pictures in [0, 1].
        generator: of the choice among the latents.

    Returns:
        The number of codes moved.
    """
    latents = encode(models[0], x).movedim(1, -1).flatten(0, 2)  # (B h w, 4)
    unused = (codebook_use(models[0], x).counts == 0).nonzero()[:, 0]
    chosen = torch.randint(len(latents), unused.shape, generator=generator).to(x.device)
    for model in models:
        model.quantize.embedding.weight[unused] = latents[chosen]
    return len(unused)


def _draw(batches: Batches, count: int, generator: torch.Generator) -> Tensor:
    seed = int(torch.randint(2**31, (), generator=generator))
    x = batches(count, seed)
    if not isinstance(x, Tensor) or len(x) != count:
        got = f"{len(x)}" if isinstance(x, Tensor) else f"a {type(x).__name__}"
        raise ValueError(
            f"batches(count, seed) must return pictures alone, {count} of them, in a tensor; got {got}"
        )
    return x


def _step(
    config: AutoencoderConfig,
    network: Autoencoder,
    optimizer: torch.optim.Optimizer,
    x: Tensor,
    generator: torch.Generator,
    step: int,
) -> dict[str, float]:
    with autocast(x.device):
        losses = autoencoder_loss(
            network,
            x,
            edge_weight=config.edge_weight,
            kl_weight=config.kl_weight,
            commitment=config.commitment,
            generator=generator,
        )
    optimizer_step(losses["loss"], network, optimizer, lr=config.lr, step=step, steps=config.training_steps)
    return {name: value.item() for name, value in losses.items()}

"""Distillation of a U-Net with blocks removed from its teacher: task, output and feature losses (Kim et al.
2023, eq. 2-4).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from dhp_lab.core.precision import autocast
from dhp_lab.diffusion.guidance import drop_labels
from dhp_lab.diffusion.process import draw_times, noise_like, q_sample, v_from_eps
from dhp_lab.latent.pipeline import EMPTY, LatentDiffusion, V_PREDICTION
from dhp_lab.training.latent_diffusion import scaled_latents
from dhp_lab.training.optimisation import optimizer_step, update_ema

LOSSES = ("task", "output", "feature")


@dataclass(frozen=True)
class DistilConfig:
    """Everything that a distillation depends on, except the teacher and the student it starts from.

    Attributes:
        task, output, feature: weights of the three losses, at least 0; a loss of weight 0 is off, and one is
            on.
        scenes, training_steps, batch_size: at least 1. lr: AdamW's peak step size, in (0, 1); the paper's is
            5e-5.
        null_probability: share of the captions dropped, in [0, 1]; guidance needs it.
        average: how much of the averaged weights each step keeps, in [0, 1). seed: of all that is random.

    Raises:
        ValueError: a value outside its range, or no loss at all.
    """

    task: float = 1.0
    output: float = 1.0
    feature: float = 1.0
    scenes: int = 8192
    training_steps: int = 2000
    batch_size: int = 32
    lr: float = 5e-5
    null_probability: float = 0.1
    average: float = 0.99
    seed: int = 0

    def __post_init__(self) -> None:
        weights = [getattr(self, name) for name in LOSSES]
        if not all(0 <= weight < float("inf") for weight in weights) or not any(weights):
            raise ValueError(
                f"task, output and feature must be finite and at least 0, one of them above, got {weights}"
            )
        for name in ("scenes", "training_steps", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0 < self.lr < 1 or not 0 <= self.null_probability <= 1 or not 0 <= self.average < 1:
            raise ValueError(
                "lr must lie in (0, 1), null_probability in [0, 1] and average in [0, 1), "
                f"got {self.lr:g}, {self.null_probability:g} and {self.average:g}"
            )


def distillation_losses(
    teacher: UNet2DConditionModel,
    student: UNet2DConditionModel,
    z_t: Tensor,
    t: Tensor,
    context: Tensor,
    target: Tensor,
) -> dict[str, Tensor]:
    """The losses "task", "output" and "feature", () each, with a gradient to the student alone: Kim et al.
    2023.

    Args:
        z_t: (B, C, h, w) noisy latents at times t (B,), 1 .. T. context: (B, L, D).
        target: (B, C, h, w) what was drawn, in the terms the U-Nets are trained in: eps or v.

    Raises:
        ValueError: features of different shapes: the student was not made from this teacher.
    """
    with (
        torch.no_grad(),
        autocast(z_t.device),
        _watched(stage_ends(teacher, len(student.down_blocks))) as asked,
    ):
        told = teacher(z_t, t - 1, encoder_hidden_states=context).sample.float()
    with autocast(z_t.device), _watched(stage_ends(student, len(student.down_blocks))) as given:
        found = student(z_t, t - 1, encoder_hidden_states=context).sample.float()
    shapes = [tuple(a.shape) for a in given], [tuple(b.shape) for b in asked]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"the student's stages end in {shapes[0]}, the teacher's in {shapes[1]}; make it by smaller_unet"
        )
    features = torch.stack([mse_loss(a.float(), b.float()) for a, b in zip(given, asked, strict=True)]).sum()
    return {"task": mse_loss(found, target), "output": mse_loss(found, told), "feature": features}


def stage_ends(unet: UNet2DConditionModel, stages: int) -> list[nn.Module]:
    """What ends the first down stages and the last up stages; the innermost down stage ends before it is made
    smaller.
    """
    *outer, inner = unet.down_blocks[:stages]
    layers = getattr(inner, "attentions", None) or inner.resnets
    return [*outer, layers[-1], *unet.up_blocks[len(unet.up_blocks) - stages :]]


@contextmanager
def _watched(modules: Iterable[nn.Module]) -> Iterator[list[Tensor]]:
    """A list that fills with what the modules return, the first of several, in the order in which they run."""
    found: list[Tensor] = []
    hooks = [
        module.register_forward_hook(
            lambda module, given, out: found.append(out if isinstance(out, Tensor) else out[0])
        )
        for module in modules
    ]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def distil(
    config: DistilConfig,
    teacher: LatentDiffusion,
    student: UNet2DConditionModel,
    *,
    progress: Callable[[int, dict[str, float]], None] | None = None,
) -> LatentDiffusion:
    """Train a smaller U-Net on scenes beside its teacher; return the teacher's pipeline with its averaged
    weights, in eval mode.

    A run is a function of its arguments, whatever the state of torch's global generator. First stage and text
    encoder are the teacher's, and stay as they are, as do ``teacher`` and ``student``.

    Args:
        student: made from ``teacher.unet`` by ``smaller_unet``.
        progress: ``progress(step, losses)``, called after each step, the first of them 1; all three losses,
            not weighted.

    Raises:
        ValueError: a student that does not fit, or a loss that is not finite.
    """
    z, captions = scaled_latents(teacher.vae, config.scenes, seed=config.seed)
    tokens = teacher.tokens([*captions, EMPTY])  # (N + 1, L), the last says nothing
    network = copy.deepcopy(student).eval().requires_grad_(True)  # eval: no dropout
    network.set_attn_processor(AttnProcessor())  # on a CPU faster to train; the same result
    average = copy.deepcopy(network).requires_grad_(False)
    optimizer = torch.optim.AdamW(network.parameters(), lr=config.lr, weight_decay=1e-4)
    generator = torch.Generator().manual_seed(config.seed)
    for step in range(1, config.training_steps + 1):
        losses = distillation_losses(teacher.unet, network, *_batch(config, teacher, z, tokens, generator))
        loss = sum(getattr(config, name) * losses[name] for name in LOSSES if getattr(config, name))
        optimizer_step(loss, network, optimizer, lr=config.lr, step=step, steps=config.training_steps)
        update_ema(average, network, min(config.average, step / (step + 10)))
        if progress is not None:
            progress(step, {name: value.item() for name, value in losses.items()})
    return replace(teacher, unet=average)


@torch.no_grad()
def _batch(
    config: DistilConfig,
    teacher: LatentDiffusion,
    z: Tensor,
    tokens: Tensor,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Noisy latents, their times, the captions' vectors, and what was drawn in the teacher's terms."""
    chosen = torch.randint(len(z), (config.batch_size,), generator=generator)
    asked = drop_labels(chosen, len(z), probability=config.null_probability, generator=generator)
    context = teacher.text_encoder(tokens[asked]).last_hidden_state  # (B, L, D)
    z0 = z[chosen].contiguous(memory_format=torch.channels_last)
    t, eps = draw_times(teacher.schedule, z0, generator), noise_like(z0, generator)
    target = v_from_eps(teacher.schedule, z0, t, eps) if teacher.prediction == V_PREDICTION else eps
    return q_sample(teacher.schedule, z0, t, eps), t, context, target

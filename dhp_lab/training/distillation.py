"""Distillation of a U-Net with blocks removed from its teacher: task, output and feature losses.

    L = w_task |target - S|^2 + w_output |T - S|^2 + w_feature sum_l |T_l - S_l|^2

Kim et al. 2023, eq. 2-4. S and T are the outputs of student and teacher, S_l and T_l the features at the end
of stage l.
"""

from __future__ import annotations

import copy
import math
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
from dhp_lab.latent.folder import V_PREDICTION
from dhp_lab.latent.pipeline import EMPTY, LatentDiffusion
from dhp_lab.training.latent_diffusion import scaled_latents
from dhp_lab.training.optimisation import EMA, optimizer_step

LOSSES = ("task", "output", "feature")


@dataclass(frozen=True)
class DistilConfig:
    """Everything that a distillation depends on, except the teacher and the student it starts from.

    Attributes:
        task, output, feature: weights of the three losses, at least 0; a loss of weight 0 is off, and one is
            on.
        scenes, training_steps, batch_size: at least 1.
        lr: AdamW's peak learning rate, in (0, 1); the paper's is 5e-5.
        null_probability: share of the captions dropped, in [0, 1]; guidance needs it.
        average: the EMA's decay, in [0, 1), see ``optimisation.EMA``. seed: of all that is random.

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
        if not all(0 <= weight < math.inf for weight in weights) or not any(weights):
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
    """The unweighted losses "task", "output" and "feature": Kim et al. 2023, eq. 2-4.

    Args:
        teacher: the full U-Net; it gets no gradient.
        student: made from it by ``smaller_unet``.
        z_t: (B, C, h, w) noisy latents.
        t: (B,) their times, 1 .. T.
        context: (B, L, D) the captions' vectors.
        target: (B, C, h, w) what was drawn, in the terms the U-Nets are trained in: eps or v.

    Returns:
        Each loss, ().

    Raises:
        ValueError: features of different shapes: the student was not made from this teacher.
    """
    stages = len(student.down_blocks)
    with torch.no_grad():
        teacher_output, teacher_features = _forward(teacher, stages, z_t, t, context)
    output, features = _forward(student, stages, z_t, t, context)
    shapes = [tuple(feature.shape) for feature in features]
    teacher_shapes = [tuple(feature.shape) for feature in teacher_features]
    if shapes != teacher_shapes:
        raise ValueError(
            f"the student's stages end in {shapes}, the teacher's in {teacher_shapes}; "
            "make it by smaller_unet"
        )
    pairs = zip(features, teacher_features, strict=True)
    return {
        "task": mse_loss(output, target),
        "output": mse_loss(output, teacher_output),
        "feature": torch.stack([mse_loss(ours.float(), theirs.float()) for ours, theirs in pairs]).sum(),
    }


def _forward(
    unet: UNet2DConditionModel, stages: int, z_t: Tensor, t: Tensor, context: Tensor
) -> tuple[Tensor, list[Tensor]]:
    """The U-Net's output (B, C, h, w) in float32, and what its first and last ``stages`` stages end in."""
    with autocast(z_t.device), _outputs_of(stage_ends(unet, stages)) as features:
        output = unet(z_t, t - 1, encoder_hidden_states=context).sample.float()
    return output, features


def stage_ends(unet: UNet2DConditionModel, stages: int) -> list[nn.Module]:
    """The modules that end the first down stages and the last up stages.

    The innermost down stage ends in front of its downsampling, which the innermost stage of a smaller U-Net
    lacks.
    """
    *outer, inner = unet.down_blocks[:stages]
    layers = getattr(inner, "attentions", None) or inner.resnets
    return [*outer, layers[-1], *unet.up_blocks[len(unet.up_blocks) - stages :]]


@contextmanager
def _outputs_of(modules: Iterable[nn.Module]) -> Iterator[list[Tensor]]:
    """A list that fills with the modules' outputs, the first of several, in the order in which they run."""
    outputs: list[Tensor] = []

    def keep(module: nn.Module, inputs: tuple, output: Tensor | tuple[Tensor, ...]) -> None:
        outputs.append(output if isinstance(output, Tensor) else output[0])

    hooks = [module.register_forward_hook(keep) for module in modules]
    try:
        yield outputs
    finally:
        for hook in hooks:
            hook.remove()


def distil(
    config: DistilConfig,
    teacher: LatentDiffusion,
    student: UNet2DConditionModel,
    *,
    data: tuple[Tensor, list[str]] | None = None,
    progress: Callable[[int, dict[str, float]], None] | None = None,
) -> LatentDiffusion:
    """Train a smaller U-Net on scenes beside its teacher.

    A run is a function of its arguments, whatever the state of torch's global generator. First stage and text
    encoder are the teacher's, and stay as they are, as do ``teacher`` and ``student``.

    Args:
        config: everything that the run depends on, except teacher and student.
        teacher: a pipeline trained on captioned scenes.
        student: made from ``teacher.unet`` by ``smaller_unet``.
        data: latents and captions of ``scaled_latents``. None: those of ``config``.
        progress: ``progress(step, losses)``, called after each step, the first of them 1; all three losses,
            unweighted.

    Returns:
        The teacher's pipeline with the EMA of the student's weights as its U-Net, in eval mode.

    Raises:
        ValueError: a student that does not fit, or a loss that is not finite.
    """
    z, captions = data or scaled_latents(teacher.vae, config.scenes, seed=config.seed)
    tokens = teacher.tokens([*captions, EMPTY])  # (N + 1, L), the last is the empty caption
    network = copy.deepcopy(student).eval().requires_grad_(True)  # eval: no dropout
    network.set_attn_processor(AttnProcessor())  # on a CPU faster to train; the same result
    ema = EMA(network, config.average)
    optimizer = torch.optim.AdamW(network.parameters(), lr=config.lr, weight_decay=1e-4)
    generator = torch.Generator().manual_seed(config.seed)
    for step in range(1, config.training_steps + 1):
        batch = _batch(config, teacher, z, tokens, generator)
        losses = distillation_losses(teacher.unet, network, *batch)
        weights = {name: getattr(config, name) for name in LOSSES}
        loss = sum(weight * losses[name] for name, weight in weights.items() if weight)
        optimizer_step(loss, network, optimizer, lr=config.lr, step=step, steps=config.training_steps)
        ema.update(network)
        if progress is not None:
            progress(step, {name: value.item() for name, value in losses.items()})
    return replace(teacher, unet=ema.average)


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
    captions = drop_labels(chosen, len(z), probability=config.null_probability, generator=generator)
    context = teacher.text_encoder(tokens[captions]).last_hidden_state  # (B, L, D)
    z0 = z[chosen].contiguous(memory_format=torch.channels_last)
    t = draw_times(teacher.schedule, z0, generator)
    eps = noise_like(z0, generator)
    z_t = q_sample(teacher.schedule, z0, t, eps)
    target = v_from_eps(teacher.schedule, z0, t, eps) if teacher.prediction == V_PREDICTION else eps
    return z_t, t, context, target

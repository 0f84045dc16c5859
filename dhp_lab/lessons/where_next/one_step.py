r"""Fewer steps: a student that evaluates the denoiser once learns what the chain of K steps draws.

The noises come from outside, so that teacher and student can be given the same ones (cf. Salimans & Ho 2022,
"Progressive distillation for fast sampling of diffusion models"):

    teacher:  K evaluations of D, a noise eps_k between one and the next           (``draw``)
    student:  one evaluation:  mean + sqrt(variance) sum_k (w_k + gain_k) eps_k    (``Student``)

The weights w are K - 1 numbers, fitted by least squares (``fit_weights``). The gains differ from latent to
latent: a small network with zero initialisation predicts them, and is trained (``train``). All latents here
are in quantiser steps and relative to the hyperprior's mean, as in ``codec.denoising.denoiser``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dhp_lab.codec.denoising.decoder_state import DecoderState
from dhp_lab.codec.denoising.sampling import posterior_step
from dhp_lab.codec.entropy_coding import decode_latents
from dhp_lab.codec.model import DiffusionHyperprior
from dhp_lab.codec.networks.layers import zero_init

WIDTH = 64  # of the student's network
CROP = 12  # latents on a side of a training crop
BATCH = 4  # crops in a step
NOISE_SEED = 1000  # of the noises of training step 0


@dataclass(frozen=True)
class Drawn:
    """What a chain drew.

    Attributes:
        sample: (B, M, h, w).
        mean, variance: (B, M, h, w) each, as D predicted them at its first evaluation.
    """

    sample: Tensor
    mean: Tensor
    variance: Tensor


def decoder_state_of(model: DiffusionHyperprior, x: Tensor, lambda_rate: float) -> DecoderState:
    """What the decoder holds of a picture (1, 3, H, W) in [0, 1], from its bytes, with ``moments`` where it
    has any.
    """
    coded = model.compress(x, lambda_rate)
    return decode_latents(model, coded["strings"], coded["shape"]).with_moments()


def noises_like(state: DecoderState, count: int, seed: int) -> list[Tensor]:
    """``count`` standard normal tensors like the latents: for one picture those that the decoder's sampler
    draws for this seed.
    """
    generator = torch.Generator().manual_seed(seed)
    draws = [torch.randn(state.mean.shape, generator=generator) for _ in range(count)]
    return [draw.to(state.mean.device) for draw in draws]


@torch.no_grad()
def draw(model: DiffusionHyperprior, state: DecoderState, noises: Sequence[Tensor]) -> Drawn:
    """The decoder's chain of K = len(noises) + 1 steps, where all latents are decoded, with these noises."""
    levels = model.sampler.noise_levels(state, len(noises) + 1)
    u = state.symbols
    first = model.denoiser(u, levels[0], state)  # mean and variance
    clean, variance = first
    for k, noise in enumerate(noises):
        u = posterior_step(u, clean, variance, levels[k], levels[k + 1], noise)
        clean, variance = model.denoiser(u, levels[k + 1], state)
    return Drawn(clean, *first)


@torch.no_grad()
def picture(
    model: DiffusionHyperprior, state: DecoderState, residual: Tensor, size: tuple[int, int]
) -> Tensor:
    """g_s on latents (1, M, h, w) in steps from their mean: the picture (1, 3, *size) in [0, 1]."""
    y_hat = (residual + state.mean) * state.delta
    return model.synthesise(y_hat, state.log2_delta, size).clamp(0, 1)


def fit_weights(drawn: Drawn, noises: Sequence[Tensor]) -> Tensor:
    """(K - 1,) the weights w with which mean + sqrt(variance) sum_k w_k eps_k is nearest to the sample, by
    least squares.
    """
    columns = torch.stack([(drawn.variance.sqrt() * noise).flatten() for noise in noises], 1)
    target = (drawn.sample - drawn.mean).flatten().unsqueeze(1)
    return torch.linalg.lstsq(columns, target).solution.squeeze(1)


def explained(drawn: Drawn, estimate: Tensor) -> float:
    """The explained variance of a chain's sample around D's mean (R^2): 1 all of it, 0 none."""
    unexplained = (drawn.sample - estimate).square().sum()
    return 1 - (unexplained / (drawn.sample - drawn.mean).square().sum()).item()


class Student(nn.Module):
    """One evaluation of D, the noises, and a small network that predicts the gain of each.

    Until it is trained, every gain is 0 and the weights alone count.

    Args:
        model: the teacher; it is evaluated and never trained.
        weights: (K - 1,) from ``fit_weights``.
    """

    def __init__(self, model: DiffusionHyperprior, weights: Tensor) -> None:
        super().__init__()
        self.teacher = [model]  # in a list: not one of this module's parts
        self.register_buffer("weights", weights.detach().clone())
        M = model.config.M
        self.mix = nn.Conv2d(3 * M, WIDTH, 1)
        self.body = nn.Conv2d(WIDTH, WIDTH, 3, padding=1)
        self.exit = zero_init(nn.Conv2d(WIDTH, len(weights) * M, 1))

    def forward(self, state: DecoderState, noises: Sequence[Tensor]) -> Tensor:
        """A sample (B, M, h, w) from what the decoder holds and K - 1 noises."""
        first = draw(self.teacher[0], state, [])  # K = 1: one evaluation of D
        gains = self._gains(state, first.variance)
        terms = zip(self.weights, gains, noises, strict=True)
        noise = sum((weight + gain) * eps for weight, gain, eps in terms)
        return first.mean + first.variance.sqrt() * noise

    def _gains(self, state: DecoderState, variance: Tensor) -> tuple[Tensor, ...]:
        """K - 1 gains, (B, M, h, w) each, from the symbols, D's variance and the scale of each latent."""
        scale = state.scale.clamp(0.02, 50)
        ratio = (state.symbols / scale).clamp(-5, 5).abs()
        log_std = 0.5 * variance.clamp(min=1e-6).log() - scale.log()
        inputs = torch.cat([ratio, log_std, scale.log2() / 4], 1)  # (B, 3 M, h, w)
        h = F.leaky_relu(self.mix(inputs), 0.1)
        return self.exit(F.leaky_relu(self.body(h), 0.1)).chunk(len(self.weights), 1)


def crop_batch(
    states: Sequence[DecoderState], number: int, *, count: int = BATCH, side: int = CROP
) -> DecoderState:
    """Batch ``number`` of an endless, reproducible stream of crops.

    Args:
        states: of photos coded with one lambda.
        count, side: number of crops, and their side in latents.

    Returns:
        The state of (count, M, side, side) latents.
    """
    random, crops = np.random.default_rng(number), []
    for _ in range(count):
        state = states[random.integers(len(states))]
        top, left = (int(random.integers(length - side + 1)) for length in state.mean.shape[-2:])
        crops.append(state.window(slice(top, top + side), slice(left, left + side)))
    fields = ("symbols", "decoded", "mean", "scale", "log2_delta")
    joined = {name: torch.cat([getattr(crop, name) for crop in crops]) for name in fields}
    if crops[0].moments is not None:  # a trellis has none
        joined["moments"] = tuple(torch.cat([crop.moments[i] for crop in crops]) for i in (0, 1))
    return replace(crops[0], **joined)


def train(student: Student, states: Sequence[DecoderState], steps: int, *, lr: float = 1e-3) -> list[float]:
    """Train the student to draw what its teacher draws from the same noises.

    Args:
        states: as for ``crop_batch``.
        steps: training steps; the learning rate decays linearly from ``lr`` to 0.

    Returns:
        The unexplained variance at each step.
    """
    model, losses = student.teacher[0], []
    optimiser = torch.optim.AdamW(student.parameters(), lr=lr)
    for step in range(steps):
        state = crop_batch(states, step)
        noises = noises_like(state, len(student.weights), NOISE_SEED + step)
        drawn = draw(model, state, noises)
        error = (student(state, noises) - drawn.sample).square().sum()
        loss = error / (drawn.sample - drawn.mean).square().sum()
        optimiser.param_groups[0]["lr"] = lr * (1 - step / steps)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return losses

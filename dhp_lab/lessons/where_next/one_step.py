r"""Lesson 10, fewer steps: a student that asks the denoiser once learns what the chain of K steps draws.

The noises come from outside, so that teacher and student can be given the same ones (cf. Salimans & Ho 2022,
"Progressive distillation for fast sampling of diffusion models"):

    teacher:  K questions to D, a noise eps_k between one and the next           (``draw``)
    student:  one question:   mean + sqrt(variance) sum_k (w_k + gain_k) eps_k   (``Student``)

The weights w are K - 1 numbers, fitted by least squares (``fit_weights``). The gains differ from latent to
latent: a small network tells them, which starts silent and is trained (``train``). All latents here are in
quantiser steps and relative to the hyperprior's mean, as in ``codec.denoiser``.
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
CROP, BATCH = 12, 4  # latents on a side of a training crop, and crops in a step


@dataclass(frozen=True)
class Drawn:
    """What a chain drew: the sample, and mean and variance as D told them at its first question; (B, M, h, w)
    each.
    """

    sample: Tensor
    mean: Tensor
    variance: Tensor


def known_of(model: DiffusionHyperprior, x: Tensor, lambda_rate: float) -> DecoderState:
    """What the decoder knows of a picture (1, 3, H, W), from its bytes."""
    coded = model.compress(x, lambda_rate)
    return decode_latents(model, coded["strings"], coded["shape"]).with_moments()


def noises_like(decoder_state: DecoderState, count: int, seed: int) -> list[Tensor]:
    """``count`` standard normal tensors like the latents: those that ``model.denoise`` draws for this seed,
    one picture a batch.
    """
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(decoder_state.mean.shape, generator=generator).to(decoder_state.mean.device)
        for _ in range(count)
    ]


@torch.no_grad()
def draw(model: DiffusionHyperprior, decoder_state: DecoderState, noises: Sequence[Tensor]) -> Drawn:
    """The chain of K = len(noises) + 1 steps with these noises: what ``model.denoise`` does where all latents
    are decoded.
    """
    levels, u, first = model.noise_levels(decoder_state, len(noises) + 1), decoder_state.symbols, None
    for sigma, lower, noise in zip(levels, [*levels[1:], None], [*noises, None], strict=True):
        clean, variance = model.denoiser(u, sigma, decoder_state)
        first = first or (clean, variance)
        if noise is not None:
            u = posterior_step(u, clean, variance, sigma, lower, noise)
    return Drawn(clean, *first)


def picture(
    model: DiffusionHyperprior, decoder_state: DecoderState, residual: Tensor, size: tuple[int, int]
) -> Tensor:
    """g_s on latents in steps from their mean: (1, 3, *size) in [0, 1]."""
    y_hat = (residual + decoder_state.mean) * decoder_state.log2_delta.exp2().view(-1, 1, 1, 1)
    with torch.no_grad():
        return model.synthesise(y_hat, decoder_state.log2_delta, size).clamp(0, 1)


def fit_weights(drawn: Drawn, noises: Sequence[Tensor]) -> Tensor:
    """(K - 1,) numbers w for which mean + sqrt(variance) sum_k w_k eps_k comes nearest to the sample (least
    squares).
    """
    columns = torch.stack([(drawn.variance.sqrt() * noise).flatten() for noise in noises], 1)
    return torch.linalg.lstsq(columns, (drawn.sample - drawn.mean).flatten().unsqueeze(1)).solution.squeeze(1)


def explained(drawn: Drawn, guess: Tensor) -> float:
    """How much of the way from D's mean to the sample a guess goes: 1 all of it, 0 none (a share of squared
    distances).
    """
    return 1 - ((drawn.sample - guess).square().sum() / (drawn.sample - drawn.mean).square().sum()).item()


class Student(nn.Module):
    """One question to D, the noises, and a small network that says how much of each; until it is trained, as
    much as w says.

    Args:
        model: the teacher; only its denoiser is kept, and never trained. weights: from ``fit_weights``.
    """

    def __init__(self, model: DiffusionHyperprior, weights: Tensor) -> None:
        super().__init__()
        self.teacher = [model]  # in a list: not one of this module's parts
        self.register_buffer("weights", weights.detach().clone())
        M = model.config.M
        self.mix = nn.Conv2d(3 * M, WIDTH, 1)
        self.body = nn.Conv2d(WIDTH, WIDTH, 3, padding=1)
        self.exit = zero_init(nn.Conv2d(WIDTH, len(weights) * M, 1))

    def forward(self, decoder_state: DecoderState, noises: Sequence[Tensor]) -> Tensor:
        """A sample (B, M, h, w) from what the decoder knows and K - 1 noises."""
        model = self.teacher[0]
        first = draw(model, decoder_state, [])  # K = 1: D is asked once
        scale = decoder_state.scale.clamp(0.02, 50)
        ratio, told = (
            (decoder_state.symbols / scale).clamp(-5, 5),
            0.5 * first.variance.clamp(min=1e-6).log() - scale.log(),
        )
        h = F.leaky_relu(self.mix(torch.cat([ratio.abs(), told, scale.log2() / 4], 1)), 0.1)
        gains = self.exit(F.leaky_relu(self.body(h), 0.1)).chunk(len(self.weights), 1)
        parts = zip(self.weights, gains, noises, strict=True)
        return first.mean + first.variance.sqrt() * sum(
            (weight + gain) * noise for weight, gain, noise in parts
        )


def crop_batch(
    knowns: Sequence[DecoderState], number: int, *, count: int = BATCH, side: int = CROP
) -> DecoderState:
    """Batch ``number`` of an endless, reproducible stream of crops, (count, M, side, side), of photos coded
    with one lambda.
    """
    random, parts = np.random.default_rng(number), []
    for _ in range(count):
        decoder_state = knowns[random.integers(len(knowns))]
        top, left = (int(random.integers(length - side + 1)) for length in decoder_state.mean.shape[-2:])
        parts.append(decoder_state.window(slice(top, top + side), slice(left, left + side)))
    fields = ("symbols", "decoded", "mean", "scale", "log2_delta")
    joined = {name: torch.cat([getattr(part, name) for part in parts]) for name in fields}
    moments = tuple(torch.cat([part.moments[i] for part in parts]) for i in (0, 1))
    return replace(parts[0], **joined, moments=moments)


def train(student: Student, knowns: Sequence[DecoderState], steps: int, *, lr: float = 1e-3) -> list[float]:
    """Teach the student to draw what its teacher draws from the same noises; returns the unexplained share at
    each step.
    """
    model, losses = student.teacher[0], []
    optimiser = torch.optim.AdamW(student.parameters(), lr=lr)
    for step in range(steps):
        decoder_state = crop_batch(knowns, step)
        noises = noises_like(decoder_state, len(student.weights), 1000 + step)
        drawn = draw(model, decoder_state, noises)
        apart = (student(decoder_state, noises) - drawn.sample).square().sum()
        loss = apart / (drawn.sample - drawn.mean).square().sum()
        optimiser.param_groups[0]["lr"] = lr * (1 - step / steps)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return losses

"""The variants of `ablation.py`, each with its training and its measurement.

A variant is the codec of `dhp train` but for one thing, which it hands over as an argument: a model that is a
subclass, or another noise for the objective (``CodecObjective``).
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from time import perf_counter

import torch
from common import photos_of
from torch import Tensor, nn

from dhp_lab.codec.bits.bitstream import HEADER_BYTES
from dhp_lab.codec.denoising.decoder_state import SIGMA_Q
from dhp_lab.codec.latents import Latents
from dhp_lab.codec.model import CodecConfig, DiffusionHyperprior
from dhp_lab.codec.parts import CodecParts
from dhp_lab.core.files import write_atomic
from dhp_lab.core.seeding import temporary_seed
from dhp_lab.core.settings import choose_device
from dhp_lab.data.images import Picture, batches
from dhp_lab.evaluation.evaluate import evaluate
from dhp_lab.evaluation.measurements import Measurement, Point, average, measure
from dhp_lab.training.codec_config import TrainingConfig
from dhp_lab.training.codec_objective import CodecObjective
from dhp_lab.training.codec_trainer import Trainer
from dhp_lab.training.picture_draws import Noise, PictureDraws, normal_noise, uniform_noise

BASE, DENOISER = "mean-scale", "denoiser"
SPREADS = [2.0**octave for octave in range(-6, 4)]  # scales of the mixture, in spreads of the channel
LOGIT_RATE = 30.0  # the mixture's weights learn at so many times the learning rate
MINUTES_BETWEEN_SAVES = 2.0


# --------------------------------------------------------------------------------------------------- models


class Factorised(DiffusionHyperprior):
    """No hyperprior: each channel of y has one density for all pictures, a mixture of zero-mean Gaussians.

    It is a density of y itself; the probability of a symbol is the density's mass in its bin, Delta wide, so
    that one set of weights serves every lambda. z is still computed and has no effect: h_s starts at mean 0
    and gets no gradient. There is no entropy coder for it.
    """

    def __init__(self, config: CodecConfig, parts: CodecParts | None = None) -> None:
        super().__init__(config, parts)
        self.weight_logits = nn.Parameter(torch.zeros(config.M, len(SPREADS)))  # divided by LOGIT_RATE

    def likelihoods(self, latents: Latents, noise: Tensor | None = None) -> dict[str, Tensor]:
        """Probabilities of y's symbols, noisy in training as the package's are; z costs nothing."""
        delta = latents.log2_delta.exp2().view(-1, 1, 1, 1)
        y = delta * latents.symbols
        if self.training:
            noise = torch.rand_like(latents.y) - 0.5 if noise is None else noise
            y = latents.y + delta * noise
        spread = self.log2_spread.exp2().view(-1, 1, 1)
        weights = (LOGIT_RATE * self.weight_logits).softmax(1)  # (M, 10)
        mass = torch.zeros_like(y)
        for weight, scale in zip(weights.unbind(1), SPREADS, strict=True):
            mass = mass + weight.view(-1, 1, 1) * bin_mass(y.abs(), delta, scale * spread)
        return {"y": mass.clamp(min=1e-9), "z": torch.ones_like(latents.z)}

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """The mixture's weights are trained like the transforms."""
        groups = super().parameter_groups()
        return groups | {"transforms": [*groups["transforms"], self.weight_logits]}


def bin_mass(size: Tensor, width: Tensor, scale: Tensor) -> Tensor:
    """Mass of N(0, scale^2) in a bin around ``size`` >= 0, from the side where both tails are small."""
    above, below = (width / 2 - size) / scale, (-width / 2 - size) / scale
    return torch.special.ndtr(above) - torch.special.ndtr(below)


class ScaleOnly(DiffusionHyperprior):
    """The mean that h_s predicts stays at 0, where it starts: its half of the last layer gets no gradient."""

    def __init__(self, config: CodecConfig, parts: CodecParts | None = None) -> None:
        super().__init__(config, parts)
        for parameter in self.h_s.layers[-1].parameters():
            parameter.register_hook(without_first_half)

    def predicts_mean(self) -> bool:
        """Whether a mean was learnt all the same."""
        weight, bias = self.h_s.layers[-1].weight, self.h_s.layers[-1].bias
        return any(bool(tensor.chunk(2)[0].any()) for tensor in (weight, bias))


def without_first_half(gradient: Tensor) -> Tensor:
    """The gradient with zeros in its first half."""
    first, second = gradient.chunk(2)
    return torch.cat([torch.zeros_like(first), second])


# --------------------------------------------------------------------------------------------------- noises


def unit_uniform_noise(like: Tensor, draws: PictureDraws) -> Tensor:
    """Uniform noise of mean 0 and variance 1 in the shape of a batch."""
    return uniform_noise(like, draws) / SIGMA_Q


def noisy_residual(latents: Latents, draws: PictureDraws, noise: Noise) -> Tensor:
    """The residual plus noise of a rounding error's variance: what D is trained on in place of symbols."""
    residual = latents.residual
    return residual + SIGMA_Q * noise(residual, draws)


# ------------------------------------------------------------------------------------------------- variants


@dataclass(frozen=True)
class Variant:
    """What is trained and what is different in it.

    Attributes:
        title: as in the table.
        base: the variant whose codec is taken and frozen; None trains a codec.
        schedule, diffusion_steps, passes, dead_zone: of its ``CodecConfig``.
        steps: the K that are measured.
        model: the codec's class.
        chain_noise, denoiser_symbols: as for ``CodecObjective``.
    """

    title: str
    base: str | None = BASE
    schedule: str = "linear"
    diffusion_steps: int = 50
    passes: int = 1
    dead_zone: float = 0.0
    steps: tuple[int, ...] = (1, 4)
    model: type[DiffusionHyperprior] = DiffusionHyperprior
    chain_noise: Noise = normal_noise
    denoiser_symbols: partial | None = None

    @property
    def objective(self) -> partial:
        """What makes its loss, for ``Trainer``."""
        return partial(CodecObjective, chain_noise=self.chain_noise, denoiser_symbols=self.denoiser_symbols)


def codec(title: str, **different: object) -> Variant:
    """A variant that trains a codec, measured at K = 0."""
    return Variant(title, base=None, steps=(0,), **different)


UNIFORM_SYMBOLS = partial(noisy_residual, noise=unit_uniform_noise)
GAUSSIAN_SYMBOLS = partial(noisy_residual, noise=normal_noise)
VARIANTS = {
    "factorised": codec("no hyperprior", model=Factorised),
    "scale": codec("scale only", model=ScaleOnly),
    BASE: codec("mean + scale"),
    "dead-zone": codec("mean + scale, dead zone", dead_zone=0.35),
    "passes": codec("mean + scale, four passes", passes=4),
    DENOISER: Variant("+ denoiser (linear, 50)"),
    "cosine": Variant("cosine schedule", schedule="cosine"),
    "T-10": Variant("10 diffusion steps", diffusion_steps=10),
    "T-200": Variant("200 diffusion steps", diffusion_steps=200),
    "uniform-rounding": Variant("uniform noise for rounding", denoiser_symbols=UNIFORM_SYMBOLS),
    "gaussian-rounding": Variant("Gaussian noise for rounding", denoiser_symbols=GAUSSIAN_SYMBOLS),
    "uniform-chain": Variant("uniform noise in the chain", chain_noise=unit_uniform_noise),
}


# ---------------------------------------------------------------------------------- training and measurement


def new_model(variant: Variant, options: argparse.Namespace) -> DiffusionHyperprior:
    """The codec that a variant starts with: a new one, or its base's with another schedule."""
    config = CodecConfig(
        N=options.N,
        M=options.M,
        diffusion_steps=variant.diffusion_steps,
        schedule=variant.schedule,
        passes=variant.passes,
        dead_zone=variant.dead_zone,
    )
    with temporary_seed(options.seed):
        model = variant.model(config)
    if variant.base is not None:
        folder = options.work_dir / variant.base / "final_checkpoint"
        model.load_state_dict(DiffusionHyperprior.from_pretrained(folder).state_dict())
    model.update()
    return model


def train(name: str, options: argparse.Namespace) -> dict[str, float]:
    """Train a variant, from the start or from where it was stopped; return the seconds it took in all."""
    variant, folder = VARIANTS[name], options.work_dir / name
    state, seconds = folder / "last.safetensors", folder / "seconds.json"
    trains_codec = variant.base is None
    config = TrainingConfig(
        data_path=str(options.data_path),
        output_dir=str(folder),
        batch_size=options.batch_size,
        lr=options.lr,
        image_size=options.image_size,
        device=options.device,
        resume=state.exists(),
        seed=options.seed,
        minutes_between_saves=MINUTES_BETWEEN_SAVES,
    )
    lengths = (options.steps, 0, 0) if trains_codec else (0, options.steps, 0)
    model = new_model(variant, options)
    trainer = Trainer(config, model=model, objective=variant.objective, lengths=lengths)
    before = json.loads(seconds.read_text()) if seconds.exists() else 0.0
    begin = perf_counter()
    try:
        trainer.run()
    finally:
        total = before + perf_counter() - begin
        write_atomic(seconds, json.dumps(total).encode())
    state.unlink()  # hundreds of MB that nobody needs any more
    return {"seconds": total}


@torch.no_grad()
def estimates(
    model: Factorised, pictures: Iterator[Picture], options: argparse.Namespace, device: torch.device
) -> list[Measurement]:
    """Measure a variant that has no coder: its bits are -log2 of its likelihoods, and a header."""
    found = []
    for (name,), x in batches(pictures, 1):
        for rate in options.lambda_rates:
            out = model(x.to(device), rate, steps=0)
            bits = -out["likelihoods"]["y"].double().log2().sum().item()
            found.append(
                measure(
                    out["x_hat"].clamp(0, 1).cpu(),
                    x,
                    codec="K=0",
                    setting=rate,
                    picture=name,
                    n_bytes=HEADER_BYTES + math.ceil(bits / 8),
                    encode_seconds=0.0,
                    decode_seconds=0.0,
                )
            )
    return found


def rate_and_distortion(name: str, options: argparse.Namespace) -> list[Point]:
    """Return the averaged figures of a variant, one for each K and lambda."""
    variant, device = VARIANTS[name], choose_device(options.device)
    model = variant.model.from_pretrained(options.work_dir / name / "final_checkpoint").to(device)
    if isinstance(model, ScaleOnly) and model.predicts_mean():
        raise RuntimeError("the hyperprior of 'scale' has learnt a mean: its gradient was not held back")
    pictures = photos_of(options.eval_path)
    if isinstance(model, Factorised):
        return average(estimates(model, pictures, options, device))
    report = evaluate(
        model,
        pictures,
        lambda_rates=options.lambda_rates,
        steps=variant.steps,
        batch_size=1,
        device=device,
        codecs=(),
    )
    return [replace(point, codec=point.codec.removeprefix("dhp ")) for point in report.points]

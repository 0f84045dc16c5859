"""The jobs of `latent_cost.py`, each done in a process of its own: count, train, sample.

Every function imports what it needs: a process's memory is part of what is measured.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING

from common import set_threads, timed

if TYPE_CHECKING:
    from diffusers import AutoencoderKL
    from torch import nn

    from dhp_lab.latent.pipeline import LatentDiffusion

GUIDANCE = 4.0


def first_stage(name: str) -> AutoencoderKL:
    """Return a new first stage of the shipped kind."""
    from dhp_lab.training.scene_models import SCENE_MODELS

    return SCENE_MODELS[f"scenes-{name}"].first.network().eval()


def second_stage(name: str) -> LatentDiffusion:
    """Return a new pipeline: pixels are latents of a first stage that does nothing, with f = 1 and 3
    channels.
    """
    from dhp_lab.training.latent_diffusion import new_latent_diffusion
    from dhp_lab.training.scene_models import SCENE_MODELS

    if name != "pixels":
        return new_latent_diffusion(SCENE_MODELS[f"scenes-{name}"].second[0], first_stage(name))
    config = SCENE_MODELS["scenes-f4"].second[0]
    deeper = replace(
        config,
        widths=(*config.widths[:1] * 2, *config.widths),
        attention=(False, False, *config.attention),
    )
    identity = SimpleNamespace(block_out_channels=(3,), latent_channels=3)
    return new_latent_diffusion(deeper, SimpleNamespace(config=identity))


def parameters(network: nn.Module) -> int:
    """Return how many numbers are learnt."""
    return sum(p.numel() for p in network.parameters())


def operations(function: Callable[[], object]) -> int:
    """Return the multiplications and additions of a call.

    Attention is computed plainly, so that it is counted.
    """
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        function()
    return counter.get_total_flops()


def second_training_step(model: LatentDiffusion, count: int) -> Callable[[], None]:
    """Return a function that makes one training step of a second stage on noise in place of latents."""
    import torch

    from dhp_lab.data.scenes import batch
    from dhp_lab.diffusion.process import draw_times, noise_like, v_weight, weighted_loss

    tokens = model.tokens(batch(count, 0)[1])
    z = torch.randn(count, *model.latent_shape)
    networks = torch.nn.ModuleList([model.unet, model.text_encoder]).train()
    optimizer = torch.optim.AdamW(networks.parameters())

    def step() -> None:
        context = model.text_encoder(tokens).last_hidden_state
        t, eps = draw_times(model.schedule, z), noise_like(z)
        loss = weighted_loss(
            lambda z_t, t: model.eps(z_t, t, context), model.schedule, z, t, eps, weight=v_weight
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def first_training_step(model: AutoencoderKL, count: int) -> Callable[[], None]:
    """Return a function that makes one training step of a first stage."""
    import torch

    from dhp_lab.core.precision import autocast
    from dhp_lab.data.scenes import batch
    from dhp_lab.latent.autoencoders import autoencoder_loss

    x = batch(count, 0)[0].to(memory_format=torch.channels_last)
    model.train().to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(model.parameters())

    def step() -> None:
        with autocast(x.device):
            loss = autoencoder_loss(model, x)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def sampler(model: LatentDiffusion, count: int, steps: int) -> Callable[[], object]:
    """Return a function that draws latents."""
    from dhp_lab.data.scenes import batch
    from dhp_lab.diffusion.samplers import last

    captions = batch(count, 0)[1]
    return lambda: last(model.states(captions, steps=steps, guidance=GUIDANCE)).x


def decoder(model: LatentDiffusion, count: int) -> Callable[[], object]:
    """Return a function that decodes latents to pictures; pixels need no decoder."""
    import torch

    if isinstance(model.vae, SimpleNamespace):
        return lambda: None
    z = torch.zeros(count, *model.latent_shape)
    return lambda: model.pictures(z)


def count_second(options: argparse.Namespace) -> dict:
    """Count parameters and operations of a second stage."""
    import torch

    model = second_stage(options.model)
    z, t, context = torch.randn(1, *model.latent_shape), torch.ones(1), model.context(["a red circle"])
    with torch.no_grad():
        evaluation = operations(lambda: model.eps(z, t, context))
    return {
        "shape": list(model.latent_shape),
        "parameters": parameters(model.unet),
        "text_parameters": parameters(model.text_encoder),
        "evaluation": evaluation,
        "training": options.batch * operations(second_training_step(model, 1)),
        "decoder": operations(decoder(model, 1)),
    }


def train_second(options: argparse.Namespace) -> dict:
    """Time the training of a second stage."""
    model = second_stage(options.model)
    return with_memory(
        lambda: {"seconds": timed(second_training_step(model, options.batch), options.runs)[0]}
    )


def sample_second(options: argparse.Namespace) -> dict:
    """Time the drawing of pictures."""
    model = second_stage(options.model)

    def measure() -> dict:
        seconds, _ = timed(sampler(model, options.pictures, options.steps), options.runs)
        decoding, _ = timed(decoder(model, options.pictures), options.runs)
        return {"seconds": each(seconds, options), "decoder_seconds": each(decoding, options)}

    return with_memory(measure)


def count_first(options: argparse.Namespace) -> dict:
    """Count parameters and operations of a first stage."""
    import torch

    from dhp_lab.data.scenes import batch
    from dhp_lab.latent.autoencoders import decode, encode

    model, x = first_stage(options.model), batch(1, 0)[0]
    with torch.no_grad():
        z = encode(model, x)
        encoding = operations(lambda: encode(model, x))
        decoding = operations(lambda: decode(model, z))
    return {
        "parameters": parameters(model),
        "shape": list(z.shape[1:]),
        "encoder": encoding,
        "decoder": decoding,
        "training": options.batch * operations(first_training_step(model, 1)),
    }


def train_first(options: argparse.Namespace) -> dict:
    """Time the training of a first stage."""
    model = first_stage(options.model)
    return with_memory(lambda: {"seconds": timed(first_training_step(model, options.batch), options.runs)[0]})


def code_pictures(options: argparse.Namespace) -> dict:
    """Time a first stage's coding and decoding of pictures."""
    import torch

    from dhp_lab.data.scenes import batch
    from dhp_lab.latent.autoencoders import decode, encode

    model, x = first_stage(options.model), batch(options.pictures, 0)[0]

    def measure() -> dict:
        with torch.no_grad():
            encoding, z = timed(lambda: encode(model, x), options.runs)
            decoding, _ = timed(lambda: decode(model, z), options.runs)
        return {"encode_seconds": each(encoding, options), "decode_seconds": each(decoding, options)}

    return with_memory(measure)


def each(seconds: list[float], options: argparse.Namespace) -> list[float]:
    """Return the seconds of one picture."""
    return [one / options.pictures for one in seconds]


def with_memory(measure: Callable[[], dict]) -> dict:
    """Return what is measured, and the process's memory before and at its peak."""
    from dhp_lab.core.environment import peak_memory_mb

    idle = peak_memory_mb()
    found = measure()
    return {**found, "idle_memory_mb": idle, "peak_memory_mb": peak_memory_mb()}


STAGES = {
    "second": {"count": count_second, "train": train_second, "sample": sample_second},
    "first": {"count": count_first, "train": train_first, "sample": code_pictures},
}


def do_job(options: argparse.Namespace) -> dict:
    """Do one job in this process, and note what it depends on."""
    import torch

    from dhp_lab.core.environment import environment

    set_threads(options)
    torch.manual_seed(0)
    found = STAGES[options.stage][options.job](options)
    return {**found, "environment": environment(torch.device("cpu"))}

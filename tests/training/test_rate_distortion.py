"""The loss of the codec, by hand and at its start."""

from __future__ import annotations

import math

import pytest
import torch
from models import picture, woken

from dhp_lab.training.codec_objective import (
    MOST_BALANCED,
    REFERENCE,
    CodecObjective,
    rate_distortion,
)
from dhp_lab.training.picture_draws import PictureDraws, uniform_noise


def seeded(function, *arguments, seed: int = 0):
    """A result under a random state of its own."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return function(*arguments)


def test_loss_is_mse_plus_lambda_times_bpp():
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(2, 3, 32, 48, generator=generator)
    x_hat = x + 0.02 * torch.randn(2, 3, 32, 48, generator=generator)
    y, z = torch.rand(2, 8, 2, 3, generator=generator), torch.rand(2, 4, 1, 1, generator=generator)
    lambdas = [1e-4, 1e-2]
    losses = rate_distortion(x_hat, x, {"y": y, "z": z}, torch.tensor(lambdas))
    mse, bpp, total, psnr = [], [], [], []
    for i, value in enumerate(lambdas):
        bits = -sum(math.log2(p) for p in [*y[i].flatten().tolist(), *z[i].flatten().tolist()])
        mse.append(((x_hat[i] - x[i]).double() ** 2).mean().item())
        bpp.append(bits / (32 * 48))
        total.append(mse[i] + value * bpp[i])
        psnr.append(-10 * math.log10(mse[i]))
    assert losses["loss"].item() == pytest.approx(sum(total) / 2, rel=1e-5)
    assert losses["bpp"].item() == pytest.approx(sum(bpp) / 2, rel=1e-5)
    assert losses["psnr"].item() == pytest.approx(sum(psnr) / 2, rel=1e-5)
    weighted = [
        loss * math.sqrt(REFERENCE / value) / REFERENCE for loss, value in zip(total, lambdas, strict=True)
    ]
    assert losses["objective"].item() == pytest.approx(sum(weighted) / 2, rel=1e-5)
    assert max(weighted) < MOST_BALANCED
    z_bits = -sum(math.log2(p) for p in z.flatten().tolist()) / (2 * 32 * 48)
    assert losses["bpp of z"].item() == pytest.approx(z_bits, rel=1e-5)


def test_a_picture_that_costs_too_much_counts_as_one_that_costs_less():
    """The gradient of its loss over the loss, as if all of it were MOST_BALANCED."""
    x, one = torch.zeros(1, 3, 16, 16), torch.ones(1, 1, 1, 1)
    x_hat = torch.full_like(x, 0.5).requires_grad_()
    losses = rate_distortion(x_hat, x, {"y": one, "z": one}, torch.tensor([REFERENCE]))
    assert losses["objective"].item() == pytest.approx(MOST_BALANCED) and losses["loss"].item() == 0.25
    (found,) = torch.autograd.grad(losses["objective"], x_hat)
    wanted = MOST_BALANCED * 2 * 0.5 / x.numel() / 0.25
    assert torch.allclose(found, torch.full_like(x, wanted))


def test_the_codec_stage_decodes_with_k_of_zero():
    """The same random numbers, and the picture put together step by step from the model's parts."""
    model, x = woken().train(), picture(64, 64, count=2)
    losses = seeded(CodecObjective(model, 1e-3), x, "codec")

    def by_hand():
        draws = PictureDraws(0, torch.device("cpu"))
        latents = model.training_latents(x, torch.full((2,), 1e-3), lambda z: uniform_noise(z, draws))
        y_hat = (latents.symbols + latents.mean) * latents.log2_delta.exp2().view(-1, 1, 1, 1)
        x_hat = model.synthesise(y_hat, latents.log2_delta, (64, 64))
        noise = uniform_noise(latents.y, draws)
        return rate_distortion(x_hat, x, model.likelihoods(latents, noise), torch.full((2,), 1e-3))

    expected = seeded(by_hand)
    assert {name: value.item() for name, value in losses.items()} == {
        name: value.item() for name, value in expected.items()
    }

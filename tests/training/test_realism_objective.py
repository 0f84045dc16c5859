"""The realism denoiser's losses, with small made networks: closed forms, gradients, determinism."""

from __future__ import annotations

import pytest
import torch
from made_networks import made_trunk
from models import picture, woken

from dhp_lab.codec.denoising.residual_sampling import ResidualSampler, residual_schedule
from dhp_lab.codec.denoising.residual_unet import ResidualUNet, pixel_scale
from dhp_lab.metrics.perceptual import LPIPS
from dhp_lab.training.realism_objective import (
    Judges,
    RealismObjective,
    RealismWeights,
    decoded,
    wasserstein_distortion,
)


@pytest.fixture(scope="module")
def codec():
    return woken(M=40).requires_grad_(False)


def objective(codec, *, judged: bool = True, **weights) -> RealismObjective:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = ResidualUNet((8, 12, 16))
        torch.nn.init.normal_(network.exit.weight, std=0.05)
    trunks = [LPIPS(name, made_trunk(name, 3, 16)) for name in ("alexnet", "vgg16")]
    sampler = ResidualSampler(network, residual_schedule())
    return RealismObjective(codec, sampler, Judges(*trunks) if judged else None, RealismWeights(**weights))


def test_the_denoising_loss_of_white_residuals_is_one(codec):
    """An untrained network is the posterior mean of unit variance: E[(D - r)^2] = sigma^2 / (1 + sigma^2)."""
    task, x = objective(codec, judged=False), picture(128, 128, count=4)
    torch.nn.init.zeros_(task.network.exit.weight)
    conditions = decoded(codec, x, torch.full((4,), 1e-2))
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(3))
    white = conditions.picture + pixel_scale(conditions.errors) * noise
    with torch.no_grad():
        losses = [task.denoising_loss(white, conditions).item() for _ in range(20)]
    assert sum(losses) / 20 == pytest.approx(1, rel=0.02)


def test_what_the_decoder_is_given_is_k_1(codec):
    x = picture(64, 128, count=2)
    conditions = decoded(codec, x, torch.tensor([1e-2, 1e-3]))
    latents = codec.training_latents(x, torch.tensor([1e-2, 1e-3]))
    y_hat = codec.sampler.sample(codec.decoder_state(latents), steps=1)
    wanted = codec.synthesise(y_hat, latents.log2_delta, (64, 128))
    assert torch.allclose(conditions.picture, wanted, atol=1e-4)
    assert conditions.errors.shape[-2:] == (4, 8) and torch.equal(conditions.log2_delta, latents.log2_delta)


def test_pictures_are_drawn_in_two_steps_and_in_four(codec, monkeypatch):
    task, x, counts = objective(codec), picture(64, 64), []
    conditions = decoded(codec, x, torch.tensor([1e-2]))

    def draw(sampler, conditions, noise, *, steps):
        counts.append(steps)
        return conditions.picture

    monkeypatch.setattr(ResidualSampler, "draw", draw)
    for _ in range(30):
        task.drawn_losses(x, conditions)
    assert set(counts) == {2, 4} and counts.count(2) > counts.count(4)


def test_the_objective_is_the_weighted_sum_and_reaches_the_network_alone(codec):
    task, x = objective(codec, statistics=0.3, lpips=2.0, mse=0.7, denoising=0.2), picture(128, 128, count=2)
    losses = task(x)
    names = {"statistics": 0.3, "lpips": 2.0, "mse": 0.7, "denoising": 0.2}
    assert losses["objective"].item() == pytest.approx(
        sum(weight * losses[name].item() for name, weight in names.items()), rel=1e-5
    )
    losses["objective"].backward()
    assert all(bool(p.grad.any()) for p in task.network.parameters())
    assert all(p.grad is None for p in codec.parameters())


def test_a_seed_gives_the_same_losses(codec):
    x = picture(128, 128, count=2)
    first, second = (objective(codec)(x)["objective"].item() for _ in range(2))
    assert first == second


def test_without_judges_there_is_the_denoising_loss_alone(codec):
    losses = objective(codec, judged=False)(picture(64, 64, count=2))
    assert set(losses) == {"objective", "denoising"} and losses["objective"] == losses["denoising"]


# Wasserstein distortion


def layers(seed: int, spread: float = 1.0, mean: float = 0.0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [mean + spread * torch.randn(2, 5, side, side, generator=generator) for side in (256, 128)]


def test_equal_pictures_have_no_distance():
    assert wasserstein_distortion(layers(0), layers(0)).item() == 0


def test_textures_of_the_same_statistics_are_nearly_equal_and_others_are_not():
    """Two draws of one noise, against squared error, which is 2 for them; then other means and deviations."""
    same = wasserstein_distortion(layers(0), layers(1)).item()
    assert same < 0.08
    for spread, mean in ((1.5, 0.0), (1.0, 0.5)):
        found = wasserstein_distortion(layers(0, spread, mean), layers(1)).item()
        assert found - same == pytest.approx(2 * 0.25, rel=0.2), "(1.5 - 1)^2, (0.5)^2, in two layers"

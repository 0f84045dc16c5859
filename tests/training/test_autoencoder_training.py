"""Short runs on coloured blobs: they repeat themselves, they learn, their codes are used; what is refused."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from diffusers import AutoencoderKL, VQModel
from oracles import largest, seeded
from torch import Tensor

from dhp_lab.latent.autoencoders import (
    codebook_use,
    decode,
    encode,
    load_autoencoder,
    save_autoencoder,
    scale_factor,
    vq_autoencoder,
)
from dhp_lab.training import autoencoder as autoencoder_training
from dhp_lab.training.autoencoder import AutoencoderConfig, restart_unused, train_autoencoder

TINY = AutoencoderConfig(f=2, widths=(8, 8), training_steps=2, batch_size=4)
SHORT = AutoencoderConfig(f=4, widths=(16, 16, 16), training_steps=250, batch_size=4, lr=2e-3, average=0.9)
SIDE = 32


def blobs(count: int, seed: int) -> Tensor:
    """A coloured disc with soft edges on a background of another colour: (count, 3, 32, 32)."""
    generator = seeded(seed)
    colours = torch.rand(2, count, 3, 1, 1, generator=generator)
    centre, radius = (
        torch.rand(2, count, 1, 1, generator=generator) * SIDE,
        4 + 8 * torch.rand(count, 1, 1, generator=generator),
    )
    grid = torch.arange(SIDE) + 0.5
    distance = ((grid - centre[0]) ** 2 + (grid[:, None] - centre[1]) ** 2).sqrt()  # (count, 32, 32)
    inside = (radius - distance + 0.5).clamp(0, 1)[:, None]
    return inside * colours[0] + (1 - inside) * colours[1]


@pytest.fixture(autouse=True)
def few_pictures_for_the_scale(monkeypatch):
    monkeypatch.setattr(autoencoder_training, "SCALE_PICTURES", 32)


def equal(a, b) -> bool:
    return all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


# the loop


@pytest.mark.parametrize("codes, kind", [(0, AutoencoderKL), (8, VQModel)])
def test_a_run_repeats_itself_and_leaves_the_global_generator_alone(codes, kind):
    config = replace(TINY, codes=codes)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = train_autoencoder(config, blobs)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(7)
    assert equal(first, train_autoencoder(config, blobs)) and not equal(
        first, train_autoencoder(replace(config, seed=1), blobs)
    )
    assert type(first) is kind and not first.training and not any(p.requires_grad for p in first.parameters())


def test_pictures_are_drawn_with_ever_other_seeds():
    requests, reports = [], []
    train_autoencoder(
        replace(TINY, training_steps=3),
        lambda count, seed: requests.append((count, seed)) or blobs(count, seed),
        progress=lambda step, losses: reports.append((step, sorted(losses))),
    )
    assert [count for count, _ in requests] == [4, 4, 4, 32] and len({seed for _, seed in requests}) == 4
    assert reports == [(step, ["edges", "kl", "loss", "reconstruction"]) for step in (1, 2, 3)]


@pytest.mark.slow
@pytest.mark.parametrize("codes", [0, 64])
def test_a_short_run_learns_four_pictures(codes, tmp_path):
    """The loss falls to a fifth, and the pictures are nearer by half than the best that one colour for each
    could be.

    What a whole run learns is tested on the shipped first stages, in ``test_scene_models.py``.
    """
    x, losses = blobs(4, seed=7), []
    model = train_autoencoder(
        replace(SHORT, codes=codes),
        lambda count, seed: x.repeat(count // 4, 1, 1, 1),
        progress=lambda step, parts: losses.append(parts["loss"]),
    )
    assert len(losses) == SHORT.training_steps and sum(losses[-5:]) < 0.2 * sum(losses[:5])
    x_hat = decode(model, encode(model, x))
    flat = x.flatten(2).median(2).values[..., None, None]  # no constant has a smaller L1
    assert (x_hat - x).abs().mean() < 0.5 * (flat - x).abs().mean()
    assert model.config.scaling_factor == pytest.approx(scale_factor(model, x), rel=1e-3)
    if codes:
        assert codebook_use(model, x).used > codes / 4 and codebook_use(model, x).perplexity > 8
    save_autoencoder(tmp_path, model)
    assert load_autoencoder(tmp_path).config.scaling_factor == model.config.scaling_factor


# restarts


def test_unused_codes_move_onto_latents_and_used_ones_stay():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        models = [vq_autoencoder(2, codes=6, widths=(8, 8)) for _ in range(2)]
    x = blobs(2, seed=0)
    latents = encode(models[0], x).detach().movedim(1, -1).flatten(0, 2)
    codes = torch.full((6, 4), 100.0)
    codes[2] = latents.mean(0)  # the only one that is near
    for model in models:
        model.quantize.embedding.weight.data = codes.clone()
    assert codebook_use(models[0], x).used == 1
    assert restart_unused(models, x, generator=seeded()) == 5
    moved = models[0].quantize.embedding.weight.detach()
    assert torch.equal(moved[2], codes[2]) and torch.equal(moved, models[1].quantize.embedding.weight)
    nearest = torch.cdist(moved[[0, 1, 3, 4, 5]], latents, compute_mode="donot_use_mm_for_euclid_dist").amin(
        1
    )
    assert largest(nearest) < 1e-5 and codebook_use(models[0], x).used > 3


@pytest.mark.parametrize("steps, restarted", [(1, [1]), (5, [1, 3]), (6, [1, 3]), (9, [1, 3, 5])])
def test_codes_restart_in_the_first_half_of_a_run(monkeypatch, steps, restarted):
    done, found = [], []
    monkeypatch.setattr(autoencoder_training, "RESTART_EVERY", 2)
    monkeypatch.setattr(
        autoencoder_training, "restart_unused", lambda *args, **settings: found.append(len(done) + 1)
    )
    train_autoencoder(
        replace(TINY, codes=8, training_steps=steps), blobs, progress=lambda step, losses: done.append(step)
    )
    assert found == restarted


# what is refused


@pytest.mark.parametrize(
    "change, message",
    [
        ({"f": 3}, "f must be one of 2, 4, 8, 16, got 3"),
        ({"widths": (8,)}, r"f = 8 needs 4 widths, multiples of 8, got \(8,\)"),
        ({"codes": -1}, "codes must be at least 0, got -1"),
        ({"training_steps": 0}, "training_steps must be at least 1, got 0"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"kl_weight": -1.0}, "kl_weight must be finite and .*got -1"),
        ({"edge_weight": math.inf}, "edge_weight must be finite .*got inf"),
        ({"commitment": math.nan}, "commitment .*got nan"),
        ({"lr": 0.0}, r"lr must lie in \(0, 1\) .*got 0 and 0.999"),
        ({"average": 1.0}, "got 0.001 and 1"),
    ],
)
def test_a_configuration_outside_its_range_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        AutoencoderConfig(**change).network()


@pytest.mark.parametrize(
    "batches, message",
    [
        (
            lambda count, seed: (blobs(count, seed), ["a blob"]),
            "must return pictures alone, 4 of them, in a tensor; got a tuple",
        ),
        (lambda count, seed: blobs(3, seed), "4 of them, in a tensor; got 3"),
        (lambda count, seed: blobs(count, seed) * 255, r"pictures must lie in \[0, 1\]"),
        (lambda count, seed: blobs(count, seed)[..., :31], "multiples of 2, got"),
    ],
)
def test_pictures_that_do_not_fit_are_refused(batches, message):
    with pytest.raises(ValueError, match=message):
        train_autoencoder(TINY, batches)


def test_a_loss_that_is_no_number_stops_the_run():
    """A weight that no float32 holds makes it infinite."""
    checkered = (torch.arange(16) + torch.arange(16)[:, None]) % 2
    with pytest.raises(ValueError, match="the loss is inf at step 1; try a smaller lr than 0.001"):
        train_autoencoder(
            replace(TINY, edge_weight=3e38), lambda count, seed: checkered.expand(count, 3, 16, 16).float()
        )

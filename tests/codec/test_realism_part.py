"""The realism part of a codec: the pictures that it draws, and that the codec stays as it is."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from models import picture, woken
from oracles import largest
from realism_codecs import SIZE, codec

from dhp_lab.codec.denoising.expected_error import expected_errors
from dhp_lab.codec.denoising.residual_sampling import START, ResidualSampler, residual_schedule
from dhp_lab.codec.denoising.residual_unet import Conditions, pixel_scale
from dhp_lab.codec.entropy_coding import decode_latents
from dhp_lab.codec.model import REALISM_TILE, DiffusionHyperprior
from dhp_lab.codec.networks.tiling import SMALL_TILE
from dhp_lab.training.optimisation import EMA


@pytest.fixture(scope="module")
def model() -> DiffusionHyperprior:
    return codec()


@pytest.fixture(scope="module")
def coded(model) -> dict:
    return model.compress(picture(*SIZE, count=2), 1e-2)


def decode(model: DiffusionHyperprior, coded: dict, **settings) -> torch.Tensor:
    return model.decompress(coded["strings"], coded["shape"], **settings)["x_hat"]


# the codec does not change


def test_neither_bytes_nor_pictures_of_the_codec_change(model, coded):
    plain, x = woken(N=4, M=24), picture(*SIZE, count=2)
    assert plain.compress(x, 1e-2) == coded
    for steps in (0, 1):
        assert torch.equal(decode(plain, coded, steps=steps), decode(model, coded, steps=steps))
        assert torch.equal(plain(x, 1e-2, steps=steps)["x_hat"], model(x, 1e-2, steps=steps)["x_hat"])
    assert largest(decode(plain, coded, steps=2) - decode(model, coded, steps=2)) > 1e-3


def test_it_is_no_part_of_what_a_codec_is_trained_as(model):
    plain = woken(N=4, M=24)
    assert list(model.state_dict()) == list(plain.state_dict())
    names = [[name for name, _ in one.named_parameters()] for one in (model, plain)]
    assert names[0] == names[1]
    groups = [{k: len(v) for k, v in one.parameter_groups().items()} for one in (model, plain)]
    assert groups[0] == groups[1]
    assert not any(module is model.realism for module in model.modules())
    twin = copy.deepcopy(model).requires_grad_(False).train()
    assert all(p.requires_grad for p in twin.realism.parameters()) and not twin.realism.training
    twin.load_state_dict(plain.state_dict())


def test_a_copy_has_a_copy_of_it(model, coded):
    """As the EMA of a training makes one."""
    average = EMA(model, 0.9).average
    for p, q in zip(average.realism.parameters(), model.realism.parameters(), strict=True):
        assert torch.equal(p, q) and p.data_ptr() != q.data_ptr()
    assert torch.equal(decode(average, coded, steps=2), decode(model, coded, steps=2))


def test_it_moves_with_the_codec():
    model = codec().to("meta")
    assert {p.device.type for p in (*model.parameters(), *model.realism.parameters())} == {"meta"}
    with pytest.raises(ValueError, match="a codec stays in float32"):
        codec().half()
    unet = codec().to(memory_format=torch.channels_last).realism
    assert unet.to_b.weight.is_contiguous(memory_format=torch.channels_last)


def test_low_memory_makes_its_tiles_small():
    model = codec()
    assert model.realism_sampler.tile == REALISM_TILE
    assert model.low_memory().realism_sampler.tile == SMALL_TILE


# what it draws


@torch.no_grad()
@pytest.mark.parametrize("steps", [2, 3])
@pytest.mark.parametrize("dead_zone", [0.0, 0.3])
def test_a_drawn_picture_is_the_samplers_on_the_picture_of_one_step(steps, dead_zone):
    model = codec(dead_zone=dead_zone)
    coded = model.compress(picture(*SIZE), 1e-2)
    state = decode_latents(model, coded["strings"], SIZE)
    y_hat = model.sampler.sample(state, steps=1)
    decoded = torch.cat([model.g_s(y_hat, state.log2_delta, model.log2_spread.exp2())])
    assert decoded.shape == (1, 3, 64, 80)
    conditions = Conditions(decoded, expected_errors(state, dead_zone), state.log2_delta)
    sampler = ResidualSampler(model.realism, residual_schedule())
    for gamma, seed in ((0.0, 0), (0.25, 7)):
        drawn = sampler.sample(conditions, steps=steps, gamma=gamma, seed=seed)[..., :50, :70]
        assert torch.equal(decode(model, coded, steps=steps, gamma=gamma, seed=seed), drawn.clamp(0, 1))


@torch.no_grad()
@pytest.mark.parametrize("size", [(16, 16), (17, 31), (64, 64), (100, 77)])
def test_forward_is_compress_and_decompress(model, size):
    x = picture(*size)
    coded, out = model.compress(x, 1e-2), model(x, 1e-2, steps=2)
    assert out["x_hat"].shape == x.shape
    assert torch.equal(decode(model, coded, steps=2), out["x_hat"].clamp(0, 1))
    assert torch.equal(out["y_hat"], model(x, 1e-2, steps=1)["y_hat"])


def test_seeds_and_gamma(model, coded):
    first, again, other = (decode(model, coded, steps=2, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first, again) and largest(first - other) > 1e-3
    for steps in (2, 5):
        assert torch.equal(decode(model, coded, steps=steps, gamma=1.0), decode(model, coded, steps=1))
    with pytest.raises(ValueError, match="steps must lie in 0 .. 1000, got 1001"):
        decode(model, coded, steps=1001)


def test_each_picture_is_the_same_in_any_batch(model, coded, in_float32):
    together = decode(model, coded, steps=3, seed=5)
    for i in range(2):
        alone = {"strings": [part[i : i + 1] for part in coded["strings"]], "shape": SIZE}
        assert largest(decode(model, alone, steps=3, seed=5)[0] - together[i]) < 1e-5


def test_previews_are_drawn_in_the_latents(model, coded, in_float32):
    """Also beside whole pictures in one batch."""
    plain, (y, z, side) = woken(N=4, M=24), coded["strings"]
    preview = {"strings": [[None, None], z, side], "shape": SIZE}
    expected = decode(plain, preview, steps=2, seed=1)
    assert torch.equal(decode(model, preview, steps=2, seed=1), expected)
    mixed = decode(model, {"strings": [[y[0], None], z, side], "shape": SIZE}, steps=2, seed=1)
    assert largest(mixed[0] - decode(model, coded, steps=2, seed=1)[0]) < 1e-5
    assert largest(mixed[1] - expected[1]) < 1e-5


@torch.no_grad()
def test_tiles_leave_no_seam(in_float32):
    model = codec()
    coded = model.compress(picture(16, 400), 1e-2)
    whole = decode(model, coded, steps=2)
    model.tile = 12
    assert largest(decode(model, coded, steps=2) - whole) < 1e-4 < largest(whole - decode(model, coded))


@torch.no_grad()
def test_an_untrained_part_draws_white_noise_as_strong_as_the_expected_error():
    """Its prior is white noise of variance 1 in units of e; how much of it a chain from START draws is in the
    sampler's tests.
    """
    model = codec(awake=False)
    coded = model.compress(0.3 + 0.4 * picture(192, 256), 3e-3)
    state = decode_latents(model, coded["strings"], coded["shape"])
    drawn = decode(model, coded, steps=50) - decode(model, coded)
    noise = drawn / pixel_scale(expected_errors(state, 0.0))
    assert noise.std().item() == pytest.approx(START / math.sqrt(1 + START**2), rel=0.05)
    assert abs(noise.mean().item()) < 4 / math.sqrt(noise.numel())
    neighbours = (noise[..., 1:] * noise[..., :-1]).mean().item() / noise.square().mean().item()
    assert abs(neighbours) < 4 / math.sqrt(noise.numel())

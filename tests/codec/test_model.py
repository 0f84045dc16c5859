"""The codec as a whole: what is decoded is what was coded, for any picture, rate, size, batch and process."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from models import M, N, parts, picture, untrained, woken
from oracles import largest
from scipy.stats import norm

from dhp_lab.codec.bits.bitstream import BitstreamError
from dhp_lab.codec.bits.lambdas import lambda_code, lambda_of
from dhp_lab.codec.denoising.decoder_state import SIGMA_Q
from dhp_lab.codec.effort import optimise_latents
from dhp_lab.codec.entropy_coding import decode_latents
from dhp_lab.codec.model import DiffusionHyperprior
from dhp_lab.codec.networks.gain import quantisation_sigma

SIZES = [(16, 16), (17, 31), (64, 64), (100, 77), (131, 200)]
LAMBDAS = (1e-1, 1e-2, 1e-3, 1e-4, 1e-6)


def size(coded: dict) -> int:
    return sum(len(s) for strings in coded["strings"] for s in strings)


@pytest.fixture(scope="module")
def model() -> DiffusionHyperprior:
    return woken()


@pytest.fixture(scope="module")
def z_model() -> DiffusionHyperprior:
    return woken(transmit="z")


@pytest.fixture(scope="module")
def coded(model) -> dict:
    return model.compress(picture(64, 96), 1e-3)


# what is decoded is what was coded


@torch.no_grad()
@pytest.mark.parametrize("height, width", SIZES)
def test_forward_is_compress_and_decompress_to_the_last_bit(model, height, width):
    x = picture(height, width)
    coded = model.compress(x, 1e-3)
    assert coded["shape"] == (height, width)
    for steps in (0, 1, 3):
        decoded = model.decompress(coded["strings"], coded["shape"], steps=steps)["x_hat"]
        assert decoded.shape == x.shape and decoded.dtype == torch.float32
        assert decoded.min() >= 0 and decoded.max() <= 1
        assert torch.equal(decoded, model(x, 1e-3, steps=steps)["x_hat"].clamp(0, 1))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_pixels_that_are_no_numbers_are_refused_by_their_place(value):
    model, x = woken(passes=2), picture(32, 48).expand(2, -1, -1, -1).clone()
    x[1, 2, 5, 7] = x[1, 2, 9, 0] = value
    message = f"2 of {x.numel()} are not: the first is {value} in picture 1, channel 2, row 5, column 7"
    for call in (model, model.compress):
        with pytest.raises(ValueError, match=message):
            call(x)
    with pytest.raises(ValueError, match="the first is .* in picture 0, channel 2, row 5, column 7"):
        optimise_latents(model, x[1:], 1e-3, effort=1)


@torch.no_grad()
@pytest.mark.parametrize("lambda_rate", LAMBDAS)
@pytest.mark.parametrize("kind", ["flat", "noise", "saturated"])
def test_odd_pictures_at_extreme_rates(model, kind, lambda_rate):
    random = torch.rand(1, 3, 48, 33, generator=torch.Generator().manual_seed(0))
    x = {"flat": torch.full_like(random, 0.3), "noise": random, "saturated": (random > 0.5).float()}[kind]
    coded = model.compress(x, lambda_rate)
    decoded = model.decompress(coded["strings"], coded["shape"])["x_hat"]
    assert torch.equal(decoded, model(x, lambda_rate)["x_hat"].clamp(0, 1)) and bool(decoded.isfinite().all())


@torch.no_grad()
@pytest.mark.parametrize("lambda_rate", [1e-6, 1e-5, 1e-4])
def test_with_all_channels_the_error_is_that_of_rounding(lambda_rate):
    """Orthonormal transforms and a uniform quantiser: the picture's MSE is Delta^2/12 (2 % is four standard
    errors).
    """
    model, x = (
        untrained(N=4, M=768),
        0.1 + 0.8 * torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(0)),
    )
    model.log2_spread.clamp_(min=-4)  # white noise: every channel is as strong
    coded = model.compress(x, lambda_rate)
    error = model.decompress(coded["strings"], coded["shape"], steps=0)["x_hat"] - x
    assert error.square().mean().item() == pytest.approx(
        quantisation_sigma(model.step_size(lambda_rate)) ** 2, rel=0.02
    )


@torch.no_grad()
@pytest.mark.parametrize("loud", [M, 5, 0])
def test_channels_that_the_hyperprior_calls_silent_are_not_sent(loud):
    """Their symbols are zero on both sides, even where the picture says otherwise; with none left y is empty
    and still known.
    """
    codec, x = woken(), picture(64, 96)
    codec.log2_spread[loud:] = -30
    coded = codec.compress(x, 1e-3)
    assert (parts(coded)[0] == b"") == (loud == 0)
    decoder_state = decode_latents(codec, coded["strings"], coded["shape"])
    assert bool(decoder_state.decoded.all()) and not decoder_state.symbols[:, loud:].any()
    assert bool(decoder_state.symbols[:, :loud].any()) == (loud > 0)
    for steps in (0, 1, 3):
        decoded = codec.decompress(coded["strings"], coded["shape"], steps=steps)["x_hat"]
        assert torch.equal(decoded, codec(x, 1e-3, steps=steps)["x_hat"].clamp(0, 1))


def test_larger_lambdas_give_smaller_files(model):
    x, codec = picture(96, 96), untrained()
    lambdas = [lambda_of(code) for code in range(lambda_code(1e-6), lambda_code(1e-1), 2048)]
    sizes = [size(codec.compress(x, value)) for value in lambdas]
    assert (
        all(more > fewer for more, fewer in zip(sizes, sizes[1:], strict=False)) and sizes[0] > 5 * sizes[-1]
    )
    assert size(model.compress(x, 1e-2)) < size(model.compress(x, 1e-3)) < size(model.compress(x, 1e-4))


def mixture_cost() -> float:
    """Bits for each number of a standard Gaussian that is coded as 0.8 N(0, 0.8^2) + 0.2 N(0, 1.5^2)."""
    x = np.linspace(-12, 12, 24001)
    mixture = 0.8 * norm.pdf(x, scale=0.8) + 0.2 * norm.pdf(x, scale=1.5)
    return float((norm.pdf(x) * np.log2(norm.pdf(x) / mixture)).sum() * (x[1] - x[0]))


@torch.no_grad()
@pytest.mark.parametrize("lambda_rate", [1e-5, 1e-4, 1e-3])
def test_likelihoods_estimate_the_bytes(lambda_rate):
    """White Gaussian noise, and a prior of its scale: the bytes, the estimate and log2(sigma sqrt(2 pi e) /
    Delta) agree, with what the mixture costs where a Gaussian would be right.
    """
    model, noise = (
        untrained(N=4, M=768),
        torch.randn(1, 3, 96, 128, generator=torch.Generator().manual_seed(0)),
    )
    model.log2_spread.fill_(math.log2(0.1))
    x, delta = 0.5 + 0.1 * noise, model.step_size(lambda_rate)
    coded, likelihoods = model.compress(x, lambda_rate), model(x, lambda_rate)["likelihoods"]
    for name, stream in zip("yz", coded["strings"], strict=False):
        bits = -likelihoods[name].log2().sum().item()
        assert abs(8 * len(stream[0]) - bits) < 0.01 * bits + 64, "within 1 % and the coder's 8 bytes"
    if delta < 0.1:
        fine = x.numel() * (math.log2(0.1 * math.sqrt(2 * math.pi * math.e) / delta) + mixture_cost())
        assert 8 * len(parts(coded)[0]) == pytest.approx(fine, rel=0.01)


def test_forward_returns_what_compressai_models_return(model):
    out = model(picture(64, 80), 1e-3)
    assert set(out) == {"x_hat", "y", "y_hat", "z", "scales_hat", "likelihoods"}
    assert (
        out["y"].shape
        == out["y_hat"].shape
        == out["scales_hat"].shape
        == out["likelihoods"]["y"].shape
        == (1, M, 4, 5)
    )
    assert out["z"].shape == out["likelihoods"]["z"].shape == (1, N, 1, 2)
    assert bool((out["scales_hat"] > 0).all())


# batches


def test_a_batch_is_coded_as_its_pictures_are(model, in_float32):
    x = picture(50, 70, count=3)
    together, alone = model.compress(x, 1e-3), [model.compress(x[i : i + 1], 1e-3) for i in range(3)]
    for k in range(3):
        assert together["strings"][k] == [one["strings"][k][0] for one in alone]


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_a_batch_is_decoded_as_its_pictures_are(model, in_float32, steps):
    """Symbols are the same whatever the batch; the pictures differ by float32 rounding only, also in what K =
    3 draws.
    """
    coded = model.compress(picture(50, 70, count=3), 1e-3)
    together = decode_latents(model, coded["strings"], coded["shape"])
    x_hat = model.decompress(coded["strings"], coded["shape"], steps=steps)["x_hat"]
    for i in range(3):
        strings = [part[i : i + 1] for part in coded["strings"]]
        alone = decode_latents(model, strings, coded["shape"])
        assert torch.equal(alone.symbols[0], together.symbols[i]) and torch.equal(
            alone.scale[0], together.scale[i]
        )
        assert largest(model.decompress(strings, coded["shape"], steps=steps)["x_hat"][0] - x_hat[i]) < 1e-5


@pytest.mark.parametrize("steps", [0, 1, 2])
def test_a_batch_may_mix_rates_and_previews(model, in_float32, steps):
    """Each picture's side carries its own lambda."""
    x = picture(48, 48, count=2)
    fine, coarse = model.compress(x[:1], 1e-4), model.compress(x[1:], 1e-2)
    strings = [a + b for a, b in zip(fine["strings"], coarse["strings"], strict=True)]
    mixed = model.decompress([[strings[0][0], None], *strings[1:]], (48, 48), steps=steps)["x_hat"]
    assert largest(mixed[0] - model.decompress(fine["strings"], (48, 48), steps=steps)["x_hat"][0]) < 1e-5
    preview = model.decompress([[None], *coarse["strings"][1:]], (48, 48), steps=steps)["x_hat"]
    assert largest(mixed[1] - preview[0]) < 1e-5


# K, gamma, seed


def test_k_changes_the_picture_and_seeds_matter_from_two_on(model, coded):
    def decode(**settings):
        return model.decompress(coded["strings"], coded["shape"], **settings)["x_hat"]

    pictures = [decode(steps=steps) for steps in (0, 1, 2, 3, 10)]
    assert all(largest(a - b) > 1e-4 for i, a in enumerate(pictures) for b in pictures[:i])
    for steps in (0, 1):
        assert torch.equal(decode(steps=steps, seed=1), decode(steps=steps, seed=2))
    assert torch.equal(decode(steps=3, seed=1), decode(steps=3, seed=1))
    assert largest(decode(steps=3, seed=1) - decode(steps=3, seed=2)) > 1e-4
    assert torch.equal(decode(), decode(steps=1, gamma=0.0, seed=0)), "the defaults"


def test_gamma_blends_from_the_sample_to_the_posterior_mean(model, coded):
    decoder_state = decode_latents(model, coded["strings"], coded["shape"])
    with torch.no_grad():
        sample, blend, mean = (
            model.sampler.sample(decoder_state, steps=4, gamma=gamma, seed=3) for gamma in (0.0, 0.25, 1.0)
        )
        assert torch.equal(mean, model.sampler.sample(decoder_state, steps=1))
        assert largest(blend - (0.75 * sample + 0.25 * mean)) < 1e-6 and largest(sample - mean) > 1e-3


def test_decoding_leaves_the_global_random_state_alone(model, coded):
    before = torch.get_rng_state()
    model.decompress(coded["strings"], coded["shape"], steps=3)
    assert torch.equal(torch.get_rng_state(), before)


def test_k_of_zero_is_the_plain_hyperprior(model, coded):
    decoder_state = decode_latents(model, coded["strings"], coded["shape"])
    delta = model.step_size(1e-3)
    assert (
        largest(
            model.sampler.sample(decoder_state, steps=0)
            - delta * (decoder_state.symbols + decoder_state.mean)
        )
        < 1e-6
    )


def test_an_untrained_denoiser_moves_each_latent_inside_its_bin():
    model = untrained()
    coded = model.compress(picture(64, 64), 1e-3)
    decoder_state, delta = decode_latents(model, coded["strings"], coded["shape"]), model.step_size(1e-3)
    sent = decoder_state.symbols != 0
    with torch.no_grad():
        moved = (
            model.sampler.sample(decoder_state, steps=1) - model.sampler.sample(decoder_state, steps=0)
        ) / delta
    assert largest(moved[sent]) <= 0.5 + 1e-5 and bool(
        (moved[sent] * decoder_state.symbols[sent] <= 0).all()
    ), "towards the mean"


# lambda -> Delta -> sigma_q -> t*


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_start_time_is_where_the_schedule_has_the_quantisers_noise(schedule):
    model = untrained(schedule=schedule, diffusion_steps=50)
    times = [model.start_time(model.step_size(value)) for value in LAMBDAS]
    assert sorted(times, reverse=True) == times and times[-1] > 0 and times[0] < 50
    for value, time in zip(LAMBDAS, times, strict=True):
        sigma = model.noise_schedule.sigma(time).item() * model.latent_scale
        assert sigma == pytest.approx(model.step_size(value) / 12**0.5, rel=1e-6)


def test_the_chain_starts_at_its_last_time_where_the_quantisers_noise_is_stronger_than_any():
    model = untrained(diffusion_steps=50)
    most = model.noise_schedule.sigma(50).item()
    beyond = 2 * 12**0.5 * most * model.latent_scale
    assert model.start_time(beyond) == pytest.approx(50, abs=1e-6)
    with model.gain.held_at(math.log2(beyond)):
        assert bool(model(picture(32, 32), steps=2)["x_hat"].isfinite().all())


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_noise_levels_start_at_the_rounding_error_or_at_pure_noise(model, coded, steps):
    decoder_state = decode_latents(model, coded["strings"], coded["shape"])
    levels = torch.stack(model.sampler.noise_levels(decoder_state, steps))
    assert (
        levels.shape == (steps, 1, 1, 4, 6)
        and bool((levels.diff(dim=0) < 0).all())
        and bool((levels > 0).all())
    )
    assert largest(levels[0] - SIGMA_Q) < 1e-6
    preview = decode_latents(model, [[None], *coded["strings"][1:]], coded["shape"])
    top = model.noise_schedule.sigma(10).item() * model.latent_scale / model.step_size(1e-3)
    assert largest(model.sampler.noise_levels(preview, steps)[0] / top - 1) < 1e-5


# z alone


def test_z_alone_gives_a_preview(model, coded):
    _, z, side = coded["strings"]
    preview = model.decompress([[None], z, side], coded["shape"], steps=2)["x_hat"]
    whole = model.decompress(coded["strings"], coded["shape"], steps=2)["x_hat"]
    assert preview.shape == (1, 3, 64, 96) and largest(preview - whole) > 0.01
    decoder_state = decode_latents(model, [[None], z, side], coded["shape"])
    assert not decoder_state.symbols.any() and not decoder_state.decoded.any()


def test_no_bytes_where_symbols_are_missing_are_no_preview(model, coded):
    _, z, side = coded["strings"]
    with pytest.raises(BitstreamError, match="y has 0 bytes where [0-9]+ symbols are missing"):
        model.decompress([[b""], z, side], coded["shape"])


@torch.no_grad()
def test_a_model_that_sends_z_alone(z_model):
    x = picture(64, 96)
    coded = z_model.compress(x, 1e-3)
    y, z, side = parts(coded)
    assert y == b"" and len(z) > 0 and side[-4:] == bytes(4)
    for steps in (0, 1, 3):
        decoded = z_model.decompress(coded["strings"], coded["shape"], steps=steps)["x_hat"]
        assert torch.equal(decoded, z_model(x, 1e-3, steps=steps)["x_hat"].clamp(0, 1))
    out = z_model(x, 1e-3)
    assert bool((out["likelihoods"]["y"] == 1).all()), "y costs nothing"
    seeds = [
        z_model.decompress(coded["strings"], coded["shape"], steps=3, seed=seed)["x_hat"]
        for seed in (0, 0, 1)
    ]
    assert torch.equal(*seeds[:2]) and largest(seeds[0] - seeds[2]) > 1e-3


def test_a_preview_of_one_file_is_what_its_z_says_in_both_modes():
    """Both modes share all weights, so the same z and lambda give the same preview."""
    both, alone = woken(), woken(transmit="z")
    coded = both.compress(picture(64, 64), 1e-3)
    _, z, side = coded["strings"]
    from_both = both.decompress([[None], z, side], coded["shape"], steps=2)["x_hat"]
    assert torch.equal(from_both, alone.decompress([[b""], z, side], coded["shape"], steps=2)["x_hat"])

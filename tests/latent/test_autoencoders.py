"""Autoencoders against diffusers itself, torch's distributions, brute force and closed forms; what is saved
and refused.
"""

from __future__ import annotations

import pytest
import torch
from diffusers import AutoencoderKL, VQModel
from oracles import largest, seeded
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence
from untrained import CODES, fixed, small_kl, small_vq

from dhp_lab.core.precision import autocast
from dhp_lab.latent.autoencoders import (
    CodebookUse,
    autoencoder_loss,
    code_indexes,
    codebook_use,
    decode,
    encode,
    kl_autoencoder,
    scale_factor,
    vq_autoencoder,
)


def pictures(count: int = 3, height: int = 16, width: int = 24, *, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, height, width, generator=seeded(seed))


@pytest.fixture
def kl() -> AutoencoderKL:
    return small_kl()


@pytest.fixture
def vq() -> VQModel:
    return small_vq()


@pytest.fixture(params=["kl", "vq"])
def model(request):
    return request.getfixturevalue(request.param)


# shapes and sizes


@pytest.mark.slow
@pytest.mark.parametrize("f", [2, 4, 8, 16])
@pytest.mark.parametrize("make", [kl_autoencoder, vq_autoencoder])
def test_f_divides_the_sides_and_the_networks_are_small(make, f):
    model = fixed(make, f)
    latents = encode(model, pictures(2, 32, 48))
    assert latents.shape == (2, 4, 32 // f, 48 // f) and decode(model, latents).shape == (2, 3, 32, 48)
    assert sum(p.numel() for p in model.parameters()) < 1_500_000


@torch.no_grad()
def test_a_kl_autoencoder_starts_with_little_noise():
    q = fixed(kl_autoencoder, 8).encode(pictures(2, 32, 48) * 2 - 1).latent_dist
    assert q.std.min() > 0.03 and q.std.max() < 0.1


# in and out


@torch.no_grad()
def test_encoding_and_decoding_are_those_of_diffusers(kl, vq):
    x = pictures()
    q, z = kl.encode(x * 2 - 1).latent_dist, vq.encode(x * 2 - 1).latents
    assert torch.equal(encode(kl, x), q.mean) and torch.equal(encode(vq, x), z)
    for model, latents in ((kl, q.mean), (vq, z)):
        theirs = model.decode(latents).sample / 2 + 0.5
        assert largest(decode(model, latents) - theirs.clamp(0, 1)) < 1e-6


@torch.no_grad()
def test_decoded_pictures_stay_in_range(model):
    x_hat = decode(model, 100 * torch.randn(2, 4, 3, 5, generator=seeded()))
    assert x_hat.shape == (2, 3, 12, 20) and x_hat.min() >= 0 and x_hat.max() <= 1


@torch.no_grad()
def test_a_vq_decoder_sees_codes_alone(vq):
    """Latents that differ, but not in their nearest codes, give one picture."""
    z = encode(vq, pictures())
    nearest = vq.quantize.embedding(code_indexes(vq, z)).movedim(-1, 1)
    assert largest(z - nearest) > 0.01 and largest(decode(vq, z) - decode(vq, nearest)) < 1e-5


# the loss


def brute_edges(error: Tensor) -> float:
    *_, height, width = error.shape
    across = torch.stack([error[..., j + 1] - error[..., j] for j in range(width - 1)])
    down = torch.stack([error[:, :, i + 1] - error[:, :, i] for i in range(height - 1)])
    return (across.abs().mean() + down.abs().mean()).item()


@torch.no_grad()
def test_the_kl_loss_is_that_of_the_paper(kl):
    """Its sum over a picture, |x - x_hat| + 1e-6 KL, divided by the picture's numbers; KL by torch's own
    distributions.
    """
    x, q = pictures(), kl.encode(pictures() * 2 - 1).latent_dist
    found = autoencoder_loss(kl, x, edge_weight=0.5, kl_weight=0.01, generator=seeded(3))
    z = q.mean + q.std * torch.randn(q.mean.shape, generator=seeded(3))
    error = kl.decode(z).sample - (2 * x - 1)
    sum_of_kl = kl_divergence(Normal(q.mean, q.std), Normal(0.0, 1.0)).sum().item()
    expected = {
        "reconstruction": error.abs().mean().item(),
        "edges": brute_edges(error),
        "kl": sum_of_kl / x.numel(),
    }
    loss = expected["reconstruction"] + 0.5 * expected["edges"] + 0.01 * expected["kl"]
    assert {name: value.item() for name, value in found.items()} == pytest.approx(
        {"loss": loss, **expected}, rel=1e-4
    )


@torch.no_grad()
def test_the_vq_loss_is_eq_3_found_by_trying_every_code(vq):
    x = pictures()
    found, z = autoencoder_loss(vq, x, edge_weight=2.0, commitment=0.7), encode(vq, x)
    distances = [
        ((z - code.view(1, 4, 1, 1)) ** 2).sum(1) for code in vq.quantize.embedding.weight
    ]  # each (B, h, w)
    nearest = torch.stack(distances).argmin(0)
    assert torch.equal(nearest, code_indexes(vq, z)) and len(nearest.unique()) > 1
    term = torch.stack(distances).amin(0).mean().item() / 4
    error = vq.decode(z).sample - (2 * x - 1)
    expected = {
        "reconstruction": error.abs().mean().item(),
        "edges": brute_edges(error),
        "codebook": term,
        "commitment": term,
    }
    loss = expected["reconstruction"] + 2 * expected["edges"] + 1.7 * term
    assert {name: value.item() for name, value in found.items()} == pytest.approx(
        {"loss": loss, **expected}, rel=1e-4
    )


def gradients(model: nn.Module, loss: Tensor) -> tuple[bool, bool, bool]:
    """Whether a loss moves the encoder, the codebook and the decoder."""
    model.zero_grad()
    loss.backward()
    parts = (model.encoder.conv_in, model.quantize, model.decoder.conv_out)
    return tuple(any(p.grad is not None and bool(p.grad.any()) for p in part.parameters()) for part in parts)


def test_each_term_of_eq_3_moves_what_it_is_meant_to(vq):
    moved = {
        name: gradients(vq, autoencoder_loss(vq, pictures())[name])
        for name in ("reconstruction", "codebook", "commitment")
    }
    assert moved == {
        "reconstruction": (True, False, True),
        "codebook": (False, True, False),
        "commitment": (True, False, False),
    }


def test_the_codebook_terms_have_the_gradients_of_diffusers_when_beta_is_where_the_paper_has_it(vq):
    x, grads = pictures(), []
    vq.quantize.legacy = False  # otherwise diffusers swaps the two
    losses = autoencoder_loss(vq, x)
    theirs = vq.quantize(vq.encode(2 * x - 1).latents)[1]
    for loss in (losses["codebook"] + 0.25 * losses["commitment"], theirs):
        vq.zero_grad()
        loss.backward()
        grads.append((vq.quantize.embedding.weight.grad.clone(), vq.quant_conv.weight.grad.clone()))
    assert all(
        largest(ours) > 1e-3 and largest(ours - their) < 1e-6 for ours, their in zip(*grads, strict=True)
    )


def test_gradients_pass_the_codebook_as_if_it_were_not_there(vq):
    """The reconstruction's gradient with respect to the last layer before the codes: that of the decoder at
    the codes.
    """
    x = pictures()
    autoencoder_loss(vq, x)["reconstruction"].backward()
    with torch.no_grad():
        h = vq.encoder(2 * x - 1)
        z = vq.quant_conv(h)
        codes = vq.quantize.embedding(code_indexes(vq, z)).movedim(-1, 1)
    codes.requires_grad_()
    (vq.decode(codes, force_not_quantize=True).sample - (2 * x - 1)).abs().mean().backward()
    assert largest(vq.quant_conv.bias.grad - codes.grad.sum((0, 2, 3))) < 1e-6
    assert largest(vq.quant_conv.weight.grad[..., 0, 0] - torch.einsum("bohw,bihw->oi", codes.grad, h)) < 1e-6


@torch.no_grad()
def test_the_loss_in_mixed_precision_is_nearly_the_same(model):
    exact = autoencoder_loss(model, pictures(), generator=seeded())
    with autocast(torch.device("cpu")):
        mixed = autoencoder_loss(model, pictures(), generator=seeded())
    assert all(value.dtype == torch.float32 for value in mixed.values())
    assert {k: v.item() for k, v in mixed.items()} == pytest.approx(
        {k: v.item() for k, v in exact.items()}, abs=0.02
    )


# scale and codes


@torch.no_grad()
def test_scaled_latents_have_power_1(model):
    x = pictures(8)
    factor = scale_factor(model, x)
    assert (factor * encode(model, x)).numpy().std() == pytest.approx(1, abs=1e-5)
    model.quant_conv.weight *= 4
    model.quant_conv.bias *= 4
    assert scale_factor(model, x) == pytest.approx(factor / 4, rel=1e-5)


@torch.no_grad()
def test_latents_without_spread_have_no_scale(model):
    model.quant_conv.weight.zero_()
    model.quant_conv.bias.zero_()
    with pytest.raises(
        ValueError, match="standard deviation is 0: train the autoencoder, or measure on other pictures"
    ):
        scale_factor(model, pictures())


def test_codes_are_counted(vq):
    x = pictures(5)
    use, indexes = codebook_use(vq, x), code_indexes(vq, encode(vq, x)).flatten().tolist()
    assert (
        use.counts.tolist() == [indexes.count(code) for code in range(CODES)] and sum(use.counts) == 5 * 4 * 6
    )
    assert use.used == len(set(indexes)) and 1 < use.perplexity <= use.used


@pytest.mark.parametrize(
    "counts, used, perplexity",
    [
        ([5, 5, 5, 0], 3, 3),
        ([0, 9], 1, 1),
        ([2, 1, 1], 3, 2**1.5),
        ([1] * 512, 512, 512),
    ],
)
def test_perplexity_is_the_number_of_equally_frequent_codes(counts, used, perplexity):
    use = CodebookUse(torch.tensor(counts))
    assert use.used == used and use.perplexity == pytest.approx(perplexity, rel=1e-9)

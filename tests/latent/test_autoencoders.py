"""Autoencoders against diffusers itself, torch's distributions, brute force and closed forms; what is saved
and refused.
"""

from __future__ import annotations

import json

import pytest
import torch
from diffusers import AutoencoderKL, VQModel
from oracles import largest, seeded
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

from dhp_lab.core.precision import autocast
from dhp_lab.core.weights import CheckpointError
from dhp_lab.latent.autoencoders import (
    CodebookUse,
    autoencoder_loss,
    code_indexes,
    codebook_use,
    decode,
    encode,
    kl_autoencoder,
    load_autoencoder,
    save_autoencoder,
    scale_factor,
    vq_autoencoder,
)

FILES = ("config.json", "diffusion_pytorch_model.safetensors")
CODES = 7


def pictures(count: int = 3, height: int = 16, width: int = 24, *, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, height, width, generator=seeded(seed))


def made(make, *args, **settings):
    """A model that is always the same."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make(*args, **settings).eval()


@pytest.fixture
def kl() -> AutoencoderKL:
    return made(kl_autoencoder, 4, widths=(8, 8, 16))


@pytest.fixture
def vq() -> VQModel:
    """With codes as far apart as the latents are, so that several are used."""
    model = made(vq_autoencoder, 4, codes=CODES, widths=(8, 8, 16))
    model.quantize.embedding.weight.data = torch.randn(CODES, 4, generator=seeded(1)) * 0.2
    return model


@pytest.fixture(params=["kl", "vq"])
def model(request):
    return request.getfixturevalue(request.param)


# shapes and sizes


@pytest.mark.slow
@pytest.mark.parametrize("f", [2, 4, 8, 16])
@pytest.mark.parametrize("make", [kl_autoencoder, vq_autoencoder])
def test_f_divides_the_sides_and_the_networks_are_small(make, f):
    model = made(make, f)
    latents = encode(model, pictures(2, 32, 48))
    assert latents.shape == (2, 4, 32 // f, 48 // f) and decode(model, latents).shape == (2, 3, 32, 48)
    assert sum(p.numel() for p in model.parameters()) < 1_500_000


@torch.no_grad()
def test_a_kl_autoencoder_starts_with_little_noise():
    q = made(kl_autoencoder, 8).encode(pictures(2, 32, 48) * 2 - 1).latent_dist
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


# saved and loaded


@torch.no_grad()
def test_plain_diffusers_loads_what_is_saved(model, tmp_path):
    model.register_to_config(scaling_factor=1.25)
    save_autoencoder(tmp_path / "pipeline" / "vae", model)
    assert sorted(path.name for path in (tmp_path / "pipeline" / "vae").iterdir()) == sorted(FILES)
    theirs = type(model).from_pretrained(tmp_path / "pipeline", subfolder="vae")
    ours = load_autoencoder(tmp_path / "pipeline" / "vae")
    x = pictures()
    for loaded in (theirs, ours):
        assert type(loaded) is type(model) and loaded.config.scaling_factor == 1.25 and not loaded.training
        assert {p.dtype for p in loaded.parameters()} == {torch.float32}
        assert largest(decode(loaded, encode(model, x)) - decode(model, encode(model, x))) < 2e-3
    assert all(torch.equal(a, b) for a, b in zip(theirs.parameters(), ours.parameters(), strict=True))


def test_diffusers_own_folder_is_loaded_and_saved_again_without_its_place(model, tmp_path):
    model.to(memory_format=torch.channels_last).save_pretrained(tmp_path / "theirs")
    loaded = load_autoencoder(tmp_path / "theirs")
    assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), model.parameters(), strict=True))
    save_autoencoder(tmp_path / "ours", loaded)
    config, expected = (json.loads((tmp_path / name / FILES[0]).read_text()) for name in ("ours", "theirs"))
    assert config == expected and str(tmp_path) not in json.dumps(config)


def test_large_tensors_take_two_bytes_a_number(tmp_path):
    model = made(kl_autoencoder, 4)
    save_autoencoder(tmp_path, model)
    numbers = sum(p.numel() for p in model.parameters())
    assert 2 * numbers < (tmp_path / FILES[1]).stat().st_size < 2.2 * numbers


# what is refused


@pytest.fixture
def folder(tmp_path, model):
    save_autoencoder(tmp_path, model)
    return tmp_path


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(
        CheckpointError, match=f"no autoencoder at .*: {name} not found; make it by save_autoencoder"
    ):
        load_autoencoder(folder)


def test_a_folder_that_is_not_there_is_not_looked_for_on_the_hub():
    with pytest.raises(
        CheckpointError, match=f"no autoencoder at owner/name: {' and '.join(FILES)} not found"
    ):
        load_autoencoder("owner/name")


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"_class_name": "UNet2DModel"}', '{"_class_name": []}'])
def test_a_configuration_of_something_else_is_refused(folder, text):
    (folder / FILES[0]).write_text(text)
    with pytest.raises(CheckpointError, match="config.json describes none of AutoencoderKL, VQModel"):
        load_autoencoder(folder)


def test_damaged_weights_are_refused(folder):
    weights = folder / FILES[1]
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="is damaged: .*; fetch it again"):
        load_autoencoder(folder)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda t: t.pop("quant_conv.bias"), "do not fit its config.json: quant_conv.bias and 0 more"),
        (lambda t: t.update(extra=torch.zeros(1)), "do not fit its config.json: extra and 0 more"),
        (
            lambda t: t.update({"quant_conv.bias": torch.zeros(1)}),
            "is damaged: .*quant_conv.bias expected shape",
        ),
    ],
)
def test_weights_that_do_not_fit_are_refused(folder, change, message):
    tensors = load_file(folder / FILES[1])
    change(tensors)
    save_file(tensors, folder / FILES[1], metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=message):
        load_autoencoder(folder)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"f": 3}, "f must be one of 2, 4, 8, 16, got 3"),
        ({"f": 32}, "got 32"),
        ({"f": 4, "widths": (8, 8)}, r"f = 4 needs 3 widths, multiples of 8, got \(8, 8\)"),
        ({"f": 4, "widths": (8, 12, 8)}, r"got \(8, 12, 8\)"),
        ({"f": 4, "widths": (8, 0, 8)}, r"got \(8, 0, 8\)"),
    ],
)
@pytest.mark.parametrize("make", [kl_autoencoder, vq_autoencoder])
def test_a_shape_that_does_not_exist_is_refused(make, settings, message):
    with pytest.raises(ValueError, match=message):
        make(**settings)


def test_a_codebook_needs_a_code_and_a_model_that_has_one(kl):
    with pytest.raises(ValueError, match="codes must be at least 1, got 0"):
        vq_autoencoder(codes=0)
    with pytest.raises(ValueError, match="a AutoencoderKL has no codebook; make one by vq_autoencoder"):
        codebook_use(kl, pictures())


@pytest.mark.parametrize(
    "x, message",
    [
        (pictures()[0], r"\(B, 3, H, W\), H and W multiples of 4, got \(3, 16, 24\)"),
        (pictures()[:0], r"got \(0, 3, 16, 24\)"),
        (pictures()[:, :1], r"got \(3, 1, 16, 24\)"),
        (pictures(3, 16, 18), r"got \(3, 3, 16, 18\)"),
        (pictures() * 2 - 1, r"pictures must lie in \[0, 1\], got -0.99"),
        (pictures() * torch.nan, "got nan .. nan"),
    ],
)
def test_pictures_that_do_not_fit_are_refused(model, x, message):
    for use in (encode, autoencoder_loss, scale_factor):
        with pytest.raises(ValueError, match=message):
            use(model, x)


@pytest.mark.parametrize("shape", [(2, 3, 4, 4), (4, 4, 4)])
def test_latents_that_do_not_fit_are_refused(model, shape):
    with pytest.raises(ValueError, match=r"latents must be \(B, 4, h, w\), got"):
        decode(model, torch.zeros(shape))

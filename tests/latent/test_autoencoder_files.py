"""Autoencoders saved and loaded, by plain diffusers too; what is refused."""

from __future__ import annotations

import json

import pytest
import torch
from diffusers import AutoencoderKL, VQModel
from oracles import largest, seeded
from safetensors.torch import load_file, save_file
from torch import Tensor
from untrained import fixed, small_kl, small_vq

from dhp_lab.core.weights import CheckpointError
from dhp_lab.latent.autoencoders import (
    autoencoder_loss,
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
    model = fixed(kl_autoencoder, 4)
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

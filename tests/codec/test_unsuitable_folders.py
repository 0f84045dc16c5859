"""Folders of parts that a codec cannot use are refused when it is created; variants of weights are read."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from bk_sdm import created, written
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from models import picture
from transformers import CLIPTextConfig, CLIPTextModel

from dhp_lab.codec import DiffusionHyperprior, create_bk_sdm_compression_model
from dhp_lab.codec.stable_diffusion import parts
from dhp_lab.core.weights import CheckpointError
from dhp_lab.latent.autoencoders import load_autoencoder
from dhp_lab.latent.pipeline import LatentDiffusion
from dhp_lab.latent.weight_files import DIFFUSERS_STEM, weights_variant

SDXL = {
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 64,
}


@pytest.fixture(scope="module")
def bk_sdm(tmp_path_factory) -> Path:
    return written(tmp_path_factory.mktemp("bk-sdm"))


def changed(folder: Path, part: str, **settings: object) -> None:
    """Change the configuration of a part."""
    path = folder / part
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


@pytest.mark.parametrize(
    "unet, words",
    [
        (SDXL, r"addition_embed_type 'text_time'"),
        ({"num_class_embeds": 4}, "num_class_embeds 4"),
        ({"class_embed_type": "timestep"}, "class_embed_type 'timestep'"),
        ({"cross_attention_dim": (16, 16, 16, 16)}, r"cross_attention_dim .*16, 16, 16, 16"),
        ({"out_channels": 8}, "in_channels 4, out_channels 8"),
        ({"cross_attention_dim": 24}, "gives vectors of 16 numbers, the cross-attention .* takes 24"),
    ],
)
def test_a_u_net_with_other_conditions_is_refused_at_creation(tmp_path, unet, words):
    written(tmp_path, **unet)
    with pytest.raises(ValueError, match=words) as raised:
        create_bk_sdm_compression_model(tmp_path, N=8, M=8)
    assert str(tmp_path) in str(raised.value)
    create_bk_sdm_compression_model(tmp_path, N=8, M=8, use_pretrained_unet=False)


def test_another_prediction_is_refused(tmp_path):
    written(tmp_path)
    changed(tmp_path, "scheduler/scheduler_config.json", prediction_type="sample")
    with pytest.raises(ValueError, match="'sample'"):
        create_bk_sdm_compression_model(tmp_path, N=8, M=8)


@pytest.mark.parametrize(
    "error", [RuntimeError("shapes"), TypeError("None"), IndexError("out of range"), KeyError("time_ids")]
)
def test_whatever_the_u_net_raises_is_one_error_at_creation(bk_sdm, monkeypatch, error):
    def broken(*_, **__):
        raise error

    monkeypatch.setattr(UNet2DConditionModel, "forward", broken)
    with pytest.raises(ValueError, match=f"cannot be evaluated as a codec, {type(error).__name__}: "):
        create_bk_sdm_compression_model(bk_sdm, N=8, M=8)


def test_a_shortage_of_memory_stays_one(bk_sdm, monkeypatch):
    def huge(*_, **__):
        raise RuntimeError("can't allocate memory")

    monkeypatch.setattr(UNet2DConditionModel, "forward", huge)
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        create_bk_sdm_compression_model(bk_sdm, N=8, M=8)


def test_parts_that_make_no_picture_are_refused(tmp_path):
    written(tmp_path)
    unet = UNet2DConditionModel.from_pretrained(tmp_path / "unet")
    torch.nn.init.constant_(unet.conv_out.bias, float("nan"))
    unet.save_pretrained(tmp_path / "unet")
    with pytest.raises(ValueError, match="make no finite picture"):
        create_bk_sdm_compression_model(tmp_path, N=8, M=8)


def test_the_trial_changes_nothing(bk_sdm, monkeypatch):
    tried = created(bk_sdm)
    monkeypatch.setattr("dhp_lab.codec.create._try_once", lambda model: None)
    other = created(bk_sdm)
    pairs = zip(tried.state_dict().items(), other.state_dict().items(), strict=True)
    assert all(a == b and torch.equal(x, y) for (a, x), (b, y) in pairs)
    assert tried.training == other.training


@pytest.mark.parametrize("place", ["codec/parts", "codec/sub/parts", "parts"])
def test_parts_that_were_moved_are_never_asked_of_the_hub(bk_sdm, tmp_path, monkeypatch, place):
    monkeypatch.setattr("huggingface_hub.snapshot_download", None)
    shutil.copytree(bk_sdm, tmp_path / place)
    created(tmp_path / place).save_pretrained(tmp_path / "codec")
    (tmp_path / place).rename(tmp_path / "moved")
    with pytest.raises(CheckpointError, match=rf"no latent diffusion model at {tmp_path / place}: "):
        DiffusionHyperprior.from_pretrained(tmp_path / "codec")


def test_the_hub_is_asked_for_nothing_that_holds_code(monkeypatch, tmp_path):
    """What huggingface_hub would fetch of a repository, by its own function."""
    from huggingface_hub.utils import filter_repo_objects

    asked = []
    monkeypatch.setattr(
        "huggingface_hub.snapshot_download",
        lambda name, allow_patterns: asked.append(allow_patterns) or tmp_path,
    )
    assert parts.find_pipeline("owner/name") == tmp_path
    taken = ["model_index.json", "unet/config.json", "vae/diffusion_pytorch_model.fp16.safetensors"]
    taken += ["tokenizer/merges.txt", "tokenizer/vocab.json", "scheduler/scheduler_config.json"]
    left = ["unet/diffusion_pytorch_model.bin", "vae/model.ckpt", "unet/code.py", "text_encoder/model.pt"]
    left += ["tokenizer/tokenizer.pkl", "all.safetensors", "text_encoder/flax_model.msgpack"]
    assert list(filter_repo_objects(taken + left, allow_patterns=asked[0])) == taken


# variants of the weights


@pytest.fixture(scope="module")
def fp16(bk_sdm, tmp_path_factory) -> Path:
    """The folder as ``save_pretrained(variant="fp16")`` writes it."""
    folder = tmp_path_factory.mktemp("variant") / "fp16"
    StableDiffusionPipeline.from_pretrained(bk_sdm, safety_checker=None).save_pretrained(
        folder, variant="fp16"
    )
    return folder


@torch.no_grad()
def test_a_variant_is_read_as_the_plain_files_are(bk_sdm, fp16, tmp_path):
    assert not list(fp16.glob("*/diffusion_pytorch_model.safetensors"))
    plain, variant = created(bk_sdm), created(fp16)
    assert variant.config.parts == plain.config.parts
    x = picture(64, 64)
    assert variant.compress(x)["strings"] == plain.compress(x)["strings"]
    variant.save_pretrained(tmp_path)
    DiffusionHyperprior.from_pretrained(tmp_path)
    assert LatentDiffusion.load(fp16).unet.dtype == torch.float32
    assert load_autoencoder(fp16 / "vae").dtype == torch.float32


def test_which_variant_is_taken(tmp_path):
    assert weights_variant(tmp_path, DIFFUSERS_STEM) is None
    for name, variant in (
        ("diffusion_pytorch_model.safetensors.index.non_ema.json", "non_ema"),
        ("diffusion_pytorch_model.fp16.safetensors", "fp16"),
        ("diffusion_pytorch_model.safetensors", ""),
    ):
        (tmp_path / name).write_bytes(b"")
        assert weights_variant(tmp_path, DIFFUSERS_STEM) == variant


@pytest.mark.parametrize("max_shard_size", ["10KB"])
def test_shards_are_read(bk_sdm, tmp_path, max_shard_size):
    folder = shutil.copytree(bk_sdm, tmp_path / "sharded")
    for kind, part in ((UNet2DConditionModel, "unet"), (AutoencoderKL, "vae")):
        network = kind.from_pretrained(bk_sdm / part)
        shutil.rmtree(folder / part)
        network.save_pretrained(folder / part, max_shard_size=max_shard_size)
        assert len(list((folder / part).glob("*.safetensors"))) > 1
    assert created(folder).config.parts == created(bk_sdm).config.parts


@pytest.mark.parametrize(
    "part, stem",
    [("vae", "diffusion_pytorch_model"), ("unet", "diffusion_pytorch_model"), ("text_encoder", "model")],
)
def test_pickled_weights_are_named_with_a_way_out(bk_sdm, tmp_path, part, stem):
    folder = shutil.copytree(bk_sdm, tmp_path / "pickled")
    (folder / part / f"{stem}.safetensors").rename(folder / part / "pytorch_model.bin")
    with pytest.raises(
        CheckpointError,
        match=rf"the weights at .*{part} are pytorch_model.bin: only {stem}.safetensors .* Convert them by",
    ):
        create_bk_sdm_compression_model(folder, N=8, M=8)


def test_a_text_encoder_of_another_width_is_refused(bk_sdm, tmp_path):
    folder = shutil.copytree(bk_sdm, tmp_path / "wide")
    config = CLIPTextConfig.from_pretrained(folder / "text_encoder")
    config.hidden_size = 32
    CLIPTextModel(config).save_pretrained(folder / "text_encoder")
    with pytest.raises(ValueError, match="gives vectors of 32 numbers, .* takes 16: they do not fit"):
        create_bk_sdm_compression_model(folder, N=8, M=8)


def test_what_a_suitable_u_net_lacks_is_in_diffusers():
    """The names of conditions are settings of a U-Net, None in that of Stable Diffusion."""
    settings = UNet2DConditionModel.load_config(
        Path(__file__).resolve().parents[2] / "data" / "checkpoints" / "scenes-f4" / "unet"
    )
    assert all(settings[name] is None for name in parts.MORE_CONDITIONS)

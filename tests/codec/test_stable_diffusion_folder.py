"""Stable Diffusion's folder beside a codec: small machines, parts that do not fit, and the shipped one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from bk_sdm import M, N, created, written
from diffusers import (
    UNet2DConditionModel,
)
from models import picture
from oracles import largest

from dhp_lab.codec import DiffusionHyperprior, create_bk_sdm_compression_model, dhp_file
from dhp_lab.codec.create import with_settings
from dhp_lab.codec.stable_diffusion.config import FOLDER, StableDiffusionConfig
from dhp_lab.codec.stable_diffusion.networks import Frozen
from dhp_lab.core.weights import CheckpointError
from dhp_lab.data.scenes import batch
from dhp_lab.metrics.pixels import psnr

pytestmark = pytest.mark.usefixtures("in_float32")

SCENES = Path(__file__).resolve().parents[2] / "data" / "checkpoints" / "scenes-f4"
# Stable Diffusion 1.4 likewise


@pytest.fixture(scope="module")
def bk_sdm(tmp_path_factory) -> Path:
    return written(tmp_path_factory.mktemp("bk-sdm"))


@pytest.fixture(scope="module")
def model(bk_sdm) -> DiffusionHyperprior:
    return created(bk_sdm)


# small machines, and what does not fit


@pytest.mark.slow
@torch.no_grad()
def test_spared_memory_reads_the_same_files(bk_sdm):
    x, spared = picture(64, 64), created(bk_sdm).low_memory()
    assert all(
        p.dtype == torch.bfloat16
        for part in spared.modules()
        if isinstance(part, Frozen)
        for p in part.network.parameters()
    )
    coded = created(bk_sdm).compress(x, 1e-2)
    whole, small = (
        codec.decompress(coded["strings"], coded["shape"])["x_hat"] for codec in (created(bk_sdm), spared)
    )
    assert largest(whole - small) < 0.1 and spared.tile < created(bk_sdm).tile


def test_a_codec_with_other_settings_keeps_its_parts(model):
    other = with_settings(model, passes=4)
    assert (
        other.config.passes == 4
        and other.config.parts == model.config.parts
        and isinstance(other.config, StableDiffusionConfig)
    )


def test_a_missing_folder_or_part_is_named(bk_sdm, tmp_path):
    with pytest.raises(
        CheckpointError, match="no latent diffusion model at .*nowhere.*unet/config.json.* not found"
    ):
        create_bk_sdm_compression_model(tmp_path / "nowhere")
    shutil.copytree(bk_sdm, tmp_path / "part")
    shutil.rmtree(tmp_path / "part" / "unet")
    with pytest.raises(CheckpointError, match="unet/config.json not found"):
        create_bk_sdm_compression_model(tmp_path / "part")


def test_parts_that_do_not_fit_are_refused(tmp_path):
    written(tmp_path, in_channels=8, out_channels=8)
    with pytest.raises(ValueError, match="gives latents of 4 channels, the U-Net takes 8: they do not fit"):
        create_bk_sdm_compression_model(tmp_path)


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"diffusion_steps": 0}, "diffusion_steps must lie in 1 .. 1000"),
        ({"diffusion_steps": 1001}, "got 1001"),
        ({"M": 3}, "M must be at least 4, got 3"),
        ({"N": 2}, "N must lie in 4 .. 1024, got 2"),
        ({"passes": 3}, "passes must be"),
    ],
)
def test_values_out_of_range_are_refused(bk_sdm, settings, words):
    with pytest.raises(ValueError, match=words):
        create_bk_sdm_compression_model(bk_sdm, **settings)


def test_other_weights_in_the_folder_are_noticed(bk_sdm, tmp_path):
    shutil.copytree(bk_sdm, tmp_path / "parts")
    created(tmp_path / "parts").save_pretrained(tmp_path / "codec")
    unet = UNet2DConditionModel.from_pretrained(tmp_path / "parts", subfolder="unet")
    with torch.no_grad():
        unet.conv_in.bias += 1
    unet.save_pretrained(tmp_path / "parts" / "unet")
    with pytest.raises(CheckpointError, match="are not those that this codec was trained with"):
        DiffusionHyperprior.from_pretrained(tmp_path / "codec")


@torch.no_grad()
def test_where_the_parts_lie_is_no_part_of_the_models_name(bk_sdm, tmp_path):
    created(bk_sdm).save_pretrained(tmp_path / "codec")
    one = DiffusionHyperprior.from_pretrained(tmp_path / "codec")
    shutil.copytree(bk_sdm, tmp_path / "moved")
    config = tmp_path / "codec" / "config.json"
    text = config.read_text()
    config.write_text(text.replace(json.loads(text)["bk_sdm_path"], str(tmp_path / "moved")))
    other = DiffusionHyperprior.from_pretrained(tmp_path / "codec")
    assert other.config.bk_sdm_path != one.config.bk_sdm_path and other.model_id == one.model_id
    config.write_text(text.replace('"diffusion_steps": 10', '"diffusion_steps": 7'))
    assert DiffusionHyperprior.from_pretrained(tmp_path / "codec").model_id != one.model_id


# the folder of lesson 06


@torch.no_grad()
def test_on_the_shipped_folder_the_u_net_repairs_what_rounding_broke():
    """Even with an untrained hyperprior: at a coarse step K = 1 is more than a decibel above K = 0."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = create_bk_sdm_compression_model(SCENES, N=N, M=M).eval()
    x, _ = batch(8, seed=99)
    coded = model.compress(x, 1e-2)
    plain, denoised = (
        psnr(model.decompress(coded["strings"], coded["shape"], steps=k)["x_hat"], x).mean().item()
        for k in (0, 1)
    )
    assert denoised > plain + 1 and model.config.schedule == FOLDER


@torch.no_grad()
@pytest.mark.parametrize(
    "lambda_rate, bytes_at_most, gain", [(3e-2, 100, 2.5), (3e-3, 125, 1.5)]
)  # measured: 92, +3.3 dB; 116, +1.9 dB
def test_the_shipped_codec_of_scenes(lambda_rate, bytes_at_most, gain):
    model = DiffusionHyperprior.from_pretrained(SCENES.with_name("scenes-codec"))
    x, _ = batch(8, seed=99)
    files = dhp_file.encode_batch(model, x, lambda_rate=lambda_rate)
    plain, denoised = (psnr(dhp_file.decode_batch(model, files, steps=k), x).mean().item() for k in (0, 1))
    assert sum(map(len, files)) / len(files) < bytes_at_most and denoised > plain + gain

"""The codec around Stable Diffusion's parts: a random pipeline of BK-SDM's own layout through every path, and
the shipped one.
"""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    PNDMScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from models import picture
from oracles import largest
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from dhp_lab.codec import DiffusionHyperprior, create_bk_sdm_compression_model, dhp_file
from dhp_lab.codec.create import with_settings
from dhp_lab.codec.stable_diffusion.config import FOLDER, StableDiffusionConfig
from dhp_lab.codec.stable_diffusion.networks import Frozen
from dhp_lab.core.weights import CheckpointError
from dhp_lab.data.scenes import batch
from dhp_lab.metrics.pixels import psnr
from dhp_lab.training.codec_objective import CodecObjective

pytestmark = pytest.mark.usefixtures("in_float32")

SCENES = Path(__file__).resolve().parents[2] / "data" / "checkpoints" / "scenes-f4"
N, M = 8, 12
# the U-Net of BK-SDM-Small as its authors publish it, a sixty-fourth as wide; the VAE and text encoder of
# Stable Diffusion 1.4 likewise
UNET = {
    "act_fn": "silu",
    "attention_head_dim": 8,
    "block_out_channels": (8, 16, 16, 16),
    "center_input_sample": False,
    "cross_attention_dim": 16,
    "down_block_types": (*3 * ("CrossAttnDownBlock2D",), "DownBlock2D"),
    "downsample_padding": 1,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "in_channels": 4,
    "layers_per_block": 1,
    "mid_block_scale_factor": 1,
    "mid_block_type": None,
    "norm_eps": 1e-5,
    "norm_num_groups": 4,
    "out_channels": 4,
    "sample_size": 64,
    "up_block_types": ("UpBlock2D", *3 * ("CrossAttnUpBlock2D",)),
}
VAE = {
    "block_out_channels": (8, 8, 16, 16),
    "down_block_types": 4 * ("DownEncoderBlock2D",),
    "up_block_types": 4 * ("UpDecoderBlock2D",),
    "layers_per_block": 2,
    "latent_channels": 4,
    "norm_num_groups": 4,
    "sample_size": 512,
    "scaling_factor": 0.18215,
}


def written(folder: Path, prediction: str = "epsilon", **unet: object) -> Path:
    """A pipeline in Stable Diffusion's layout with random weights and a real CLIP tokenizer of few words."""
    words = ["a", "b", "a</w>", "b</w>", "<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        text = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(words),
                hidden_size=16,
                intermediate_size=32,
                num_hidden_layers=1,
                num_attention_heads=2,
                max_position_embeddings=77,
                bos_token_id=4,
                eos_token_id=5,
                pad_token_id=5,
            )
        )
        pipeline = StableDiffusionPipeline(
            vae=AutoencoderKL(**VAE),
            unet=UNet2DConditionModel(**UNET | unet),
            text_encoder=text,
            tokenizer=CLIPTokenizer(
                str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=77
            ),
            scheduler=PNDMScheduler(
                beta_start=0.00085,
                beta_end=0.012,
                beta_schedule="scaled_linear",
                skip_prk_steps=True,
                steps_offset=1,
                set_alpha_to_one=False,
                prediction_type=prediction,
            ),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
    pipeline.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def bk_sdm(tmp_path_factory) -> Path:
    return written(tmp_path_factory.mktemp("bk-sdm"))


def created(path: Path, **settings) -> DiffusionHyperprior:
    """A codec, always the same, with noise in what is its own."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = create_bk_sdm_compression_model(
            path, **{"N": N, "M": M, "diffusion_steps": 10} | settings
        ).eval()
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if weight.ndim == 4 and weight.numel() > 16:
                    weight += 0.3 / weight[0].numel() ** 0.5 * torch.randn_like(weight)
        model.update(force=True)
    return model


@pytest.fixture(scope="module")
def model(bk_sdm) -> DiffusionHyperprior:
    return created(bk_sdm)


# every path, with a random pipeline


@torch.no_grad()
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"use_pretrained_vae": False},
        {"use_pretrained_unet": False},
        {"use_pretrained_vae": False, "use_pretrained_unet": False},
        {"passes": 4, "dead_zone": 0.3},
        {"transmit": "z"},
    ],
    ids=str,
)
def test_files_are_decoded_to_what_the_encoder_saw(bk_sdm, settings):
    model, x = created(bk_sdm, **settings), picture(40, 72, count=2)
    coded = model.compress(x, 1e-2)
    for steps in (0, 1, 3):
        decoded = model.decompress(coded["strings"], coded["shape"], steps=steps)["x_hat"]
        assert decoded.shape == x.shape and bool(decoded.isfinite().all())
    one = model.decompress(coded["strings"], coded["shape"], steps=1)["x_hat"]
    assert largest(one - model(x, 1e-2, steps=1)["x_hat"].clamp(0, 1)) < 1e-4
    preview = model.decompress([[None, None], *coded["strings"][1:]], coded["shape"], steps=2)["x_hat"]
    assert preview.shape == x.shape


@torch.no_grad()
@pytest.mark.parametrize("shape", [(16, 16), (17, 31), (64, 64), (100, 77)])
def test_pictures_of_any_size(model, shape):
    coded = model.compress(picture(*shape), 1e-2)
    assert model.decompress(coded["strings"], coded["shape"])["x_hat"].shape == (1, 3, *shape)


@torch.no_grad()
@pytest.mark.parametrize(
    "settings", [{}, {"use_pretrained_vae": False}, {"use_pretrained_unet": False}], ids=str
)
def test_saved_and_loaded(bk_sdm, tmp_path, settings):
    """Bytes and pictures are the same; of what comes from the folder nothing is stored."""
    parts = shutil.copytree(bk_sdm, tmp_path / "parts")
    model, x = created(parts, **settings), picture(48, 40)
    model.save_pretrained(tmp_path / "codec")
    loaded = DiffusionHyperprior.from_pretrained(tmp_path / "codec")
    again = DiffusionHyperprior.from_pretrained(tmp_path / "codec")
    assert loaded.config == replace(model.config, bk_sdm_path=loaded.config.bk_sdm_path)
    coded = loaded.compress(x, 1e-2)
    pictures = [
        codec.decompress(coded["strings"], coded["shape"], steps=2)["x_hat"] for codec in (loaded, again)
    ]
    assert torch.equal(*pictures) and again.compress(x, 1e-2) == coded
    shutil.rmtree(parts / "text_encoder")  # the empty prompt is stored
    assert DiffusionHyperprior.from_pretrained(tmp_path / "codec").compress(x, 1e-2) == coded
    borrowed = [name for name in loaded.state_dict() if name.startswith(("g_a.", "g_s.", "denoiser.unet."))]
    assert bool(borrowed) == (not model.config.use_pretrained_vae)


@torch.no_grad()
def test_checkpoint_and_folder_move_together(bk_sdm, tmp_path):
    shutil.copytree(bk_sdm, tmp_path / "one" / "parts")
    created(tmp_path / "one" / "parts").save_pretrained(tmp_path / "one" / "codec")
    assert json.loads((tmp_path / "one" / "codec" / "config.json").read_text())["bk_sdm_path"] == "../parts"
    (tmp_path / "one").rename(tmp_path / "two")
    assert DiffusionHyperprior.from_pretrained(tmp_path / "two" / "codec").block == 8


# what each part does


@torch.no_grad()
def test_latents_are_the_scaled_mode_and_pictures_the_decoders(bk_sdm, model):
    vae = AutoencoderKL.from_pretrained(bk_sdm, subfolder="vae").eval()
    x, zero = picture(48, 64), torch.zeros(1)
    y = vae.encode(2 * x - 1).latent_dist.mode() * 0.18215
    assert torch.allclose(model.analyse(x, zero), y, atol=1e-5)
    assert torch.allclose(
        model.synthesise(y, zero, (48, 64)), (vae.decode(y / 0.18215).sample + 1) / 2, atol=1e-5
    )


@torch.no_grad()
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_the_u_net_is_asked_as_diffusers_asks_it(tmp_path, prediction):
    """K = 1 without an adapter and with all the say: the scheduler's own estimate of the clean latents at t*."""
    model = created(written(tmp_path, prediction))
    nn.init.zeros_(model.denoiser.adapter.exit.weight)
    model.denoiser.error[0] = -20.0
    unet = UNet2DConditionModel.from_pretrained(tmp_path, subfolder="unet").eval()
    tokens = CLIPTokenizer.from_pretrained(tmp_path, subfolder="tokenizer")(
        "", padding="max_length", return_tensors="pt"
    ).input_ids
    context = (
        CLIPTextModel.from_pretrained(tmp_path, subfolder="text_encoder").eval()(tokens).last_hidden_state
    )
    scheduler = DDIMScheduler.from_config(PNDMScheduler.load_config(tmp_path, subfolder="scheduler"))
    latents = model.encode(picture(64, 64), [27000])
    decoder_state = model.decoder_state(latents)
    delta = latents.log2_delta.exp2().item()
    t = model.denoiser.schedule.time_of(delta / math.sqrt(12)).item()
    root = model.denoiser.schedule.scale(t).item()
    sample = root * (decoder_state.symbols + decoder_state.mean) * delta
    told = unet(sample, t - 1, encoder_hidden_states=context).sample
    clean = (
        (sample - math.sqrt(1 - root**2) * told) / root
        if prediction == "epsilon"
        else root * sample - math.sqrt(1 - root**2) * told
    )
    assert torch.allclose(model.sampler.sample(decoder_state, steps=1), clean, atol=2e-4)
    assert torch.allclose(
        scheduler.alphas_cumprod.double().sqrt()[[0, 500, 999]],
        model.denoiser.schedule.scale(torch.tensor([1, 501, 1000])),
        atol=1e-5,
    )


@torch.no_grad()
def test_the_chain_keeps_some_of_the_folders_times(model):
    own, whole = model.noise_schedule, model.denoiser.schedule
    assert (own.steps, whole.steps) == (10, 1000)
    times = torch.arange(11).double()
    assert torch.allclose(own.sigma(times), whole.sigma(100 * times), rtol=1e-9)
    assert model.start_time(1e-3 * math.sqrt(12)) < 1 and model.latent_scale == 1.0


@torch.no_grad()
def test_the_average_goes_by_what_each_is_off(model):
    """As the closed form is believed to be surer (its variance falls), D goes to it; both precisions add up."""
    decoder_state, sigma = model.decoder_state(model.encode(picture(64, 64), [15000])), None
    sigma = model.sampler.noise_levels(decoder_state, 1)[0]
    base, variance = model.denoiser.single_latent_posterior(decoder_state.symbols, sigma, decoder_state)
    told = []
    for a in (-20.0, 0.0, 5.0):
        other = created(Path(model.config.bk_sdm_path))
        other.denoiser.error[0] = a
        clean, predicted_variance = other.denoiser(decoder_state.symbols, sigma, decoder_state)
        v_u = sigma.square() * math.exp(a)
        assert torch.allclose(1 / predicted_variance, 1 / variance + 1 / v_u.clamp(min=1e-12), rtol=1e-3)
        told.append((clean - base).square().mean().item())
    assert told[0] > told[1] > told[2]


@torch.no_grad()
def test_from_t_the_preview_is_a_ddim_like_walk_of_the_same_u_net(model):
    """z alone: the chain starts at the folder's last time, and each picture draws the same noise whatever
    batch it is in.
    """
    coded = model.compress(picture(48, 48, count=2), 1e-2)
    none = [[None, None], *coded["strings"][1:]]
    both = model.decompress(none, coded["shape"], steps=3, seed=4)["x_hat"]
    second = model.decompress([[part[1]] for part in none], coded["shape"], steps=3, seed=4)["x_hat"]
    assert largest(both[1:] - second) < 1e-4 and both.std() > 0


# training


@pytest.mark.parametrize("stage", ["codec", "denoiser", "joint"])
def test_each_stage_trains_what_is_ours(bk_sdm, stage):
    model = created(bk_sdm).train()
    task = CodecObjective(model, 1e-2)
    groups = task.optimizer_groups(stage, 1e-3)
    before = [part.network.state_dict() for part in model.modules() if isinstance(part, Frozen)]
    before = [{name: tensor.clone() for name, tensor in state.items()} for state in before]
    losses = task(picture(64, 64, count=2), stage)
    losses["objective"].backward()
    reached = {
        name.split(".")[0]
        for name, p in model.named_parameters()
        if p.grad is not None and bool(p.grad.any())
    }
    wanted = {
        "codec": {"h_a", "h_s", "gain"},
        "denoiser": {"denoiser"},
        "joint": {"h_a", "h_s", "gain", "denoiser"},
    }[stage]
    assert wanted <= reached and bool(torch.isfinite(losses["objective"])) and groups
    after = [part.network.state_dict() for part in model.modules() if isinstance(part, Frozen)]
    assert (
        all(torch.equal(a[name], b[name]) for a, b in zip(before, after, strict=True) for name in a)
        and len(after) == 3
    )
    assert not any(
        p.requires_grad
        for part in model.modules()
        if isinstance(part, Frozen)
        for p in part.network.parameters()
    )


def test_steps_start_where_rate_and_distortion_are_balanced():
    """By brute force on the shipped VAE: of all steps the cheapest in MSE + lambda * bpp is near the one it
    starts with.
    """
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = create_bk_sdm_compression_model(SCENES, N=N, M=M).eval()
    x, lambda_rate = batch(16, seed=5)[0], 1e-2
    with torch.no_grad():
        y = model.analyse(x, torch.zeros(16))
        costs = {}
        for octave in (-3, -2, -1, 0, 1, 2, 3):
            delta = model.step_size(lambda_rate) * 2.0**octave
            q = (y / delta).round()
            mse = (
                (model.synthesise(q * delta, torch.zeros(16), (64, 64)).clamp(0, 1) - x)
                .square()
                .mean()
                .item()
            )
            bits = (
                sum(
                    -(p * p.log2()).sum()
                    for channel in range(4)
                    for p in [q[:, channel].unique(return_counts=True)[1] / q[:, channel].numel()]
                )
                / 16
            )  # an ideal coder's, per pixel
            costs[octave] = mse + lambda_rate * bits.item()
    assert min(costs, key=costs.get) in (-1, 0, 1)


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


# the folder of lesson 05


@torch.no_grad()
def test_on_the_shipped_folder_the_u_net_repairs_what_rounding_broke():
    """Even with an untrained hyperprior: at a coarse step K = 1 is more than a decibel above K = 0."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = create_bk_sdm_compression_model(SCENES, N=N, M=M).eval()
    x, _ = batch(8, seed=99)
    coded = model.compress(x, 1e-2)
    plain, asked = (
        psnr(model.decompress(coded["strings"], coded["shape"], steps=k)["x_hat"], x).mean().item()
        for k in (0, 1)
    )
    assert asked > plain + 1 and model.config.schedule == FOLDER


@torch.no_grad()
@pytest.mark.parametrize(
    "lambda_rate, bytes_at_most, gain", [(3e-2, 100, 2.5), (3e-3, 125, 1.5)]
)  # measured: 92, +3.3 dB; 116, +1.9 dB
def test_the_shipped_codec_of_scenes(lambda_rate, bytes_at_most, gain):
    model = DiffusionHyperprior.from_pretrained(SCENES.with_name("scenes-codec"))
    x, _ = batch(8, seed=99)
    files = dhp_file.encode_batch(model, x, lambda_rate=lambda_rate)
    plain, asked = (psnr(dhp_file.decode_batch(model, files, steps=k), x).mean().item() for k in (0, 1))
    assert sum(map(len, files)) / len(files) < bytes_at_most and asked > plain + gain

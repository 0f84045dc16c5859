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
from bk_sdm import M, N, created, written
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    PNDMScheduler,
    UNet2DConditionModel,
)
from models import picture
from oracles import largest
from torch import nn
from transformers import CLIPTextModel, CLIPTokenizer

from dhp_lab.codec import DiffusionHyperprior, create_bk_sdm_compression_model
from dhp_lab.codec.stable_diffusion.networks import Frozen
from dhp_lab.data.scenes import batch
from dhp_lab.training.codec_objective import CodecObjective

pytestmark = pytest.mark.usefixtures("in_float32")

SCENES = Path(__file__).resolve().parents[2] / "data" / "checkpoints" / "scenes-f4"


@pytest.fixture(scope="module")
def bk_sdm(tmp_path_factory) -> Path:
    return written(tmp_path_factory.mktemp("bk-sdm"))


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
def test_the_u_net_is_evaluated_as_diffusers_does(tmp_path, prediction):
    """K = 1 without an adapter and with all the weight: the scheduler's own estimate at t*."""
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
    found = unet(sample, t - 1, encoder_hidden_states=context).sample
    clean = (
        (sample - math.sqrt(1 - root**2) * found) / root
        if prediction == "epsilon"
        else root * sample - math.sqrt(1 - root**2) * found
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
    """As the closed form's variance falls, D goes to it; both precisions add up."""
    decoder_state, sigma = model.decoder_state(model.encode(picture(64, 64), [15000])), None
    sigma = model.sampler.noise_levels(decoder_state, 1)[0]
    base, variance = model.denoiser.single_latent_posterior(decoder_state.symbols, sigma, decoder_state)
    found = []
    for a in (-20.0, 0.0, 5.0):
        other = created(Path(model.config.bk_sdm_path))
        other.denoiser.error[0] = a
        clean, predicted_variance = other.denoiser(decoder_state.symbols, sigma, decoder_state)
        v_u = sigma.square() * math.exp(a)
        assert torch.allclose(1 / predicted_variance, 1 / variance + 1 / v_u.clamp(min=1e-12), rtol=1e-3)
        found.append((clean - base).square().mean().item())
    assert found[0] > found[1] > found[2]


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
        "codec": {"h_a", "h_s"},
        "denoiser": {"denoiser"},
        "joint": {"h_a", "h_s", "denoiser"},
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

"""The BK-SDM codec: rates at a ceiling, what each part of the denoiser adds, the explorer's picture of a
scene.
"""

from __future__ import annotations

import io
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.models.attention_processor import Attention, AttnProcessor
from oracles import largest
from PIL import Image
from torch import nn

from dhp_lab.codec import create_bk_sdm_compression_model
from dhp_lab.codec.bits import bitstream
from dhp_lab.codec.entropy_coding import decode_latents
from dhp_lab.codec.stable_diffusion.networks import Frozen
from dhp_lab.data.images import to_pixels
from dhp_lab.data.photos import PHOTOS
from dhp_lab.data.scenes import batch
from dhp_lab.latent.autoencoders import decode, encode
from dhp_lab.lessons.bk_sdm_codec import coded_scenes
from dhp_lab.lessons.bk_sdm_codec import figures as lesson
from dhp_lab.lessons.bk_sdm_codec.coded_scenes import CodedScenes, knows_photos, new_scenes, photo_detail
from dhp_lab.lessons.bk_sdm_codec.costs import multiply_adds, published_costs
from dhp_lab.lessons.bk_sdm_codec.explorer import explore as explore_bk_sdm_codec
from dhp_lab.metrics.pixels import psnr

pytestmark = pytest.mark.usefixtures("in_float32")

FOLDER = Path(__file__).resolve().parents[2] / "data" / "checkpoints" / "scenes-f4"
START = {"lambda_rate": 1e-2, "steps": 1, "scene": 1}


@pytest.fixture(scope="module")
def model():
    """A codec on the shipped folder with an untrained hyperprior, and an adapter that adds something."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = create_bk_sdm_compression_model(FOLDER, N=8, M=12).eval()
        nn.init.normal_(model.denoiser.adapter.exit.weight, std=0.02)
    return model


@pytest.fixture(scope="module")
def decoder_state(model):
    return decode_latents(model, **model.compress(new_scenes(2), 3e-2))


@pytest.fixture(scope="module")
def coded(model):
    return CodedScenes(model)


def folder_unet() -> UNet2DConditionModel:
    return UNet2DConditionModel.from_pretrained(FOLDER, subfolder="unet").eval()


# rates and ceilings


def test_between_two_points_quality_goes_with_the_logarithm_of_the_rate():
    curve = [1.0, 0.1, 10.0], [30.0, 20.0, 32.0]  # in any order
    assert lesson.first_rate(curve, 25.0) == (pytest.approx(math.sqrt(0.1)), True)
    assert lesson.first_rate(curve, 31.0) == (pytest.approx(math.sqrt(10)), True)


def test_a_ceiling_outside_a_curve_is_named():
    curve = [0.1, 1.0], [20.0, 30.0]
    assert lesson.first_rate(curve, 19.0) == (0.1, False)
    assert lesson.first_rate(curve, 31.0) == (math.inf, False)


def test_curves_and_ceilings_are_drawn_as_given():
    curves = {"a": ([0.1, 1.0], [20.0, 30.0]), "b": ([0.2, 2.0], [25.0, 31.0])}
    (axes,) = lesson.ceiling_figure(curves, {"the VAE": 26.65}, logarithmic=True).axes
    lines = {line.get_label(): line for line in axes.lines}
    assert list(lines) == ["a", "b", "the VAE"] and axes.get_xscale() == "log"
    assert all(np.array_equal(lines[name].get_data(), curve) for name, curve in curves.items())
    assert set(lines["the VAE"].get_ydata()) == {26.65} and lines["the VAE"].get_linestyle() == "--"
    assert len({line.get_color() for line in axes.lines}) == 3


def test_gains_are_drawn_over_the_given_levels():
    factors = np.array([0.5, 1, 2])
    (axes,) = lesson.level_figure(factors, {"λ = 0.1": np.array([1.0, 2.0, 1.5])}).axes
    middle, curve = axes.lines
    assert set(middle.get_xdata()) == {1} and np.array_equal(curve.get_data(), [factors, [1.0, 2.0, 1.5]])
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0.5", "1", "2"]


# the denoiser's parts


@torch.no_grad()
def test_the_u_net_alone_is_what_diffusers_u_net_predicts(model, decoder_state):
    unet = folder_unet()
    delta = decoder_state.log2_delta.exp2().view(-1, 1, 1, 1)
    y_hat = delta * (decoder_state.symbols + decoder_state.mean)
    sigma = delta[0].item() / math.sqrt(12)
    t, s = model.denoiser.schedule.time_of(sigma).item(), 1 / math.sqrt(1 + sigma**2)
    v = unet(s * y_hat, t - 1, encoder_hidden_states=model.denoiser.context.expand(2, -1, -1)).sample
    clean = s * s * y_hat - math.sqrt(1 - s * s) * v
    alone = lesson.unet_alone(model).sampler.sample(decoder_state, steps=1)
    assert largest(alone - clean) < 1e-3


@torch.no_grad()
def test_each_part_adds_something_and_the_codec_stays_as_it_is(model, decoder_state):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    estimates = [
        one.sampler.sample(decoder_state, steps=1)
        for one in (lesson.unet_alone(model), lesson.without_adapter(model), model)
    ]
    assert largest(estimates[0] - estimates[1]) > 1e-3 and largest(estimates[1] - estimates[2]) > 1e-3
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert torch.equal(estimates[2], model.sampler.sample(decoder_state, steps=1))


@torch.no_grad()
def test_another_u_net_takes_the_place_of_the_codecs(model, decoder_state):
    own = model.denoiser.unet.network
    same = lesson.with_unet(model, own)
    assert torch.equal(
        same.sampler.sample(decoder_state, steps=1), model.sampler.sample(decoder_state, steps=1)
    )
    other = lesson.with_unet(model, own)
    other.denoiser.unet.network.conv_out.bias += 1
    assert (
        largest(other.sampler.sample(decoder_state, steps=1) - same.sampler.sample(decoder_state, steps=1))
        > 0.01
    )
    assert torch.equal(
        same.sampler.sample(decoder_state, steps=1), model.sampler.sample(decoder_state, steps=1)
    )
    assert other.g_s.decoder.network is model.g_s.decoder.network  # the VAE is not copied


@pytest.mark.parametrize(("vae", "unet"), [(True, True), (True, False), (False, True)])
def test_weights_are_counted_on_the_right_side(vae, unet):
    with torch.random.fork_rng():
        one = create_bk_sdm_compression_model(
            FOLDER, N=8, M=12, use_pretrained_vae=vae, use_pretrained_unet=unet
        )
    own, borrowed = lesson.weights_of(one)
    parts = AutoencoderKL.from_pretrained(FOLDER, subfolder="vae"), folder_unet()
    counts = [sum(p.numel() for p in part.parameters()) for part in parts]
    assert borrowed == vae * counts[0] + unet * counts[1]
    assert own == sum(p.numel() for p in one.parameters()) and (own > counts[0]) == (not vae)


@pytest.fixture
def removal(tmp_path):
    """A file as benchmarks/small_teachers.py writes it."""

    def line(size, state, change):
        part = {"error": 0.5, "change": change, "half": 1.5, "changes": [change - 1, change + 1]}
        return {"size": size, "state": state, "parameters": 1234, "seeds": 2, "all": part, "codec": part}

    found = {
        "command": "python benchmarks/small_teachers.py --seeds 0,1",
        "seeds": [0, 1],
        "summary": [
            line("full", "the teacher", 0),
            line("full", "trained on", -2),
            line("base", "cut", 8.25),
        ],
        "environment": {"device": "a CPU", "threads": 1, "versions": {"torch": "2"}, "date": "today"},
    }
    (tmp_path / "a.json").write_text(json.dumps(found))
    return tmp_path / "a.json"


def test_block_removal_is_shown_as_measured(removal):
    text = lesson.removal_table(removal).text
    words = (
        "base, cut",
        "1,234",
        "+8.2 ± 1.5 %",
        ">0.500<",
        "small_teachers.py --seeds 0,1",
        "seeds measured: 0, 1",
    )
    assert all(word in text for word in words) and "+0.0 ±" not in text


def test_the_changes_are_drawn_with_their_intervals(removal):
    both = lesson.removal_figure(removal).axes
    assert [label.get_text() for label in both[0].get_yticklabels()] == ["full, trained on", "base, cut"]
    for axes in both:
        (bar,) = axes.collections[1:] or axes.collections
        assert np.allclose(bar.get_segments()[0][:, 0], [6.75, 9.75])


# costs


def test_multiply_adds_are_those_by_hand():
    with torch.device("meta"):
        conv = nn.Conv2d(4, 6, 3, padding=1)
        assert multiply_adds(conv, torch.empty(2, 4, 5, 7)) == 2 * 9 * 4 * 6 * 5 * 7
        linear = nn.Linear(8, 3)
        assert multiply_adds(linear, torch.empty(10, 8)) == 10 * 8 * 3


def test_attention_is_counted():
    attention = Attention(query_dim=32, heads=4, dim_head=8, bias=False)
    attention.set_processor(AttnProcessor())
    assert multiply_adds(attention, torch.zeros(1, 50, 32)) == 4 * 50 * 32 * 32 + 2 * 50 * 50 * 32


def test_the_published_parts_have_the_published_sizes():
    costs = published_costs(64)
    millions = {name: round(cost.parameters / 1e6) for name, cost in costs.items()}
    assert millions["U-Net, full"] == 860 and millions["VAE encoder"] + millions["VAE decoder"] == 83
    smaller = [millions[f"U-Net, {size}"] for size in ("base", "small", "tiny")]
    assert np.allclose(smaller, [580, 490, 330], rtol=0.025)  # Kim et al. 2023
    assert costs["VAE decoder"].multiply_adds > 2.5 * costs["U-Net, full"].multiply_adds


# the explorer's picture


def test_scenes_are_always_the_same_and_none_of_training():
    assert torch.equal(new_scenes(3, 2)[:1], new_scenes(1, 2))
    assert not any(torch.equal(new_scenes(1), other) for other in (new_scenes(1, 1), batch(1, 0)[0]))


def test_the_walk_goes_down_the_folders_times(model, coded):
    walk, schedule = coded.times(1e-1, 4), model.denoiser.schedule
    assert schedule.sigma(walk[0]).item() == pytest.approx(model.step_size(1e-1) / math.sqrt(12), rel=1e-6)
    decoder_state = decode_latents(model, **model.compress(new_scenes(1), 1e-1))
    levels = [
        level.flatten()[0].item() * model.step_size(1e-1)
        for level in model.sampler.noise_levels(decoder_state, 4)
    ]
    assert (
        np.allclose(schedule.sigma(torch.tensor(walk)), levels, rtol=1e-4)
        and sorted(walk, reverse=True) == walk
    )
    assert coded.times(1e-1, 0) == []


def test_what_is_decoded_is_what_the_codec_decodes(model, coded):
    strings = model.compress(new_scenes(1, 5), 1e-2)["strings"]
    file = bitstream.read(coded.encode(5, 1e-2))
    assert file.strings == strings
    for steps in (0, 1, 3):
        assert torch.equal(
            coded.decode(5, 1e-2, steps), model.decompress(strings, (64, 64), steps=steps)["x_hat"]
        )


def test_the_ceiling_is_the_vae_alone(model, coded):
    vae = AutoencoderKL.from_pretrained(FOLDER, subfolder="vae").eval()
    with torch.no_grad():
        assert largest(coded.ceiling(5) - decode(vae, encode(vae, new_scenes(1, 5)))) < 1e-4
    sizes, qualities = coded.curve(5, 0)
    assert sizes == sorted(sizes) and len(sizes) == len(coded_scenes.CURVE_RATES)
    assert qualities[-1] == pytest.approx(psnr(coded.ceiling(5), new_scenes(1, 5)).item(), abs=0.7)


def test_the_picture_shows_the_four_and_says_what_it_is(model, coded):
    shown = coded.render(**START)
    canvas = np.asarray(Image.open(io.BytesIO(shown.picture)))
    assert canvas.shape[1::-1] == coded_scenes.SIZE
    side, top = 64 * coded_scenes.ZOOM, coded_scenes.TITLE
    pictures = new_scenes(1, 1), coded.ceiling(1), coded.decode(1, 1e-2, 0), coded.decode(1, 1e-2, 1)
    for i, picture in enumerate(pictures):
        left = i * (side + coded_scenes.GAP)
        panel = canvas[top : top + side, left : left + side]
        assert np.array_equal(panel[1 :: coded_scenes.ZOOM, 1 :: coded_scenes.ZOOM], to_pixels(picture))
    n_bytes = len(coded.encode(1, 1e-2))
    assert (
        f"{n_bytes} bytes" in shown.text
        and f"decoded from {n_bytes} bytes (λ = 0.01) with K = 0 and K = 1" in shown.alt
    )
    assert f"t* = {coded.times(1e-2, 1)[0]:.1f} of 1000" in shown.text
    assert all(f">{psnr(picture, pictures[0]).item():.2f}<" in shown.text for picture in pictures[1:])


def test_the_picture_is_pure(coded):
    state = torch.get_rng_state()
    assert coded.render(**START) == coded.render(**START) and torch.equal(state, torch.get_rng_state())


def test_photos_are_shown_where_the_vae_has_learnt_them(model, monkeypatch):
    assert not knows_photos(model)
    monkeypatch.setattr(coded_scenes, "through_vae", lambda model, x: x + 0.01)
    assert knows_photos(model)
    explorer = explore_bk_sdm_codec(model)
    canvas = np.asarray(Image.open(io.BytesIO(explorer.render(**START).picture)))
    shown = canvas[coded_scenes.TITLE : coded_scenes.TITLE + coded_scenes.SHOWN, : coded_scenes.SHOWN]
    assert np.array_equal(shown, to_pixels(photo_detail(1)))
    assert explorer.still().text.count(f"Photo {PHOTOS[1]}") == 1


@pytest.mark.parametrize("change", [{"scene": 2}, {"lambda_rate": 2e-2}, {"steps": 0}, {"steps": 2}], ids=str)
def test_every_control_changes_picture_and_text(coded, change):
    one, other = coded.render(**START), coded.render(**START | change)
    assert one.picture != other.picture and one.text != other.text


def test_the_explorer_starts_there(model):
    explorer = explore_bk_sdm_codec(model)
    assert explorer.position() == START
    explorer.controls["steps"].value = 0
    assert "U-Net evaluations at times: none" in explorer.text.value
    assert not any(
        p.requires_grad
        for part in model.modules()
        if isinstance(part, Frozen)
        for p in part.network.parameters()
    )

"""Lesson 05: its figures show what they are given, its measures agree with closed forms, its explorer draws
what the model does.
"""

from __future__ import annotations

import io
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from dhp_lab.data.scenes import KINDS, batch, check_captions
from dhp_lab.diffusion.schedules import linear
from dhp_lab.latent.autoencoders import encode, kl_autoencoder
from dhp_lab.lessons.latent_diffusion import figures as lesson
from dhp_lab.lessons.latent_diffusion import measures as measures
from dhp_lab.lessons.latent_diffusion.explorer import explore as explore_latent_diffusion
from dhp_lab.notebook.scene_figures import file_bits, scenes_figure
from dhp_lab.notebook.style import CSS_DPI
from dhp_lab.training.latent_diffusion import LatentConfig, new_latent_diffusion

START = {"caption": "a yellow triangle", "f": "8", "steps": 3, "guidance": 4.0, "seed": 0}
SMALL = LatentConfig(
    widths=(16, 16), attention=(True, True), text_width=16, text_layers=1, diffusion_steps=20
)


@pytest.fixture(scope="module")
def model():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        found = new_latent_diffusion(SMALL, kl_autoencoder(8, widths=(8, 8, 8, 16)))
    for part in (found.vae, found.unet, found.text_encoder):
        part.eval().requires_grad_(False)
    return found


@pytest.fixture(scope="module")
def scenes():
    return batch(6, seed=3)


# figures


def test_pictures_are_drawn_pixel_for_pixel(scenes):
    x = (scenes[0] * 255).round() / 255
    figure = scenes_figure({"one": x[:3], "two": x[3:5]}, titles=["a\nb", "c", "d"], zoom=2, label=100)
    image = np.asarray(figure.axes[0].images[0].get_array())
    high, wide = image.shape[:2]
    assert (round(figure.get_size_inches()[1] * CSS_DPI), round(figure.get_size_inches()[0] * CSS_DPI)) == (
        high,
        wide,
    )
    top = high - 2 * 128 - lesson.GAP
    for row, column, i in ((0, 0, 0), (0, 2, 2), (1, 1, 4)):
        start, left = top + row * (128 + lesson.GAP), 100 + column * (128 + lesson.GAP)
        shown = image[start : start + 128 : 2, left + 1 : left + 128 : 2]
        assert np.array_equal(shown, (x[i] * 255).round().byte().permute(1, 2, 0).numpy())
    assert [text.get_text() for text in figure.texts] == ["a\nb", "c", "d", "one", "two"]
    assert (
        image[top + 128 + lesson.GAP :, 100 + 2 * (128 + lesson.GAP) :] == 255
    ).all()  # the second row is shorter


def test_without_labels_or_titles_no_room_is_kept(scenes):
    image = scenes_figure({"": scenes[0][:2]}).axes[0].images[0].get_array()
    assert image.shape == (64, 128 + lesson.GAP, 3)


@pytest.mark.parametrize(
    "rows", [{}, {"a": torch.zeros(1, 3, 8, 8), "b": torch.zeros(1, 3, 4, 4)}, {"a": torch.zeros(1, 1, 8, 8)}]
)
def test_pictures_must_fit(rows):
    with pytest.raises(ValueError, match="rows must hold pictures"):
        scenes_figure(rows)


def test_overlay_dims_where_the_map_is_low():
    maps = torch.full((2, 4, 4), 0.3)
    maps[0, 0, 0], maps[0, 0, 1] = 0.5, 0.4
    shown = lesson.overlay(torch.ones(1, 3, 4, 4), maps)
    assert shown.shape == (2, 3, 4, 4)
    assert shown[0, :, 0, 0].tolist() == pytest.approx([1.0] * 3) and shown[
        0, 0, 0, 1
    ].item() == pytest.approx(0.575)
    assert shown[0, 0, 3, 3].item() == pytest.approx(0.15) and shown[1].unique().item() == pytest.approx(0.15)


def test_latents_and_codes_are_drawn_as_given():
    kl, vq, counts = torch.randn(1, 4, 8, 8), torch.zeros(2, 4, 8, 8), torch.tensor([1, 0, 6, 3])
    left, middle, right = lesson.latents_figure(kl, vq, counts).axes
    assert [bar.get_height() for bar in right.patches] == pytest.approx([0.6, 0.3, 0.1, 0.0])
    inside = ((kl >= -4) & (kl <= 4)).float().mean().item()
    assert (
        sum(bar.get_height() * bar.get_width() for bar in left.patches) == pytest.approx(1.0)
        and inside > 0.99
    )
    assert sum(bar.get_height() > 0 for bar in middle.patches) == 1


def test_rates_are_drawn_as_given():
    curve, floor, marks = (
        (torch.tensor([10.0, 100.0]), torch.tensor([50.0, 5.0])),
        {"f = 4": 4.0},
        {"PNG": (9000, 0.0)},
    )
    (axes,) = lesson.rate_distortion_figure({"f = 4": curve}, floor, marks).axes
    drawn, across, mark = axes.lines
    assert drawn.get_xdata().tolist() == [10, 100] and drawn.get_ydata().tolist() == [50, 5]
    assert set(across.get_ydata()) == {4.0} and across.get_color() == drawn.get_color()
    assert (mark.get_xdata()[0], mark.get_ydata()[0]) == (9000, 0.0) and axes.get_xscale() == "log"


def test_file_bits_are_those_of_the_file(scenes, tmp_path):
    Image.fromarray((scenes[0][0] * 255).round().byte().permute(1, 2, 0).numpy()).save(
        tmp_path / "x.png", optimize=True
    )
    assert file_bits(scenes[0][:1], "PNG", optimize=True) == 8 * (tmp_path / "x.png").stat().st_size


PLACE = {"device": "a <machine>", "threads": 2, "versions": {"torch": "2.13"}, "date": "2026-11-21"}


def test_costs_are_shown_as_measured(tmp_path):
    def one(scale):
        trained = {
            "seconds": [scale, 9.0, 0.0],
            "idle_memory_mb": 100.0,
            "peak_memory_mb": 100.0 + 50 * scale,
        }
        drawn = {"seconds": [2 * scale], "decoder_seconds": [0.125]}
        return {
            "count": {"shape": [4, 8, 8], "parameters": 1_250_000, "evaluation": scale * 1e9},
            "train": trained,
            "sample": drawn,
        }

    found = {
        "command": "python <it>",
        "environment": PLACE,
        "batch": 16,
        "steps": 25,
        "second": {"pixels": one(4), "f8": one(1)},
    }
    (tmp_path / "cost.json").write_text(json.dumps(found))
    text = lesson.measured_cost(tmp_path / "cost.json").text
    for words in (
        "on pixels",
        "on latents, f = 8",
        "4 x 8 x 8",
        "1.25 million",
        ">4.00<",
        ">1.00<",
        ">200<",
        ">50<",
        ">8.00<",
        ">0.125<",
        "on 16 pictures",
        "in 25 steps",
        "python &lt;it&gt;",
        "a &lt;machine&gt;",
        "2 threads",
    ):
        assert words in text, words


def test_caption_accuracy_is_shown_as_measured(tmp_path):
    def shares(*values):
        names = ("all", "one thing", "two", "three")
        return {name: value and {"share": value} for name, value in zip(names, values, strict=True)}

    drawn = {
        "name": "drawn scenes",
        "placed": shares(1.0, 1.0, 1.0, None),
        "matches": shares(0.995, 1.0, 1.0, None),
    }
    model = {
        "name": "f = 8",
        "f": 8,
        "guidance": 4.0,
        "steps": 25,
        "placed": shares(0.875, 0.9, 0.85, 0.8),
        "matches": shares(0.5, 1, 1, 1),
    }
    found = {"command": "python it", "environment": PLACE, "count": 512, "rows": [drawn, model]}
    (tmp_path / "accuracy.json").write_text(json.dumps(found))
    text = lesson.measured_accuracy(tmp_path / "accuracy.json").text
    for words in (
        "512 captions",
        "of one thing",
        "drawn scenes",
        ">-<",
        ">99.5%<",
        "f = 8",
        ">4<",
        ">25<",
        ">87.5%<",
        ">50.0%<",
    ):
        assert words in text, words


# what the words look at


def test_recording_changes_nothing(model, scenes):
    z_t, t, context = torch.randn(2, 4, 8, 8), torch.tensor([5.0, 9.0]), model.context(scenes[1][:2])
    before, kinds = (
        model.unet(z_t, t, context).sample,
        {name: type(one) for name, one in model.unet.attn_processors.items()},
    )
    with measures.recorded_attention(model.unet) as maps:
        assert (model.unet(z_t, t, context).sample - before).abs().max() < 1e-5
    assert len(maps) == sum("attn2" in name for name in kinds) > 0
    assert all((found.sum(2) - 1).abs().max() < 1e-5 and found.shape[2] == context.shape[1] for found in maps)
    assert {name: type(one) for name, one in model.unet.attn_processors.items()} == kinds


def test_recording_ends_with_an_error(model):
    kinds = {name: type(one) for name, one in model.unet.attn_processors.items()}
    with pytest.raises(RuntimeError, match="mine"), measures.recorded_attention(model.unet):
        raise RuntimeError("mine")
    assert {name: type(one) for name, one in model.unet.attn_processors.items()} == kinds


def test_a_map_is_the_softmax_over_the_words(model, scenes):
    context, seen = model.context(scenes[1][:2]), []
    attention = next(m for name, m in model.unet.named_modules() if name.endswith("attn2"))
    handle = attention.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(args[0]), with_kwargs=True
    )
    with measures.recorded_attention(model.unet) as maps:
        model.unet(torch.randn(2, 4, 8, 8), torch.tensor([5.0, 9.0]), context)
    handle.remove()
    heads, q, k = attention.heads, attention.to_q(seen[0]), attention.to_k(context)
    q, k = (x.unflatten(2, (heads, -1)) for x in (q, k))
    scores = torch.einsum("bphd,blhd->bhpl", q, k) / q.shape[-1] ** 0.5
    assert (
        min((found - scores.softmax(-1).mean(1)).abs().max() for found in maps if found.shape[1] == 64) < 1e-5
    )


def test_word_maps_keep_their_places():
    even, left = torch.full((4, 16, 3), 1 / 3), torch.zeros(4, 4, 3)
    left[:, 0::2, 1] = 1.0  # 2 x 2 places, the left column
    shown = measures.word_maps([even, even], 2, side=8)
    assert shown.shape == (2, 3, 8, 8) and (shown - 1 / 3).abs().max() < 1e-6
    shown = measures.word_maps([left], 1, side=8)
    assert (
        shown[0, 1, :, 0].tolist() == [1.0] * 8
        and shown[0, 1, :, 7].tolist() == [0.0] * 8
        and not shown[0, 0].any()
    )


@pytest.mark.parametrize("maps", [[], [torch.ones(1, 4, 3)]])
def test_word_maps_need_maps(maps):
    with pytest.raises(ValueError, match="at least 2 items"):
        measures.word_maps(maps, 2)


# bits


def test_the_chain_of_normal_data_sends_what_the_channel_holds(monkeypatch):
    schedule = linear(200)
    z0 = torch.randn(64, 4, 16, 16, generator=torch.Generator().manual_seed(0))

    def exact(z_t, t, context):
        sigma, scale = (
            values.float()[:, None, None, None] for values in (schedule.sigma(t), schedule.scale(t))
        )
        return z_t / scale * sigma / (1 + sigma**2)

    vae = SimpleNamespace(config=SimpleNamespace(scaling_factor=1.0))
    model = SimpleNamespace(schedule=schedule, vae=vae, context=len, eps=exact, pictures=lambda z: z)
    monkeypatch.setattr(measures, "encode", lambda vae, x: x)
    found = measures.progressive_code(model, z0, [""] * 64, count=60)
    assert found.times[0] == 200 and found.times[-1] == 1 and bool((found.times.diff() < 0).all())
    sigma2 = schedule.sigma(found.times).square()
    expected = z0[0].numel() / 2 * torch.log2(1 + 1 / sigma2)  # what z_t tells of z0 (Shannon 1948)
    assert ((found.bits - expected).abs() / expected[-1]).max() < 0.01
    assert (found.rmse - 255 * (sigma2 / (1 + sigma2)).sqrt()).abs().max() < 2


def test_the_code_is_a_function_of_its_seed(model, scenes):
    found = [
        measures.progressive_code(model, scenes[0][:2], scenes[1][:2], count=4, seed=seed)
        for seed in (0, 0, 1)
    ]
    assert torch.equal(found[0].bits, found[1].bits) and torch.equal(found[0].rmse, found[1].rmse)
    assert not torch.equal(found[0].bits, found[2].bits)


# networks of ours


def test_the_layers_end_in_the_latents(model, scenes):
    x = scenes[0][:2]
    layers, encoder = measures.encoder_layers(model.vae, x), model.vae.encoder
    assert [layer.shape[-1] for layer in layers] == [32, 16, 8, 8, 8]
    moments = model.vae.quant_conv(encoder.conv_out(encoder.conv_act(encoder.conv_norm_out(layers[-1]))))
    assert (moments[:, :4] - encode(model.vae, x)).abs().max() < 1e-5
    features = measures.encoder_features(model.vae, x)
    assert features.shape == (2, 32) and torch.allclose(features[1, 3], layers[-1][1, 3].mean())
    assert torch.allclose(features[1, 19], layers[-1][1, 3].flatten().std())


def test_single_things_are_what_their_captions_say():
    pictures, captions = measures.single_things(72, seed=5)
    assert all(check.matches for check in check_captions(pictures, captions))
    assert captions[:18] == list(measures.THINGS) and captions[18:36] == captions[:18]
    assert torch.equal(pictures[:20], measures.single_things(20, seed=5)[0])
    assert len({picture.numpy().tobytes() for picture in pictures}) == 72


def test_the_classifier_gives_log_probabilities(model):
    classifier = measures.ThingClassifier(model.vae, count=54)
    pictures, _ = measures.single_things(8, seed=9)
    logits = classifier(pictures)
    features = (
        (measures.encoder_features(model.vae, pictures).double() - classifier.mean) / classifier.std
    ).numpy()
    assert logits.shape == (8, 18)
    assert np.abs(logits.softmax(1).numpy() - classifier.model.predict_proba(features)).max() < 1e-9


def test_the_reader_is_the_penalised_least_squares_fit(model):
    reader = measures.WordReader(model.vae, count=120, penalty=1e-2)
    pictures, captions = batch(120, 2000)
    features = measures.encoder_features(model.vae, pictures).double().numpy()
    words = torch.stack([reader.words(caption) for caption in captions]).numpy()
    a, b = features - features.mean(0), words - words.mean(0)
    penalty = np.sqrt(1e-2 * (a**2).sum(0).mean()) * np.eye(a.shape[1])
    best = np.linalg.lstsq(
        np.vstack([a, penalty]), np.vstack([b, np.zeros_like(penalty)[:, :18]]), rcond=None
    )[0]
    guessed, given = reader(pictures, captions)
    assert np.abs(guessed.numpy() - a @ best).max() < 1e-6 and np.abs(given.numpy() - b).max() < 1e-12


def test_the_words_are_counted():
    found = measures.WordReader.words("a red circle above a blue square and a cyan square")
    assert found.sum() == 11 and found[0] == 3 and found[measures.WORDS.index("square")] == 2
    with pytest.raises(ValueError, match="does not know 'pink'"):
        measures.WordReader.words("a pink circle")


# the explorer's picture


@pytest.fixture(scope="module")
def draws(model):
    return lesson.SceneDraws({"8": model, "other": model})


def test_the_picture_is_what_the_model_draws(draws, model):
    shown = draws.render(**START)
    image = np.asarray(Image.open(io.BytesIO(shown.picture)))
    assert image.shape[1::-1] == lesson.SIZE
    samples = model.sample(["a yellow triangle"] * 6, steps=3, guidance=4.0, seed=0)
    for i, sample in enumerate(samples):
        left = lesson.LABEL + i * (128 + lesson.GAP)
        assert np.array_equal(
            image[0:128:2, left : left + 128 : 2], (sample * 255).round().byte().permute(1, 2, 0).numpy()
        )
    assert shown.alt.startswith("Six pictures for 'a yellow triangle': f = 8, 3 steps, guidance 4, seed 0")
    obeyed = sum(check.matches for check in check_captions(samples, ["a yellow triangle"] * 6))
    assert f"{obeyed} of 6 pictures obey the caption" in shown.text


def test_the_picture_is_pure(draws):
    state = torch.get_rng_state()
    assert draws.render(**START) == draws.render(**START) and torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize(
    "change", [{"caption": "a cyan square"}, {"steps": 4}, {"guidance": 0.0}, {"seed": 1}]
)
def test_every_control_changes_the_picture(draws, change):
    assert draws.render(**START).picture != draws.render(**START | change).picture


def test_the_grammar_answers_a_caption_it_does_not_know(model):
    explorer = explore_latent_diffusion({"8": model})
    assert explorer.position() == {
        "caption": lesson.CAPTIONS[0],
        "f": "8",
        "steps": 20,
        "guidance": 4.0,
        "seed": 0,
    }
    with pytest.raises(ValueError, match="pink"):
        explorer.controls["caption"].value = "a pink circle"
    assert "its words are" in explorer.text.value
    explorer.controls["caption"].value = "a red circle"
    assert "of 6 pictures obey" in explorer.text.value and "a red circle" in explorer.picture.value


def test_every_offered_caption_is_one(model):
    assert all(
        model.tokens([caption]).shape[1] == model.tokenizer.model_max_length for caption in lesson.CAPTIONS
    )
    assert set(KINDS) <= set(" ".join(lesson.CAPTIONS).split())

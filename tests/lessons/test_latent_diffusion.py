"""The lesson on latent diffusion: its figures show what they are given, its explorer draws what the model
does.
"""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
import torch
from PIL import Image

from dhp_lab.data.scenes import KINDS, check_captions
from dhp_lab.lessons.latent_diffusion import figures as lesson
from dhp_lab.lessons.latent_diffusion.explorer import explore as explore_latent_diffusion

START = {"caption": "a yellow triangle", "f": "8", "steps": 3, "guidance": 4.0, "seed": 0}


@pytest.fixture(scope="module")
def model(small_latent_diffusion):
    return small_latent_diffusion


# figures


def test_heat_maps_have_one_scale_and_their_words():
    maps = torch.ones(2, 4, 4)
    maps[1, 0, 0] = 17.0  # the mean is 2
    figure = lesson.heat_figure(torch.zeros(1, 3, 4, 4), maps, ["red", "circle"], columns=2)
    picture, red, circle, bar = figure.axes
    assert [text.get_text() for text in figure.texts] == ["the picture", "red", "circle"]
    shown = [axes.images[0] for axes in (red, circle)]
    assert shown[0].get_array().max() == pytest.approx(1.0) and shown[1].get_array().max() == pytest.approx(
        8.5
    )
    assert all(image.get_clim() == (0, pytest.approx(8.5)) for image in shown)
    assert bar.get_ylabel() == "attention / its mean" and picture.images


def test_quality_over_operations_is_drawn_as_measured(tmp_path):
    share = {"share": 0.8, "low": 0.7, "high": 0.85}
    rows = [
        {"f": f, "guidance": guidance, "steps": steps, "matches": {"all": share}}
        for f in (4, 8)
        for guidance in (1.0, 4.0)
        for steps in (20, 10)
    ]
    count = {"f4": (3e9, 1e9), "f8": (1e9, 1e9), "pixels": (30e9, 0)}
    second = {key: {"count": {"evaluation": one, "decoder": two}} for key, (one, two) in count.items()}
    (tmp_path / "a.json").write_text(json.dumps({"rows": [{"name": "drawn"}, *rows]}))
    (tmp_path / "b.json").write_text(json.dumps({"second": second}))
    (axes,) = lesson.compute_figure(tmp_path / "a.json", tmp_path / "b.json").axes
    lines = [one.lines[0] for one in axes.containers]
    assert [line.get_xdata().tolist() for line in lines] == [[21.0, 41.0], [61.0, 121.0]]
    assert all(line.get_ydata().tolist() == [0.8, 0.8] for line in lines)
    verticals = [line.get_xdata()[0] for line in axes.lines if len(set(line.get_xdata())) == 1]
    assert {60.0, 1500.0} <= set(verticals)


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
    matching = sum(check.matches for check in check_captions(samples, ["a yellow triangle"] * 6))
    assert f"{matching} of 6 pictures match the caption" in shown.text


def test_the_picture_is_pure(draws):
    state = torch.get_rng_state()
    assert draws.render(**START) == draws.render(**START) and torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize(
    "change", [{"caption": "a cyan square"}, {"steps": 4}, {"guidance": 0.0}, {"seed": 1}]
)
def test_every_control_changes_the_picture(draws, change):
    assert draws.render(**START).picture != draws.render(**START | change).picture


def test_a_caption_outside_the_grammar_is_answered(model):
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
    assert "of 6 pictures match" in explorer.text.value and "a red circle" in explorer.picture.value


def test_every_offered_caption_is_one(model):
    assert all(
        model.tokens([caption]).shape[1] == model.tokenizer.model_max_length for caption in lesson.CAPTIONS
    )
    assert set(KINDS) <= set(" ".join(lesson.CAPTIONS).split())

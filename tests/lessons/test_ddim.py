"""The lesson on DDIM: figures show the numbers they are given, the explorer what the sampler draws."""

from __future__ import annotations

import io
import json
import re
from itertools import pairwise

import pytest
import torch
from PIL import Image

from dhp_lab.data.digits import load_digits
from dhp_lab.diffusion.ideal import IdealDenoiser
from dhp_lab.diffusion.samplers import ddim, start
from dhp_lab.diffusion.schedules import linear
from dhp_lab.lessons.ddim import figures as lesson
from dhp_lab.lessons.ddim.explorer import explore as explore_ddim
from dhp_lab.notebook.html import picture_bytes
from dhp_lab.notebook.results import measured_samplers

SCHEDULE = linear(50)


@pytest.fixture(scope="module")
def draws():
    return lesson.DigitDraws(IdealDenoiser(load_digits().train[:40], SCHEDULE), SCHEDULE)


# figures


def test_paths_are_drawn_as_given():
    paths = {"η = 0": torch.arange(6.0).view(2, 3), "η = 1": -torch.arange(9.0).view(3, 3)}
    figure = lesson.paths_figure([10.0, 5.0, 0.0], paths)
    for axes, (label, values) in zip(figure.axes, paths.items(), strict=True):
        assert [line.get_xdata().tolist() for line in axes.lines] == [[10.0, 5.0, 0.0]] * len(values)
        assert [line.get_ydata().tolist() for line in axes.lines] == values.tolist()
        assert axes.get_title(loc="left") == label and axes.get_xlabel()
    with pytest.raises(ValueError, match=re.escape("paths must be (runs, 2), got [(2, 3), (3, 3)]")):
        lesson.paths_figure([1.0, 0.0], paths)


def test_quality_curves_are_drawn_as_given():
    figure = lesson.quality_figure(
        {"η = 0": {5: 9.0, 50: 3.0}, "η = 1": {50: 4.0}}, {"real digits": 1.0}, ylabel="distance"
    )
    axes = figure.axes[0]
    assert [line.get_xydata().tolist() for line in axes.lines[:2]] == [[[5, 9], [50, 3]], [[50, 4]]]
    assert list(axes.lines[2].get_ydata()) == [1.0, 1.0]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["η = 0", "η = 1", "real digits"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["5", "50"]
    picture_bytes(figure)


def test_measured_samplers_are_shown_as_the_benchmark_wrote_them(tmp_path):
    quality = {"frechet_distance": 1.234, "precision": 0.9, "recall": 0.876, "diversity": 1.01}
    rows = [
        {
            "name": name,
            "steps": steps,
            "evaluations": steps,
            "milliseconds": 12.34,
            "quality": quality,
            "control": 0.98765,
        }
        for name, steps in (("DDIM", 50), ("DDIM", 5), ("other", 7))
    ]
    place = {"date": "2026-01-02", "device": "a <fast> one", "threads": 2, "versions": {"torch": "2.0"}}
    found = {
        "command": "python a.py --b 3",
        "environment": place,
        "samples": 360,
        "samplers": rows,
        "real": {"quality": quality | {"frechet_distance": 0.5}, "control": 0.97},
    }
    file = tmp_path / "found.json"
    file.write_text(json.dumps(found))
    shown = re.findall(r"<tr>(.*?)</tr>", measured_samplers("DDIM", file=file).text)
    cells = [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in shown[1:]]
    assert cells == [
        ["DDIM", "50", "50", "12.3", "1.23", "0.90", "0.88", "1.01", "98.8%"],
        ["DDIM", "5", "5", "12.3", "1.23", "0.90", "0.88", "1.01", "98.8%"],
        ["real digits", "", "", "", "0.50", "0.90", "0.88", "1.01", "97.0%"],
    ]
    assert len(re.findall("<th", shown[0])) == 9
    text = measured_samplers("other", "DDIM", file=file).text
    assert (
        "<code>python a.py --b 3</code>" in text
        and "360 digits" in text
        and "a &lt;fast&gt; one, 2 threads" in text
    )
    assert "<td" in text and ">other</td>" in text
    for names in ((), ("DDIM", "DDPM")):
        with pytest.raises(ValueError, match="names must be among DDIM, other; got"):
            measured_samplers(*names, file=file)


def test_errors_are_counted_in_levels():
    a = torch.zeros(2, 1, 8, 8)
    assert lesson.level_error(a - 1, a + 1) == 16
    assert lesson.level_error(a, a + 0.125) == 1


# the explorer


@pytest.mark.parametrize(("steps", "eta"), [(5, 0.0), (20, 0.7)])
def test_the_runs_are_the_samplers(draws, steps, eta):
    x_T, states = draws.runs(steps, eta, 3)
    generator = torch.Generator().manual_seed(3)
    noise = start(SCHEDULE, (lesson.COLUMNS, 1, 8, 8), generator=generator)
    assert torch.equal(x_T, torch.cat([noise, noise]))
    expected = list(ddim(draws.denoiser, SCHEDULE, x_T, count=steps, eta=eta, generator=generator))
    assert [state.t for state in states] == [state.t for state in expected] and states[-1].t == 0
    assert all(torch.equal(a.x, b.x) for a, b in zip(states, expected, strict=True))


def test_both_runs_agree_exactly_where_sampling_is_deterministic(draws):
    apart = {eta: lesson.level_error(*draws.runs(10, eta, 0)[1][-1].x.chunk(2)) for eta in (0.0, 0.5, 1.0)}
    assert apart[0.0] < 1e-3 < 0.5 < min(apart[0.5], apart[1.0])


@pytest.mark.parametrize("steps", [1, 3, 20])
def test_the_picture_has_its_place_and_says_what_it_shows(draws, steps):
    shown = draws.render(steps=steps, eta=0.5, seed=7)
    with Image.open(io.BytesIO(shown.picture)) as picture:
        assert picture.size == lesson.SIZE
    assert f"{steps} steps, η = 0.5, seed 7" in shown.alt
    assert (
        f"Network evaluations: {steps};" in shown.text
        and "t = " in shown.text
        and shown.text.count("of 16") == 1
    )


def test_the_same_position_gives_the_same_picture_and_leaves_the_global_generator_alone(draws):
    before = torch.get_rng_state()
    first, second = (draws.render(steps=8, eta=1.0, seed=1) for _ in range(2))
    assert first.picture == second.picture
    assert torch.equal(torch.get_rng_state(), before)


def test_every_slider_changes_picture_and_text(draws):
    explorer = explore_ddim(draws.denoiser, SCHEDULE)
    shown = [(explorer.picture.value, explorer.text.value)]
    for name, value in (("steps", 21), ("eta", 0.1), ("seed", 1)):
        explorer.controls[name].value = value
        shown.append((explorer.picture.value, explorer.text.value))
    assert [a != b and c != d for (a, c), (b, d) in pairwise(shown)] == [True] * 3
    assert explorer.start == {"steps": 20, "eta": 0.0, "seed": 0} and 'alt="8 noises' in explorer.still().text

"""The lesson on guidance: closed forms of its toy and of the Bayes classifier; what it reads of results."""

from __future__ import annotations

import json
import math

import pytest
import torch
from oracles import largest, seeded

from dhp_lab.diffusion.ideal import IdealDenoiser
from dhp_lab.diffusion.process import q_sample
from dhp_lab.diffusion.schedules import geometric, linear
from dhp_lab.lessons.conditional import measured
from dhp_lab.lessons.conditional.bayes import bayes_classifier, class_gradient
from dhp_lab.lessons.conditional.two_classes import ANY, ASKED, MEANS, OTHER, STD, TwoClasses, far_share

each_schedule = pytest.mark.parametrize("schedule", [linear(100), geometric(100)], ids=lambda s: s.name)

# two classes in the plane


@pytest.mark.parametrize("label, members", [(OTHER, [0, 1]), (ASKED, [2, 3]), (ANY, [0, 1, 2, 3])])
def test_the_density_is_that_of_torchs_mixture_up_to_a_constant(label, members):
    u, sigma = torch.randn(20, 2, generator=seeded(), dtype=torch.float64), 0.6
    width = torch.full((len(members), 2), math.hypot(STD, sigma), dtype=torch.float64)
    parts = torch.distributions.Independent(torch.distributions.Normal(MEANS[members].double(), width), 1)
    even = torch.distributions.Categorical(torch.ones(len(members)).double())
    exact = torch.distributions.MixtureSameFamily(even, parts).log_prob(u)
    found = TwoClasses(linear(10)).log_density(u, sigma, label)
    assert largest((found - found[0]) - (exact - exact[0])) < 1e-9


@each_schedule
@pytest.mark.parametrize("label", [OTHER, ASKED, ANY])
def test_the_estimate_is_the_gradient_of_the_log_density(schedule, label):
    toy, t = TwoClasses(schedule), torch.full((20,), 60.0)
    x = torch.randn(20, 2, generator=seeded(), dtype=torch.float64, requires_grad=True)
    log_p = toy.log_density(x / schedule.scale(60.0), schedule.sigma(60.0).item(), label)
    (gradient,) = torch.autograd.grad(log_p.sum(), x)
    eps = toy(x.detach(), t, torch.full((20,), label))
    assert largest(eps + schedule.scale(60.0) * schedule.sigma(60.0) * gradient) < 1e-9


def test_the_far_mode_is_counted():
    assert far_share(torch.tensor([[0.9, 0.8], [0.0, -0.7], [2.0, 2.0], [-1.0, -1.0]])) == 0.5


# the Bayes classifier


@each_schedule
def test_the_bayes_classifier_has_the_gradient_of_the_ideal_denoiser(schedule):
    data = torch.randn(40, 1, 2, 3, generator=seeded(), dtype=torch.float64)
    classes = torch.arange(40) % 4
    ideal, log_p = IdealDenoiser(data, schedule, classes), bayes_classifier(data, classes, schedule)
    t, label = torch.linspace(20, 100, 8), torch.arange(8) % 4
    x_t = q_sample(schedule, data[:8], t, torch.randn(8, 1, 2, 3, generator=seeded(1), dtype=torch.float64))
    implied = ideal(x_t, t, label) - ideal(x_t, t, torch.full((8,), ideal.null))
    unit = (schedule.scale(t) * schedule.sigma(t))[:, None]
    assert largest(class_gradient(log_p, x_t, t, label) + implied.flatten(1) / unit) < 1e-6
    assert largest(log_p(x_t, t).exp().sum(1) - 1) < 1e-9


# what was measured


@pytest.fixture
def results(tmp_path):
    numbers = {name: [1.0, 3.0] for name in measured.MEASURES}
    rows = [
        {"scale": 1.0, "threshold": "static", "low": 0, "high": None, "measured": numbers},
        {"scale": 8.0, "threshold": "none", "low": 0, "high": None, "measured": numbers},
        {"scale": 8.0, "threshold": "static", "low": 0, "high": 200, "measured": numbers},
    ]
    place = {"device": "a CPU", "threads": 1, "versions": {"torch": "2"}, "date": "2026-01-01"}
    found = {
        "command": "python b.py",
        "environment": place,
        "samples": 9,
        "steps": 5,
        "seeds": 2,
        "rows": rows,
    }
    file = tmp_path / "found.json"
    file.write_text(json.dumps(found))
    return file


def test_rows_are_chosen_by_what_was_varied(results):
    assert [row["scale"] for row in measured.measured_rows(file=results)] == [1.0]
    assert [
        row["threshold"] for row in measured.measured_rows(scales=[8], thresholds=["none"], file=results)
    ] == ["none"]
    (row,) = measured.measured_rows(intervals=True, file=results)
    assert row["high"] == 200
    assert measured.means_and_deviations([row], "recall") == ([2.0], [pytest.approx(2**0.5)])
    text = measured.guidance_table([row], file=results).text
    assert "0 &lt; t ≤ 200" in text and "2.00 ± 1.41" in text and "python b.py" in text and "9 digits" in text
    with pytest.raises(ValueError, match="no row of found.json has scale"):
        measured.measured_rows(scales=[7], file=results)


def test_the_rows_that_the_lesson_shows_were_measured():
    assert len(measured.measured_rows()) == 7
    assert len(measured.measured_rows(scales=[8], intervals=True)) == 4
    assert len(measured.measured_rows(scales=[1, 8, 15], thresholds=["none", "static", "dynamic"])) == 7

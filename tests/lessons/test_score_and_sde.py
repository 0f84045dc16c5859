"""Lesson 03: the toy's closed forms, its figures, the explorer's pictures."""

import io
import math
import re

import numpy as np
import pytest
import torch
from diffusers import EulerDiscreteScheduler
from PIL import Image
from scipy.integrate import solve_ivp

from dhp_lab.diffusion.process import q_sample
from dhp_lab.diffusion.schedules import geometric, linear
from dhp_lab.lessons.score_and_sde import checks
from dhp_lab.lessons.score_and_sde import figures as lesson
from dhp_lab.lessons.score_and_sde.explorer import explore as explore_score_and_sde
from dhp_lab.lessons.score_and_sde.mixture import ISLANDS
from dhp_lab.notebook.html import picture_bytes
from dhp_lab.notebook.style import CHART_DPI


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def opened(picture):
    return Image.open(io.BytesIO(picture))


# The toy


@pytest.mark.parametrize("sigma", [0.0, 0.3, 5.0])
def test_density_is_that_of_torchs_mixture(sigma):
    means = torch.tensor(ISLANDS.means, dtype=torch.float64)
    width = torch.tensor(math.hypot(ISLANDS.std, sigma), dtype=torch.float64)
    islands = torch.distributions.Independent(torch.distributions.Normal(means, width.expand(3, 2)), 1)
    choice = torch.distributions.Categorical(torch.tensor(ISLANDS.weights, dtype=torch.float64))
    mixture = torch.distributions.MixtureSameFamily(choice, islands)
    u = lesson.plane(9).double()
    assert (ISLANDS.log_density(u, sigma) - mixture.log_prob(u)).abs().max() < 1e-9


def test_score_is_the_gradient_of_the_log_density():
    u, sigma = lesson.plane(9).double().requires_grad_(), torch.linspace(0.1, 3, 81)
    (gradient,) = torch.autograd.grad(ISLANDS.log_density(u, sigma).sum(), u)
    assert (gradient - ISLANDS.score(u.detach(), sigma)).abs().max() < 1e-9


@pytest.mark.parametrize("schedule", [linear(100), geometric(100)], ids=lambda s: s.name)
def test_denoiser_gives_the_mean_of_the_noise(schedule):
    """E[eps given x_t] is orthogonal to eps - E[eps given x_t]: the error's energy is 1 minus that of the
    answer.
    """
    x0, t = ISLANDS.sample(200_000, seeded()), 40.0
    eps = torch.randn(x0.shape, generator=seeded(1))
    estimate = ISLANDS.denoiser(schedule)(q_sample(schedule, x0, t, eps), torch.full((len(x0),), t))
    assert (eps - estimate).square().mean().item() == pytest.approx(
        1 - estimate.square().mean().item(), abs=0.01
    )


def test_samples_have_the_shares_and_the_width_of_the_data():
    x = ISLANDS.sample(20_000, seeded())
    assert ISLANDS.shares(x) == pytest.approx(ISLANDS.weights, abs=4 * math.sqrt(0.24 / 20_000))
    assert ISLANDS.width(x) == pytest.approx(1, abs=0.02)


def test_side_view_is_the_histogram_of_states():
    schedule, t, edges = linear(1000), 300.0, torch.linspace(-4, 4, 41)
    x_t = q_sample(
        schedule, ISLANDS.sample(100_000, seeded()), t, torch.randn(100_000, 2, generator=seeded(1))
    )
    found = torch.histogram(x_t[:, 0].contiguous(), edges, density=True).hist
    middles = (edges[1:] + edges[:-1]) / 2
    assert (found - ISLANDS.first_coordinate_density(middles, schedule, t)).abs().max() < 0.02


# Figures


def test_plane_runs_along_x_first_and_upwards():
    assert lesson.plane(3, 1.0).tolist() == [
        [-1, -1],
        [0, -1],
        [1, -1],
        [-1, 0],
        [0, 0],
        [1, 0],
        [-1, 1],
        [0, 1],
        [1, 1],
    ]


def test_figures_have_a_panel_for_each_title():
    density, points = np.ones((8, 8)), ISLANDS.sample(20, seeded()).numpy()
    times, values = np.linspace(0, 10, 5), np.linspace(-1, 1, 7)
    paths = (times, values, np.ones((7, 5)), np.zeros((3, 5)))
    curves = {"a": ([1, 10], [0.1, 0.01])}
    figures = [
        lesson.field_figure({"one": (density, np.ones((4, 4, 2))), "two": (density, np.ones((4, 4, 2)))}),
        lesson.points_figure({"one": points, "two": points}, density),
        lesson.paths_figure({"one": paths, "two": paths}),
        lesson.convergence_figure({"one": curves, "two": curves}, "distance"),
    ]
    for figure in figures:
        assert [axes.get_title(loc="left") for axes in figure.axes] == ["one", "two"]
        width, height = figure.get_size_inches() * CHART_DPI
        assert opened(picture_bytes(figure)).size == (int(width), int(height))


def test_arrows_point_where_the_field_does():
    field = np.zeros((2, 2, 2))
    field[0, 1] = [3.0, -4.0]  # at the lower right corner
    figure = lesson.field_figure({"one": (np.ones((4, 4)), field)}, reach=1.0)
    arrows = figure.axes[0].collections[0]
    assert arrows.get_offsets().tolist() == [[-1, -1], [1, -1], [-1, 1], [1, 1]]
    assert (arrows.U[1], arrows.V[1]) == pytest.approx((0.6, -0.8)) and not arrows.U[[0, 2, 3]].any()


@pytest.mark.parametrize("power", [1, 2])
def test_orders_are_those_of_powers(power):
    steps = [5, 10, 20, 50]
    errors = [7.0, *(3.0 * count**-power for count in steps[1:])]
    assert lesson.order(steps, errors) == pytest.approx(power)
    axes = lesson.convergence_figure({"one": {"a": (steps, errors)}}, "error").axes[0]
    assert axes.get_legend().get_texts()[0].get_text() == f"a: order {power}.0"
    assert axes.lines[0].get_ydata().tolist() == errors


def test_heun_of_the_check_follows_the_flow_of_scipy():
    u = checks._start()[:20]

    def slope(sigma, flat):
        return (-sigma * ISLANDS.score(torch.from_numpy(flat).view(-1, 2), sigma)).flatten().numpy()

    exact = solve_ivp(slope, (checks.TOP, 0.0), u.flatten().numpy(), rtol=1e-8, atol=1e-10).y[:, -1]
    found = checks.heun(u, checks.karras_levels(250, 1e-4, checks.TOP))
    assert (found - torch.from_numpy(exact).view(-1, 2)).norm(dim=1).median() < 2e-4


def test_karras_levels_are_those_of_diffusers():
    scheduler = EulerDiscreteScheduler(use_karras_sigmas=True)
    theirs = scheduler._convert_to_karras(np.array([50.0, 0.01]), 9)
    assert np.abs(np.array(checks.karras_levels(9, 0.01, 50.0)) - theirs).max() < 1e-6


# The explorer


@pytest.mark.parametrize("schedule", lesson.SCHEDULES)
@pytest.mark.parametrize("sampler", lesson.SAMPLERS)
def test_picture_is_pure_and_its_text_says_what_it_shows(sampler, schedule):
    position = {"sampler": sampler, "beside": "DDPM", "schedule": schedule, "steps": 3, "snr": 0.16}
    shown = lesson.sampler_picture(**position, points=50)
    assert shown == lesson.sampler_picture(**position, points=50)
    assert opened(shown.picture).size == lesson.SIZE
    assert f"{schedule}, 3 steps" in shown.alt and f"{sampler} puts" in shown.alt and "of 50" in shown.alt
    evaluations = {lesson.CORRECTED: 18, "probability flow (Heun)": 6}.get(sampler, 3)
    assert f">{evaluations}</td>" in shown.text


def test_both_samplers_are_drawn_from_the_same_noise():
    position = {"schedule": "VP, linear", "steps": 3, "snr": 0.16, "points": 50}
    one = lesson.sampler_picture(sampler="DDIM", beside="DDPM", **position)
    other = lesson.sampler_picture(sampler="DDPM", beside="DDIM", **position)
    assert one.picture != other.picture and sorted(one.text) == sorted(other.text)


@pytest.mark.slow
def test_snr_matters_to_the_corrector_alone():
    def shown(sampler, snr):
        position = {"beside": "DDIM", "schedule": "VE, geometric", "steps": 3, "points": 50}
        return lesson.sampler_picture(sampler=sampler, snr=snr, **position)

    assert shown(lesson.CORRECTED, 0.1).picture != shown(lesson.CORRECTED, 0.2).picture
    assert shown("DDIM", 0.1) == shown("DDIM", 0.2)


def test_the_explorer_shows_the_widths_that_the_lesson_tells():
    """The folded answers quote them; another processor may round the last digit otherwise."""
    position = {"schedule": "VP, linear", "steps": 20, "snr": 0.16}
    quoted = {("DDIM", "Euler-Maruyama"): (0.86, 1.06), ("DDPM", "probability flow (Heun)"): (0.74, 1.02)}
    for (sampler, beside), widths in quoted.items():
        text = lesson.sampler_picture(sampler=sampler, beside=beside, **position).text
        found = [float(number) for number in re.findall(r">(\d\.\d\d)</td>", text)]
        assert found == pytest.approx([*widths, 1.0], abs=0.011)


def test_explorer_starts_with_ddim_beside_euler_maruyama():
    explorer = explore_score_and_sde()
    assert explorer.start == {
        "sampler": "DDIM",
        "beside": "Euler-Maruyama",
        "schedule": "VP, linear",
        "steps": 20,
    }
    assert 'class="dhp-still"' in explorer.still().text and "alt=" in explorer.still().text

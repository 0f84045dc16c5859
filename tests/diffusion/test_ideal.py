"""The ideal denoiser against Bayes' rule by brute force and against the score of its own density; rescaling
against it.
"""

from __future__ import annotations

import math

import pytest
import torch
from oracles import largest

from dhp_lab.diffusion.ideal import IdealDenoiser, rescaled
from dhp_lab.diffusion.process import q_sample, score_from_eps
from dhp_lab.diffusion.schedules import cosine, geometric, linear

each_schedule = pytest.mark.parametrize(
    "schedule", [linear(50), cosine(50), geometric(50)], ids=lambda s: s.name
)


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@each_schedule
@pytest.mark.parametrize("t", [1.0, 7.5, 50.0])
def test_posterior_mean_by_brute_force(schedule, t):
    data = draw(6, 1, 2, 3)
    x = q_sample(schedule, data[:4], t, draw(4, 1, 2, 3, seed=1))
    s, sigma = schedule.scale(t).item(), schedule.sigma(t).item()
    expected = []
    for state in x:
        exponents = [-((state / s - item) ** 2).sum().item() / (2 * sigma**2) for item in data]
        weights = [math.exp(e - max(exponents)) for e in exponents]
        expected.append(sum(w * item for w, item in zip(weights, data, strict=True)) / sum(weights))
    expected = torch.stack(expected)
    denoiser = IdealDenoiser(data, schedule)
    assert largest(denoiser.x0(x, t) - expected) < 1e-9
    times = torch.full((4,), t)
    assert largest(denoiser(x, times) - (x / s - expected) / sigma) < 1e-9 * max(1, 1 / sigma)


@each_schedule
def test_each_item_has_its_own_time(schedule):
    data, times = draw(5, 1, 2, 2), torch.tensor([1.0, 20.0, 50.0])
    x = q_sample(schedule, data[:3], times, draw(3, 1, 2, 2, seed=1))
    denoiser = IdealDenoiser(data, schedule)
    alone = torch.cat([denoiser(x[i : i + 1], times[i : i + 1]) for i in range(3)])
    assert largest(denoiser(x, times) - alone) < 1e-12


@each_schedule
@pytest.mark.parametrize("t", [3.0, 25.0, 50.0])
def test_its_score_is_the_gradient_of_the_log_density(schedule, t):
    """p_t is a mixture of N Gaussians around s x_i of deviation s sigma: autograd of its logarithm, up to a
    constant.
    """
    data, s, sigma = draw(7, 5), schedule.scale(t).item(), schedule.sigma(t).item()
    x = q_sample(schedule, data[:3], t, draw(3, 5, seed=1)).requires_grad_()
    squares = (x[:, None] - s * data).square().sum(-1)
    (score,) = torch.autograd.grad(torch.logsumexp(-squares / (2 * (s * sigma) ** 2), 1).sum(), x)
    eps = IdealDenoiser(data, schedule)(x.detach(), torch.full((3,), t))
    assert largest(score_from_eps(schedule, x.detach(), t, eps) / score - 1) < 1e-7


@each_schedule
def test_no_denoiser_errs_less(schedule):
    """Its mean squared error over the data's own states is below that of itself disturbed, whatever the
    disturbance.
    """
    data, t = draw(4, 3), 20.0
    eps = draw(4000, 3, seed=1)
    x = q_sample(schedule, data.repeat(1000, 1), t, eps)
    ideal = IdealDenoiser(data, schedule)(x, torch.full((4000,), t))
    least = (eps - ideal).square().mean()
    for other in (0.9 * ideal, ideal + 0.1, ideal + 0.1 * x.sin()):
        assert (eps - other).square().mean() > least


@each_schedule
def test_both_ends_of_the_chain(schedule):
    """With little noise the answer is the nearest item, with much of it nearly the mean of all."""
    data = draw(6, 1, 4, 4)
    denoiser = IdealDenoiser(data, schedule)
    near = q_sample(schedule, data, 0.01, draw(6, 1, 4, 4, seed=1))
    assert largest(denoiser.x0(near, 0.01) - data) < 1e-9
    far = IdealDenoiser(data, geometric(2, last=1e6))
    assert largest(far.x0(1e6 * draw(2, 1, 4, 4, seed=2), 2) - data.mean(0)) < 1e-4


def test_float32_states_keep_their_precision_where_there_is_next_to_no_noise():
    schedule, data = linear(1000), draw(200, 1, 8, 8).clamp(-1, 1).float()
    x, eps = q_sample(schedule, data, 1, noise := draw(200, 1, 8, 8, seed=1).float()), noise
    found = IdealDenoiser(data, schedule)(x, torch.ones(200))
    assert found.dtype == torch.float32 and largest(found - eps) < 1e-4, (
        "sigma is 0.01: 1e-7 of rounding counts 1e-5"
    )


def test_a_label_leaves_the_data_of_its_class():
    schedule, data, labels = linear(50), draw(9, 1, 2, 2), torch.tensor([0, 1, 3] * 3)
    denoiser = IdealDenoiser(data, schedule, labels)
    x, t = draw(4, 1, 2, 2, seed=1), torch.tensor([5.0, 10.0, 30.0, 50.0])
    wanted = torch.tensor([3, 0, 4, 1])
    assert denoiser.null == 4
    for i, label in enumerate(wanted.tolist()):
        own = data if label == denoiser.null else data[labels == label]
        assert largest(denoiser(x, t, wanted)[i] - IdealDenoiser(own, schedule)(x, t)[i]) < 1e-12
    assert torch.equal(denoiser(x, t), denoiser(x, t, torch.full((4,), 4)))


@pytest.mark.parametrize(
    "known, schedule",
    [
        (linear(1000), geometric(50)),
        (cosine(1000), linear(30)),
        (geometric(40, last=200.0), linear(1000)),
    ],
)
def test_rescaled_is_the_ideal_denoiser_of_the_other_schedule(known, schedule):
    data, t = draw(8, 1, 3, 3), torch.tensor([1.0, 3.25, 11.0, schedule.steps], dtype=torch.float64)
    x = q_sample(schedule, data[:4], t, draw(4, 1, 3, 3, seed=1))
    found = rescaled(IdealDenoiser(data, known), known, schedule)(x, t)
    assert largest(found - IdealDenoiser(data, schedule)(x, t)) < 1e-9


def test_rescaled_to_its_own_schedule_changes_nothing():
    schedule, seen = linear(30), []
    x, t = draw(3, 2), torch.tensor([1.0, 7.25, 30.0], dtype=torch.float64)
    rescaled(lambda *given: seen.append(given) or given[0], schedule, schedule)(x, t)
    assert largest(seen[0][0] - x) < 1e-12 and largest(seen[0][1] - t) < 1e-9


def test_rescaled_needs_a_chain_that_reaches_as_far():
    with pytest.raises(ValueError, match=r"sigma must lie in \[0, .*'linear' with 1000 steps.*; got 1000"):
        rescaled(lambda x, t: x, linear(1000), geometric(10, last=1000.0))


def test_what_does_not_fit_is_refused():
    schedule, data = linear(50), draw(4, 1, 2, 2)
    denoiser, labelled = (
        IdealDenoiser(data, schedule),
        IdealDenoiser(data, schedule, torch.tensor([0, 0, 2, 2])),
    )
    x, t = draw(2, 1, 2, 2), torch.tensor([1.0, 2.0])
    for call, message in (
        (lambda: IdealDenoiser(data[:0], schedule), r"at least one item, got shape \(0, 1, 2, 2\)"),
        (
            lambda: IdealDenoiser(data, schedule, torch.zeros(3).long()),
            r"labels must be 4 whole numbers >= 0, got .*\(3,\)",
        ),
        (lambda: IdealDenoiser(data, schedule, torch.zeros(4)), r"4 whole numbers >= 0, got torch.float32"),
        (lambda: denoiser(x[..., :1], t), r"x_t must be \(B, 1, 2, 2\), got \(2, 1, 2, 1\)"),
        (lambda: denoiser(x, torch.tensor([1.0, 0.0])), r"t must lie in \(0, 50\], got 0"),
        (lambda: denoiser(x, torch.tensor([1.0, 51.0])), r"t must lie in \[0, 50\], got 1 .. 51"),
        (lambda: denoiser(x, t, torch.tensor([0, 0])), "these data have no classes"),
        (
            lambda: labelled(x, t, torch.tensor([0, 1])),
            r"label must hold 2 classes of the data or 3 for any, got \[0, 1\]",
        ),
        (lambda: labelled(x, t, torch.tensor([0])), "label must hold 2 classes"),
    ):
        with pytest.raises(ValueError, match=message):
            call()

"""The variational bound, term by term: against torch's KL, against brute force, and against the exact bits of
Gaussian data.
"""

from __future__ import annotations

import math

import pytest
import torch
from oracles import ideal, largest, normal, seeded
from torch.distributions import MultivariateNormal, Normal, kl_divergence

from dhp_lab.diffusion.bound import check_levels, elbo, level_nats, mean_errors
from dhp_lab.diffusion.process import Denoiser, predict_eps, q_posterior, q_sample, x0_from_eps
from dhp_lab.diffusion.schedules import NoiseSchedule, broadcast_to, cosine, geometric, linear

SHORT = NoiseSchedule("short", torch.tensor([0.1, 0.3, 0.2, 0.5], dtype=torch.float64))
EXPLODING = NoiseSchedule("short", SHORT.betas, preserving=False)
both_scalings = pytest.mark.parametrize("schedule", [SHORT, EXPLODING], ids=["preserving", "exploding"])


def bent(schedule: NoiseSchedule) -> Denoiser:
    """No good denoiser, but one that depends on state and time, and not on how the state is scaled."""
    return lambda x, t: (
        torch.tanh(x / broadcast_to(schedule.scale(t), x)) * broadcast_to(schedule.alpha_bar(t), x)
    )


def bits(
    schedule: NoiseSchedule, x0: torch.Tensor, expected: list[float], seed: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The KLs and the last step's bits, spelled out: two Gaussians for each time, of the noise that ``seed``
    gives.
    """
    generator, per_bit, kls = seeded(seed), x0[0].numel() * math.log(2), []
    for t in [*range(schedule.steps, 1, -1), 1]:
        x_t = q_sample(schedule, x0, t, torch.randn(x0.shape, generator=generator).double())
        estimate = x0_from_eps(schedule, x_t, t, predict_eps(bent(schedule), x_t, t))
        if t == 1:
            return torch.stack(kls, 1), -Normal(estimate, schedule.sigma(1)).log_prob(x0).flatten(1).sum(
                1
            ) / per_bit
        q, p = q_posterior(schedule, x0, x_t, t), q_posterior(schedule, estimate, x_t, t)
        m = 1 + (schedule.snr(t - 1) / schedule.snr(t) - 1) * expected[t - 1]
        kl = kl_divergence(Normal(q.mean, q.variance.sqrt()), Normal(p.mean, (m * p.variance).sqrt()))
        kls.append(kl.flatten(1).sum(1) / per_bit)
    raise AssertionError("t = 1 comes last")


@both_scalings
@pytest.mark.parametrize(
    "expected", [0.0, 1.0, [0.9, 0.4, 0.2, 0.1]], ids=["smallest", "largest", "measured"]
)
def test_every_term_is_torchs_kl_of_two_gaussians(schedule, expected):
    x0 = normal(3, 2, 2)
    terms = elbo(
        bent(schedule),
        schedule,
        x0,
        expected_error=torch.tensor(expected, dtype=torch.float64),
        generator=seeded(7),
    )
    kls, last = bits(schedule, x0, expected if isinstance(expected, list) else [expected] * 4, seed=7)
    assert terms.times.tolist() == [4, 3, 2] and terms.steps == 4
    assert largest(terms.kls - kls) < 1e-10 and largest(terms.reconstruction - last) < 1e-10
    assert largest(terms.total - terms.prior - kls.sum(1) - last) < 1e-10


@both_scalings
def test_the_prior_is_torchs_kl(schedule):
    x0, zero = normal(3, 5), torch.zeros(3, 5).double()
    q = Normal(q_sample(schedule, x0, 4, zero), q_sample(schedule, zero, 4, zero + 1))
    p = Normal(0.0, schedule.scale(4) * (1 + schedule.sigma(4).square()).sqrt())
    wanted = kl_divergence(q, p).sum(1) / 5 / math.log(2)
    assert largest(elbo(bent(schedule), schedule, x0).prior - wanted) < 1e-12


def test_a_preserving_chains_prior_is_the_standard_normal():
    x0 = normal(2, 3)
    q = Normal(SHORT.scale(4) * x0, (1 - SHORT.alpha_bar(4)).sqrt())
    wanted = kl_divergence(q, Normal(0.0, 1.0)).sum(1) / 3 / math.log(2)
    assert largest(elbo(bent(SHORT), SHORT, x0).prior - wanted) < 1e-12


def test_the_bound_does_not_care_how_the_state_is_scaled():
    x0 = normal(4, 3)
    here, there = (
        elbo(bent(s), s, x0, expected_error=0.5, generator=seeded()).total for s in (SHORT, EXPLODING)
    )
    assert largest(here - there) < 1e-10


# Gaussian data

FACTOR = torch.tensor(
    [[1.0, 0.0, 0.0, 0.0], [0.6, 0.9, 0.0, 0.0], [-0.5, 0.3, 0.8, 0.0], [0.1, -0.7, 0.2, 1.1]]
).double()
MEAN = torch.tensor([0.3, -0.2, 0.0, 0.5]).double()
DIAGONAL = MultivariateNormal(MEAN, torch.diag(torch.tensor([0.5, 1.0, 2.0, 0.8]).double()))
CORRELATED = MultivariateNormal(MEAN, FACTOR @ FACTOR.T)


@pytest.mark.slow
@pytest.mark.parametrize(
    "data, schedule",
    [
        pytest.param(DIAGONAL, linear(1000), id="diagonal, linear"),
        pytest.param(CORRELATED, cosine(1000), id="correlated, cosine"),
        pytest.param(CORRELATED, geometric(1000), id="correlated, geometric"),
    ],
)
def test_gaussian_data_take_their_exact_bits_within_a_hundredth(data, schedule):
    """The mean over 8000 draws: its standard error must be small enough for the 1 % to mean something."""
    draw = data.mean + normal(9000, 4) @ torch.linalg.cholesky(data.covariance_matrix).T
    denoiser = ideal(schedule, data)
    expected = mean_errors(denoiser, schedule, draw[:1000], generator=seeded(1))
    total = elbo(denoiser, schedule, draw[1000:], expected_error=expected, generator=seeded(2)).total
    exact = -data.log_prob(draw[1000:]) / 4 / math.log(2)
    error = (total - exact).std().item() / math.sqrt(8000)
    assert error < 0.005 * exact.mean().item()
    assert abs((total - exact).mean().item()) < 0.01 * exact.mean().item()


@pytest.mark.parametrize("expected_error", [0.0, 1.0])
def test_a_wrong_variance_only_costs_bits(expected_error):
    """On a short chain a fixed variance, the smallest or the largest, costs more than the measured one; same
    noise.
    """
    data, schedule = DIAGONAL, cosine(20)
    draw = data.mean + normal(4000, 4) @ torch.linalg.cholesky(data.covariance_matrix).T
    denoiser = ideal(schedule, data)
    expected = mean_errors(denoiser, schedule, draw[:1000], generator=seeded(1))
    best = elbo(denoiser, schedule, draw[1000:], expected_error=expected, generator=seeded(2))
    fixed = elbo(denoiser, schedule, draw[1000:], expected_error=expected_error, generator=seeded(2))
    assert best.total.mean().item() < fixed.total.mean().item() - 0.05


def test_mean_errors_are_those_of_the_posterior():
    """The noise of one normal value is known up to the share v / (v + sigma^2) of its variance."""
    data = MultivariateNormal(torch.zeros(1).double(), 0.3 * torch.eye(1).double())
    x0 = math.sqrt(0.3) * normal(40_000, 1)
    found = mean_errors(ideal(SHORT, data), SHORT, x0, generator=seeded(3))
    wanted = 0.3 / (0.3 + SHORT.sigma(torch.arange(1, 5)).square())
    assert found.shape == (4,) and largest(found / wanted - 1) < 5 * math.sqrt(2 / 40_000)


# grey levels


@pytest.mark.parametrize("levels", [2, 3, 17])
@pytest.mark.parametrize("estimate", [-1.3, -0.96, 0.02, 0.7, 4.0])
def test_the_levels_share_one_normal(levels, estimate):
    """Each bin's mass by torch's cumulative distribution, and all of them together are 1."""
    sigma, grid = 0.2, torch.linspace(-1, 1, levels, dtype=torch.float64)[:, None]
    nats = level_nats((estimate - grid) / sigma, sigma, grid, levels)
    edges = torch.cat(
        [torch.tensor([-math.inf]), (grid[1:, 0] + grid[:-1, 0]) / 2, torch.tensor([math.inf])]
    ).double()
    mass = Normal(torch.tensor(estimate, dtype=torch.float64), sigma).cdf(edges).diff()
    assert largest((-nats).exp() - mass) < 1e-12
    assert (-nats).exp().sum().item() == pytest.approx(1, abs=1e-12)


def test_a_hopeless_estimate_costs_finitely_many_bits():
    """100 sigmas beside the bin its mass is below float64; the tail's leading term is 100^2 / 2 nats."""
    nats = level_nats(torch.tensor([[100.0 + 12.5], [-100.0 - 12.5]]), 0.01, torch.zeros(2, 1), 9)
    assert nats.tolist() == pytest.approx([100**2 / 2 + math.log(100 * math.sqrt(2 * math.pi))] * 2, rel=1e-4)


def chain_probability(
    schedule: NoiseSchedule, denoiser: Denoiser, levels: int, expected: float
) -> torch.Tensor:
    """(levels,) what the model gives each level, by summing over all states on a grid: nothing is bounded."""
    grid = torch.linspace(-20, 20, 1601, dtype=torch.float64)[:, None]
    width = grid[1, 0] - grid[0, 0]
    top = schedule.steps
    density = (
        Normal(0.0, schedule.scale(top) * (1 + schedule.sigma(top).square()).sqrt())
        .log_prob(grid[:, 0])
        .exp()
    )
    for t in range(top, 1, -1):
        estimate = x0_from_eps(schedule, grid, t, predict_eps(denoiser, grid, t))
        step = q_posterior(schedule, estimate, grid, t)
        m = 1 + (schedule.snr(t - 1) / schedule.snr(t) - 1) * expected
        kernel = Normal(step.mean[:, 0], (m * step.variance[0, 0]).sqrt()).log_prob(grid).exp()  # [to, from]
        density = kernel @ density * width
    estimate = x0_from_eps(schedule, grid, 1, predict_eps(denoiser, grid, 1))
    level = torch.linspace(-1, 1, levels, dtype=torch.float64)
    edges = torch.cat(
        [torch.tensor([-math.inf]).double(), (level[1:] + level[:-1]) / 2, torch.tensor([math.inf]).double()]
    )
    mass = Normal(estimate, schedule.sigma(1)).cdf(edges).diff(dim=1)  # (grid, levels)
    return density @ mass * width


@both_scalings
@pytest.mark.parametrize("expected", [0.0, 0.7])
def test_no_level_takes_fewer_bits_than_the_model_gives_it(schedule, expected):
    probability = chain_probability(schedule, bent(schedule), 3, expected)
    assert probability.sum().item() == pytest.approx(1, abs=1e-6)
    x0 = torch.tensor([-1.0, 0.0, 1.0]).double().repeat_interleave(20_000)[:, None]
    total = elbo(
        bent(schedule), schedule, x0, levels=3, expected_error=expected, generator=seeded()
    ).total.reshape(3, -1)
    slack = total.mean(1) + probability.log2()
    assert bool((slack > -4 * total.std(1) / math.sqrt(20_000)).all())


# a choice of times


def test_as_many_times_as_there_are_is_all_of_them():
    x0 = normal(2, 3)
    for schedule in (SHORT, linear(50)):
        times = elbo(bent(schedule), schedule, x0, count=schedule.steps - 1, generator=seeded()).times
        assert times.tolist() == list(range(schedule.steps, 1, -1))


def test_a_random_choice_of_times_has_the_right_mean():
    """A denoiser that misses by a constant makes the KLs plain numbers, so that only the choice is random."""
    schedule, x0, generator = linear(8), torch.zeros(1, 2).double(), seeded()

    def misses(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return x / broadcast_to(schedule.scale(t) * schedule.sigma(t), x) + 0.5

    every = elbo(misses, schedule, x0, generator=generator).total.item()
    some = [elbo(misses, schedule, x0, count=3, generator=generator) for _ in range(400)]
    totals = torch.stack([terms.total for terms in some])
    assert abs(totals.mean().item() - every) < 4 * totals.std().item() / math.sqrt(400)
    times = torch.stack([terms.times for terms in some])
    assert (
        times.shape == (400, 3)
        and times.min() == 2
        and times.max() == 8
        and bool((times.diff(dim=1) <= 0).all())
    )
    assert bool((torch.bincount(times.long().flatten(), minlength=9)[2:] > 0).all())


def test_a_chain_of_one_step_has_no_kl():
    schedule = linear(1)
    terms = elbo(bent(schedule), schedule, normal(3, 4))
    assert terms.kls.shape == (3, 0) and torch.equal(terms.total, terms.prior + terms.reconstruction)


def test_the_answer_is_that_of_its_generator_and_needs_no_gradient():
    network, x0 = torch.nn.Linear(3, 3), normal(2, 3).float()
    here, there, other = (
        elbo(lambda x, t: network(x), SHORT, x0, generator=seeded(seed)).total for seed in (1, 1, 2)
    )
    assert torch.equal(here, there) and not torch.equal(here, other)
    assert here.dtype == torch.float64 and not here.requires_grad


# bad input


@pytest.mark.parametrize("count", [0, -1, 4])
def test_more_times_than_kls_are_refused(count):
    with pytest.raises(ValueError, match=rf"count must lie in 1 \.\. 3, .* got {count}"):
        elbo(bent(SHORT), SHORT, normal(1, 2), count=count)


@pytest.mark.parametrize(
    "expected, words",
    [
        (-0.1, "0 or more, got -0.1"),
        (math.nan, "0 or more, got nan"),
        ([0.1, 0.2], r"one number or \(4,\), got shape \(2,\)"),
    ],
)
def test_expected_errors_that_cannot_be_are_refused(expected, words):
    with pytest.raises(ValueError, match=f"expected_error must be .*{words}"):
        elbo(bent(SHORT), SHORT, normal(1, 2), expected_error=torch.tensor(expected))


@pytest.mark.parametrize("levels", [1, 0, -3])
def test_fewer_than_two_levels_are_refused(levels):
    with pytest.raises(ValueError, match=f"levels must be 2 or more, got {levels}"):
        elbo(bent(SHORT), SHORT, torch.zeros(1, 2), levels=levels)


@pytest.mark.parametrize("value", [0.1, 1.25, -1.125, math.nan])
def test_values_beside_the_levels_are_refused(value):
    x = torch.tensor([[0.0, -1.0, value]])
    with pytest.raises(ValueError, match="x must hold only 17 levels"):
        check_levels(x, 17)
    with pytest.raises(ValueError, match="x must hold only 17 levels"):
        elbo(bent(SHORT), SHORT, x, levels=17)
    check_levels(torch.linspace(-1, 1, 17), 17)

"""Bits per dimension by the bound and by the flow: against closed forms of normal and uniform data, and
digits' exact bits.
"""

from __future__ import annotations

import math

import pytest
import torch
from oracles import ideal, largest, seeded
from sklearn.datasets import load_digits
from torch.distributions import MultivariateNormal

from dhp_lab.diffusion.bound import elbo, mean_errors
from dhp_lab.diffusion.likelihood import bits_per_dim_elbo, bits_per_dim_ode, dequantise, level_bits
from dhp_lab.diffusion.process import Denoiser
from dhp_lab.diffusion.schedules import NoiseSchedule, broadcast_to, cosine, geometric, linear

FACTOR = torch.tensor(
    [[1.0, 0.0, 0.0, 0.0], [0.6, 0.9, 0.0, 0.0], [-0.5, 0.3, 0.8, 0.0], [0.1, -0.7, 0.2, 1.1]]
).double()
MEAN = torch.tensor([0.3, -0.2, 0.0, 0.5]).double()
DIAGONAL = MultivariateNormal(MEAN, torch.diag(torch.tensor([0.5, 1.0, 2.0, 0.8]).double()))
CORRELATED = MultivariateNormal(MEAN, FACTOR @ FACTOR.T)
each_data = pytest.mark.parametrize("data", [DIAGONAL, CORRELATED], ids=["diagonal", "correlated"])
SCHEDULES = {"linear": linear(1000), "cosine": cosine(1000), "geometric": geometric(1000)}
each_schedule = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)


def drawn(data: MultivariateNormal, count: int) -> torch.Tensor:
    noise = torch.randn(count, 4, generator=seeded(), dtype=torch.float64)
    return data.mean + noise @ torch.linalg.cholesky(data.covariance_matrix).T


def flow_bits(schedule: NoiseSchedule, data: MultivariateNormal, x0: torch.Tensor) -> torch.Tensor:
    """The flow of normal data in closed form: along each axis of C it stretches by sqrt((v + sigma_T^2) / (v
    + sigma_1^2)).
    """
    values, vectors = torch.linalg.eigh(data.covariance_matrix)
    bottom, top = schedule.sigma(1).square(), schedule.sigma(schedule.steps).square()
    stretch = ((values + top) / (values + bottom)).sqrt()
    end = data.mean + (x0 - data.mean) @ vectors * stretch @ vectors.T
    log_p = -(end.square() / (1 + top) + torch.log(2 * math.pi * (1 + top))).sum(1) / 2 + stretch.log().sum()
    return -log_p / 4 / math.log(2)


# the flow


@each_data
@each_schedule
def test_the_flow_is_the_closed_form_for_normal_data(data, schedule):
    x0 = drawn(data, 20)
    found = bits_per_dim_ode(ideal(schedule, data), schedule, x0, count=150)
    assert largest(found - flow_bits(schedule, data, x0)) < 1e-4


@each_data
@each_schedule
def test_normal_data_take_their_exact_bits_within_a_hundredth(data, schedule):
    x0 = drawn(data, 200)
    exact = -data.log_prob(x0).mean().item() / 4 / math.log(2)
    assert bits_per_dim_ode(ideal(schedule, data), schedule, x0).mean().item() == pytest.approx(
        exact, rel=0.01
    )


def test_half_the_step_has_a_sixteenth_of_the_error():
    schedule, x0 = geometric(100), drawn(CORRELATED, 20)
    exact = flow_bits(schedule, CORRELATED, x0)
    coarse, fine = (
        largest(bits_per_dim_ode(ideal(schedule, CORRELATED), schedule, x0, count=n) - exact)
        for n in (30, 60)
    )
    assert 12 < coarse / fine < 22


def test_the_flow_does_not_care_how_the_state_is_scaled():
    schedule, x0 = linear(100), drawn(CORRELATED, 5)
    exploding = NoiseSchedule("exploding", schedule.betas, preserving=False)
    here, there = (bits_per_dim_ode(ideal(s, CORRELATED), s, x0, count=5) for s in (schedule, exploding))
    assert largest(here - there) < 1e-10


def test_one_random_sign_finds_the_trace_of_a_diagonal_jacobian():
    schedule, x0 = linear(100), drawn(DIAGONAL, 5)
    exact = bits_per_dim_ode(ideal(schedule, DIAGONAL), schedule, x0, count=5)
    estimate = bits_per_dim_ode(
        ideal(schedule, DIAGONAL), schedule, x0, count=5, probes=1, generator=seeded()
    )
    assert largest(estimate - exact) < 1e-10


def test_random_signs_find_the_trace_without_bias():
    """For one picture many times; the spread of n signs falls as 1/sqrt(n)."""
    schedule, x0 = geometric(50), drawn(CORRELATED, 1).expand(4000, 4)
    denoiser = ideal(schedule, CORRELATED)
    exact = bits_per_dim_ode(denoiser, schedule, x0[:1], count=5).item()
    one, four = (
        bits_per_dim_ode(denoiser, schedule, x0, count=5, probes=n, generator=seeded(n)) - exact
        for n in (1, 4)
    )
    for error in (one, four):
        assert abs(error.mean().item()) < 4 * error.std().item() / math.sqrt(4000)
    assert one.std().item() / four.std().item() == pytest.approx(2, rel=0.1)


def test_networks_are_left_alone():
    """Float32 in, float64 out; a batch's pictures apart; weights without gradients, whatever the caller's
    mode.
    """
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.SiLU(), torch.nn.Conv2d(4, 1, 3, padding=1)
    )
    schedule, x0 = cosine(20), torch.rand(3, 1, 4, 4, generator=seeded())
    together = bits_per_dim_ode(lambda x, t: network(x), schedule, x0, count=3)
    alone = torch.cat([bits_per_dim_ode(lambda x, t: network(x), schedule, x[None], count=3) for x in x0])
    assert together.shape == (3,) and together.dtype == torch.float64 and largest(together - alone) < 1e-4
    assert not together.requires_grad and all(p.grad is None for p in network.parameters())


# grey levels


def test_uniform_noise_stays_within_its_level():
    x = torch.linspace(-1, 1, 17).repeat(2000, 1)
    noise = (dequantise(x, 17, generator=seeded()) - x) * 16
    assert (
        noise.min() >= -1.0001
        and noise.max() <= 1.0001
        and abs(noise.mean().item()) < 4 * math.sqrt(1 / 3 / noise.numel())
    )
    assert noise.square().mean().item() == pytest.approx(1 / 3, rel=0.02)
    assert torch.equal(dequantise(x, 17, generator=seeded(3)), dequantise(x, 17, generator=seeded(3)))


@pytest.mark.parametrize("levels, bits", [(2, -1.0), (3, 0.0), (17, 3.0), (257, 7.0)])
def test_the_change_of_scale_is_the_width_of_a_level(levels, bits):
    assert level_bits(levels) == bits


def test_uniform_levels_take_log2_17_bits():
    """Dequantised, they are uniform on [-17/16, 17/16]; x0's posterior mean is a truncated normal's."""
    schedule, edge = geometric(1000, first=0.002), 17 / 16

    def denoiser(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        sigma, normal = broadcast_to(schedule.sigma(t), x), torch.distributions.Normal(0.0, 1.0)
        low, high = (-edge - x) / sigma, (edge - x) / sigma
        mass = torch.special.ndtr(high) - torch.special.ndtr(low)
        return -(normal.log_prob(low).exp() - normal.log_prob(high).exp()) / mass

    x0 = torch.linspace(-1, 1, 17, dtype=torch.float64).repeat(20)[:, None]
    total = bits_per_dim_ode(
        denoiser, schedule, dequantise(x0, 17, generator=seeded()), count=100
    ) + level_bits(17)
    assert total.mean().item() == pytest.approx(math.log2(17), rel=0.01)


class NoisyDigits:
    """Digits' middles with known probabilities: a kept digit, and each pixel's level moved by chance.

    Both the probability of every picture and the mean of the signal given a state are sums, done without
    approximation.
    """

    def __init__(self) -> None:
        middles = torch.tensor(load_digits().images)[:, 3:6, 2:5].flatten(1)  # (1797, 9) of 0 .. 16
        self.levels = torch.linspace(-1, 1, 17, dtype=torch.float64)
        self.held_out = middles[1500:] / 8 - 1
        self.kept = torch.nn.functional.one_hot(middles[:200].long(), 17).double().flatten(1)  # (200, 9 * 17)
        moved = (torch.arange(17)[:, None] - torch.arange(17)).abs()
        self.log_move = torch.log_softmax(-moved.double() / 1.5, 1)  # [kept level, level]

    def bits(self, x0: torch.Tensor) -> torch.Tensor:
        """(B,) -log2 P(x0) per pixel."""
        index = ((x0 + 1) * 8).round().long()
        each = self.log_move[:, index].permute(1, 2, 0).flatten(1)  # (B, 9 * 17)
        return (math.log(len(self.kept)) - torch.logsumexp(each @ self.kept.T, 1)) / 9 / math.log(2)

    def denoiser(self, schedule: NoiseSchedule) -> Denoiser:
        def denoise(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            sigma, u = broadcast_to(schedule.sigma(t), x), x / broadcast_to(schedule.scale(t), x)
            fit = -((u[..., None] - self.levels) / sigma[..., None]).square() / 2  # (B, 9, level)
            each = fit[..., None, :] + self.log_move  # (B, 9, kept level, level)
            weight = torch.softmax(torch.logsumexp(each, -1).flatten(1) @ self.kept.T, 1) @ self.kept
            means = torch.softmax(each, -1) @ self.levels  # (B, 9, kept level)
            return (u - (weight.reshape(means.shape) * means).sum(-1)) / sigma

        return denoise


@pytest.mark.slow
def test_digits_take_their_exact_bits_by_the_flow_and_more_by_the_bound():
    """The flow is right within 1 % for each picture; the bound's mean lies above, the nearer the more steps
    it has.
    """
    digits, flow_schedule = NoisyDigits(), linear(1000)
    x0 = digits.held_out[:4]
    exact = digits.bits(x0)
    flow = bits_per_dim_ode(digits.denoiser(flow_schedule), flow_schedule, x0, levels=17, generator=seeded())
    assert largest(flow / exact - 1) < 0.01
    slacks = []
    for steps in (10, 40):
        schedule = linear(steps)
        expected = mean_errors(
            digits.denoiser(schedule), schedule, digits.held_out[50:150], generator=seeded(1)
        )
        bound = bits_per_dim_elbo(
            digits.denoiser(schedule),
            schedule,
            x0.repeat(40, 1),
            levels=17,
            expected_error=expected,
            generator=seeded(2),
        )
        slack = bound - exact.repeat(40)
        slacks.append(slack.mean().item())
        assert slacks[-1] > 3 * slack.std().item() / math.sqrt(len(slack)), "above, beyond chance"
    assert slacks[1] < slacks[0]


def test_the_bounds_bits_are_the_total_of_its_terms():
    schedule, x0 = linear(10), dequantise(torch.zeros(2, 4, dtype=torch.float64), 17, generator=seeded())
    terms = elbo(ideal(schedule, DIAGONAL), schedule, x0, expected_error=0.3, count=4, generator=seeded(1))
    total = bits_per_dim_elbo(
        ideal(schedule, DIAGONAL), schedule, x0, expected_error=0.3, count=4, generator=seeded(1)
    )
    assert torch.equal(total, terms.total)


# bad input


@pytest.mark.parametrize(
    "options, words",
    [
        ({"count": 0}, "count must be 1 or more steps, got 0"),
        ({"probes": 0}, "probes must be 1 or more, .* got 0"),
        ({"levels": 1}, "levels must be 2 or more, got 1"),
        ({"levels": 4}, "x must hold only 4 levels"),
    ],
)
def test_bad_options_are_refused(options, words):
    schedule = linear(10)
    with pytest.raises(ValueError, match=words):
        bits_per_dim_ode(
            ideal(schedule, DIAGONAL), schedule, torch.zeros(2, 4, dtype=torch.float64), **options
        )


def test_a_chain_of_one_step_has_no_flow():
    with pytest.raises(ValueError, match="2 steps or more, got 1"):
        bits_per_dim_ode(ideal(linear(1), DIAGONAL), linear(1), torch.zeros(2, 4, dtype=torch.float64))


def test_pictures_without_levels_are_refused():
    for call in (lambda: level_bits(1), lambda: dequantise(torch.zeros(2, 2), 1)):
        with pytest.raises(ValueError, match="levels must be 2 or more, got 1"):
            call()
    with pytest.raises(ValueError, match="x must hold only 17 levels"):
        dequantise(torch.full((2, 2), 0.03), 17)

"""The losses: by hand, against torch's own KL, and where their gradients go."""

from __future__ import annotations

import math

import pytest
import torch
from oracles import largest, normal
from torch.distributions import Normal, kl_divergence

from dhp_lab.diffusion import process
from dhp_lab.diffusion.process import q_posterior, q_sample
from dhp_lab.diffusion.schedules import NoiseSchedule, broadcast_to, cosine, geometric, linear

SHORT = NoiseSchedule("short", torch.tensor([0.1, 0.3, 0.2, 0.5], dtype=torch.float64))
SCHEDULES = {
    "linear": linear(200),
    "cosine": cosine(50),
    "geometric": geometric(100),
    "short": SHORT,
    "short, exploding": NoiseSchedule("short", SHORT.betas, preserving=False),
}
each_schedule = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)


def some_times(schedule: NoiseSchedule, count: int) -> torch.Tensor:
    """Real times of (0, T], the ends among them."""
    return torch.cat([torch.tensor([0.25, 1.0]), torch.linspace(1.5, schedule.steps, count - 2)]).double()


# losses


def off_by(error: torch.Tensor, eps: torch.Tensor, seen: list | None = None) -> process.Denoiser:
    """A denoiser that misses the noise by ``error``, and writes down its inputs."""

    def denoiser(x_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        if seen is not None:
            seen.append((x_t, t))
        return eps - error

    return denoiser


def test_the_simple_loss_is_the_mean_squared_error_at_the_noisy_state():
    x0, eps, error = normal(3, 2, 2), normal(3, 2, 2, seed=1), normal(3, 2, 2, seed=2)
    t, seen = torch.tensor([1.0, 2.0, 3.5]), []
    loss = process.simple_loss(off_by(error, eps, seen), SHORT, x0, t, eps)
    assert loss.shape == () and loss.item() == pytest.approx(
        sum(e**2 for e in error.flatten().tolist()) / 12, rel=1e-12
    )
    assert torch.equal(seen[0][0], q_sample(SHORT, x0, t, eps)) and torch.equal(seen[0][1], t.double())
    assert process.simple_loss(off_by(0 * error, eps), SHORT, x0, 2, eps).item() == 0


def test_a_weighted_loss_weighs_each_item():
    x0, eps, error, t = (
        normal(3, 4),
        normal(3, 4, seed=1),
        normal(3, 4, seed=2),
        torch.tensor([1.0, 2.0, 4.0]),
    )
    loss = process.weighted_loss(off_by(error, eps), SHORT, x0, t, eps, weight=process.min_snr_weight)
    by_hand = (
        sum(
            process.min_snr_weight(SHORT, t[i].item()).item() * error[i].square().sum().item()
            for i in range(3)
        )
        / 12
    )
    assert loss.item() == pytest.approx(by_hand, rel=1e-12)
    ones = process.weighted_loss(
        off_by(error, eps), SHORT, x0, t, eps, weight=lambda schedule, t: torch.ones_like(t)
    )
    assert ones.item() == pytest.approx(
        process.simple_loss(off_by(error, eps), SHORT, x0, t, eps).item(), rel=1e-12
    )


@each_schedule
def test_the_min_snr_weight_bounds_the_weight_of_the_signals_error(schedule):
    t, x0, eps, error = some_times(schedule, 12), normal(12, 3), normal(12, 3, seed=1), normal(12, 3, seed=2)
    x_t = q_sample(schedule, x0, t, eps)
    x0_error = process.x0_from_eps(schedule, x_t, t, eps - error) - process.x0_from_eps(schedule, x_t, t, eps)
    wanted = broadcast_to(schedule.snr(t).clamp(max=3.0), x0) * x0_error.square()
    assert (
        largest(
            broadcast_to(process.min_snr_weight(schedule, t, gamma=3.0), x0) * error.square() / wanted - 1
        )
        < 1e-6
    )


@each_schedule
def test_an_error_of_v_weighs_1_plus_sigma_squared(schedule):
    t, x0, eps, error = some_times(schedule, 6), normal(6, 3), normal(6, 3, seed=1), normal(6, 3, seed=2)
    x_t = q_sample(schedule, x0, t, eps)
    estimate = process.x0_from_eps(schedule, x_t, t, eps - error)
    missed = process.v_from_eps(schedule, estimate, t, eps - error) - process.v_from_eps(schedule, x0, t, eps)
    assert (
        largest(missed.square() / (broadcast_to(process.v_weight(schedule, t), x0) * error.square()) - 1)
        < 1e-6
    )


@each_schedule
def test_the_bound_weight_makes_the_error_a_kl(schedule):
    """The posterior with the true signal against the posterior with the estimate, by torch's own formula."""
    for t in {2, min(3, schedule.steps), schedule.steps}:
        x0, eps, error = normal(5, 4), normal(5, 4, seed=1), normal(5, 4, seed=2)
        x_t = q_sample(schedule, x0, t, eps)
        estimate = process.x0_from_eps(schedule, x_t, t, eps - error)
        q, p = (q_posterior(schedule, signal, x_t, t) for signal in (x0, estimate))
        kl = kl_divergence(Normal(q.mean, q.variance.sqrt()), Normal(p.mean, p.variance.sqrt()))
        assert largest(process.bound_weight(schedule, t) * error.square() / kl - 1) < 1e-6


def test_drawn_times_are_every_whole_time_equally_often():
    generator = torch.Generator().manual_seed(0)
    t = process.draw_times(linear(5), torch.zeros(100_000, 1), generator)
    counts = torch.bincount(t.long(), minlength=7)
    assert t.dtype == torch.float32 and torch.equal(t, t.round()) and counts[0] == counts[6] == 0
    assert largest(counts[1:6] / 100_000 - 0.2) < 5 * math.sqrt(0.16 / 100_000)
    again = process.draw_times(linear(5), torch.zeros(100_000, 1), torch.Generator().manual_seed(0))
    assert torch.equal(t, again)


def test_noise_is_that_of_the_generator_in_the_states_type():
    x = torch.zeros(3, 4, dtype=torch.float64)
    noise = process.noise_like(x, torch.Generator().manual_seed(5))
    assert torch.equal(noise, torch.randn(3, 4, generator=torch.Generator().manual_seed(5)).double())


def test_a_denoiser_sees_one_time_for_each_item_precise_enough_to_count():
    seen = []
    x = torch.zeros(3, 2, dtype=torch.bfloat16)
    process.predict_eps(lambda x_t, t: seen.append(t) or x_t, x, 999)
    assert torch.equal(seen[0], torch.full((3,), 999.0)) and seen[0].dtype == torch.float32


def test_gradients_reach_the_network():
    weight = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    x0, eps = normal(4, 3), normal(4, 3, seed=1)
    process.weighted_loss(lambda x, t: weight * x, SHORT, x0, 2, eps, weight=process.bound_weight).backward()
    x_t = q_sample(SHORT, x0, 2, eps)
    by_hand = (process.bound_weight(SHORT, 2) * 2 * (0.3 * x_t - eps) * x_t).mean()
    assert weight.grad.item() == pytest.approx(by_hand.item(), rel=1e-12)

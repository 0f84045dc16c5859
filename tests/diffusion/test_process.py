"""The forward process and its targets: against diffusers, Bayes' rule on a grid, autograd, and torch's own
KL.
"""

from __future__ import annotations

import math

import pytest
import torch
from diffusers import DDPMScheduler, ScoreSdeVeScheduler
from oracles import largest, normal
from torch.distributions import Normal

from dhp_lab.diffusion import process
from dhp_lab.diffusion.process import Gaussian, q_posterior, q_sample, q_step
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
small = pytest.mark.parametrize(
    "schedule", [SHORT, SCHEDULES["short, exploding"]], ids=["preserving", "exploding"]
)


def some_times(schedule: NoiseSchedule, count: int) -> torch.Tensor:
    """Real times of (0, T], the ends among them."""
    return torch.cat([torch.tensor([0.25, 1.0]), torch.linspace(1.5, schedule.steps, count - 2)]).double()


# the forward process


def test_q_sample_is_add_noise_of_diffusers():
    x0, eps, index = (
        normal(40, 3, 4, 4).float(),
        normal(40, 3, 4, 4, seed=1).float(),
        torch.arange(0, 1000, 25),
    )
    theirs = DDPMScheduler(num_train_timesteps=1000).add_noise(x0, eps, index)
    assert largest(q_sample(linear(1000), x0, index + 1, eps) - theirs) < 1e-5


def test_q_sample_with_exploding_noise_is_add_noise_of_diffusers():
    reference = ScoreSdeVeScheduler(num_train_timesteps=100, sigma_min=0.01, sigma_max=50.0)
    x0, eps = normal(100, 6).float(), normal(100, 6, seed=1).float()
    theirs = x0 + reference.discrete_sigmas[:, None] * eps
    assert largest(q_sample(geometric(100), x0, torch.arange(1, 101), eps) - theirs) < 1e-5 * 50 * 5, (
        "1e-5 of the state's size"
    )


@each_schedule
def test_all_steps_in_turn_are_one_draw_of_q_sample(schedule):
    """The chain is linear: two noiseless states give the signal's factor, and the variances add up."""
    factor, variance = torch.ones(1, 1).double(), torch.zeros(1, 1).double()
    zero, one = torch.zeros(1, 1).double(), torch.ones(1, 1).double()
    for t in range(1, schedule.steps + 1):
        factor = q_step(schedule, factor, t, zero)
        variance = (
            q_step(schedule, one, t, zero).square() * variance + q_step(schedule, zero, t, one).square()
        )
        direct = q_sample(schedule, one, t, zero), q_sample(schedule, zero, t, one).square()
        assert largest(factor / direct[0] - 1) < 1e-10 and largest(variance / direct[1] - 1) < 1e-10


def test_one_step_is_equation_2():
    x, eps, beta = normal(5, 3), normal(5, 3, seed=1), SHORT.betas[1]
    assert largest(q_step(SHORT, x, 2, eps) - ((1 - beta).sqrt() * x + beta.sqrt() * eps)) < 1e-12
    assert largest(q_step(SHORT, x, 3.0, eps, t_prev=0) - q_sample(SHORT, x, 3, eps)) < 1e-12


@small
@pytest.mark.parametrize("t, t_prev", [(1.0, 0.4), (2.0, 1.0), (4.0, 3.0), (3.5, 0.5), (4.0, 0.01)])
def test_the_posterior_is_bayes_rule_on_a_grid(schedule, t, t_prev):
    x0, x_t = torch.tensor([[0.7]]).double(), torch.tensor([[-0.4]]).double()
    grid = torch.linspace(-12, 12, 400_001, dtype=torch.float64)[:, None]
    zero, one = torch.zeros(1, 1).double(), torch.ones(1, 1).double()
    prior = Normal(q_sample(schedule, x0, t_prev, zero), q_sample(schedule, zero, t_prev, one))
    moved, spread = (
        q_step(schedule, grid, t, 0 * grid, t_prev=t_prev),
        q_step(schedule, zero, t, one, t_prev=t_prev),
    )
    seen = Normal(moved, spread)
    weight = torch.softmax(prior.log_prob(grid) + seen.log_prob(x_t), 0)
    mean = (weight * grid).sum()
    found = q_posterior(schedule, x0, x_t, t, t_prev=t_prev)
    assert found.mean.item() == pytest.approx(mean.item(), abs=1e-8)
    assert found.variance.item() == pytest.approx((weight * (grid - mean).square()).sum().item(), rel=1e-6)


@pytest.mark.parametrize("index", [0, 1, 10, 500, 999])
def test_the_posterior_is_the_step_of_diffusers(index):
    """Their formula on a float64 table: in float32 their 1 - alpha_bar has lost half its digits where the
    noise is small.
    """
    reference = DDPMScheduler(1000, clip_sample=False, prediction_type="sample", variance_type="fixed_small")
    reference.alphas_cumprod = torch.cumprod(1 - linear(1000).betas, 0)
    x0, x_t = normal(4, 8), normal(4, 8, seed=1)
    found = q_posterior(linear(1000), x0, x_t, index + 1)
    theirs = reference.step(x0, index, x_t, generator=torch.Generator().manual_seed(3)).prev_sample
    eps = torch.randn(x_t.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    assert largest(found.sample(eps) - theirs) < 1e-9


@each_schedule
def test_the_posterior_at_time_0_is_the_signal(schedule):
    x0, x_t = normal(2, 3), normal(2, 3, seed=1)
    found = q_posterior(schedule, x0, x_t, schedule.steps, t_prev=0)
    assert torch.equal(found.mean, x0) and bool((found.variance == 0).all())


def test_each_item_may_have_its_own_times():
    x0, x_t, t, t_prev = (
        normal(3, 2, 2),
        normal(3, 2, 2, seed=1),
        torch.tensor([4.0, 2.5, 1.0]),
        torch.tensor([1.0, 0.5, 0.0]),
    )
    together = q_posterior(SHORT, x0, x_t, t, t_prev=t_prev)
    for i in range(3):
        alone = q_posterior(SHORT, x0[i : i + 1], x_t[i : i + 1], t[i].item(), t_prev=t_prev[i].item())
        assert torch.equal(together.mean[i : i + 1], alone.mean) and torch.equal(
            together.variance[i : i + 1], alone.variance
        )
    assert together.variance.shape == (3, 1, 1)


# targets


@each_schedule
def test_every_target_gives_the_same_estimates(schedule):
    t = some_times(schedule, 9)
    x0, eps = normal(9, 2, 3), normal(9, 2, 3, seed=1)
    x_t = q_sample(schedule, x0, t, eps)
    v = process.v_from_eps(schedule, x0, t, eps)
    size = 1 + broadcast_to(schedule.sigma(t), x0)
    for found in (process.x0_from_eps(schedule, x_t, t, eps), process.x0_from_v(schedule, x_t, t, v)):
        assert largest((found - x0) / size) < 1e-12
    for found in (process.eps_from_x0(schedule, x_t, t, x0), process.eps_from_v(schedule, x_t, t, v)):
        assert largest((found - eps) * broadcast_to(schedule.sigma(t), x0).clamp(max=1)) < 1e-12


def test_v_is_the_velocity_of_diffusers():
    x0, eps, index = normal(40, 6).float(), normal(40, 6, seed=1).float(), torch.arange(0, 1000, 25)
    theirs = DDPMScheduler(num_train_timesteps=1000).get_velocity(x0, eps, index)
    assert largest(process.v_from_eps(linear(1000), x0, index + 1, eps) - theirs) < 1e-5


def test_v_does_not_depend_on_how_the_state_is_scaled():
    x0, eps, t = normal(4, 3), normal(4, 3, seed=1), torch.tensor([0.5, 1.0, 2.0, 4.0])
    both = [process.v_from_eps(SCHEDULES[name], x0, t, eps) for name in ("short", "short, exploding")]
    assert torch.equal(*both)


@each_schedule
def test_the_score_is_the_gradient_of_the_log_density(schedule):
    t, x0, eps = some_times(schedule, 5), normal(5, 4), normal(5, 4, seed=1)
    x_t = q_sample(schedule, x0, t, eps).requires_grad_()
    zero = torch.zeros_like(x0)
    density = Normal(q_sample(schedule, x0, t, zero), q_sample(schedule, zero, t, torch.ones_like(x0)))
    (gradient,) = torch.autograd.grad(density.log_prob(x_t).sum(), x_t)
    assert largest(process.score_from_eps(schedule, x_t, t, eps) / gradient - 1) < 1e-9


def test_at_time_0_the_state_is_the_signal():
    x0, eps = normal(2, 3), normal(2, 3, seed=1)
    assert torch.equal(q_sample(SHORT, x0, 0, eps), x0)
    assert torch.equal(process.x0_from_eps(SHORT, x0, 0.0, eps), x0)
    assert torch.equal(process.v_from_eps(SHORT, x0, 0, eps), eps)


# bad input

X = torch.zeros(3, 2)
BAD_SHAPES = {
    "q_sample": lambda: q_sample(SHORT, X, 1, torch.zeros(3, 1)),
    "q_step": lambda: q_step(SHORT, X, 1, torch.zeros(3, 1)),
    "q_posterior": lambda: q_posterior(SHORT, X, torch.zeros(3, 1), 1),
    "x0_from_eps": lambda: process.x0_from_eps(SHORT, X, 1, torch.zeros(3, 1)),
    "eps_from_x0": lambda: process.eps_from_x0(SHORT, X, 1, torch.zeros(3, 1)),
    "v_from_eps": lambda: process.v_from_eps(SHORT, X, 1, torch.zeros(3, 1)),
    "x0_from_v": lambda: process.x0_from_v(SHORT, X, 1, torch.zeros(3, 1)),
    "eps_from_v": lambda: process.eps_from_v(SHORT, X, 1, torch.zeros(3, 1)),
    "score_from_eps": lambda: process.score_from_eps(SHORT, X, 1, torch.zeros(3, 1)),
    "sample": lambda: Gaussian(X, torch.ones(1)).sample(torch.zeros(3, 1)),
    "denoiser": lambda: process.simple_loss(lambda x, t: x[:, :1], SHORT, X, 1, X),
}


@pytest.mark.parametrize("call", BAD_SHAPES.values(), ids=BAD_SHAPES)
def test_shapes_that_differ_are_refused(call):
    with pytest.raises(ValueError, match=r"must have the shape \(3, 2\), got \(3, 1\)"):
        call()


@pytest.mark.parametrize("t", [-1.0, 4.5, math.nan])
def test_times_outside_the_chain_are_refused(t):
    conversions = (
        process.x0_from_eps,
        process.eps_from_x0,
        process.v_from_eps,
        process.x0_from_v,
        process.eps_from_v,
    )
    for call in (q_sample, q_step, *conversions, process.score_from_eps):
        with pytest.raises(ValueError, match=r"must lie in \[0, (4\]|t\))"):
            call(SHORT, X, t, X)
    with pytest.raises(ValueError, match=r"must lie in \[0, (4\]|t\))"):
        q_posterior(SHORT, X, X, t)


def test_a_time_for_each_item_means_each_item():
    with pytest.raises(ValueError, match="one value for all 3 items"):
        q_sample(SHORT, X, torch.tensor([1.0, 2.0]), X)


@pytest.mark.parametrize(
    "t, t_prev", [(2, 2), (2, 3.0), (torch.tensor([2.0, 1.0]), torch.tensor([1.0, 1.0]))]
)
def test_times_out_of_order_are_refused(t, t_prev):
    x = torch.zeros(2, 2)
    for call in (
        lambda: q_step(SHORT, x, t, x, t_prev=t_prev),
        lambda: q_posterior(SHORT, x, x, t, t_prev=t_prev),
    ):
        with pytest.raises(ValueError, match=r"t_prev must lie in \[0, t\), got"):
            call()


def test_what_needs_noise_refuses_time_0():
    for call in (process.eps_from_x0, process.score_from_eps):
        with pytest.raises(ValueError, match=r"t must lie in \(0, 4\], got 0"):
            call(SHORT, X, 0, X)
    with pytest.raises(ValueError, match=r"t must lie in \(0, 4\], got 0"):
        process.min_snr_weight(SHORT, 0)


def test_weights_outside_their_ranges_are_refused():
    with pytest.raises(ValueError, match=r"t must lie in \[2, 4\] .* got 1"):
        process.bound_weight(SHORT, torch.tensor([3.0, 1.0]))
    with pytest.raises(ValueError, match="gamma must be above 0, got -2"):
        process.min_snr_weight(SHORT, 1, gamma=-2)

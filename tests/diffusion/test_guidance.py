"""Guidance against Bayes' rule for mixtures, and against diffusers' clipping and dynamic thresholding."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from oracles import largest, seeded

from dhp_lab.diffusion.guidance import (
    classifier_guided,
    clipped,
    drop_labels,
    dynamically_thresholded,
    guided,
)
from dhp_lab.diffusion.ideal import IdealDenoiser
from dhp_lab.diffusion.samplers import ddim, ddpm, last, start
from dhp_lab.diffusion.schedules import NoiseSchedule, broadcast_to, cosine, geometric, linear

SCHEDULES = {"linear": linear(50), "cosine": cosine(50), "geometric": geometric(50)}
each_schedule = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
CORNERS = torch.tensor([[-1.0, -1.0], [-1.0, 1.0], [1.0, -1.0], [1.0, 1.0]])
LEFT_RIGHT = torch.tensor([0, 0, 1, 1])


def zeros(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    return torch.zeros_like(x)


def wavy(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """A denoiser that is none, whose x0 leaves every range."""
    return torch.sin(2 * x.roll(1, -1) + broadcast_to(t / 7, x))


# labels


@pytest.mark.parametrize("probability", [0.1, 0.5])
def test_labels_are_dropped_in_their_share(probability):
    labels = torch.arange(50000) % 10
    dropped = drop_labels(labels, 10, probability=probability, generator=seeded())
    gone = dropped == 10
    assert abs(gone.double().mean().item() - probability) < 4 * math.sqrt(
        probability * (1 - probability) / 50000
    )
    assert torch.equal(dropped[~gone], labels[~gone]) and dropped.dtype == labels.dtype
    for label in range(10):
        share = gone[labels == label].double().mean().item()
        assert abs(share - probability) < 4.5 * math.sqrt(probability * (1 - probability) / 5000), (
            "every class alike"
        )
    assert torch.equal(dropped, drop_labels(labels, 10, probability=probability, generator=seeded()))
    assert not torch.equal(dropped, drop_labels(labels, 10, probability=probability, generator=seeded(1)))


def test_all_or_no_labels_are_dropped_at_the_ends():
    labels = torch.arange(10)
    assert torch.equal(drop_labels(labels, 10, probability=0.0), labels)
    assert torch.equal(drop_labels(labels, 10, probability=1.0), torch.full((10,), 10))
    assert torch.equal(labels, torch.arange(10)), "the labels given stay as they are"


@pytest.mark.parametrize("probability", [-0.1, 1.1, math.nan])
def test_a_probability_that_is_none_is_refused(probability):
    with pytest.raises(ValueError, match=rf"probability must lie in \[0, 1\], got {probability:g}"):
        drop_labels(torch.arange(3), 10, probability=probability)


@pytest.mark.parametrize("labels", [torch.zeros(3), torch.zeros(3, dtype=torch.bool)])
def test_labels_that_are_no_whole_numbers_are_refused(labels):
    with pytest.raises(ValueError, match=f"whole numbers, got {labels.dtype}"):
        drop_labels(labels, 10)


# guided


@each_schedule
def test_guidance_is_equation_6(schedule):
    """(1 + w) eps(label) - w eps(null) with w = scale - 1; at 1 and 0 it is one of the two, bit for bit."""
    ideal = IdealDenoiser(CORNERS, schedule, LEFT_RIGHT)
    x, t, label = (
        torch.randn(6, 2, generator=seeded()),
        torch.full((6,), 20.0),
        torch.tensor([0, 1, 1, 0, 1, 0]),
    )
    eps, eps_null = ideal(x, t, label), ideal(x, t, torch.full((6,), ideal.null))
    for scale in (0.5, 3.0, 15.0):
        w = scale - 1
        ours = guided(ideal, label, scale=scale, null=ideal.null)(x, t)
        assert largest(ours - ((1 + w) * eps - w * eps_null)) < 1e-5
    assert torch.equal(guided(ideal, label, scale=1, null=ideal.null)(x, t), eps)
    assert torch.equal(guided(ideal, label, scale=0, null=ideal.null)(x, t), eps_null)
    assert torch.equal(
        guided(ideal, 1, scale=1, null=ideal.null)(x, t), ideal(x, t, torch.ones(6, dtype=torch.long))
    )


@each_schedule
def test_guided_samples_are_of_the_given_class(schedule):
    ideal, label = IdealDenoiser(CORNERS, schedule, LEFT_RIGHT), torch.arange(40) % 2
    x_T = start(schedule, (40, 2), generator=seeded())
    for scale in (1.0, 2.0):
        denoiser = clipped(guided(ideal, label, scale=scale, null=ideal.null), schedule)
        x = last(ddim(denoiser, schedule, x_T)).x
        assert torch.equal(x[:, 0] > 0, label == 1)
        assert {True, False} == set((x[:, 1] > 0).tolist()), "both corners of a side"


def test_both_estimates_are_made_in_one_batch():
    seen = []

    def denoise(x, t, label):
        seen.append((tuple(x.shape), t.tolist(), label.tolist()))
        return x

    guided(denoise, torch.tensor([3, 5]), scale=2, null=10)(torch.zeros(2, 1, 8, 8), torch.tensor([7.0, 9.0]))
    assert seen == [((4, 1, 8, 8), [7, 9, 7, 9], [3, 5, 10, 10])]


@each_schedule
def test_outside_of_its_interval_the_scale_is_1(schedule):
    ideal = IdealDenoiser(CORNERS, schedule, LEFT_RIGHT)
    x, label = torch.randn(4, 2, generator=seeded()), torch.tensor([0, 1, 1, 0])
    plain, always, sometimes = (
        guided(ideal, label, scale=scale, null=ideal.null, **interval)
        for scale, interval in ((1.0, {}), (3.0, {}), (3.0, {"interval": (10, 30)}))
    )
    for t in (1.0, 10.0, 31.0, 50.0):
        assert torch.equal(sometimes(x, torch.full((4,), t)), plain(x, torch.full((4,), t)))
    for t in (10.5, 20.0, 30.0):
        assert torch.equal(sometimes(x, torch.full((4,), t)), always(x, torch.full((4,), t)))
    t = torch.tensor([10.0, 20.0, 30.0, 40.0])
    expected = torch.stack([plain(x, t)[0], always(x, t)[1], always(x, t)[2], plain(x, t)[3]])
    assert largest(sometimes(x, t) - expected) < 1e-5


def test_outside_of_its_interval_guidance_costs_one_evaluation():
    sizes = []

    def denoise(x, t, label):
        sizes.append(len(x))
        return x

    schedule = linear(50)
    denoiser = guided(denoise, 3, scale=2.0, null=10, interval=(10, 30))
    last(ddim(denoiser, schedule, torch.zeros(5, 2), count=10))  # at 50, 45, ..., 5
    assert sizes == [5] * 4 + [10] * 4 + [5] * 2


@pytest.mark.parametrize("interval", [(-1, 5), (5, 5), (6, 5), (math.nan, 5)])
def test_an_interval_that_is_none_is_refused(interval):
    with pytest.raises(ValueError, match=r"interval must be \(low, high\) with 0 <= low < high, got"):
        guided(lambda x, t, label: x, 0, scale=2.0, null=1, interval=interval)


@pytest.mark.parametrize("scale", [-1.0, math.nan, math.inf])
def test_a_scale_of_no_use_is_refused(scale):
    with pytest.raises(ValueError, match=f"scale must be finite and at least 0, got {scale:g}"):
        guided(lambda x, t, label: x, 0, scale=scale, null=1)


@pytest.mark.parametrize("label", [0.5, torch.zeros(2), torch.zeros(2, 2, dtype=torch.long)])
def test_a_label_that_is_none_is_refused(label):
    with pytest.raises(ValueError, match="label must be a whole number or a vector of them, got torch"):
        guided(lambda x, t, label: x, label, scale=1, null=1)


def test_labels_that_do_not_fit_the_batch_are_refused():
    denoiser = guided(lambda x, t, label: x, torch.tensor([0, 1]), scale=1, null=2)
    with pytest.raises(ValueError, match="batch of 3 needs 1 or 3 labels, got 2"):
        denoiser(torch.zeros(3, 2), torch.ones(3))


# classifier_guided and clipped


def log_densities(
    schedule: NoiseSchedule, x: torch.Tensor, t: torch.Tensor, width: float = 0.3
) -> torch.Tensor:
    """(B, 4): log N(x_t / s; corner, width^2 + sigma^2), but for a constant."""
    u, spread = x / broadcast_to(schedule.scale(t), x), width**2 + broadcast_to(schedule.sigma(t), x) ** 2
    return -(u[:, None] - CORNERS.to(x)).square().sum(2) / (2 * spread)


def exact_denoiser(schedule: NoiseSchedule, members: torch.Tensor) -> Callable:
    """eps for an even mixture of blurred corners, from the gradient of its log density: eps = -s sigma d log
    p / dx.
    """

    def denoise(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            log_p = log_densities(schedule, x, t)[:, members].logsumexp(1)
            return (
                -broadcast_to(schedule.scale(t) * schedule.sigma(t), x)
                * torch.autograd.grad(log_p.sum(), x)[0]
            )

    return denoise


@each_schedule
def test_an_exact_classifier_makes_the_conditional_denoiser(schedule):
    """Bayes' rule: the score of p(x given right) is that of p(x) plus that of p(right given x)."""
    right, all_of_them = torch.tensor([2, 3]), torch.arange(4)

    def log_right(x, t):
        log_p = log_densities(schedule, x, t)
        return log_p[:, right].logsumexp(1) - log_p.logsumexp(1)

    t = torch.tensor([1.0, 10.0, 25.0, 40.0, 50.0])
    x = torch.randn(5, 2, generator=seeded(), dtype=torch.float64)
    x = x * broadcast_to(schedule.scale(t) * (1 + schedule.sigma(t)), x)
    unconditional, conditional = exact_denoiser(schedule, all_of_them), exact_denoiser(schedule, right)
    with torch.no_grad():
        denoiser = classifier_guided(unconditional, schedule, log_right)
        assert largest(denoiser(x, t) - conditional(x, t)) < 1e-9
        twice = classifier_guided(unconditional, schedule, log_right, scale=2)(x, t)
    assert largest(twice - (2 * conditional(x, t) - unconditional(x, t))) < 1e-9
    x_T = start(schedule, (20, 2), generator=seeded())
    assert last(ddim(denoiser, schedule, x_T)).x[:, 0].min() > 0


@pytest.mark.parametrize("scale", [math.nan, math.inf])
def test_a_classifier_s_scale_that_is_not_finite_is_refused(scale):
    with pytest.raises(ValueError, match=f"scale must be finite, got {scale:g}"):
        classifier_guided(zeros, linear(5), lambda x, t: x.sum(1), scale=scale)


@pytest.mark.parametrize("schedule", [linear(50), cosine(50)], ids=["linear", "cosine"])
@pytest.mark.parametrize(
    "kind, sampler, draws, settings",
    [
        (DDPMScheduler, ddpm, True, {}),
        (DDIMScheduler, ddim, False, {"use_clipped_model_output": True}),
    ],
)
def test_clipping_is_that_of_diffusers(schedule, kind, sampler, draws, settings):
    scheduler = kind(num_train_timesteps=50, trained_betas=schedule.betas.numpy(), clip_sample=True)
    scheduler.set_timesteps(50)
    x_T = theirs = start(schedule, (2, 1, 4, 4), generator=seeded())
    ours, settings = ({"generator": seeded(1)}, {"generator": seeded(1)}) if draws else ({}, settings)
    states = sampler(clipped(wavy, schedule), schedule, x_T, **ours)
    for i, state in zip(scheduler.timesteps, states, strict=True):
        step = scheduler.step(wavy(theirs, torch.full((2,), i + 1.0)), i, theirs, **settings)
        theirs = step.prev_sample
        assert largest(state.x - theirs) <= 1e-5 * max(1, largest(theirs))
        assert largest(step.pred_original_sample) <= 1
    assert largest(state.x) <= 1 + 2**-22 and largest(last(ddim(wavy, schedule, x_T)).x) > 1.5


@each_schedule
def test_what_lies_in_range_is_left_alone(schedule):
    ideal = IdealDenoiser(CORNERS.double(), schedule)
    x, t = (
        torch.randn(5, 2, generator=seeded(), dtype=torch.float64),
        torch.tensor([1.0, 10.0, 25.0, 40.0, 50.0]),
    )
    assert largest(clipped(ideal, schedule)(x, t) - ideal(x, t)) < 1e-9
    tight = clipped(ideal, schedule, limit=0.25)(x, t)
    assert (
        largest(x / broadcast_to(schedule.scale(t), x) - broadcast_to(schedule.sigma(t), x) * tight)
        < 0.25 + 1e-9
    )


@pytest.mark.parametrize("limit", [0.0, -1.0, math.nan])
def test_a_limit_of_no_size_is_refused(limit):
    with pytest.raises(ValueError, match=f"limit must be above 0, got {limit:g}"):
        clipped(zeros, linear(5), limit=limit)


# dynamically_thresholded


@pytest.mark.parametrize("quantile", [0.5, 0.9, 0.995, 1.0])
@pytest.mark.parametrize("schedule", [linear(50), cosine(50)], ids=["linear", "cosine"])
def test_dynamic_thresholding_is_that_of_diffusers(schedule, quantile):
    scheduler = DDIMScheduler(
        num_train_timesteps=50,
        trained_betas=schedule.betas.numpy(),
        clip_sample=False,
        thresholding=True,
        dynamic_thresholding_ratio=quantile,
        sample_max_value=1e9,
    )
    scheduler.set_timesteps(50)
    x_T = theirs = start(schedule, (3, 1, 4, 4), generator=seeded())
    states = ddim(dynamically_thresholded(wavy, schedule, quantile=quantile), schedule, x_T)
    for i, state in zip(scheduler.timesteps, states, strict=True):
        eps = wavy(theirs, torch.full((3,), i + 1.0))
        step = scheduler.step(eps, i, theirs, use_clipped_model_output=True)
        theirs = step.prev_sample
        assert largest(state.x - theirs) <= 1e-4 * max(1, largest(theirs))
        assert largest(step.pred_original_sample) <= 1


@each_schedule
def test_dynamic_thresholding_leaves_what_lies_in_range_alone(schedule):
    ideal = IdealDenoiser(CORNERS.double(), schedule)
    x, t = (
        torch.randn(5, 2, generator=seeded(), dtype=torch.float64),
        torch.tensor([1.0, 10.0, 25.0, 40.0, 50.0]),
    )
    assert largest(dynamically_thresholded(ideal, schedule)(x, t) - ideal(x, t)) < 1e-9


@pytest.mark.parametrize("quantile", [-0.1, 1.1, math.nan])
def test_a_quantile_that_is_none_is_refused(quantile):
    with pytest.raises(ValueError, match=rf"quantile must lie in \[0, 1\], got {quantile:g}"):
        dynamically_thresholded(zeros, linear(5), quantile=quantile)

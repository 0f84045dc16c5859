"""The exercises of the lesson on DDIM."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch

from dhp_lab.notebook.exercises import Case, exercise


@exercise
def noise_kept() -> Iterator[Case]:
    """Return the correlation of the noise in x_s with the noise in x_t: noise_kept(alpha_bar_t, alpha_bar_s,
    eta).
    """
    pair = {"alpha_bar_t": 0.2, "alpha_bar_s": 0.5}
    none = (
        "at eta = 0 nothing is drawn anew: the noise in x_s is the old one, "
        "scaled to sqrt(1 - alpha_bar_s); divide by that"
    )
    yield Case({**pair, "eta": 0.0}, 1.0, hint=none)
    root = (
        "the noise levels sigma are 2 at t and 1 at s; a correlation "
        "compares standard deviations and not variances"
    )
    yield Case({**pair, "eta": 1.0}, 0.5, hint=root)
    yield Case({**pair, "eta": 0.5}, math.sqrt(13) / 4, hint="tau grows as eta, tau^2 as eta^2")
    rng, (kept, fresh) = np.random.default_rng(0), (math.sqrt(0.6), math.sqrt(0.4))
    noise_s = rng.standard_normal(200_000)  # x_s without its x_0, of variance 1 - 0.7
    noise_t = kept * math.sqrt(0.3) * noise_s + fresh * rng.standard_normal(200_000)
    measured = "measured: two states of 200 000 chains of lesson 01, whose steps back have eta = 1"
    found = float(np.corrcoef(noise_s, noise_t)[0, 1])
    yield Case({"alpha_bar_t": 0.42, "alpha_bar_s": 0.7, "eta": 1.0}, found, hint=measured, tolerance=0.01)


@exercise
def step_up() -> Iterator[Case]:
    """Return the state x_t that x_s came from by a step with eta = 0: step_up(x_s, eps, alpha_bar_s,
    alpha_bar_t).
    """
    fades = "without noise the picture only fades, by sqrt(alpha_bar_t)"
    clean, none = torch.tensor([1.0, -1.0]), torch.zeros(2)
    yield Case(
        {"x_s": clean, "eps": none, "alpha_bar_s": 1.0, "alpha_bar_t": 0.25},
        torch.tensor([0.5, -0.5]),
        hint=fades,
    )
    x0, eps = torch.tensor([1.0, -0.5]), torch.tensor([2.0, 1.0])
    noise = "the noise at t has the standard deviation sqrt(1 - alpha_bar_t)"
    yield Case(
        {"x_s": x0, "eps": eps, "alpha_bar_s": 1.0, "alpha_bar_t": 0.36}, torch.tensor([2.2, 0.5]), hint=noise
    )
    first = (
        "x_s holds noise already: take sqrt(1 - alpha_bar_s) eps away, "
        "divide by sqrt(alpha_bar_s), and you have x_0"
    )
    between = torch.tensor([2.0, 0.2])  # 0.8 x0 + 0.6 eps
    yield Case(
        {"x_s": between, "eps": eps, "alpha_bar_s": 0.64, "alpha_bar_t": 0.36},
        torch.tensor([2.2, 0.5]),
        hint=first,
    )
    down = "up and down are one formula: with the two times exchanged, it is the step of DDIM"
    yield Case(
        {"x_s": torch.tensor([2.2, 0.5]), "eps": eps, "alpha_bar_s": 0.36, "alpha_bar_t": 0.64},
        between,
        hint=down,
    )


@exercise
def slerp() -> Iterator[Case]:
    """Return the point on the arc from a to b, a at w = 0 and b at w = 1, the angle growing evenly: slerp(a,
    b, w).
    """
    east, north = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    half = math.sqrt(0.5)
    length = "the arc keeps the length: 1 here, half way too"
    yield Case({"a": east, "b": north, "w": 0.5}, torch.tensor([half, half]), hint=length)
    even = "a third of the way turns by a third of the angle, 30 degrees of 90"
    third = 3 * torch.tensor([math.cos(math.pi / 6), 0.5])
    yield Case({"a": 3 * east, "b": 3 * north, "w": 1 / 3}, third, hint=even)
    angle = "a and b are 60 degrees apart here: cos(angle) = sum of a b / (|a| |b|)"
    slanted = torch.tensor([0.5, math.sqrt(3) / 2])
    yield Case(
        {"a": 2 * east, "b": 2 * slanted, "w": 0.5}, 2 * torch.tensor([math.sqrt(3) / 2, 0.5]), hint=angle
    )
    corner, other = torch.tensor([[1.0, 0.0], [0.0, 0.0]]), torch.tensor([[0.0, 0.0], [0.0, 1.0]])
    shape = "pictures are arrays: sum the products of all their values, (a * b).sum(), and keep the shape"
    yield Case({"a": corner, "b": other, "w": 0.5}, half * torch.eye(2), hint=shape)
    same = "between a and itself the angle is 0 and sin(angle) too: a straight line will do there"
    yield Case({"a": slanted, "b": slanted, "w": 0.25}, slanted, hint=same)

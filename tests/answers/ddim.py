"""The lesson on DDIM: right answers to its exercises, and wrong ones."""

import math
from itertools import pairwise

import numpy as np


def fresh_noise(a_t, a_s, eta):
    return eta * math.sqrt((1 - a_s) / (1 - a_t) * (1 - a_t / a_s))


def ddim_step(x_t, eps, z, a_t, a_s, eta):
    tau = fresh_noise(a_t, a_s, eta)
    x0 = (x_t - math.sqrt(1 - a_t) * eps) / math.sqrt(a_t)
    return math.sqrt(a_s) * x0 + math.sqrt(max(1 - a_s - tau**2, 0)) * eps + tau * z


def levels(sigma, power, count=8):
    """Noise levels whose times on the linear schedule of 1000 steps are T (i / count)^power."""
    t = 1000 * (np.arange(count, 0, -1) / count) ** power
    betas = np.concatenate([[0], np.cumsum(-np.log1p(-np.linspace(1e-4, 0.02, 1000)))])
    found = np.sqrt(np.expm1(np.interp(t, np.arange(1001), betas)))
    return [sigma, *found[1:].tolist(), 0.0]


def solver(power, second_order=True, count=8):
    def few_evaluations(denoise, u, sigma):
        before, h_before = None, None
        for now, then in pairwise(levels(sigma, power, count)):
            x0 = denoise(u, now)
            goal, h = x0, math.log(now / then) if then > 0 else math.inf
            if second_order and before is not None and then > 0:
                goal = x0 + h / (2 * h_before) * (x0 - before)
            u = then / now * u + (1 - then / now) * goal
            before, h_before = x0, h
        return u

    return few_evaluations


RIGHT = {
    "noise_kept": lambda a_t, a_s, eta: math.sqrt(1 - fresh_noise(a_t, a_s, eta) ** 2 / (1 - a_s)),
    "ddim_step": ddim_step,
    "few_evaluations": solver(2),
}

MISTAKES = {
    "noise_kept": [
        (fresh_noise, "nothing is drawn anew"),
        (lambda a_t, a_s, eta: math.sqrt(1 - a_s - fresh_noise(a_t, a_s, eta) ** 2), "divide by that"),
        (lambda a_t, a_s, eta: 1 - fresh_noise(a_t, a_s, eta) ** 2 / (1 - a_s), "not variances"),
        (lambda a_t, a_s, eta: 1 - eta + eta * 0.5, "eta^2"),
        (lambda a_t, a_s, eta: math.sqrt(1 - 0.75 * eta**2), "measured"),
        (lambda a_t, a_s: 1.0, "TypeError"),
    ],
    "ddim_step": [
        (lambda x, e, z, a, b, eta: ddim_step(x, e, z, a, b, eta) + 0.1 * z, "no noise is left"),
        (lambda x, e, z, a, b, eta: ddim_step(x, e, z, a, b, eta) if b == 1 else x, "only fades"),
        (lambda x, e, z, a, b, eta: ddim_step(x, e, z, a, b, 1.0), "the old one"),
        (lambda x, e, z, a, b, eta: ddim_step(x, e, eta * z, a, b, 0.0) + 0 * z, "times z"),
        (lambda x, e, z, a, b, eta: ddim_step(x, e, z, a, b, eta**2), "the old noise loses"),
        (lambda x, e, z, a, b, eta: ddim_step(x, e, z, a, b, eta) if x.size < 9 else x, "measured"),
    ],
    "few_evaluations": [
        (solver(2, second_order=False), "a solver of second order"),
        (solver(1), "steps near the end"),
        (solver(2, count=9), "called more than 8 times"),
        (lambda denoise, u, sigma: denoise(u, 0.0), "sigma must be above 0"),
        (lambda denoise, u, sigma: denoise(u, sigma), "grey levels"),
        (lambda denoise, u, sigma: denoise(u, sigma)[:1], "grey levels"),
    ],
}

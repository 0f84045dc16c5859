"""Lesson 04: right answers to its exercises, and wrong ones."""

import math

import numpy as np
import torch


def two_m_step(u, x0, x0_before, before, now, after):
    if after == 0:
        return x0
    h, h_before = math.log(now / after), math.log(before / now)
    estimate = x0 + h / (2 * h_before) * (x0 - x0_before)
    return after / now * u + (1 - after / now) * estimate


def without_an_end(u, x0, x0_before, before, now, after):
    """2M at sigma = 0 as well, by a number close to it."""
    return two_m_step(u, x0, x0_before, before, now, max(after, 1e-6))


def equal_steps(u, x0, x0_before, before, now, after):
    """As if all steps were equal in log sigma."""
    estimate = x0 if after == 0 else x0 + (x0 - x0_before) / 2
    return after / now * u + (1 - after / now) * estimate


def consistency_jump(u, F, sigma, sigma_min, sigma_data):
    above = sigma - sigma_min
    c_skip = sigma_data**2 / (above**2 + sigma_data**2)
    return c_skip * u + sigma_data * above / np.sqrt(sigma**2 + sigma_data**2) * F


def edm_jump(u, F, sigma, sigma_min, sigma_data):
    """EDM's scalings, without the boundary."""
    return consistency_jump(u, F, sigma, 0.0, sigma_data)


def no_skip(u, F, sigma, sigma_min, sigma_data):
    return u if sigma == sigma_min else consistency_jump(0 * u, F, sigma, sigma_min, sigma_data)


def wrong_out(u, F, sigma, sigma_min, sigma_data):
    """c_out with sigma - sigma_min in the root too."""
    above = sigma - sigma_min
    c_skip = sigma_data**2 / (above**2 + sigma_data**2)
    return c_skip * u + sigma_data * above / np.sqrt(above**2 + sigma_data**2) * F


def sixteen_levels(error):
    t = 80 / 81 * torch.arange(16, 0, -1) / 16
    return error(t / (1 - t))


def karras_levels(error):
    ends = 80 ** (1 / 7), 0.01 ** (1 / 7)
    return error(np.linspace(*ends, 16) ** 7)


RIGHT = {
    "flow_time_of_sigma": lambda sigma: sigma / (1 + sigma),
    "two_m_step": two_m_step,
    "consistency_jump": consistency_jump,
    "sixteen_levels": sixteen_levels,
}
MISTAKES = {
    "flow_time_of_sigma": [
        (lambda sigma: sigma / (1 - sigma), "half way"),
        (lambda sigma: 1 / (1 + sigma), "solve sigma"),
        (lambda sigma: math.atan(sigma) * 2 / math.pi, "solve sigma"),
        (lambda sigma: float(sigma) / (1 + float(sigma)), "TypeError"),
    ],
    "two_m_step": [
        (lambda u, x0, x0_before, before, now, after: x0, "shrinks as sigma does"),
        (lambda u, x0, x0_before, before, now, after: after / now * u + x0, "2M is DDIM"),
        (lambda u, x0, x0_before, b, n, a: a / n * u + (1 - a / n) * x0, "r = 1"),
        (equal_steps, "h_before"),
        (without_an_end, "first-order step there"),
    ],
    "consistency_jump": [
        (edm_jump, "c_skip is 1"),
        (no_skip, "here 1 / (4 + 1)"),
        (wrong_out, "here 2 * 3 / 5"),
    ],
    "sixteen_levels": [
        (karras_levels, "below 0.07"),
        (lambda error: error(np.geomspace(80, 0.01, 17)), "1 to 16 levels"),
        (lambda error: error([40.0, 1.0]), "first level must be 80"),
    ],
}

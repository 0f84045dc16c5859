"""Lesson 02: right answers to its exercises, and wrong ones."""

import math

import torch


def slerp(a, b, w):
    cosine = (a * b).sum() / (a.norm() * b.norm())
    angle = torch.acos(cosine.clamp(-1, 1))
    if angle < 1e-3:
        return (1 - w) * a + w * b
    return (torch.sin((1 - w) * angle) * a + torch.sin(w * angle) * b) / torch.sin(angle)


def step_up(x_s, eps, alpha_bar_s, alpha_bar_t):
    x0 = (x_s - math.sqrt(1 - alpha_bar_s) * eps) / math.sqrt(alpha_bar_s)
    return math.sqrt(alpha_bar_t) * x0 + math.sqrt(1 - alpha_bar_t) * eps


def fresh_noise(a_t, a_s, eta):
    return eta * math.sqrt((1 - a_s) / (1 - a_t) * (1 - a_t / a_s))


RIGHT = {
    "noise_kept": lambda a_t, a_s, eta: math.sqrt(1 - fresh_noise(a_t, a_s, eta) ** 2 / (1 - a_s)),
    "step_up": step_up,
    "slerp": slerp,
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
    "step_up": [
        (lambda x, eps, a_s, a_t: a_t * x + (1 - a_t) * eps, "sqrt(alpha_bar_t)"),
        (lambda x, eps, a_s, a_t: math.sqrt(a_t) * x, "standard deviation sqrt(1 - alpha_bar_t)"),
        (
            lambda x, eps, a_s, a_t: math.sqrt(a_t) * x + (1 - a_t) * eps,
            "standard deviation sqrt(1 - alpha_bar_t)",
        ),
        (lambda x, eps, a_s, a_t: math.sqrt(a_t) * x + math.sqrt(1 - a_t) * eps, "x_s holds noise already"),
        (
            lambda x, eps, a_s, a_t: math.sqrt(a_t / a_s) * x + math.sqrt(1 - a_t / a_s) * eps,
            "x_s holds noise already",
        ),
        (lambda x, eps, a_s, a_t: step_up(x, eps, a_s, min(a_s, a_t)), "one formula"),
    ],
    "slerp": [
        (lambda a, b, w: (1 - w) * a + w * b, "keeps the length"),
        (lambda a, b, w: ((1 - w) * a + w * b) / ((1 - w) * a + w * b).norm() * a.norm(), "30 degrees"),
        (lambda a, b, w: math.cos(w * math.pi / 2) * a + math.sin(w * math.pi / 2) * b, "60 degrees"),
        (
            lambda a, b, w: slerp(a, b, w) if a.ndim == 1 else slerp(a.flatten(), b.flatten(), w),
            "keep the shape",
        ),
        (lambda a, b, w: slerp(a, b, w) if (a != b).any() else a * math.nan, "straight line will do"),
    ],
}

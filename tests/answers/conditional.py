"""Lesson 05: right answers to its exercises, and wrong ones."""

import numpy as np
import torch


def my_guided_noise(network, x, t, label, null, scale, low, high):
    eps_null, eps = network(x, t, null), network(x, t, label)
    return eps_null + (scale if low < t <= high else 1) * (eps - eps_null)


def restored_at(t=None, scaled=True, noise=0.0):
    """A restoration at another time than that of the error, or with something forgotten."""

    def restore(rounded, delta, denoise, scale, sigma, time_of):
        time = time_of(delta / 12**0.5) if t is None else t
        x_t = (scale(time) if scaled else 1) * rounded
        x_t = x_t + noise * torch.randn(x_t.shape, generator=torch.Generator().manual_seed(0))
        return (x_t / scale(time) - sigma(time) * denoise(x_t, time)).clamp(-1, 1)

    return restore


RIGHT = {
    "drop_labels": lambda labels, u, p, null: np.where(u < p, null, labels),
    "guided_noise": my_guided_noise,
    "restored": restored_at(),
}

MISTAKES = {
    "drop_labels": [
        (lambda labels, u, p, null: np.where(u <= p, null, labels), "0.1 itself is not"),
        (lambda labels, u, p, null: np.where(u > p, null, labels), "below 0.1"),
        (lambda labels, u, p, null: np.where(u < p, 10, labels), "not class 0"),
        (lambda labels, u, p, null: np.where((u < p) & (labels < 7), null, labels), "below p"),
        (lambda labels, u, p, null: labels[u >= p], "expected: "),
        (lambda labels, u, p, null: null if u < p else labels, "ValueError"),
        (lambda labels, u, p, null: np.where(u < (p or 0.1), null, labels), "no label is dropped"),
    ],
    "guided_noise": [
        (lambda network, x, t, label, null, scale, low, high: scale * network(x, t, label), "taken twice"),
        (
            lambda network, x, t, label, null, scale, low, high: (
                network(x, t, label) + scale * (network(x, t, label) - network(x, t, null))
            ),
            "start from the estimate for any class",
        ),
        (
            lambda n, x, t, label, null, w, low, high: my_guided_noise(n, x, t, label, null, w or 1, 0, 9e9),
            "at scale 0",
        ),
        (
            lambda n, x, t, label, null, w, low, high: my_guided_noise(n, x, 300, label, null, w, low, high),
            "halves",
        ),
        (
            lambda n, x, t, label, null, w, low, high: my_guided_noise(n, x, t, label, null, w, 0, 9e9),
            "not 0",
        ),
        (
            lambda n, x, t, label, null, w, low, high: my_guided_noise(
                n, x, t, label, null, w if low < t <= high else 0, 0, 9e9
            ),
            "the scale is 1, not 0",
        ),
        (
            lambda n, x, t, label, null, w, low, high: my_guided_noise(
                n, x, t, label, null, w if low <= t <= high else 1, 0, 9e9
            ),
            "low does not belong",
        ),
        (
            lambda n, x, t, label, null, w, low, high: my_guided_noise(
                n, x, t, label, null, w if low < t < high else 1, 0, 9e9
            ),
            "high does",
        ),
    ],
    "restored": [
        (lambda rounded, delta, denoise, scale, sigma, time_of: rounded, "reaches 0.203"),
        (restored_at(t=10.0), "at which time"),
        (restored_at(t=200.0), "at which time"),
        (restored_at(t=150.0, scaled=False), "scale the picture"),
        (restored_at(noise=0.23), "do not add noise"),
        (lambda rounded, delta, denoise, scale, sigma, time_of: denoise(rounded, 68.0), "0.135"),
        (lambda rounded, delta, denoise, scale, sigma, time_of: 0.13, "0.135"),
    ],
}

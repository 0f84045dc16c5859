"""Lesson 05: right answers to its exercises, and wrong ones."""

import numpy as np


def my_implied_gradient(eps, eps_null, s, sigma):
    return (eps_null - eps) / (s * sigma)


def my_sharpened(m, v, m0, v0, w):
    precision = w / v + (1 - w) / v0
    return (w * m / v + (1 - w) * m0 / v0) / precision, 1 / precision


RIGHT = {
    "drop_labels": lambda labels, u, p, null: np.where(u < p, null, labels),
    "implied_gradient": my_implied_gradient,
    "sharpened": my_sharpened,
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
    "implied_gradient": [
        (lambda eps, eps_null, s, sigma: (eps - eps_null) / (s * sigma), "difference of the two scores"),
        (lambda eps, eps_null, s, sigma: eps_null / (s * sigma), "difference of the two scores"),
        (lambda eps, eps_null, s, sigma: s * sigma * (eps_null - eps), "both the scale and the noise"),
        (lambda eps, eps_null, s, sigma: (eps_null - eps) / sigma, "both the scale and the noise"),
        (lambda eps, eps_null, s, sigma: round((eps_null - eps) / (s * sigma)), "two classes of one number"),
    ],
    "sharpened": [
        (lambda m, v, m0, v0, w: (w * m + (1 - w) * m0, v / w), "precision"),
        (lambda m, v, m0, v0, w: (m, v), "w times the precision"),
        (lambda m, v, m0, v0, w: (m, my_sharpened(m, v, m0, v0, w)[1]), "weighted by precisions"),
        (
            lambda m, v, m0, v0, w: (w * m + (1 - w) * m0, my_sharpened(m, v, m0, v0, w)[1]),
            "weighted by precisions",
        ),
        (
            lambda m, v, m0, v0, w: (
                my_sharpened(m, v, m0, v0, w)[0],
                my_sharpened(m, v, m0, v0, w)[1] ** 0.5,
            ),
            "precision",
        ),
        (lambda m, v, m0, v0, w: my_sharpened(m, v, m0, v0, min(w, 5)), "measured on a fine grid"),
        (
            lambda m, v, m0, v0, w: (v0 / v, 1.0) if w == 1 else my_sharpened(m, v, m0, v0, w),
            "the class as it is",
        ),
    ],
}

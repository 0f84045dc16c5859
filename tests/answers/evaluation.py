"""Lesson 11: right answers to its exercises, and wrong ones."""

import numpy as np
from scipy.interpolate import PchipInterpolator


def my_mean_psnr(mses, peak):
    return np.mean(10 * np.log10(peak**2 / mses))


def my_bd_rate(anchor, test):
    low, high = max(min(anchor[1]), min(test[1])), min(max(anchor[1]), max(test[1]))
    means = []
    for rates, qualities in (anchor, test):
        order = np.argsort(qualities)
        curve = PchipInterpolator(np.array(qualities)[order], np.log10(rates)[order])
        means.append(curve.integrate(low, high) / (high - low))
    return 100 * (10 ** (means[1] - means[0]) - 1)


def bd_rate_by(log=np.log10, back=lambda x: 10**x, low=None, high=None, sort=True):
    """BD-rate with linear interpolation, and one thing otherwise than it should be."""

    def answer(anchor, test):
        start = max(min(anchor[1]), min(test[1])) if low is None else low(anchor, test)
        end = min(max(anchor[1]), max(test[1])) if high is None else high(anchor, test)
        at, means = np.linspace(start, end, 2001), []
        for rates, qualities in (anchor, test):
            order = np.argsort(qualities) if sort else slice(None)
            means.append(np.interp(at, np.array(qualities)[order], log(np.array(rates))[order]))
        return 100 * (back((means[1] - means[0]).mean()) - 1)

    return answer


def mean_of_percents(anchor, test):
    low, high = max(min(anchor[1]), min(test[1])), min(max(anchor[1]), max(test[1]))
    at = np.linspace(low, high, 2001)
    logs = [np.interp(at, db, np.log(rates)) for rates, db in (anchor, test)]
    return 100 * (np.exp(logs[1] - logs[0]) - 1).mean()


def my_allocation(n_bytes, mses, budget):
    best, least = None, np.inf
    for price in np.geomspace(1e-6, 1e3, 4000):
        chosen = (mses + price * n_bytes).argmin(1)
        size = np.take_along_axis(n_bytes, chosen[:, None], 1).sum()
        error = np.take_along_axis(mses, chosen[:, None], 1).mean()
        if size <= budget and error < least:
            best, least = chosen, error
    return best


def the_same_for_all(n_bytes, mses, budget):
    return np.full(len(mses), max(s for s in range(mses.shape[1]) if n_bytes[:, s].sum() <= budget))


def the_same_bytes_for_each(n_bytes, mses, budget):
    return (n_bytes <= budget / len(mses)).sum(1) - 1


RIGHT = {"mean_psnr": my_mean_psnr, "bd_rate": my_bd_rate, "allocation": my_allocation}

MISTAKES = {
    "mean_psnr": [
        (lambda mses, peak: np.mean(10 * np.log10(peak / mses)), "the peak is squared"),
        (lambda mses, peak: np.mean(20 * np.log10(peak**2 / mses)), "the peak is squared"),
        (lambda mses, peak: np.mean(10 * np.log10(255**2 / mses)), "have the peak 1"),
        (lambda mses, peak: 10 * np.log10(peak**2 / np.mean(mses)), "first the PSNR of each picture"),
        (lambda mses, peak: 10 * np.log10(peak**2 / mses), "the peak is squared"),
        (lambda mses, peak: np.median(10 * np.log10(peak**2 / mses[:2])), "then the mean"),
    ],
    "bd_rate": [
        (lambda anchor, test: my_bd_rate(test, anchor), "half the bits"),
        (bd_rate_by(back=lambda x: 1 + x), "half the bits"),
        (lambda anchor, test: -abs(my_bd_rate(anchor, test)), "twice its bits"),
        (mean_of_percents, "average the logarithms first"),
        (bd_rate_by(log=lambda x: x, back=lambda x: 1 + x), "half the bits"),
        (bd_rate_by(low=lambda anchor, test: min(anchor[1])), "here 30 to 40 dB"),
        (bd_rate_by(high=lambda anchor, test: max(anchor[1])), "here 20 to 30 dB"),
        (bd_rate_by(sort=False), "sort them"),
    ],
    "allocation": [
        (the_same_for_all, "one price for all"),
        (the_same_bytes_for_each, "one price for all"),
        (lambda n_bytes, mses, budget: mses.argmin(1), "one price for all"),
        (lambda n_bytes, mses, budget: np.zeros(len(mses)), "one price for all"),
        (lambda n_bytes, mses, budget: 3, "one price for all"),
        (lambda n_bytes, mses, budget: np.full(len(mses), 99), "one price for all"),
    ],
}

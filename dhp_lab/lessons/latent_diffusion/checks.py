"""The exercises of the lesson on latent diffusion."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from scipy.special import erfinv

from dhp_lab.notebook.exercises import Case, exercise


@exercise
def nearest_code() -> Iterator[Case]:
    """Return for each latent (a row of z) the number of the nearest code (a row of codes): nearest_code(z,
    codes).
    """
    product = "(5, 5) has the largest product with every latent, but it is far away: compare distances"
    z, codes = np.array([[0.9, 0.1], [0.1, 1.2]]), np.array([[1.0, 0.0], [0.0, 1.0], [5.0, 5.0]])
    yield Case({"z": z, "codes": codes}, np.array([0, 1]), hint=product)
    sign = "a difference may be negative: square it before you compare"
    yield Case(
        {"z": np.array([[1.4], [-1.6], [0.5]]), "codes": np.array([[0.0], [2.0], [-3.0]])},
        np.array([1, 2, 0]),
        hint=sign,
    )
    euclid = "the distance is Euclid's: sum the squares of the differences over the numbers of a vector"
    yield Case(
        {"z": np.zeros((1, 2)), "codes": np.array([[0.9, 0.9], [1.2, 0.0]])}, np.array([1]), hint=euclid
    )
    yield Case(
        {"z": np.zeros((1, 2)), "codes": np.array([[0.9, 0.5], [1.2, 0.0]])}, np.array([0]), hint=euclid
    )


@exercise
def cross_attention() -> Iterator[Case]:
    """Return softmax(q k^T / sqrt(d)) v for places q (n, d), words k (L, d) and v (L, c): cross_attention(q,
    k, v).
    """
    one = "with a single word every place gets all of that word's value: the shares of a place add up to 1"
    yield Case(
        {"q": np.array([[1.0, 2.0]]), "k": np.array([[3.0, 4.0]]), "v": np.array([[5.0, 6.0, 7.0]])},
        np.array([[5.0, 6.0, 7.0]]),
        hint=one,
    )
    equal = "two words with the same key get equal shares of each place: the softmax runs over the words"
    yield Case(
        {"q": np.array([[1.0], [2.0]]), "k": np.ones((2, 1)), "v": np.array([[0.0], [10.0]])},
        np.full((2, 1), 5.0),
        hint=equal,
    )
    q, k, v = (
        np.array([[2.0, 0, 0, 0], [-2.0, 0, 0, 0]]),
        np.array([[math.log(3), 0, 0, 0], [0, 5.0, 0, 0]]),
        np.array([[1.0], [0.0]]),
    )
    root = (
        "divide the products by the square root of d, the number of entries "
        "of a key, here 4: the shares are 3/4 and 1/4"
    )
    yield Case({"q": q, "k": k, "v": v}, np.array([[0.75], [0.25]]), hint=root)
    large = (
        "exp(1000) is too large for a float: subtract the greatest score of "
        "a place before exp; the shares stay the same"
    )
    yield Case(
        {"q": np.array([[1000.0]]), "k": np.array([[1.0], [-1.0]]), "v": np.array([[1.0], [0.0]])},
        np.array([[1.0]]),
        hint=large,
    )


@exercise
def fitted_codebook() -> Iterator[Case]:
    """Return the K codes, in rising order, with the least mean squared error for latents z (N,), each of them
    replaced by its nearest code: fitted_codebook(z, K).
    """
    two = "two codes: each is the mean of the latents nearest to it, here 0.5 and 10.5"
    yield Case({"z": np.array([0.0, 1.0, 10.0, 11.0]), "K": 2}, np.array([0.5, 10.5]), hint=two)
    stuck = (
        "a code that no latent is nearest to never moves: begin at latents, or at quantiles of them. "
        "Here the clusters lie at 0, 5, 6 and 20"
    )
    clusters = np.concatenate([at + np.array([-0.1, 0.0, 0.1]) for at in (0.0, 5.0, 6.0, 20.0)])
    yield Case({"z": clusters, "K": 4}, np.array([0.0, 5.0, 6.0, 20.0]), hint=stuck)
    normal = np.sqrt(2) * erfinv(np.linspace(-1, 1, 4001)[1::2])  # quantiles, N(0, 1)
    best = (
        "for normal latents the best four codes are +-0.4528 and +-1.510, mean squared error 0.1175 "
        "(Max 1960, table I): go on until the codes stand still"
    )
    yield Case({"z": normal, "K": 4}, np.array([-1.510, -0.4528, 0.4528, 1.510]), hint=best, tolerance=0.01)

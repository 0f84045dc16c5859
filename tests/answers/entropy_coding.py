"""Lesson 08: right answers to its exercises, and wrong ones."""

from bisect import bisect_left, bisect_right

import numpy as np


def right_cross_entropy(p, q):
    seen = p > 0
    with np.errstate(divide="ignore"):
        return float(-(p[seen] * np.log2(q[seen])).sum())


def rans_decoder(*, search=bisect_right, order="little", refill=True, start=True, first=True):
    """A decoder, right unless a part of it is left out."""

    def decode(data, sums, n):
        state, at, found = int.from_bytes(data[:8], order), 8, []
        for _ in range(n):
            place = state % 2**16
            symbol = max(0, search(sums, place) - 1)
            state = (sums[symbol + 1] - sums[symbol]) * (state >> 16) + place - (sums[symbol] if start else 0)
            if refill and state < 2**31:
                state = (state << 32) + int.from_bytes(data[at : at + 4], "little")
                at += 4
            found.append(symbol)
        return found if first else found[::-1]

    return decode


def right_pixel_model(west, north, north_west, north_east):
    mean = np.median([west, north, west + north - north_west], axis=0)
    busy = abs(west - north_west) + abs(north - north_west) + abs(north - north_east)
    return mean, 1 + 0.3 * busy


def one_scale(west, north, north_west, north_east):
    return right_pixel_model(west, north, north_west, north_east)[0], 8.0


def fitted_to_one(west, north, north_west, north_east):
    mean, scale = right_pixel_model(west, north, north_west, north_east)
    return mean, scale if west[0, 1] == 15 else 3 * scale


RIGHT = {
    "cross_entropy": right_cross_entropy,
    "decode_rans": rans_decoder(),
    "pixel_model": right_pixel_model,
}

MISTAKES = {
    "cross_entropy": [
        (lambda p, q: float(-(p * np.log(q)).sum()), "a fair coin has one bit"),
        (lambda p, q: float(-np.log2(q).mean()), "weigh the lengths"),
        (lambda p, q: float(-(p * np.log2(p)).sum()), "the table its length"),
        (lambda p, q: float(-(q * np.log2(p)).sum()), "sum p log2(1 / q)"),
        (lambda p, q: float(-(p * np.log2(q)).sum()), "0 log 0 counts as 0"),
        (lambda p, q: min(99.0, right_cross_entropy(p, q)), "return infinity"),
    ],
    "decode_rans": [
        (rans_decoder(order="big"), "little-endian"),
        (rans_decoder(first=False), "name the first symbol"),
        (rans_decoder(start=False), "name the first symbol"),
        (rans_decoder(refill=False), "the next 4 bytes"),
        (rans_decoder(search=bisect_left), "name the first symbol"),
    ],
    "pixel_model": [
        (one_scale, "one scale for all pixels"),
        (lambda w, n, nw, ne: (w, 1 + 0.3 * (abs(w - nw) + abs(n - nw) + abs(n - ne))), "expected: 4.6"),
        (lambda w, n, nw, ne: w + n - nw, "take it larger"),
        (lambda w, n, nw, ne: (n / 0, 1.0), "take it larger"),
        (fitted_to_one, "fit it to one alone"),
    ],
}

"""lambda, its code, the quantiser step: every code, both ends, and the fixed-point curve against the trained
one.
"""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch

from dhp_lab.codec.bits import lambdas
from dhp_lab.codec.bits.lambdas import CODE_MAX, CODE_MIN, check_lambda, lambda_code, lambda_of
from dhp_lab.codec.networks.gain import GainCurve, quantisation_sigma

CODES = range(CODE_MIN, CODE_MAX + 1)
SOME_CODES = sorted(
    {*CODES[::37], *(4096 * knot + near for knot in range(1, 9) for near in (-1, 0, 1)), CODE_MIN, CODE_MAX}
)


@pytest.fixture
def curve() -> GainCurve:
    """A curve with bends, as after training."""
    curve = GainCurve()
    with torch.no_grad():
        curve.knots += 0.3 * torch.randn(
            curve.knots.shape, generator=torch.Generator().manual_seed(0)
        ).cumsum(0)
    return curve


def test_every_code_is_the_code_of_its_lambda():
    values = [lambda_of(code) for code in CODES]
    assert [lambda_code(value) for value in values] == list(CODES)
    assert all(low < high for low, high in zip(values, values[1:], strict=False))
    assert values[0] >= lambdas.LAMBDA_MIN and values[-1] <= lambdas.LAMBDA_MAX


def test_a_code_is_within_half_a_step_of_lambda():
    """2048 codes an octave: at most 2^(1/4096) - 1 = 0.017 % off."""
    values = torch.logspace(-6, -1, 4001, dtype=torch.float64).clamp(1e-6, 1e-1).tolist()
    worst = max(abs(math.log2(lambda_of(lambda_code(value)) / value)) for value in values)
    assert worst <= 0.5 / 2048 + 1e-12
    assert lambda_code(2.0**-10) == 20480 and lambda_of(20480) == 2.0**-10


@pytest.mark.parametrize("value", [0.0, -1e-3, 0.99e-6, 0.1001, math.inf, math.nan])
def test_a_lambda_out_of_range_is_refused(value):
    for function in (check_lambda, lambda_code):
        with pytest.raises(ValueError, match=f"lambda_rate must lie in .*1e-06, 0.1.*got {value}"):
            function(value)


@pytest.mark.parametrize("code", [-1, CODE_MIN - 1, CODE_MAX + 1, 65535])
def test_a_code_out_of_range_is_refused(code):
    for function in (lambda_of, GainCurve().fixed_point):
        with pytest.raises(ValueError, match=f"code must lie in .{CODE_MIN}, {CODE_MAX}., got {code}"):
            function(code)


def test_the_range_ends_are_inside():
    assert check_lambda(1e-6) == 1e-6 and check_lambda(1e-1) == 1e-1


def test_fixed_point_is_the_exact_line_between_the_rounded_knots(curve):
    knots = [round(Fraction(k) * 2**16) for k in curve.knots.tolist()]
    for code in SOME_CODES:
        left, right = knots[code // 4096], knots[code // 4096 + 1]
        assert curve.fixed_point(code) == math.floor(left + Fraction((right - left) * (code % 4096), 4096))


def test_fixed_point_is_the_trained_curve(curve):
    """Up to the rounding of knots (half a unit of 2^-16) and a floor (a unit)."""
    fixed = torch.tensor([curve.fixed_point(code) for code in SOME_CODES], dtype=torch.float64) / 2**16
    trained = curve.double()(
        torch.tensor([2.0 ** (code / 2048 - 20) for code in SOME_CODES], dtype=torch.float64)
    )
    assert (fixed - trained).abs().max() <= 1.5 * 2**-16 + 1e-9


def test_fixed_point_rises_with_lambda_before_training():
    curve = GainCurve()
    fixed = [curve.fixed_point(code) for code in SOME_CODES]
    assert all(low <= high for low, high in zip(fixed, fixed[1:], strict=False))


def test_the_curve_starts_where_a_uniform_quantiser_is_best():
    """Each of a pixel's three coefficients: MSE = Delta^2/12 and d(MSE)/d(bits) = -2 ln 2 MSE (Gish & Pierce
    1968), so d(MSE)/d(bpp) = -lambda is solved by Delta = sqrt(18 lambda / ln 2) = 5.096 sqrt(lambda).
    """
    values = torch.logspace(-6, -1, 101).clamp(1e-6, 1e-1)
    assert (GainCurve()(values).exp2() / (18 * values / math.log(2)).sqrt() - 1).abs().max() < 1e-3


def test_the_curve_learns_only_the_knots_around_lambda():
    curve = GainCurve()
    curve(torch.tensor([3e-4])).sum().backward()
    weights = curve.knots.grad
    assert (weights != 0).sum() == 2 and weights.sum().item() == pytest.approx(1, abs=1e-6)
    place = (math.log2(3e-4) + 20) / 2
    assert weights[math.floor(place) + 1].item() == pytest.approx(place % 1, abs=1e-5)


def test_a_curve_that_is_held_has_one_step_for_every_lambda(curve):
    """To the last bit, in both arithmetics; and it is as it was whatever happens inside the block."""
    before = curve.knots.detach().clone()
    for step in (-3.25, 0.1, -7.649):
        with curve.held_at(step):
            assert {curve.fixed_point(code) for code in SOME_CODES} == {round(step * 2**16)}
            assert curve(torch.tensor([1e-6, 3e-4, 0.1])).tolist() == pytest.approx([step] * 3)
        assert torch.equal(curve.knots, before) and curve.knots.requires_grad
    with pytest.raises(KeyError), curve.held_at(1.0):
        raise KeyError
    assert torch.equal(curve.knots, before)


def test_quantisation_sigma_is_the_measured_spread_of_rounding_errors():
    """10^6 draws: the standard error of the ratio is 0.05 %."""
    y = 20 * torch.randn(1_000_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for delta in (0.01, 0.3, 1.6):
        error = (y / delta).round() * delta - y
        assert error.std().item() / quantisation_sigma(delta) == pytest.approx(1, abs=2e-3)
    assert quantisation_sigma(torch.tensor([math.sqrt(12)])).item() == pytest.approx(1)

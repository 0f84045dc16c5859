"""Latents optimised for one picture: each step against its definition, and what a user is promised."""

import math

import pytest
import torch
from models import picture, untrained, woken
from scipy.stats import norm

from dhp_lab.codec import DiffusionHyperprior, dhp_file, effort, latent_optimiser
from dhp_lab.codec.bits import bitstream
from dhp_lab.codec.bits.lambdas import lambda_code
from dhp_lab.codec.bits.scales import is_coded
from dhp_lab.codec.effort import ITERATIONS, check_effort, file_cost, optimise_latents
from dhp_lab.codec.latent_optimiser import RATE_WEIGHT, Window, choose_symbols, measure_curvature
from dhp_lab.core.memory import OutOfMemory
from dhp_lab.core.paths import default_checkpoint
from dhp_lab.data.photos import load_photo

LAMBDA = 1e-3


@pytest.fixture(scope="module")
def shipped():
    return DiffusionHyperprior.from_pretrained(default_checkpoint())


@torch.no_grad()
def whole_window(model, x, curvature=1.0, lambda_rate=LAMBDA):
    plain = model.encode(x, [lambda_code(lambda_rate)])
    rows, cols = (slice(0, side) for side in plain.y.shape[-2:])
    return plain, Window(model, x, plain, rows, cols, lambda_rate, curvature)


# the steps


def test_the_symbol_chosen_costs_least_of_all():
    """Against every whole number in reach, with bits from SciPy's normal distribution."""
    mixture = [(weight, norm(scale=width)) for weight, width in ((0.8, 0.8), (0.2, 1.5))]
    model, generator = untrained(), torch.Generator().manual_seed(0)
    log2_scale = 5 * torch.rand(400, generator=generator) - 2
    residual = log2_scale.exp2() * torch.randn(400, generator=generator)
    curvature = 8.0
    found = choose_symbols(model, residual, log2_scale, curvature)
    for value, log2, symbol in zip(residual.tolist(), log2_scale.tolist(), found.tolist(), strict=True):
        costs = {}
        for q in range(-20, 21):
            low, high = (q - 0.5) / 2**log2, (q + 0.5) / 2**log2
            bin_mass = sum(weight * (part.cdf(high) - part.cdf(low)) for weight, part in mixture)
            bits = -math.log2(max(bin_mass, 1e-9))
            costs[q] = 0.5 * curvature * (value - q) ** 2 + RATE_WEIGHT * bits
        assert costs[int(symbol)] <= min(costs.values()) + 1e-3 * abs(min(costs.values()))


def test_nothing_is_chosen_where_nothing_is_coded():
    log2_scale = torch.linspace(-6, 3, 50)
    found = choose_symbols(untrained(), torch.full((50,), 7.0), log2_scale, 100.0)
    assert torch.equal(found != 0, is_coded(log2_scale))


@pytest.mark.parametrize("lambda_rate", [1e-2, 1e-4])
def test_the_curvature_of_an_orthonormal_transform(lambda_rate):
    """kappa = 2 Delta^2 / (3 lambda): an error keeps its energy, shared by three colours."""
    model = untrained(M=96)
    plain = model.encode(picture(160, 128), [lambda_code(lambda_rate)])
    found = measure_curvature(model, plain, (160, 128), lambda_rate)
    assert found == pytest.approx(2 * model.step_size(lambda_rate) ** 2 / 3 / lambda_rate, rel=0.02)


def test_the_newton_target_of_an_orthonormal_transform_is_y(monkeypatch):
    """Without a context model the rest of the cost is the picture's error, least at g_a's own latents."""
    monkeypatch.setattr(latent_optimiser, "STRIDE", 1.0)
    model, x = untrained(M=768), picture(64, 96)
    curvature = 2 * model.step_size(LAMBDA) ** 2 / 3 / LAMBDA
    plain, window = whole_window(model, x, curvature)
    window.target = window.target + 0.4  # anywhere
    with torch.no_grad():
        window._iterate(torch.optim.Adam([window.z], lr=0.0), 1.0)
    torch.testing.assert_close(window.target, plain.steps, atol=2e-3, rtol=0)


@torch.no_grad()
def test_gradients_are_those_of_the_cost_but_for_the_symbols_own_bits(monkeypatch, in_float32):
    """Finite differences: the picture's error, and the bits of later groups by way of the context model."""
    model, x = woken(passes=4), picture(48, 64)
    _, window = whole_window(model, x, 2.0)
    with torch.enable_grad():
        squared, bits, groups, _ = window._code()
        chosen = [symbols for _, symbols in groups]
        (gradient,) = torch.autograd.grad(squared / LAMBDA + bits, chosen[0])
    first = model.predict_in_floats(
        torch.round(window.z - model.medians().float()), window.log2_delta, window.target.shape[-2:]
    )
    direction, log2_scale = torch.sign(gradient), groups[0][0].gather(first.log2_scale)

    def rest_of_the_cost(step):
        moved = chosen[0] + step * direction
        choices = iter([moved, *chosen[1:]])
        monkeypatch.setattr(latent_optimiser, "choose_symbols", lambda *_: next(choices).detach().clone())
        squared, bits, _, _ = window._code()
        return (squared.double() / LAMBDA + bits.double() - window._bits_of_y(moved, log2_scale)).item()

    slope = (rest_of_the_cost(0.01) - rest_of_the_cost(-0.01)) / 0.02
    assert slope == pytest.approx(gradient.abs().sum().item(), rel=0.05)


# what a user is promised


@pytest.mark.parametrize("lambda_rate", [1e-2, 1e-3, 1e-4])
@pytest.mark.parametrize(
    ("settings", "size"),
    [({}, (64, 80)), ({"passes": 4, "dead_zone": 0.3}, (50, 33)), ({"passes": 2}, (16, 16))],
)
def test_a_file_never_costs_more_than_at_effort_0(settings, size, lambda_rate):
    model, x = woken(**settings), picture(*size)
    plain, better = (dhp_file.encode(model, x, lambda_rate=lambda_rate, effort=e) for e in (0, 2))

    def cost(data):
        error = (dhp_file.decode(model, data, steps=0) - x).square().sum().item() / 3
        return error / lambda_rate + 8 * len(data)

    assert cost(better) <= cost(plain) * (1 + 1e-6)


def test_the_cost_is_that_of_the_file_and_its_picture():
    model, x = woken(passes=2), picture(40, 70)
    latents = model.encode(x, [lambda_code(LAMBDA)])
    data = dhp_file.encode(model, x, lambda_rate=LAMBDA)
    error = (dhp_file.decode(model, data, steps=0) - x).square().sum().item() / 3
    file = bitstream.read(data)
    expected = error / LAMBDA + 8 * (len(file.y) + len(file.z) + len(file.side))
    assert file_cost(model, x, latents, LAMBDA) == pytest.approx(expected, rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("photo", ["chelsea", "coffee"])
def test_a_photo_takes_fewer_bits_at_equal_quality(shipped, photo):
    """Several percent of the bits; the posterior mean of K = 1 gains as K = 0 does."""
    x = load_photo(photo)[..., 60:252, 100:356]
    files = [dhp_file.encode(shipped, x, lambda_rate=2e-3, effort=e) for e in (0, 3, 5)]
    for steps in (0, 1):
        costs = [
            (dhp_file.decode(shipped, data, steps=steps) - x).square().sum().item() / 3 / 2e-3 + 8 * len(data)
            for data in files
        ]
        assert costs[1] < costs[0] - 0.02 * 8 * len(files[0]), steps
        assert costs[2] < costs[1], steps


def test_the_same_picture_makes_the_same_file():
    model, x = woken(passes=4), picture(64, 64)
    assert dhp_file.encode(model, x, effort=2) == dhp_file.encode(model, x, effort=2)


def test_a_large_picture_is_optimised_in_windows(monkeypatch):
    """As good as at once, but for what the windows do not see of each other."""
    model, x = woken(passes=4), picture(160, 256)
    plain, whole = (file_cost(model, x, optimise_latents(model, x, LAMBDA, e), LAMBDA) for e in (0, 3))
    monkeypatch.setattr(effort, "WINDOW", 4)
    reports = []
    tiled = file_cost(model, x, optimise_latents(model, x, LAMBDA, 3, reports.append), LAMBDA)
    assert len(reports) == reports[-1].iterations == 12 * ITERATIONS[3]
    assert plain - tiled > 0.8 * (plain - whole)


def test_the_progress_counts_iterations_and_the_bits_saved():
    reports = []
    dhp_file.encode(woken(passes=2), picture(64, 64), effort=3, report=reports.append)
    assert [r.iteration for r in reports] == [*range(1, ITERATIONS[3] + 1)]
    assert {r.iterations for r in reports} == {ITERATIONS[3]} and reports[-1].seconds_left == 0
    saved = [r.saved for r in reports]
    assert saved == sorted(saved) and saved[-1] > 0


@pytest.mark.parametrize("iteration", [1, 3])
def test_an_interruption_keeps_the_best_so_far(iteration):
    model, x = woken(passes=4), picture(64, 64)

    def interrupt(progress):
        if progress.iteration == iteration:
            raise KeyboardInterrupt

    latents = [
        optimise_latents(model, x, LAMBDA, number, report) for number, report in ((0, None), (9, interrupt))
    ]
    plain, best = (file_cost(model, x, one, LAMBDA) for one in latents)
    assert best < plain if iteration == 3 else best <= plain


def test_pictures_of_a_batch_are_optimised_one_by_one():
    model, x = woken(passes=2), picture(48, 48, count=2)
    both = dhp_file.encode_batch(model, x, effort=1)
    assert both == [dhp_file.encode(model, one, effort=1) for one in x.split(1)]


def test_the_mode_and_the_weights_stay_as_they_were():
    model, x = woken(passes=2).train(), picture(32, 32)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    dhp_file.encode(model, x, effort=1)
    assert model.training and all(p.grad is None and p.requires_grad for p in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


# bad input


@pytest.mark.parametrize("value", [-1, 10, 2.5, "3"])
def test_another_effort_is_refused(value):
    with pytest.raises(ValueError, match="effort must be a whole number in 0 .. 9, got"):
        check_effort(value)


def test_z_alone_has_nothing_to_optimise():
    model = untrained(transmit="z")
    with pytest.raises(ValueError, match="effort 4 optimises y, and this model sends z alone: use effort 0"):
        dhp_file.encode(model, picture(32, 32), effort=4)
    assert dhp_file.encode(model, picture(32, 32), effort=0)


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")])
def test_too_little_memory_is_one_line_with_what_to_do(monkeypatch, error):
    def fail(*_):
        raise error

    monkeypatch.setattr(Window, "optimise", fail)
    with pytest.raises(
        OutOfMemory, match=r"effort 5: take a lower effort, or smaller tiles \(--low_memory\)"
    ):
        dhp_file.encode(untrained(), picture(32, 32), effort=5)


def test_an_error_of_another_kind_is_not_called_one_of_memory(monkeypatch):
    def fail(*_):
        raise RuntimeError("shape mismatch")

    monkeypatch.setattr(Window, "optimise", fail)
    with pytest.raises(RuntimeError, match="shape mismatch"):
        dhp_file.encode(untrained(), picture(32, 32), effort=5)

"""The gain curve by measuring: closed forms, brute force over lambdas, and what must stay as it is."""

from __future__ import annotations

import copy
import logging
import math

import pytest
import torch
from models import untrained, woken
from photos import photo

from dhp_lab.codec.create import create_diffusion_hyperprior_model
from dhp_lab.codec.model import DiffusionHyperprior
from dhp_lab.core.paths import CHECKPOINTS
from dhp_lab.data.photos import load_photo
from dhp_lab.training import calibration
from dhp_lab.training.calibration import CalibrationError, Sweep, calibrate, calibrate_both, sweep
from dhp_lab.training.codec_objective import rate_distortion

LAMBDAS = (1e-2, 3e-3, 1e-3, 3e-4, 1e-4)
OCTAVES = (-1.0, -0.5, 0.5, 1.0)  # of lambda: the other files


@pytest.fixture(scope="module")
def pictures() -> torch.Tensor:
    """Three crops of a photo, (3, 3, 64, 64)."""
    return torch.cat([photo(64, 64, shift) for shift in (32, 160, 288)])


@torch.no_grad()
def costs(model: DiffusionHyperprior, x: torch.Tensor, lambda_rate: float) -> list[float]:
    """MSE + lambda * bpp of the files made with this lambda, and of those made with others."""
    found = []
    for octaves in (0.0, *OCTAVES):
        out = model(x, lambda_rate * 2.0**octaves, steps=0)
        price = torch.full((len(x),), lambda_rate)
        found.append(rate_distortion(out["x_hat"], x, out["likelihoods"], price)["loss"].item())
    return found


def changed(model: DiffusionHyperprior, before: dict[str, torch.Tensor]) -> set[str]:
    return {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}


def copied(model: DiffusionHyperprior) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


# the best step


def test_the_best_step_is_that_of_high_rate_theory():
    """MSE = c Delta^2 and bpp = b - log2(Delta): the derivative is zero at Delta^2 = lambda / (2 c ln 2). The
    parabola leaves out the third derivative, 2 ln 2 times the second: h^2/6 of that for points h apart.
    """
    bound = 2 * math.log(2) / calibration.GRID**2 / 6
    steps = torch.arange(-40, 9, dtype=torch.float64) / calibration.GRID
    measured = Sweep(steps, 4**steps / 12, 3 - steps)
    for lambda_rate in LAMBDAS:
        expected = math.log2(6 * lambda_rate / math.log(2)) / 2
        assert measured.best(lambda_rate) == pytest.approx(expected, abs=1.1 * bound)


@pytest.mark.parametrize("vertex", [-3.0, -2.9, -2.87, -2.625])
def test_the_vertex_of_a_parabola_is_found_exactly(vertex):
    steps = torch.arange(-16, 1, dtype=torch.float64) / calibration.GRID
    assert Sweep(steps, (steps - vertex) ** 2 - 1e-3 * steps, steps).best(1e-3) == pytest.approx(vertex)


def test_equal_costs_give_the_first_of_their_steps_and_ends_are_refused():
    steps = torch.arange(5, dtype=torch.float64)
    flat = Sweep(steps, torch.tensor([2.0, 1, 1, 1, 2]), torch.zeros(5))
    assert 1 <= flat.best(1e-3) <= 3
    rising = Sweep(steps, steps, torch.zeros(5))
    with pytest.raises(CalibrationError, match=r"at lambda 0.001 no step from 2\^0 to 2\^4 is the best"):
        rising.best(1e-3)


# the sweep


def test_a_sweep_measures_what_files_of_that_step_are(pictures):
    """Knots on whole steps: each lambda of a knot is coded, and measured by the training's own loss."""
    model = woken(passes=2, dead_zone=0.3)
    with torch.no_grad():
        model.gain.knots.copy_(torch.arange(10) - 8.0)
    measured = sweep(model, pictures, -5, -2)
    assert measured.log2_delta.tolist() == [-5 + i / 4 for i in range(13)]
    for i, lambda_rate in ((0, 2.0**-14), (4, 2.0**-12), (8, 2.0**-10)):
        with torch.no_grad():
            out = model(pictures, lambda_rate, steps=0)
        price = torch.full((len(pictures),), lambda_rate)
        loss = rate_distortion(out["x_hat"], pictures, out["likelihoods"], price)
        assert measured.bpp[i].item() == pytest.approx(loss["bpp"].item(), rel=1e-5)
        expected = loss["loss"] - lambda_rate * loss["bpp"]
        assert measured.mse[i].item() == pytest.approx(expected.item(), rel=1e-4)


def test_pictures_of_several_sizes_count_alike():
    model, sizes = woken(), (photo(64, 80), photo(48, 64, 90))
    both = sweep(model, [x[0] for x in sizes], -4, -3)
    single = [sweep(model, x, -4, -3) for x in sizes]
    for name in ("mse", "bpp"):
        mean = sum(getattr(one, name) for one in single) / 2
        assert torch.allclose(getattr(both, name), mean, rtol=1e-9)


def test_where_the_memory_does_not_suffice_pictures_are_measured_singly(pictures, monkeypatch):
    model = woken()
    expected, forward = sweep(model, pictures, -4, -3), DiffusionHyperprior.forward

    def small_memory(self, x, *arguments, **options):
        if len(x) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(self, x, *arguments, **options)

    monkeypatch.setattr(DiffusionHyperprior, "forward", small_memory)
    singly = sweep(model, pictures, -4, -3)
    assert torch.allclose(singly.mse, expected.mse, rtol=1e-4)
    assert torch.allclose(singly.bpp, expected.bpp, rtol=1e-4)


def test_a_picture_that_is_refused_leaves_the_model_as_it_was(pictures):
    model = woken().train()
    before = copied(model)
    with pytest.raises(ValueError, match="finite numbers"):
        calibrate(model, pictures / 0)
    with pytest.raises(ValueError, match="no pictures"):
        calibrate(model, [])
    assert not changed(model, before) and model.training


# the curve


@pytest.mark.parametrize("settings", [{}, {"passes": 4, "dead_zone": 0.35}], ids=["plain", "all"])
def test_a_calibrated_file_beats_the_files_of_other_lambdas(pictures, settings):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = create_diffusion_hyperprior_model(N=8, M=192, diffusion_steps=10, **settings).eval()
    with torch.no_grad():
        model.gain.knots -= 1 / 3 + 0.2 * torch.rand(10, generator=torch.Generator().manual_seed(0))
    too_fine = [costs(model, pictures, value) for value in LAMBDAS]
    assert all(own > 1.01 * min(others) for own, *others in too_fine), "there must be something to repair"
    before = copied(model)
    calibrate(model, pictures)
    assert changed(model, before) == {"gain.knots"} and not model.training
    assert bool((model.gain.knots.diff() > 0).all())
    for value in LAMBDAS:
        own, *others = costs(model, pictures, value)
        assert own < 1.005 * min(others), value


def test_knots_outside_the_range_go_on_with_the_square_root_of_lambda(pictures):
    """Knots lie at lambda = 2^-20, 2^-18 .. 2^-2, and the range ends at 2^-16.6 and 2^-5.1."""
    model = untrained(M=96)
    calibrate(model, pictures)
    octaves = model.gain.knots.diff()
    assert octaves[:2].tolist() == pytest.approx([1, 1], abs=1e-5)
    assert octaves[7:].tolist() == pytest.approx([1, 1], abs=1e-5)
    assert (octaves[2:7] - 1).abs().min() > 1e-3


def test_calibrating_draws_no_random_numbers_and_repeats_itself(pictures):
    one, other = woken(), woken().train()
    with torch.no_grad():
        for model in (one, other):
            model.gain.knots.copy_(torch.arange(10) - 7.5)
    before = torch.get_rng_state()
    measured = [sweep(model, pictures, -6, -4) for model in (one, other)]
    assert torch.equal(measured[0].mse, measured[1].mse) and torch.equal(measured[0].bpp, measured[1].bpp)
    assert torch.equal(torch.get_rng_state(), before)
    assert other.training and all(module.training for module in other.modules())


def test_a_single_lambda_shifts_the_curve_as_a_whole(pictures):
    model = untrained(M=96)
    with torch.no_grad():
        model.gain.knots -= 0.6
    before = model.gain.knots.detach().clone()
    calibrate(model, pictures, 2e-3)
    shift = model.gain.knots.detach() - before
    assert torch.allclose(shift, shift[0].expand(10), atol=1e-6) and shift[0] > 0.3
    own, *others = costs(model, pictures, 2e-3)
    assert own < 1.005 * min(others)


def test_z_alone_keeps_its_curve(pictures):
    model = untrained(transmit="z")
    before = copied(model)
    calibrate(model, pictures)
    calibrate(model, pictures, 1e-2)
    assert not changed(model, before)


def test_a_curve_that_would_not_rise_is_refused(pictures, monkeypatch):
    """Bits that rose with Delta would make the best step fall with lambda."""
    model = untrained()
    steps = torch.arange(-40, 9, dtype=torch.float64) / calibration.GRID
    monkeypatch.setattr(calibration, "sweep", lambda *_: Sweep(steps, (steps + 3) ** 2, 100 * steps))
    before = copied(model)
    with pytest.raises(CalibrationError, match=r"must rise with lambda, but from lambda 1.53e-05 to 0.0156"):
        calibrate(model, pictures)
    assert not changed(model, before)


def test_a_lambda_out_of_range_is_named(pictures):
    with pytest.raises(ValueError, match="lambda_rate must lie in .* got 0.5"):
        calibrate(untrained(), pictures, 0.5)


def test_model_and_average_get_the_curve_of_the_average(pictures, caplog):
    average = untrained(M=96)
    model = copy.deepcopy(average).train()
    with torch.no_grad():
        model.g_a.linear.correction.add_(0.01)  # the model itself is far away by now
    expected = copy.deepcopy(average)
    calibrate(expected, pictures)
    with caplog.at_level(logging.INFO, "dhp_lab"):
        calibrate_both(model, average, pictures)
    assert torch.equal(average.gain.knots, expected.gain.knots)
    assert torch.equal(model.gain.knots, expected.gain.knots) and model.training
    first, last = untrained(M=96).gain.knots[0].item(), expected.gain.knots[0].item()
    assert f"at its knots: {first:.3f} " in caplog.text and f"calibration, {last:.3f} " in caplog.text


def test_a_training_goes_on_where_no_curve_follows(pictures, caplog):
    average = untrained()
    with torch.no_grad():
        average.gain.knots += 4
    model, before = copy.deepcopy(average), copied(average)
    calibrate_both(model, average, pictures)
    assert not changed(average, before) and not changed(model, before)
    assert "the gain curve stays as it is: at lambda 1.53e-05 no step" in caplog.text


def crops(name: str, side: int = 256) -> torch.Tensor:
    """The crops, side by side, that a shipped photo's middle holds, (B, 3, side, side)."""
    x = load_photo(name)
    height, width = (length // side * side for length in x.shape[-2:])
    tiles = x[..., :height, :width].unfold(2, side, side).unfold(3, side, side)
    return tiles.permute(0, 2, 3, 1, 4, 5).reshape(-1, 3, side, side)


@pytest.mark.slow
def test_the_shipped_codec_calibrated_on_some_photos_is_so_on_others():
    model = DiffusionHyperprior.from_pretrained(CHECKPOINTS / "diffusion-hyperprior").eval()
    calibrate(model, torch.cat([crops(name) for name in ("astronaut", "coffee", "china")]))
    assert bool((model.gain.knots.diff() > 0).all())
    for name in ("chelsea", "rocket", "motorcycle", "flower"):
        for value in LAMBDAS:
            own, *others = costs(model, crops(name), value)
            assert own < 1.005 * min(others), (name, value)

"""The EMA against diffusers' and closed forms, the learning rate against torch's, one step by hand."""

from __future__ import annotations

import math

import pytest
import torch
from diffusers.training_utils import EMAModel
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR

from dhp_lab.training.optimisation import EMA, lr_factor, optimizer_step, update_ema


def largest_difference(a: nn.Module, parameters: list[torch.Tensor]) -> float:
    pairs = zip(a.parameters(), parameters, strict=True)
    return max((mine - theirs).abs().max().item() for mine, theirs in pairs)


def move(network: nn.Module, seed: int) -> None:
    """Stand in for a gradient step."""
    with torch.no_grad():
        for parameter in network.parameters():
            generator = torch.Generator().manual_seed(seed)
            parameter.add_(torch.randn(parameter.shape, generator=generator))


# the EMA


def test_one_update_is_that_of_diffusers():
    network, average = nn.Linear(3, 2), nn.Linear(3, 2)
    average.load_state_dict(network.state_dict())
    theirs = EMAModel(network.parameters(), decay=0.9, min_decay=0.9)
    for step in range(5):
        move(network, step)
        theirs.step(network.parameters())
        update_ema(average, network, theirs.cur_decay_value)
    assert largest_difference(average, theirs.shadow_params) < 1e-6


@pytest.mark.parametrize("steps", [1, 7, 30])
def test_while_it_warms_up_the_start_fades_as_a_binomial_coefficient(steps):
    """Weights of 1 after a start at 0: prod_k k / (k + 10) = 1 / C(n + 10, 10) is what is missing."""
    network = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(network.weight)
    ema = EMA(network, decay=0.999)
    nn.init.ones_(network.weight)
    for _ in range(steps):
        ema.update(network)
    assert ema.average.weight.item() == pytest.approx(1 - 1 / math.comb(steps + 10, 10), abs=1e-6)


def test_after_the_warm_up_the_start_fades_geometrically():
    """With a decay of 1/11 there is no warm-up: 1 / (1 + 10) is the first of the rising decays."""
    network = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(network.weight)
    ema = EMA(network, decay=1 / 11)
    nn.init.ones_(network.weight)
    for _ in range(3):
        ema.update(network)
    assert ema.average.weight.item() == pytest.approx(1 - 11**-3, abs=1e-6)


def test_a_decay_of_0_keeps_the_last_weights_alone():
    network = nn.Linear(3, 2)
    ema = EMA(network, decay=0.0)
    move(network, 1)
    ema.update(network)
    assert largest_difference(ema.average, list(network.parameters())) == 0


def test_the_average_is_a_network_of_its_own_and_learns_nothing():
    network = nn.Sequential(nn.Linear(3, 2), nn.Dropout(0.5)).train()
    ema = EMA(network, decay=0.9)
    assert network.training and not ema.average.training
    assert not any(parameter.requires_grad for parameter in ema.average.parameters())
    before = [parameter.clone() for parameter in ema.average.parameters()]
    move(network, 1)
    assert largest_difference(ema.average, before) == 0


@pytest.mark.parametrize("decay", [-0.1, 1.0, math.nan])
def test_a_decay_outside_its_range_is_refused(decay):
    with pytest.raises(ValueError, match=r"decay must lie in \[0, 1\), got"):
        EMA(nn.Linear(1, 1), decay)


# one step


def test_a_gradient_step_is_clipped_and_as_long_as_its_place_in_the_run_says():
    """Plain descent: a gradient (3, 4) is shortened to (0.6, 0.8), one of length 0.5 is not."""
    for slope, moved in (([3.0, 4.0], [0.6, 0.8]), ([0.3, 0.4], [0.3, 0.4])):
        network = torch.nn.Linear(2, 1, bias=False)
        optimizer, before = torch.optim.SGD(network.parameters(), lr=9), network.weight.detach().clone()
        loss = (network.weight * torch.tensor([slope])).sum()
        optimizer_step(loss, network, optimizer, lr=0.5, step=3, steps=1000)
        expected = before - 0.5 * lr_factor(3, 1000) * torch.tensor([moved])
        torch.testing.assert_close(network.weight.detach(), expected, rtol=0, atol=1e-6)
        with pytest.raises(ValueError, match="the loss is nan at step 4; try a smaller lr than 0.5"):
            optimizer_step(network.weight.sum() * math.nan, network, optimizer, lr=0.5, step=4, steps=1000)
        torch.testing.assert_close(network.weight.detach(), expected, rtol=0, atol=1e-6)


def test_all_groups_of_an_optimiser_get_the_same_learning_rate():
    network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    optimizer = torch.optim.SGD([{"params": layer.parameters()} for layer in network], lr=9)
    optimizer_step(network(torch.ones(1, 2)).sum(), network, optimizer, lr=0.5, step=3, steps=1000)
    assert [group["lr"] for group in optimizer.param_groups] == [0.5 * lr_factor(3, 1000)] * 2


# the learning rate


def test_the_learning_rate_rises_for_2_percent_and_falls_to_nothing():
    shares = [lr_factor(step, 1000) for step in range(1, 1001)]
    assert shares[0] == pytest.approx(1 / 20)
    assert max(shares) == shares[19] == pytest.approx(math.cos(math.pi * 0.019 / 2) ** 2)
    assert shares[500] == pytest.approx(0.5) and 0 < shares[-1] < 1e-5 and lr_factor(1, 1) == 1


@pytest.mark.parametrize("floor", [0.0, 0.01, 0.5])
def test_without_a_warm_up_the_learning_rate_is_that_of_torchs_cosine_annealing(floor):
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=1.0)
    scheduler = CosineAnnealingLR(optimizer, T_max=50, eta_min=floor)
    for step in range(1, 51):
        expected = optimizer.param_groups[0]["lr"]
        assert lr_factor(step, 50, warmup=1, floor=floor) == pytest.approx(expected, abs=1e-12)
        optimizer.step()
        scheduler.step()


@pytest.mark.parametrize("length", [1, 3, 199, 200, 1234])
def test_a_warm_up_in_steps_and_a_floor_are_those_of_the_codecs_stages(length):
    """Linear over 200 steps, or the whole stage if it is shorter, times a cosine from 1 to 0.01."""
    for done in range(length):
        rise = min(1.0, (done + 1) / min(200, length))
        expected = rise * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done / length)))
        assert lr_factor(done + 1, length, warmup=min(200, length), floor=0.01) == expected

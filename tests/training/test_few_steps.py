"""Training for few steps: the loop, its objectives, and the networks that are written and read again."""

import pytest
import torch
from torch import nn

from dhp_lab.core.weights import CheckpointError
from dhp_lab.diffusion.edm import edm_loss
from dhp_lab.diffusion.flow import flow_loss
from dhp_lab.training.digit_denoiser import load_denoiser
from dhp_lab.training.digit_flow import FlowUNet, connected_pairs, load_reflow, save_reflow
from dhp_lab.training.few_steps import (
    FitConfig,
    distillation_objective,
    edm_objective,
    fit,
    flow_objective,
    kept_pairs,
    shuffled_pairs,
)
from dhp_lab.training.islands import (
    LEVELS,
    SIGMA_MAX,
    SIGMA_MIN,
    PlaneNetwork,
    distillation_levels,
    load_islands,
    save_islands,
    train_islands,
)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


class Constant(nn.Module):
    """A velocity, or an estimate, that is one learnt point."""

    def __init__(self):
        super().__init__()
        self.point = nn.Parameter(torch.zeros(2))

    def forward(self, x, t):
        return self.point.expand_as(x)


def test_fit_finds_the_mean_of_kept_pairs():
    """The best constant velocity of pairs is the mean of eps - x0."""
    x0, eps = torch.randn(64, 2, generator=seeded()) + 1, torch.randn(64, 2, generator=seeded(1))
    losses = []
    found = fit(
        Constant(),
        flow_objective(kept_pairs(x0, eps, 64)),
        FitConfig(400, lr=0.05, average=0.9),
        progress=lambda step, loss: losses.append(loss),
    )
    assert (found.point - (eps - x0).mean(0)).abs().max() < 0.1
    assert len(losses) == 400 and losses[-1] < losses[0]


def test_a_run_is_a_function_of_its_configuration():
    data = torch.randn(50, 2, generator=seeded())
    runs = [fit(Constant(), flow_objective(shuffled_pairs(data, 8)), FitConfig(5, seed=3)) for _ in range(2)]
    assert torch.equal(runs[0].point, runs[1].point)


def test_objectives_are_the_losses_of_their_modules():
    data, network = torch.randn(50, 2, generator=seeded()), Constant()
    pairs = shuffled_pairs(data, 8)
    x0, eps = pairs(seeded(1))
    fixed = lambda generator: (x0, eps)  # noqa: E731 (one batch)
    found = flow_objective(fixed)(network, network, seeded(2))
    assert found == flow_loss(network, x0, eps, torch.rand(8, generator=seeded(2)))
    found = edm_objective(fixed, sigma_data=0.5)(network, network, seeded(2))
    sigma = (-1.2 + 1.2 * torch.randn(8, generator=seeded(2))).exp()
    assert found == edm_loss(network, x0, sigma, eps, sigma_data=0.5)
    same = distillation_objective(fixed, network, distillation_levels())(network, network, seeded(2))
    assert same == 0  # two equal constants


def test_distillation_levels_reach_from_end_to_end():
    levels = distillation_levels()
    assert len(levels) == LEVELS and bool((levels.diff() > 0).all())
    assert levels[0].item() == pytest.approx(SIGMA_MIN) and levels[-1].item() == pytest.approx(SIGMA_MAX)


def test_islands_are_trained_written_and_read_again(tmp_path):
    models = train_islands(2, width=8)
    save_islands(models, tmp_path, steps=2, seed=0)
    again = load_islands(tmp_path)
    x, level = torch.randn(5, 2, generator=seeded()), torch.full((5,), 0.7)
    for name, network in vars(models).items():
        with torch.no_grad():
            assert torch.equal(network(x, level), getattr(again, name)(x, level)), name
    (tmp_path / "model.safetensors").write_bytes(b"x")
    with pytest.raises(CheckpointError, match="does not fit"):
        load_islands(tmp_path)
    with pytest.raises(CheckpointError, match="few_steps.py --save_weights"):
        load_islands(tmp_path / "nowhere")


def test_the_shipped_islands_are_near_their_reference():
    """The diffusion's estimate of x0 at much noise is the mean of the data."""
    models = load_islands()
    with torch.no_grad():
        found = models.diffusion(60.0 * torch.randn(200, 2, generator=seeded()), torch.full((200,), 60.0))
    assert (found.mean(0) - torch.tensor([-0.195, -0.325])).abs().max() < 0.1
    assert PlaneNetwork(8)(torch.zeros(3, 2), torch.zeros(3)).shape == (3, 2)


def test_a_reflow_is_written_and_read_again(tmp_path):
    unet, config = load_denoiser("digits")
    network = FlowUNet(unet)
    save_reflow(network, steps=1, folder=tmp_path)
    x, t = torch.randn(2, 1, 8, 8, generator=seeded()), torch.tensor([0.2, 0.9])
    with torch.no_grad():
        assert (load_reflow(tmp_path)(x, t) - network(x, t)).abs().max() < 1e-6
        assert torch.equal(network(x, t), unet(x, 1000 * t))
    x0, eps = connected_pairs(unet, config.noise_schedule(), x, count=2)
    assert torch.equal(eps, x) and x0.shape == x.shape


def test_errors_name_the_value():
    with pytest.raises(ValueError, match="got 0, 0.002 and 0.999"):
        FitConfig(0)

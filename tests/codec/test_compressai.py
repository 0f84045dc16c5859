"""The codec as a model of CompressAI: its loss, its auxiliary loss, its tables, its optimisers and its
evaluation, unchanged.
"""

from __future__ import annotations

import pytest
import torch
from compressai.losses import RateDistortionLoss
from compressai.models import CompressionModel
from compressai.optimizers import net_aux_optimizer
from compressai.utils.eval_model.__main__ import inference, inference_entropy_estimation
from models import picture, untrained, woken

import dhp_lab  # noqa: F401  (stands in line before compressai, which imports torchvision)
from dhp_lab.codec.latents import probability


def quantile_error(model) -> float:
    """How far z's quantiles are from where CompressAI wants them, in logits: aux_loss over its terms."""
    return model.aux_loss().item() / model.entropy_bottleneck.quantiles.numel()


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("transmit", ["z+y", "z"])
def test_the_rate_distortion_loss_runs_on_what_the_model_returns(training, transmit):
    """lmbda = 1 / (255^2 lambda) makes CompressAI's loss ours, divided by lambda."""
    model, x, lambda_rate = woken(transmit=transmit).train(training), picture(64, 64, count=2), 1e-3
    out = model(x, lambda_rate)
    losses = RateDistortionLoss(lmbda=1 / (255**2 * lambda_rate))(out, x)
    bpp = sum(-p.log2().sum() for p in out["likelihoods"].values()) / (2 * 64 * 64)
    ours = (out["x_hat"] - x).square().mean() + lambda_rate * bpp
    assert losses["loss"].item() * lambda_rate == pytest.approx(ours.item(), rel=1e-4)
    assert losses["bpp_loss"].item() == pytest.approx(bpp.item(), rel=1e-5)


def test_the_loss_trains_the_codec():
    model = woken().train()
    RateDistortionLoss(lmbda=0.01)(model(picture(64, 64, count=2), 1e-3), picture(64, 64, count=2))[
        "loss"
    ].backward()
    for name, parameter in model.named_parameters():
        trained = not name.startswith("denoiser.") and not name.endswith("quantiles")
        assert (parameter.grad is not None and bool(parameter.grad.any())) == trained, name
        assert not trained or bool(parameter.grad.isfinite().all()), name


def test_the_auxiliary_loss_moves_the_quantiles_alone():
    model = untrained()
    model.aux_loss().backward()
    assert [name for name, p in model.named_parameters() if p.grad is not None] == [
        "entropy_bottleneck.quantiles"
    ]


def test_compressais_two_optimisers_share_the_parameters_out():
    model = untrained()
    optimizers = net_aux_optimizer(
        model, {"net": {"type": "Adam", "lr": 1e-4}, "aux": {"type": "Adam", "lr": 0.1}}
    )
    (group,), before = optimizers["aux"].param_groups, quantile_error(model)
    assert len(group["params"]) == 1 and group["params"][0] is model.entropy_bottleneck.quantiles
    for _ in range(20):
        optimizers["aux"].zero_grad()
        model.aux_loss().backward()
        optimizers["aux"].step()
    assert quantile_error(model) < before


def test_update_finds_the_quantiles_and_makes_tables():
    model = woken()
    assert model.update() is False, "tables are there"
    before = model.entropy_bottleneck.quantized_cdf
    assert model.update(force=True, update_quantiles=True) is True
    assert quantile_error(model) < 0.05 and model.entropy_bottleneck.quantized_cdf is not before


def test_it_is_a_compression_model_with_one_bottleneck():
    model = untrained()
    assert isinstance(model, CompressionModel) and isinstance(CompressionModel.aux_loss(model), torch.Tensor)


@pytest.mark.parametrize("size", [(192, 256), (200, 170)])
def test_inference_measures_the_real_bytes(size):
    """CompressAI pads to multiples of 64, codes, decodes and crops; its rate counts y, z and side."""
    model, x = woken(), picture(*size)
    result = inference(model, x[0])
    padded = torch.nn.functional.pad(x, _padding(size))
    coded = model.compress(padded)
    assert result["bpp"] == 8 * sum(len(s[0]) for s in coded["strings"]) / (size[0] * size[1])
    x_hat = model.decompress(coded["strings"], coded["shape"])["x_hat"]
    left, _, top, _ = _padding(size)
    error = x_hat[..., top : top + size[0], left : left + size[1]].mul(255).round() - x.mul(255).round()
    assert result["psnr-rgb"] == pytest.approx(
        20 * torch.log10(255 / error.square().mean().sqrt()).item(), abs=1e-3
    )


def _padding(size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Left, right, top, bottom: to multiples of 64, half on each side."""
    (top, bottom), (left, right) = ((-n % 64 // 2, -n % 64 - -n % 64 // 2) for n in size)
    return left, right, top, bottom


def test_the_estimate_agrees_with_inference():
    """PSNR is the same to the last digit; the likelihoods leave out side and the coder's last words."""
    model, x = woken().eval(), picture(192, 256)[0]
    estimate, real = inference_entropy_estimation(model, x), inference(model, x)
    assert estimate["psnr-rgb"] == real["psnr-rgb"] and estimate["ms-ssim-rgb"] == real["ms-ssim-rgb"]
    assert estimate["bpp"] == pytest.approx(real["bpp"], rel=0.06)


def test_noise_of_ones_own_gives_the_probabilities_that_compressai_gives():
    """CompressAI's noise is drawn in the order (channel, picture, place)."""
    bottleneck = woken().train().entropy_bottleneck
    z = torch.randn(3, bottleneck.channels, 2, 5, generator=torch.Generator().manual_seed(0))
    with torch.random.fork_rng():
        torch.manual_seed(4)
        expected = bottleneck(z)[1]
        torch.manual_seed(4)
        noise = torch.empty(bottleneck.channels, 3, 2, 5).uniform_(-0.5, 0.5).transpose(0, 1)
    assert (probability(bottleneck, z, lambda z: noise) - expected).abs().max() < 1e-6
    bottleneck.eval()
    assert torch.equal(probability(bottleneck, z, lambda z: noise), bottleneck(z)[1])

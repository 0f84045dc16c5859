"""The variants of benchmarks/ablation.py: each differs from the codec in the one thing that it names."""

from __future__ import annotations

import importlib
import json
import math
import sys
from argparse import Namespace
from pathlib import Path

import pytest
import torch
from models import picture

from dhp_lab.codec.config import CodecConfig
from dhp_lab.data.images import save_image
from dhp_lab.training.codec_config import TrainingError
from dhp_lab.training.codec_objective import CodecObjective
from dhp_lab.training.codec_trainer import Trainer
from dhp_lab.training.picture_draws import PictureDraws

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
CODE = 20000  # a lambda of 8e-4
SMALL = CodecConfig(N=8, M=16, diffusion_steps=10)


@pytest.fixture
def variants(monkeypatch):
    """The module."""
    monkeypatch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])
    return importlib.import_module("ablation_variants")


def one_step(model, stage: str = "codec", **settings) -> None:
    """Train a model on one batch."""
    objective = CodecObjective(model.train(), 1e-3, **settings)
    optimizer = torch.optim.Adam(objective.optimizer_groups(stage, 1e-2))
    objective(picture(64, 64, count=2), stage)["objective"].backward()
    optimizer.step()


def test_a_scale_alone_learns_no_mean(variants):
    plain, scale_only = variants.DiffusionHyperprior(SMALL), variants.ScaleOnly(SMALL)
    for model in (plain, scale_only):
        one_step(model)
    assert not scale_only.predicts_mean() and variants.ScaleOnly.predicts_mean(plain)
    assert bool(scale_only.h_s.layers[-1].weight.chunk(2)[1].any()), "its scale is learnt"


def test_the_factorised_density_is_learnt_and_adds_up_to_one(variants):
    model = variants.Factorised(SMALL)
    one_step(model)
    assert bool(model.weight_logits.any()) and not any(
        bool(p.any()) for p in model.h_s.layers[-1].parameters()
    )
    delta = 2.0
    symbols = torch.arange(-200.0, 201.0).view(1, 1, 1, -1).expand(1, SMALL.M, 1, -1)
    latents = model.eval().encode(picture(64, 64), [CODE])
    fields = {"symbols": symbols, "log2_delta": torch.tensor([math.log2(delta)])}
    mass = model.likelihoods(type(latents)(**vars(latents) | fields))["y"]
    assert mass.sum(3).sub(1).abs().max() < 1e-4


def test_the_mass_of_a_bin_is_the_difference_of_the_distribution(variants):
    size, width, scale = torch.tensor([0.0, 1.0, 9.0]), torch.tensor(0.5), torch.tensor(2.0)
    normal = torch.distributions.Normal(0.0, scale.double())
    expected = normal.cdf(size.double() + 0.25) - normal.cdf(size.double() - 0.25)
    assert torch.allclose(variants.bin_mass(size, width, scale).double(), expected, rtol=1e-3)


@pytest.mark.parametrize("name", ["uniform-rounding", "gaussian-rounding"])
def test_the_denoiser_is_trained_on_noise_of_a_rounding_errors_variance(variants, name):
    model = variants.DiffusionHyperprior(SMALL).eval()
    latents = model.encode(picture(256, 256), [CODE])
    draws = PictureDraws(0, torch.device("cpu"))
    error = variants.VARIANTS[name].denoiser_symbols(latents, draws) - latents.residual
    assert error.var().item() == pytest.approx(1 / 12, rel=0.1) and abs(error.mean().item()) < 0.02
    assert (error.abs().max().item() <= 0.5) == (name == "uniform-rounding")


def test_the_chains_uniform_noise_has_variance_one(variants):
    draws = PictureDraws(0, torch.device("cpu"))
    noise = variants.VARIANTS["uniform-chain"].chain_noise(torch.zeros(1, 10**5), draws)
    assert noise.var().item() == pytest.approx(1, rel=0.02) and noise.abs().max() <= math.sqrt(3)


@pytest.mark.parametrize("name", ["uniform-rounding", "gaussian-rounding", "uniform-chain"])
def test_a_variants_objective_differs_from_the_codecs_in_its_noise(variants, name):
    losses = []
    for objective in (
        CodecObjective,
        variants.VARIANTS[name].objective,
        variants.VARIANTS["denoiser"].objective,
    ):
        torch.manual_seed(0)
        model = variants.DiffusionHyperprior(SMALL).train()
        losses.append(
            objective(model, 1e-3, seed=1)(picture(64, 64, count=2), "denoiser")["objective"].item()
        )
    assert losses[0] == losses[2] != losses[1]


@pytest.mark.slow
def test_a_training_that_was_stopped_goes_on_and_is_measured(variants, tmp_path, monkeypatch):
    for folder in ("train", "eval"):
        (tmp_path / folder).mkdir()
    for seed in range(3):
        save_image(picture(96, 96, seed=seed), tmp_path / "train" / f"{seed}.png")
    save_image(picture(64, 64, seed=9), tmp_path / "eval" / "a.png")
    options = Namespace(
        data_path=tmp_path / "train",
        eval_path=tmp_path / "eval",
        work_dir=tmp_path / "work",
        steps=3,
        batch_size=1,
        image_size=64,
        N=8,
        M=16,
        lr=1e-3,
        seed=0,
        device="cpu",
        lambda_rates=(1e-2, 1e-3),
    )
    step = Trainer._train_step

    def stopped(trainer, x):
        if trainer.step == 2:
            raise KeyboardInterrupt
        return step(trainer, x)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_train_step", stopped)
        with pytest.raises(TrainingError, match="stopped at step 2"):
            variants.train("scale", options)
    before = json.loads((tmp_path / "work" / "scale" / "seconds.json").read_text())
    assert variants.train("scale", options)["seconds"] > before
    assert not (tmp_path / "work" / "scale" / "last.safetensors").exists()
    points = variants.rate_and_distortion("scale", options)
    assert [(point.codec, point.setting) for point in points] == [("K=0", 1e-2), ("K=0", 1e-3)]
    assert all(point.pictures == 1 and point.bpp > 0 for point in points)

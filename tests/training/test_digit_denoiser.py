"""Training against the least possible error and against itself; what is saved and refused."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load, save
from torch import nn

from dhp_lab.core.weights import CONFIG, WEIGHTS, CheckpointError
from dhp_lab.data.digits import CLASSES, SIDE, load_digits, round_to_levels
from dhp_lab.diffusion.guidance import guided
from dhp_lab.diffusion.ideal import IdealDenoiser
from dhp_lab.diffusion.networks import UNet, UNetConfig
from dhp_lab.diffusion.process import draw_times, noise_like, simple_loss
from dhp_lab.diffusion.samplers import ddim, last, start
from dhp_lab.metrics.digit_classifier import class_accuracy
from dhp_lab.training import digit_denoiser as lesson_training
from dhp_lab.training.digit_denoiser import (
    LESSONS,
    LessonConfig,
    lesson_config,
    load_denoiser,
    save_denoiser,
    train_denoiser,
    train_lessons,
)

SHAPE = UNetConfig(channels=(8,), attention_levels=(), heads=2, dropout=0.1)
TINY = LessonConfig(SHAPE, diffusion_steps=20, training_steps=3, batch_size=4)
TINY_CLASSES = replace(TINY, network=replace(TINY.network, classes=2))
BARS = torch.stack([torch.eye(4), torch.eye(4).flip(1)])[:, None] * 2 - 1  # (2, 1, 4, 4)


def weights(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def equal(a: nn.Module, b: nn.Module) -> bool:
    pairs = zip(weights(a).items(), weights(b).items(), strict=True)
    return all(x == y and torch.equal(v, w) for (x, v), (y, w) in pairs)


# the loop


def test_a_run_repeats_itself_and_leaves_the_global_generator_alone():
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = train_denoiser(TINY, BARS)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(7)
    assert equal(first, train_denoiser(TINY, BARS))
    assert not equal(first, train_denoiser(replace(TINY, seed=1), BARS))
    assert not first.training and not any(p.requires_grad for p in first.parameters())


def test_a_run_can_be_watched_and_its_last_average_is_the_result():
    seen = []
    result = train_denoiser(TINY, BARS, watch=lambda step, average: seen.append((step, weights(average))))
    assert [step for step, _ in seen] == [1, 2, 3]
    assert all(torch.equal(value, seen[-1][1][name]) for name, value in weights(result).items())


def test_the_first_loss_is_that_of_answering_zero():
    """A new network's estimate is 0, so its loss is the mean square of the noise that the seed gives."""
    losses, generator = [], torch.Generator().manual_seed(3)
    train_denoiser(replace(TINY, seed=3), BARS, progress=lambda step, loss: losses.append((step, loss)))
    chosen = torch.randint(2, (4,), generator=generator)
    x = BARS[chosen]
    draw_times(TINY.noise_schedule(), x, generator)
    assert losses[0] == (1, pytest.approx(noise_like(x, generator).square().mean().item(), rel=1e-6))
    assert [step for step, _ in losses] == [1, 2, 3]


def test_the_average_can_be_watched_at_every_step():
    seen = []
    trained = train_denoiser(TINY, BARS, watch=lambda step, average: seen.append((step, weights(average))))
    assert [step for step, _ in seen] == [1, 2, 3]
    last = seen[-1][1]
    assert all(torch.equal(value, last[name]) for name, value in weights(trained).items())
    assert any(not torch.equal(value, last[name]) for name, value in seen[0][1].items())


@pytest.mark.slow
@pytest.mark.parametrize("classes", [0, 2])
def test_it_comes_near_the_least_possible_loss(classes):
    """Two pictures, for which the least error is known: 150 steps reach it within a twentieth of the noise's
    power. A network with classes is given the label of each, and so is the ideal denoiser that it is
    compared with.
    """
    network = UNetConfig(channels=(16,), attention_levels=(), heads=2, classes=classes)
    config = LessonConfig(
        network, diffusion_steps=50, training_steps=150, batch_size=64, lr=1e-2, average=0.98
    )
    labels = torch.arange(2) if classes else None
    trained, schedule = train_denoiser(config, BARS, labels), config.noise_schedule()
    x, generator = BARS.repeat(500, 1, 1, 1), torch.Generator().manual_seed(9)
    given = (torch.arange(1000) % 2,) if classes else ()
    t, eps = draw_times(schedule, x, generator), noise_like(x, generator)
    ideal = IdealDenoiser(BARS, schedule, labels)
    found, least = (
        simple_loss(lambda x_t, t, d=d: d(x_t, t, *given), schedule, x, t, eps).item()
        for d in (trained, ideal)
    )
    assert least < found < least + 0.05


def test_a_loss_that_is_no_number_stops_the_run():
    with pytest.raises(ValueError, match=r"the loss is nan at step 1; try a smaller lr than 0.002"):
        train_denoiser(TINY, BARS * math.nan)


# what is saved


@pytest.mark.parametrize("config", [TINY, replace(TINY_CLASSES, schedule="cosine", seed=4)])
def test_saved_and_loaded_is_the_same(tmp_path, config):
    network = UNet(config.network)
    save_denoiser(tmp_path / "new" / "folder", network, config)
    loaded, found = load_denoiser(tmp_path / "new" / "folder")
    assert found == config and equal(loaded, network) and not loaded.training
    assert torch.equal(found.noise_schedule().betas, config.noise_schedule().betas)


@pytest.mark.slow
def test_one_call_trains_and_saves_all(tmp_path, monkeypatch):
    monkeypatch.setattr(lesson_training, "TRAINING_STEPS", {"ci": 2, "laptop": 3, "gpu": 4})
    reports = []
    folders = train_lessons(
        tmp_path, profile="ci", device="cpu", progress=lambda name, step, loss: reports.append((name, step))
    )
    assert [folder.name for folder in folders] == list(LESSONS) == ["digits", "digits-conditional"]
    assert reports == [(name, step) for name in LESSONS for step in (1, 2)]
    for folder, classes in zip(folders, (0, 10), strict=True):
        network, config = load_denoiser(folder)
        assert (
            config == lesson_config(folder.name, "ci")
            and config.training_steps == 2
            and network.null == classes
        )


def test_the_shipped_denoisers_are_found_by_name(monkeypatch, tmp_path):
    monkeypatch.setattr(lesson_training, "CHECKPOINTS", tmp_path)
    save_denoiser(tmp_path / "digits", UNet(TINY.network), TINY)
    assert load_denoiser("digits")[1] == TINY
    with pytest.raises(
        CheckpointError,
        match="no checkpoint at .*digits-conditional: No such file.*make it by dhp train-lessons",
    ):
        load_denoiser("digits-conditional")


# what is refused


@pytest.fixture
def folder(tmp_path):
    save_denoiser(tmp_path, UNet(TINY.network), TINY)
    return tmp_path


@pytest.mark.parametrize(
    "name, data, message",
    [
        (CONFIG, b"{", "is damaged: .*; fetch it again"),
        (WEIGHTS, b"short", "is damaged: .*; fetch it again"),
        (CONFIG, b"[]", "does not describe a UNet"),
        (CONFIG, b'{"model": "DiffusionHyperprior"}', "does not describe a UNet"),
        (CONFIG, b'{"model": "UNet"}', "does not fit this version"),
        (CONFIG, b'{"model": "UNet", "network": 3}', "does not fit"),
    ],
)
def test_a_damaged_checkpoint_is_refused(folder, name, data, message):
    (folder / name).write_bytes(data)
    with pytest.raises(CheckpointError, match=message):
        load_denoiser(folder)


@pytest.mark.parametrize(
    "change",
    [
        {"schedule": "square"},
        {"layers": 3},
        {"network": {"channels": [16]}},
        {"network": {"depth": 2}},
    ],
)
def test_a_configuration_that_does_not_fit_is_refused(folder, change):
    (folder / CONFIG).write_text(json.dumps(json.loads((folder / CONFIG).read_text()) | change))
    with pytest.raises(CheckpointError, match="does not fit this version of dhp_lab"):
        load_denoiser(folder)


@pytest.mark.parametrize("change", [lambda t: t.pop("entry.bias"), lambda t: t.update(extra=torch.zeros(1))])
def test_weights_that_do_not_fit_are_refused(folder, change):
    tensors = load((folder / WEIGHTS).read_bytes())
    change(tensors)
    (folder / WEIGHTS).write_bytes(save(tensors))
    with pytest.raises(CheckpointError, match="does not fit this version of dhp_lab"):
        load_denoiser(folder)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"schedule": "square"}, "schedule must be one of linear, cosine, got 'square'"),
        ({"diffusion_steps": 0}, "diffusion_steps must be at least 1, got 0"),
        ({"training_steps": 0}, "training_steps must be at least 1, got 0"),
        ({"batch_size": -1}, "batch_size must be at least 1, got -1"),
        ({"lr": 0.0}, r"lr must lie in \(0, 1\).*got 0"),
        ({"lr": math.nan}, "got nan"),
        ({"weight_decay": -1.0}, "got 0.002 and -1"),
        ({"null_probability": 1.5}, "got 1.5 and 0.999"),
        ({"average": 1.0}, "got 0.1 and 1"),
    ],
)
def test_a_configuration_outside_its_range_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        LessonConfig(**change)


@pytest.mark.parametrize(
    "config, x0, labels, message",
    [
        (TINY, BARS[0], None, r"x0 must be a float \(N, 1, H, W\), got torch.float32 of shape \(1, 4, 4\)"),
        (TINY, BARS[:0], None, r"got torch.float32 of shape \(0, 1, 4, 4\)"),
        (TINY, BARS.long(), None, "got torch.int64"),
        (TINY, BARS, torch.arange(2), "it has 0"),
        (TINY_CLASSES, BARS, None, "labels are needed exactly if .*it has 2"),
        (
            TINY_CLASSES,
            BARS,
            torch.tensor([0, 2]),
            r"2 whole numbers in 0 .. 1, got shape \(2,\) with 0 .. 2",
        ),
        (TINY_CLASSES, BARS, torch.tensor([0]), r"got shape \(1,\)"),
    ],
)
def test_data_that_do_not_fit_are_refused(config, x0, labels, message):
    with pytest.raises(ValueError, match=message):
        train_denoiser(config, x0, labels)


@pytest.mark.parametrize("name, profile", [("letters", "ci"), ("digits", "phone")])
def test_an_unknown_name_is_refused(name, profile):
    message = (
        f"choose one of digits, digits-conditional and one of ci, laptop, gpu; got '{name}' and '{profile}'"
    )
    with pytest.raises(ValueError, match=message):
        lesson_config(name, profile)


# what is shipped


@pytest.mark.parametrize("name", LESSONS)
def test_the_shipped_denoisers_know_digits_they_have_never_seen(name):
    """Less than a tenth of the noise's power is left on test digits; a network that answers zero leaves all
    of it.
    """
    network, config = load_denoiser(name)
    digits, generator = load_digits(), torch.Generator().manual_seed(0)
    schedule, label = config.noise_schedule(), digits.test_labels if config.network.classes else None
    t, eps = draw_times(schedule, digits.test, generator), noise_like(digits.test, generator)
    with torch.no_grad():
        loss = simple_loss(lambda x_t, time: network(x_t, time, label), schedule, digits.test, t, eps)
    assert loss.item() < 0.1


@pytest.mark.slow
def test_the_shipped_denoiser_draws_its_labels():
    network, config = load_denoiser("digits-conditional")
    schedule, labels = config.noise_schedule(), torch.arange(CLASSES).repeat(10)
    x_T = start(schedule, (len(labels), 1, SIDE, SIDE), generator=torch.Generator().manual_seed(0))
    samples = last(ddim(guided(network, labels, scale=3.0, null=network.null), schedule, x_T, count=10)).x
    assert class_accuracy(round_to_levels(samples), labels) >= 0.95

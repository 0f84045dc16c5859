"""The networks of Fashion-MNIST: what each predicts against closed forms, and runs that are broken off."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
import torch
from PIL import Image
from torch import nn

from dhp_lab.core.files import OverwriteError
from dhp_lab.core.weights import CONFIG, WEIGHTS, CheckpointError
from dhp_lab.data.fashion import Fashion
from dhp_lab.diffusion.ideal import IdealDenoiser
from dhp_lab.diffusion.networks import UNet, UNetConfig
from dhp_lab.diffusion.process import v_from_eps
from dhp_lab.metrics.fashion_classifier import load_classifier
from dhp_lab.training import fashion_models as module
from dhp_lab.training.consistency_run import ConsistencyRun, consistency_levels, step_levels
from dhp_lab.training.denoiser_run import DenoiserRun, LessonConfig, read_denoiser
from dhp_lab.training.fashion_classifier import SHIFT, augmented, train_classifier
from dhp_lab.training.fashion_models import FASHION, NAMES, fashion_steps, sheet, train_fashion

TINY = UNetConfig(channels=(8, 8), attention_levels=(), heads=2, classes=10, patch=2)
PICTURES = torch.rand(20, 1, 28, 28, generator=torch.Generator().manual_seed(0)) * 2 - 1
LABELS = torch.arange(20) % 10


@pytest.fixture
def tiny(monkeypatch):
    """Six steps of a tiny U-Net on twenty pictures, with a state after each third."""
    configs = {
        name: replace(config, network=TINY, batch_size=4, training_steps=6)
        for name, config in FASHION.items()
    }
    monkeypatch.setattr(module, "FASHION", configs)
    monkeypatch.setattr(module, "SHARE", {"ci": 0.5, "laptop": 1.0, "gpu": 1.0})
    monkeypatch.setattr(module, "CLASSIFIER_STEPS", 2)
    monkeypatch.setattr(module, "SNAPSHOTS", (2,))
    monkeypatch.setattr(module, "SNAPSHOT_STEPS", 2)
    monkeypatch.setattr(module, "SAVE_EVERY", 3)
    monkeypatch.setattr(module, "LOSS_EVERY", 4)
    fashion = Fashion(PICTURES, LABELS, PICTURES, LABELS)
    monkeypatch.setattr(module, "load_fashion", lambda: fashion)


def weights(folder) -> bytes:
    return (folder / WEIGHTS).read_bytes()


# the trainings


@pytest.mark.slow
def test_one_call_trains_all_and_leaves_curves_and_samples(tiny, tmp_path):
    reports = []
    folders = train_fashion(
        tmp_path, profile="laptop", device="cpu", progress=lambda *report: reports.append(report)
    )
    assert [folder.name for folder in folders] == list(NAMES)
    assert [(name, step) for name, step, _ in reports] == [
        (name, step + 1) for name in NAMES for step in range(fashion_steps(name, "laptop"))
    ]
    assert load_classifier(folders[0]).predict(PICTURES).shape == (20,)
    for folder in folders[1:]:
        losses = [loss for name, _, loss in reports if name == folder.name]
        found = json.loads((folder / "loss.json").read_text())
        means = [sum(losses[:4]) / 4, sum(losses[4:]) / 2]
        assert found["every"] == 4 and found["loss"] == pytest.approx(means, abs=1e-5)
        names = {CONFIG, WEIGHTS, "loss.json", "step_00002.png", "step_00006.png"}
        assert {path.name for path in folder.iterdir()} == names
        with Image.open(folder / "step_00006.png") as image:
            assert image.size == (280, 112)
        assert read_denoiser(folder)[1] == module.fashion_config(folder.name, "laptop")


@pytest.mark.parametrize("name", FASHION)
def test_a_run_that_was_broken_off_ends_as_an_unbroken_one(tiny, tmp_path, name):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    names = ["fashion-diffusion", name] if name == "fashion-distilled" else [name]
    train_fashion(whole, names=names, device="cpu")
    if name == "fashion-distilled":
        shutil.copytree(whole / "fashion-diffusion", broken / "fashion-diffusion")  # the teacher

    def stop(_, step, loss):
        if step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_fashion(broken, names=[name], device="cpu", progress=stop)
    assert (broken / name / "state.safetensors").is_file() and not (broken / name / WEIGHTS).exists()
    train_fashion(broken, names=[name], device="cpu")
    assert weights(whole / name) == weights(broken / name)
    assert (whole / name / "loss.json").read_text() == (broken / name / "loss.json").read_text()
    assert not (broken / name / "state.safetensors").exists()


@pytest.mark.slow
def test_the_whole_command_goes_on_where_it_was_broken_off_and_begins_anew_if_asked(tiny, tmp_path):
    def stop(name, step, loss):
        seen.append(name)
        if name == "fashion-flow" and step == 5:
            raise KeyboardInterrupt

    for overwrite in (False, True):
        seen: list[str] = []
        with pytest.raises(KeyboardInterrupt):
            train_fashion(tmp_path, device="cpu", progress=stop, overwrite=overwrite)
        assert set(seen) == {"fashion-classifier", "fashion-diffusion", "fashion-flow"}
        assert seen.count("fashion-flow") == 5, "from the first step"
    seen = []
    folders = train_fashion(tmp_path, device="cpu", progress=lambda name, step, loss: seen.append(name))
    assert [folder.name for folder in folders] == ["fashion-flow", "fashion-distilled"]
    assert seen.count("fashion-flow") == 3 and seen.count("fashion-distilled") == 6


def test_states_of_other_runs_are_refused(tiny, tmp_path):
    def stop(_, step, loss):
        if step == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_fashion(tmp_path, names=["fashion-flow"], device="cpu", progress=stop)
    (tmp_path / "fashion-diffusion").mkdir()
    state = tmp_path / "fashion-flow" / "state.safetensors"
    other = tmp_path / "fashion-diffusion" / "state.safetensors"
    other.write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="is not a training state"):
        train_fashion(tmp_path, names=["fashion-diffusion"], device="cpu")
    module.FASHION["fashion-flow"] = replace(module.FASHION["fashion-flow"], training_steps=2)
    with pytest.raises(CheckpointError, match="has 3 steps, this run ends after 2: resume with the options"):
        train_fashion(tmp_path, names=["fashion-flow"], device="cpu")
    wider = replace(TINY, channels=(16, 8))
    module.FASHION["fashion-flow"] = replace(module.FASHION["fashion-flow"], training_steps=6, network=wider)
    with pytest.raises(CheckpointError, match="does not fit this network"):
        train_fashion(tmp_path, names=["fashion-flow"], device="cpu")
    assert state.is_file()


def test_nothing_is_overwritten_unasked_and_names_are_checked_first(tiny, tmp_path):
    (tmp_path / "fashion-flow").mkdir()
    (tmp_path / "fashion-flow" / WEIGHTS).write_bytes(b"kept")
    with pytest.raises(OverwriteError, match=r"missing \(--only\), take another --output_dir"):
        train_fashion(tmp_path, device="cpu")
    with pytest.raises(ValueError, match="choose one of fashion-classifier, fashion-diffusion, .*got 'hats'"):
        train_fashion(tmp_path, names=["hats"], device="cpu")
    with pytest.raises(ValueError, match="one of ci, laptop, gpu; got 'fashion-flow' and 'phone'"):
        fashion_steps("fashion-flow", "phone")
    assert weights(tmp_path / "fashion-flow") == b"kept"


def test_a_sheet_has_each_picture_in_its_place():
    pictures = torch.linspace(-1, 1, 6).view(2, 3, 1, 1, 1).expand(2, 3, 1, 4, 5)
    found = sheet(pictures)
    assert found.shape == (1, 3, 8, 15)
    for row in range(2):
        for column in range(3):
            tile = found[0, :, 4 * row : 4 * row + 4, 5 * column : 5 * column + 5]
            assert (tile - (pictures[row, column, 0, 0, 0] + 1) / 2).abs().max() < 1e-6


# what they predict


class Posterior(nn.Module):
    """The exact v, velocity or estimate for two pictures, as a U-Net would predict it."""

    def __init__(self, config: LessonConfig, data: torch.Tensor) -> None:
        super().__init__()
        self.ideal = IdealDenoiser(data, config.noise_schedule())
        self.schedule, self.flow = config.noise_schedule(), config.prediction == "flow"

    def forward(self, x, t, label=None):
        if not self.flow:
            return v_from_eps(self.schedule, self.ideal.x0(x, t), t, self.ideal(x, t))
        time = t / 1000  # of the flow
        sigma = (time / (1 - time)).double()
        at = self.schedule.time_of(sigma)
        share = (1 - time)[:, None, None, None]
        x0 = self.ideal.x0(x / share * self.schedule.scale(at).float()[:, None, None, None], at)
        return (x - x0) / time[:, None, None, None]


@pytest.mark.parametrize("prediction", ["v", "flow"])
def test_every_prediction_becomes_the_same_denoiser(prediction):
    config = LessonConfig(TINY, schedule="cosine", prediction=prediction)
    data, schedule = PICTURES[:2].double(), config.noise_schedule()
    t = torch.tensor([50.0, 300.0, 600.0, 900.0]).double()
    x_t = torch.randn(4, 1, 28, 28, generator=torch.Generator().manual_seed(1)).double()
    expected = IdealDenoiser(data, schedule)(x_t, t)
    found = config.denoiser(Posterior(config, data))(x_t, t)
    assert (found - expected).abs().max() < 1e-4


def test_a_network_that_predicts_eps_is_its_own_denoiser_and_a_consistency_model_is_none():
    network = UNet(TINY)
    assert LessonConfig(TINY).denoiser(network) is network
    with pytest.raises(ValueError, match="take config.consistency"):
        LessonConfig(TINY, prediction="consistency").denoiser(network)
    with pytest.raises(ValueError, match="prediction must be one of eps, v, flow, consistency, got 'x0'"):
        LessonConfig(TINY, prediction="x0")


@pytest.mark.parametrize("prediction", ["v", "flow"])
def test_the_first_loss_is_the_mean_square_of_what_is_predicted(prediction):
    """A new network predicts 0. v has the mean of cos^2 + sin^2 x0^2, the velocity that of 1 + x0^2."""
    config = LessonConfig(TINY, schedule="cosine", prediction=prediction, batch_size=400)
    loss = DenoiserRun(config, PICTURES, LABELS).step()
    power = PICTURES.square().mean().item()
    expected = (1 + power) / 2 if prediction == "v" else 1 + power
    assert loss == pytest.approx(expected, rel=0.05)


# the distillation


def teacher_and_student() -> tuple[Posterior, LessonConfig, LessonConfig]:
    taught = LessonConfig(TINY, schedule="cosine", prediction="v")
    return Posterior(taught, PICTURES[:2].double()), taught, replace(taught, prediction="consistency")


def test_a_consistency_model_has_the_v_of_its_network_and_ends_at_sigma_min():
    """f = c_skip u - c_out v (Song et al. 2023, appendix C), here with the exact v of two pictures."""
    network, taught, config = teacher_and_student()
    schedule, sigma = taught.noise_schedule(), torch.tensor([0.002, 0.5, 2.0, 80.0], dtype=torch.float64)
    generator = torch.Generator().manual_seed(2)
    spread = sigma[:, None, None, None]
    u = spread * torch.randn(4, 1, 28, 28, generator=generator).double()
    found = config.consistency(network)(u, sigma)
    assert (found[0] - u[0]).abs().max() < 1e-9
    x_t = u / (1 + spread**2).sqrt()
    x0 = network.ideal.x0(x_t, schedule.time_of(sigma))
    eps = (u - x0) / spread
    v = (eps - spread * x0) / (1 + spread**2).sqrt()
    c_skip = 1 / ((spread - 0.002) ** 2 + 1)
    c_out = (spread - 0.002) / (spread**2 + 1).sqrt()
    assert (found - c_skip * u + c_out * v).abs().max() < 1e-4


def test_levels_rise_from_sigma_min_and_jumps_fall_from_the_top():
    levels = consistency_levels()
    assert levels[0].item() == pytest.approx(0.002) and levels[-1].item() == pytest.approx(80.0)
    assert len(levels) == 18 and bool((levels.diff() > 0).all())
    rho = torch.linspace(0.002 ** (1 / 7), 80 ** (1 / 7), 18).double() ** 7  # Karras et al. 2022, eq. 5
    assert (levels / rho - 1).abs().max() < 1e-5
    for count in (1, 2, 4):
        jumps = step_levels(count)
        assert len(jumps) == count and jumps[0] == pytest.approx(80.0) and jumps == sorted(jumps)[::-1]
    with pytest.raises(ValueError, match=r"count must lie in 1 .. 17, got 18"):
        step_levels(18)


def test_a_distillation_starts_at_the_teacher_and_leaves_it_alone():
    taught = LessonConfig(TINY, schedule="cosine", prediction="v", training_steps=3, batch_size=4)
    teacher = UNet(TINY)
    nn.init.normal_(teacher.exit[-1].weight, std=0.1)
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    run = ConsistencyRun(replace(taught, prediction="consistency"), teacher, taught, PICTURES, LABELS)
    assert all(torch.equal(value, before[name]) for name, value in run.network.state_dict().items())
    assert all(run.step() > 0 for _ in range(3))
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    assert any(not torch.equal(value, before[name]) for name, value in run.network.state_dict().items())
    with pytest.raises(ValueError, match="the teacher must predict v .* got one of 'flow'"):
        wrong = replace(taught, prediction="flow")
        ConsistencyRun(replace(taught, prediction="consistency"), teacher, wrong, PICTURES, LABELS)


# the classifier's training


def test_pictures_are_shifted_and_mirrored_and_nothing_else():
    """By brute force: each result is one of the 50 shifts and mirrorings of its picture."""
    found = augmented(PICTURES, torch.Generator().manual_seed(0))
    assert found.shape == PICTURES.shape
    padded = nn.functional.pad(PICTURES, [SHIFT] * 4, value=-1.0)
    kinds = set()
    for i in range(len(found)):
        windows = {
            (row, column, flip): padded[i, :, row : row + 28, column : column + 28].flip(-1)
            if flip
            else padded[i, :, row : row + 28, column : column + 28]
            for row in range(5)
            for column in range(5)
            for flip in (False, True)
        }
        (kind,) = (kind for kind, window in windows.items() if torch.equal(window, found[i]))
        kinds.add(kind)
    assert len(kinds) > 10 and {flip for _, _, flip in kinds} == {False, True}


def test_the_classifier_learns_two_kinds_of_pictures():
    """Bright above or bright below: thirty steps suffice."""
    x = torch.full((40, 1, 28, 28), -1.0)
    x[::2, :, 4:12], x[1::2, :, 16:24] = 1.0, 1.0
    classifier = train_classifier(x, torch.arange(40) % 2, steps=30)
    assert classifier.predict(x).tolist() == [0, 1] * 20 and not classifier.training
    with pytest.raises(ValueError, match=r"40 labels are needed, got shape \(39,\)"):
        train_classifier(x, torch.arange(39), steps=1)

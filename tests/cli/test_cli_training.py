"""`dhp train` and its like, then `dhp evaluate` on what they made, as a user calls them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from dhp_lab.cli import app
from dhp_lab.data.images import to_pixels
from dhp_lab.data.scenes import batch

SCENES = Path(__file__).resolve().parents[2] / "data" / "checkpoints" / "scenes-f4"
STAGES = "--epochs 1 --denoiser_epochs 1 --joint_epochs 1"
SIZES = "--N 8 --M 16 --image_size 64 --device cpu"
TRAIN = f"--batch_size 2 {STAGES} --diffusion_steps 10 {SIZES}"
RATES = "--lambda_rates 1e-2,1e-3,1e-4,1e-5"


@pytest.fixture(scope="module")
def studied(tmp_path_factory):
    """Photos, a checkpoint trained on them by the command, and its evaluation on them by the command."""
    folder, random = tmp_path_factory.mktemp("study"), np.random.default_rng(0)
    (folder / "photos").mkdir()
    for i in range(4):
        coarse = Image.fromarray(random.integers(0, 256, (12, 12, 3), dtype=np.uint8))
        coarse.resize((176, 176), Image.Resampling.BICUBIC).save(folder / "photos" / f"{i}.png")
    trained = call(f"train --data_path {folder}/photos --output_dir {folder}/outputs {TRAIN}")
    assert trained.exit_code == 0, trained.output
    folders = f"--data_path {folder}/photos --output_dir {folder}/results"
    options = f"{RATES} --codecs jpeg,webp --steps 0,1,2 --save_samples --device cpu"
    evaluated = call(f"evaluate --model_path {folder}/outputs/best_checkpoint {folders} {options}")
    assert evaluated.exit_code == 0, evaluated.output
    return folder, trained, evaluated


def call(line: str):
    return CliRunner().invoke(app, line.split())


@pytest.mark.slow
def test_training_leaves_a_checkpoint_that_evaluates(studied):
    folder, trained, evaluated = studied
    assert f"best checkpoint: {folder}/outputs/best_checkpoint" in trained.stdout
    found = json.loads((folder / "results" / "evaluation.json").read_text())
    codecs = {(point["codec"], point["setting"]) for point in found["points"]}
    assert {("dhp K=2", 1e-4), ("dhp K=0", 1e-2)} <= codecs
    assert {codec for codec, _ in codecs} == {"dhp K=0", "dhp K=1", "dhp K=2", "JPEG", "WebP"}
    for name in ("dhp K=1", "JPEG", "WebP"):
        assert name in evaluated.stdout
    assert list((folder / "results" / "samples").glob("*.png"))


@pytest.mark.slow
def test_training_goes_on_where_it_stopped(studied):
    folder = studied[0]
    again = call(f"train --data_path {folder}/photos --output_dir {folder}/outputs {TRAIN} --resume")
    assert again.exit_code == 0, again.output


@pytest.mark.slow
def test_the_lessons_denoisers_are_trained_by_one_command(tmp_path):
    result = call(f"train-lessons --output_dir {tmp_path} --profile ci --device cpu")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == [
        f"checkpoint: {tmp_path}/{name}" for name in ("digits", "digits-conditional")
    ]
    from dhp_lab.training.digit_denoiser import lesson_config, load_denoiser

    for name in ("digits", "digits-conditional"):
        assert load_denoiser(tmp_path / name)[1] == lesson_config(name, "ci")


def test_those_of_fashion_mnist_are_trained_by_the_same_command(tmp_path, monkeypatch):
    calls = []

    def record(folder, *, progress, **options):
        calls.append(options)
        progress("fashion-flow", 1, 0.5)
        return [folder / name for name in options["names"]]

    monkeypatch.setattr("dhp_lab.training.fashion_models.train_fashion", record)
    result = call(f"train-lessons --data fashion --output_dir {tmp_path} --profile ci --device cpu")
    names = ("fashion-classifier", "fashion-diffusion", "fashion-flow", "fashion-distilled")
    assert result.stdout.splitlines() == [f"checkpoint: {tmp_path}/{name}" for name in names]
    call(f"train-lessons --data fashion --only fashion-flow --output_dir {tmp_path} --overwrite")
    rest = {"names": ("fashion-flow",), "profile": "gpu", "device": None, "overwrite": True}
    assert calls == [{"names": names, "profile": "ci", "device": "cpu", "overwrite": False}, rest]


@pytest.mark.parametrize(
    "line, message",
    [
        ("train-lessons --data hats", "--data must be digits or fashion, got 'hats'"),
        ("train-lessons --data fashion --only digits", "choose one of fashion-classifier"),
        (
            "train-lessons --profile huge",
            "choose one of digits, digits-conditional and one of ci, laptop, gpu",
        ),
        ("train --data_path nowhere", "nowhere is not a folder"),
        ("train --data_path . --lr 0", "lr must lie in"),
        ("train --data_path . --schedule sine --image_size 64", "holds no picture"),
        ("evaluate --data_path nowhere --model_path nowhere", "nowhere is not a folder"),
        (
            "evaluate --data_path . --model_path nowhere --steps one",
            "--steps takes numbers separated by commas",
        ),
    ],
)
def test_bad_options_end_in_one_line(tmp_path, monkeypatch, line, message):
    monkeypatch.chdir(tmp_path)
    result = call(line)
    assert result.exit_code == 1 and result.stderr.startswith("dhp: ") and message in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(
    "line, there",
    [
        ("train --data_path photos --output_dir out", "last.safetensors"),
        ("train --data_path photos --output_dir out", "best_checkpoint/model.safetensors"),
        ("train-realism --data_path photos --output_dir out", "last.safetensors"),
        ("train-realism --data_path photos --output_dir out", "realism.safetensors"),
        ("evaluate --data_path photos --output_dir out", "evaluation.json"),
        ("train-lessons --output_dir out", "digits-conditional/model.safetensors"),
        ("train-scenes --output_dir out", "scenes-f8/model_index.json"),
        ("train-scenes --output_dir out --only scenes-vq", "scenes-vq/config.json"),
        ("draw-scenes out --count 2", "00001.png"),
        ("draw-scenes out --count 2", "captions.txt"),
    ],
)
def test_earlier_work_is_never_overwritten_unasked(tmp_path, monkeypatch, line, there):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    place = tmp_path / "out" / there
    place.parent.mkdir(parents=True)
    place.write_text("much work")
    result = call(line)
    assert result.exit_code == 1 and result.stderr.count("\n") == 1, result.stderr
    assert result.stderr.startswith(f"dhp: out/{there} exists") and "--overwrite" in result.stderr
    assert ("--resume" in result.stderr) == line.startswith(("train --", "train-realism --"))
    assert [path.read_text() for path in tmp_path.rglob("*") if path.is_file()] == ["much work"]


def test_scenes_are_drawn_anew_where_that_is_wanted(tmp_path):
    for seed in (1, 2):
        assert call(f"draw-scenes {tmp_path} --count 2 --seed {seed} --overwrite").exit_code == 0
    assert (tmp_path / "captions.txt").read_text().splitlines() == batch(2, seed=2)[1]


# with the parts of Stable Diffusion


def test_scenes_are_drawn_as_pictures(tmp_path):
    assert (
        call(f"draw-scenes {tmp_path}/scenes --count 3 --seed 5").stdout == f"3 scenes in {tmp_path}/scenes\n"
    )
    pictures, captions = batch(3, seed=5)
    assert (tmp_path / "scenes" / "captions.txt").read_text().splitlines() == captions
    for i, picture in enumerate(pictures):
        assert np.array_equal(
            np.asarray(Image.open(tmp_path / "scenes" / f"{i:05d}.png")), to_pixels(picture)
        )


@pytest.mark.slow
def test_a_codec_around_a_stable_diffusion_folder(tmp_path):
    """Trained, evaluated, and used on files, each by its command; a part that is missing ends in one line."""
    shutil.copytree(SCENES, tmp_path / "parts")
    assert call(f"draw-scenes {tmp_path}/scenes --count 6").exit_code == 0
    parts = f"--bk_sdm_path {tmp_path}/parts --use_pretrained_vae --use_pretrained_unet"
    stages = "--epochs 1 --denoiser_epochs 1 --joint_epochs 0"
    folders = f"--data_path {tmp_path}/scenes --output_dir {tmp_path}/out"
    trained = call(f"train {folders} {parts} --batch_size 4 {stages} {SIZES}")
    assert trained.exit_code == 0, trained.output
    codec = f"--model_path {tmp_path}/out/best_checkpoint"
    rates = "--steps 0,1,4 --lambda_rates 1e-1,3e-2,1e-2,3e-3 --codecs none --device cpu"
    folders = f"--data_path {tmp_path}/scenes --output_dir {tmp_path}/results"
    evaluated = call(f"evaluate {codec} {folders} {rates} --low_memory")
    assert evaluated.exit_code == 0 and "dhp K=4" in evaluated.stdout, evaluated.output
    files = f"{tmp_path}/scenes/00000.png {tmp_path}/a.dhp", f"{tmp_path}/a.dhp {tmp_path}/b.png"
    assert call(f"compress {files[0]} --lambda_rate 1e-2 {codec} --device cpu").exit_code == 0
    assert call(f"decompress {files[1]} --steps 2 {codec} --device cpu").exit_code == 0
    assert Image.open(tmp_path / "b.png").size == (64, 64)
    (tmp_path / "parts" / "vae" / "config.json").unlink()
    refused = call(f"info {tmp_path}/a.dhp {codec}"), call(f"decompress {files[1]} --force {codec}")
    assert refused[0].exit_code == 0 and refused[1].exit_code == 1
    assert (
        refused[1].stderr.startswith("dhp: no latent diffusion model at ")
        and refused[1].stderr.count("\n") == 1
    )


@pytest.mark.parametrize(
    "options, words",
    [
        ("--use_pretrained_vae", "choose parts of a folder: name it with bk_sdm_path"),
        ("--bk_sdm_path nowhere", "no latent diffusion model at nowhere: model_index.json"),
    ],
)
def test_parts_without_a_folder_are_refused(tmp_path, options, words):
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    result = call(f"train --data_path {tmp_path} --output_dir {tmp_path}/out {options} {TRAIN}")
    assert result.exit_code == 1 and words in result.stderr and result.stderr.count("\n") == 1

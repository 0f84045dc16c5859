"""Options made of dataclasses: `dhp train` and `dhp evaluate` fill in the configuration and nothing else."""

from __future__ import annotations

import dataclasses
import shlex
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from dhp_lab.cli import app
from dhp_lab.cli.evaluation import EVALUATION_OPTIONS
from dhp_lab.cli.options import options_from
from dhp_lab.cli.training import TRAINING_OPTIONS
from dhp_lab.core.memory import keep_freed_memory
from dhp_lab.evaluation import evaluate
from dhp_lab.evaluation.config import EvaluationConfig
from dhp_lab.training import codec_trainer
from dhp_lab.training.codec_config import TrainingConfig


@dataclass(frozen=True)
class Made:
    folder: Path
    steps: tuple[int, ...] = (0, 1)
    rates: tuple[float, ...] = (2.3e-2, 1e-6)
    words: tuple[str, ...] = ()
    switch: bool | None = None
    flag: bool = False
    hidden: float = 0.5


TABLE = {
    "flag": "Whether.",
    "folder": "Where.",
    "steps": "How many.",
    "rates": typer.Option("--rates", "--old_rates", help="How much.", show_default=False),
    "words": "Which.",
    "switch": "Or not.",
}


def made(*arguments):
    """The configuration that a command of Made receives."""
    found = []
    program = typer.Typer()
    program.command()(options_from(Made, TABLE)(found.append))
    result = CliRunner().invoke(program, arguments)
    assert result.exit_code == 0, result.output
    return found[0]


@pytest.mark.parametrize(
    ("arguments", "change"),
    [
        ([], {}),
        (["--steps", "4"], {"steps": (4,)}),
        (["--steps", "0,1,16"], {"steps": (0, 1, 16)}),
        (["--rates", "1e-2,.5"], {"rates": (0.01, 0.5)}),
        (["--old_rates", "3"], {"rates": (3.0,)}),
        (["--words", "a,b"], {"words": ("a", "b")}),
        (["--words", "none"], {}),
        (["--switch"], {"switch": True}),
        (["--no-switch"], {"switch": False}),
        (["--flag"], {"flag": True}),
    ],
)
def test_each_type_of_field_is_read(arguments, change):
    assert made("--folder", "a/b", *arguments) == replace(Made(Path("a/b")), **change)


def test_help_shows_the_table_in_its_order_and_the_dataclasss_defaults():
    program = typer.Typer(rich_markup_mode=None)
    program.command()(options_from(Made, TABLE)(lambda config: None))
    lines = CliRunner().invoke(program, ["--help"], terminal_width=200).stdout.splitlines()
    options = [line.split("  ")[1:] for line in lines if line.startswith("  --")]
    flags = ["--flag", "--folder <path>", "--steps <str>", "--rates, --old_rates <str>", "--words <str>"]
    assert [option[0] for option in options[:5]] == flags
    text = " ".join(" ".join(lines).split())
    for shown in ("Where. [required]", "How many. [default: 0,1]", "Which. [default: none]", "--no-switch"):
        assert shown in text
    assert "hidden" not in text and "0.023" not in text


@pytest.mark.parametrize(
    ("table", "wrong"), [({"folder": "", "colour": ""}, "colour"), ({"steps": ""}, "folder")]
)
def test_a_table_that_does_not_fit_is_refused(table, wrong):
    with pytest.raises(ValueError, match=f"the options of Made do not fit its fields: {wrong}"):
        options_from(Made, table)


def configured(monkeypatch, *arguments):
    """What `dhp train` or `dhp evaluate` would work on."""
    found = []
    monkeypatch.setattr(codec_trainer, "train", found.append)
    monkeypatch.setattr(evaluate, "run", lambda config, log, show: found.append(config))
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    return found[0]


def values_of(config_type, table):
    """For each option its words on the command line, and the configuration that they should make."""
    types = {field.name: field.type for field in dataclasses.fields(config_type)}
    for name in table:
        kind = types[name].removesuffix(" | None")
        if kind == "bool":
            yield [f"--{name}"], {name: True}
        else:
            word, value = {
                "int": ("64", 64),
                "float": ("0.01", 0.01),
                "str": ("words", "words"),
                "Path": ("a/b", Path("a/b")),
                "tuple[int, ...]": ("3,4", (3, 4)),
                "tuple[float, ...]": ("0.5,1e-3", (0.5, 1e-3)),
                "tuple[str, ...]": ("jpeg,avif", ("jpeg", "avif")),
            }[kind]
            yield [f"--{name}", word], {name: value}


NEEDED = {  # what else an option needs
    "use_pretrained_vae": {"bk_sdm_path": "parts"},
    "use_pretrained_unet": {"bk_sdm_path": "parts"},
}


@pytest.mark.parametrize(("words", "change"), list(values_of(TrainingConfig, TRAINING_OPTIONS)))
def test_each_option_of_train_sets_its_field_alone(monkeypatch, words, change):
    more = NEEDED.get(words[0].removeprefix("--"), {})
    words = [*words, *(part for name, value in more.items() for part in (f"--{name}", value))]
    expected = TrainingConfig(**({"data_path": "photos"} | more | change))
    assert configured(monkeypatch, "train", "--data_path", "photos", *words) == expected


@pytest.mark.parametrize(("words", "change"), list(values_of(EvaluationConfig, EVALUATION_OPTIONS)))
def test_each_option_of_evaluate_sets_its_field_alone(monkeypatch, words, change):
    expected = EvaluationConfig(**({"data_path": Path("photos")} | change))
    assert configured(monkeypatch, "evaluate", "--data_path", "photos", *words) == expected


def test_defaults_are_those_of_the_dataclasses(monkeypatch):
    assert configured(monkeypatch, "train", "--data_path", "x") == TrainingConfig(data_path="x")
    assert configured(monkeypatch, "evaluate", "--data_path", "x") == EvaluationConfig(data_path=Path("x"))


def test_fields_that_are_no_options_are_these():
    fields = {field.name for field in dataclasses.fields(TrainingConfig)}
    assert fields - TRAINING_OPTIONS.keys() == {"ema_decay", "clip", "minutes_between_saves"}
    assert {field.name for field in dataclasses.fields(EvaluationConfig)} == EVALUATION_OPTIONS.keys()


@pytest.mark.parametrize("flag", ["--low_memory", "--spare_memory"])
@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_low_memory_has_its_earlier_name_too(monkeypatch, command, flag):
    assert configured(monkeypatch, command, "--data_path", "x", flag).low_memory


def test_the_reports_command_repeats_every_option(monkeypatch):
    """What a report names, given to `dhp evaluate` again, makes the same configuration."""
    config = EvaluationConfig(
        data_path=Path("my photos"),
        model_path=Path("model"),
        output_dir=Path("out"),
        batch_size=3,
        save_samples=True,
        steps=(0, 1, 16),
        lambda_rates=(2.3e-2, 1e-6),
        effort=7,
        gamma=0.25,
        seed=2**40,
        codecs=(),
        metrics=("psnr", "dists"),
        device="cpu",
        low_memory=True,
        overwrite=True,
    )
    defaults = EvaluationConfig(data_path=Path("x"))
    for field in dataclasses.fields(config):
        assert getattr(config, field.name) != getattr(defaults, field.name), "an option that is not tried"
    program, *words = shlex.split(evaluate.command_line(config))
    found = configured(monkeypatch, *words)
    assert program == "dhp" and replace(found, model_path=Path(found.model_path)) == config


def test_the_program_keeps_freed_memory():
    keep_freed_memory.cache_clear()
    CliRunner().invoke(app, ["draw-scenes"])  # ends before it does anything: no folder is named
    CliRunner().invoke(app, ["info", "nowhere.dhp"])
    assert keep_freed_memory.cache_info().currsize == 1

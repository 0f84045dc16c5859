"""The repository keeps every rule of house_rules.py, and every rule is proved on made-up files."""

import subprocess
import sys
from pathlib import Path

import house_rules_supply  # noqa: F401 (adds its rules to RULES)
import nbformat
import pytest
import torch
from house_rules import CODEC, MAX_LINES, NEEDS_NO_TORCH, ROOMS, RULES
from IPython.core.inputtransformer2 import TransformerManager

import dhp_lab
from dhp_lab import _torchvision_ops

ROOT = Path(dhp_lab.__file__).resolve().parents[1]


def code_of(notebook: Path) -> str:
    """The notebook's code as one Python source; magics become calls."""
    cells = [cell for cell in nbformat.read(notebook, as_version=4).cells if cell.cell_type == "code"]
    return "\n".join(TransformerManager().transform_cell(cell.source) for cell in cells)


@pytest.fixture(scope="module")
def repository() -> dict[str, str]:
    """Every file that a rule looks at."""
    python = [
        path for folder in ("dhp_lab", "tests", "benchmarks") for path in ROOT.glob(f"{folder}/**/*.py")
    ]
    notebooks = {path: code_of(path) for path in ROOT.glob("notebooks/*.ipynb")}
    files = {path: path.read_text("utf-8") for path in [*python, ROOT / "pyproject.toml"]} | notebooks
    return {path.relative_to(ROOT).as_posix(): source for path, source in files.items()}


@pytest.mark.parametrize("rule", RULES)
def test_the_repository_keeps(rule, repository):
    offenders = RULES[rule](repository)
    assert not offenders, "\n".join([RULES[rule].__doc__, *offenders])


def test_every_room_exists():
    assert [room for room in ROOMS if not (ROOT / "dhp_lab" / room).is_dir()] == []
    homes = {path.stem for path in (ROOT / "dhp_lab" / "codec").iterdir()} - {"__pycache__"}
    assert set(CODEC) == homes


# A small house that keeps every rule, and below it what breaks each rule alone.

TEXT = '"""A module."""\n'
PROJECT = """
[project]
dependencies = ["numpy>=1.26", "torch", "torchvision"]
optional-dependencies.lab = ["ipywidgets", "jupyterlab"]
"""
HOUSE = {
    "pyproject.toml": PROJECT,
    "dhp_lab/__init__.py": TEXT + "__version__ = '1'\nfrom dhp_lab import _torchvision_ops",
    "dhp_lab/_torchvision_ops.py": TEXT,
    "dhp_lab/core/settings.py": TEXT + "from dhp_lab import __version__\nimport torch",
    "dhp_lab/core/hub.py": TEXT
    + "import urllib.request\nurllib.request.urlopen(URL)  # no"
    + "qa: S310 (checked)",
    "dhp_lab/core/compressai_imports.py": TEXT + "exec(code)",
    "dhp_lab/latent/folder.py": TEXT + "UNet2DModel.from_pretrained(folder, use_safetensors=True)",
    "dhp_lab/core/pickled_arrays.py": TEXT + "import pickle\ntorch.load('x.pt', weights_only=True)",
    "dhp_lab/codec/__init__.py": TEXT
    + "from importlib import import_module\nimport_module('dhp_lab.codec.model')",
    "dhp_lab/codec/bits/lambdas.py": TEXT + "import numpy",
    "dhp_lab/codec/bits/bitstream.py": TEXT + "from dhp_lab.codec.bits import lambdas",
    "dhp_lab/codec/config.py": TEXT
    + '''
@dataclass(frozen=True)
class CodecConfig:
    """Numbers."""
    widths: tuple[int, ...] | None = None
    kind: Literal["a", "b"] = "a"
''',
    "dhp_lab/codec/model.py": TEXT
    + "from dhp_lab.codec.config import CodecConfig\nfrom dhp_lab.codec.bits import lambdas",
    "dhp_lab/training/trainer.py": TEXT
    + "from dhp_lab.codec import Model\n\n\ndef train():\n    '''Train.'''",
    "dhp_lab/notebook/sliders.py": TEXT + "import ipywidgets",
    "dhp_lab/lessons/ddpm/figures.py": TEXT + "from dhp_lab.notebook import sliders",
    "dhp_lab/lessons/ddim/figures.py": TEXT + "def _hidden(): ...",
    "dhp_lab/cli/app.py": TEXT + "print('done')",
    "benchmarks/speed.py": TEXT + "import socket\nfrom dhp_lab.cli import app",
    "notebooks/01_ddpm.ipynb": "from dhp_lab.lessons.ddpm import figures\nfrom dhp_lab.codec import Model",
    "notebooks/02_ddim.ipynb": "from dhp_lab.lessons.ddim import checks, figures",
}


def add(path: str, code: str) -> dict[str, str]:
    """A file of the house, or a new one, with more code at its end."""
    return {path: f"{HOUSE.get(path, TEXT)}\n{code}\n"}


def config(field: str, *, decorator: str = "@dataclass(frozen=True)") -> str:
    """A configuration with one field."""
    return f"{decorator}\nclass SomeConfig:\n    'Numbers.'\n    {field}"


TYPES = "if TYPE_CHECKING:\n    from dhp_lab.training.trainer import train"
LATER = "def _later():\n    import dhp_lab.training.trainer"
CIRCLE = (
    add("dhp_lab/core/hub.py", "from dhp_lab.core import a")
    | add("dhp_lab/core/a.py", "def _later():\n    import dhp_lab.core.b")
    | add("dhp_lab/core/b.py", "if TYPE_CHECKING:\n    from dhp_lab.core.hub import find")
)
UP, SUPPLY = "no_import_of_a_higher_storey", "data_is_never_run"
PICKLES = "pickles_have_one_reader"
BREAKS = [
    (UP, add("dhp_lab/core/hub.py", "from dhp_lab.notebook.sliders import Slider")),
    (UP, add("dhp_lab/core/hub.py", "from dhp_lab.notebook import sliders")),
    (UP, add("dhp_lab/core/hub.py", TYPES)),
    (UP, add("dhp_lab/core/hub.py", LATER)),
    (UP, add("dhp_lab/core/hub.py", "from dhp_lab import dhp_file")),
    (UP, add("dhp_lab/codec/bits/lambdas.py", "from dhp_lab.codec.config import CodecConfig")),
    (UP, add("dhp_lab/codec/config.py", "from dhp_lab.codec import Model")),
    (UP, add("dhp_lab/codec/other.py", "")),
    (UP, add("dhp_lab/attic/boxes.py", "")),
    ("no_circle", CIRCLE),
    (
        "no_lesson_in_another",
        add("dhp_lab/lessons/ddpm/figures.py", "from dhp_lab.lessons.ddim import figures"),
    ),
    ("no_lesson_in_another", add("dhp_lab/lessons/ddpm/figures.py", "from dhp_lab.lessons import ddim")),
    ("no_lesson_in_another", add("notebooks/01_ddpm.ipynb", "from dhp_lab.lessons.ddim.figures import loss")),
    ("no_lesson_in_another", {"notebooks/03_more.ipynb": "import dhp_lab.lessons.ddpm.figures"}),
    ("configurations_are_plain", add("dhp_lab/codec/config.py", config("network: Network"))),
    ("configurations_are_plain", add("dhp_lab/codec/config.py", config("sizes: tuple[Tensor, ...]"))),
    ("configurations_are_plain", add("dhp_lab/training/codec_config.py", config("sizes: list[int]"))),
    ("configurations_are_plain", add("dhp_lab/core/hub.py", config("n: int", decorator="@dataclass"))),
    ("configurations_are_plain", add("dhp_lab/core/hub.py", "object.__setattr__(config, 'n', 1)")),
    ("configurations_are_plain", add("dhp_lab/core/hub.py", config("object.__setattr__(self, 'n', 1)"))),
    ("doors_are_few", add("dhp_lab/core/settings.py", "from urllib.request import urlopen")),
    ("doors_are_few", add("dhp_lab/lessons/ddim/figures.py", "import ipywidgets as widgets")),
    (PICKLES, add("dhp_lab/core/settings.py", "import pickle")),
    (PICKLES, add("dhp_lab/core/settings.py", "torch.load('x.pt')")),
    (PICKLES, add("dhp_lab/core/settings.py", "torch.load('x.pt', weights_only=True)")),
    (PICKLES, add("dhp_lab/core/pickled_arrays.py", "torch.load('x.pt')")),
    (PICKLES, add("dhp_lab/core/pickled_arrays.py", "pickle.loads(data)")),
    ("doors_are_few", add("dhp_lab/core/settings.py", "print('hello')")),
    ("doors_are_few", add("dhp_lab/core/settings.py", "from . import hub")),
    ("doors_are_few", add("dhp_lab/core/settings.py", "importlib.import_module(f'dhp_lab.{room}.x')")),
    (SUPPLY, add("dhp_lab/core/settings.py", "eval('1')")),
    (SUPPLY, add("dhp_lab/core/settings.py", "builtins.exec(text, {})")),
    (SUPPLY, add("dhp_lab/core/settings.py", "torch.hub.load('owner/name', 'model')")),
    (SUPPLY, add("dhp_lab/core/settings.py", "read('x.pt', weights_only=False)")),
    (SUPPLY, add("dhp_lab/core/settings.py", "numpy.load('x.npy', allow_pickle=True)")),
    (SUPPLY, add("dhp_lab/core/settings.py", "UNet2DModel.from_pretrained(folder)")),
    (SUPPLY, add("dhp_lab/core/settings.py", "kind.from_pretrained(folder, use_safetensors=False)")),
    (SUPPLY, add("dhp_lab/core/settings.py", "URL = 'http://example.com'")),
    ("exemptions_have_a_reason", add("benchmarks/speed.py", "x = 1  # no" + "qa")),
    ("exemptions_have_a_reason", add("benchmarks/speed.py", "x = 1  # no" + "qa: S101")),
    (
        "exemptions_have_a_reason",
        {"pyproject.toml": PROJECT + '[tool.ruff.lint]\nselect = ["S"]\nignore = ["S101"]'},
    ),
    ("the_container_needs_no_torch", add("dhp_lab/codec/bits/bitstream.py", "import torch")),
    (
        "the_container_needs_no_torch",
        add("dhp_lab/codec/bits/lambdas.py", "from dhp_lab.core import settings"),
    ),
    ("modules_are_short", add("benchmarks/speed.py", "x = 1\n" * MAX_LINES)),
    ("modules_are_short", add("dhp_lab/core/hub.py", "x  = 1  # fmt:" + " skip")),
    ("everything_public_has_a_docstring", {"dhp_lab/core/files.py": "x = 1"}),
    ("everything_public_has_a_docstring", add("dhp_lab/core/hub.py", "def find(): ...")),
    ("everything_public_has_a_docstring", add("dhp_lab/core/hub.py", "class Checkpoint: ...")),
    ("dependencies_are_what_is_imported", add("dhp_lab/core/hub.py", "import scipy")),
    ("dependencies_are_what_is_imported", {"pyproject.toml": PROJECT.replace('"torch"', '"torch", "scipy"')}),
]


def test_the_small_house_keeps_every_rule():
    assert {name: check(HOUSE) for name, check in RULES.items()} == dict.fromkeys(RULES, [])


@pytest.mark.parametrize(("rule", "files"), BREAKS)
def test_rule_notices(rule, files):
    assert {name for name, check in RULES.items() if check(HOUSE | files)} == {rule}


def test_every_rule_can_fail():
    assert {rule for rule, _ in BREAKS} == RULES.keys()


# What only a fresh process can show, and the operators that torchvision may miss.


@pytest.mark.slow
def test_a_header_is_read_without_torch_and_torchvision_imports_beside_any_torch():
    modules = [path.removesuffix(".py").replace("/", ".") for path in NEEDS_NO_TORCH]
    code = f"""
import sys, dhp_lab, {", ".join(modules)}
assert "torch" not in sys.modules, "importing these is meant to be quick"
import compressai.zoo, torchvision.ops
from diffusers import UNet2DModel
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize("loads", [True, False])
def test_operators_are_declared_only_when_missing(monkeypatch, loads):
    def load_library(path):
        assert Path(path).name.startswith("_C.")
        if not loads:
            raise OSError("undefined symbol")

    declared = []
    monkeypatch.setattr(torch.ops, "load_library", load_library)
    monkeypatch.setattr(torch.library, "define", lambda name, schema: declared.append(name))
    finders = [_torchvision_ops, *(finder for finder in sys.meta_path if finder is not _torchvision_ops)]
    monkeypatch.setattr(sys, "meta_path", finders)
    assert _torchvision_ops.find_spec("torch") is None and _torchvision_ops in sys.meta_path
    assert _torchvision_ops.find_spec("torchvision") is None and _torchvision_ops not in sys.meta_path
    assert declared == ([] if loads else ["torchvision::nms", "torchvision::qnms"])

"""The rules of the house: who may import, print or reach the network, how long things are, what is declared."""

import ast
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import torch

import dhp_lab
from dhp_lab import _torchvision_ops

ROOT = Path(dhp_lab.__file__).resolve().parents[1]
MODULES = {
    path.relative_to(ROOT).as_posix(): ast.parse(path.read_text("utf-8"))
    for path in ROOT.glob("dhp_lab/**/*.py")
}
MAX_MODULE_LINES = 350
MAX_FUNCTION_LINES = 30
NETWORK = {"ftplib", "http", "httpx", "huggingface_hub", "requests", "socket", "urllib"}
ONLY_PINNED = {"torchvision", "tensorboard"}  # used through compressai and torch.utils.tensorboard

each_module = pytest.mark.parametrize("module", sorted(MODULES))


def imported(tree: ast.AST) -> set[str]:
    """Return the full names of all imported modules; `from a import b` counts as a and a.b."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import: write the full name, as everywhere else"
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def tops(names: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in names}


@each_module
def test_only_the_sliders_import_widgets(module):
    assert module == "dhp_lab/notebook/sliders.py" or "ipywidgets" not in tops(imported(MODULES[module]))


@each_module
def test_only_the_command_line_prints(module):
    prints = [
        n.lineno for n in ast.walk(MODULES[module]) if isinstance(n, ast.Name) and n.id == "print"
    ]
    assert module.startswith("dhp_lab/cli/") or prints == []


@each_module
def test_only_downloads_and_checkpoints_reach_the_network(module):
    assert (
        module in ("dhp_lab/core/download.py", "dhp_lab/core/hub.py")
        or not tops(imported(MODULES[module])) & NETWORK
    )


@each_module
def test_nothing_is_unpickled(module):
    tree = MODULES[module]
    assert not tops(imported(tree)) & {"pickle", "dill", "cloudpickle", "joblib", "shelve"}
    loads = [
        n.lineno
        for n in ast.walk(tree)
        if isinstance(n, ast.Attribute) and ast.unparse(n) == "torch.load"
    ]
    assert loads == [], "torch.load runs code from the file: use safetensors"


@each_module
def test_diffusion_knows_nothing_of_codecs(module):
    names = imported(MODULES[module])
    codecs = {name for name in names if name.startswith("dhp_lab.codec") or name.startswith("compressai")}
    assert not module.startswith("dhp_lab/diffusion/") or codecs == set()


@each_module
def test_modules_and_functions_are_short(module):
    assert len((ROOT / module).read_text("utf-8").splitlines()) <= MAX_MODULE_LINES
    functions = [
        n for n in ast.walk(MODULES[module]) if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef))
    ]
    bodies = {f.name: f.body[1:] if ast.get_docstring(f) else f.body for f in functions}
    lengths = {name: body[-1].end_lineno - body[0].lineno + 1 for name, body in bodies.items() if body}
    assert {name: n for name, n in lengths.items() if n > MAX_FUNCTION_LINES} == {}


@each_module
def test_everything_public_has_a_docstring(module):
    tree = MODULES[module]
    kinds = (ast.FunctionDef, ast.ClassDef)
    public = [
        tree,
        *(node for node in tree.body if isinstance(node, kinds) and not node.name.startswith("_")),
    ]
    assert [getattr(node, "name", "the module") for node in public if not ast.get_docstring(node)] == []


def test_dependencies_are_what_is_imported():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    lab = project["optional-dependencies"]["lab"]
    declared = {re.match(r"[\w-]+", line)[0].replace("_", "-") for line in [*project["dependencies"], *lab]}
    installed = packages_distributions()
    modules = (
        set().union(*(tops(imported(tree)) for tree in MODULES.values()))
        - sys.stdlib_module_names
        - {"dhp_lab"}
    )
    used = {installed[name][0].lower().replace("_", "-") for name in modules}
    assert used - declared == set(), "imported, but not in pyproject.toml"
    assert declared - used - ONLY_PINNED - {"jupyterlab"} == set(), "in pyproject.toml, but never imported"


@pytest.mark.slow
def test_torchvision_imports_beside_any_torch():
    code = """
import sys, dhp_lab
assert "torch" not in sys.modules, "import dhp_lab is meant to be quick"
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
    monkeypatch.setattr(
        sys, "meta_path", [_torchvision_ops, *(f for f in sys.meta_path if f is not _torchvision_ops)]
    )
    assert _torchvision_ops.find_spec("torch") is None and _torchvision_ops in sys.meta_path
    assert _torchvision_ops.find_spec("torchvision") is None and _torchvision_ops not in sys.meta_path
    assert declared == ([] if loads else ["torchvision::nms", "torchvision::qnms"])

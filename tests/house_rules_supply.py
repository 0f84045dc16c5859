"""Rules about what comes from outside: no data is run as code, and every exemption says why.

They stand in ``house_rules.RULES`` beside the others.
"""

from __future__ import annotations

import ast
import re

from house_rules import package, python, rule, tree, uses

REVIEWED_LOADER = (
    "dhp_lab/core/compressai_imports.py"  # runs a module of an installed package without its parent
)
RUNS_CODE = {"eval", "exec", "compile", "__import__", "execfile"}
LOADS_CODE = {
    "torch.hub.load",
    "torch.jit.load",
    "torch.package.PackageImporter",
    "marshal.loads",
    "runpy.run_path",
}
UNSAFE = {("weights_only", False), ("allow_pickle", True), ("trust_remote_code", True), ("shell", True)}
HOLDS_NO_WEIGHTS = re.compile(r"(Processor|Tokenizer|TokenizerFast)$")
OWN = "DiffusionHyperprior"  # reads safetensors and nothing else
PICKLES = {"pickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve"}
READER_OF_PICKLES = "dhp_lab/core/pickled_arrays.py"  # knows numpy's constructors and torch's tensors alone
WHY = "reading one runs its code; use safetensors"
NOQA = re.compile(r"#\s*(ruff:\s*)?noqa\b(?P<rest>.*)", re.IGNORECASE)
REASON = re.compile(r": [A-Z]+\d+(, ?[A-Z]+\d+)*\s+\(.{4,}\)")
CODE = re.compile(r'"[A-Z]+\d+"')


@rule
def data_is_never_run(files):
    """No eval, exec or unpickling but in one reviewed loader; weights are safetensors; only https."""
    offenders = []
    for path, source in package(files).items():
        for node in ast.walk(tree(source)):
            if isinstance(node, ast.Call):
                offenders += [f"{path}:{node.lineno} {why}" for why in _dangers(node, path)]
            elif isinstance(node, ast.Constant) and str(node.value).startswith("http://"):
                offenders.append(f"{path}:{node.lineno} {node.value}: https only")
    return offenders


def _dangers(call: ast.Call, path: str) -> list[str]:
    """What is wrong with a call, in words."""
    name = ast.unparse(call.func)
    given = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
    found = [f"{key}={value}" for key, value in UNSAFE if given.get(key) == str(value)]
    if name.removeprefix("builtins.") in RUNS_CODE and path != REVIEWED_LOADER or name in LOADS_CODE:
        found.append(f"calls {name}, which runs what it is given")
    receiver, _, method = name.rpartition(".")
    weighty = method == "from_pretrained" and receiver != OWN and not HOLDS_NO_WEIGHTS.search(receiver)
    if weighty and given.get("use_safetensors") != "True":
        found.append(f"{name} without use_safetensors=True")
    return found


@rule
def pickles_have_one_reader(files):
    """Only core/pickled_arrays.py reads pickles, and of those arrays and tensors alone."""
    offenders = uses(files, PICKLES, but=(READER_OF_PICKLES,), why=WHY)
    for path, source in package(files).items():
        for node in ast.walk(tree(source)):
            if (
                path != READER_OF_PICKLES
                and isinstance(node, ast.Attribute)
                and ast.unparse(node) == "torch.load"
            ):
                offenders.append(f"{path}:{node.lineno} torch.load: {WHY}")
            if path == READER_OF_PICKLES and isinstance(node, ast.Call) and _runs_code(node):
                offenders.append(f"{path}:{node.lineno} would run what the pickle holds")
    return offenders


def _runs_code(call: ast.Call) -> bool:
    """Whether a call would load more than arrays and tensors."""
    name = ast.unparse(call.func)
    given = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
    unrestricted = name == "torch.load" and given.get("weights_only") != "True"
    return unrestricted or name in {
        "pickle.load",
        "pickle.loads",
        "pickle.Unpickler",
        "numpy.load",
        "np.load",
    }


@rule
def exemptions_have_a_reason(files):
    """Where a check of the linter is switched off, one rule is named, and a reason given in parentheses."""
    offenders = [
        f"{path}:{number} is exempted without a rule and a reason"
        for path, source in python(files).items()
        for number, line in enumerate(source.splitlines(), 1)
        if (match := NOQA.search(line)) and not REASON.match(match["rest"])
    ]
    for number, line in enumerate(files["pyproject.toml"].splitlines(), 1):
        if CODE.search(line) and "#" not in line and not line.startswith("select"):
            offenders.append(f"pyproject.toml:{number} exempts without a reason")
    return offenders

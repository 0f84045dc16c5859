"""The rule about pickles, which stands in ``house_rules.RULES`` beside the others."""

from __future__ import annotations

import ast

from house_rules import package, rule, tree, uses

PICKLES = {"pickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve"}
READER = "dhp_lab/core/pickled_arrays.py"  # knows numpy's constructors and torch's tensors, nothing else
WHY = "reading one runs its code; use safetensors"


@rule
def pickles_have_one_reader(files):
    """Only core/pickled_arrays.py reads pickles, and of those arrays and tensors alone."""
    offenders = uses(files, PICKLES, but=(READER,), why=WHY)
    for path, source in package(files).items():
        for node in ast.walk(tree(source)):
            if path != READER and isinstance(node, ast.Attribute) and ast.unparse(node) == "torch.load":
                offenders.append(f"{path}:{node.lineno} torch.load: {WHY}")
            if path == READER and isinstance(node, ast.Call) and _runs_code(node):
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

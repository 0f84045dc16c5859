"""The rules of the house, which tests/test_house.py applies to the repository and proves on made-up files.

A rule takes the files, {path: source}, and returns one sentence for each place that breaks it. Where a rule
speaks of the package, imports inside functions and under ``TYPE_CHECKING`` count like any other.
"""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Callable, Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from importlib.metadata import packages_distributions
from typing import NamedTuple

Files = dict[str, str]

# From the ground up: a room imports itself and what stands before it.
ROOMS = (
    "core",
    "diffusion",
    "data",
    "metrics",
    "latent",
    "codec",
    "training",
    "evaluation",
    "notebook",
    "lessons",
    "cli",
)  # and below, the storeys of codec/
CODEC = (
    "bits",
    "networks",
    "denoising",
    "config",
    "parts",
    "stable_diffusion",
    "latents",
    "trellis_latents",
    "symbol_tables",
    "hyperprior",
    "entropy_coding",
    "realism",
    "checkpoint",
    "model",
    "growth",
    "create",
    "latent_optimiser",
    "effort",
    "dhp_file",
    "diffusers_adapter",
    "bitstream",
    "__init__",
)
MAX_LINES = 350
SKIPS = re.compile(r"#\s*fmt:\s*(skip|off)")
NETWORK = {"ftplib", "http", "httpx", "huggingface_hub", "requests", "socket", "urllib"}
BY_NAME = re.compile(r"(importlib\.)?(import_module|__import__)\(f?.dhp_lab\b")
NEEDS_NO_TORCH = ("dhp_lab/codec/bits/lambdas.py", "dhp_lab/codec/bits/bitstream.py")
PLAIN = {"bool", "int", "float", "str", "tuple", "Path", "Literal", "ClassVar"}
USED_OTHERWISE = {"torchvision", "tensorboard", "jupyterlab"}  # through compressai and torch, or as a program
RIVALS = {"imageio_ffmpeg": ["imageio-ffmpeg"], "pillow_jxl": ["pillow-jxl-plugin"], "pycvvdp": ["cvvdp"]}
RIVALS |= {"ssimulacra2": ["ssimulacra2"]}  # all of them are often not installed

RULES: dict[str, Callable[[Files], list[str]]] = {}


def rule(function):
    """Add a function to RULES."""
    RULES[function.__name__] = function
    return function


class Import(NamedTuple):
    """A name that a file imports from a module; "" where it imports the module itself."""

    line: int
    module: str
    name: str


@cache
def tree(source: str) -> ast.Module:
    """The syntax tree of a source."""
    return ast.parse(source)


@cache
def imports(source: str) -> list[Import]:
    """Everything that a source imports, wherever in it."""
    found = []
    for node in ast.walk(tree(source)):
        if isinstance(node, ast.Import):
            found += [Import(node.lineno, alias.name, "") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            found += [Import(node.lineno, module, alias.name) for alias in node.names]
    return found


def python(files: Files) -> Files:
    """The Python files."""
    return {path: source for path, source in files.items() if path.endswith(".py")}


def package(files: Files) -> Files:
    """The modules of dhp_lab."""
    return {path: source for path, source in python(files).items() if path.startswith("dhp_lab/")}


class Arrow(NamedTuple):
    """One file of the package imports another."""

    source: str
    line: int
    target: str


def arrows(files: Files) -> list[Arrow]:
    """Who imports whom within the package; a folder's name in front of a module's counts as neither."""
    modules = package(files)
    home = {path.removesuffix(".py").removesuffix("/__init__").replace("/", "."): path for path in modules}
    found = set()
    for path, source in modules.items():
        for line, module, name in imports(source):
            if name.startswith("__"):  # dhp_lab.__version__
                continue
            target = home.get(f"{module}.{name}") or home.get(module)
            if target not in (None, path):
                found.add(Arrow(path, line, target))
    return sorted(found)


def storey(path: str) -> tuple[int, int]:
    """How high a module stands: its room, then in codec/ its place there; -1 for one that has no place."""
    _, room, *rest = path.removesuffix(".py").split("/")
    if not rest:  # dhp_lab/__init__.py sees the whole house; _torchvision_ops.py stands under it
        return (len(ROOMS) if room == "__init__" else -1), 0
    if room not in ROOMS:
        return -1, -1
    if room != "codec":
        return ROOMS.index(room), 0
    return ROOMS.index(room), CODEC.index(rest[0]) if rest[0] in CODEC else -1


@rule
def no_import_of_a_higher_storey(files):
    """Every module has a place in ROOMS (and in CODEC), and imports what stands below it or beside it."""
    homeless = [f"{path} has no place in ROOMS or CODEC" for path in package(files) if storey(path)[1] < 0]
    upward = [
        f"{source}:{line} imports {target}, which stands above it"
        for source, line, target in arrows(files)
        if storey(target) > storey(source)
    ]
    return homeless + upward


@rule
def no_circle(files):
    """No modules import each other, be it in a long chain."""
    graph = {path: set() for path in package(files)}
    for source, _, target in arrows(files):
        graph[source].add(target)
    circles = []
    while True:
        try:
            TopologicalSorter(graph).prepare()
        except CycleError as error:
            circle = error.args[1][::-1]  # each imports the next
            circles.append(" -> ".join(circle))
            graph[circle[0]].remove(circle[1])
        else:
            return circles


def lesson_of(module: str) -> str | None:
    """The lesson that a module belongs to: dhp_lab.lessons.LESSON..."""
    match = re.match(r"dhp_lab\.lessons\.(\w+)", module)
    return match and match[1]


@rule
def no_lesson_in_another(files):
    """A lesson's modules import no other lesson; a notebook imports one lesson, which is no other's."""
    offenders, owner = [], {}
    for path, source in files.items():
        in_package = re.match(r"dhp_lab/lessons/(\w+)/", path)
        if in_package is None and not path.endswith(".ipynb"):
            continue
        lessons = {lesson_of(f"{module}.{name}") for _, module, name in imports(source)} - {None}
        if in_package:
            offenders += [f"{path} imports lesson {name}" for name in lessons - {in_package[1]}]
            continue
        if len(lessons) > 1:
            offenders.append(f"{path} imports lessons {', '.join(sorted(lessons))}")
        for lesson in lessons:
            if owner.setdefault(lesson, path) != path:
                offenders.append(f"{path} imports {lesson}, the lesson of {owner[lesson]}")
    return offenders


def is_frozen(decorator: ast.expr) -> bool:
    """Whether a decorator is `dataclass(frozen=True, ...)`."""
    return isinstance(decorator, ast.Call) and any(
        keyword.arg == "frozen" and ast.unparse(keyword.value) == "True" for keyword in decorator.keywords
    )


def is_thawing(call: ast.Call) -> bool:
    """Whether a call is `object.__setattr__(...)`."""
    return ast.unparse(call.func) == "object.__setattr__"


@rule
def configurations_are_plain(files):
    """A class named ...Config is frozen, and nobody thaws one; in config.py and *_config.py its fields are
    numbers, strings, paths and tuples.
    """
    offenders = []
    for path, source in package(files).items():
        nodes = list(ast.walk(tree(source)))
        configs = [node for node in nodes if isinstance(node, ast.ClassDef) and node.name.endswith("Config")]
        inside = {id(node) for config in configs for node in ast.walk(config)}
        thawing = [node for node in nodes if isinstance(node, ast.Call) and is_thawing(node)]
        for call in thawing:
            if id(call) in inside or ast.unparse(call.args[0]) != "self":
                offenders.append(f"{path}:{call.lineno} changes what is frozen")
        for config in configs:
            if not any(is_frozen(decorator) for decorator in config.decorator_list):
                offenders.append(f"{path}:{config.lineno} {config.name} is not frozen")
            fields = [part for part in config.body if isinstance(part, ast.AnnAssign)]
            for field in fields if path.endswith(("/config.py", "_config.py")) else ():
                words = {part.id for part in ast.walk(field.annotation) if isinstance(part, ast.Name)}
                if words - PLAIN:
                    offenders.append(f"{path}:{field.lineno} {config.name}.{ast.unparse(field.target)}")
    return offenders


def uses(files: Files, forbidden: set[str], *, but: tuple[str, ...], why: str) -> list[str]:
    """The imports of forbidden packages in the package's modules but for those whose path begins so."""
    return [
        f"{path}:{line} imports {module}: {why}"
        for path, source in package(files).items()
        if not path.startswith(but)
        for line, module, _ in imports(source)
        if module.partition(".")[0] in forbidden
    ]


@rule
def doors_are_few(files):
    """The network, widgets, the screen and lazily loaded names each have one place."""
    network = ("dhp_lab/core/hub.py", "dhp_lab/core/download.py")
    offenders = uses(files, NETWORK, but=network, why="only core/hub.py and core/download.py may")
    widgets = ("dhp_lab/notebook/sliders.py",)
    offenders += uses(files, {"ipywidgets"}, but=widgets, why="only notebook/sliders.py may")
    for path, source in package(files).items():
        offenders += [
            f"{path}:{line} imports {module}: write the full name"
            for line, module, _ in imports(source)
            if module.startswith(".")
        ]
        for node in ast.walk(tree(source)):
            words = ast.unparse(node) if isinstance(node, (ast.Name, ast.Attribute, ast.Call)) else ""
            if words == "print" and not path.startswith("dhp_lab/cli/"):
                offenders.append(f"{path}:{node.lineno} prints; only cli/ may")
            if BY_NAME.match(words) and not path.endswith("/__init__.py"):
                offenders.append(f"{path}:{node.lineno} imports by name, which hides who imports whom")
    return offenders


@rule
def the_container_needs_no_torch(files):
    """What `dhp info` reads a header with imports no torch, nor do the modules of ours that it imports."""
    above = {}
    for source, _, target in arrows(files):
        above.setdefault(source, set()).add(target)
    reached, new = set(), set(NEEDS_NO_TORCH)
    while new:
        reached |= new
        new = set().union(*(above.get(path, ()) for path in new)) - reached
    return [
        f"{path}:{line} imports {module}"
        for path in sorted(reached & files.keys())
        for line, module, _ in imports(files[path])
        if module.partition(".")[0] == "torch"
    ]


@rule
def modules_are_short(files):
    """A Python file has 350 lines at most, and the formatter formats all of it."""
    offenders = []
    for path, source in python(files).items():
        lines = source.splitlines()
        if len(lines) > MAX_LINES:
            offenders.append(f"{path} has {len(lines)} lines")
        offenders += [
            f"{path}:{number} is kept from the formatter"
            for number, line in enumerate(lines, 1)
            if SKIPS.search(line)
        ]
    return offenders


def public_parts(path: str, node: ast.Module | ast.ClassDef) -> Iterator[tuple[str, ast.AST]]:
    """Yield (where, node) for a module or class and everything public in it."""
    yield path, node
    for part in node.body:
        if isinstance(part, (ast.FunctionDef, ast.ClassDef)) and not part.name.startswith("_"):
            yield f"{path}:{part.lineno} {part.name}", part


@rule
def everything_public_has_a_docstring(files):
    """Modules, and the functions and classes in them that have no leading underscore."""
    return [
        f"{where} has no docstring"
        for path, source in package(files).items()
        for where, part in public_parts(path, tree(source))
        if not ast.get_docstring(part)
    ]


installed = cache(lambda: RIVALS | packages_distributions())


def distribution(requirement: str) -> str:
    """The name in a line such as "torch_geometric>=2.0", as an index spells it."""
    return re.match(r"[\w-]+", requirement)[0].lower().replace("_", "-")


@rule
def dependencies_are_what_is_imported(files):
    """pyproject.toml declares what the package imports, and nothing else."""
    project = tomllib.loads(files["pyproject.toml"])["project"]
    extras = project.get("optional-dependencies", {})
    lines = [*project["dependencies"], *extras.get("lab", []), *extras.get("rivals", [])]
    declared = {distribution(line) for line in lines}
    used = set()
    for source in package(files).values():
        foreign = {module.partition(".")[0] for _, module, _ in imports(source)} - {"dhp_lab", ""}
        used |= {distribution(installed()[name][0]) for name in foreign - sys.stdlib_module_names}
    undeclared = [f"{name} is imported, but not declared" for name in sorted(used - declared)]
    idle = sorted(declared - used - USED_OTHERWISE)
    return undeclared + [f"{name} is declared, but never imported" for name in idle]

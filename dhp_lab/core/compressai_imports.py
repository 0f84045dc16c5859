"""What this package uses of CompressAI, imported without what it does not use.

    from dhp_lab.core.compressai_imports import CompressionModel, GaussianConditional, ans

``import compressai`` runs the whole of it: its data sets, whose registry imports torch_geometric, which
imports transformers and torch._dynamo; and scipy.stats, for one function of its entropy models. That is 2.5
of the 4 seconds that it takes to compress a small picture. Here

- ``compressai`` runs without the one statement in which it imports all its parts, and of
  ``compressai.models`` and ``compressai.latent_codecs`` only the files of their base classes are imported:
  the ``__init__`` of the two is held back;
- ``scipy.stats`` is held back as a whole. It is needed when probability tables are made, not when they are
  read from a checkpoint.

What is held back runs at once and to the end, in the same module objects, as soon as anybody looks up a name
that is not there yet (``compressai.zoo``, ``from compressai.models import ScaleHyperprior``) or imports
another part (``import compressai.datasets``, ``import scipy.stats.qmc``). So other code never meets half a
package.

Nothing is held back of a package that was imported before. Where CompressAI's files lie differently than in
1.2.8, what was held back runs at once: that is the plain import, slower and the same otherwise.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable
from importlib import import_module
from importlib.machinery import ModuleSpec
from importlib.util import find_spec, module_from_spec
from threading import RLock
from types import ModuleType


class _Incomplete(ModuleType):
    """A package of which something is held back, until a name is missing."""

    def __getattr__(self, name: str) -> object:
        for finder in list(sys.meta_path):
            if isinstance(finder, _HeldBack) and finder.owns(self.__name__):
                finder.complete()
        return ModuleType.__getattribute__(self, name)


class _HeldBack:
    """What is held back of one package and its sub-packages; a finder in ``sys.meta_path`` while it is.

    Args:
        name: the package's; it must not have been imported.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.pending: dict[str, Callable[[ModuleType], None]] = {}  # sub-package -> what completes it
        self.lock = RLock()
        self.importing_parts = False

    def owns(self, name: str) -> bool:
        """Whether a module is the package or lies in it."""
        return name == self.name or name.startswith(f"{self.name}.")

    def hold(self, name: str) -> ModuleType:
        """Put a package into ``sys.modules`` without running its ``__init__``; what is there stays.

        Raises:
            ImportError: there is no such package.
        """
        if name in sys.modules:
            return sys.modules[name]
        spec = find_spec(name)
        if spec is None or spec.submodule_search_locations is None:
            raise ImportError(f"there is no package {name}", name=name)
        package = module_from_spec(spec)
        package.__class__ = _Incomplete
        sys.modules[name] = package
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], child, package)
        self.pending[name] = spec.loader.exec_module
        return package

    def complete(self) -> None:
        """Run all that is held back; afterwards the packages are modules like all others.

        Raises:
            Exception: what the packages' own code raises; the next missing name tries again.
        """
        with self.lock:
            if self not in sys.meta_path:
                return
            sys.meta_path.remove(self)
            for name in self.pending:
                sys.modules[name].__class__ = ModuleType
            try:
                while self.pending:
                    name = next(reversed(self.pending))  # sub-packages before what they lie in
                    self.pending[name](sys.modules[name])
                    del self.pending[name]
            except BaseException:
                for name in self.pending:
                    sys.modules[name].__class__ = _Incomplete
                sys.meta_path.insert(0, self)
                raise

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """Complete the package before another part of it is imported (the finder protocol)."""
        if self.importing_parts or not self.owns(name):
            return None
        self.complete()
        module = sys.modules.get(name)
        if module is None:
            return None
        module.__spec__.loader = _Imported(module)  # Python takes this spec, and would load a second copy
        return module.__spec__


class _Imported:
    """The loader, for once, of a module that was imported while Python looked for it."""

    def __init__(self, module: ModuleType) -> None:
        self.module, self.loader = module, module.__spec__.loader

    def __getattr__(self, name: str) -> object:
        return getattr(self.loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Return the module as it is."""
        return self.module

    def exec_module(self, module: ModuleType) -> None:
        """Give the spec its own loader back."""
        module.__spec__.loader = self.loader


def _run_without_parts(package: ModuleType) -> Callable[[ModuleType], None]:
    """Run the ``__init__`` of a package but for its imports from itself; return what runs those."""
    loader = package.__spec__.loader
    tree = ast.parse(loader.get_source(package.__name__))
    imports = [
        node for node in tree.body if isinstance(node, ast.ImportFrom) and node.module == package.__name__
    ]
    others = [node for node in tree.body if node not in imports]

    def run(nodes: list[ast.stmt], module: ModuleType) -> None:
        code = compile(ast.Module(nodes, type_ignores=[]), package.__file__, "exec")
        exec(code, vars(module))  # noqa: S102  (what `import compressai` would run)

    run(others, package)
    return lambda module: run(imports, module)


def _hold_scipy_stats() -> None:
    """Hold back scipy.stats."""
    stats = _HeldBack("scipy.stats")
    sys.meta_path.insert(0, stats)
    stats.importing_parts = True
    stats.hold("scipy.stats")
    stats.importing_parts = False


def _import_base_classes() -> None:
    """Import the files of CompressAI that the codec stands on, and hold back the rest."""
    held = _HeldBack("compressai")
    sys.meta_path.insert(0, held)
    held.importing_parts = True
    try:
        root = held.hold("compressai")
        held.pending["compressai"] = _run_without_parts(root)
        models = held.hold("compressai.models")
        codecs = held.hold("compressai.latent_codecs")
        # each name where the file that needs it looks for it, as the __init__ would have put it there
        codecs.LatentCodec = import_module("compressai.latent_codecs.base").LatentCodec
        models.CompressionModel = import_module("compressai.models.base").CompressionModel
        import_module("compressai.ans")
    except (ImportError, AttributeError, TypeError):  # another layout
        held.complete()
    finally:
        held.importing_parts = False


if "scipy.stats" not in sys.modules:
    _hold_scipy_stats()
if "compressai" not in sys.modules:
    _import_base_classes()

from compressai import ans  # noqa: E402  (these find what lies ready)
from compressai.entropy_models import (  # noqa: E402 (after the stand-ins)
    EntropyBottleneck,
    EntropyModel,
    GaussianConditional,
)
from compressai.entropy_models.entropy_models import pmf_to_quantized_cdf  # noqa: E402 (after the stand-ins)
from compressai.models import CompressionModel  # noqa: E402 (after the stand-ins)

__all__ = [
    "CompressionModel",
    "EntropyBottleneck",
    "EntropyModel",
    "GaussianConditional",
    "ans",
    "pmf_to_quantized_cdf",
]

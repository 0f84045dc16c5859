"""Arrays and tensors that others keep in pickles, read without running what else a pickle may hold.

A pickle is a program: reading one can call any function of any module. These two readers let it call the few
that put arrays or tensors together, and refuse the rest. No other module unpickles anything; whatever is read
here becomes safetensors, and the pickle is not kept.

| reader         | file                               | may call                                        |
|----------------|------------------------------------|-------------------------------------------------|
| `read_arrays`  | dictionaries of numpy arrays       | numpy's three constructors, all compiled        |
| `read_tensors` | `torch.save` of a state dictionary | what torch's own reader allows (`weights_only`) |

Whoever calls them has compared the file's sha256 before: this is the second lock, not the first.
"""

from __future__ import annotations

import io
import pickle  # noqa: S403 (the one place: see above)
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

CONSTRUCTORS = {("numpy.core.multiarray", "_reconstruct"), ("numpy", "ndarray"), ("numpy", "dtype")}
NUMBERS = "fiu"  # kinds of dtypes: floating point, integers
MAX_DEPTH = 8  # dictionaries in each other; one that holds itself has no end
FAILURES = (  # of a reader, on a file that is not what it should be
    pickle.UnpicklingError,
    AttributeError,
    EOFError,
    ImportError,
    KeyError,
    IndexError,
    MemoryError,
    OverflowError,
    RuntimeError,
    TypeError,
    ValueError,
)


class PickleError(ValueError):
    """A pickle that is damaged, or holds more than arrays; the message says what."""


class _ArraysOnly(pickle.Unpickler):
    """Finds numpy's constructors, and no other function or class."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in CONSTRUCTORS:
            raise PickleError(f"it calls {module}.{name}, which puts no array together")
        return super().find_class(module, name)


def read_arrays(data: bytes) -> dict[str, np.ndarray]:
    """Read nested dictionaries of numpy arrays.

    Args:
        data: a pickle of {str: array or likewise}.

    Returns:
        The arrays of numbers by their path, such as "AlexNet_0/Conv_0/kernel".

    Raises:
        PickleError: it is damaged, calls anything but numpy's constructors, or holds anything but arrays.
    """
    try:
        found = _ArraysOnly(io.BytesIO(data)).load()
    except PickleError:
        raise
    except FAILURES as error:
        raise PickleError(f"it cannot be read as arrays: {error}") from None
    arrays: dict[str, np.ndarray] = {}
    _flatten(found, (), arrays)
    return arrays


def _flatten(node: object, path: tuple[str, ...], arrays: dict[str, np.ndarray]) -> None:
    if isinstance(node, dict) and len(path) < MAX_DEPTH and all(isinstance(key, str) for key in node):
        for key, value in node.items():
            _flatten(value, (*path, key), arrays)
    elif path and isinstance(node, np.ndarray) and node.dtype.kind in NUMBERS:
        arrays["/".join(path)] = node
    else:
        kind = getattr(node, "dtype", type(node).__name__)
        raise PickleError(f"it holds more than arrays of numbers: {kind} at {'/'.join(path) or 'its top'}")


def read_tensors(source: bytes | Path) -> dict[str, Tensor]:
    """Read a state dictionary that `torch.save` wrote, by torch's reader for tensors alone.

    Args:
        source: the file, or its bytes.

    Raises:
        PickleError: it is damaged, or holds anything but tensors by their names.
        OSError: the file cannot be read.
    """
    import torch

    stream = source if isinstance(source, Path) else io.BytesIO(source)
    try:
        found = torch.load(stream, map_location="cpu", weights_only=True)
    except FAILURES as error:
        raise PickleError(f"it cannot be read as tensors: {str(error).partition(chr(10))[0]}") from None
    if not isinstance(found, dict):
        raise PickleError(f"it holds more than tensors by name: {type(found).__name__} at its top")
    for name, value in found.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            raise PickleError(f"it holds more than tensors: {type(value).__name__} at {name}")
    return found

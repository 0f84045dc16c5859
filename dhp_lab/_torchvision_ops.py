"""Let ``import torchvision`` work beside a torch that its compiled part does not fit.

With a CPU-only torch, a torchvision built for CUDA cannot load its compiled part, and then its import ends in
"operator torchvision::nms does not exist". compressai and diffusers import torchvision but never call the two
operators it asks for (``nms``, ``qnms``): declaring their names is enough.

This module is an import finder that finds nothing. ``import dhp_lab`` puts it in line, which costs nothing;
at the first import of torchvision it looks once whether the compiled part loads, and takes itself out of the
line. So the order of the imports after ``import dhp_lab`` does not matter.
"""

import sys
from importlib.machinery import PathFinder


def find_spec(name: str, path=None, target=None) -> None:
    """Declare torchvision's missing operators when the import of torchvision begins (the finder protocol)."""
    if name != "torchvision":
        return
    sys.meta_path.remove(sys.modules[__name__])
    import torch

    package = PathFinder.find_spec(name)
    compiled = package and PathFinder.find_spec("_C", package.submodule_search_locations)
    try:
        torch.ops.load_library(compiled.origin)
    except (AttributeError, OSError):  # there is no compiled part, or it was built for another torch
        for operator in ("nms", "qnms"):
            schema = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
            torch.library.define(f"torchvision::{operator}", schema)


if "torchvision" not in sys.modules:
    sys.meta_path.insert(0, sys.modules[__name__])

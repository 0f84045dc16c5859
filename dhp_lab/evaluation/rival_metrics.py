"""SSIMULACRA2 and ColorVideoVDP, by the packages of the extra `rivals`; without them both are left out.

| metric        | package     | figure                                 | source                |
|---------------|-------------|----------------------------------------|-----------------------|
| SSIMULACRA2   | ssimulacra2 | 100 for equal pictures, may be below 0 | J. Sneyers, 2022      |
| ColorVideoVDP | cvvdp       | JOD, 10 for equal pictures             | Mantiuk et al. 2024   |

Both models are of a person who looks at the screen, and neither is a network trained on ImageNet.
"""

from __future__ import annotations

import importlib
import io
from functools import lru_cache
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from dhp_lab.data.images import to_pixels

INSTALL = 'pip install "dhp-lab[rivals]"'
SCREEN = "standard_4k"  # 30 inches at 0.75 m, 200 cd/m^2: ColorVideoVDP's own default


class MissingPackage(ValueError):
    """A package that is not installed; the message says how to get it."""


def require(module: str) -> None:
    """Import a package of the extra.

    Args:
        module: ssimulacra2 or pycvvdp.

    Raises:
        MissingPackage: it, or something that it needs, is not installed.
    """
    try:
        importlib.import_module(module)
    except ImportError as error:
        raise MissingPackage(f"{error.name or module} is not installed; {INSTALL}") from None


def ssimulacra2(x_hat: Tensor, x: Tensor) -> float:
    """SSIMULACRA2 of a picture, (1, 3, H, W) in [0, 1], against its original; sides of at least 8."""
    from ssimulacra2 import compute_ssimulacra2

    return float(compute_ssimulacra2(_png(x), _png(x_hat)))


def _png(x: Tensor) -> io.BytesIO:
    """The picture as a file, which is what the package takes."""
    stream = io.BytesIO()
    Image.fromarray(to_pixels(x.cpu())).save(stream, "PNG", compress_level=0)
    stream.seek(0)
    return stream


@lru_cache(maxsize=1)
def _video_metric(device: torch.device) -> Any:
    from pycvvdp import cvvdp as model

    return model(display_name=SCREEN, device=device, quiet=True)


@torch.no_grad()
def cvvdp(x_hat: Tensor, x: Tensor) -> float:
    """ColorVideoVDP, in JOD, of a picture, (1, 3, H, W) in [0, 1], against its original; sides of >= 16."""
    found, _ = _video_metric(x.device).predict(x_hat[0], x[0], dim_order="CHW")
    return float(found)

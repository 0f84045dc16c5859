r"""Four small networks on the islands: a diffusion, a flow, its reflow, and a consistency model.

All have the same layers, batches and number of steps; the reflow starts from the flow's weights, and the
consistency model from its teacher's, as Liu et al. 2023 and Song et al. 2023 start theirs.

    (x, c) --> x, c, sines of c --> three hidden layers --> F(x, c)

c is ln(sigma) / 4 for the diffusion and the consistency model, and t for the flows.
"""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from dhp_lab.core.files import write_all_atomic
from dhp_lab.core.paths import CHECKPOINTS
from dhp_lab.core.seeding import temporary_seed
from dhp_lab.core.weights import CONFIG, WEIGHTS, CheckpointError, weights_from_bytes, weights_to_bytes
from dhp_lab.diffusion.consistency import ConsistencyModel
from dhp_lab.diffusion.edm import EDMDenoiser, karras
from dhp_lab.diffusion.flow import reflow_pairs
from dhp_lab.diffusion.mixture import ISLANDS
from dhp_lab.diffusion.process import noise_like
from dhp_lab.training.few_steps import (
    FitConfig,
    distillation_objective,
    edm_objective,
    fit,
    flow_objective,
    kept_pairs,
    shuffled_pairs,
)

SIGMA_MIN, SIGMA_MAX = 0.01, 80.0  # a twelfth of an island's deviation, and 130 times that of the data
SIGMA_DATA = 0.61  # the root mean square of a coordinate
MEAN_LOG, STD_LOG = -0.7, 1.6  # of ln(sigma) in training: the network learns where structure appears
LEVELS = 24  # noise levels of the distillation
FREQUENCIES = 4
BATCH = 256
POINTS = 10_000  # of the data; and pairs of the reflow
WIDTH = 64
FOLDER = CHECKPOINTS / "islands"


class PlaneNetwork(nn.Module):
    """F(x, c) for points of the plane.

    Args:
        width: of the hidden layers.
    """

    def __init__(self, width: int = WIDTH) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(3 + 2 * FREQUENCIES, width),
            nn.SiLU(),
            nn.Linear(width, width),
            nn.SiLU(),
            nn.Linear(width, width),
            nn.SiLU(),
            nn.Linear(width, 2),
        )

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """x (B, 2) and c (B,) -> (B, 2)."""
        c = c.to(x).view(-1, 1)
        angles = c * 2.0 ** torch.arange(FREQUENCIES, device=x.device)  # (B, FREQUENCIES)
        return self.layers(torch.cat([x, c, angles.sin(), angles.cos()], 1))


@dataclass(frozen=True)
class IslandModels:
    """What ``train_islands`` makes.

    Attributes:
        diffusion: D(u, sigma), the teacher of ``consistency``.
        flow, reflow: v(x, t).
        consistency: f(u, sigma).
    """

    diffusion: nn.Module
    flow: nn.Module
    reflow: nn.Module
    consistency: nn.Module


def distillation_levels() -> Tensor:
    """(LEVELS,) the noise levels of the distillation, rising from SIGMA_MIN to SIGMA_MAX."""
    return karras(LEVELS, first=SIGMA_MIN, last=SIGMA_MAX).sigma(torch.arange(1, LEVELS + 1))


def new_models(width: int = WIDTH) -> IslandModels:
    """Untrained networks, their weights drawn from torch's global generator."""
    return IslandModels(
        EDMDenoiser(PlaneNetwork(width), SIGMA_DATA),
        PlaneNetwork(width),
        PlaneNetwork(width),
        ConsistencyModel(PlaneNetwork(width), SIGMA_DATA, SIGMA_MIN),
    )


def train_islands(steps: int = 3000, *, seed: int = 0, width: int = WIDTH) -> IslandModels:
    """Train all four for the same number of steps, half a minute on one core in all.

    Args:
        steps: of each network, at least 1.
        seed: of data, weights, batches and noise.
    """
    config = FitConfig(steps, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    data = ISLANDS.sample(POINTS, generator)
    with temporary_seed(seed):
        models = new_models(width)
    pairs = shuffled_pairs(data, BATCH)
    objective = edm_objective(pairs, sigma_data=SIGMA_DATA, mean=MEAN_LOG, std=STD_LOG)
    diffusion = fit(models.diffusion, objective, config)
    flow = fit(models.flow, flow_objective(pairs), config)
    x0, eps = reflow_pairs(flow, noise_like(data, generator), count=25)
    reflow = _trainable(flow)
    reflow = fit(reflow, flow_objective(kept_pairs(x0, eps, BATCH)), replace(config, lr=1e-3))
    student = models.consistency
    student.network.load_state_dict(diffusion.network.state_dict())
    objective = distillation_objective(pairs, diffusion, distillation_levels())
    consistency = fit(student, objective, replace(config, lr=1e-3, average=0.99))
    return IslandModels(diffusion, flow, reflow, consistency)


def save_islands(models: IslandModels, folder: str | Path = FOLDER, *, steps: int, seed: int) -> None:
    """Write the four networks to a folder, made if need be; large tensors are stored in float16."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    width = models.flow.layers[0].out_features
    text = json.dumps({"model": "IslandModels", "width": width, "steps": steps, "seed": seed}, indent=2)
    together = nn.ModuleDict(vars(models))
    write_all_atomic({folder / WEIGHTS: weights_to_bytes(together), folder / CONFIG: (text + "\n").encode()})


def load_islands(folder: str | Path = FOLDER) -> IslandModels:
    """Read what ``save_islands`` wrote, in eval mode.

    Raises:
        CheckpointError: a file is missing, damaged or of another kind.
    """
    folder = Path(folder)
    try:
        settings = json.loads((folder / CONFIG).read_bytes())
        tensors = weights_from_bytes((folder / WEIGHTS).read_bytes())
        with temporary_seed(0):
            models = new_models(int(settings["width"]))
        nn.ModuleDict(vars(models)).load_state_dict(tensors)
    except OSError as error:
        reason = f"{error.strerror}: {error.filename}"
        command = "python benchmarks/few_steps.py --save_weights"
        raise CheckpointError(f"no checkpoint at {folder}: {reason}; make it by {command}") from None
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"the checkpoint at {folder} does not fit: {error}; fetch it again") from None
    for model in vars(models).values():
        model.eval().requires_grad_(False)
    return models


def _trainable(network: nn.Module) -> nn.Module:
    """A copy of an average, to be trained on."""
    return copy.deepcopy(network).train().requires_grad_(True)

"""What a training of the realism denoiser depends on, checked before anything is loaded; no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass

LEAST_CROP = 64  # pixels: what the networks of the losses and the latents need
WIDTHS = 48, 80, 128  # of `residual_unet`


@dataclass(frozen=True)
class RealismWeights:
    """The weights of the loss's parts, each >= 0."""

    statistics: float = 0.5
    lpips: float = 1.0
    mse: float = 0.1
    denoising: float = 0.1


USUAL = RealismWeights()


@dataclass(frozen=True)
class RealismConfig:
    """Everything a run depends on.

    Attributes:
        data_path: folder of training photos. val_data_path: photos to validate on; None holds some out.
        model_path: folder of the frozen codec; None is the shipped one.
        output_dir: receives realism.json, realism.safetensors, last.safetensors, training.log, samples/,
            tensorboard/.
        denoising_steps, drawn_steps: of the two stages, 0 skips one: the denoising loss alone, then the
            losses of pictures that are drawn.
        image_size, drawn_image_size: sides of their crops, multiples of 64.
        lr, drawn_lr: their peak learning rates; each warms up and falls on a cosine to 1 %.
        statistics_weight, lpips_weight, mse_weight, denoising_weight: see ``RealismWeights``; of the second
            stage.
        widths: channels of the network at 1/2, 1/4 and 1/8 of the picture's sides.
        init_from: folder with a realism part to start from. resume: go on from output_dir/last.safetensors,
            with more steps of the current or a later stage if wanted. overwrite: replace a training.
        minutes_between_saves: of the state and of the averaged network. validate_every: steps between
            validations.
        drawn_share, workers, cache_gb: as in ``TrainingConfig``.
    """

    data_path: str
    val_data_path: str | None = None
    model_path: str | None = None
    output_dir: str = "outputs-realism"
    denoising_steps: int = 12000
    drawn_steps: int = 6000
    batch_size: int = 4
    image_size: int = 192
    drawn_image_size: int = 128
    lr: float = 6e-4
    drawn_lr: float = 3e-4
    statistics_weight: float = USUAL.statistics
    lpips_weight: float = USUAL.lpips
    mse_weight: float = USUAL.mse
    denoising_weight: float = USUAL.denoising
    widths: tuple[int, ...] = WIDTHS
    init_from: str | None = None
    seed: int = 0
    ema_decay: float = 0.998
    validate_every: int = 1000
    minutes_between_saves: float = 5.0
    drawn_share: float = 0.0
    workers: int = 0
    cache_gb: float = 4.0
    device: str | None = None
    resume: bool = False
    overwrite: bool = False

    def __post_init__(self) -> None:
        self._check_counts()
        self._check_shares()
        for name in ("image_size", "drawn_image_size"):
            size = getattr(self, name)
            if size < LEAST_CROP or size % LEAST_CROP:
                raise ValueError(f"{name} must be a multiple of 64 of at least 64, got {size}")
        if len(self.widths) != len(WIDTHS) or min(self.widths) < 1:
            given = ",".join(map(str, self.widths))
            raise ValueError(f"widths must be three numbers of at least 1, such as 48,80,128; got {given}")
        if self.resume and self.overwrite:
            raise ValueError("resume goes on with a training and overwrite replaces it: choose one")

    def _check_counts(self) -> None:
        least = {"batch_size": 1, "validate_every": 1, "denoising_steps": 0, "drawn_steps": 0, "workers": 0}
        for name, smallest in least.items():
            if getattr(self, name) < smallest:
                raise ValueError(f"{name} must be at least {smallest}, got {getattr(self, name)}")
        if self.denoising_steps + self.drawn_steps == 0:
            raise ValueError("denoising_steps and drawn_steps are both 0: nothing to train")

    def _check_shares(self) -> None:
        for name in ("lr", "drawn_lr"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"{name} must lie in (0, 1), got {getattr(self, name)}")
        for name in ("ema_decay", "drawn_share"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must lie in [0, 1), got {getattr(self, name)}")
        weights = [f"{name}_weight" for name in ("statistics", "lpips", "mse", "denoising")]
        for name in (*weights, "cache_gb", "minutes_between_saves"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")
        if self.drawn_steps and not any(getattr(self, name) for name in weights):
            raise ValueError("all weights of the loss are 0: the second stage has nothing to train")

    @property
    def weights(self) -> RealismWeights:
        """The weights of the loss's parts."""
        return RealismWeights(
            self.statistics_weight, self.lpips_weight, self.mse_weight, self.denoising_weight
        )

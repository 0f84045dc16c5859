"""What a training run depends on, checked before anything is loaded."""

from __future__ import annotations

import math
from dataclasses import dataclass

from dhp_lab.codec.bits.lambdas import check_lambda


class TrainingError(ValueError):
    """Training cannot go on; the message says why, where the last good checkpoint is, and what to try."""


@dataclass(frozen=True)
class TrainingConfig:
    """Everything a run depends on.

    Attributes:
        data_path: folder of training photos. val_data_path: photos for the validation loss; None holds some
            out.
        output_dir: receives training.log, samples/, tensorboard/, last.safetensors, best_checkpoint/,
            final_checkpoint/.
        epochs, denoiser_epochs, joint_epochs: passes over the photos in each stage, 0 skips the stage.
        lr: peak Adam step size of every stage; warm-up, then a cosine to 1 % of it.
        lambda_rate: one trade-off to train for; None trains all of ``CodecConfig.lambda_range`` in one model.
        image_size: side of the crops, a multiple of 64.
        N, M, transmit, passes, dead_zone, trellis: as in ``CodecConfig``; None is its default, or what the
            model to start from has, which may grow to more channels and other passes.
        bk_sdm_path: a Stable Diffusion folder or hub id, whose parts the codec takes. use_pretrained_vae,
            use_pretrained_unet: which of them; None is both. See ``StableDiffusionConfig``. low_memory: see
            ``DiffusionHyperprior.low_memory``.
        init_from: checkpoint folder to start from. resume: go on from output_dir/last.safetensors, with more
            epochs of the current or a later stage if wanted. overwrite: replace a training in output_dir.
        minutes_between_saves: of last.safetensors. validate_every: steps between validations.
        calibrate_every: steps between calibrations of the gain curve (``training.calibration``), in the
            stages that train the codec; 0: at the end of the first and the last of them alone.
        workers: processes that read photos ahead; 0: a thread, enough where most photos fit into memory.
        cache_gb: gigabytes of photos that each process keeps in memory, once read.
        drawn_share: of the training crops that are drawings (``data.drawings``), in [0, 1).
    """

    data_path: str
    val_data_path: str | None = None
    output_dir: str = "outputs"
    batch_size: int = 8
    epochs: int = 100
    denoiser_epochs: int = 20
    joint_epochs: int = 20
    lr: float = 1e-4
    lambda_rate: float | None = None
    N: int | None = None
    M: int | None = None
    diffusion_steps: int | None = None
    schedule: str = "linear"
    transmit: str | None = None
    passes: int | None = None
    dead_zone: float | None = None
    trellis: bool | None = None
    image_size: int = 256
    device: str | None = None
    resume: bool = False
    overwrite: bool = False
    init_from: str | None = None
    bk_sdm_path: str | None = None
    use_pretrained_vae: bool | None = None
    use_pretrained_unet: bool | None = None
    low_memory: bool = False
    seed: int = 0
    ema_decay: float = 0.999
    clip: float = 2.0
    minutes_between_saves: float = 5.0
    validate_every: int = 1000
    calibrate_every: int = 0
    drawn_share: float = 0.0
    workers: int = 0
    cache_gb: float = 4.0

    def __post_init__(self) -> None:
        self._check_counts()
        if not 0 < self.lr < 1:
            raise ValueError(f"lr must lie in (0, 1), got {self.lr}")
        if not 0 <= self.drawn_share < 1:
            raise ValueError(f"drawn_share must lie in [0, 1), got {self.drawn_share}")
        if self.image_size < 64 or self.image_size % 64:
            raise ValueError(f"image_size must be a multiple of 64 of at least 64, got {self.image_size}")
        if self.lambda_rate is not None:
            check_lambda(self.lambda_rate)
        if self.resume and self.overwrite:
            raise ValueError("resume goes on with a training and overwrite replaces it: choose one")
        self._check_borrowed_parts()

    def _check_counts(self) -> None:
        for name in ("batch_size", "validate_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("epochs", "denoiser_epochs", "joint_epochs", "calibrate_every", "workers"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")
        if not 0 <= self.cache_gb < math.inf:
            raise ValueError(f"cache_gb must be at least 0, got {self.cache_gb}")
        if self.epochs + self.denoiser_epochs + self.joint_epochs == 0:
            raise ValueError("all stages have 0 epochs: nothing to train")

    def _check_borrowed_parts(self) -> None:
        if self.init_from and self.bk_sdm_path:
            raise ValueError(f"the checkpoint {self.init_from} names its own parts: leave bk_sdm_path out")
        chosen = (self.use_pretrained_vae, self.use_pretrained_unet) != (None, None)
        if self.bk_sdm_path is None and chosen:
            raise ValueError(
                "use_pretrained_vae and use_pretrained_unet choose parts of a folder: "
                "name it with bk_sdm_path"
            )

    @property
    def codec_settings(self) -> dict[str, object]:
        """The settings of a new codec that were given, by the names that its creator takes them under."""
        names = ["N", "M", "diffusion_steps", "transmit", "passes", "dead_zone", "trellis"]
        borrowed = ["bk_sdm_path", "use_pretrained_vae", "use_pretrained_unet"]
        names += ["schedule"] if self.bk_sdm_path is None else borrowed
        return {name: value for name in names if (value := getattr(self, name)) is not None}

"""What a training run depends on, checked before anything is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dhp_lab.codec.bits.lambdas import check_lambda

if TYPE_CHECKING:
    from dhp_lab.codec.model import DiffusionHyperprior


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
        transmit, passes, dead_zone: as in ``CodecConfig``; None is its default, or what the model to start
            from has.
        bk_sdm_path: a Stable Diffusion folder or hub id, whose parts the codec takes. use_pretrained_vae,
            use_pretrained_unet: which of them; None is both. See ``StableDiffusionConfig``. low_memory: see
            ``DiffusionHyperprior.low_memory``.
        init_from: checkpoint folder to start from. resume: go on from output_dir/last.safetensors.
        minutes_between_saves: of last.safetensors. validate_every: steps between validations.
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
    N: int = 128
    M: int = 128
    diffusion_steps: int | None = None
    schedule: str = "linear"
    transmit: str | None = None
    passes: int | None = None
    dead_zone: float | None = None
    image_size: int = 256
    device: str | None = None
    resume: bool = False
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

    def __post_init__(self) -> None:
        for name in ("batch_size", "validate_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("epochs", "denoiser_epochs", "joint_epochs"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")
        if self.epochs + self.denoiser_epochs + self.joint_epochs == 0:
            raise ValueError("all stages have 0 epochs: nothing to train")
        if not 0 < self.lr < 1:
            raise ValueError(f"lr must lie in (0, 1), got {self.lr}")
        if self.image_size < 64 or self.image_size % 64:
            raise ValueError(f"image_size must be a multiple of 64 of at least 64, got {self.image_size}")
        if self.lambda_rate is not None:
            check_lambda(self.lambda_rate)
        if self.init_from and self.bk_sdm_path:
            raise ValueError(
                f"the checkpoint {self.init_from} says itself which parts it borrows: leave bk_sdm_path out"
            )
        if self.bk_sdm_path is None and (self.use_pretrained_vae, self.use_pretrained_unet) != (None, None):
            raise ValueError(
                "use_pretrained_vae and use_pretrained_unet choose parts of a folder: "
                "name it with bk_sdm_path"
            )

    def model(self) -> DiffusionHyperprior:
        """The codec that the run starts with.

        Raises:
            CheckpointError: the folder to start from, or whose parts are taken, is missing or damaged.
        """
        from dhp_lab.codec.create import with_settings, create_diffusion_hyperprior_model
        from dhp_lab.codec.model import DiffusionHyperprior

        if self.init_from:
            settings = {name: getattr(self, name) for name in ("transmit", "passes", "dead_zone")}
            return self._spared(
                with_settings(DiffusionHyperprior.from_pretrained(self.init_from), **settings)
            )
        names = ["N", "M", "diffusion_steps", "transmit", "passes", "dead_zone"]
        names += (
            ["schedule"]
            if self.bk_sdm_path is None
            else ["bk_sdm_path", "use_pretrained_vae", "use_pretrained_unet"]
        )
        given = {name: value for name in names if (value := getattr(self, name)) is not None}
        if self.bk_sdm_path is None:
            return self._spared(create_diffusion_hyperprior_model(**given))
        from dhp_lab.codec.create import create_bk_sdm_compression_model

        return self._spared(create_bk_sdm_compression_model(**given))

    def _spared(self, model: DiffusionHyperprior) -> DiffusionHyperprior:
        return model.low_memory() if self.low_memory else model

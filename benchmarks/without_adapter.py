"""`dhp train`, with the adapter on the U-Net's input held at zero: what does z lose that way?

    python benchmarks/without_adapter.py --data_path train --output_dir adapter-at-nothing \\
        --init_from codec/final_checkpoint --image_size 64 --batch_size 32 --lr 2e-3 \\
        --epochs 0 --denoiser_epochs 8 --joint_epochs 0

The options are those of `dhp train`, and their values as in the card of `data/checkpoints/scenes-codec`;
`scenes_codec.py --variant` measures the result.
"""

from __future__ import annotations

import argparse
from dataclasses import MISSING, fields

import torch

from dhp_lab.codec.model import DiffusionHyperprior
from dhp_lab.training.codec_config import TrainingConfig
from dhp_lab.training.codec_start import initial_model
from dhp_lab.training.codec_trainer import Trainer

KINDS = {"int": int, "float": float, "str": str}


def hold_adapter_at_zero(model: DiffusionHyperprior) -> None:
    """Set the adapter's last layer to 0, and keep it there: it gets no gradient.

    Raises:
        SystemExit: the codec has no adapter.
    """
    adapter = getattr(model.denoiser, "adapter", None)
    if adapter is None:
        raise SystemExit("this codec has no adapter: start from one around a Stable Diffusion folder")
    for parameter in adapter.exit.parameters():
        with torch.no_grad():
            parameter.zero_()
        parameter.register_hook(torch.zeros_like)


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the options: a field of ``TrainingConfig`` each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for field in fields(TrainingConfig):
        kind = field.type.removesuffix(" | None")
        default = None if field.default is MISSING else field.default
        settings = {"default": default, "required": field.default is MISSING}
        if kind == "bool":
            parser.add_argument(f"--{field.name}", action=argparse.BooleanOptionalAction, **settings)
        else:
            parser.add_argument(f"--{field.name}", type=KINDS[kind], **settings)
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Train."""
    config = TrainingConfig(**vars(make_parser().parse_args(arguments)))
    model = initial_model(config)
    hold_adapter_at_zero(model)
    print(f"best checkpoint: {Trainer(config, model=model).run()}")


if __name__ == "__main__":
    main()

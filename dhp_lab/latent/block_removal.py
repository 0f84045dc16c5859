"""Smaller U-Nets by block removal: whole layers and stages go, the rest is distilled (BK-SDM).

                  full               kept               goes in
    down stages   R A | R A          R A                base, small, tiny: the last layer of each stage
    mid block     R A R              -                  small, tiny: all of it
    up stages     R A | R A | R A    R A | R A          base, small, tiny: the middle layer of each stage
    innermost     down, up           -                  tiny: both stages, and the resampling that led there

Kim et al. 2023, "BK-SDM: A Lightweight, Fast, and Cheap Version of Stable Diffusion". R is a residual block,
A its attention, where the stage has one. An up stage has a layer more than its down stage: its first takes
what comes from below, its last the skip of the stage above, and both have inputs of their own width. So the
middle one goes, and what stays keeps its shape. A U-Net with one layer in its down stages has none to spare:
there is no base, and small and tiny leave its layers as they are.

What stays keeps its weights and is then trained on three losses at once, each a mean squared error, of weight
1 in the paper:

| loss    | student's         | minus                                     | paper    |
|---------|-------------------|-------------------------------------------|----------|
| task    | output            | the noise, or v, that was drawn           | L_Task   |
| output  | output            | the teacher's output                      | L_OutKD  |
| feature | end of each stage | the teacher's, same stage; sum over these | L_FeatKD |

``smaller_unet`` takes any UNet2DConditionModel of diffusers, ``training.distillation.distil`` trains one on
captioned scenes.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from diffusers import UNet2DConditionModel

SIZES = ("full", "base", "small", "tiny")
BY_STAGE = (  # settings of a U-Net with a value for each stage, the outermost first
    "block_out_channels",
    "down_block_types",
    "layers_per_block",
    "attention_head_dim",
    "cross_attention_dim",
    "only_cross_attention",
    "transformer_layers_per_block",
)


def smaller_config(config: Mapping, size: str) -> dict:
    """The settings of the smaller U-Net; for those of Stable Diffusion, the published ones of BK-SDM.

    Args:
        config: of a UNet2DConditionModel.
        size: "full" (nothing goes), "base", "small" or "tiny".

    Raises:
        ValueError: there is no such size, or this U-Net lacks what it takes out.
    """
    _check_size(config, size)
    layers = _layers(config)
    smaller = {name: value for name, value in config.items() if not name.startswith("_")}
    if size == "full":
        return smaller
    if min(layers) > 1:
        one_number = isinstance(config["layers_per_block"], int)
        smaller["layers_per_block"] = layers[0] - 1 if one_number else [count - 1 for count in layers]
    if size != "base":
        smaller["mid_block_type"] = None
    if size == "tiny":
        for name in BY_STAGE:
            if isinstance(smaller.get(name), (list, tuple)):
                smaller[name] = list(smaller[name])[:-1]
        smaller["up_block_types"] = list(smaller["up_block_types"])[1:]
    return smaller


def _check_size(config: Mapping, size: str) -> None:
    widths = tuple(config["block_out_channels"])
    layers = min(_layers(config))
    if size not in SIZES:
        raise ValueError(f"size must be one of {', '.join(SIZES)}, got {size!r}")
    if size != "full" and config.get("reverse_transformer_layers_per_block"):
        raise ValueError(
            "stages whose layers have attentions of different depths are not supported, got "
            f"reverse_transformer_layers_per_block {config['reverse_transformer_layers_per_block']}"
        )
    if size == "base" and layers < 2:
        raise ValueError(
            f"'base' takes a layer out of each stage, which needs 2 of them, got layers_per_block {layers}; "
            "choose 'small' or 'tiny'"
        )
    if size == "small" and config["mid_block_type"] is None:
        raise ValueError(
            "'small' takes the mid block out, got a U-Net with mid_block_type None; choose 'tiny'"
        )
    if size == "tiny" and (len(widths) < 2 or widths[-1] != widths[-2]):
        raise ValueError(
            "'tiny' takes the innermost stage out, which must be as wide as the one around it, "
            f"got block_out_channels {widths}; choose 'small'"
        )


def smaller_unet(unet: UNet2DConditionModel, size: str) -> UNet2DConditionModel:
    """A new U-Net without the blocks that ``size`` takes out, with copies of the other weights.

    Arguments and errors as for ``smaller_config``; ``unet`` stays as it is. Device, dtype and mode follow it.
    """
    with torch.device("meta"):  # shapes alone: no weights are drawn
        student = UNet2DConditionModel.from_config(smaller_config(unet.config, size))
    weights = unet.state_dict()
    kept = {name: weights[source(name, unet.config, size)].clone() for name in student.state_dict()}
    student.load_state_dict(kept, assign=True)
    return student.train(unet.training)


def source(name: str, config: Mapping, size: str) -> str:
    """The name, in the full U-Net, of weights of the smaller one.

    Args:
        name: in the smaller one's ``state_dict``.
        config: of the full U-Net.
        size: of the smaller one.
    """
    parts = name.split(".")
    layers = _layers(config)
    if parts[0] != "up_blocks":
        return name  # down stages: the first layers stay, and their numbers
    stage = int(parts[1])
    if size == "tiny":
        stage += 1  # the innermost one is gone
    if parts[2] in ("resnets", "attentions") and size != "full" and min(layers) > 1:
        count = layers[::-1][stage] + 1  # of layers, in this up stage of the full U-Net
        layer = int(parts[3])
        if layer >= count // 2:
            layer += 1  # the middle one is gone
        parts[3] = str(layer)
    return ".".join(("up_blocks", str(stage), *parts[2:]))


def _layers(config: Mapping) -> list[int]:
    """How many layers each down stage has, the outermost first."""
    given = config["layers_per_block"]
    return [given] * len(config["block_out_channels"]) if isinstance(given, int) else list(given)

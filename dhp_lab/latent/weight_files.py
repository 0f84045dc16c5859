"""Which file in a part's folder holds its weights: the plain one, or a variant such as fp16."""

from __future__ import annotations

from pathlib import Path

from dhp_lab.core.weights import CheckpointError

DIFFUSERS_STEM = "diffusion_pytorch_model"  # of diffusers' networks
TRANSFORMERS_STEM = "model"  # of transformers' networks
OTHER_FORMATS = (".bin", ".ckpt", ".h5", ".msgpack", ".onnx", ".pt", ".pth", ".safetensors")


def weights_variant(folder: Path, stem: str) -> str | None:
    """The variant in which a part's weights are stored, as ``from_pretrained`` takes it.

    Args:
        folder: of the part. stem: of the plain file's name, stem.safetensors.

    Returns:
        "" for the plain file or its shards; "fp16" for stem.fp16.safetensors or its shards; None where there
        are no weights of any kind.

    Raises:
        CheckpointError: there are others alone; the message names them, and what to do.
    """
    index = f"{stem}.safetensors.index."
    if (folder / f"{stem}.safetensors").is_file() or (folder / f"{index}json").is_file():
        return ""
    names = sorted(path.name for path in folder.glob("*") if path.is_file())
    whole = [name.removeprefix(f"{stem}.") for name in names if name.startswith(f"{stem}.")]
    found = [name.removesuffix(".safetensors") for name in whole if name.endswith(".safetensors")]
    shards = [name.removeprefix(index) for name in names if name.startswith(index)]
    found += [name.removesuffix(".json") for name in shards]
    if found:
        return "fp16" if "fp16" in found else found[0]
    others = [name for name in names if name.endswith(OTHER_FORMATS)]
    if not others:
        return None
    raise CheckpointError(
        f"the weights at {folder} are {', '.join(others)}: only {stem}.safetensors and its variants, such as "
        f"{stem}.fp16.safetensors, are opened. Convert them by "
        "diffusers.DiffusionPipeline.from_pretrained(FOLDER).save_pretrained(NEW_FOLDER)"
    )

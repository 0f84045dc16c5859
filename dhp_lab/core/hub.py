"""Checkpoints in folders and on the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dhp_lab.core.weights import CONFIG, WEIGHTS, CheckpointError


def find_checkpoint(name: str | Path, patterns: Sequence[str] = (CONFIG, WEIGHTS)) -> Path:
    """A checkpoint's folder: the path itself if it is there, else a repository of the Hugging Face hub,
    "owner/name".

    Args:
        patterns: of the repository's files that are wanted.

    Raises:
        CheckpointError: there is no such folder, and the hub has no such repository or cannot be reached.
    """
    if Path(name).is_dir() or str(name).count("/") != 1 or str(name).startswith((".", "/", "~")):
        return Path(name)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
    )

    try:
        return Path(snapshot_download(str(name), allow_patterns=list(patterns)))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise CheckpointError(
            f"{name} is neither a folder here nor a repository that the hub gives out: {reason}"
        ) from None


def upload_checkpoint(folder: str | Path, repository: str) -> str:
    """Upload a checkpoint folder to the Hugging Face hub, where the user is logged in; returns the address."""
    from huggingface_hub import HfApi

    api = HfApi()
    api.create_repo(repository, exist_ok=True)
    return api.upload_folder(
        repo_id=repository, folder_path=str(folder), allow_patterns=[CONFIG, WEIGHTS, "README.md"]
    )

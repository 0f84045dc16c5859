"""Checkpoints in folders and on the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dhp_lab.core.files import is_disk_error
from dhp_lab.core.weights import CONFIG, REALISM_CONFIG, REALISM_WEIGHTS, WEIGHTS, CheckpointError

CHECKPOINT_FILES = (CONFIG, WEIGHTS, REALISM_CONFIG, REALISM_WEIGHTS)


def find_checkpoint(name: str | Path, patterns: Sequence[str] = CHECKPOINT_FILES) -> Path:
    """Return a checkpoint's folder: the path itself if it is there, else that of a repository on the Hugging
    Face hub, which is downloaded.

    Args:
        name: a folder, or "owner/name" on the hub. What looks like a path is never looked for on the hub,
            and returned as it is: see ``is_repository``.
        patterns: of the repository's files that are fetched, where they are there.

    Raises:
        CheckpointError: there is no such folder, and the hub has no such repository or cannot be reached.
        OSError: the disk's own trouble.
    """
    if Path(name).is_dir() or not is_repository(name):
        return Path(name)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(str(name), allow_patterns=list(patterns)))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        if is_disk_error(error):
            raise
        reason = str(error).strip().splitlines()[0]
        raise CheckpointError(
            f"{name} is neither a folder here nor a repository that the hub gives out: {reason}"
        ) from None


def is_repository(name: str | Path) -> bool:
    """Whether a name can only be one on the hub, "owner/name".

    A path (/a, ./a, ../a, ~/a, a/b/c), and one of which a part is there (a folder ``a`` for "a/b"), is not.
    """
    owner, slash, rest = str(name).partition("/")
    if not (owner and slash and rest) or "/" in rest or owner.startswith((".", "~")):
        return False
    return not Path(owner).exists()


def upload_checkpoint(folder: str | Path, repository: str) -> str:
    """Upload a checkpoint's folder to the Hugging Face hub, where the user is logged in.

    Args:
        folder: with config.json, model.safetensors and, if there are any, a realism part and README.md.
        repository: "owner/name"; made where it does not exist.

    Returns:
        The address of the commit.
    """
    from huggingface_hub import HfApi

    api = HfApi()
    api.create_repo(repository, exist_ok=True)
    return api.upload_folder(
        repo_id=repository, folder_path=str(folder), allow_patterns=[*CHECKPOINT_FILES, "README.md"]
    )

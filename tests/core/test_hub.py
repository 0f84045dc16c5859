"""Checkpoints by their name on the Hugging Face hub, which here is a stand-in: tests run offline."""

from __future__ import annotations

import huggingface_hub
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError

from dhp_lab.codec.create import create_diffusion_hyperprior_model
from dhp_lab.codec.model import DiffusionHyperprior
from dhp_lab.core.hub import find_checkpoint, is_repository
from dhp_lab.core.weights import CheckpointError


def test_a_folder_that_is_there_needs_no_hub(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub, "snapshot_download", None)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "owner" / "name").mkdir(parents=True)
    assert str(find_checkpoint("owner/name")) == "owner/name"
    assert find_checkpoint(tmp_path / "missing") == tmp_path / "missing"


def test_a_model_goes_to_the_hub_and_comes_back(tmp_path, monkeypatch):
    hub = {}

    class Api:
        def create_repo(self, name, exist_ok):
            assert exist_ok
            hub[name] = tmp_path / name

        def upload_folder(self, repo_id, folder_path, allow_patterns):
            hub[repo_id].mkdir(parents=True)
            for pattern in ("config.json", "model.safetensors"):
                assert pattern in allow_patterns
                (hub[repo_id] / pattern).write_bytes((type(tmp_path)(folder_path) / pattern).read_bytes())
            return f"address of {repo_id}"

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda name, allow_patterns: str(hub[name]))
    model = create_diffusion_hyperprior_model(8, 16, 10)
    assert model.push_to_hub("reader/codec") == "address of reader/codec"
    again = DiffusionHyperprior.from_pretrained("reader/codec")
    assert all(
        (again.state_dict()[name] - value).abs().max() < 1e-3
        for name, value in model.state_dict().items()
        if value.numel()
    )


def test_a_name_that_the_hub_does_not_give_out_is_one_clear_error(monkeypatch):
    def refuse(name, allow_patterns):
        raise LocalEntryNotFoundError("cannot reach the hub\nmore")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(
        CheckpointError, match="reader/codec is neither a folder here nor .*: cannot reach the hub"
    ):
        DiffusionHyperprior.from_pretrained("reader/codec")


@pytest.mark.parametrize(
    "name",
    [
        "./best_chekpoint",
        "../best_chekpoint",
        "/best_chekpoint",
        "~/model",
        "outputs/best_chekpoint",
        "outputs/",
    ],
)
def test_a_mistyped_folder_is_never_asked_of_the_hub(tmp_path, monkeypatch, name):
    monkeypatch.setattr(huggingface_hub, "snapshot_download", None)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "outputs" / "best_checkpoint").mkdir(parents=True)
    with pytest.raises(CheckpointError, match="no checkpoint at .*: No such file or directory"):
        DiffusionHyperprior.from_pretrained(name)
    assert not is_repository(name) and is_repository("owner/name")


def test_a_full_disk_is_not_called_a_missing_repository(monkeypatch):
    def fill(name, allow_patterns):
        raise OSError(28, "No space left on device", "cache")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fill)
    with pytest.raises(OSError, match="No space left on device"):
        find_checkpoint("reader/codec")

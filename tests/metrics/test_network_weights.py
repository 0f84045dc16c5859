"""The weights of the usual networks: where they lie, what they must be, how they are fetched."""

from __future__ import annotations

import hashlib
import http.server
import re
import socket
import threading
import time
from functools import partial

import pytest
import torch
from oracles import seeded

from dhp_lab.core import download
from dhp_lab.core.download import DownloadError
from dhp_lab.metrics import feature_networks
from dhp_lab.metrics.feature_networks import CLIP_FILES, ORIGINALS, Original, clip, obtain
from dhp_lab.metrics.generative import clip_score, fid, improved_precision_recall, inception_score, kid, lpips


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A site on this machine that serves the folder ``site``; yields the folder and its address."""
    folder = tmp_path / "site"
    folder.mkdir()
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=folder)
    monkeypatch.setattr(http.server.SimpleHTTPRequestHandler, "log_message", lambda *args: None)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr(download, "SCHEME", "http://")  # this machine's own sites have no certificate
    yield folder, f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


def pictures(count, size=40, seed=0):
    return torch.rand(count, 3, size, size, generator=seeded(seed))


def named(data):
    return f"some-weights-{hashlib.sha256(data).hexdigest()[:8]}.pth"


def original(data, limit=100_000):
    return Original(hashlib.sha256(data).hexdigest(), limit)


@pytest.mark.parametrize(
    "call, file, address",
    [
        (
            lambda x: fid(x, x),
            "hub/checkpoints/weights-inception-2015-12-05-6726825d.pth",
            "https://github.com/toshas/torch-fidelity",
        ),
        (
            lambda x: kid(x, x),
            "hub/checkpoints/weights-inception-2015-12-05-6726825d.pth",
            "https://github.com/toshas/torch-fidelity",
        ),
        (
            lambda x: improved_precision_recall(x, x),
            "hub/checkpoints/weights-inception-",
            "https://github.com/toshas",
        ),
        (
            lambda x: inception_score(x, splits=1),
            "hub/checkpoints/weights-inception-",
            "https://github.com/toshas",
        ),
        (
            lambda x: lpips(x, x),
            "hub/checkpoints/alexnet-owt-7be5be79.pth",
            "https://download.pytorch.org/models/alexnet",
        ),
        (
            lambda x: clip_score(x, ["a", "b"]),
            "data/clip-vit-large-patch14/config.json",
            "https://huggingface.co/openai/clip-vit",
        ),
    ],
    ids=["fid", "kid", "precision", "inception_score", "lpips", "clip"],
)
def test_offline_a_missing_file_is_named_with_its_place_and_address(hub, tmp_path, call, file, address):
    with pytest.raises(DownloadError) as error:
        call(pictures(2))
    text = str(error.value)
    assert (
        text.startswith(f"{tmp_path}/{file}") and f"lay {address}" in text and "network of your own" in text
    )
    assert f" into {(tmp_path / file).parent} by hand" in text and "\n" not in text
    assert "is missing: HF_HUB_OFFLINE is set, nothing is fetched" in text


def test_every_original_has_a_digest_and_what_its_name_says_of_it():
    for name, (sha256, limit) in ORIGINALS.items():
        assert re.fullmatch("[0-9a-f]{64}", sha256) and 0 < limit < 2**31
        if name.endswith(".pth"):  # the authors' name ends in the first digits
            assert name.removesuffix(".pth").endswith(f"-{sha256[:8]}")
    assert set(CLIP_FILES) == {name for name in ORIGINALS if not name.endswith(".pth")}


def test_another_clip_is_not_used(hub, tmp_path):
    folder = tmp_path / "data/clip-vit-large-patch14"
    folder.mkdir(parents=True)
    (folder / CLIP_FILES[0]).write_text("{}")
    with pytest.raises(DownloadError, match=rf"{CLIP_FILES[0]} is not the original: its sha256 is 44136fa3"):
        clip(pictures(1), ["a"])


def test_of_several_missing_files_all_are_named(hub, tmp_path, monkeypatch):
    empty = {CLIP_FILES[i]: original(b"") for i in (0, 2)}
    monkeypatch.setattr(feature_networks, "ORIGINALS", ORIGINALS | empty)
    folder = tmp_path / "data/clip-vit-large-patch14"
    folder.mkdir(parents=True)
    (folder / CLIP_FILES[0]).touch()
    (folder / CLIP_FILES[2]).touch()
    with pytest.raises(DownloadError) as error:
        clip(pictures(1), ["a"])
    assert str(error.value).startswith(str(folder / CLIP_FILES[1]))
    assert f"/{CLIP_FILES[1]}, {CLIP_FILES[3]}, {CLIP_FILES[4]} into {folder} by hand" in str(error.value)


def test_a_site_that_cannot_be_reached_is_one_clear_error(tmp_path, site):
    with pytest.raises(
        DownloadError,
        match=rf"^{tmp_path}/a/b.bin is missing: cannot reach http://127.0.0.1:9/b.bin \(.*refused",
    ):
        obtain("http://127.0.0.1:9/b.bin", tmp_path / "a", original(b""))
    with pytest.raises(DownloadError, match=r"b.bin is missing: http://127.*: the site answers 404"):
        obtain(f"{site[1]}b.bin", tmp_path / "a", original(b""))


def test_a_site_that_never_answers_is_not_waited_for(tmp_path, site, monkeypatch):
    monkeypatch.setattr(download, "TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        start = time.monotonic()
        with pytest.raises(
            DownloadError, match=r"b.bin is missing: cannot reach http://127\S+/b.bin \(timed out\)"
        ):
            obtain(f"http://127.0.0.1:{silent.getsockname()[1]}/b.bin", tmp_path, original(b""))
        assert 0.2 <= time.monotonic() - start < 5


def test_a_missing_file_is_fetched_once_and_checked_by_its_sha256(tmp_path, site):
    data = b"weights" * 999
    (site[0] / "a.pth").write_bytes(data)
    path = obtain(f"{site[1]}a.pth", tmp_path / "new", original(data))
    assert path == tmp_path / "new" / "a.pth" and path.read_bytes() == data
    (site[0] / "a.pth").unlink()
    assert obtain(f"{site[1]}a.pth", tmp_path / "new", original(data)) == path, "it is not fetched again"

    (site[0] / "b.pth").write_bytes(data)
    with pytest.raises(DownloadError, match="sent is not the original: its sha256 is .*, and was removed"):
        obtain(f"{site[1]}b.pth", tmp_path / "new", original(b"other"))
    with pytest.raises(DownloadError, match="would have 6993 bytes, at most 6992 are expected"):
        obtain(f"{site[1]}b.pth", tmp_path / "new", original(data, limit=6992))
    assert list((tmp_path / "new").iterdir()) == [path], "nothing is left of it"
    path.write_bytes(data[:-1])
    with pytest.raises(
        DownloadError, match=rf"{path} is not the original: .*; move it away, and it is fetched again"
    ):
        obtain(f"{site[1]}a.pth", tmp_path / "new", original(data))


class Trap:
    """What pickle would carry out on loading."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_code_in_a_file_of_weights_is_not_run(hub, tmp_path, monkeypatch):
    hub.mkdir(parents=True)
    torch.save({"weight": torch.zeros(2), "trap": Trap(tmp_path / "sprung")}, tmp_path / "trap")
    name = named((tmp_path / "trap").read_bytes())
    monkeypatch.setitem(ORIGINALS, name, original((tmp_path / "trap").read_bytes()))
    (tmp_path / "trap").rename(hub / name)
    with pytest.raises(Exception, match="Weights only load failed"):
        feature_networks._obtain_tensors(f"https://example.com/{name}")
    assert not (tmp_path / "sprung").exists()
    torch.load(hub / name, weights_only=False)
    assert (tmp_path / "sprung").exists(), "the trap works"

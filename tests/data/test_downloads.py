"""Downloads, against a site on this machine: resumed, checked, and clear where they cannot be had."""

import dataclasses
import gzip
import hashlib
import http.server
import re
import threading

import numpy as np
import pytest
from PIL import Image

from dhp_lab.core import download as fetching
from dhp_lab.core.download import DownloadError
from dhp_lab.data import downloads as data
from dhp_lab.data.downloads import DATASETS, Dataset, download

LABELS = bytes(range(250)) * 40  # 10 000 bytes of content


class Site(http.server.BaseHTTPRequestHandler):
    """Serves ``files``; understands Range unless ``ranges`` is False; ends a body after ``cut`` bytes."""

    def do_GET(self):
        server = self.server
        server.requests.append(self.headers.get("Range"))
        if server.sends_on:
            self.send_response(302)
            self.send_header("Location", server.sends_on)
            return self.end_headers()
        body = server.files.get(self.path.rsplit("/", 1)[1])
        if body is None:
            return self.send_error(404)
        match = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        start = int(match[1]) if match and server.ranges else 0
        if start and start >= len(body):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(body)}")
            self.send_header("Content-Length", "0")
            return self.end_headers()
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        if server.lengths:
            self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        self.wfile.write(body[start:][: server.cut])

    def log_message(self, *args):
        pass


@pytest.fixture
def site(monkeypatch):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Site)
    server.files = {"a.gz": gzip.compress(LABELS), "b.gz": gzip.compress(LABELS[::-1])}
    server.requests, server.ranges, server.lengths, server.cut = [], True, True, None
    server.sends_on = None
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(fetching, "SCHEME", "http://")  # a site of this machine has no certificate
    files = {
        "a.gz": (len(LABELS), hashlib.sha256(LABELS).hexdigest()),
        "b.gz": (len(LABELS), hashlib.sha256(LABELS[::-1]).hexdigest()),
    }
    url = f"http://127.0.0.1:{server.server_port}/files/{{}}"
    monkeypatch.setitem(DATASETS, "toy", Dataset("toy_set", url, data._unpacked, files))
    yield server
    server.shutdown()
    server.server_close()


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_fetches_checks_and_does_not_fetch_again(site, tmp_path):
    lines = []
    folder = download("toy", root=tmp_path, report=lines.append)
    assert folder == tmp_path / "toy_set" and names(folder) == ["a.gz", "b.gz"]
    assert gzip.decompress((folder / "b.gz").read_bytes()) == LABELS[::-1]
    assert [line.split(") ")[1] for line in lines] == ["fetched, checked"] * 2
    assert download("toy", root=tmp_path, report=lines.append) == folder
    assert len(site.requests) == 2 and lines[-1].endswith("(2 of 2) was there, checked")


def test_dhp_data_is_the_default_root(site, tmp_path, monkeypatch):
    monkeypatch.setenv("DHP_DATA", str(tmp_path / "sets"))
    assert download("toy") == tmp_path / "sets" / "toy_set"


def test_a_broken_transfer_is_resumed(site, tmp_path):
    site.cut = 100
    with pytest.raises(DownloadError, match=r"broke off after 100 of \d+ bytes; try again"):
        download("toy", root=tmp_path)
    assert names(tmp_path / "toy_set") == ["a.gz.part"]
    site.cut = None
    download("toy", root=tmp_path)
    assert site.requests == [None, "bytes=100-", None]
    assert names(tmp_path / "toy_set") == ["a.gz", "b.gz"]


def test_a_site_without_ranges_starts_again(site, tmp_path):
    site.ranges = False
    (tmp_path / "toy_set").mkdir()
    (tmp_path / "toy_set" / "a.gz.part").write_bytes(site.files["a.gz"][:50])
    download("toy", root=tmp_path)
    assert site.requests[0] == "bytes=50-" and names(tmp_path / "toy_set") == ["a.gz", "b.gz"]


def test_a_part_that_is_complete_is_not_fetched_again(site, tmp_path):
    (tmp_path / "toy_set").mkdir()
    (tmp_path / "toy_set" / "a.gz.part").write_bytes(site.files["a.gz"])
    download("toy", root=tmp_path)
    assert len(site.requests) == 2 and names(tmp_path / "toy_set") == ["a.gz", "b.gz"]


def test_a_part_longer_than_the_file_is_fetched_anew(site, tmp_path):
    (tmp_path / "toy_set").mkdir()
    (tmp_path / "toy_set" / "a.gz.part").write_bytes(bytes(5000))
    download("toy", root=tmp_path)
    assert site.requests == ["bytes=5000-", None, None] and names(tmp_path / "toy_set") == ["a.gz", "b.gz"]


@pytest.mark.parametrize(
    "body",
    [gzip.compress(b"other"), b"<html>not here</html>", gzip.compress(LABELS)[:-30]],
    ids=["other", "html", "cut off"],
)  # the bytes hold the second in which they were made
def test_wrong_content_is_removed(site, tmp_path, body):
    site.files["a.gz"] = body
    with pytest.raises(DownloadError, match=r"a\.gz is not the original: .*expected [0-9a-f]{64}; what came"):
        download("toy", root=tmp_path)
    assert names(tmp_path / "toy_set") == []


def test_a_wrong_file_at_the_place_is_left_to_its_owner(site, tmp_path):
    (tmp_path / "toy_set").mkdir()
    (tmp_path / "toy_set" / "a.gz").write_bytes(gzip.compress(b"mine"))
    with pytest.raises(DownloadError, match="not the original.*move it away"):
        download("toy", root=tmp_path)
    assert site.requests == [] and gzip.decompress((tmp_path / "toy_set" / "a.gz").read_bytes()) == b"mine"


@pytest.mark.parametrize("address", ["http://127.0.0.1:9/a.gz", "ftp://127.0.0.1/a.gz", "file:///etc/passwd"])
def test_only_encrypted_addresses_are_fetched(tmp_path, address):
    with pytest.raises(DownloadError, match=f"{address} is not an address that starts with https://"):
        fetching.fetch(address, tmp_path / "a.part", limit=100)
    assert names(tmp_path) == []


@pytest.mark.parametrize("address", ["ftp://127.0.0.1/a.gz", "https://127.0.0.1:9/a.gz"])
def test_a_site_that_sends_on_to_an_address_of_another_kind_is_not_followed(site, tmp_path, address):
    """The other way round than in earnest, since the site here is not encrypted."""
    site.sends_on = address
    with pytest.raises(DownloadError, match=f"{address} is not an address that starts with http://"):
        download("toy", root=tmp_path)
    assert names(tmp_path / "toy_set") == []


@pytest.mark.parametrize("lengths", [True, False])
def test_an_endless_file_is_cut_short(site, tmp_path, lengths):
    site.files["a.gz"], site.lengths = bytes(2_000_000), lengths
    with pytest.raises(DownloadError, match="another file"):
        download("toy", root=tmp_path)
    assert names(tmp_path / "toy_set") == []


def test_missing_on_the_site(site, tmp_path):
    del site.files["a.gz"]
    with pytest.raises(
        DownloadError, match=r"/files/a\.gz: the site answers 404 .* copy a\.gz \.\. b\.gz by hand"
    ):
        download("toy", root=tmp_path)


def test_offline_says_where_to_put_the_files(site, tmp_path):
    site.shutdown()
    site.server_close()
    with pytest.raises(
        DownloadError, match=r"cannot reach http://127\S+/a\.gz .*by hand to .*DHP_DATA"
    ) as caught:
        download("toy", root=tmp_path)
    assert str(tmp_path / "toy_set") in str(caught.value) and "\n" not in str(caught.value)


def test_unknown_name():
    with pytest.raises(ValueError, match="no data set 'imagenet'; choose one of kodak, fashion-mnist"):
        download("imagenet")


def test_pictures_are_checked_by_their_pixels(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    for level in (1, 9):
        Image.fromarray(pixels).save(tmp_path / "x.png", compress_level=level)
        assert data._rgb_bytes(tmp_path / "x.png", 1800) == pixels.tobytes()
    assert data._rgb_bytes(tmp_path / "x.png", 1797) == b""


def test_the_table_is_complete():
    assert [len(DATASETS[name].files) for name in ("kodak", "fashion-mnist")] == [24, 4]
    for dataset in (DATASETS["kodak"], DATASETS["fashion-mnist"]):
        assert len({digest for _, digest in dataset.files.values()}) == len(dataset.files)
        assert all(re.fullmatch("[0-9a-f]{64}", digest) for _, digest in dataset.files.values())
        assert dataset.url.startswith("https://") and dataset.url.count("{}") == 1


def test_a_disk_that_fails_is_not_called_a_wrong_file(site, tmp_path, monkeypatch):
    download("toy", root=tmp_path)

    def fail(path, size):
        raise OSError(5, "Input/output error", str(path))

    monkeypatch.setitem(DATASETS, "toy", dataclasses.replace(DATASETS["toy"], content=fail))
    with pytest.raises(OSError, match="Input/output error") as caught:
        download("toy", root=tmp_path)
    assert not isinstance(caught.value, DownloadError)
    assert names(tmp_path / "toy_set") == ["a.gz", "b.gz"]

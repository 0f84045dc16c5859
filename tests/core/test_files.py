"""Files that appear whole or not at all, and whose errors name them."""

from __future__ import annotations

import io
import os

import pytest

from dhp_lab.core.files import CHUNK, check_writable, read_at_most, write_all_atomic, write_atomic


def test_an_error_names_the_file_and_not_the_one_beside_it(tmp_path):
    (tmp_path / "report.json").mkdir()
    with pytest.raises(IsADirectoryError) as raised:
        write_atomic(tmp_path / "report.json", b"much work")
    assert raised.value.filename == str(tmp_path / "report.json")
    with pytest.raises(FileNotFoundError) as raised:
        write_all_atomic({tmp_path / "none" / "a": b"", tmp_path / "b": b""})
    assert raised.value.filename == str(tmp_path / "none" / "a")
    assert os.listdir(tmp_path) == ["report.json"]


def test_a_place_that_cannot_be_written_is_noticed_beforehand(tmp_path):
    check_writable(tmp_path / "new" / "report.json")
    (tmp_path / "new" / "report.json").write_bytes(b"old")
    check_writable(tmp_path / "new" / "report.json")
    assert (tmp_path / "new" / "report.json").read_bytes() == b"old"
    assert os.listdir(tmp_path / "new") == ["report.json"]
    with pytest.raises(IsADirectoryError, match="new"):
        check_writable(tmp_path / "new")
    with pytest.raises(FileExistsError):
        check_writable(tmp_path / "new" / "report.json" / "report.json")


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root writes anywhere")
def test_a_folder_that_is_read_only_is_noticed(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError, match=r"report\.json"):
        check_writable(tmp_path / "report.json")


@pytest.mark.parametrize("size", [0, 1, 9, 10, 11, 3 * CHUNK + 5])
@pytest.mark.parametrize("limit", [0, 10, 2 * CHUNK + 1])
def test_a_stream_is_read_to_its_end_or_its_limit(size, limit):
    data = os.urandom(size)
    stream = io.BytesIO(data)
    assert read_at_most(stream, limit) == data[:limit] and stream.tell() == min(size, limit)
